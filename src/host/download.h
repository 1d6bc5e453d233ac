// One file over HTTP in parallel pieces, which can be stopped at any time and goes on where it was. Beside
// PATH stand PATH.part (the bytes) and PATH.part.state (which pieces are there) until it is whole.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct download_progress {
    uint64_t done_bytes, total_bytes; // total 0: not known
    uint64_t start_bytes;             // there already when this run began
    double seconds;                   // since it began
    double rate;                      // bytes per second of the last seconds; 0: not known yet
};

struct download {
    const char *url, *path;
    const char *token;      // sent to the URL's own host, never to where it redirects; NULL: none
    uint64_t size_bytes;    // as the source says; 0: not known
    const char *sha256;     // 64 lower case digits; NULL: not known
    uint64_t piece_bytes;   // 0 = 16 MiB
    uint32_t n_connections; // 0 = 8
    const atomic_int *cancel;
    void (*on_progress)(void *arg, const struct download_progress *p); // a few times a second
    void *arg;
};

// Makes path's folder. On success the file is whole, its hash compared. *changed is set when the file at
// the source is not what size or sha256 say (any more): ask the source again. ERR_CANCELLED and ERR_IO
// leave the pieces for the next call; ERR_FORMAT (a wrong hash) removes them.
bool download_run(const struct download *d, bool *changed, struct err *e);
// How much of a file is there: 0 when nothing was begun.
uint64_t download_part(const char *path, uint64_t *total_bytes);
// A whole small answer (a hub's JSON) appended to out; ERR_AUTH, ERR_NOT_FOUND, ERR_IO.
struct buf;
bool download_text(const char *url, const char *token, const atomic_int *cancel, struct buf *out,
                   struct err *e);
