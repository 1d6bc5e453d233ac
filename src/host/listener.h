// Who listens on a TCP port of this machine, and how many connections that process has there: /proc/net/tcp
// gives a socket its number, /proc/PID/fd its holder.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/root.h"

struct listener {
    bool there;                 // somebody listens
    uint64_t socket;            // its number (inode)
    uint32_t uid;               // whose it is
    uint32_t pid, fd;           // who holds it, and under which number; pid 0: not ours to see
    char program[32];           // "llama-server"; "" with pid 0
    char unit[ROOT_NAME_BYTES]; // of systemd that it runs in, "llama.service"; "" without one
    bool user_unit;             // of a user's manager
};

void listener_find(struct listener *out, const struct root *r, uint32_t port);
// Connections to the port that the listener's process holds.
size_t listener_connections(const struct listener *l, const struct root *r, uint32_t port);
