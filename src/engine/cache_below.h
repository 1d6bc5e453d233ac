// The pages of all tiers at one moment, and what of them lies below the device only, as trunks. For cache.c.
#pragma once

#include "engine/engine.h"
#include "engine/loop.h"

// A page, wherever it is.
struct page_at {
    struct hash128 chain, parent, salt;
    int64_t saved_unix;            // CACHE_DISK
    uint32_t depth, n_tokens;      // n_tokens: below the device
    uint32_t trunk;                // that it belongs to; UINT32_MAX: none yet
    uint32_t first_child, sibling; // below the device: numbers in at[], UINT32_MAX ends
    uint32_t n_children;
    uint32_t n_head;
    int32_t head[CACHE_HEAD_TOKENS]; // CACHE_RAM: its first tokens
    enum cache_tier tier;
};

struct page_list {
    struct page_at *at; // [n], by chain once they were sorted
    size_t n, cap;
    bool failed; // no memory
};

struct page_at *page_list_add(struct page_list *p); // NULL: no memory
void page_list_free(struct page_list *p);
// Pages kept in host memory; engine thread.
void page_list_add_ram(struct page_list *p, const struct tier *t);
// Pages on disk, then all in order, each once, where it is nearest; any thread.
void page_list_complete(struct page_list *p, struct tier *t);

// The tokens of a page on disk; any thread. False where it is not there.
bool page_peek(struct tier *t, struct hash128 key, int32_t *ids);

struct trunk_list {
    struct cache_trunk *items; // [n], parents before children
    size_t n, cap;
};
struct cache_trunk *trunk_list_add(struct trunk_list *l); // NULL: no memory
// Adds the trunks of pages that are not on the device, and says in each page which it belongs to.
bool page_list_to_trunks(struct page_list *p, struct tier *t, struct trunk_list *out);
