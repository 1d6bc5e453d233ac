// One datagram, never waited for: a manager that does not read must not hang the service.
#include "base/notify.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool notify_send(const char *socket_name, const char *text)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (socket_name == NULL || (socket_name[0] != '/' && socket_name[0] != '@')) return false;
    size_t n = strlen(socket_name);
    if (n < 2 || n >= sizeof a.sun_path) return false;
    memcpy(a.sun_path, socket_name, n);
    if (a.sun_path[0] == '@') a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    bool ok = sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&a, len) >= 0;
    close(fd);
    return ok;
}
