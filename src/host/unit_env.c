// Later assignments replace earlier ones in place: the list is as long as there are names.
#include "host/unit_env.h"

#include <string.h>

#include "base/file.h"
#include "host/unit_file.h"

enum { MAX_FILE = 256 << 10 };

static struct unit_variable *find(struct unit_env *env, struct str name)
{
    for (size_t i = 0; i < env->n; i++)
        if (str_eq(str_from(env->v[i].name), name)) return &env->v[i];
    return NULL;
}

static struct unit_variable *add(struct unit_env *env, struct str name)
{
    if (env->n == env->cap) {
        const size_t cap = env->cap == 0 ? 16 : 2 * env->cap;
        struct unit_variable *v = arena_array(env->arena, cap, sizeof *v);
        if (v == NULL) return NULL;
        if (env->n > 0) memcpy(v, env->v, env->n * sizeof *v);
        env->v = v;
        env->cap = cap;
    }
    const char *copy = arena_str(env->arena, name).p;
    if (copy == NULL) return NULL;
    env->v[env->n] = (struct unit_variable){.name = copy};
    return &env->v[env->n++];
}

void unit_env_set(struct unit_env *env, struct str name, struct str value)
{
    struct unit_variable *v = find(env, name);
    const char *copy = arena_str(env->arena, value).p;
    if (v == NULL && copy != NULL) v = add(env, name);
    if (v == NULL || copy == NULL)
        env->failed = true;
    else
        v->value = copy;
}

const char *unit_env_get(struct unit_env *env, const char *name)
{
    struct unit_variable *v = find(env, str_from(name));
    if (v == NULL) return NULL;
    v->used = true;
    return v->value;
}

bool unit_env_assign(struct unit_env *env, struct str text)
{
    const size_t eq = str_find(text, STR("="), 0);
    if (eq == 0 || eq == SIZE_MAX) return false;
    const struct str name = str_sub(text, 0, eq);
    for (size_t i = 0; i < name.n; i++)
        if (strchr(" \t'\"$-", name.p[i]) != NULL) return false;
    unit_env_set(env, name, str_sub(text, eq + 1, text.n));
    return true;
}

static bool next_line(struct str *rest, struct str *line)
{
    if (rest->n == 0) return false;
    const size_t end = str_find(*rest, STR("\n"), 0);
    *line = str_trim(str_sub(*rest, 0, end));
    *rest = end == SIZE_MAX ? (struct str){0} : str_sub(*rest, end + 1, rest->n);
    return true;
}

static bool is_comment(struct str line)
{
    return line.n == 0 || line.p[0] == '#' || line.p[0] == ';';
}

// systemd's files: a value may be quoted, a backslash at the end of a line joins it with the next one.
static void read_lines(struct unit_env *env, struct str rest)
{
    struct buf joined = {0}, value = {0};
    struct str line;
    while (next_line(&rest, &line)) {
        if (joined.n == 0 && is_comment(line)) continue;
        const bool more = line.n > 0 && line.p[line.n - 1] == '\\';
        buf_str(&joined, more ? str_sub(line, 0, line.n - 1) : line);
        if (more && rest.n > 0) continue;
        const struct str whole = buf_view(&joined);
        const size_t eq = str_find(whole, STR("="), 0);
        struct err ignored = {0};
        size_t at = 0;
        bool quoted = false;
        if (eq != SIZE_MAX && eq > 0) {
            const struct str text = str_trim(str_sub(whole, eq + 1, whole.n));
            const bool in_quotes = text.n > 0 && (text.p[0] == '"' || text.p[0] == '\'') &&
                                   unit_next_word(text, &at, &value, &quoted, &ignored);
            unit_env_set(env, str_trim(str_sub(whole, 0, eq)), in_quotes ? buf_view(&value) : text);
        }
        buf_clear(&joined);
    }
    env->failed = env->failed || joined.failed || value.failed;
    buf_free(&joined);
    buf_free(&value);
}

static bool read_file(struct unit_env *env, struct str path, const struct unit_scope *scope,
                      struct err *e)
{
    struct buf text = {0}, whole = {0};
    struct err local = {0};
    const bool optional = str_starts(path, STR("-"));
    bool ok = unit_expand(scope, optional ? str_sub(path, 1, path.n) : path, &whole, &local) &&
              file_read_text(&text, buf_cstr(&whole), MAX_FILE, NULL, &local);
    if (ok) read_lines(env, buf_view(&text));
    buf_free(&text);
    buf_free(&whole);
    return ok || (optional && local.code == ERR_NOT_FOUND) ||
           err_set(e, local.code, "EnvironmentFile=: %s", local.msg);
}

// Where the assignments of a key begin that count: behind the last empty one, which takes all before it back.
static size_t first_that_counts(const struct unit_file *u, const char *key)
{
    size_t first = 0;
    for (size_t i = 0; i < u->n; i++)
        if (unit_is_key(&u->entries[i], "Service", key) && u->entries[i].value.n == 0) first = i;
    return first;
}

bool unit_env_read(struct unit_env *env, const struct unit_file *u, const struct unit_scope *scope,
                   struct err *e)
{
    struct unit_scope names = *scope; // without variables: "$" is a character here
    struct buf word = {0}, whole = {0};
    bool ok = true, quoted;
    names.env = NULL;
    for (size_t i = first_that_counts(u, "Environment"); i < u->n; i++) {
        const struct unit_entry *t = &u->entries[i];
        if (!unit_is_key(t, "Service", "Environment")) continue;
        struct err ignored = {0};
        for (size_t at = 0; unit_next_word(t->value, &at, &word, &quoted, &ignored);) {
            buf_clear(&whole);
            if (unit_expand(&names, buf_view(&word), &whole, &ignored))
                unit_env_assign(env, buf_view(&whole));
        }
    }
    for (size_t i = first_that_counts(u, "EnvironmentFile"); i < u->n && ok; i++) {
        const struct unit_entry *t = &u->entries[i];
        if (unit_is_key(t, "Service", "EnvironmentFile") && t->value.n > 0)
            ok = read_file(env, t->value, &names, e);
    }
    if (ok && (env->failed || word.failed || whole.failed))
        ok = err_set(e, ERR_MEMORY, "no memory for variables");
    buf_free(&word);
    buf_free(&whole);
    return ok;
}

bool unit_env_plain_file(struct unit_env *env, const char *path, struct err *e)
{
    struct buf text = {0};
    struct str rest, line;
    if (!file_read_text(&text, path, MAX_FILE, NULL, e)) {
        buf_free(&text);
        return err_prefix(e, "--env-file: ");
    }
    for (rest = buf_view(&text); next_line(&rest, &line);)
        if (!is_comment(line)) unit_env_assign(env, line);
    buf_free(&text);
    return true;
}
