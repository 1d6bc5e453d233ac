// The listening socket: TCP or Unix, with errors that say what to do.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct listener {
    int fd;        // -1 when closed
    uint16_t port; // the one in use; 0 for a Unix socket
    bool loopback; // only this machine can reach it
    bool is_unix;
    char path[108]; // of a Unix socket; removed by listener_close
    char url[128];  // for people
};

bool listener_open_tcp(struct listener *out, const char *host, uint32_t port, struct err *e);
// mode 0600. Replaces a stale socket that nobody listens on; ERR_IO when somebody does.
bool listener_open_unix(struct listener *out, const char *path, struct err *e);
// A socket that a service manager listens on already (LISTEN_FDS). Taken: closed by listener_close, which
// leaves a Unix socket's file to the manager.
bool listener_adopt(struct listener *out, int fd, struct err *e);
// Its kind (loopback, is_unix, url) stays readable.
void listener_close(struct listener *l);
