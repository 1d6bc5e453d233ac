// What keeps it right: a supervisor (supervise.h) ends whatever the child leaves behind; the pipe is
// never waited for longer than the child, so that a background process that holds it open cannot
// hang us. Memory is bounded by keep_bytes, not by the output.
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    SLICE_MS = 100, // how late a cancellation may be seen
    GRACE_MS = 500, // between SIGTERM and SIGKILL
    READ_BYTES = 65536,
};

// ---- starting -------------------------------------------------------------------------------

bool process_find(struct buf *out, const char *program, const char *path, struct err *e)
{
    if (*program == '\0') return err_set(e, ERR_INPUT, "the program's name is empty");
    if (strchr(program, '/') != NULL) {
        buf_z(out, program);
        return !out->failed || err_set(e, ERR_MEMORY, "no memory for a path");
    }
    size_t start = out->n;
    bool denied = false;
    for (const char *p = path; p != NULL; p = *p == ':' ? p + 1 : NULL) {
        size_t n = strcspn(p, ":");
        out->n = start;
        buf_put(out, p, n);
        buf_printf(out, "%s%s", n > 0 ? "/" : "", program);
        const char *candidate = buf_cstr(out) + start;
        struct stat st;
        if (n > 0 && stat(candidate, &st) == 0 && S_ISREG(st.st_mode)) {
            if (access(candidate, X_OK) == 0) return true;
            denied = true;
        }
        p += n;
    }
    out->n = start;
    if (out->failed) return err_set(e, ERR_MEMORY, "no memory for a path");
    if (denied) return err_set(e, ERR_DENIED, "%.200s: Permission denied", program);
    return err_set(e, ERR_NOT_FOUND, "%.200s: command not found", program);
}

// posix_spawn wants char *const[] but writes nothing.
static char *const *spawn_list(const char *const *list)
{
    return (char *const *)(uintptr_t)list;
}

// Default signal handling and nothing blocked, whatever our own threads do.
static bool set_signals(posix_spawnattr_t *attr, short flags)
{
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    return posix_spawnattr_setsigdefault(attr, &all) == 0 &&
           posix_spawnattr_setsigmask(attr, &none) == 0 &&
           posix_spawnattr_setflags(
               attr, (short)(flags | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK)) == 0;
}

static bool spawn_failed(int error, const char *program, const char *dir, struct err *e)
{
    enum err_code code = error == ENOENT ? ERR_NOT_FOUND : error == EACCES ? ERR_DENIED : ERR_IO;
    struct stat st;
    if (dir != NULL && stat(dir, &st) != 0)
        return err_set(e, ERR_NOT_FOUND, "the working directory %.200s is not there", dir);
    return err_set(e, code, "%.200s: %s", program, strerror(error));
}

bool process_start_detached(const char *const *argv, const char *const *env, const char *dir,
                            const char *log_path, pid_t *pid, struct err *e)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return err_set(e, ERR_MEMORY, "no memory to start %.200s", argv[0]);
    if (posix_spawnattr_init(&attr) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return err_set(e, ERR_MEMORY, "no memory to start %.200s", argv[0]);
    }
    int log_flags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW;
    bool ok = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0 &&
              posix_spawn_file_actions_addopen(&actions, 1, log_path, log_flags, 0600) == 0 &&
              posix_spawn_file_actions_adddup2(&actions, 1, 2) == 0 &&
              posix_spawn_file_actions_addclosefrom_np(&actions, 3) == 0 &&
              posix_spawn_file_actions_addchdir_np(&actions, dir) == 0 &&
              set_signals(&attr, POSIX_SPAWN_SETSID);
    int error =
        ok ? posix_spawn(pid, argv[0], &actions, &attr, spawn_list(argv), spawn_list(env)) : ENOMEM;
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return error == 0 || spawn_failed(error, argv[0], dir, e);
}

bool process_ended(pid_t pid, int *code)
{
    int status;
    pid_t got = waitpid(pid, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR)) return false;
    if (got < 0) status = 0; // somebody else waited for it
    *code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return true;
}

// ---- output ---------------------------------------------------------------------------------

// head fills first; what comes later goes through a window of twice the tail's size, so that moving
// it costs one copy per byte at most.
static void keep(struct process_result *r, size_t keep_bytes, const char *p, size_t n)
{
    size_t head_max = keep_bytes - keep_bytes / 4, tail_max = keep_bytes / 4;
    size_t room = head_max > r->head.n ? head_max - r->head.n : 0;
    size_t take = n < room ? n : room;
    buf_put(&r->head, p, take);
    p += take;
    n -= take;
    if (n > tail_max) {
        r->dropped_bytes += r->tail.n + (n - tail_max);
        r->tail.n = 0;
        p += n - tail_max;
        n = tail_max;
    }
    buf_put(&r->tail, p, n);
    if (r->tail.n > 2 * tail_max) {
        size_t cut = r->tail.n - tail_max;
        memmove(r->tail.p, r->tail.p + cut, tail_max);
        r->tail.n = tail_max;
        r->dropped_bytes += cut;
    }
}

// A tail that fits behind the head is part of it; a longer one shrinks to its size.
static void finish_output(struct process_result *r, size_t keep_bytes)
{
    size_t tail_max = keep_bytes / 4;
    if (r->tail.n > tail_max) {
        size_t cut = r->tail.n - tail_max;
        memmove(r->tail.p, r->tail.p + cut, tail_max);
        r->tail.n = tail_max;
        r->dropped_bytes += cut;
    }
    if (r->dropped_bytes == 0) {
        buf_put(&r->head, r->tail.p, r->tail.n);
        buf_free(&r->tail);
    }
}

// Reads what is there. False at the end of the output.
static bool drain(int fd, struct process_result *r, size_t keep_bytes)
{
    char chunk[READ_BYTES];
    for (int i = 0; i < 16; i++) { // at most 1 MiB before the clock is looked at again
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n > 0) keep(r, keep_bytes, chunk, (size_t)n);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
        if (n < 0) return true;
    }
    return true;
}

// ---- running --------------------------------------------------------------------------------

struct running {
    const struct process_spec *spec;
    struct process_result *result;
    struct supervised child;
    uint64_t start_ns, term_ns; // term_ns: when SIGTERM was sent, 0 = not yet
};

// Decides whether the child's time is over; sends SIGTERM first, SIGKILL after the grace.
static void check_limits(struct running *r)
{
    const struct process_spec *s = r->spec;
    bool cancelled = s->cancel != NULL && atomic_load(s->cancel) != 0;
    bool late = s->timeout_ms != 0 && clock_ms_since(r->start_ns) >= (double)s->timeout_ms;
    if (r->term_ns == 0 && (cancelled || late)) {
        r->result->end = cancelled ? PROCESS_CANCELLED : PROCESS_TIMED_OUT;
        r->term_ns = clock_ns();
        supervise_term(&r->child);
    } else if (r->term_ns != 0 && clock_ms_since(r->term_ns) >= GRACE_MS) {
        supervise_kill(&r->child);
    }
}

static int slice_of(const struct running *r)
{
    if (r->spec->timeout_ms == 0 || r->term_ns != 0) return SLICE_MS;
    double left = (double)r->spec->timeout_ms - clock_ms_since(r->start_ns);
    return left >= SLICE_MS ? SLICE_MS : left > 1 ? (int)left : 1;
}

static void wait_for_end(struct running *r, struct supervised_end *end)
{
    struct pollfd p[2] = {{.fd = r->child.control, .events = POLLIN},
                          {.fd = r->child.out, .events = POLLIN}};
    for (;;) {
        if (poll(p, 2, slice_of(r)) < 0) p[0].revents = p[1].revents = 0;
        if (p[1].revents != 0 && !drain(r->child.out, r->result, r->spec->keep_bytes)) p[1].fd = -1;
        if (p[0].revents != 0 && supervise_ended(&r->child, 0, end)) break;
        check_limits(r);
    }
    drain(r->child.out, r->result, r->spec->keep_bytes);
}

static void take_end(struct running *r, const struct supervised_end *end)
{
    bool signalled = WIFSIGNALED(end->status);
    r->result->code = signalled ? WTERMSIG(end->status) : WEXITSTATUS(end->status);
    r->result->n_strays = end->n_strays;
    r->result->n_left = end->n_left;
    if (r->term_ns == 0) r->result->end = signalled ? PROCESS_SIGNALLED : PROCESS_EXITED;
}

bool process_run(const struct process_spec *s, struct process_result *out, struct err *e)
{
    struct buf program = {0};
    struct process_result result = {0};
    struct running r = {.spec = s, .result = &result, .start_ns = clock_ns()};
    bool ok = process_find(&program, s->argv[0], s->path, e);
    struct supervise_spec spec = {.program = buf_cstr(&program),
                                  .argv = s->argv,
                                  .env = s->env,
                                  .dir = s->dir,
                                  .limits = s->limits};
    ok = ok && supervise_start(&r.child, &spec, e);
    if (ok) {
        struct supervised_end end;
        wait_for_end(&r, &end);
        take_end(&r, &end);
        supervise_close(&r.child);
    }
    buf_free(&program);
    finish_output(&result, s->keep_bytes);
    if (ok && (result.head.failed || result.tail.failed))
        ok = err_set(e, ERR_MEMORY, "no memory for the output of %.200s", s->argv[0]);
    result.ms = clock_ms_since(r.start_ns);
    if (ok)
        *out = result;
    else
        process_result_free(&result);
    return ok;
}

void process_result_free(struct process_result *r)
{
    buf_free(&r->head);
    buf_free(&r->tail);
    *r = (struct process_result){0};
}
