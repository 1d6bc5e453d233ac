// bubblewrap's arguments are carried out in order: first the whole system read-only, then what
// hides parts of it, then what makes parts writable, then what must never be seen. Whether it works
// cannot be read off the system (user namespaces are restricted in half a dozen ways), so it is
// tried.
#include "agent/sandbox.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/process.h"

enum { PROBE_MS = 5000 };

// In every sandbox. The new session is the supervisor's work (no terminal to push characters into).
static const char *const always[] = {"--die-with-parent",
                                     "--unshare-user-try",
                                     "--unshare-pid",
                                     "--unshare-ipc",
                                     "--unshare-uts",
                                     "--unshare-cgroup-try",
                                     "--cap-drop",
                                     "ALL",
                                     "--ro-bind",
                                     "/",
                                     "/",
                                     "--dev",
                                     "/dev",
                                     "--proc",
                                     "/proc",
                                     "--tmpfs",
                                     "/tmp",
                                     "--tmpfs",
                                     "/var/tmp"};

// Doors out of any sandbox: whoever reaches these sockets is root, or starts processes elsewhere.
static const char *const doors[] = {"/run/docker.sock", "/run/containerd", "/run/podman",
                                    "/run/crio",        "/run/libvirt",    "/run/lxd",
                                    "/run/incus",       "/var/snap/lxd"};

void sandbox_settings_free(struct sandbox_settings *s)
{
    words_free(&s->write);
    words_free(&s->hide);
    *s = (struct sandbox_settings){0};
}

static const char *path_of(const char *const *environment)
{
    for (; environment != NULL && *environment != NULL; environment++)
        if (strncmp(*environment, "PATH=", 5) == 0 && (*environment)[5] != '\0')
            return *environment + 5;
    return "/usr/local/bin:/usr/bin:/bin";
}

// ---- does it work ---------------------------------------------------------------------------

static struct {
    pthread_mutex_t lock;
    bool tried, works; // by lock
    struct err why;
} probe = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool put(struct words *out, const char *word, struct err *e)
{
    return words_put(out, str_from(word), e);
}

static bool put_base(const char *program, struct words *out, struct err *e)
{
    bool ok = put(out, program, e);
    for (size_t i = 0; ok && i < sizeof always / sizeof always[0]; i++) ok = put(out, always[i], e);
    return ok;
}

static bool try_it(const char *program, struct err *e)
{
    static const char *const none[] = {NULL};
    struct words argv = {0};
    struct process_result r = {0};
    bool ok = put_base(program, &argv, e) && put(&argv, "--unshare-net", e) &&
              put(&argv, "--", e) && put(&argv, "/bin/true", e);
    if (ok) {
        struct process_spec spec = {.argv = (const char *const *)argv.p,
                                    .env = none,
                                    .path = "/usr/bin:/bin",
                                    .timeout_ms = PROBE_MS,
                                    .keep_bytes = 1000};
        ok = process_run(&spec, &r, e);
        if (ok && (r.end != PROCESS_EXITED || r.code != 0)) {
            struct str said = str_trim(buf_view(&r.head));
            ok = err_set(e, ERR_DENIED, "bubblewrap cannot make a sandbox here (%.*s)",
                         (int)(said.n < 200 ? said.n : 200), said.p != NULL ? said.p : "");
        }
    }
    process_result_free(&r);
    words_free(&argv);
    return ok;
}

static bool find_program(const char *const *environment, struct buf *out, struct err *e)
{
    struct err problem = {0};
    if (process_find(out, "bwrap", path_of(environment), &problem)) return true;
    return err_set(e, ERR_DENIED, "bubblewrap is not installed");
}

bool sandbox_works(const char *const *environment, struct err *why)
{
    struct buf program = {0};
    pthread_mutex_lock(&probe.lock);
    if (!probe.tried) {
        probe.works = find_program(environment, &program, &probe.why) &&
                      try_it(buf_cstr(&program), &probe.why);
        probe.tried = true;
        if (!probe.works) log_debug("sandbox", "%s", probe.why.msg);
    }
    bool works = probe.works;
    if (!works) err_set(why, probe.why.code, "%s", probe.why.msg);
    pthread_mutex_unlock(&probe.lock);
    buf_free(&program);
    return works;
}

// ---- the arguments --------------------------------------------------------------------------

static bool put_bind(const char *how, const char *path, struct words *out, struct err *e)
{
    return put(out, how, e) && put(out, path, e) && put(out, path, e);
}

static bool put_writable(const struct words *list, struct words *out, struct err *e)
{
    for (size_t i = 0; list != NULL && i < list->n; i++) {
        struct stat st;
        if (stat(list->p[i], &st) != 0)
            return err_errno(e, ERR_DENIED, "the sandbox's writable path %.200s", list->p[i]);
        if (!put_bind("--bind", list->p[i], out, e)) return false;
    }
    return true;
}

// What is hidden stays a file or a folder, but an empty one. Links are followed first: hiding the
// link would leave its target in sight.
static bool put_hidden(const char *path, struct words *out, struct err *e)
{
    struct stat st;
    char *real = realpath(path, NULL);
    bool ok = true;
    if (real != NULL && stat(real, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            ok = put(out, "--tmpfs", e) && put(out, real, e);
        else
            ok = put(out, "--ro-bind", e) && put(out, "/dev/null", e) && put(out, real, e);
    }
    free(real);
    return ok;
}

// A program below /tmp stays in sight, and a file that it is given, each with the folder in /tmp that it came in:
// a script is nothing without the modules beside it.
static bool put_named(const struct words *list, struct words *out, struct err *e)
{
    static const char *const own[] = {"/tmp/", "/var/tmp/"};
    bool ok = true;
    for (size_t i = 0; list != NULL && i < list->n; i++)
        for (size_t k = 0; ok && k < sizeof own / sizeof own[0]; k++) {
            const size_t n = strlen(own[k]);
            if (strncmp(list->p[i], own[k], n) != 0) continue;
            const char *name = list->p[i] + n;
            const size_t n_name = strcspn(name, "/");
            struct buf folder = {0};
            struct stat st;
            buf_put(&folder, list->p[i], n + n_name);
            // "." and ".." are no folders in /tmp
            if (strspn(name, ".") < n_name && stat(buf_cstr(&folder), &st) == 0)
                ok = put_bind("--ro-bind", buf_cstr(&folder), out, e);
            buf_free(&folder);
        }
    return ok;
}

static bool put_all(const struct sandbox_ask *ask, const char *program, struct words *out,
                    struct err *e)
{
    const struct sandbox_settings *s = ask->settings;
    const struct words *const hidden[] = {&s->hide, ask->hide};
    bool ok = put_base(program, out, e) && put_named(ask->named, out, e);
    // A workspace below /tmp would be gone with it.
    ok = ok && put_bind("--ro-bind", ask->dir, out, e);
    ok = ok && put_writable(&s->write, out, e) && put_writable(ask->write, out, e);
    if (ok && !ask->network && s->network == 0) ok = put(out, "--unshare-net", e);
    for (size_t i = 0; ok && i < sizeof doors / sizeof doors[0]; i++)
        ok = put_hidden(doors[i], out, e);
    for (size_t k = 0; ok && k < 2; k++)
        for (size_t i = 0; ok && hidden[k] != NULL && i < hidden[k]->n; i++)
            ok = put_hidden(hidden[k]->p[i], out, e);
    return ok && put(out, "--chdir", e) && put(out, ask->dir, e) && put(out, "--", e);
}

bool sandbox_prefix(const struct sandbox_ask *ask, struct words *out, struct err *e)
{
    struct err why = {0};
    struct buf program = {0};
    if (ask->off || ask->settings->mode == SANDBOX_OFF) return true;
    if (!sandbox_works(ask->environment, &why)) {
        static atomic_bool warned;
        if (ask->settings->mode == SANDBOX_ON)
            return err_set(e, ERR_DENIED,
                           "%s, and commands run only in its sandbox: install bubblewrap and allow "
                           "user namespaces, or set \"sandbox: off\" in submind.yaml",
                           why.msg);
        if (!atomic_exchange(&warned, true))
            log_warn("sandbox", "commands run without a sandbox: %s", why.msg);
        return true;
    }
    bool ok =
        find_program(ask->environment, &program, e) && put_all(ask, buf_cstr(&program), out, e);
    buf_free(&program);
    return ok;
}
