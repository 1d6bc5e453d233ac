// Joins token bytes into whole UTF-8 characters and watches for stop strings: text that may be the
// start of one is held back, a stop string itself never comes out.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

struct stop {
    const struct str *strings; // borrowed
    size_t n_strings;
    struct buf held; // not yet given out
    bool hit;        // a stop string was seen; nothing more comes out
};

// Adds a token's bytes and appends to out what may be given out now. Returns true when a stop
// string is complete (then or before).
bool stop_feed(struct stop *s, struct str piece, struct buf *out);
// The end without a stop string: what is held comes out; a broken character becomes U+FFFD.
void stop_finish(struct stop *s, struct buf *out);
void stop_free(struct stop *s);
