// A ring of open connections. A socket is shut down only under the lock and only while its entry is
// in the ring, so that a reused descriptor is never hit: the entry leaves before the socket closes.
#include "serve/connections.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/clock.h"

// Seconds. 60 s idle suits clients that keep connections; a body of 32 MiB at 1 MB/s fits 60 s.
static const unsigned limit_s[] = {
    [WAIT_REQUEST] = 60,
    [WAIT_BODY] = 60,
    [WAIT_ENGINE] = 0,
    [WAIT_CLIENT] = 60,
};

enum {
    SETTLE_NS = 2000000000, // without a request, then nobody is about to send one
    LINGER_NS = 500000000,  // for the client to close its side, too
};

void connections_init(struct connections *t)
{
    *t = (struct connections){0};
    pthread_mutex_init(&t->lock, NULL);
    t->head.prev = t->head.next = &t->head;
}

void connections_deinit(struct connections *t)
{
    assert(t->n == 0);
    pthread_mutex_destroy(&t->lock);
}

struct connection *connections_add(struct connections *t, int fd)
{
    struct connection *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->fd = fd;
    connection_set(c, WAIT_REQUEST);
    pthread_mutex_lock(&t->lock);
    c->prev = &t->head;
    c->next = t->head.next;
    c->next->prev = c;
    t->head.next = c;
    t->n++;
    pthread_mutex_unlock(&t->lock);
    return c;
}

void connections_remove(struct connections *t, struct connection *c)
{
    if (c == NULL) return;
    pthread_mutex_lock(&t->lock);
    c->prev->next = c->next;
    c->next->prev = c->prev;
    t->n--;
    pthread_mutex_unlock(&t->lock);
    free(c);
}

void connection_set(struct connection *c, enum connection_wait what)
{
    if (c == NULL) return;
    uint64_t deadline = limit_s[what] == 0 ? 0 : clock_ns() + limit_s[what] * 1000000000ull;
    atomic_store_explicit(&c->deadline_ns, deadline, memory_order_relaxed);
    atomic_store_explicit(&c->waiting_ns, what == WAIT_REQUEST ? clock_ns() : 0,
                          memory_order_relaxed);
}

bool connection_ended(const struct connection *c)
{
    return c != NULL && atomic_load_explicit(&c->ended, memory_order_relaxed);
}

size_t connections_reap(struct connections *t, uint64_t now_ns)
{
    size_t n = 0;
    pthread_mutex_lock(&t->lock);
    for (struct connection *c = t->head.next; c != &t->head; c = c->next) {
        uint64_t deadline = atomic_load_explicit(&c->deadline_ns, memory_order_relaxed);
        if (deadline == 0 || now_ns < deadline) continue;
        shutdown(c->fd, SHUT_RDWR);
        atomic_store_explicit(&c->deadline_ns, 0, memory_order_relaxed);
        n++;
    }
    pthread_mutex_unlock(&t->lock);
    return n;
}

// Requests that lie in the socket already are answered first.
static bool has_input(int fd)
{
    int n = 0;
    return ioctl(fd, FIONREAD, &n) == 0 && n > 0;
}

size_t connections_settle(struct connections *t, uint64_t now_ns)
{
    pthread_mutex_lock(&t->lock);
    for (struct connection *c = t->head.next; c != &t->head; c = c->next) {
        const uint64_t since = atomic_load_explicit(&c->waiting_ns, memory_order_relaxed);
        if (since == 0 || now_ns < since + SETTLE_NS) continue;
        if (!connection_ended(c)) {
            if (has_input(c->fd)) continue;
            shutdown(c->fd, SHUT_WR);
            atomic_store_explicit(&c->ended, true, memory_order_relaxed);
            atomic_store_explicit(&c->waiting_ns, now_ns - SETTLE_NS, memory_order_relaxed);
        } else if (now_ns >= since + SETTLE_NS + LINGER_NS) {
            shutdown(c->fd, SHUT_RDWR);
        }
    }
    const size_t n = t->n;
    pthread_mutex_unlock(&t->lock);
    return n;
}
