// eventfd behind four functions.
#include "base/event.h"

#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

bool event_open(struct event *out, struct err *e)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return err_errno(e, ERR_IO, "cannot create an eventfd");
    out->fd = fd;
    return true;
}

void event_signal(struct event *ev)
{
    uint64_t one = 1;
    ssize_t ignored = write(ev->fd, &one, sizeof one);
    (void)ignored;
}

void event_clear(struct event *ev)
{
    uint64_t count;
    ssize_t ignored = read(ev->fd, &count, sizeof count);
    (void)ignored;
}

void event_close(struct event *ev)
{
    if (ev->fd > 0) close(ev->fd);
    ev->fd = -1;
}
