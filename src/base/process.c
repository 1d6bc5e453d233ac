// What keeps it right: the child leads its own group, and that group is killed when the child has
// ended, whatever the reason; the pipe is never waited for longer than the child, so that a
// background process that holds it open cannot hang us. Memory is bounded by keep_bytes, not by the
// output.
#include "base/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

enum {
    SLICE_MS = 100, // how late a cancellation may be seen
    GRACE_MS = 500, // between SIGTERM and SIGKILL
    READ_BYTES = 65536,
    MAX_ENVIRON = 2 << 20,
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

static bool spawn_piped(const struct process_spec *s, const char *program, int write_fd, pid_t *pid,
                        struct err *e)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return err_set(e, ERR_MEMORY, "no memory to start %.200s", program);
    if (posix_spawnattr_init(&attr) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return err_set(e, ERR_MEMORY, "no memory to start %.200s", program);
    }
    bool ok = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0 &&
              posix_spawn_file_actions_adddup2(&actions, write_fd, 1) == 0 &&
              posix_spawn_file_actions_adddup2(&actions, write_fd, 2) == 0 &&
              posix_spawn_file_actions_addclosefrom_np(&actions, 3) == 0 &&
              (s->dir == NULL || posix_spawn_file_actions_addchdir_np(&actions, s->dir) == 0) &&
              set_signals(&attr, POSIX_SPAWN_SETPGROUP) && posix_spawnattr_setpgroup(&attr, 0) == 0;
    int error =
        ok ? posix_spawn(pid, program, &actions, &attr, spawn_list(s->argv), spawn_list(s->env))
           : ENOMEM;
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return error == 0 || spawn_failed(error, program, s->dir, e);
}

bool process_start_detached(const char *const *argv, const char *const *env, const char *log_path,
                            pid_t *pid, struct err *e)
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
              posix_spawn_file_actions_addchdir_np(&actions, "/") == 0 &&
              set_signals(&attr, POSIX_SPAWN_SETSID);
    int error =
        ok ? posix_spawn(pid, argv[0], &actions, &attr, spawn_list(argv), spawn_list(env)) : ENOMEM;
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return error == 0 || spawn_failed(error, argv[0], NULL, e);
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

// ---- what was left behind -------------------------------------------------------------------

static bool has_marker(pid_t pid, const char *marker, struct buf *scratch)
{
    char path[64];
    struct err ignored = {0};
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    buf_clear(scratch);
    if (!file_read(scratch, path, MAX_ENVIRON, &ignored)) return false;
    size_t n = strlen(marker);
    for (size_t at = 0; at < scratch->n;) {
        const char *entry = scratch->p + at;
        size_t len = strnlen(entry, scratch->n - at);
        if (len == n && memcmp(entry, marker, n) == 0) return true;
        at += len + 1;
    }
    return false;
}

static uint32_t kill_marked_once(const char *marker)
{
    DIR *dir = opendir("/proc");
    if (dir == NULL) return 0;
    struct buf scratch = {0};
    uint32_t n_killed = 0;
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        char *end;
        long pid = strtol(d->d_name, &end, 10);
        if (*end != '\0' || pid <= 1 || pid == getpid()) continue;
        if (!has_marker((pid_t)pid, marker, &scratch)) continue;
        if (kill((pid_t)pid, SIGKILL) == 0) n_killed++;
    }
    closedir(dir);
    buf_free(&scratch);
    return n_killed;
}

// Twice at least, because a process may fork while we look; bounded, because one may do so for
// ever.
static uint32_t kill_marked(const char *marker)
{
    uint32_t n = 0;
    for (int i = 0; i < 20; i++) {
        uint32_t found = kill_marked_once(marker);
        if (found == 0) break;
        n += found;
        usleep(2000);
    }
    return n;
}

// ---- running --------------------------------------------------------------------------------

struct running {
    const struct process_spec *spec;
    struct process_result *result;
    pid_t pid;
    int pidfd, pipe;
    uint64_t start_ns, kill_ns; // kill_ns: when SIGTERM was sent, 0 = not yet
};

// Decides whether the child's time is over; sends SIGTERM first, SIGKILL after the grace.
static void check_limits(struct running *r)
{
    const struct process_spec *s = r->spec;
    bool cancelled = s->cancel != NULL && atomic_load(s->cancel) != 0;
    bool late = s->timeout_ms != 0 && clock_ms_since(r->start_ns) >= (double)s->timeout_ms;
    if (r->kill_ns == 0 && (cancelled || late)) {
        r->result->end = cancelled ? PROCESS_CANCELLED : PROCESS_TIMED_OUT;
        r->kill_ns = clock_ns();
        kill(-r->pid, SIGTERM);
    } else if (r->kill_ns != 0 && clock_ms_since(r->kill_ns) >= GRACE_MS) {
        kill(-r->pid, SIGKILL);
    }
}

static void wait_for_end(struct running *r)
{
    struct pollfd p[2] = {{.fd = r->pidfd, .events = POLLIN}, {.fd = r->pipe, .events = POLLIN}};
    while ((p[0].revents & POLLIN) == 0) {
        int slice = SLICE_MS;
        if (r->spec->timeout_ms != 0 && r->kill_ns == 0) {
            double left = (double)r->spec->timeout_ms - clock_ms_since(r->start_ns);
            if (left < slice) slice = left > 1 ? (int)left : 1;
        }
        int n = poll(p, 2, slice);
        if (n < 0) p[0].revents = p[1].revents = 0;
        if (p[1].revents != 0 && !drain(r->pipe, r->result, r->spec->keep_bytes)) p[1].fd = -1;
        check_limits(r);
    }
}

static void reap(struct running *r)
{
    int status = 0;
    kill(-r->pid, SIGKILL); // before the wait, while the group's number cannot be reused
    while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR) {
    }
    drain(r->pipe, r->result, r->spec->keep_bytes);
    bool signalled = WIFSIGNALED(status);
    r->result->code = signalled ? WTERMSIG(status) : WEXITSTATUS(status);
    if (r->kill_ns == 0) r->result->end = signalled ? PROCESS_SIGNALLED : PROCESS_EXITED;
}

static bool open_pipe(int fds[2], struct err *e)
{
    if (pipe2(fds, O_CLOEXEC) != 0) return err_errno(e, ERR_IO, "cannot make a pipe");
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    return true;
}

bool process_run(const struct process_spec *s, struct process_result *out, struct err *e)
{
    struct buf program = {0};
    struct process_result result = {0};
    struct running r = {.spec = s, .result = &result, .pidfd = -1, .start_ns = clock_ns()};
    int fds[2] = {-1, -1};
    bool ok = process_find(&program, s->argv[0], s->path, e) && open_pipe(fds, e) &&
              spawn_piped(s, buf_cstr(&program), fds[1], &r.pid, e);
    if (fds[1] >= 0) close(fds[1]);
    r.pipe = fds[0];
    if (ok) {
        r.pidfd = (int)syscall(SYS_pidfd_open, r.pid, 0);
        if (r.pidfd < 0) { // before Linux 5.3: nothing to poll; do not leave it running
            ok = err_errno(e, ERR_IO, "cannot watch the child");
            reap(&r);
        } else {
            wait_for_end(&r);
            reap(&r);
            close(r.pidfd);
        }
        if (s->marker != NULL) result.n_strays = kill_marked(s->marker);
    }
    if (fds[0] >= 0) close(fds[0]);
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
