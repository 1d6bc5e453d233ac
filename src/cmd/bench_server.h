// A server for the length of a measurement: started, waited for, stopped. Ours behind a Unix socket of its
// own, or any other by its command line.
#pragma once

#include <stdatomic.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "cmd/options.h"
#include "host/cmdline.h"

struct bench_server {
    pid_t pid;           // 0 = none
    struct buf dir, url; // folder of socket and log; "unix:..." or "http://127.0.0.1:..."
};

struct bench_start {
    const struct settings *settings; // the engine's flags of these, or
    const struct cmdline *flags;     // these flags of `submind serve`, or
    const char *command;             // a command line, in which {port} stands for a free port
    const char *image;               // with flags: run inside this container image (podman)
    void (*on_wait)(const char *what);
    const atomic_int *cancel; // NULL: never
};

// Starts it and waits until its model is loaded. The last line of its log tells why it died.
bool bench_server_start(struct bench_server *out, const struct bench_start *how, struct err *e);
// Stops it and removes its folder; fine for a zeroed struct.
void bench_server_stop(struct bench_server *b);
