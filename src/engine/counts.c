// An open-addressed table over a dense list, which is what sample_adjust reads.
// Invariant: an entry stays once it is there, so slots are never deleted.
#include "engine/counts.h"

#include <assert.h>
#include <stdlib.h>

bool counts_init(struct counts *c, uint32_t max_tokens, uint32_t n_vocab)
{
    uint64_t cap = (uint64_t)max_tokens + REPEAT_WINDOW;
    if (cap > n_vocab) cap = n_vocab;
    uint32_t n_slots = 16;
    while (n_slots < 2 * cap) n_slots *= 2;
    c->entries = calloc(cap, sizeof *c->entries);
    c->slots = calloc(n_slots, sizeof *c->slots);
    c->n = 0;
    c->cap = (uint32_t)cap;
    c->n_slots = n_slots;
    if (c->entries != NULL && c->slots != NULL) return true;
    counts_deinit(c);
    return false;
}

void counts_deinit(struct counts *c)
{
    free(c->entries);
    free(c->slots);
    *c = (struct counts){0};
}

static struct token_count *entry_of(struct counts *c, int32_t id)
{
    uint32_t i = (uint32_t)id * 2654435769u; // Fibonacci hashing: 2^32 / golden ratio
    for (;; i++) {
        uint32_t *slot = &c->slots[i & (c->n_slots - 1)];
        if (*slot == 0) {
            assert(c->n < c->cap);
            c->entries[c->n] = (struct token_count){.id = id};
            *slot = ++c->n;
        }
        struct token_count *entry = &c->entries[*slot - 1];
        if (entry->id == id) return entry;
    }
}

void counts_add(struct counts *c, const int32_t *tokens, uint32_t n, bool generated)
{
    if (c->cap == 0) return;
    struct token_count *entry = entry_of(c, tokens[n - 1]);
    entry->n_seen++;
    if (generated) entry->n_generated++;
    if (n > REPEAT_WINDOW) entry_of(c, tokens[n - 1 - REPEAT_WINDOW])->n_seen--;
}

void counts_start(struct counts *c, const int32_t *tokens, uint32_t n)
{
    if (c->cap == 0) return;
    for (uint32_t i = n > REPEAT_WINDOW ? n - REPEAT_WINDOW : 0; i < n; i++)
        entry_of(c, tokens[i])->n_seen++;
}
