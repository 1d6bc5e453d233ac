// A table of fields drives the reading, so that a new setting is one row. libyaml gives a document
// whose aliases are references, so that a small file stays small; every loop here is over what was
// written.
#include "agent/workspace_config.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/file.h"

enum { MAX_YAML_BYTES = 1 << 20, MAX_RULES = 1000, MAX_DEPTH_BYTES = 4096 };

enum field_kind {
    FIELD_TEXT,
    FIELD_PATH,
    FIELD_COUNT,
    FIELD_TEMPERATURE,
    FIELD_THINKING,
    FIELD_PATHS,
    FIELD_NAMES,
    FIELD_ALLOW,
};

struct field {
    const char *group, *name; // group "" is the top
    enum field_kind kind;
    size_t offset;
    uint32_t min, max; // FIELD_COUNT
};

#define AT(member) offsetof(struct workspace_config, member)
static const struct field fields[] = {
    {"server", "url", FIELD_TEXT, AT(server_url), 0, 0},
    {"server", "model", FIELD_TEXT, AT(server_model), 0, 0},
    {"server", "key_file", FIELD_PATH, AT(key_file), 0, 0},
    {"", "model", FIELD_PATH, AT(model_file), 0, 0},
    {"", "timeout", FIELD_COUNT, AT(timeout_s), 1, 7 * 86400},
    {"", "max_turns", FIELD_COUNT, AT(max_turns), 1, 1000},
    {"", "max_tokens", FIELD_COUNT, AT(max_tokens), 1, 1 << 20},
    {"", "temperature", FIELD_TEMPERATURE, AT(temperature), 0, 0},
    {"", "thinking", FIELD_THINKING, AT(thinking), 0, 0},
    {"bootstrap", "file_bytes", FIELD_COUNT, AT(file_bytes), 256, 16 << 20},
    {"bootstrap", "total_bytes", FIELD_COUNT, AT(total_bytes), 1024, 64 << 20},
    {"exec", "dir", FIELD_PATH, AT(exec.dir), 0, 0},
    {"exec", "path", FIELD_PATHS, AT(exec.path), 0, 0},
    {"exec", "env", FIELD_NAMES, AT(exec.env), 0, 0},
    {"exec", "timeout", FIELD_COUNT, AT(exec.timeout_s), 1, 86400},
    {"exec", "output_bytes", FIELD_COUNT, AT(exec.output_bytes), 256, 16 << 20},
    {"exec", "allow", FIELD_ALLOW, AT(exec.allow), 0, 0},
};
#undef AT
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

struct reading {
    struct workspace_config *config;
    yaml_document_t *doc;
    const char *file, *dir;
    bool seen[N_FIELDS];
};

// ---- messages -------------------------------------------------------------------------------

static int line_of(const yaml_node_t *n)
{
    return (int)n->start_mark.line + 1;
}

static void field_name(const struct field *f, struct buf *out)
{
    buf_printf(out, "%s%s%s", f->group, f->group[0] != '\0' ? "." : "", f->name);
}

static void node_text(const yaml_node_t *n, struct buf *out)
{
    switch (n->type) {
    case YAML_SCALAR_NODE:
        buf_printf(out, "\"%.*s\"", (int)(n->data.scalar.length < 80 ? n->data.scalar.length : 80),
                   (const char *)n->data.scalar.value);
        break;
    case YAML_SEQUENCE_NODE: buf_z(out, "a list"); break;
    case YAML_MAPPING_NODE: buf_z(out, "a mapping"); break;
    case YAML_NO_NODE: buf_z(out, "nothing"); break;
    }
}

static bool wrong(const struct reading *r, const struct field *f, const yaml_node_t *n,
                  const char *wanted, struct err *e)
{
    struct buf name = {0}, text = {0};
    field_name(f, &name);
    node_text(n, &text);
    err_set(e, ERR_INPUT, "%.200s:%d: %s must be %s, not %s", r->file, line_of(n), buf_cstr(&name),
            wanted, buf_cstr(&text));
    buf_free(&name);
    buf_free(&text);
    return false;
}

static bool unknown(const struct reading *r, const char *group, const yaml_node_t *key,
                    struct err *e)
{
    struct buf names = {0}, text = {0};
    const char *last_group = "";
    for (size_t i = 0; i < N_FIELDS; i++) {
        const struct field *f = &fields[i];
        bool top = group[0] == '\0';
        if (!top && strcmp(f->group, group) != 0) continue;
        if (top && f->group[0] != '\0' && strcmp(f->group, last_group) == 0) continue;
        last_group = f->group;
        buf_printf(&names, "%s%s", names.n > 0 ? ", " : "",
                   top && f->group[0] != '\0' ? f->group : f->name);
    }
    node_text(key, &text);
    err_set(e, ERR_INPUT, "%.200s:%d: there is no setting %s%s%s; allowed: %s", r->file,
            line_of(key), buf_cstr(&text), group[0] != '\0' ? " in " : "", group, buf_cstr(&names));
    buf_free(&names);
    buf_free(&text);
    return false;
}

// ---- values ---------------------------------------------------------------------------------

static struct str scalar(const yaml_node_t *n)
{
    if (n->type != YAML_SCALAR_NODE) return (struct str){"", 0};
    return (struct str){(const char *)n->data.scalar.value, n->data.scalar.length};
}

static bool is_text(const yaml_node_t *n)
{
    struct str s = scalar(n);
    return s.n > 0 && s.n < MAX_DEPTH_BYTES && memchr(s.p, '\0', s.n) == NULL;
}

static bool put_text(char **slot, struct str s, struct err *e)
{
    *slot = strndup(s.p, s.n);
    return *slot != NULL || err_set(e, ERR_MEMORY, "no memory for the settings");
}

static void absolute(const struct reading *r, struct str path, struct buf *out)
{
    if (path.p[0] != '/') buf_printf(out, "%s/", r->dir);
    buf_str(out, path);
}

static bool read_path(const struct reading *r, const struct field *f, const yaml_node_t *n,
                      char **slot, struct err *e)
{
    struct buf path = {0};
    if (!is_text(n)) return wrong(r, f, n, "a path", e);
    absolute(r, scalar(n), &path);
    bool ok = path.failed ? err_set(e, ERR_MEMORY, "no memory for the settings")
                          : put_text(slot, buf_view(&path), e);
    buf_free(&path);
    return ok;
}

static bool read_count(const struct reading *r, const struct field *f, const yaml_node_t *n,
                       uint32_t *slot, struct err *e)
{
    char wanted[80], *end = NULL;
    struct str s = scalar(n);
    errno = 0;
    unsigned long v = s.n > 0 ? strtoul(s.p, &end, 10) : 0;
    if (s.n == 0 || s.p[0] < '0' || s.p[0] > '9' || *end != '\0' || errno != 0 || v < f->min ||
        v > f->max) {
        snprintf(wanted, sizeof wanted, "a whole number from %u to %u", f->min, f->max);
        return wrong(r, f, n, wanted, e);
    }
    *slot = (uint32_t)v;
    return true;
}

static bool read_temperature(const struct reading *r, const struct field *f, const yaml_node_t *n,
                             struct err *e)
{
    char *end = NULL;
    struct str s = scalar(n);
    float v = s.n > 0 ? strtof(s.p, &end) : 0;
    if (s.n == 0 || *end != '\0' || !isfinite(v) || v < 0 || v > 5)
        return wrong(r, f, n, "a number from 0 to 5", e);
    r->config->temperature = v;
    r->config->has_temperature = true;
    return true;
}

static bool read_thinking(const struct reading *r, const struct field *f, const yaml_node_t *n,
                          struct err *e)
{
    static const struct {
        const char *text;
        int value;
    } modes[] = {{"on", 1}, {"off", 0}, {"auto", -1}, {"true", 1}, {"false", 0}};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (!str_eq(scalar(n), str_from(modes[i].text))) continue;
        r->config->thinking = modes[i].value;
        return true;
    }
    return wrong(r, f, n, "on, off or auto", e);
}

static bool read_list(const struct reading *r, const struct field *f, const yaml_node_t *n,
                      struct words *slot, struct err *e)
{
    if (n->type != YAML_SEQUENCE_NODE)
        return wrong(r, f, n, f->kind == FIELD_PATHS ? "a list of folders" : "a list of names", e);
    const yaml_node_item_t *i = n->data.sequence.items.start;
    for (; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(r->doc, *i);
        struct buf path = {0};
        if (!is_text(item)) return wrong(r, f, item, "a list of texts", e);
        if (f->kind == FIELD_PATHS && memchr(scalar(item).p, ':', scalar(item).n) != NULL)
            return wrong(r, f, item, "a list of folders without a colon in them", e);
        if (f->kind == FIELD_PATHS)
            absolute(r, scalar(item), &path);
        else
            buf_str(&path, scalar(item));
        bool ok = words_put(slot, buf_view(&path), e);
        buf_free(&path);
        if (!ok) return false;
    }
    return true;
}

// ---- rules ----------------------------------------------------------------------------------

static bool read_patterns(const struct reading *r, const struct field *f, const yaml_node_t *n,
                          struct words *out, struct err *e)
{
    struct err problem = {0};
    if (n->type == YAML_SCALAR_NODE && is_text(n)) {
        if (words_split(out, scalar(n), &problem)) return true;
        return err_set(e, ERR_INPUT, "%.200s:%d: exec.allow: %s", r->file, line_of(n), problem.msg);
    }
    if (n->type != YAML_SEQUENCE_NODE || n->data.sequence.items.start == n->data.sequence.items.top)
        return wrong(r, f, n, "a list of rules, each \"- run: [program, argument, ...]\"", e);
    const yaml_node_item_t *i = n->data.sequence.items.start;
    for (; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *item = yaml_document_get_node(r->doc, *i);
        if (item->type != YAML_SCALAR_NODE)
            return wrong(r, f, item, "a list of rules whose arguments are texts", e);
        if (!words_put(out, scalar(item), &problem))
            return err_set(e, ERR_INPUT, "%.200s:%d: exec.allow: %s", r->file, line_of(item),
                           problem.msg);
    }
    return true;
}

// "**" is the rest of a command, so nothing can stand behind it, and it cannot be the program.
static bool check_patterns(const struct reading *r, const struct allow_rule *rule, struct err *e)
{
    const struct words *w = &rule->patterns;
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->p[i], "**") == 0 && (i == 0 || i + 1 < w->n))
            return err_set(e, ERR_INPUT,
                           "%.200s:%d: exec.allow: \"**\" stands for the rest of a command; it "
                           "must come last, behind the program",
                           r->file, rule->line);
    if (w->p[0][0] == '\0')
        return err_set(e, ERR_INPUT, "%.200s:%d: exec.allow: the program is empty", r->file,
                       rule->line);
    return true;
}

static bool read_rule(const struct reading *r, const struct field *f, const yaml_node_t *n,
                      struct allow_list *list, struct err *e)
{
    const yaml_node_t *run = n; // the short form: the list or text itself
    if (n->type == YAML_MAPPING_NODE) {
        const yaml_node_pair_t *p = n->data.mapping.pairs.start;
        const yaml_node_t *key =
            p < n->data.mapping.pairs.top ? yaml_document_get_node(r->doc, p->key) : n;
        if (!str_eq(scalar(key), STR("run")) || p + 1 != n->data.mapping.pairs.top) {
            if (p + 1 < n->data.mapping.pairs.top && str_eq(scalar(key), STR("run")))
                key = yaml_document_get_node(r->doc, p[1].key);
            return wrong(r, f, key, "rules with the one key \"run\"", e);
        }
        run = yaml_document_get_node(r->doc, p->value);
    }
    if (list->n == MAX_RULES)
        return err_set(e, ERR_INPUT, "%.200s:%d: exec.allow has more than %d rules", r->file,
                       line_of(n), MAX_RULES);
    struct allow_rule *p = realloc(list->rules, (list->n + 1) * sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for the settings");
    list->rules = p;
    p[list->n] = (struct allow_rule){.line = line_of(n)};
    struct allow_rule *rule = &p[list->n++];
    return read_patterns(r, f, run, &rule->patterns, e) && check_patterns(r, rule, e);
}

static bool read_allow(const struct reading *r, const struct field *f, const yaml_node_t *n,
                       struct allow_list *list, struct err *e)
{
    if (n->type != YAML_SEQUENCE_NODE)
        return wrong(r, f, n, "a list of rules, each \"- run: [program, argument, ...]\"", e);
    const yaml_node_item_t *i = n->data.sequence.items.start;
    for (; i < n->data.sequence.items.top; i++)
        if (!read_rule(r, f, yaml_document_get_node(r->doc, *i), list, e)) return false;
    return true;
}

// ---- the document ---------------------------------------------------------------------------

static bool read_field(struct reading *r, size_t i_field, const yaml_node_t *n, struct err *e)
{
    const struct field *f = &fields[i_field];
    void *slot = (char *)r->config + f->offset;
    if (r->seen[i_field]) return wrong(r, f, n, "given once", e);
    r->seen[i_field] = true;
    switch (f->kind) {
    case FIELD_TEXT: return is_text(n) ? put_text(slot, scalar(n), e) : wrong(r, f, n, "a text", e);
    case FIELD_PATH: return read_path(r, f, n, slot, e);
    case FIELD_COUNT: return read_count(r, f, n, slot, e);
    case FIELD_TEMPERATURE: return read_temperature(r, f, n, e);
    case FIELD_THINKING: return read_thinking(r, f, n, e);
    case FIELD_PATHS:
    case FIELD_NAMES: return read_list(r, f, n, slot, e);
    case FIELD_ALLOW: return read_allow(r, f, n, slot, e);
    }
    return true;
}

static bool is_group(struct str name)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if (fields[i].group[0] != '\0' && str_eq(str_from(fields[i].group), name)) return true;
    return false;
}

static bool read_group(struct reading *r, const char *group, const yaml_node_t *n, struct err *e);

static bool read_pair(struct reading *r, const char *group, const yaml_node_t *key,
                      const yaml_node_t *value, struct err *e)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if (strcmp(fields[i].group, group) == 0 && str_eq(str_from(fields[i].name), scalar(key)))
            return read_field(r, i, value, e);
    if (group[0] == '\0' && is_group(scalar(key)))
        return read_group(r, (const char *)key->data.scalar.value, value, e);
    return unknown(r, group, key, e);
}

static bool read_group(struct reading *r, const char *group, const yaml_node_t *n, struct err *e)
{
    if (n->type == YAML_SCALAR_NODE && scalar(n).n == 0) return true; // "server:" and nothing
    if (n->type != YAML_MAPPING_NODE)
        return err_set(e, ERR_INPUT, "%.200s:%d: %s must be a mapping of settings", r->file,
                       line_of(n), group[0] != '\0' ? group : "the file");
    const yaml_node_pair_t *p = n->data.mapping.pairs.start;
    for (; p < n->data.mapping.pairs.top; p++)
        if (!read_pair(r, group, yaml_document_get_node(r->doc, p->key),
                       yaml_document_get_node(r->doc, p->value), e))
            return false;
    return true;
}

static bool load_document(yaml_parser_t *parser, yaml_document_t *doc, struct str yaml,
                          const char *file, struct err *e)
{
    yaml_parser_set_input_string(parser, (const unsigned char *)yaml.p, yaml.n);
    if (yaml_parser_load(parser, doc)) return true;
    if (parser->error == YAML_MEMORY_ERROR)
        return err_set(e, ERR_MEMORY, "no memory to read %.200s", file);
    return err_set(e, ERR_INPUT, "%.200s:%zu: %s", file, parser->problem_mark.line + 1,
                   parser->problem != NULL ? parser->problem : "no valid YAML");
}

static void set_defaults(struct workspace_config *c)
{
    const struct {
        uint32_t *slot, value;
    } counts[] = {
        {&c->timeout_s, 600},           {&c->max_turns, 16},       {&c->max_tokens, 2048},
        {&c->file_bytes, 65536},        {&c->total_bytes, 262144}, {&c->exec.timeout_s, 60},
        {&c->exec.output_bytes, 16000},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (*counts[i].slot == 0) *counts[i].slot = counts[i].value;
}

bool workspace_config_parse(struct workspace_config *out, struct str yaml, const char *dir,
                            const char *file, struct err *e)
{
    struct workspace_config c = {.thinking = -1};
    yaml_parser_t parser;
    yaml_document_t doc;
    if (!yaml_parser_initialize(&parser))
        return err_set(e, ERR_MEMORY, "no memory to read %.200s", file);
    bool ok = load_document(&parser, &doc, yaml, file, e);
    if (ok) {
        struct reading r = {.config = &c, .doc = &doc, .file = file, .dir = dir};
        const yaml_node_t *root = yaml_document_get_root_node(&doc);
        if (root != NULL) ok = read_group(&r, "", root, e);
        yaml_document_delete(&doc);
    }
    yaml_parser_delete(&parser);
    set_defaults(&c);
    if (ok && c.exec.dir == NULL) ok = put_text(&c.exec.dir, str_from(dir), e);
    if (ok)
        *out = c;
    else
        workspace_config_close(&c);
    return ok;
}

bool workspace_config_open(struct workspace_config *out, const char *dir, struct err *e)
{
    struct buf path = {0}, text = {0};
    struct err problem = {0};
    buf_printf(&path, "%s/submind.yaml", dir);
    bool ok = file_read(&text, buf_cstr(&path), MAX_YAML_BYTES, &problem);
    if (!ok && problem.code == ERR_NOT_FOUND) ok = true;
    if (!ok) err_set(e, problem.code, "%s", problem.msg);
    ok = ok && workspace_config_parse(out, buf_view(&text), dir, buf_cstr(&path), e);
    buf_free(&path);
    buf_free(&text);
    return ok;
}

void workspace_config_close(struct workspace_config *c)
{
    free(c->server_url);
    free(c->server_model);
    free(c->key_file);
    free(c->model_file);
    exec_settings_free(&c->exec);
    *c = (struct workspace_config){0};
}
