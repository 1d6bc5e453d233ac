// Special tokens in text: the leftmost, then longest one, by trie. Immutable after open.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "text/pieces.h"

// Longer special tokens than this are refused at open: matching costs at most this much per byte of
// text.
enum { SPECIAL_MAX_BYTES = 1024 };

// Which specials a search looks at.
enum special_set { SPECIAL_USER = 1, SPECIAL_CONTROL = 2, SPECIAL_ALL = 3 };

struct special_node;

struct special {
    struct special_node *nodes; // [n], node 0 is the root
    uint32_t n, cap;
    uint8_t firsts[256]; // enum special_set of the tokens that begin with this byte
    int only_first;      // the one first byte of all specials, or -1: then memchr finds candidates
};

struct special_hit {
    size_t at, n; // at = SIZE_MAX: none
    int32_t id;
};

bool special_open(struct special *out, const struct pieces *p, struct err *e);
void special_close(struct special *s);
struct special_hit special_find(const struct special *s, struct str text, size_t from,
                                unsigned set);
// The special token with exactly this text; -1 when there is none.
int32_t special_exact(const struct special *s, struct str text);
