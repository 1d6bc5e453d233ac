// Two texts that begin alike and then differ: what kind of thing changed there? For a person who wants
// to know why a prompt missed the cache. Guesses by form, never by meaning.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct drift {
    const char *kind;        // "a date", "a UUID", "lines in another order", "text", ...
    const char *advice;      // what to do about it
    bool volatile_text;      // changes by itself from run to run
    struct str ours, theirs; // what stands there on both sides; inside the texts, one may be empty
    size_t same_from;   // byte of ours where the other side goes on alike, not before the change
    size_t same_bytes;  // from there on; lines that moved count too
    size_t theirs_from; // the byte of theirs that belongs to same_from
};

// Both texts are the same up to byte `at`, the beginning of a character, and differ there (or one
// ends). ERR_MEMORY only.
bool drift_find(struct drift *out, struct str ours, struct str theirs, size_t at, struct err *e);
