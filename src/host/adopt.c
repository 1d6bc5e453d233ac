// The command line is cut at the word that is llama-server: what stands before is the wrapper, behind it the
// flags. Whatever of the unit is neither taken over nor without meaning for ours is listed.
#include "host/adopt.h"

#include <string.h>

#include "base/file.h"
#include "host/adopt_shell.h"

enum { MAX_SCRIPT = 64 << 10 };

// ---- the command line -----------------------------------------------------------------------------

// The text that a shell runs: of `sh -c TEXT`, or of a script; false when it is neither.
static bool shell_text(const struct cmdline *c, struct buf *out)
{
    static const char *const shells[] = {"sh", "bash", "dash", "zsh"};
    struct err ignored = {0};
    if (c->n == 0) return false;
    const char *slash = strrchr(c->v[0], '/'), *program = slash == NULL ? c->v[0] : slash + 1;
    bool shell = false;
    for (size_t i = 0; i < sizeof shells / sizeof shells[0]; i++)
        shell = shell || strcmp(program, shells[i]) == 0;
    for (size_t i = 1; shell && i + 1 < c->n; i++) {
        if (c->v[i][0] != '-') break;
        if (c->v[i][strlen(c->v[i]) - 1] != 'c') continue; // -c, -lc, -ec
        buf_z(out, c->v[i + 1]);
        return true;
    }
    const char *script = shell ? (c->n > 1 ? c->v[1] : "") : c->v[0];
    if (script[0] != '/' || !file_read_text(out, script, MAX_SCRIPT, NULL, &ignored)) return false;
    return str_starts(buf_view(out), STR("#!")) || shell;
}

static bool has_server(const struct cmdline *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (wrap_is_server(c->v[i])) return true;
    return false;
}

static void lose(struct adopt *a, struct arena *arena, const char *what, struct str value)
{
    struct buf line = {0};
    buf_z(&line, what);
    buf_str(&line, value);
    if (a->n_lost < ADOPT_MAX_LOST && !line.failed)
        a->lost[a->n_lost++] = arena_str(arena, buf_view(&line));
    buf_free(&line);
}

// Replaces the words by those that a shell's text runs. *folder: where it went with cd.
static bool unwrap_shell(struct adopt *a, struct cmdline *c, struct unit_env *env,
                         const char **folder, struct err *e)
{
    struct buf text = {0};
    struct shell_text t = {.env = env, .words = {.arena = c->arena}};
    bool ok = true;
    if (!has_server(c) && shell_text(c, &text)) {
        ok = shell_read(&t, buf_view(&text), wrap_is_server, e) ||
             err_prefix(e, "%.200s: ", c->v[0]);
        if (ok && t.folder != NULL) *folder = t.folder;
        if (ok) *c = t.words;
        for (size_t i = 0; i < t.n_lost; i++) lose(a, c->arena, "shell: ", t.lost[i]);
    }
    buf_free(&text);
    return ok;
}

static const char *from_env(void *arg, const char *name)
{
    return unit_env_get(arg, name);
}

// A model given by name (hf:...) is no path.
static void map_paths(struct adopt *a, const struct adopt_wrap *w, struct arena *arena)
{
    static const char *const paths[] = {"model", "api-key-file", "chat-template-file"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct buf host = {0};
        const char *path = cmdline_flag(&a->plan.words, paths[i]);
        if (path == NULL || str_starts(str_from(path), STR("hf:"))) continue;
        if (!wrap_path(w, path, &host))
            lose(a, arena, "a file inside the container, to be copied out of it: ", str_from(path));
        cmdline_set(&a->plan.words, paths[i], buf_cstr(&host));
        buf_free(&host);
    }
}

// The published port that is llama-server's own; of one alone nothing is asked.
static void map_port(struct adopt *a, const struct adopt_wrap *w, struct arena *arena)
{
    const char *own = cmdline_flag(&a->plan.words, "port");
    size_t i = 0;
    while (i + 1 < w->n_published &&
           !str_eq(w->published[i].inside, str_from(own != NULL ? own : "8080")))
        i++;
    if (w->n_published == 0) return;
    cmdline_set(&a->plan.words, "port", arena_str(arena, w->published[i].port).p);
    // inside it listened for everybody; outside, podman decides who may come
    cmdline_set(&a->plan.words, "host", arena_str(arena, w->published[i].address).p);
    llama_settle_public(&a->plan);
}

// ---- the rest of the unit -----------------------------------------------------------------------------

// What our unit has itself, has better, or what only describes. A star stands for any end.
static const char *const taken[] = {
    "Service.Type",
    "Service.ExecStart",
    "Service.Environment",
    "Service.EnvironmentFile",
    "Service.Restart",
    "Service.RestartSec",
    "Service.User",
    "Service.WorkingDirectory",
    "Service.Timeout*",
    "Service.NotifyAccess",
    "Service.KillMode",
    "Service.StandardOutput",
    "Service.StandardError",
    "Service.SyslogIdentifier",
    "Service.SupplementaryGroups",
    "Service.LimitMEMLOCK",
    "Service.LimitNOFILE",
    "Service.NoNewPrivileges",
    "Service.Private*",
    "Service.Protect*",
    "Service.Restrict*",
    "Service.LockPersonality",
    "Unit.Description",
    "Unit.Documentation",
    "Unit.StartLimit*",
    "Unit.SourcePath",
    "Install.WantedBy",
};

static bool is_taken(const struct unit_entry *t)
{
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        const struct str row = str_from(taken[i]);
        const size_t dot = str_find(row, STR("."), 0);
        const struct str key = str_sub(row, dot + 1, row.n);
        const bool star = str_ends(key, STR("*"));
        if (str_eq(t->section, str_sub(row, 0, dot)) &&
            (star ? str_starts(t->key, str_sub(key, 0, key.n - 1)) : str_eq(t->key, key)))
            return true;
    }
    return false;
}

// Orders of the container's program (podman stop, toolbox create) and waiting for the network go with it.
static bool is_needless(const struct adopt *a, const struct unit_entry *t)
{
    static const char *const programs[] = {"podman", "docker", "toolbox", "distrobox"};
    if (str_find(t->value, STR("network"), 0) != SIZE_MAX && str_eq(t->section, STR("Unit")))
        return true;
    for (size_t i = 0; i < sizeof programs / sizeof programs[0] && a->via != VIA_NOTHING; i++)
        if (str_starts(t->key, STR("Exec")) &&
            str_find(t->value, str_from(programs[i]), 0) != SIZE_MAX)
            return true;
    return false;
}

static void list_rest(struct adopt *a, const struct unit_file *u, struct arena *arena)
{
    for (size_t i = 0; i < u->n; i++) {
        const struct unit_entry *t = &u->entries[i];
        struct buf key = {0};
        if (t->value.n == 0 || is_taken(t) || is_needless(a, t)) continue;
        buf_str(&key, t->key);
        buf_c(&key, '=');
        lose(a, arena, buf_cstr(&key), t->value);
        buf_free(&key);
    }
}

// Variables that neither the command line nor llama-server's flags asked for.
static void list_variables(struct adopt *a, const struct unit_env *env, struct arena *arena)
{
    for (size_t i = 0; i < env->n; i++) {
        struct buf text = {0};
        if (env->v[i].used) continue;
        buf_printf(&text, "Environment=%s=%s", env->v[i].name, env->v[i].value);
        lose(a, arena, "", buf_view(&text));
        buf_free(&text);
    }
}

// Words in front of llama-server that are no container: nice, numactl, taskset ... `submind llama-server` is ours.
static void list_wrapper(struct adopt *a, const struct cmdline *c, size_t end, struct arena *arena)
{
    struct buf words = {0};
    for (size_t i = 0; i < end; i++) buf_printf(&words, "%s%s", i > 0 ? " " : "", c->v[i]);
    const char *slash = end == 1 ? strrchr(c->v[0], '/') : NULL;
    const bool ours = end == 1 && strcmp(slash == NULL ? c->v[0] : slash + 1, "submind") == 0;
    if (a->via == VIA_NOTHING && end > 0 && !ours)
        lose(a, arena, "in front of llama-server: ", buf_view(&words));
    buf_free(&words);
}

static const char *text_or_null(struct str s, struct arena *a)
{
    return s.n == 0 ? NULL : arena_str(a, s).p;
}

bool adopt_read(struct adopt *out, const struct unit_file *u, const struct adopt_place *place,
                struct arena *arena, struct err *e)
{
    struct cmdline c = {.arena = arena};
    struct unit_env env = {.arena = arena};
    struct unit_scope scope = {.env = &env};
    struct adopt_wrap wrap;
    struct adopt a = {.user = text_or_null(unit_value(u, "Service", "User"), arena)};
    const char *folder = text_or_null(unit_value(u, "Service", "WorkingDirectory"), arena);
    if (folder != NULL && strcmp(folder, "~") == 0) folder = place->home;
    unit_scope_names(&scope, place->unit, place->system, place->home, place->runtime, arena);
    scope.specifiers['u'] = a.user;
    unit_env_set(&env, STR("HOME"), str_from(place->home));
    if (!unit_env_read(&env, u, &scope, e) ||
        !unit_command(unit_value(u, "Service", "ExecStart"), &scope, &c, e) ||
        !unwrap_shell(&a, &c, &env, &folder, e) || !wrap_read(&wrap, &c, &env, e))
        return false;
    if (wrap.via != VIA_PODMAN && wrap.folder == NULL) wrap.folder = folder;
    a.via = wrap.via;
    a.container = wrap.container;
    if (!llama_translate(&a.plan, c.v + wrap.at, c.n - wrap.at, from_env, wrap.env, arena, e))
        return false;
    if (cmdline_flag(&a.plan.words, "model") == NULL)
        return err_set(e, ERR_FORMAT,
                       "its command line names no model (-m FILE or -hf REPO); use submind service "
                       "install --model FILE");
    map_paths(&a, &wrap, arena);
    map_port(&a, &wrap, arena);
    for (size_t i = 0; i < wrap.n_limits; i++)
        lose(&a, arena, "a limit of the container: ", wrap.limits[i]);
    unit_env_get(&env, "HOME");
    list_variables(&a, &env, arena);
    if (wrap.env != &env) list_variables(&a, wrap.env, arena);
    list_wrapper(&a, &c, wrap.at - 1, arena);
    list_rest(&a, u, arena);
    *out = a;
    return true;
}
