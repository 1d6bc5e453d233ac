// libyaml gives a document whose aliases are references, so that a small file stays small; every
// loop here is over what was written.
#include "agent/yaml_fields.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT_BYTES = 4096 };

// ---- messages -------------------------------------------------------------------------------

int yaml_line(const yaml_node_t *n)
{
    return (int)n->start_mark.line + 1;
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

bool yaml_wrong(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                const char *wanted, struct err *e)
{
    struct buf text = {0};
    node_text(n, &text);
    err_set(e, ERR_INPUT, "%.200s:%d: %s%s%s must be %s, not %s", r->file, yaml_line(n), f->group,
            f->group[0] != '\0' ? "." : "", f->name, wanted, buf_cstr(&text));
    buf_free(&text);
    return false;
}

static bool has_field(const struct yaml_reading *r, const char *name) // at the top
{
    for (size_t i = 0; i < r->n_fields; i++)
        if (r->fields[i].group[0] == '\0' && strcmp(r->fields[i].name, name) == 0) return true;
    return false;
}

static bool unknown(const struct yaml_reading *r, const char *group, const yaml_node_t *key,
                    struct err *e)
{
    struct buf names = {0}, text = {0};
    const char *last_group = "";
    for (size_t i = 0; i < r->n_fields; i++) {
        const struct yaml_field *f = &r->fields[i];
        bool top = group[0] == '\0';
        if (!top && strcmp(f->group, group) != 0) continue;
        if (top && f->group[0] != '\0' &&
            (strcmp(f->group, last_group) == 0 || has_field(r, f->group)))
            continue;
        last_group = f->group;
        buf_printf(&names, "%s%s", names.n > 0 ? ", " : "",
                   top && f->group[0] != '\0' ? f->group : f->name);
    }
    node_text(key, &text);
    err_set(e, ERR_INPUT, "%.200s:%d: there is no setting %s%s%s; allowed: %s", r->file,
            yaml_line(key), buf_cstr(&text), group[0] != '\0' ? " in " : "", group,
            buf_cstr(&names));
    buf_free(&names);
    buf_free(&text);
    return false;
}

// ---- nodes ----------------------------------------------------------------------------------

struct str yaml_scalar(const yaml_node_t *n)
{
    if (n->type != YAML_SCALAR_NODE) return (struct str){"", 0};
    return (struct str){(const char *)n->data.scalar.value, n->data.scalar.length};
}

bool yaml_is_text(const yaml_node_t *n)
{
    struct str s = yaml_scalar(n);
    return s.n > 0 && s.n < MAX_TEXT_BYTES && memchr(s.p, '\0', s.n) == NULL;
}

const yaml_node_t *yaml_at(const struct yaml_reading *r, int index)
{
    return yaml_document_get_node(r->doc, index);
}

const yaml_node_t *yaml_value(const struct yaml_reading *r, const yaml_node_t *mapping,
                              const char *key)
{
    if (mapping->type != YAML_MAPPING_NODE) return NULL;
    const yaml_node_pair_t *p = mapping->data.mapping.pairs.start;
    for (; p < mapping->data.mapping.pairs.top; p++)
        if (str_eq(yaml_scalar(yaml_at(r, p->key)), str_from(key))) return yaml_at(r, p->value);
    return NULL;
}

// ---- values ---------------------------------------------------------------------------------

bool yaml_read_text(struct str s, char **slot, struct err *e)
{
    char *copy = strndup(s.p, s.n);
    if (copy == NULL) return err_set(e, ERR_MEMORY, "no memory for the settings");
    free(*slot);
    *slot = copy;
    return true;
}

static void absolute(const struct yaml_reading *r, struct str path, struct buf *out)
{
    if (path.p[0] != '/') buf_printf(out, "%s/", r->dir);
    buf_str(out, path);
}

bool yaml_read_path(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                    char **slot, struct err *e)
{
    struct buf path = {0};
    if (!yaml_is_text(n)) return yaml_wrong(r, f, n, "a path", e);
    absolute(r, yaml_scalar(n), &path);
    bool ok = path.failed ? err_set(e, ERR_MEMORY, "no memory for the settings")
                          : yaml_read_text(buf_view(&path), slot, e);
    buf_free(&path);
    return ok;
}

static bool read_count(const struct yaml_reading *r, const struct yaml_field *f,
                       const yaml_node_t *n, uint32_t *slot, struct err *e)
{
    char wanted[80], *end = NULL;
    struct str s = yaml_scalar(n);
    errno = 0;
    unsigned long v = s.n > 0 ? strtoul(s.p, &end, 10) : 0;
    if (s.n == 0 || s.p[0] < '0' || s.p[0] > '9' || *end != '\0' || errno != 0 || v < f->min ||
        v > f->max) {
        snprintf(wanted, sizeof wanted, "a whole number from %u to %u", f->min, f->max);
        return yaml_wrong(r, f, n, wanted, e);
    }
    *slot = (uint32_t)v;
    return true;
}

static bool read_size(const struct yaml_reading *r, const struct yaml_field *f,
                      const yaml_node_t *n, uint64_t *slot, struct err *e)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    struct str s = yaml_scalar(n);
    errno = 0;
    unsigned long long v = s.n > 0 && s.p[0] >= '0' && s.p[0] <= '9' ? strtoull(s.p, &end, 10) : 0;
    const char *unit = end != NULL && *end != '\0' ? strchr(units, *end) : NULL;
    unsigned shift = unit != NULL ? 10 * (unsigned)(unit - units + 1) : 0;
    if (unit != NULL) end++;
    if (end == NULL || *end != '\0' || errno != 0 || v > (UINT64_MAX >> 1) >> shift)
        return yaml_wrong(r, f, n, "a size such as 512M or 2G", e);
    *slot = v << shift;
    return true;
}

static bool read_number(const struct yaml_reading *r, const struct yaml_field *f,
                        const yaml_node_t *n, float *slot, struct err *e)
{
    char wanted[60], *end = NULL;
    struct str s = yaml_scalar(n);
    float v = s.n > 0 ? strtof(s.p, &end) : 0;
    if (s.n == 0 || *end != '\0' || !isfinite(v) || v < (float)f->min || v > (float)f->max) {
        snprintf(wanted, sizeof wanted, "a number from %u to %u", f->min, f->max);
        return yaml_wrong(r, f, n, wanted, e);
    }
    *slot = v;
    *(bool *)((char *)r->into + f->has) = true;
    return true;
}

static bool read_choice(const struct yaml_reading *r, const struct yaml_field *f,
                        const yaml_node_t *n, int *slot, struct err *e)
{
    for (const struct field_choice *c = f->choices; c->text != NULL; c++) {
        if (!str_eq(yaml_scalar(n), str_from(c->text))) continue;
        *slot = c->value;
        return true;
    }
    return yaml_wrong(r, f, n, f->wanted, e);
}

bool yaml_read_flag(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                    bool *slot, struct err *e)
{
    static const struct {
        const char *text;
        bool value;
    } words[] = {{"true", true},   {"yes", true}, {"on", true},
                 {"false", false}, {"no", false}, {"off", false}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (!str_eq(yaml_scalar(n), str_from(words[i].text))) continue;
        *slot = words[i].value;
        return true;
    }
    return yaml_wrong(r, f, n, "yes or no", e);
}

static bool read_item(const struct yaml_reading *r, const struct yaml_field *f,
                      const yaml_node_t *item, struct words *slot, struct err *e)
{
    struct buf text = {0};
    if (!yaml_is_text(item)) return yaml_wrong(r, f, item, "a list of texts", e);
    struct str s = yaml_scalar(item);
    if (f->kind == FIELD_PATHS && memchr(s.p, ':', s.n) != NULL)
        return yaml_wrong(r, f, item, "a list of folders without a colon in them", e);
    if (f->kind == FIELD_PATHS)
        absolute(r, s, &text);
    else
        buf_str(&text, s);
    bool ok = text.failed ? err_set(e, ERR_MEMORY, "no memory for the settings")
                          : words_put(slot, buf_view(&text), e);
    buf_free(&text);
    return ok;
}

bool yaml_read_list(const struct yaml_reading *r, const struct yaml_field *f, const yaml_node_t *n,
                    struct words *slot, struct err *e)
{
    if (n->type != YAML_SEQUENCE_NODE)
        return yaml_wrong(r, f, n,
                          f->wanted != NULL        ? f->wanted
                          : f->kind == FIELD_PATHS ? "a list of folders"
                                                   : "a list of names",
                          e);
    const yaml_node_item_t *i = n->data.sequence.items.start;
    for (; i < n->data.sequence.items.top; i++)
        if (!read_item(r, f, yaml_at(r, *i), slot, e)) return false;
    return true;
}

// ---- the document ---------------------------------------------------------------------------

static bool read_field(struct yaml_reading *r, size_t i_field, const yaml_node_t *n, struct err *e)
{
    const struct yaml_field *f = &r->fields[i_field];
    void *slot = (char *)r->into + f->offset;
    if (r->seen[i_field]) return yaml_wrong(r, f, n, "given once", e);
    r->seen[i_field] = true;
    switch (f->kind) {
    case FIELD_TEXT:
        return yaml_is_text(n) ? yaml_read_text(yaml_scalar(n), slot, e)
                               : yaml_wrong(r, f, n, "a text", e);
    case FIELD_PATH: return yaml_read_path(r, f, n, slot, e);
    case FIELD_COUNT: return read_count(r, f, n, slot, e);
    case FIELD_SIZE: return read_size(r, f, n, slot, e);
    case FIELD_NUMBER: return read_number(r, f, n, slot, e);
    case FIELD_CHOICE: return read_choice(r, f, n, slot, e);
    case FIELD_PATHS:
    case FIELD_NAMES: return yaml_read_list(r, f, n, slot, e);
    case FIELD_OWN: return f->read(r, f, n, slot, e);
    }
    return true;
}

static bool is_group(const struct yaml_reading *r, struct str name)
{
    for (size_t i = 0; i < r->n_fields; i++)
        if (r->fields[i].group[0] != '\0' && str_eq(str_from(r->fields[i].group), name))
            return true;
    return false;
}

static bool read_group(struct yaml_reading *r, const char *group, const yaml_node_t *n,
                       struct err *e);

static bool read_pair(struct yaml_reading *r, const char *group, const yaml_node_t *key,
                      const yaml_node_t *value, struct err *e)
{
    struct str name = yaml_scalar(key);
    // "sandbox: off" is a setting, "sandbox:" with settings below it a group.
    if (group[0] == '\0' && value->type == YAML_MAPPING_NODE && is_group(r, name))
        return read_group(r, name.p, value, e);
    for (size_t i = 0; i < r->n_fields; i++)
        if (strcmp(r->fields[i].group, group) == 0 && str_eq(str_from(r->fields[i].name), name))
            return read_field(r, i, value, e);
    if (group[0] == '\0' && is_group(r, name)) return read_group(r, name.p, value, e);
    return unknown(r, group, key, e);
}

static bool read_group(struct yaml_reading *r, const char *group, const yaml_node_t *n,
                       struct err *e)
{
    if (n->type == YAML_SCALAR_NODE && yaml_scalar(n).n == 0) return true; // "server:" and nothing
    if (n->type != YAML_MAPPING_NODE)
        return err_set(e, ERR_INPUT, "%.200s:%d: %s must be a mapping of settings", r->file,
                       yaml_line(n), group[0] != '\0' ? group : "the file");
    const yaml_node_pair_t *p = n->data.mapping.pairs.start;
    for (; p < n->data.mapping.pairs.top; p++)
        if (!read_pair(r, group, yaml_at(r, p->key), yaml_at(r, p->value), e)) return false;
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

bool yaml_fields_read(const struct yaml_field *fields, size_t n_fields, void *into, struct str yaml,
                      const char *dir, const char *file, struct err *e)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    bool *seen = calloc(n_fields + 1, sizeof *seen);
    if (seen == NULL || !yaml_parser_initialize(&parser)) {
        free(seen);
        return err_set(e, ERR_MEMORY, "no memory to read %.200s", file);
    }
    bool ok = load_document(&parser, &doc, yaml, file, e);
    if (ok) {
        struct yaml_reading r = {fields, n_fields, into, &doc, file, dir, seen};
        const yaml_node_t *root = yaml_document_get_root_node(&doc);
        if (root != NULL) ok = read_group(&r, "", root, e);
        yaml_document_delete(&doc);
    }
    yaml_parser_delete(&parser);
    free(seen);
    return ok;
}
