// A server of our own for the length of a benchmark: started, waited for, stopped.
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "cmd/options.h"

struct bench_server {
    pid_t pid;           // 0 = none
    struct buf dir, url; // folder of socket and log; "unix:..."
};

// Starts `submind serve` with the engine's flags of s behind a Unix socket of its own and waits until
// the model is loaded. on_wait is told what is going on.
bool bench_server_start(struct bench_server *out, const struct settings *s,
                        void (*on_wait)(const char *what), struct err *e);
// Stops it and removes its folder; fine for a zeroed struct.
void bench_server_stop(struct bench_server *b);
