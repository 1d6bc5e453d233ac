// Follows one JSON value byte by byte while a model writes it. What comes out is always the start
// of valid JSON that can be closed at once: what may still turn out wrong (a number, a word, a
// comma, an escape) is held back until it is complete. Mended on the way, since models do write it:
// control characters inside strings are escaped, and a backslash that escapes nothing is doubled.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

enum { JSON_WALK_DEPTH = 128 };

enum json_walk_result {
    WALK_MORE, // c was taken, the value goes on
    WALK_DONE, // c was its last byte
    WALK_PAST, // the value (a number) ended before c, which was not taken
    WALK_BAD,  // c cannot stand here; nothing was taken
};

struct json_walk {
    int state;
    char stack[JSON_WALK_DEPTH]; // '{' or '['
    size_t depth;
    bool in_key;
    struct buf gap;   // white space and a comma before the next value, not yet given out
    struct buf token; // a number, word or escape in the making
};

// Starts as {0}. Appends to out what is certain now.
enum json_walk_result json_walk(struct json_walk *w, char c, struct buf *out);
// Appends what makes everything given out so far a complete value. False when nothing was given
// out.
bool json_walk_close(struct json_walk *w, struct buf *out);
void json_walk_free(struct json_walk *w); // leaves {0}
