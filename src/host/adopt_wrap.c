// Options are read where they matter to us (names, volumes, ports, variables) and skipped otherwise: all that
// counts is in front of llama-server or its image.
#include "host/adopt_wrap.h"

#include <string.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static bool is_image(const char *word)
{
    static const char *const names[] = {"llama.cpp:", "llama.cpp@",
                                        "llama-server:", "llama-server@"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strstr(word, names[i]) != NULL) return true;
    return false;
}

bool wrap_is_server(const char *word)
{
    return word[0] != '-' && (is_image(word) || strcmp(base_name(word), "llama-server") == 0);
}

// ---- options ----------------------------------------------------------------------------------------

struct reading {
    struct adopt_wrap *w;
    struct unit_env *unit; // the unit's variables, which `-e NAME` hands on
    struct err *e;
};

static void add_volume(struct adopt_wrap *w, struct str host, struct str inside)
{
    if (w->n_volumes == WRAP_MAX_VOLUMES || host.n == 0 || inside.n == 0) return;
    w->volumes[w->n_volumes].host = host;
    w->volumes[w->n_volumes++].inside = inside;
}

static bool on_volume(struct reading *r, const char *value) // HOST:INSIDE[:options]
{
    const char *colon = strchr(value, ':');
    if (colon != NULL)
        add_volume(r->w, (struct str){value, (size_t)(colon - value)},
                   (struct str){colon + 1, strcspn(colon + 1, ":")});
    return true;
}

static bool on_mount(struct reading *r, const char *value) // type=bind,source=HOST,target=INSIDE
{
    struct str host = {0}, inside = {0};
    for (const char *p = value; *p != '\0';) {
        const size_t n = strcspn(p, ",");
        const struct str field = {p, n};
        const size_t eq = str_find(field, STR("="), 0);
        const struct str key = str_sub(field, 0, eq);
        const struct str v = eq == SIZE_MAX ? STR("") : str_sub(field, eq + 1, n);
        if (str_eq(key, STR("source")) || str_eq(key, STR("src"))) host = v;
        if (str_eq(key, STR("target")) || str_eq(key, STR("dst")) ||
            str_eq(key, STR("destination")))
            inside = v;
        p += n + (p[n] == ',');
    }
    add_volume(r->w, host, inside);
    return true;
}

static bool on_publish(struct reading *r, const char *value) // [address:]port:inside[/tcp]
{
    struct adopt_wrap *w = r->w;
    const char *last = strrchr(value, ':');
    if (last == NULL || w->n_published == WRAP_MAX_PORTS) return true;
    const struct str outside = {value, (size_t)(last - value)};
    const size_t colon = str_rfind(outside, STR(":"));
    struct str address = colon == SIZE_MAX ? STR("0.0.0.0") : str_sub(outside, 0, colon);
    if (str_starts(address, STR("["))) address = str_sub(address, 1, address.n - 2); // [::1]
    const size_t i = w->n_published++;
    w->published[i].address = address;
    w->published[i].port = colon == SIZE_MAX ? outside : str_sub(outside, colon + 1, outside.n);
    w->published[i].inside = (struct str){last + 1, strcspn(last + 1, "/")};
    return true;
}

static bool on_limit(struct reading *r, const char *value)
{
    if (r->w->n_limits < WRAP_MAX_LIMITS) r->w->limits[r->w->n_limits++] = str_from(value);
    return true;
}

static bool on_env(struct reading *r, const char *value) // NAME=value, or NAME: as the unit has it
{
    if (unit_env_assign(r->w->env, str_from(value))) return true;
    const char *handed = unit_env_get(r->unit, value);
    if (handed != NULL) unit_env_set(r->w->env, str_from(value), str_from(handed));
    return true;
}

static bool on_env_file(struct reading *r, const char *value)
{
    return unit_env_plain_file(r->w->env, value, r->e);
}

static bool on_folder(struct reading *r, const char *value)
{
    r->w->folder = value;
    return true;
}

static bool on_container(struct reading *r, const char *value)
{
    r->w->container = value;
    return true;
}

static const struct {
    enum adopt_via via;
    const char *brief, *name;
    bool (*take)(struct reading *r, const char *value);
} options[] = {
    {VIA_TOOLBOX, "-c", "--container", on_container}, {VIA_DISTROBOX, "-n", "--name", on_container},
    {VIA_PODMAN, "-v", "--volume", on_volume},        {VIA_PODMAN, "", "--mount", on_mount},
    {VIA_PODMAN, "-p", "--publish", on_publish},      {VIA_PODMAN, "-e", "--env", on_env},
    {VIA_PODMAN, "", "--env-file", on_env_file},      {VIA_PODMAN, "-w", "--workdir", on_folder},
    {VIA_PODMAN, "-m", "--memory", on_limit},         {VIA_PODMAN, "", "--cpus", on_limit},
    {VIA_PODMAN, "", "--cpuset-cpus", on_limit},      {VIA_PODMAN, "", "--ulimit", on_limit},
};

// The value of "--name V", "--name=V", "-n V" or "-nV" at word i; NULL when it is another word.
static const char *option_value(const struct cmdline *c, size_t i, const char *brief,
                                const char *name)
{
    const char *word = c->v[i];
    const size_t n = strlen(name), n_brief = strlen(brief);
    if (strcmp(word, name) == 0 || (n_brief > 0 && strcmp(word, brief) == 0))
        return i + 1 < c->n ? c->v[i + 1] : NULL;
    if (strncmp(word, name, n) == 0 && word[n] == '=') return word + n + 1;
    return n_brief > 0 && strncmp(word, brief, n_brief) == 0 ? word + n_brief : NULL;
}

static enum adopt_via via_of(const char *word)
{
    static const struct {
        const char *name;
        enum adopt_via via;
    } programs[] = {{"toolbox", VIA_TOOLBOX},
                    {"distrobox", VIA_DISTROBOX},
                    {"distrobox-enter", VIA_DISTROBOX},
                    {"podman", VIA_PODMAN},
                    {"docker", VIA_PODMAN}};
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++)
        if (strcmp(base_name(word), programs[i].name) == 0) return programs[i].via;
    return VIA_NOTHING;
}

// `distrobox enter NAME --`: the name may stand alone.
static const char *box_name(const struct cmdline *c, size_t end)
{
    for (size_t i = 0; i + 1 < end; i++)
        if (strcmp(c->v[i], "enter") == 0 && c->v[i + 1][0] != '-') return c->v[i + 1];
    return NULL;
}

// "registry/name:tag": an image, and neither a path, a port nor an assignment.
static bool is_reference(const char *word)
{
    const char *slash = strchr(word, '/');
    return slash != NULL && strpbrk(slash, ":@") != NULL && strchr("/-.", word[0]) == NULL &&
           strchr(word, '=') == NULL && strstr(word, ":/") == NULL;
}

// llama-server's word, or the image's whose entry point it is, also by --entrypoint; c->n when there is none.
static size_t find_server(const struct cmdline *c)
{
    static const char entry[] = "--entrypoint";
    bool by_entry = false;
    for (size_t i = 0; i < c->n; i++) {
        const char *word = c->v[i];
        const bool flag = strncmp(word, entry, sizeof entry - 1) == 0;
        const bool value = i > 0 && strcmp(c->v[i - 1], entry) == 0;
        const char *program = flag && word[sizeof entry - 1] == '=' ? word + sizeof entry : word;
        if ((flag || value) && strcmp(base_name(program), "llama-server") == 0) by_entry = true;
        if (!flag && !value && (by_entry ? is_reference(word) : wrap_is_server(word))) return i;
    }
    return c->n;
}

bool wrap_read(struct adopt_wrap *out, const struct cmdline *c, struct unit_env *env, struct err *e)
{
    struct adopt_wrap w = {.env = env};
    struct reading r = {&w, env, e};
    w.at = find_server(c);
    if (w.at == c->n)
        return err_set(e, ERR_FORMAT,
                       "the unit does not run llama-server (ExecStart: %.200s); name the unit that "
                       "does, or use submind service install",
                       c->n > 0 ? c->v[0] : "none");
    for (size_t i = 0; i < w.at; i++) {
        const enum adopt_via via = via_of(c->v[i]);
        if (w.via == VIA_NOTHING && via == VIA_PODMAN) {
            w.env = arena_alloc(env->arena, sizeof *w.env); // a container has its own
            if (w.env == NULL) return err_set(e, ERR_MEMORY, "no memory for variables");
            w.env->arena = env->arena;
        }
        if (w.via == VIA_NOTHING) w.via = via;
        if (w.via == VIA_NOTHING && strcmp(base_name(c->v[0]), "env") == 0)
            unit_env_assign(w.env, str_from(c->v[i]));
        for (size_t k = 0; k < sizeof options / sizeof options[0]; k++) {
            const char *value = w.via != options[k].via
                                    ? NULL
                                    : option_value(c, i, options[k].brief, options[k].name);
            if (value != NULL && !options[k].take(&r, value)) return false;
        }
    }
    if (w.via == VIA_DISTROBOX && w.container == NULL) w.container = box_name(c, w.at);
    // the image: llama.cpp's own, or the word before the program's name
    if (w.via == VIA_PODMAN) w.container = is_reference(c->v[w.at]) ? c->v[w.at] : c->v[w.at - 1];
    w.at++;
    *out = w;
    return true;
}

// ---- paths ------------------------------------------------------------------------------------------

static bool lies_below(struct str path, struct str folder)
{
    if (folder.n > 1 && folder.p[folder.n - 1] == '/') folder.n--;
    return str_starts(path, folder) &&
           (path.n == folder.n || path.p[folder.n] == '/' || folder.n == 1);
}

bool wrap_path(const struct adopt_wrap *w, const char *path, struct buf *out)
{
    static const char host[] = "/run/host"; // where toolboxes show the machine's root
    struct buf whole = {0};
    if (path[0] != '/' && w->folder != NULL) buf_printf(&whole, "%s/", w->folder);
    buf_z(&whole, path);
    const struct str p = buf_view(&whole);
    size_t best = SIZE_MAX; // the innermost volume
    for (size_t i = 0; i < w->n_volumes; i++)
        if (lies_below(p, w->volumes[i].inside) &&
            (best == SIZE_MAX || w->volumes[i].inside.n > w->volumes[best].inside.n))
            best = i;
    const bool outside = w->via != VIA_PODMAN || best != SIZE_MAX;
    if (best != SIZE_MAX) {
        struct str inside = w->volumes[best].inside;
        if (inside.n > 1 && inside.p[inside.n - 1] == '/') inside.n--;
        buf_str(out, w->volumes[best].host);
        const struct str rest = str_sub(p, inside.n, p.n);
        if (rest.n > 0 && rest.p[0] != '/') buf_c(out, '/');
        buf_str(out, rest);
    } else if (w->via != VIA_NOTHING && w->via != VIA_PODMAN && lies_below(p, str_from(host))) {
        buf_str(out, str_sub(p, sizeof host - 1, p.n));
    } else {
        buf_str(out, p);
    }
    buf_free(&whole);
    return outside;
}
