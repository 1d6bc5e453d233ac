// Two-way set associative, replaced in turn: the entry found is moved to the front, so that the
// other one is the older. Invariant: an entry is either empty or complete.
#include "text/wordcache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(struct word_entry) == 32, "two entries are one cache line");
static_assert(WORD_SETS == 1 << 14, "14 bits of the hash choose the set");

bool wordcache_open(struct wordcache *c)
{
    size_t bytes = 2 * (size_t)WORD_SETS * sizeof *c->entries;
    c->entries = aligned_alloc(64, bytes);
    if (c->entries == NULL) return false;
    memset(c->entries, 0, bytes);
    return true;
}

void wordcache_close(struct wordcache *c)
{
    free(c->entries);
    c->entries = NULL;
}

static uint64_t load8(const char *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static uint64_t load4(const char *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

// Two numbers that, with the length, tell the word: overlapping loads never read past its ends.
static void read_word(struct str word, uint64_t *first, uint64_t *last)
{
    if (word.n >= 8) {
        *first = load8(word.p);
        *last = load8(word.p + word.n - 8);
    } else if (word.n >= 4) {
        *first = load4(word.p);
        *last = load4(word.p + word.n - 4);
    } else {
        *first = (unsigned char)word.p[0];
        *last =
            (uint64_t)(unsigned char)word.p[word.n / 2] << 8 | (unsigned char)word.p[word.n - 1];
    }
}

static bool is_word(const struct word_entry *x, uint64_t first, uint64_t last, size_t n)
{
    return x->first == first && x->last == last && x->n == n;
}

struct word_entry *wordcache_find(struct wordcache *c, struct str word)
{
    uint64_t first, last;
    read_word(word, &first, &last);
    uint64_t h = (first ^ (last + word.n) * 0xd6e8feb86659fd93u) * 0x9e3779b97f4a7c15u;
    struct word_entry *set = c->entries + 2 * (h >> 50 & (WORD_SETS - 1));
    if (is_word(&set[0], first, last, word.n)) return &set[0];
    struct word_entry other = set[1];
    set[1] = set[0];
    set[0] = other;
    if (is_word(&other, first, last, word.n)) return &set[0];
    set[0] = (struct word_entry){.first = first, .last = last};
    return &set[0];
}

void wordcache_put(struct word_entry *entry, const int32_t *ids, size_t n_ids, size_t word_bytes)
{
    if (n_ids > WORD_MAX_IDS) return;
    memcpy(entry->ids, ids, n_ids * sizeof *ids);
    entry->n_ids = (uint8_t)n_ids;
    entry->n = (uint8_t)word_bytes;
}
