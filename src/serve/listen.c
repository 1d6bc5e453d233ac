// Sockets are made here and not by the HTTP library, so that errors name the address and a free
// port can be asked for.
#include "serve/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 512 };

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        return (ntohl(in.sin_addr.s_addr) >> 24) == 127;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, a, sizeof in6);
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0) return 0;
    if (a.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)&a)->sin_port);
    return ntohs(((struct sockaddr_in6 *)&a)->sin6_port);
}

static bool listen_on(struct listener *l, const struct addrinfo *a, struct err *e)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) return err_errno(e, ERR_IO, "cannot make a socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        const char *hint = "";
        if (errno == EADDRINUSE)
            hint = " (another server has this port; stop it or choose another --port)";
        else if (errno == EACCES)
            hint = " (ports below 1024 are not for every user; choose another --port)";
        else if (errno == EADDRNOTAVAIL)
            hint = " (no interface of this machine has this address; see --host)";
        err_errno(e, ERR_IO, "cannot listen%s", hint);
        close(fd);
        return false;
    }
    l->fd = fd;
    l->port = bound_port(fd);
    l->loopback = is_loopback(a->ai_addr);
    return true;
}

bool listener_open_tcp(struct listener *out, const char *host, uint32_t port, struct err *e)
{
    if (port > 65535) return err_set(e, ERR_INPUT, "port %u is above 65535", port);
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0)
        return err_set(e, ERR_INPUT, "cannot listen on host \"%s\": %s", host, gai_strerror(rc));
    struct listener l = {.fd = -1};
    bool ok = listen_on(&l, list, e);
    bool v6 = list->ai_family == AF_INET6;
    freeaddrinfo(list);
    if (!ok) return err_prefix(e, "%s port %u: ", host, port);
    snprintf(l.url, sizeof l.url,
             v6 && strchr(host, ':') ? "http://[%.100s]:%u" : "http://%.100s:%u", host,
             (unsigned)l.port);
    *out = l;
    return true;
}

// A socket file that refuses connections was left behind by a server that died.
static bool remove_stale(const struct sockaddr_un *a, struct err *e)
{
    struct stat st;
    if (lstat(a->sun_path, &st) != 0) return true;
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, ERR_INPUT, "%s exists and is no socket; choose another path",
                       a->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return err_errno(e, ERR_IO, "cannot make a socket");
    bool alive = connect(fd, (const struct sockaddr *)a, sizeof *a) == 0;
    close(fd);
    if (alive) return err_set(e, ERR_IO, "another server listens on %s", a->sun_path);
    if (unlink(a->sun_path) != 0) return err_errno(e, ERR_IO, "cannot remove %s", a->sun_path);
    return true;
}

bool listener_open_unix(struct listener *out, const char *path, struct err *e)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof a.sun_path)
        return err_set(e, ERR_INPUT, "the socket path must have 1 to %zu bytes, not %zu: %.80s",
                       sizeof a.sun_path - 1, n, path);
    memcpy(a.sun_path, path, n);
    if (!remove_stale(&a, e)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return err_errno(e, ERR_IO, "cannot make a socket");
    // chmod between bind and listen: nobody can connect before listen.
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || chmod(path, 0600) != 0 ||
        listen(fd, BACKLOG) != 0) {
        err_errno(e, ERR_IO, "cannot listen on %s", path);
        close(fd);
        return false;
    }
    struct listener l = {.fd = fd, .loopback = true, .is_unix = true};
    memcpy(l.path, path, n);
    snprintf(l.url, sizeof l.url, "unix:%s", path);
    *out = l;
    return true;
}

static void adopt_name(struct listener *l, const struct sockaddr_storage *a)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (a->ss_family == AF_UNIX) {
        l->is_unix = l->loopback = true;
        snprintf(l->url, sizeof l->url, "unix:%s", ((const struct sockaddr_un *)a)->sun_path);
        return;
    }
    l->port = bound_port(l->fd);
    l->loopback = is_loopback((const struct sockaddr *)a);
    if (a->ss_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, host, sizeof host);
    else
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)a)->sin6_addr, host, sizeof host);
    snprintf(l->url, sizeof l->url, a->ss_family == AF_INET ? "http://%s:%u" : "http://[%s]:%u",
             host, (unsigned)l->port);
}

bool listener_adopt(struct listener *out, int fd, struct err *e)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a, size = sizeof(int);
    int listening = 0;
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return err_errno(e, ERR_INPUT, "descriptor %d, passed by the service manager, is no socket",
                         fd);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || !listening)
        return err_set(e, ERR_INPUT,
                       "descriptor %d, passed by the service manager, does not listen; its socket "
                       "unit needs ListenStream= and Accept=no",
                       fd);
    if (a.ss_family != AF_INET && a.ss_family != AF_INET6 && a.ss_family != AF_UNIX)
        return err_set(e, ERR_INPUT, "descriptor %d is neither a TCP nor a Unix socket", fd);
    // another process may take the connection first: accept must not block then
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    struct listener l = {.fd = fd};
    adopt_name(&l, &a);
    *out = l;
    return true;
}

void listener_close(struct listener *l)
{
    if (l->fd > 0) close(l->fd); // 0: a zeroed struct
    if (l->is_unix && l->path[0] != '\0') unlink(l->path);
    // What kind it was stays: connections that still run ask it who may call.
    l->fd = -1;
    l->path[0] = '\0';
}
