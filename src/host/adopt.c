// The command line is cut at the word that is llama-server: what stands before is the wrapper, behind it
// the flags. In a container paths and ports are the container's; --volume and --publish say what they are
// outside.
#include "host/adopt.h"

#include <string.h>

struct volumes {
    struct {
        struct str host, inside;
    } v[16];
    size_t n;
    struct str port; // of --publish host:inside
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

// llama-server itself, or an image whose entry point it is.
static bool is_server(const char *word, bool *image)
{
    *image = strstr(word, "llama.cpp:") != NULL || strstr(word, "llama-server:") != NULL;
    return *image || strcmp(base_name(word), "llama-server") == 0;
}

static const char *flag_value(const struct cmdline *c, size_t i, const char *const *names,
                              size_t n_names)
{
    for (size_t k = 0; k < n_names; k++) {
        size_t n = strlen(names[k]);
        if (strncmp(c->v[i], names[k], n) != 0) continue;
        if (c->v[i][n] == '=') return c->v[i] + n + 1;
        if (c->v[i][n] == '\0' && i + 1 < c->n) return c->v[i + 1];
    }
    return NULL;
}

static void read_wrapper(struct adopt *a, const struct cmdline *c, size_t end, struct volumes *v)
{
    static const char *const container[] = {"-c", "--container"};
    static const char *const volume[] = {"-v", "--volume"};
    static const char *const publish[] = {"-p", "--publish"};
    for (size_t i = 0; i < end; i++) {
        const char *word = base_name(c->v[i]);
        if (strcmp(word, "toolbox") == 0) a->via = VIA_TOOLBOX;
        if (strcmp(word, "podman") == 0 || strcmp(word, "docker") == 0) a->via = VIA_PODMAN;
        if (a->via == VIA_TOOLBOX) {
            const char *name = flag_value(c, i, container, 2);
            if (name != NULL) a->container = name;
            continue;
        }
        const char *pair = flag_value(c, i, volume, 2), *port = flag_value(c, i, publish, 2);
        const char *colon = pair == NULL ? NULL : strchr(pair, ':');
        if (colon != NULL && v->n < 16) {
            size_t n = strcspn(colon + 1, ":");
            v->v[v->n].host = (struct str){pair, (size_t)(colon - pair)};
            v->v[v->n++].inside = (struct str){colon + 1, n};
        }
        const char *last = port == NULL ? NULL : strrchr(port, ':');
        if (last != NULL) { // [address:]port:inside
            struct str outside = {port, (size_t)(last - port)};
            size_t address = str_rfind(outside, STR(":"));
            v->port = address == SIZE_MAX ? outside : str_sub(outside, address + 1, outside.n);
        }
    }
}

static void map_path(struct llama_plan *p, const char *flag, const struct volumes *v)
{
    const char *path = cmdline_flag(&p->words, flag);
    for (size_t i = 0; path != NULL && i < v->n; i++) {
        const struct str inside = v->v[i].inside, text = str_from(path);
        const bool whole =
            str_starts(text, inside) && (text.n == inside.n || text.p[inside.n] == '/' ||
                                         (inside.n > 0 && inside.p[inside.n - 1] == '/'));
        if (!whole) continue;
        struct buf host = {0};
        buf_str(&host, v->v[i].host);
        buf_str(&host, str_sub(text, inside.n, text.n));
        cmdline_set(&p->words, flag, buf_cstr(&host));
        buf_free(&host);
        return;
    }
}

static void map_container(struct adopt *a, const struct volumes *v, struct arena *arena)
{
    static const char *const paths[] = {"model", "api-key-file", "chat-template-file"};
    if (a->via != VIA_PODMAN) return;
    for (size_t i = 0; i < 3; i++) map_path(&a->plan, paths[i], v);
    if (v->port.n == 0) return;
    cmdline_set(&a->plan.words, "port", arena_str(arena, v->port).p);
    // inside it listened for everybody; outside, podman decided who may come
    cmdline_set(&a->plan.words, "host", "127.0.0.1");
}

// Keys that our unit has itself or that only describe.
static bool is_ours(struct str key)
{
    static const char *const known[] = {
        "Type",
        "ExecStart",
        "Restart",
        "RestartSec",
        "User",
        "Group",
        "WorkingDirectory",
        "TimeoutStartSec",
        "TimeoutStopSec",
        "NotifyAccess",
        "ExecStartPre",
        "ExecStop",
        "KillMode",
        "StandardOutput",
        "StandardError",
        "SyslogIdentifier",
        "SupplementaryGroups",
        "ExecStopPost",
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (str_eq(key, str_from(known[i]))) return true;
    return false;
}

static void list_rest(struct adopt *a, const struct unit_file *u, struct arena *arena)
{
    for (size_t i = 0; i < u->n && a->n_lost < 64; i++) {
        const struct unit_entry *t = &u->entries[i];
        if (!str_eq(t->section, STR("Service")) || t->value.n == 0 || is_ours(t->key)) continue;
        if (str_eq(t->key, STR("Environment")) && str_starts(t->value, STR("LLAMA_ARG_"))) continue;
        struct buf line = {0};
        buf_str(&line, t->key);
        buf_c(&line, '=');
        buf_str(&line, t->value);
        a->lost[a->n_lost++] = arena_str(arena, buf_view(&line));
        buf_free(&line);
    }
}

struct environment {
    const struct unit_file *unit;
    struct arena *arena;
};

static const char *from_unit(void *arg, const char *name)
{
    const struct environment *env = arg;
    return unit_environment(env->unit, name, env->arena);
}

bool adopt_read(struct adopt *out, const struct unit_file *u, const char *home, const char *runtime,
                struct arena *a, struct err *e)
{
    struct cmdline c = {.arena = a};
    struct volumes v = {0};
    struct environment env = {u, a};
    struct adopt result = {0};
    bool image = false;
    size_t at = 0;
    if (!unit_command(u, unit_value(u, "Service", "ExecStart"), home, runtime, &c, e)) return false;
    while (at < c.n && !is_server(c.v[at], &image)) at++;
    if (at == c.n)
        return err_set(e, ERR_FORMAT,
                       "the unit does not run llama-server (ExecStart: %.200s); name the unit that "
                       "does, or use submind service install",
                       c.n > 0 ? c.v[0] : "none");
    read_wrapper(&result, &c, at, &v);
    if (image) result.container = c.v[at];
    if (!llama_translate(&result.plan, c.v + at + 1, c.n - at - 1, from_unit, &env, a, e))
        return false;
    map_container(&result, &v, a);
    result.user = unit_value(u, "Service", "User");
    list_rest(&result, u, a);
    *out = result;
    return true;
}
