// Two texts that begin alike and then differ: what kind of thing changed there? For a person who wants
// to know why a prompt missed the cache. Guesses by form, never by meaning.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct drift {
    const char *kind;        // "a date", "a UUID", "reordered lines", "text", ...
    const char *advice;      // what to do about it
    bool volatile_text;      // changes by itself from run to run
    struct str ours, theirs; // what stands there on both sides; inside the texts
    size_t same_bytes;       // of ours behind the change that the other side has too
};

// Both texts are the same up to byte `at` and differ there (or one ends). ERR_MEMORY only.
bool drift_find(struct drift *out, struct str ours, struct str theirs, size_t at, struct err *e);
