// The prefix tree: which full pages hold which tokens after which others. A node is a page and has
// the page's number; its path to the root is the text before it. Salted: what is cached under one
// salt is never found under another. Engine thread only.
//
// Ownership: the tree is one owner of each page in it (kv.h); a sequence that uses a page pins it,
// and always pins the whole path, so a page that no sequence pins has no pinned page below it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "engine/kv.h"

struct tree_node {
    uint64_t key;    // chained over the path's tokens and the salt
    uint64_t used;   // the tree's clock when a sequence last took or left it
    uint32_t parent; // page or KV_NONE for the first page of a text
    uint32_t n_children;
    uint32_t next;       // in the bucket, KV_NONE ends
    uint32_t generation; // grows when the page leaves the tree
    struct hash128 salt;
    bool in_tree;
};

struct tree {
    struct kv_pool *pool;    // borrowed
    struct tree_node *nodes; // [n_pages]
    int32_t *tokens;         // [n_pages][page_tokens]
    uint32_t *buckets;       // [n_buckets] first page, KV_NONE when empty
    uint32_t n_buckets;      // a power of two
    uint32_t n_nodes;        // pages in the tree ...
    uint32_t n_idle;         // ... and those of them that no sequence pins
    uint64_t clock, n_evicted;
};

bool tree_init(struct tree *t, struct kv_pool *pool, struct err *e);
void tree_deinit(struct tree *t); // gives all its pages back; none may be pinned any more

// Keys: the root's from the salt, then each page's from the one before it and its own tokens.
uint64_t tree_root_key(struct hash128 salt);
uint64_t tree_next_key(uint64_t key, const int32_t *tokens, uint32_t page_tokens);

// What a page is looked up by. tokens[page_tokens]; key is theirs after parent (KV_NONE: at the root).
struct tree_ref {
    uint32_t parent;
    uint64_t key;
    struct hash128 salt;
    const int32_t *tokens;
};
// The page that holds these tokens in this place, or KV_NONE. Compares the tokens themselves.
uint32_t tree_find(const struct tree *t, const struct tree_ref *r);
// Puts a full page in, which a sequence owns and goes on pinning. Where the tree already has these
// tokens, the sequence's page is given back and the tree's is pinned instead. Returns the page that
// the sequence has from now on.
uint32_t tree_publish(struct tree *t, const struct tree_ref *r, uint32_t page);
// A sequence takes a page of the tree; leaves a page, in the tree or not.
void tree_pin(struct tree *t, uint32_t page);
void tree_unpin(struct tree *t, uint32_t page);
// Frees the unpinned leaf that was not used for longest; false when all is pinned.
bool tree_evict(struct tree *t);
// A free page for a sequence, by evicting if need be; KV_NONE when all are pinned.
uint32_t tree_page_take(struct tree *t);
// Pages that tree_page_take can still deliver.
static inline uint32_t tree_available(const struct tree *t)
{
    return t->pool->n_free + t->n_idle;
}
