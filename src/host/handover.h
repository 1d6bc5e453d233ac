// A port goes from a server that knows nothing of this to a socket of ours while both are open: no connection
// is refused, and the old server's answers end in peace. For that a copy of its listening socket is taken
// (pidfd_getfd), which lets others bind beside it and decides which of the two gets new connections.
#pragma once

#include "base/err.h"
#include "host/listener.h"

struct handover {
    struct listener old; // who had the port
    uint32_t port;
    int fd; // the copy; 0: none
};

// user: whose the new socket will be. New connections still go to the old server. ERR_UNSUPPORTED says why it
// cannot be done here: nobody listens, another user's socket, a process that may not be looked into.
bool handover_open(struct handover *out, const char *host, uint32_t port, uint32_t user,
                   struct err *e);
// To the first socket that was opened beside the old one, or back to the old server.
bool handover_point(struct handover *h, bool to_new, struct err *e);
// Connections that the old server still has.
size_t handover_left(const struct handover *h);
// The old server accepts nothing any more; it closes what is idle between two answers.
void handover_retire(struct handover *h);
// Leaves everything as it is now; fine for a zeroed struct. Not retired: all connections are the old server's again
// as soon as the new socket is closed.
void handover_close(struct handover *h);
