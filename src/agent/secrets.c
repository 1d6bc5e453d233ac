// Values are read once, at the start of a run, because the redactor must know all of them before
// the first tool runs. They are wiped when the run ends.
#include "agent/secrets.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"

enum { MAX_SECRETS = 200, MAX_BYTES = 65536 };

// ---- the configuration ----------------------------------------------------------------------

void secret_list_free(struct secret_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->list[i].name);
        free(l->list[i].file);
        free(l->list[i].credential);
    }
    free(l->list);
    *l = (struct secret_list){0};
}

// A name is a variable's, because exec hands secrets on as variables.
static bool is_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && (i == 0 || c < '0' || c > '9')) return false;
    }
    return s.n > 0 && s.n < 100;
}

static bool read_source(const struct yaml_reading *r, const struct yaml_field *f,
                        const yaml_node_t *key, const yaml_node_t *value, struct secret_source *out,
                        struct err *e)
{
    struct str text = yaml_scalar(value);
    if (!is_name(yaml_scalar(key)))
        return yaml_wrong(r, f, key, "a mapping from names (letters, digits, _) to files", e);
    if (!yaml_read_text(yaml_scalar(key), &out->name, e)) return false;
    if (!str_starts(text, STR("credential:"))) return yaml_read_path(r, f, value, &out->file, e);
    text = str_sub(text, 11, text.n);
    if (text.n == 0 || memchr(text.p, '/', text.n) != NULL)
        return yaml_wrong(r, f, value, "a file, or credential:NAME", e);
    return yaml_read_text(text, &out->credential, e);
}

bool secret_list_read(const struct yaml_reading *r, const struct yaml_field *f,
                      const yaml_node_t *n, void *slot, struct err *e)
{
    struct secret_list *l = slot;
    if (n->type != YAML_MAPPING_NODE)
        return yaml_wrong(r, f, n, "a mapping from names to files", e);
    const yaml_node_pair_t *p = n->data.mapping.pairs.start;
    for (; p < n->data.mapping.pairs.top; p++) {
        struct secret_source *list = realloc(l->list, (l->n + 1) * sizeof *list);
        if (list == NULL) return err_set(e, ERR_MEMORY, "no memory for the settings");
        l->list = list;
        if (l->n == MAX_SECRETS) return yaml_wrong(r, f, n, "a mapping of at most 200 names", e);
        list[l->n] = (struct secret_source){0};
        if (!read_source(r, f, yaml_at(r, p->key), yaml_at(r, p->value), &list[l->n++], e))
            return false;
    }
    return true;
}

// ---- values ---------------------------------------------------------------------------------

static const char *find_variable(const char *const *environment, struct str name)
{
    for (; environment != NULL && *environment != NULL; environment++)
        if (strncmp(*environment, name.p, name.n) == 0 && (*environment)[name.n] == '=')
            return *environment + name.n + 1;
    return NULL;
}

static char *path_of(const struct secret_source *source, const char *const *environment)
{
    struct buf path = {0};
    if (source->file != NULL) return strdup(source->file);
    const char *dir = find_variable(environment, STR("CREDENTIALS_DIRECTORY"));
    if (dir == NULL) return NULL;
    buf_printf(&path, "%s/%s", dir, source->credential);
    char *copy = strdup(buf_cstr(&path));
    buf_free(&path);
    return copy;
}

static void warn_if_open(const char *name, const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && (st.st_mode & 0077) != 0)
        log_warn("secrets", "%s: others may read %s (mode %04o); chmod 600 it", name, path,
                 (unsigned)st.st_mode & 07777);
}

static bool load(struct secret *s, const struct secret_source *source,
                 const char *const *environment, struct redactor *r, struct err *e)
{
    struct err problem = {0};
    s->name = source->name;
    s->path = path_of(source, environment);
    if (s->path == NULL) {
        err_set(&problem, ERR_NOT_FOUND,
                "the credential %.80s needs $CREDENTIALS_DIRECTORY, which systemd sets "
                "(LoadCredential=)",
                source->credential);
    } else if (file_read(&s->value, s->path, MAX_BYTES, &problem)) {
        while (s->value.n > 0 && strchr("\r\n", s->value.p[s->value.n - 1]) != NULL) s->value.n--;
        if (source->file != NULL) warn_if_open(s->name, s->path);
        return redactor_add(r, s->name, buf_view(&s->value), e);
    }
    s->problem = strdup(problem.msg);
    return s->problem != NULL || err_set(e, ERR_MEMORY, "no memory for a secret");
}

bool secrets_open(struct secrets *out, const struct secret_list *l, const char *const *environment,
                  struct err *e)
{
    struct secrets s = {.list = calloc(l->n + 1, sizeof *s.list)};
    bool ok = s.list != NULL || err_set(e, ERR_MEMORY, "no memory for secrets");
    for (; ok && s.n < l->n; s.n++)
        ok = load(&s.list[s.n], &l->list[s.n], environment, &s.redactor, e);
    if (ok)
        *out = s;
    else
        secrets_close(&s);
    return ok;
}

void secrets_close(struct secrets *s)
{
    for (size_t i = 0; s->list != NULL && i < s->n; i++) {
        if (s->list[i].value.p != NULL) explicit_bzero(s->list[i].value.p, s->list[i].value.n);
        buf_free(&s->list[i].value);
        free(s->list[i].path);
        free(s->list[i].problem);
    }
    free(s->list);
    redactor_free(&s->redactor);
    *s = (struct secrets){0};
}

const struct buf *secrets_find(const struct secrets *s, struct str name, struct err *e)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct secret *one = &s->list[i];
        if (!str_eq(str_from(one->name), name)) continue;
        if (one->problem == NULL) return &one->value;
        err_set(e, ERR_INPUT, "the secret %s cannot be read: %s", one->name, one->problem);
        return NULL;
    }
    err_set(e, ERR_INPUT, "there is no secret \"%.*s\"; name it under \"secrets:\" in submind.yaml",
            (int)(name.n < 80 ? name.n : 80), name.p);
    return NULL;
}

// One ${...}; name is what stands within.
static bool expand_one(const struct secrets *s, struct str name, const char *const *environment,
                       struct buf *out, struct err *e)
{
    if (str_starts(name, STR("secret:"))) {
        const struct buf *value = secrets_find(s, str_sub(name, 7, name.n), e);
        if (value == NULL) return false;
        buf_str(out, buf_view(value));
        return true;
    }
    const char *value = environment != NULL ? find_variable(environment, name) : NULL;
    if (value == NULL)
        return err_set(e, ERR_INPUT, "the variable %.*s is not set",
                       (int)(name.n < 80 ? name.n : 80), name.p);
    buf_z(out, value);
    return true;
}

bool secrets_expand(const struct secrets *s, struct str text, const char *const *environment,
                    struct buf *out, struct err *e)
{
    size_t done = 0;
    for (;;) {
        size_t at = str_find(text, STR("${"), done);
        size_t end = at != SIZE_MAX ? str_find(text, STR("}"), at) : SIZE_MAX;
        if (end == SIZE_MAX) break;
        buf_str(out, str_sub(text, done, at - done));
        if (!expand_one(s, str_sub(text, at + 2, end - at - 2), environment, out, e)) return false;
        done = end + 1;
    }
    buf_str(out, str_sub(text, done, text.n));
    return !out->failed || err_set(e, ERR_MEMORY, "no memory for a secret");
}
