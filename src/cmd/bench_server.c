// The server is a process of its own, so that what is measured is what clients get. Its log stays
// readable until it is stopped, and its last line is shown when it dies while loading.
#include "cmd/bench_server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/http_client.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/process.h"
#include "base/rundir.h"

enum { MAX_WORDS = 64, POLL_MS = 50, STOP_MS = 8000, MAX_LOG_BYTES = 16 << 20 };

static bool make_dir(struct bench_server *b, struct err *e)
{
    char dir[] = "/tmp/submind-bench-XXXXXX";
    if (mkdtemp(dir) == NULL) return err_errno(e, ERR_IO, "cannot make %s", dir);
    buf_z(&b->dir, dir);
    buf_printf(&b->url, "unix:%s/socket", dir);
    return true;
}

static void path_in(const struct bench_server *b, const char *name, char *out, size_t n)
{
    snprintf(out, n, "%.*s/%s", (int)b->dir.n, b->dir.p, name);
}

static bool start(struct bench_server *b, const struct settings *s, struct err *e)
{
    const char *argv[MAX_WORDS + 1] = {NULL, "serve", "--unix-socket"};
    size_t n = 4;
    char socket[128], log[128];
    uint64_t identity;
    struct buf self = {0};
    struct arena a = {0};
    path_in(b, "socket", socket, sizeof socket);
    path_in(b, "log", log, sizeof log);
    argv[3] = socket;
    bool ok = rundir_self(&self, &identity, e);
    argv[0] = buf_cstr(&self);
    if (ok && !options_engine_words(s, &a, argv, &n, MAX_WORDS))
        ok = err_set(e, ERR_MEMORY, "no memory for the server's flags");
    argv[n] = NULL;
    ok = ok && process_start_detached(argv, (const char *const *)environ, log, &b->pid, e);
    arena_free(&a);
    buf_free(&self);
    return ok;
}

static bool tell_death(const struct bench_server *b, int code, struct err *e)
{
    char path[128];
    struct buf log = {0};
    struct err ignored = {0};
    path_in(b, "log", path, sizeof path);
    file_read(&log, path, MAX_LOG_BYTES, &ignored);
    struct str text = str_trim(buf_view(&log));
    size_t newline = str_rfind(text, STR("\n"));
    struct str last = newline == SIZE_MAX ? text : str_sub(text, newline + 1, text.n);
    err_set(e, ERR_NO_SERVER, "the server ended with code %d: %.*s", code,
            (int)(last.n < 400 ? last.n : 400), last.p);
    buf_free(&log);
    return false;
}

static bool is_ready(const struct bench_server *b, struct err *e)
{
    struct http_client *http = NULL;
    struct http_answer answer = {0};
    const struct http_call call = {.path = "/health", .deadline_ns = clock_ns() + 2000000000u};
    struct buf url = b->url; // a view: not freed here
    if (!http_client_open(&http, buf_cstr(&url), NULL, e)) return false;
    http_client_call(http, &call, &answer);
    bool ready = answer.status == 200;
    http_answer_free(&answer);
    http_client_close(http);
    return ready;
}

bool bench_server_start(struct bench_server *out, const struct settings *s,
                        void (*on_wait)(const char *what), struct err *e)
{
    struct bench_server b = {0};
    int code = 0;
    bool ok = make_dir(&b, e) && start(&b, s, e);
    on_wait("starting a server and loading the model");
    while (ok && !is_ready(&b, e)) {
        if (e->code != ERR_NONE) {
            ok = false;
        } else if (process_ended(b.pid, &code)) {
            b.pid = 0;
            ok = tell_death(&b, code, e);
        } else {
            clock_sleep_ms(POLL_MS);
        }
    }
    if (ok)
        *out = b;
    else
        bench_server_stop(&b);
    return ok;
}

void bench_server_stop(struct bench_server *b)
{
    char path[128];
    int code;
    if (b->pid > 0) {
        kill(b->pid, SIGTERM);
        for (int waited = 0; !process_ended(b->pid, &code); waited += POLL_MS) {
            if (waited >= STOP_MS) kill(b->pid, SIGKILL);
            clock_sleep_ms(POLL_MS);
        }
    }
    if (b->dir.n > 0) {
        path_in(b, "socket", path, sizeof path);
        unlink(path);
        path_in(b, "log", path, sizeof path);
        unlink(path);
        rmdir(buf_cstr(&b->dir));
    }
    buf_free(&b->dir);
    buf_free(&b->url);
    *b = (struct bench_server){0};
}
