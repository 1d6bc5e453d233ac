// The supervisor is a fork of ours that never executes anything else: between fork and its end it
// calls only what is safe in the child of a program with threads (no malloc, no stdio, no locks).
// It learns of its children's ends by a signalfd and of us by a socket, whose end means that we
// died. Everything that the program starts is its descendant; what loses its parent becomes the
// supervisor's own child, so that killing children until there are none ends them all.
#include "base/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    KILL_ROUND_MS = 5,   // between two looks at who is left
    KILL_ROUNDS = 600,   // for what we may not kill: then it is left
    DYING_ROUNDS = 6000, // for what only dies slowly: thousands of forks take the kernel seconds
    FD_FIRST_FREE = 3,
};

// What goes over the control socket: first whether it started, then how it ended.
struct notice {
    int start_errno; // 0: it runs
    struct supervised_end end;
};

// ---- in the child that becomes the program --------------------------------------------------

static void set_limit(int resource, uint64_t value)
{
    struct rlimit l;
    if (value == 0 || getrlimit((__rlimit_resource_t)resource, &l) != 0) return;
    if (l.rlim_max == RLIM_INFINITY || value < l.rlim_max) l.rlim_max = value;
    l.rlim_cur = l.rlim_max;
    setrlimit((__rlimit_resource_t)resource, &l);
}

// The kernel counts a user's processes wherever they are, and the user has others: what all users
// have now is the bound for those, so that a fork bomb ends at n more.
static void limit_processes(uint32_t n)
{
    struct sysinfo now;
    if (n == 0 || sysinfo(&now) != 0) return;
    set_limit(RLIMIT_NPROC, (uint64_t)now.procs + n);
}

static void set_limits(const struct child_limits *l)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    set_limit(RLIMIT_DATA, l->memory_bytes);
    set_limit(RLIMIT_FSIZE, l->file_bytes);
    set_limit(RLIMIT_NOFILE, l->n_files);
    limit_processes(l->n_processes);
}

static void default_signals(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = SIG_DFL;
    for (int i = 1; i < 65; i++) sigaction(i, &a, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

// Never returns. The errno of what failed goes to report_fd, which an exec that works closes.
static void become(const struct supervise_spec *s, const int fds[3], int report_fd)
{
    setsid(); // a group to signal, and no terminal to ask for passwords
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    default_signals();
    bool ok = fcntl(report_fd, F_SETFD, FD_CLOEXEC) == 0;
    for (int i = 0; ok && i < 3; i++) ok = dup2(fds[i], i) == i;
    ok = ok && close_range(FD_FIRST_FREE, ~0u, CLOSE_RANGE_CLOEXEC) == 0;
    ok = ok && (s->dir == NULL || chdir(s->dir) == 0);
    set_limits(&s->limits); // last: they are the program's, not ours
    if (ok) execve(s->program, (char *const *)(uintptr_t)s->argv, (char *const *)(uintptr_t)s->env);
    int error = errno;
    ssize_t ignored = write(report_fd, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

// ---- in the supervisor ----------------------------------------------------------------------

struct watch {
    int control, signals;
    pid_t program;
    bool killing;
    bool ended; // the program has; status is its
    int status;
    uint32_t n_strays;
};

// Kills the direct children; true when one of them may not be killed. /proc/thread-self/children
// lists them as decimal numbers, each with a blank behind it.
static bool kill_children(void)
{
    char text[4096];
    int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    bool refused = false;
    long pid = 0;
    if (fd < 0) return true;
    for (ssize_t n; (n = read(fd, text, sizeof text)) > 0;)
        for (ssize_t i = 0; i < n; i++) {
            if (text[i] >= '0' && text[i] <= '9') {
                pid = pid * 10 + (text[i] - '0');
                continue;
            }
            if (pid > 1) refused |= kill((pid_t)pid, SIGKILL) != 0 && errno == EPERM;
            pid = 0;
        }
    close(fd);
    return refused;
}

// Takes in who has ended. False when no child is left. A zombie still has its group: one that is
// not the program's own left it behind on purpose.
static bool reap(struct watch *w)
{
    int status;
    for (;;) {
        siginfo_t info;
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) != 0)
            return errno == EINTR;
        if (info.si_pid == 0) return true;
        bool is_stray = w->ended && getpgid(info.si_pid) != w->program;
        if (waitpid(info.si_pid, &status, __WALL) != info.si_pid) continue;
        if (info.si_pid == w->program) {
            w->ended = true;
            w->status = status;
        } else if (is_stray && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
            w->n_strays++;
        }
    }
}

static void take_order(struct watch *w)
{
    char order;
    ssize_t n = recv(w->control, &order, 1, MSG_DONTWAIT);
    if (n == 1 && order == 'T')
        kill(-w->program, SIGTERM);
    else if (n == 0 || (n == 1 && order == 'K') || (n < 0 && errno != EAGAIN && errno != EINTR))
        w->killing = true;
}

static void wait_for_program(struct watch *w)
{
    struct signalfd_siginfo info;
    while (!w->ended && !w->killing) {
        struct pollfd p[2] = {{.fd = w->control, .events = POLLIN},
                              {.fd = w->signals, .events = POLLIN}};
        if (poll(p, 2, -1) < 0) continue;
        if (p[1].revents != 0 && read(w->signals, &info, sizeof info) > 0) reap(w);
        if (p[0].revents != 0) take_order(w);
    }
}

// Rounds, because a process may fork while we look, and because only a dead parent's children
// become ours.
static uint32_t end_all(struct watch *w)
{
    if (!w->ended) kill(-w->program, SIGKILL);
    bool refused = false;
    for (int i = 0; i < (refused ? KILL_ROUNDS : DYING_ROUNDS); i++) {
        refused = kill_children();
        if (!reap(w)) return 0;
        struct pollfd p = {.fd = w->signals, .events = POLLIN};
        struct signalfd_siginfo info;
        if (poll(&p, 1, KILL_ROUND_MS) > 0 && read(w->signals, &info, sizeof info) < 0) continue;
    }
    return 1;
}

static void supervise(const struct supervise_spec *s, const int fds[3], int control)
{
    struct notice n;
    struct watch w;
    int report[2] = {-1, -1};
    sigset_t all;
    memset(&n, 0, sizeof n);
    memset(&w, 0, sizeof w);
    setsid(); // a terminal's Ctrl-C is for us, not for it
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    w.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    w.control = control;
    bool ok = w.signals >= 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && pipe(report) == 0;
    if (ok) w.program = fork();
    if (ok && w.program == 0) become(s, fds, report[1]);
    if (!ok || w.program < 0) n.start_errno = errno;
    for (int i = 0; i < 3; i++) close(fds[i]);
    close(report[1]);
    if (n.start_errno == 0 &&
        read(report[0], &n.start_errno, sizeof n.start_errno) != sizeof n.start_errno)
        n.start_errno = 0;
    close(report[0]);
    ssize_t ignored = send(control, &n, sizeof n, MSG_NOSIGNAL);
    if (n.start_errno != 0) _exit(1);
    // Nothing of ours may stay open here: a pipe whose end we hold would never end.
    int keep_low = control < w.signals ? control : w.signals;
    int keep_high = control < w.signals ? w.signals : control;
    if (keep_low > FD_FIRST_FREE) close_range(FD_FIRST_FREE, (unsigned)keep_low - 1, 0);
    if (keep_high > keep_low + 1) close_range((unsigned)keep_low + 1, (unsigned)keep_high - 1, 0);
    close_range((unsigned)keep_high + 1, ~0u, 0);
    wait_for_program(&w);
    n.end.n_left = end_all(&w);
    n.end.status = w.status;
    n.end.n_strays = w.n_strays;
    ignored = send(control, &n, sizeof n, MSG_NOSIGNAL);
    (void)ignored;
    _exit(0);
}

// ---- in us ----------------------------------------------------------------------------------

struct ends {
    int control[2], in[2], out[2], err[2];
};

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void close_ends(struct ends *p)
{
    for (int i = 0; i < 2; i++) {
        close_fd(&p->control[i]);
        close_fd(&p->in[i]);
        close_fd(&p->out[i]);
        close_fd(&p->err[i]);
    }
}

static bool open_ends(struct ends *p, const struct supervise_spec *s, struct err *e)
{
    bool ok = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->control) == 0 &&
              pipe2(p->out, O_CLOEXEC) == 0 && (!s->pipe_in || pipe2(p->in, O_CLOEXEC) == 0) &&
              (!s->pipe_err || pipe2(p->err, O_CLOEXEC) == 0);
    if (ok && !s->pipe_in) ok = (p->in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;
    if (!ok) return err_errno(e, ERR_IO, "cannot make a pipe");
    fcntl(p->out[0], F_SETFL, O_NONBLOCK);
    if (s->pipe_in) fcntl(p->in[1], F_SETFL, O_NONBLOCK);
    if (s->pipe_err) fcntl(p->err[0], F_SETFL, O_NONBLOCK);
    return true;
}

// The standard descriptors may be closed in us; what we opened must not sit on them.
static bool above_standard(struct ends *p, struct err *e)
{
    int *const all[] = {&p->control[0], &p->control[1], &p->in[0],  &p->in[1],
                        &p->out[0],     &p->out[1],     &p->err[0], &p->err[1]};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (*all[i] < 0 || *all[i] >= FD_FIRST_FREE) continue;
        int moved = fcntl(*all[i], F_DUPFD_CLOEXEC, FD_FIRST_FREE);
        if (moved < 0) return err_errno(e, ERR_IO, "cannot move a pipe");
        close(*all[i]);
        *all[i] = moved;
    }
    return true;
}

static bool cannot_start(int error, const struct supervise_spec *s, struct err *e)
{
    enum err_code code = error == ENOENT ? ERR_NOT_FOUND : error == EACCES ? ERR_DENIED : ERR_IO;
    struct stat st;
    if (s->dir != NULL && stat(s->dir, &st) != 0)
        return err_set(e, ERR_NOT_FOUND, "the working directory %.200s is not there", s->dir);
    return err_set(e, code, "%.200s: %s", s->argv[0], strerror(error));
}

static void wait_for_supervisor(pid_t pid)
{
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

static bool read_start(const struct supervised *s, const struct supervise_spec *spec, struct err *e)
{
    struct notice n;
    ssize_t got;
    do got = recv(s->control, &n, sizeof n, 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof n) return err_set(e, ERR_IO, "%.200s: not started", spec->argv[0]);
    return n.start_errno == 0 || cannot_start(n.start_errno, spec, e);
}

bool supervise_start(struct supervised *out, const struct supervise_spec *s, struct err *e)
{
    struct ends p = {{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
    struct supervised new = {-1, -1, -1, -1, -1};
    bool ok = open_ends(&p, s, e) && above_standard(&p, e);
    if (ok) {
        int fds[3] = {p.in[0], p.out[1], s->pipe_err ? p.err[1] : p.out[1]};
        new.supervisor = fork();
        if (new.supervisor == 0) supervise(s, fds, p.control[1]);
        if (new.supervisor < 0) ok = err_errno(e, ERR_IO, "cannot start %.200s", s->argv[0]);
    }
    if (ok) {
        new.control = p.control[0];
        new.out = p.out[0];
        new.in = s->pipe_in ? p.in[1] : -1;
        new.err = p.err[0];
        p.control[0] = p.out[0] = p.err[0] = -1;
        if (s->pipe_in) p.in[1] = -1;
    }
    close_ends(&p);
    if (ok && !read_start(&new, s, e)) {
        ok = false;
        supervise_close(&new);
    }
    if (ok) *out = new;
    return ok;
}

static void order(const struct supervised *s, char what)
{
    ssize_t ignored = send(s->control, &what, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)ignored;
}

void supervise_term(const struct supervised *s)
{
    order(s, 'T');
}

void supervise_kill(const struct supervised *s)
{
    order(s, 'K');
}

bool supervise_ended(struct supervised *s, int wait_ms, struct supervised_end *end)
{
    struct notice n = {0};
    struct pollfd p = {.fd = s->control, .events = POLLIN};
    if (poll(&p, 1, wait_ms) <= 0) return false;
    ssize_t got = recv(s->control, &n, sizeof n, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (got != (ssize_t)sizeof n) n.end = (struct supervised_end){.status = SIGKILL, .n_left = 1};
    *end = n.end;
    close_fd(&s->control);
    wait_for_supervisor(s->supervisor);
    s->supervisor = -1;
    return true;
}

void supervise_close(struct supervised *s)
{
    if (s->supervisor <= 0) s->supervisor = -1;
    int *const all[] = {&s->control, &s->in, &s->out, &s->err};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (*all[i] > 2) close_fd(all[i]);
        *all[i] = -1;
    }
    wait_for_supervisor(s->supervisor); // it kills everything when the socket closes
    s->supervisor = -1;
}
