// The server is a process of its own, so that what is measured is what clients get. Its log stays
// readable until it is stopped, and its last line is shown when it dies while loading.
#include "cmd/bench_server.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/http_client.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/process.h"
#include "base/rundir.h"
#include "host/models.h"
#include "host/service_unit.h"
#include "host/unit_file.h"

enum { MAX_WORDS = 128, POLL_MS = 50, STOP_MS = 8000, MAX_LOG_BYTES = 16 << 20 };

static bool make_dir(struct bench_server *b, struct err *e)
{
    char dir[] = "/tmp/submind-bench-XXXXXX";
    if (mkdtemp(dir) == NULL) return err_errno(e, ERR_IO, "cannot make %s", dir);
    buf_z(&b->dir, dir);
    return true;
}

static void path_in(const struct bench_server *b, const char *name, char *out, size_t n)
{
    snprintf(out, n, "%.*s/%s", (int)b->dir.n, b->dir.p, name);
}

// ---- what to start ------------------------------------------------------------------------------

// A port that was free a moment ago.
static unsigned free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return 0;
    bool ok =
        bind(fd, (struct sockaddr *)&a, n) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0;
    close(fd);
    return ok ? ntohs(a.sin_port) : 0;
}

// The command with {port} replaced, split as a unit's command line is: quotes, no shell.
static bool words_of_command(struct bench_server *b, const char *command, struct cmdline *out,
                             struct err *e)
{
    const struct unit_scope as_is = {0}; // a shell has read it before us: $ and % are characters
    struct buf text = {0}, program = {0};
    const unsigned port = free_port();
    bool named = false, ok = port != 0 || err_errno(e, ERR_IO, "cannot find a free port");
    for (const char *p = command; *p != '\0';) {
        if (strncmp(p, "{port}", 6) == 0) {
            buf_printf(&text, "%u", port);
            p += 6;
            named = true;
        } else {
            buf_c(&text, *p++);
        }
    }
    if (ok && !named)
        ok = err_set(e, ERR_INPUT,
                     "the command needs {port} where its port goes, as in: llama-server -m FILE "
                     "--port {port}");
    ok = ok && unit_command(buf_view(&text), &as_is, out, e);
    if (ok && out->n == 0) ok = err_set(e, ERR_INPUT, "the command is empty");
    ok = ok && process_find(&program, out->v[0], options_env("PATH"), e);
    if (ok) {
        struct str path = arena_str(out->arena, buf_view(&program));
        ok = path.p != NULL || err_set(e, ERR_MEMORY, "no memory for the command");
        out->v[0] = path.p;
        buf_printf(&b->url, "http://127.0.0.1:%u", port);
    }
    buf_free(&text);
    buf_free(&program);
    return ok;
}

static bool put_container(const char *image, const char *dir, const char *model,
                          struct cmdline *out, struct err *e)
{
    static const char *const words[] = {"run",          "--rm",        "--network=none",
                                        "--group-add",  "keep-groups", "--security-opt",
                                        "label=disable"};
    const char *devices[SERVICE_DEVICE_WORDS];
    const size_t n_devices = service_container_devices(devices);
    struct buf text = {0};
    const bool ok = process_find(&text, "podman", options_env("PATH"), e);
    if (ok) cmdline_put(out, buf_view(&text));
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) cmdline_z(out, words[i]);
    for (size_t i = 0; i < n_devices; i++) cmdline_z(out, devices[i]);
    buf_clear(&text);
    buf_printf(&text, "%s:%s", dir, dir);
    cmdline_z(out, "--volume");
    cmdline_put(out, buf_view(&text));
    if (model != NULL) {
        struct buf folder = {0};
        model_volume(model, &folder);
        buf_clear(&text);
        buf_printf(&text, "%s:%s:ro", buf_cstr(&folder), buf_cstr(&folder));
        cmdline_z(out, "--volume");
        cmdline_put(out, buf_view(&text));
        buf_free(&folder);
    }
    buf_free(&text);
    cmdline_z(out, image);
    cmdline_z(out, "submind");
    return ok;
}

static bool words_of_ours(struct bench_server *b, const struct bench_start *how,
                          struct cmdline *out, struct err *e)
{
    struct buf self = {0};
    uint64_t identity;
    char socket[128];
    const char *engine[MAX_WORDS];
    size_t n = 0;
    if (how->settings != NULL &&
        !options_engine_words(how->settings, out->arena, engine, &n, MAX_WORDS))
        return err_set(e, ERR_MEMORY, "no memory for the server's flags");
    if (!rundir_self(&self, &identity, e)) return false;
    path_in(b, "socket", socket, sizeof socket);
    bool ok = true;
    if (how->image != NULL)
        ok =
            put_container(how->image, buf_cstr(&b->dir), cmdline_flag(how->flags, "model"), out, e);
    else
        cmdline_z(out, buf_cstr(&self));
    buf_free(&self);
    if (!ok) return false;
    cmdline_z(out, "serve");
    for (size_t i = 0; i < n; i++) cmdline_z(out, engine[i]);
    for (size_t i = 0; how->flags != NULL && i < how->flags->n; i++)
        cmdline_z(out, how->flags->v[i]);
    // what belongs to the service and not to a measurement
    static const char *const dropped[] = {"host", "port", "api-key-file", "drain", "idle-exit"};
    for (size_t i = 0; i < sizeof dropped / sizeof dropped[0]; i++)
        cmdline_set(out, dropped[i], NULL);
    cmdline_set(out, "unix-socket", socket);
    if (how->settings == NULL || how->settings->cache_dir == NULL)
        cmdline_set(out, "cache-dir", "off"); // what is measured leaves nothing behind
    buf_printf(&b->url, "unix:%s", socket);
    return !out->failed || err_set(e, ERR_MEMORY, "no memory for the server's flags");
}

static bool start(struct bench_server *b, const struct bench_start *how, struct err *e)
{
    struct arena a = {0};
    struct cmdline words = {.arena = &a};
    char log[128];
    path_in(b, "log", log, sizeof log);
    bool ok = how->command != NULL ? words_of_command(b, how->command, &words, e)
                                   : words_of_ours(b, how, &words, e);
    // where the user is: a command may name program and model from there
    ok = ok && process_start_detached(words.v, (const char *const *)environ, ".", log, &b->pid, e);
    arena_free(&a);
    return ok;
}

// ---- waiting ------------------------------------------------------------------------------------

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

// 200 on /health; a server that has no such route shows its models when it is ready.
static bool is_ready(const struct bench_server *b, struct err *e)
{
    static const char *const routes[] = {"/health", "/v1/models"};
    struct buf url = b->url; // a view: not freed here
    long status = 404;
    for (size_t i = 0; i < 2 && status == 404; i++) {
        struct http_client *http = NULL;
        struct http_answer answer = {0};
        const struct http_call call = {.path = routes[i], .deadline_ns = clock_ns() + 2000000000u};
        if (!http_client_open(&http, buf_cstr(&url), NULL, e)) return false;
        http_client_call(http, &call, &answer);
        status = answer.status;
        http_answer_free(&answer);
        http_client_close(http);
    }
    return status == 200;
}

bool bench_server_start(struct bench_server *out, const struct bench_start *how, struct err *e)
{
    struct bench_server b = {0};
    int code = 0;
    bool ok = make_dir(&b, e) && start(&b, how, e);
    if (ok && how->on_wait != NULL) how->on_wait("starting a server and loading the model");
    while (ok && !is_ready(&b, e)) {
        if (e->code != ERR_NONE) {
            ok = false;
        } else if (how->cancel != NULL && atomic_load(how->cancel) != 0) {
            ok = err_set(e, ERR_CANCELLED, "stopped while the server was loading");
        } else if (process_ended(b.pid, &code)) {
            ok = tell_death(&b, code, e);
            b.pid = 0;
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
        kill(-b->pid, SIGTERM); // its session: also what a wrapper started
        for (int waited = 0; !process_ended(b->pid, &code); waited += POLL_MS) {
            if (waited >= STOP_MS) kill(-b->pid, SIGKILL);
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
