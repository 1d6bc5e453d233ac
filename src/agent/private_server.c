// Races: the lock is held from "nobody answers" to "somebody answers", so that of several starters
// one starts a server and the others wait for it. A server that dies while it loads is seen by the
// one who started it, who says why; whoever waited then tries once itself.
#include "agent/private_server.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/process.h"
#include "base/rundir.h"

enum {
    PROBE_MS = 2000,
    POLL_MS = 100,
    IDLE_EXIT_S = 900,
    MAX_LOG_BYTES = 64 << 20,
    MAX_ARGS = 64,
};

enum probe { PROBE_NONE, PROBE_LOADING, PROBE_READY };

struct starting {
    const struct server_wish *wish;
    struct http_client *http;
    struct buf exe, socket, lock, log, what;
    pid_t pid; // of the server that we started; 0 = none
    int lock_fd;
};

// ---- probing --------------------------------------------------------------------------------

static void get(struct http_client *c, const char *path, uint32_t limit_ms,
                const atomic_int *cancel, struct http_answer *out)
{
    struct http_call call = {.path = path,
                             .deadline_ns = clock_ns() + (uint64_t)limit_ms * 1000000,
                             .cancel = cancel,
                             .connect_ms = limit_ms};
    http_client_call(c, &call, out);
}

// what gets the server's words while it loads ("loading the model: 40 %").
static enum probe probe_health(struct http_client *c, const atomic_int *cancel, struct buf *what)
{
    struct http_answer a;
    get(c, "/health", PROBE_MS, cancel, &a);
    enum probe p = a.status == 200 ? PROBE_READY : a.status == 503 ? PROBE_LOADING : PROBE_NONE;
    if (p == PROBE_LOADING) {
        json_t *root = json_loadb(buf_view(&a.body).p, a.body.n, 0, NULL);
        json_t *message = json_object_get(json_object_get(root, "error"), "message");
        buf_clear(what);
        buf_z(what, json_is_string(message) ? json_string_value(message) : "loading the model");
        json_decref(root);
    }
    http_answer_free(&a);
    return p;
}

// Something else may listen on port 8080; a model server has a list of models, or asks for a key.
static bool serves_models(struct http_client *c, const atomic_int *cancel)
{
    struct http_answer a;
    get(c, "/v1/models", PROBE_MS, cancel, &a);
    json_t *root = json_loadb(buf_view(&a.body).p, a.body.n, 0, NULL);
    bool yes = a.status == 401 || (a.status == 200 && json_is_array(json_object_get(root, "data")));
    json_decref(root);
    http_answer_free(&a);
    return yes;
}

static bool may_go_on(const struct server_wish *w, struct err *e)
{
    if (w->cancel != NULL && atomic_load(w->cancel) != 0)
        return err_set(e, ERR_CANCELLED, "cancelled (waiting for a server)");
    if (w->deadline_ns != 0 && clock_ns() >= w->deadline_ns)
        return err_set(e, ERR_TIMEOUT, "out of time (waiting for a server)");
    return true;
}

static void tell(const struct server_wish *w, struct str what)
{
    if (w->on_wait != NULL) w->on_wait(w->arg, what);
}

// A server on the usual port; waits while it loads. NULL in *out when there is none.
static bool find_usual(struct http_client **out, const struct server_wish *w, struct err *e)
{
    struct http_client *c = NULL;
    struct buf what = {0};
    enum probe p;
    *out = NULL;
    if (!http_client_open(&c, "http://127.0.0.1:8080", w->key, e)) return false;
    bool ok = true;
    while ((p = probe_health(c, w->cancel, &what)) == PROBE_LOADING) {
        ok = may_go_on(w, e);
        if (!ok) break;
        tell(w, buf_view(&what));
        clock_sleep_ms(POLL_MS);
    }
    if (ok && p == PROBE_READY && serves_models(c, w->cancel)) {
        *out = c;
        c = NULL;
    }
    http_client_close(c);
    buf_free(&what);
    return ok;
}

// ---- starting -------------------------------------------------------------------------------

// One socket per program build and arguments: runs that want the same share it, others do not meet.
static bool name_files(struct starting *s, struct err *e)
{
    const struct server_wish *w = s->wish;
    struct buf dir = {0}, about = {0};
    uint64_t identity = 0;
    if (w->runtime_dir != NULL)
        buf_z(&dir, w->runtime_dir);
    else
        rundir_default(NULL, &dir);
    bool ok = rundir_self(&s->exe, &identity, e) && rundir_make(buf_cstr(&dir), e);
    buf_put(&about, &identity, sizeof identity);
    for (size_t i = 0; w->args != NULL && w->args[i] != NULL; i++)
        buf_put(&about, w->args[i], strlen(w->args[i]) + 1);
    unsigned name = (unsigned)hash64(about.p, about.n, 0);
    buf_printf(&s->socket, "%s/%08x.sock", buf_cstr(&dir), name);
    buf_printf(&s->lock, "%s/%08x.lock", buf_cstr(&dir), name);
    buf_printf(&s->log, "%s/%08x.log", buf_cstr(&dir), name);
    if (ok && s->socket.n >= sizeof(((struct sockaddr_un *)0)->sun_path))
        ok = err_set(e, ERR_INPUT, "%.200s is too long for a socket; use a shorter --runtime-dir",
                     buf_cstr(&s->socket));
    buf_free(&dir);
    buf_free(&about);
    return ok;
}

static bool start_server(struct starting *s, struct err *e)
{
    const char *argv[MAX_ARGS];
    char idle[16];
    uint32_t idle_s = s->wish->idle_exit_s != 0 ? s->wish->idle_exit_s : IDLE_EXIT_S;
    size_t n = 0;
    snprintf(idle, sizeof idle, "%u", idle_s);
    const char *const first[] = {buf_cstr(&s->exe),    "serve",       "--unix-socket",
                                 buf_cstr(&s->socket), "--idle-exit", idle};
    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++) argv[n++] = first[i];
    for (size_t i = 0; s->wish->args != NULL && s->wish->args[i] != NULL; i++) {
        if (n + 1 == MAX_ARGS) return err_set(e, ERR_INPUT, "too many arguments for a server");
        argv[n++] = s->wish->args[i];
    }
    argv[n] = NULL;
    unlink(buf_cstr(&s->socket)); // nobody answers on it, and we hold the lock
    log_debug("agent", "starting a private server socket=%s", buf_cstr(&s->socket));
    return process_start_detached(argv, s->wish->environment, "/", buf_cstr(&s->log), &s->pid, e);
}

// The last line of its log that is not empty is what it died of.
static bool tell_death(struct starting *s, int code, struct err *e)
{
    struct buf text = {0};
    struct err ignored = {0};
    file_read(&text, buf_cstr(&s->log), MAX_LOG_BYTES, &ignored);
    struct str all = str_trim(buf_view(&text));
    size_t newline = str_rfind(all, STR("\n"));
    struct str last = newline == SIZE_MAX ? all : str_sub(all, newline + 1, all.n);
    err_set(e, ERR_NO_SERVER, "the private server ended with code %d: %.*s (log: %.120s)", code,
            (int)(last.n < 250 ? last.n : 250), last.p, buf_cstr(&s->log));
    buf_free(&text);
    return false;
}

// Nobody answers: become the one who starts it, or wait for the one who does.
static bool nobody_answers(struct starting *s, struct err *e)
{
    int code;
    if (s->pid != 0) // ours has not opened its socket yet
        return process_ended(s->pid, &code) ? tell_death(s, code, e) : true;
    enum lock_state lock = LOCK_TAKEN;
    if (s->lock_fd < 0) lock = rundir_lock(buf_cstr(&s->lock), &s->lock_fd, e);
    if (lock == LOCK_FAILED) return false;
    if (lock == LOCK_BUSY) {
        tell(s->wish, STR("waiting for the private server that another run starts"));
        return true;
    }
    if (probe_health(s->http, s->wish->cancel, &s->what) != PROBE_NONE) return true;
    tell(s->wish, STR("starting a private server"));
    return start_server(s, e);
}

static bool wait_until_ready(struct starting *s, struct err *e)
{
    for (;;) {
        enum probe p = probe_health(s->http, s->wish->cancel, &s->what);
        if (p != PROBE_NONE && s->lock_fd >= 0) {
            rundir_unlock(s->lock_fd);
            s->lock_fd = -1;
        }
        if (p == PROBE_READY) return true;
        if (!may_go_on(s->wish, e)) return false;
        if (p == PROBE_LOADING) tell(s->wish, buf_view(&s->what));
        if (p == PROBE_NONE && !nobody_answers(s, e)) return false;
        clock_sleep_ms(POLL_MS);
    }
}

static bool find_private(struct http_client **out, const struct server_wish *w, struct err *e)
{
    struct starting s = {.wish = w, .lock_fd = -1};
    struct buf url = {0};
    bool ok = name_files(&s, e);
    buf_printf(&url, "unix:%s", buf_cstr(&s.socket));
    ok = ok && http_client_open(&s.http, buf_cstr(&url), NULL, e) && wait_until_ready(&s, e);
    rundir_unlock(s.lock_fd);
    if (ok)
        *out = s.http;
    else
        http_client_close(s.http);
    buf_free(&url);
    buf_free(&s.exe);
    buf_free(&s.socket);
    buf_free(&s.lock);
    buf_free(&s.log);
    buf_free(&s.what);
    return ok;
}

bool server_find(struct http_client **out, const struct server_wish *w, bool *is_private,
                 struct err *e)
{
    *is_private = false;
    if (w->url != NULL) return http_client_open(out, w->url, w->key, e);
    if (!w->private_only) {
        if (!find_usual(out, w, e)) return false;
        if (*out != NULL) return true;
    }
    *is_private = true;
    return find_private(out, w, e);
}
