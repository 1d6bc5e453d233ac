// A small cache from short words to their ids: most words of a text come again. One per caller, so
// it needs no lock. A hit compares the whole word.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "text/tokenizer.h"

enum {
    WORD_MAX_BYTES = 16, // longer words are merged each time
    WORD_MAX_IDS = 3,
    WORD_SETS =
        1 << 14, // two entries each: 1 MiB in all, which stays in the second-level cache's reach
};

struct word_entry {
    uint64_t first, last; // the word's first and last bytes, overlapping; with n they are the word
    uint8_t n, n_ids;     // n = 0: empty
    int32_t ids[WORD_MAX_IDS];
};

struct wordcache {
    struct word_entry *entries; // [2 * WORD_SETS]
};

bool wordcache_open(struct wordcache *c); // false: no memory
void wordcache_close(struct wordcache *c);
// word.n is 1 to WORD_MAX_BYTES. Returns the entry of the word, or the one to fill for it (n = 0).
struct word_entry *wordcache_find(struct wordcache *c, struct str word);
// Fills an entry that wordcache_find gave for this word, where the ids fit.
void wordcache_put(struct word_entry *entry, const int32_t *ids, size_t n_ids, size_t word_bytes);
