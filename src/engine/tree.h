// The prefix tree: which pages hold which tokens after which others. A node is a page and has
// the page's number; its path to the root is the text before it. Salted: what is cached under one
// salt is never found under another. Engine thread only.
//
// A text's last page is not full: the places behind its tokens hold TREE_NO_TOKEN. No text goes on from it, for none
// has such a token; but what begins like it can be copied (tree_nearest).
//
// Ownership: the tree is one owner of each page in it (kv.h); a sequence that uses a page pins it,
// and always pins the whole path, so a page that no sequence pins has no pinned page below it. A held
// trunk (tree_hold) is pinned by its hold in the same way.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "engine/engine.h"
#include "engine/heap.h"
#include "engine/kv.h"

enum { TREE_NO_TOKEN = -1 };
enum { TREE_HOLDS_MAX = 256, TREE_SPACES_MAX = 256, TREE_SALT_BYTES = 257 };

struct tree_node {
    uint64_t key;          // chained over the path's tokens and the salts
    uint64_t used;         // the tree's clock when a sequence last took or left it
    struct hash128 salt;   // of this page; a public trunk's pages carry another than those after it
    double used_s;         // now_s when it was last used
    double counted_s;      // the same without uses that do not count (cache_ttl 0)
    double uses;           // turns that took it from the tree, decayed until ...
    double taken_s;        // ... the last of them
    double keep_until_s;   // goes last before then (cache_ttl)
    uint32_t parent;       // page or KV_NONE for the first page of a text
    uint32_t next;         // in the bucket, KV_NONE ends
    uint32_t first_child;  // the newest; KV_NONE
    uint32_t older, newer; // among the parent's children
    uint32_t n_children, n_parts; // parts: of the children, not full
    uint32_t generation;          // grows when the page leaves the tree
    uint32_t depth;               // pages before it
    uint32_t hits;                // times that a sequence took it instead of computing it
    uint32_t space;               // of its salt
    uint16_t n_holds;             // trunks that it is part of
    uint8_t priority;             // the highest cache_priority of its users
    bool in_tree, queued, kept;   // queued: may be evicted; kept: ... but is in its time to live
    bool paused;                  // its last user is
    bool public;                  // any salt finds it
    bool part;                    // not full
};

// Pages of one salt. Space 0 takes the salts for which there was no room.
struct tree_space {
    struct hash128 salt;
    char text[TREE_SALT_BYTES]; // the salt itself where a sequence has told it; empty: not known
    uint32_t n_nodes;
    uint32_t leaves; // heap of those that may be evicted, lowest rank first
    uint32_t kept;   // heap of those whose time to live runs, earliest end first
};

// A trunk that an operator wants to stay.
struct tree_hold {
    uint32_t page, n_pages; // the last page; KV_NONE = a free entry
    bool public;
    char name[64];
};

// What a sequence's request says about the pages that it leaves.
struct tree_hint {
    uint8_t priority; // 0 to 100, CACHE_PRIORITY_DEFAULT in the middle
    bool has_ttl;
    uint32_t ttl_s; // 0: needed by nobody any more
    bool paused;    // it ended with a call of a tool: it comes back soon
};

// Told of what comes and goes, on the engine thread. `removed` runs before the page can be written to
// again: its bytes are still there.
struct tree_watch {
    void *arg;
    void (*stored)(void *arg, uint32_t page);
    void (*removed)(void *arg, uint32_t page, enum evict_reason reason);
};
enum { WATCH_TIER, WATCH_EVENTS, TREE_WATCHES };

struct tree {
    struct kv_pool *pool;    // borrowed
    struct tree_node *nodes; // [n_pages]
    struct heap_link *links; // [n_pages]
    int32_t *tokens;         // [n_pages][page_tokens]
    uint32_t *buckets;       // [n_buckets] first page, KV_NONE when empty
    uint64_t *ghosts;        // [n_buckets] keys of pages that were evicted, the latest of a bucket
    uint32_t n_buckets;      // a power of two
    uint32_t n_nodes;        // pages in the tree ...
    uint32_t n_idle;         // ... and those of them that no sequence and no hold pins
    uint32_t n_held, n_public, n_parts_all;
    uint32_t first_root, n_root_parts; // as first_child, n_parts
    int32_t *part;                     // [page_tokens] where a part's tokens are put together
    uint32_t n_spaces;                 // 1 + the highest that was ever used
    uint64_t clock;
    uint64_t n_evicted, evicted[EVICT_REASONS];
    struct tree_space spaces[TREE_SPACES_MAX];
    struct tree_hold holds[TREE_HOLDS_MAX];
    struct tree_watch watch[TREE_WATCHES];
    // Set by the owner.
    double now_s;           // seconds since it began
    double half_life_s;     // in which a page becomes half as likely to be used again
    double use_half_life_s; // in which a turn that used it counts half
    double
        attend_tokens; // tokens before a page at which attending to them costs as much as the rest
    struct hash128 exempt; // the salt without a quota: of requests that name none
    uint32_t quota_pages;  // beyond it a salt's pages go first; 0 = none
    bool unasked;          // who pins pages now was asked for by nobody: that is no use of them
    double (*rank)(const struct tree *t, uint32_t page); // lowest goes first; tree_rank
};

bool tree_init(struct tree *t, struct kv_pool *pool, struct err *e);
void tree_deinit(struct tree *t); // gives all its pages back; no sequence may pin any

// Keys: the root's from the salt, then each page's from the one before it and its own tokens. Where a
// path goes on under another salt, the key is salted once more.
uint64_t tree_root_key(struct hash128 salt);
uint64_t tree_next_key(uint64_t key, const int32_t *tokens, uint32_t page_tokens);
uint64_t tree_salted_key(uint64_t key, struct hash128 salt);

// What a page is looked up by. tokens[page_tokens]; key is theirs after parent (KV_NONE: at the root).
struct tree_ref {
    uint32_t parent;
    uint64_t key;
    struct hash128 salt;
    const int32_t *tokens;
};
// The page that holds these tokens in this place, or KV_NONE. Compares the tokens themselves.
uint32_t tree_find(const struct tree *t, const struct tree_ref *r);
// Puts a full page in (pages of its parent that are not full and that it begins with go), which a sequence owns and goes on pinning. Where the tree already has these
// tokens, the sequence's page is given back and the tree's is pinned instead. Returns the page that
// the sequence has from now on.
uint32_t tree_publish(struct tree *t, const struct tree_ref *r, uint32_t page);
// The same by its parent (not KV_NONE), salt and tokens alone.
uint32_t tree_publish_after(struct tree *t, uint32_t parent, struct hash128 salt,
                            const int32_t *tokens, uint32_t page);
// The same with a page of which only n tokens are filled, r->tokens[n]; r->key is that of the page before, with the
// page's salt in it. Not put in where a page of the tree begins with them: then it returns `page`, as it was.
uint32_t tree_publish_part(struct tree *t, const struct tree_ref *r, uint32_t n, uint32_t page);
// How many tokens a page holds.
uint32_t tree_n_tokens(const struct tree *t, uint32_t page);
// A sequence takes a page of the tree; leaves a page, in the tree or not.
void tree_pin(struct tree *t, uint32_t page);
void tree_unpin(struct tree *t, uint32_t page, const struct tree_hint *hint);
// The page after this one, parents before children; KV_NONE begins and ends. The tree stays as it is meanwhile.
uint32_t tree_next_page(const struct tree *t, uint32_t page);
// Notes what a salt is in words, before a page is published under it; for events only, which are told
// now of pages that came under it before.
void tree_name_salt(struct tree *t, struct hash128 salt, const char *text);
// A free page for a sequence, by evicting if need be; KV_NONE when all are pinned.
uint32_t tree_page_take(struct tree *t);
// Pages that tree_page_take can still deliver.
static inline uint32_t tree_available(const struct tree *t)
{
    return t->pool->n_free + t->n_idle;
}
static inline const int32_t *tree_tokens(const struct tree *t, uint32_t page)
{
    return t->tokens + (size_t)page * t->pool->page_tokens;
}
// The first child, KV_NONE: of the root.
static inline uint32_t tree_children(const struct tree *t, uint32_t page)
{
    return page == KV_NONE ? t->first_root : t->nodes[page].first_child;
}
// Was a page with this key evicted not long ago?
bool tree_remembers(const struct tree *t, uint64_t key);

// The child of r->parent that agrees with r longest, though not wholly: *n_same is how many tokens.
// KV_NONE when none begins with the same token. n: tokens behind r->tokens, may be fewer than a page.
uint32_t tree_nearest(const struct tree *t, const struct tree_ref *r, uint32_t n, uint32_t *n_same);

// Holds the path to a page, so that it is never evicted, or gives that up. False: no entry is free
// (hold) or none is held under this page (release).
bool tree_hold(struct tree *t, uint32_t page, bool public, const char *name);
bool tree_release(struct tree *t, uint32_t page);
// Takes a page and all below it out, as far as no sequence uses them. Returns how many tokens.
uint32_t tree_drop(struct tree *t, uint32_t page);

// ---- evict.c ------------------------------------------------------------------------------------

// Frees the unpinned leaf that is worth least; false when all is pinned.
bool tree_evict(struct tree *t);
// The rank that a page behind n_before tokens would have if it were used now, for the first time.
double tree_rank_of(const struct tree *t, uint32_t n_before, const struct tree_hint *hint);
// Evicts the page that is next to go, where its rank is below this. False: it is not, or there is none.
bool tree_evict_below(struct tree *t, double rank);
// What one use of a text's page i is worth: what computing it takes, by what its request wishes; in pages at the beginning.
double tree_use_worth(const struct tree *t, uint32_t i, uint8_t priority);
// Its worth: recompute time x decayed use, as a logarithm that does not change with time.
double tree_rank(const struct tree *t, uint32_t page);
void tree_space_init(struct tree *t);
// The space for a salt's next page.
uint32_t tree_space(struct tree *t, struct hash128 salt);
// The end of a use at now_s, with what its request says.
void tree_use(struct tree *t, uint32_t page, const struct tree_hint *hint);
// A sequence takes it from the tree.
void tree_count_use(struct tree *t, uint32_t page);
// Into the queue of leaves and out of it, whichever the page's state asks for.
void tree_queue(struct tree *t, uint32_t page);
// tree.c, for evict.c: the page leaves the tree; it is idle and has no children.
void tree_remove(struct tree *t, uint32_t page, enum evict_reason reason);
