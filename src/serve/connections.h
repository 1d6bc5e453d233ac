// Time limits of connections. Total times, not times since the last byte: a client that sends one
// byte every few seconds must not hold a thread for ever.
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a connection waits for, each with its limit.
enum connection_wait {
    WAIT_REQUEST, // request line and headers, or the next request
    WAIT_BODY,
    WAIT_ENGINE, // us: no limit
    WAIT_CLIENT, // the client takes what was written
};

struct connection {
    struct connection *prev, *next; // guarded by the table's lock
    int fd;
    _Atomic uint64_t deadline_ns; // 0 = none; relaxed: a tick late is fine
    _Atomic uint64_t waiting_ns;  // since when it waits for a request, 0 = it has one; relaxed
    atomic_bool ended;            // our side is closed: what still comes cannot be answered
};

struct connections {
    pthread_mutex_t lock;
    struct connection head; // a ring
    size_t n;
};

void connections_init(struct connections *t);
void connections_deinit(struct connections *t);                    // all must be gone
struct connection *connections_add(struct connections *t, int fd); // NULL: no memory
void connections_remove(struct connections *t, struct connection *c);
void connection_set(struct connection *c, enum connection_wait what); // NULL is fine
bool connection_ended(const struct connection *c);                    // NULL is fine
// Shuts down the sockets whose time is over; their threads notice. Returns how many.
size_t connections_reap(struct connections *t, uint64_t now_ns);
// For a server that stops, to be called every few milliseconds: ends the connections that have had no
// request for a while. A client that keeps a connection sends its next request within moments or not for
// long, and there is no way to tell it in between that the connection goes: closing at once would meet
// requests on their way, which their senders see as a reset. Returns how many are still open.
size_t connections_settle(struct connections *t, uint64_t now_ns);
