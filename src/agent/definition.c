// The settings are read by the table below; the file's line numbers stay right because the YAML is
// handed on from the opening "---".
#include "agent/definition.h"

#include <ctype.h>
#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/allow_yaml.h"
#include "agent/http_client.h"
#include "agent/yaml_fields.h"
#include "base/file.h"
#include "base/hash.h"

enum { MAX_FILE_BYTES = 1 << 20, MAX_DEFINITIONS = 1000 };

// ---- fields ---------------------------------------------------------------------------------

static bool read_schedule_text(const struct yaml_reading *r, const struct yaml_field *f,
                               const yaml_node_t *n, struct err *e)
{
    struct definition *d = r->into;
    struct err problem = {0};
    if (n->type != YAML_SCALAR_NODE || !yaml_is_text(n))
        return yaml_wrong(r, f, n, "a time or a list of times", e);
    if (d->n_schedules == DEFINITION_SCHEDULES)
        return err_set(e, ERR_INPUT, "%.200s:%d: schedule has more than %d times", r->file,
                       yaml_line(n), DEFINITION_SCHEDULES);
    if (!calendar_parse(&d->schedules[d->n_schedules], yaml_scalar(n), &problem))
        return err_set(e, ERR_INPUT, "%.200s:%d: schedule: %s", r->file, yaml_line(n), problem.msg);
    return yaml_read_text(yaml_scalar(n), &d->schedule_texts[d->n_schedules++], e);
}

static bool read_schedule(const struct yaml_reading *r, const struct yaml_field *f,
                          const yaml_node_t *n, void *slot, struct err *e)
{
    (void)slot;
    if (n->type != YAML_SEQUENCE_NODE) return read_schedule_text(r, f, n, e);
    const yaml_node_item_t *i = n->data.sequence.items.start;
    for (; i < n->data.sequence.items.top; i++)
        if (!read_schedule_text(r, f, yaml_at(r, *i), e)) return false;
    return true;
}

static bool read_duration(const struct yaml_reading *r, const struct yaml_field *f,
                          const yaml_node_t *n, void *slot, struct err *e)
{
    uint32_t seconds = 0;
    if (n->type != YAML_SCALAR_NODE || !calendar_duration(yaml_scalar(n), &seconds) ||
        seconds < f->min || seconds > f->max) {
        char wanted[100];
        snprintf(wanted, sizeof wanted, "a time from %us to %ud such as 90s, 5m, 2h", f->min,
                 f->max / 86400);
        return yaml_wrong(r, f, n, wanted, e);
    }
    *(uint32_t *)slot = seconds;
    return true;
}

static bool read_tools(const struct yaml_reading *r, const struct yaml_field *f,
                       const yaml_node_t *n, void *slot, struct err *e)
{
    struct definition *d = r->into;
    d->has_tools = true;
    d->tools_line = yaml_line(n);
    return yaml_read_list(r, f, n, slot, e);
}

static bool read_allow(const struct yaml_reading *r, const struct yaml_field *f,
                       const yaml_node_t *n, void *slot, struct err *e)
{
    ((struct definition *)r->into)->has_allow = true;
    return allow_yaml_read(r, f, n, slot, e);
}

static bool read_server(const struct yaml_reading *r, const struct yaml_field *f,
                        const yaml_node_t *n, void *slot, struct err *e)
{
    char **url = slot;
    if (!yaml_is_text(n)) return yaml_wrong(r, f, n, "a server's address", e);
    return yaml_read_text(yaml_scalar(n), url, e) &&
           (http_client_check_url(*url, NULL) ||
            yaml_wrong(r, f, n, "http://host:port, https://host or unix:/path/to/socket", e));
}

static bool read_on_failure(const struct yaml_reading *r, const struct yaml_field *f,
                            const yaml_node_t *n, void *slot, struct err *e)
{
    ((struct definition *)r->into)->on_failure_line = yaml_line(n);
    if (n->type != YAML_SCALAR_NODE || !definition_name_is_valid(yaml_scalar(n)))
        return yaml_wrong(r, f, n, "the name of a sub-mind", e);
    return yaml_read_text(yaml_scalar(n), slot, e);
}

static bool read_webhook(const struct yaml_reading *r, const struct yaml_field *f,
                         const yaml_node_t *n, void *slot, struct err *e)
{
    char **url = slot;
    bool web =
        str_starts(yaml_scalar(n), STR("http://")) || str_starts(yaml_scalar(n), STR("https://"));
    if (!web || !yaml_is_text(n)) return yaml_wrong(r, f, n, "an http:// or https:// address", e);
    return yaml_read_text(yaml_scalar(n), url, e) &&
           (http_client_check_url(*url, NULL) ||
            yaml_wrong(r, f, n, "an http:// or https:// address", e));
}

static bool read_flag(const struct yaml_reading *r, const struct yaml_field *f,
                      const yaml_node_t *n, void *slot, struct err *e)
{
    return yaml_read_flag(r, f, n, slot, e);
}

static bool is_input_name(struct str s)
{
    if (s.n == 0 || s.n > 40 || !isalpha((unsigned char)s.p[0])) return false;
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '_' && s.p[i] != '-') return false;
    return true;
}

// "host:" and "host: null" have no default; "host: ''" has the empty one.
static bool has_default(const yaml_node_t *n)
{
    struct str s = yaml_scalar(n);
    bool plain = n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return !plain || (s.n > 0 && !str_eq(s, STR("null")) && !str_eq(s, STR("~")));
}

static bool read_input(const struct yaml_reading *r, const struct yaml_field *f,
                       const yaml_node_t *key, const yaml_node_t *value, struct err *e)
{
    struct definition *d = r->into;
    if (key->type != YAML_SCALAR_NODE || !is_input_name(yaml_scalar(key)))
        return yaml_wrong(r, f, key, "a mapping of names (letters, digits, _ and -) to defaults",
                          e);
    if (value->type != YAML_SCALAR_NODE || memchr(yaml_scalar(value).p, '\0', yaml_scalar(value).n))
        return yaml_wrong(r, f, value, "a mapping of names to texts", e);
    for (size_t i = 0; i < d->n_inputs; i++)
        if (str_eq(str_from(d->inputs[i].name), yaml_scalar(key)))
            return err_set(e, ERR_INPUT, "%.200s:%d: the input %s stands there twice", r->file,
                           yaml_line(key), d->inputs[i].name);
    if (d->n_inputs == DEFINITION_INPUTS)
        return err_set(e, ERR_INPUT, "%.200s:%d: there are more than %d inputs", r->file,
                       yaml_line(key), DEFINITION_INPUTS);
    struct definition_input *in = &d->inputs[d->n_inputs++];
    return yaml_read_text(yaml_scalar(key), &in->name, e) &&
           (!has_default(value) || yaml_read_text(yaml_scalar(value), &in->value, e));
}

static bool read_inputs(const struct yaml_reading *r, const struct yaml_field *f,
                        const yaml_node_t *n, void *slot, struct err *e)
{
    (void)slot;
    if (n->type == YAML_SCALAR_NODE && yaml_scalar(n).n == 0) return true;
    if (n->type != YAML_MAPPING_NODE)
        return yaml_wrong(r, f, n, "a mapping of names to defaults", e);
    const yaml_node_pair_t *p = n->data.mapping.pairs.start;
    for (; p < n->data.mapping.pairs.top; p++)
        if (!read_input(r, f, yaml_at(r, p->key), yaml_at(r, p->value), e)) return false;
    return true;
}

static const struct field_choice missed_choices[] = {
    {"run", MISSED_RUN}, {"skip", MISSED_SKIP}, {NULL, 0}};
static const struct field_choice overlap_choices[] = {
    {"skip", OVERLAP_SKIP}, {"wait", OVERLAP_WAIT}, {"allow", OVERLAP_ALLOW}, {NULL, 0}};
static const struct field_choice when_choices[] = {{"failure", NOTIFY_FAILURE},
                                                   {"attention", NOTIFY_ATTENTION},
                                                   {"always", NOTIFY_ALWAYS},
                                                   {"never", NOTIFY_NEVER},
                                                   {NULL, 0}};
static const struct field_choice thinking_choices[] = {{"on", 1},   {"off", 0},   {"auto", -1},
                                                       {"true", 1}, {"false", 0}, {NULL, 0}};

#define AT(member) .offset = offsetof(struct definition, member)
static const struct yaml_field fields[] = {
    {"", "description", FIELD_TEXT, AT(description)},
    {"", "schedule", FIELD_OWN, .read = read_schedule},
    {"", "delay", FIELD_OWN, AT(delay_s), 0, 86400, .read = read_duration},
    {"", "missed", FIELD_CHOICE, AT(missed), .choices = missed_choices, .wanted = "run or skip"},
    {"", "overlap", FIELD_CHOICE, AT(overlap), .choices = overlap_choices,
     .wanted = "skip, wait or allow"},
    {"", "tools", FIELD_OWN, AT(tools), .read = read_tools},
    {"", "allow", FIELD_OWN, AT(allow), .read = read_allow},
    {"", "deadline", FIELD_OWN, AT(deadline_s), 1, 7 * 86400, .read = read_duration},
    {"", "server", FIELD_OWN, AT(server_url), .read = read_server},
    {"", "model", FIELD_TEXT, AT(server_model)},
    {"", "thinking", FIELD_CHOICE, AT(thinking), .choices = thinking_choices,
     .wanted = "on, off or auto"},
    {"", "max_turns", FIELD_COUNT, AT(max_turns), 1, 1000},
    {"", "max_tokens", FIELD_COUNT, AT(max_tokens), 1, 1 << 20},
    {"", "retries", FIELD_COUNT, AT(retries), 0, 10},
    {"", "on_failure", FIELD_OWN, AT(on_failure), .read = read_on_failure},
    {"notify", "when", FIELD_CHOICE, AT(notify.when), .choices = when_choices,
     .wanted = "failure, attention, always or never"},
    {"notify", "command", FIELD_NAMES, AT(notify.command),
     .wanted = "a program and its arguments such as [mail-me, --now]"},
    {"notify", "file", FIELD_PATH, AT(notify.file)},
    {"notify", "webhook", FIELD_OWN, AT(notify.webhook), .read = read_webhook},
    {"notify", "desktop", FIELD_OWN, AT(notify.desktop), .read = read_flag},
    {"", "inputs", FIELD_OWN, .read = read_inputs},
};
#undef AT

// ---- names ----------------------------------------------------------------------------------

bool definition_name_is_valid(struct str name)
{
    static const char *const reserved[] = {"show", "follow", "last", "all"};
    if (name.n == 0 || name.n > DEFINITION_NAME_MAX || name.p[0] == '-' || name.p[0] == '_')
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (!islower((unsigned char)name.p[i]) && !isdigit((unsigned char)name.p[i]) &&
            name.p[i] != '-' && name.p[i] != '_')
            return false;
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (str_eq(name, str_from(reserved[i]))) return false;
    return true;
}

void definition_path(const char *dir, const char *name, struct buf *out)
{
    buf_printf(out, "%s/subminds/%s.md", dir, name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool definition_list(struct definition_names *out, const char *dir, struct err *e)
{
    struct definition_names names = {0};
    struct buf path = {0};
    bool ok = true;
    buf_printf(&path, "%s/subminds", dir);
    DIR *d = opendir(buf_cstr(&path));
    buf_free(&path);
    *out = names;
    if (d == NULL) return true;
    for (struct dirent *entry; ok && (entry = readdir(d)) != NULL;) {
        struct str file = str_from(entry->d_name);
        if (file.p[0] == '.' || !str_ends(file, STR(".md")) || str_eq(file, STR("README.md")))
            continue;
        if (names.n == MAX_DEFINITIONS) {
            ok = err_set(e, ERR_INPUT, "%.200s/subminds has more than %d definitions", dir,
                         MAX_DEFINITIONS);
            break;
        }
        char **p = realloc(names.p, (names.n + 1) * sizeof *p);
        if (p != NULL) {
            names.p = p;
            p[names.n] = strndup(file.p, file.n - 3);
        }
        ok = p != NULL && p[names.n] != NULL;
        names.n += ok;
        if (!ok) err_set(e, ERR_MEMORY, "no memory for the definitions");
    }
    closedir(d);
    if (ok && names.n > 0) qsort(names.p, names.n, sizeof *names.p, by_name);
    if (ok)
        *out = names;
    else
        definition_names_free(&names);
    return ok;
}

void definition_names_free(struct definition_names *n)
{
    for (size_t i = 0; i < n->n; i++) free(n->p[i]);
    free(n->p);
    *n = (struct definition_names){0};
}

// ---- the file -------------------------------------------------------------------------------

static int line_at(struct str text, size_t at)
{
    int line = 1;
    for (size_t i = 0; i < at; i++) line += text.p[i] == '\n';
    return line;
}

// Is the line at `at` nothing but "---"? Then *next is where the following one begins.
static bool is_fence(struct str text, size_t at, size_t *next)
{
    size_t end = str_find(text, STR("\n"), at);
    if (end == SIZE_MAX) end = text.n;
    *next = end < text.n ? end + 1 : end;
    struct str line = str_sub(text, at, end - at);
    while (line.n > 0 && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == ' ')) line.n--;
    return str_eq(line, STR("---"));
}

// Text in three: yaml from the opening fence to the closing one, then the task. Without a fence on
// the first line all of it is the task.
static bool divide(struct str text, const char *path, struct str *yaml, struct str *task,
                   struct err *e)
{
    size_t at, next;
    *yaml = (struct str){"", 0};
    *task = text;
    if (!is_fence(text, 0, &at)) return true;
    for (; at < text.n; at = next) {
        if (!is_fence(text, at, &next)) continue;
        *yaml = str_sub(text, 0, at);
        *task = str_sub(text, next, SIZE_MAX);
        return true;
    }
    return err_set(e, ERR_INPUT, "%.200s:1: the settings have no end; a line \"---\" closes them",
                   path);
}

static const struct definition_input *find_input(const struct definition *d, struct str name,
                                                 size_t *i)
{
    for (*i = 0; *i < d->n_inputs; ++*i)
        if (str_eq(str_from(d->inputs[*i].name), name)) return &d->inputs[*i];
    return NULL;
}

// The next "{{name}}" at or after *at: its name, and *at, *end around it. False when none is left.
static bool next_placeholder(struct str text, size_t *at, size_t *end, struct str *name)
{
    for (;; ++*at) {
        *at = str_find(text, STR("{{"), *at);
        if (*at == SIZE_MAX) return false;
        size_t close = str_find(text, STR("}}"), *at);
        if (close == SIZE_MAX) return false;
        *name = str_trim(str_sub(text, *at + 2, close - *at - 2));
        *end = close + 2;
        if (is_input_name(*name)) return true;
    }
}

static void name_inputs(const struct definition *d, struct buf *out)
{
    for (size_t i = 0; i < d->n_inputs; i++)
        buf_printf(out, "%s%s", i > 0 ? ", " : "", d->inputs[i].name);
    if (d->n_inputs == 0) buf_z(out, "none");
}

static bool check_placeholders(const struct definition *d, struct str whole, struct str task,
                               struct err *e)
{
    struct str name;
    struct buf names = {0};
    size_t at = 0, end = 0, i;
    bool ok = true;
    for (; ok && next_placeholder(task, &at, &end, &name); at = end) {
        if (find_input(d, name, &i) != NULL) continue;
        name_inputs(d, &names);
        ok = err_set(e, ERR_INPUT, "%.200s:%d: {{%.*s}} is no input; inputs has: %s", d->path,
                     line_at(whole, (size_t)(task.p - whole.p) + at), (int)name.n, name.p,
                     buf_cstr(&names));
    }
    buf_free(&names);
    return ok;
}

static bool check_whole(const struct definition *d, struct str whole, struct str task,
                        struct err *e)
{
    if (str_trim(task).n == 0)
        return err_set(e, ERR_INPUT, "%.200s:%d: there is no task behind the settings", d->path,
                       line_at(whole, whole.n));
    if (memchr(task.p, '\0', task.n) != NULL)
        return err_set(e, ERR_INPUT, "%.200s: the task holds a NUL byte", d->path);
    if (d->on_failure != NULL && strcmp(d->on_failure, d->name) == 0)
        return err_set(e, ERR_INPUT, "%.200s:%d: on_failure must be another sub-mind", d->path,
                       d->on_failure_line);
    for (size_t i = 0; i < d->n_inputs; i++)
        if (d->n_schedules > 0 && d->inputs[i].value == NULL)
            return err_set(e, ERR_INPUT,
                           "%.200s: inputs.%s needs a default, because nobody gives it to a "
                           "scheduled run",
                           d->path, d->inputs[i].name);
    return check_placeholders(d, whole, task, e);
}

static bool keep(char **slot, struct str text, struct err *e)
{
    *slot = strndup(text.p, text.n);
    return *slot != NULL || err_set(e, ERR_MEMORY, "no memory for the definition");
}

bool definition_parse(struct definition *out, struct str text, const char *dir, const char *name,
                      const char *path, struct err *e)
{
    struct definition d = {.thinking = THINKING_UNSET, .notify.when = NOTIFY_ATTENTION};
    struct str yaml, task;
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)hash64(text.p, text.n, 0));
    bool ok = keep(&d.name, str_from(name), e) && keep(&d.path, str_from(path), e) &&
              keep(&d.hash, str_from(hash), e) && divide(text, path, &yaml, &task, e);
    if (ok && yaml.n > 0)
        ok = yaml_fields_read(fields, sizeof fields / sizeof fields[0], &d, yaml, dir, path, e);
    ok = ok && check_whole(&d, text, task, e) && keep(&d.task, str_trim(task), e);
    if (ok)
        *out = d;
    else
        definition_close(&d);
    return ok;
}

bool definition_open(struct definition *out, const char *dir, const char *name, struct err *e)
{
    struct buf path = {0}, text = {0};
    definition_path(dir, name, &path);
    bool ok = definition_name_is_valid(str_from(name)) ||
              err_set(e, ERR_INPUT,
                      "%.200s: the name of a sub-mind is lower case letters, digits, - and _ (at "
                      "most %d; not show, follow, last or all)",
                      buf_cstr(&path), DEFINITION_NAME_MAX);
    ok = ok && file_read_text(&text, buf_cstr(&path), MAX_FILE_BYTES, NULL, e) &&
         definition_parse(out, buf_view(&text), dir, name, buf_cstr(&path), e);
    buf_free(&path);
    buf_free(&text);
    return ok;
}

void definition_close(struct definition *d)
{
    char *texts[] = {d->name,         d->path,       d->hash, d->description, d->server_url,
                     d->server_model, d->on_failure, d->task, d->notify.file, d->notify.webhook};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) free(texts[i]);
    for (size_t i = 0; i < d->n_schedules; i++) free(d->schedule_texts[i]);
    for (size_t i = 0; i < d->n_inputs; i++) {
        free(d->inputs[i].name);
        free(d->inputs[i].value);
    }
    words_free(&d->tools);
    words_free(&d->notify.command);
    allow_free(&d->allow);
    *d = (struct definition){0};
}

int64_t definition_next(const struct definition *d, int64_t after_s)
{
    int64_t best = -1;
    for (size_t i = 0; i < d->n_schedules; i++) {
        int64_t at = calendar_next(&d->schedules[i], after_s);
        if (at >= 0 && (best < 0 || at < best)) best = at;
    }
    return best;
}

// ---- inputs ---------------------------------------------------------------------------------

bool definition_take_inputs(const struct definition *d, const char *const *words, size_t n,
                            const char *values[DEFINITION_INPUTS], struct err *e)
{
    struct buf names = {0};
    bool ok = true;
    size_t k;
    name_inputs(d, &names);
    for (size_t i = 0; i < DEFINITION_INPUTS; i++)
        values[i] = i < d->n_inputs ? d->inputs[i].value : NULL;
    for (size_t i = 0; ok && i < n; i++) {
        const char *equals = strchr(words[i], '=');
        struct str key = {words[i], equals != NULL ? (size_t)(equals - words[i]) : 0};
        if (equals == NULL)
            ok = err_set(e, ERR_INPUT, "\"%.60s\" is no key=value; %s takes: %s", words[i], d->name,
                         buf_cstr(&names));
        else if (find_input(d, key, &k) == NULL)
            ok = err_set(e, ERR_INPUT, "%s has no input \"%.*s\"; inputs: %s", d->name,
                         (int)(key.n < 60 ? key.n : 60), key.p, buf_cstr(&names));
        else
            values[k] = equals + 1;
    }
    for (size_t i = 0; ok && i < d->n_inputs; i++)
        if (values[i] == NULL)
            ok = err_set(e, ERR_INPUT, "%s needs the input %s: submind run %s %s=...", d->name,
                         d->inputs[i].name, d->name, d->inputs[i].name);
    buf_free(&names);
    return ok;
}

void definition_fill(const struct definition *d, const char *const values[DEFINITION_INPUTS],
                     struct buf *task, struct buf *json)
{
    struct str text = str_from(d->task), name;
    bool used[DEFINITION_INPUTS] = {false};
    size_t from = 0, at = 0, end = 0, i;
    for (; next_placeholder(text, &at, &end, &name); at = from = end) {
        buf_str(task, str_sub(text, from, at - from));
        if (find_input(d, name, &i) == NULL) continue;
        buf_z(task, values[i]);
        used[i] = true;
    }
    buf_str(task, str_sub(text, from, SIZE_MAX));
    bool first = true;
    for (i = 0; i < d->n_inputs; i++) {
        if (used[i]) continue;
        buf_printf(task, "%s\n- %s: %s", first ? "\n\nInputs:" : "", d->inputs[i].name, values[i]);
        first = false;
    }
    buf_c(json, '{');
    for (i = 0; i < d->n_inputs; i++) {
        if (i > 0) buf_c(json, ',');
        buf_json(json, str_from(d->inputs[i].name));
        buf_c(json, ':');
        buf_json(json, str_from(values[i]));
    }
    buf_c(json, '}');
}
