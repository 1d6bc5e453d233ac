// Whatever is not named here or in the configuration stays behind: a key in our environment never
// reaches a command by accident.
#include "agent/tool_env.h"

#include <stdlib.h>
#include <string.h>

static const char *const usual_names[] = {
    "HOME",     "USER", "LOGNAME", "LANG", "TZ", "LC_ALL", "XDG_RUNTIME_DIR",
    "LC_CTYPE", "TERM", "TMPDIR",  "SHELL"};

const char *tool_env_find(const char *const *environment, const char *name)
{
    size_t n = strlen(name);
    for (; environment != NULL && *environment != NULL; environment++)
        if (strncmp(*environment, name, n) == 0 && (*environment)[n] == '=')
            return *environment + n + 1;
    return NULL;
}

bool tool_env_put(struct words *env, const char *name, const char *value, struct err *e)
{
    struct buf entry = {0};
    size_t n = strlen(name);
    if (value == NULL) return true;
    buf_printf(&entry, "%s=%s", name, value);
    bool ok = !entry.failed || err_set(e, ERR_MEMORY, "no memory for the environment");
    for (size_t i = 0; ok && i < env->n; i++) {
        if (strncmp(env->p[i], name, n) != 0 || env->p[i][n] != '=') continue;
        char *copy = strdup(buf_cstr(&entry));
        buf_free(&entry);
        if (copy == NULL) return err_set(e, ERR_MEMORY, "no memory for the environment");
        free(env->p[i]);
        env->p[i] = copy;
        return true;
    }
    ok = ok && words_put(env, buf_view(&entry), e);
    buf_free(&entry);
    return ok;
}

void tool_env_path(const char *const *environment, const struct words *front, struct buf *out)
{
    const char *ours = tool_env_find(environment, "PATH");
    for (size_t i = 0; front != NULL && i < front->n; i++) buf_printf(out, "%s:", front->p[i]);
    buf_z(out, ours != NULL && *ours != '\0' ? ours : "/usr/local/bin:/usr/bin:/bin");
}

bool tool_env_make(const char *const *environment, const struct words *names, const char *path,
                   struct words *out, struct err *e)
{
    bool ok = tool_env_put(out, "PATH", path, e);
    for (size_t i = 0; ok && i < sizeof usual_names / sizeof usual_names[0]; i++)
        ok = tool_env_put(out, usual_names[i], tool_env_find(environment, usual_names[i]), e);
    for (size_t i = 0; ok && names != NULL && i < names->n; i++)
        ok = tool_env_put(out, names->p[i], tool_env_find(environment, names->p[i]), e);
    return ok;
}
