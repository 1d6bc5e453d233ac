// One message a line over a child's standard input and output; its standard error is kept for the
// record. Writing and reading go on together, so that a server which answers while we still write
// cannot lock both up.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/mcp_transport.h"
#include "agent/tool_env.h"
#include "agent/tool_text.h"
#include "base/clock.h"
#include "base/process.h"

enum {
    SLICE_MS = 50,
    CLOSE_MS = 1000, // between closing its input and killing it
    MAX_LINE_BYTES = 16 << 20,
    MAX_LOG_BYTES = 16384,
    REASON_BYTES = 200,
};

struct stdio {
    struct mcp_transport base;
    struct supervised child;
    struct buf to_send, line, log;
    bool log_is_cut; // its beginning is gone
    bool dead;
    struct supervised_end end;
};

// ---- starting -------------------------------------------------------------------------------

static bool make_env(const struct mcp_spec *spec, const struct mcp_place *p, const char *path,
                     struct words *env, struct err *e)
{
    bool ok = tool_env_make(p->environment, NULL, path, env, e);
    for (size_t i = 0; ok && i < spec->env.n; i++) {
        struct buf name = {0}, value = {0};
        const char *pair = spec->env.p[i], *equals = strchr(pair, '=');
        buf_put(&name, pair, (size_t)(equals - pair));
        ok = secrets_expand(p->secrets, str_from(equals + 1), p->environment, &value, e) &&
             tool_env_put(env, buf_cstr(&name), buf_cstr(&value), e);
        if (value.p != NULL) explicit_bzero(value.p, value.n);
        buf_free(&name);
        buf_free(&value);
    }
    return ok;
}

static bool put_expanded(const struct mcp_place *p, const char *text, struct words *argv,
                         struct err *e)
{
    struct buf word = {0};
    bool ok = secrets_expand(p->secrets, str_from(text), p->environment, &word, e) &&
              words_put(argv, buf_view(&word), e);
    buf_free(&word);
    return ok;
}

static bool make_argv(const struct mcp_spec *spec, const struct mcp_place *p, const char *path,
                      const char *dir, struct words *argv, struct err *e)
{
    struct buf command = {0}, program = {0};
    struct words named = {0};
    struct sandbox_ask ask = {.settings = p->sandbox,
                              .write = &spec->write,
                              .hide = p->hide,
                              .named = &named,
                              .environment = p->environment,
                              .dir = dir,
                              .network = spec->network,
                              .off = spec->no_sandbox};
    bool ok = secrets_expand(p->secrets, str_from(spec->command), p->environment, &command, e) &&
              process_find(&program, buf_cstr(&command), path, e) &&
              words_put(&named, buf_view(&program), e);
    for (size_t i = 0; ok && i < spec->args.n; i++)
        ok = words_put(&named, str_from(spec->args.p[i]), e);
    ok = ok && sandbox_prefix(&ask, argv, e) && words_put(argv, buf_view(&program), e);
    for (size_t i = 0; ok && i < spec->args.n; i++) ok = put_expanded(p, spec->args.p[i], argv, e);
    words_free(&named);
    buf_free(&command);
    buf_free(&program);
    return ok;
}

static bool start(struct stdio *s, const struct mcp_spec *spec, const struct mcp_place *p,
                  struct err *e)
{
    struct words env = {0}, argv = {0};
    struct buf path = {0};
    const char *dir = spec->cwd != NULL ? spec->cwd : p->dir;
    tool_env_path(p->environment, NULL, &path);
    bool ok = make_argv(spec, p, buf_cstr(&path), dir, &argv, e) &&
              make_env(spec, p, buf_cstr(&path), &env, e);
    if (ok) {
        struct supervise_spec child = {.program = argv.p[0],
                                       .argv = (const char *const *)argv.p,
                                       .env = (const char *const *)env.p,
                                       .dir = dir,
                                       .limits = {.memory_bytes = p->sandbox->memory_bytes,
                                                  .file_bytes = p->sandbox->file_bytes,
                                                  .n_files = p->sandbox->n_files,
                                                  .n_processes = p->sandbox->n_processes},
                                       .pipe_in = true,
                                       .pipe_err = true};
        ok = supervise_start(&s->child, &child, e);
    }
    for (size_t i = 0; i < env.n; i++) explicit_bzero(env.p[i], strlen(env.p[i]));
    words_free(&env);
    words_free(&argv);
    buf_free(&path);
    return ok;
}

// ---- reading --------------------------------------------------------------------------------

static void keep_log(struct stdio *s, const char *p, size_t n)
{
    buf_put(&s->log, p, n);
    if (s->log.n <= 2 * MAX_LOG_BYTES) return;
    memmove(s->log.p, s->log.p + s->log.n - MAX_LOG_BYTES, MAX_LOG_BYTES);
    s->log.n = MAX_LOG_BYTES;
    s->log_is_cut = true;
}

static void read_log(struct stdio *s)
{
    char chunk[4096];
    for (ssize_t n; (n = read(s->child.err, chunk, sizeof chunk)) > 0;)
        keep_log(s, chunk, (size_t)n);
}

// What is no JSON object or list is a program's chatter on the wrong stream: to the log with it.
static bool take_line(struct stdio *s, const struct mcp_exchange *x)
{
    struct str line = str_trim(buf_view(&s->line));
    bool more = true;
    if (line.n > 0 && (line.p[0] == '{' || line.p[0] == '[')) {
        more = x->sink == NULL || x->sink(x->sink_arg, line);
    } else if (line.n > 0) {
        keep_log(s, line.p, line.n);
        keep_log(s, "\n", 1);
    }
    buf_clear(&s->line);
    return more;
}

struct pump {
    struct stdio *s;
    const struct mcp_exchange *x;
    bool done; // the sink wants no more
};

static bool read_lines(struct pump *p, struct err *e)
{
    static _Thread_local char chunk[65536];
    struct stdio *s = p->s;
    ssize_t n = read(s->child.out, chunk, sizeof chunk);
    if (n == 0) s->dead = true;
    for (ssize_t at = 0; at < n;) {
        const char *end = memchr(chunk + at, '\n', (size_t)(n - at));
        size_t take = end != NULL ? (size_t)(end - chunk - at) : (size_t)(n - at);
        buf_put(&s->line, chunk + at, take);
        if (s->line.failed || s->line.n > MAX_LINE_BYTES)
            return err_set(e, ERR_IO, "a message of the server is longer than %d bytes",
                           MAX_LINE_BYTES);
        at += (ssize_t)take + (end != NULL);
        if (end != NULL && !take_line(s, p->x)) p->done = true;
    }
    return true;
}

static bool write_some(struct stdio *s)
{
    ssize_t n = write(s->child.in, s->to_send.p, s->to_send.n);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    memmove(s->to_send.p, s->to_send.p + n, s->to_send.n - (size_t)n);
    s->to_send.n -= (size_t)n;
    return true;
}

static bool is_gone(struct stdio *s, struct err *e)
{
    int status = 0;
    if (supervise_ended(&s->child, CLOSE_MS, &s->end)) status = s->end.status;
    read_log(s);
    struct str said = tool_text_reason(buf_view(&s->log), REASON_BYTES);
    return err_set(e, ERR_SHUTDOWN, "the server has ended (%s %d)%s%.*s",
                   WIFSIGNALED(status) ? "signal" : "exit code",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                   said.n > 0 ? ": " : "", (int)said.n, said.p);
}

static bool check_time(const struct mcp_exchange *x, struct err *e)
{
    if (x->cancel != NULL && atomic_load(x->cancel) != 0)
        return err_set(e, ERR_CANCELLED, "cancelled");
    if (x->deadline_ns != 0 && clock_ns() >= x->deadline_ns)
        return err_set(e, ERR_TIMEOUT, "timed out");
    return true;
}

static bool turn(struct pump *p, struct err *e)
{
    struct stdio *s = p->s;
    struct pollfd f[3] = {{.fd = s->child.out, .events = POLLIN},
                          {.fd = s->child.err, .events = POLLIN},
                          {.fd = s->to_send.n > 0 ? s->child.in : -1, .events = POLLOUT}};
    if (poll(f, 3, SLICE_MS) < 0) return true;
    if (f[1].revents != 0) read_log(s);
    if (f[2].revents != 0 && !write_some(s)) s->dead = true;
    if (f[0].revents != 0 && !read_lines(p, e)) return false;
    return true;
}

static bool exchange(struct mcp_transport *t, const struct mcp_exchange *x, struct err *e)
{
    struct stdio *s = (struct stdio *)t;
    struct pump p = {.s = s, .x = x};
    buf_str(&s->to_send, x->message);
    buf_c(&s->to_send, '\n');
    if (s->to_send.failed) return err_set(e, ERR_MEMORY, "no memory for a message");
    for (;;) {
        if (s->dead) return is_gone(s, e);
        if (!turn(&p, e)) return false;
        if (x->wants_answer ? p.done : s->to_send.n == 0) return true;
        if (!check_time(x, e)) return false;
    }
}

static void reply(struct mcp_transport *t, struct str message)
{
    struct stdio *s = (struct stdio *)t;
    buf_str(&s->to_send, message);
    buf_c(&s->to_send, '\n');
}

static bool is_alive(struct mcp_transport *t)
{
    struct stdio *s = (struct stdio *)t;
    struct pollfd p = {.fd = s->child.control, .events = POLLIN};
    return !s->dead && poll(&p, 1, 0) == 0;
}

static void agreed(struct mcp_transport *t, const char *version)
{
    (void)t;
    (void)version;
}

// In whole lines: of half a secret nobody would know that it is one. What has no end yet waits for the
// next call, what has lost its beginning goes.
static void take_log(struct mcp_transport *t, struct buf *out)
{
    struct stdio *s = (struct stdio *)t;
    if (!s->dead) read_log(s);
    struct str log = buf_view(&s->log);
    size_t last = str_rfind(log, STR("\n"));
    size_t n = s->dead ? log.n : last == SIZE_MAX ? 0 : last + 1;
    size_t from = n > MAX_LOG_BYTES ? n - MAX_LOG_BYTES : 0;
    if (n == 0) return;
    if (from > 0 || s->log_is_cut) {
        size_t first = str_find(log, STR("\n"), from);
        from = first < n ? first + 1 : n;
        s->log_is_cut = false;
    }
    buf_str(out, str_sub(log, from, n - from));
    memmove(s->log.p, s->log.p + n, log.n - n);
    s->log.n -= n;
}

// As the protocol asks: its input is closed, it gets a moment, then it is killed.
static void close_stdio(struct mcp_transport *t)
{
    struct stdio *s = (struct stdio *)t;
    if (s->child.in >= 0) close(s->child.in);
    s->child.in = -1;
    if (s->child.control >= 0 && !supervise_ended(&s->child, CLOSE_MS, &s->end))
        supervise_kill(&s->child);
    supervise_close(&s->child);
    buf_free(&s->to_send);
    buf_free(&s->line);
    buf_free(&s->log);
    free(s);
}

// Writing to a server that has died must be an error, not our own end.
static void ignore_broken_pipes(void)
{
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
}

bool mcp_stdio_open(struct mcp_transport **out, const struct mcp_spec *spec,
                    const struct mcp_place *place, struct err *e)
{
    struct stdio *s = calloc(1, sizeof *s);
    if (s == NULL) return err_set(e, ERR_MEMORY, "no memory for an MCP server");
    ignore_broken_pipes();
    s->base = (struct mcp_transport){exchange, reply, is_alive, agreed, take_log, close_stdio};
    if (!start(s, spec, place, e)) {
        free(s);
        return false;
    }
    *out = &s->base;
    return true;
}
