// Sockets that share a port (SO_REUSEPORT) form a group in the order in which they began to listen, and a program
// attached to the group picks by that number: 0 is the old socket, 1 ours (socket(7), SO_ATTACH_REUSEPORT_CBPF;
// net/core/sock_reuseport.c). A number that is not there means any, so that nothing breaks when one of them goes.
#include "host/handover.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int take_copy(const struct listener *l, struct err *e)
{
    const int process = pidfd_open((pid_t)l->pid, 0);
    const int fd = process < 0 ? -1 : pidfd_getfd(process, (int)l->fd, 0);
    if (fd < 0)
        err_errno(e, ERR_UNSUPPORTED, "the socket of %s (process %u) cannot be shared", l->program,
                  l->pid);
    if (process >= 0) close(process);
    return fd;
}

// Is it the socket that was looked for, on the address that ours will have?
static bool is_same(int fd, const struct listener *l, const char *host, struct err *e)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    struct stat st;
    char text[INET6_ADDRSTRLEN] = "";
    if (fstat(fd, &st) != 0 || st.st_ino != l->socket ||
        getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return err_set(e, ERR_UNSUPPORTED, "the socket of %s is gone", l->program);
    if (a.ss_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)&a)->sin_addr, text, sizeof text);
    if (a.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&a)->sin6_addr, text, sizeof text);
    return strcmp(text, host) == 0 ||
           err_set(e, ERR_UNSUPPORTED, "%s listens on %s, ours will on %s", l->program, text, host);
}

static bool set_shared(int fd)
{
    const int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0;
}

static bool attach(int fd, int option, uint32_t result)
{
    struct sock_filter constant = BPF_STMT(BPF_RET | BPF_K, result);
    const struct sock_fprog program = {.len = 1, .filter = &constant};
    return setsockopt(fd, SOL_SOCKET, option, &program, sizeof program) == 0;
}

bool handover_point(struct handover *h, bool to_new, struct err *e)
{
    return attach(h->fd, SO_ATTACH_REUSEPORT_CBPF, to_new ? 1 : 0) ||
           err_errno(e, ERR_UNSUPPORTED, "connections cannot be steered past %s", h->old.program);
}

void handover_close(struct handover *h)
{
    if (h->fd > 0) close(h->fd);
    *h = (struct handover){0};
}

// A program can only be attached to a group, and a group needs two: a socket for that moment. It drops what comes
// to it in between, which the other side sends again, to the old server then.
static bool form_group(struct handover *h, struct err *e)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    const int on = 1, family = getsockname(h->fd, (struct sockaddr *)&a, &n) == 0 ? a.ss_family : 0;
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              set_shared(fd) && attach(fd, SO_ATTACH_FILTER, 0) &&
              bind(fd, (struct sockaddr *)&a, n) == 0 && listen(fd, 1) == 0;
    if (!ok) err_errno(e, ERR_UNSUPPORTED, "nobody can listen beside %s", h->old.program);
    ok = ok && handover_point(h, false, e);
    if (fd >= 0) close(fd);
    return ok;
}

bool handover_open(struct handover *out, const char *host, uint32_t port, uint32_t user,
                   struct err *e)
{
    struct handover h = {.port = port};
    struct root r;
    if (!root_open(&r, "/", e)) return false;
    listener_find(&h.old, &r, port);
    root_close(&r);
    if (!h.old.there) return err_set(e, ERR_UNSUPPORTED, "nobody listens on port %u", port);
    if (h.old.pid == 0 || h.old.uid != user)
        return err_set(e, ERR_UNSUPPORTED, "port %u is user %u's, ours will be user %u's", port,
                       h.old.uid, user);
    h.fd = take_copy(&h.old, e);
    if (h.fd < 0) return false;
    bool ok = is_same(h.fd, &h.old, host, e);
    if (ok && !set_shared(h.fd))
        ok = err_errno(e, ERR_UNSUPPORTED, "the socket of %s cannot be shared", h.old.program);
    ok = ok && form_group(&h, e);
    if (ok)
        *out = h;
    else
        handover_close(&h);
    return ok;
}

size_t handover_left(const struct handover *h)
{
    struct root r;
    struct err ignored = {0};
    if (!root_open(&r, "/", &ignored)) return 0;
    const size_t n = listener_connections(&h->old, &r, h->port);
    root_close(&r);
    return n;
}

void handover_retire(struct handover *h)
{
    shutdown(h->fd, SHUT_RD);
}
