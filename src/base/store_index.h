// The index of a store: from key to entry, in memory only. Part of store.c's inside.
#pragma once

#include "base/store.h"

struct store_index {
    struct store_entry *entries; // [n], in the order in which they were found
    uint32_t *table;             // [n_table] entry + 1, 0 = empty; open addressing
    uint32_t *children;          // [n_table] by parent: the newest's entry + 1
    uint32_t *older;             // [cap] the next of that list, entry + 1
    size_t n, cap, n_table;      // n_table: 0 or a power of two, more than twice n
    size_t n_alive;
    uint64_t n_changes; // entries that came, died or were dropped
};

void store_index_free(struct store_index *x);
// The living entry of a key, or NULL. Valid until the next change.
struct store_entry *store_index_find(const struct store_index *x, struct hash128 key);
// Adds an entry; one of the same key dies. false: no memory, nothing changed.
bool store_index_add(struct store_index *x, const struct store_entry *entry);
// The newest entry in the list of a parent's children, which may hold others too, and the one before it; NULL at the end.
const struct store_entry *store_index_newest(const struct store_index *x, struct hash128 parent);
const struct store_entry *store_index_older(const struct store_index *x,
                                            const struct store_entry *entry);
void store_index_kill(struct store_index *x, struct store_entry *entry);
// Forgets all entries of a segment.
void store_index_drop_segment(struct store_index *x, uint32_t i_segment);
