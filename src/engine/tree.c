// A hash table from (chained key) to page; parent, salt and tokens are compared on every hit, so a
// collision can cost time but never hand out a wrong page. Children of a page are linked, newest
// first. What goes when room is needed: evict.c.
//
// Invariants: a parent of a page in the tree is in the tree; n_idle counts the pages whose only owner
// is the tree; a held trunk's pages are never idle.
#include "engine/tree.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HALF_LIFE_S = 150, // both tuned on bench/traces, see bench/SPEED.md
    USE_HALF_LIFE_S = 3600,
    ATTEND_TOKENS = 16384, // of a usual 8B model; the engine sets the model's own
    SIBLINGS_MAX = 4096,   // looked at for the nearest one
};

static bool alloc(struct tree *t, uint32_t n_pages, uint32_t page_tokens)
{
    t->nodes = calloc(n_pages, sizeof *t->nodes);
    t->links = calloc(n_pages, sizeof *t->links);
    t->tokens = calloc((size_t)n_pages * page_tokens, sizeof *t->tokens);
    t->buckets = malloc(t->n_buckets * sizeof *t->buckets);
    t->ghosts = calloc(t->n_buckets, sizeof *t->ghosts);
    t->part = calloc(page_tokens, sizeof *t->part);
    return t->part != NULL && t->nodes != NULL && t->links != NULL && t->tokens != NULL &&
           t->buckets != NULL && t->ghosts != NULL;
}

static void free_all(struct tree *t)
{
    free(t->nodes);
    free(t->links);
    free(t->tokens);
    free(t->buckets);
    free(t->ghosts);
    free(t->part);
    *t = (struct tree){0};
}

bool tree_init(struct tree *t, struct kv_pool *pool, struct err *e)
{
    struct tree n = {.n_buckets = 16,
                     .first_root = KV_NONE,
                     .half_life_s = HALF_LIFE_S,
                     .use_half_life_s = USE_HALF_LIFE_S,
                     .attend_tokens = ATTEND_TOKENS,
                     .rank = tree_rank};
    while (n.n_buckets < pool->n_pages && n.n_buckets < 1u << 30) n.n_buckets *= 2;
    if (!alloc(&n, pool->n_pages, pool->page_tokens)) {
        free_all(&n);
        return err_set(e, ERR_MEMORY, "no memory for a prefix tree of %u pages", pool->n_pages);
    }
    n.pool = pool;
    for (uint32_t i = 0; i < n.n_buckets; i++) n.buckets[i] = KV_NONE;
    for (uint32_t i = 0; i < TREE_HOLDS_MAX; i++) n.holds[i].page = KV_NONE;
    tree_space_init(&n);
    *t = n;
    return true;
}

void tree_deinit(struct tree *t)
{
    if (t->pool != NULL) {
        memset(t->watch, 0, sizeof t->watch); // nobody is told that all ends
        for (uint32_t i = 0; i < TREE_HOLDS_MAX; i++)
            if (t->holds[i].page != KV_NONE) tree_release(t, t->holds[i].page);
        while (tree_evict(t)) {
        }
        assert(t->n_nodes == 0);
    }
    free_all(t);
}

uint64_t tree_root_key(struct hash128 salt)
{
    return hash64(&salt, sizeof salt, 0);
}

uint64_t tree_next_key(uint64_t key, const int32_t *tokens, uint32_t page_tokens)
{
    return hash64(tokens, page_tokens * sizeof *tokens, key);
}

uint64_t tree_salted_key(uint64_t key, struct hash128 salt)
{
    return hash64(&salt, sizeof salt, key);
}

static uint32_t *bucket_of(const struct tree *t, uint64_t key)
{
    return &t->buckets[key & (t->n_buckets - 1)];
}

static int32_t *tokens_of(const struct tree *t, uint32_t page)
{
    return t->tokens + (size_t)page * t->pool->page_tokens;
}

uint32_t tree_find(const struct tree *t, const struct tree_ref *r)
{
    for (uint32_t page = *bucket_of(t, r->key); page != KV_NONE; page = t->nodes[page].next) {
        const struct tree_node *n = &t->nodes[page];
        if (n->key == r->key && n->parent == r->parent && hash128_equal(n->salt, r->salt) &&
            memcmp(tokens_of(t, page), r->tokens, t->pool->page_tokens * sizeof(int32_t)) == 0)
            return page;
    }
    return KV_NONE;
}

bool tree_remembers(const struct tree *t, uint64_t key)
{
    return key != 0 && t->ghosts[key & (t->n_buckets - 1)] == key;
}

uint32_t tree_nearest(const struct tree *t, const struct tree_ref *r, uint32_t n, uint32_t *n_same)
{
    uint32_t best = KV_NONE, most = 0, seen = 0;
    if (n > t->pool->page_tokens) n = t->pool->page_tokens;
    for (uint32_t page = tree_children(t, r->parent); page != KV_NONE && seen < SIBLINGS_MAX;
         page = t->nodes[page].older, seen++) {
        const int32_t *tokens = tokens_of(t, page);
        if (!hash128_equal(t->nodes[page].salt, r->salt)) continue;
        uint32_t same = 0;
        while (same < n && tokens[same] == r->tokens[same]) same++;
        if ((same == 0 && r->parent == KV_NONE) || same < most) continue;
        if (best != KV_NONE && same == most && t->nodes[page].used < t->nodes[best].used) continue;
        best = page;
        most = same;
    }
    *n_same = most;
    return best;
}

uint32_t tree_n_tokens(const struct tree *t, uint32_t page)
{
    const int32_t *tokens = tokens_of(t, page);
    uint32_t n = t->pool->page_tokens;
    while (t->nodes[page].part && n > 0 && tokens[n - 1] == TREE_NO_TOKEN) n--;
    return n;
}

// ---- coming and going ---------------------------------------------------------------------------

static uint32_t *children_of(struct tree *t, uint32_t parent)
{
    return parent == KV_NONE ? &t->first_root : &t->nodes[parent].first_child;
}

static uint32_t *parts_of(struct tree *t, uint32_t parent)
{
    return parent == KV_NONE ? &t->n_root_parts : &t->nodes[parent].n_parts;
}

static void link_child(struct tree *t, uint32_t page)
{
    struct tree_node *n = &t->nodes[page];
    *parts_of(t, n->parent) += n->part;
    t->n_parts_all += n->part;
    uint32_t *first = children_of(t, n->parent);
    n->older = *first;
    n->newer = KV_NONE;
    if (*first != KV_NONE) t->nodes[*first].newer = page;
    *first = page;
    if (n->parent == KV_NONE) return;
    t->nodes[n->parent].n_children++;
    tree_queue(t, n->parent);
}

static void unlink_child(struct tree *t, uint32_t page)
{
    struct tree_node *n = &t->nodes[page];
    *parts_of(t, n->parent) -= n->part;
    t->n_parts_all -= n->part;
    if (n->newer != KV_NONE)
        t->nodes[n->newer].older = n->older;
    else
        *children_of(t, n->parent) = n->older;
    if (n->older != KV_NONE) t->nodes[n->older].newer = n->newer;
    if (n->parent == KV_NONE) return;
    t->nodes[n->parent].n_children--;
    tree_queue(t, n->parent);
}

uint32_t tree_next_page(const struct tree *t, uint32_t page)
{
    if (page == KV_NONE) return t->first_root;
    if (t->nodes[page].first_child != KV_NONE) return t->nodes[page].first_child;
    while (page != KV_NONE && t->nodes[page].older == KV_NONE) page = t->nodes[page].parent;
    return page == KV_NONE ? KV_NONE : t->nodes[page].older;
}

// Pages that came from disk before anybody used the salt had no name to be told by.
static void tell_space(struct tree *t, uint32_t space)
{
    const struct tree_watch *w = &t->watch[WATCH_EVENTS];
    if (w->stored == NULL || t->spaces[space].n_nodes == 0) return;
    for (uint32_t p = tree_next_page(t, KV_NONE); p != KV_NONE; p = tree_next_page(t, p))
        if (t->nodes[p].space == space) w->stored(w->arg, p);
}

void tree_name_salt(struct tree *t, struct hash128 salt, const char *text)
{
    const uint32_t space = tree_space(t, salt);
    struct tree_space *s = &t->spaces[space];
    if (space == 0 || s->text[0] != '\0') return;
    snprintf(s->text, sizeof s->text, "%s", text);
    tell_space(t, space);
}

// Siblings that are not full and hold nothing that the page does not.
static void remove_replaced(struct tree *t, uint32_t page)
{
    const struct tree_node *n = &t->nodes[page];
    uint32_t left = *parts_of(t, n->parent) - n->part, seen = 0, older;
    for (uint32_t c = tree_children(t, n->parent); c != KV_NONE && left > 0; c = older) {
        older = t->nodes[c].older;
        if (seen++ == SIBLINGS_MAX) return; // the rest is evicted some day
        if (c == page || !t->nodes[c].part) continue;
        left--;
        if (t->pool->refs[c] == 1 && hash128_equal(t->nodes[c].salt, n->salt) &&
            memcmp(tokens_of(t, c), tokens_of(t, page), tree_n_tokens(t, c) * sizeof(int32_t)) == 0)
            tree_remove(t, c, EVICT_REPLACED);
    }
}

uint32_t tree_publish(struct tree *t, const struct tree_ref *r, uint32_t page)
{
    const uint32_t found = tree_find(t, r);
    if (found != KV_NONE) {
        tree_pin(t, found);
        kv_page_give(t->pool, page);
        return found;
    }
    struct tree_node *n = &t->nodes[page];
    assert(!n->in_tree && t->pool->refs[page] == 1);
    assert(r->parent == KV_NONE || t->nodes[r->parent].in_tree);
    uint32_t *bucket = bucket_of(t, r->key);
    *n = (struct tree_node){.key = r->key,
                            .used = ++t->clock,
                            .used_s = t->now_s,
                            .counted_s = -(double)INFINITY,
                            .salt = r->salt,
                            .parent = r->parent,
                            .next = *bucket,
                            .first_child = KV_NONE,
                            .generation = n->generation,
                            .depth = r->parent == KV_NONE ? 0 : t->nodes[r->parent].depth + 1,
                            .space = tree_space(t, r->salt),
                            .part = r->tokens[t->pool->page_tokens - 1] == TREE_NO_TOKEN,
                            .in_tree = true};
    *bucket = page;
    memcpy(tokens_of(t, page), r->tokens, t->pool->page_tokens * sizeof(int32_t));
    link_child(t, page);
    kv_page_pin(t->pool, page);
    t->spaces[n->space].n_nodes++;
    t->n_nodes++;
    for (int i = 0; i < TREE_WATCHES; i++)
        if (t->watch[i].stored != NULL) t->watch[i].stored(t->watch[i].arg, page);
    remove_replaced(t, page);
    return page;
}

uint32_t tree_publish_after(struct tree *t, uint32_t parent, struct hash128 salt,
                            const int32_t *tokens, uint32_t page)
{
    const struct tree_node *n = &t->nodes[parent];
    const uint64_t before = hash128_equal(n->salt, salt) ? n->key : tree_salted_key(n->key, salt);
    const struct tree_ref ref = {.parent = parent,
                                 .key = tree_next_key(before, tokens, t->pool->page_tokens),
                                 .salt = salt,
                                 .tokens = tokens};
    return tree_publish(t, &ref, page);
}

uint32_t tree_publish_part(struct tree *t, const struct tree_ref *r, uint32_t n, uint32_t page)
{
    uint32_t n_same;
    struct tree_ref part = *r;
    assert(n > 0 && n < t->pool->page_tokens);
    if (tree_nearest(t, r, n, &n_same) != KV_NONE && n_same == n) return page;
    for (uint32_t i = 0; i < t->pool->page_tokens; i++)
        t->part[i] = i < n ? r->tokens[i] : TREE_NO_TOKEN;
    part.tokens = t->part;
    part.key = tree_next_key(r->key, t->part, t->pool->page_tokens);
    return tree_publish(t, &part, page);
}

// One owner more or less, for whatever reason.
static void own(struct tree *t, uint32_t page)
{
    assert(t->nodes[page].in_tree);
    if (t->pool->refs[page] == 1) t->n_idle--;
    kv_page_pin(t->pool, page);
    tree_queue(t, page);
}

static void disown(struct tree *t, uint32_t page)
{
    kv_page_give(t->pool, page);
    if (!t->nodes[page].in_tree || t->pool->refs[page] != 1) return;
    t->n_idle++;
    tree_queue(t, page);
}

void tree_pin(struct tree *t, uint32_t page)
{
    own(t, page);
    if (!t->unasked) {
        tree_count_use(t, page);
        t->nodes[page].hits++;
    }
    t->nodes[page].used = ++t->clock;
    t->nodes[page].used_s = t->now_s;
}

void tree_unpin(struct tree *t, uint32_t page, const struct tree_hint *hint)
{
    static const struct tree_hint usual = {.priority = CACHE_PRIORITY_DEFAULT};
    if (t->nodes[page].in_tree) tree_use(t, page, hint != NULL ? hint : &usual);
    disown(t, page);
}

void tree_remove(struct tree *t, uint32_t page, enum evict_reason reason)
{
    struct tree_node *n = &t->nodes[page];
    assert(n->in_tree && n->n_children == 0 && t->pool->refs[page] == 1);
    for (int i = 0; i < TREE_WATCHES; i++)
        if (t->watch[i].removed != NULL) t->watch[i].removed(t->watch[i].arg, page, reason);
    uint32_t *link = bucket_of(t, n->key);
    while (*link != page) link = &t->nodes[*link].next;
    *link = n->next;
    t->ghosts[n->key & (t->n_buckets - 1)] = n->key;
    n->in_tree = false;
    tree_queue(t, page);
    unlink_child(t, page);
    n->generation++;
    t->spaces[n->space].n_nodes--;
    t->n_nodes--;
    t->n_idle--;
    if (reason != EVICT_REPLACED) t->n_evicted++;
    t->evicted[reason]++;
    kv_page_give(t->pool, page);
}

uint32_t tree_page_take(struct tree *t)
{
    if (t->pool->n_free == 0 && !tree_evict(t)) return KV_NONE;
    return kv_page_take(t->pool);
}

// ---- trunks -------------------------------------------------------------------------------------

static struct tree_hold *find_hold(struct tree *t, uint32_t page)
{
    for (uint32_t i = 0; i < TREE_HOLDS_MAX; i++)
        if (t->holds[i].page == page) return &t->holds[i];
    return NULL;
}

// A page is public as long as a public hold has it in its path.
static void mark_public(struct tree *t)
{
    for (uint32_t i = 0; i < t->pool->n_pages && t->n_public > 0; i++) t->nodes[i].public = false;
    t->n_public = 0;
    for (uint32_t i = 0; i < TREE_HOLDS_MAX; i++) {
        uint32_t page = t->holds[i].public ? t->holds[i].page : KV_NONE;
        for (; page != KV_NONE && !t->nodes[page].public; page = t->nodes[page].parent) {
            t->nodes[page].public = true;
            t->n_public++;
        }
    }
}

bool tree_hold(struct tree *t, uint32_t page, bool public, const char *name)
{
    struct tree_hold *h = find_hold(t, page);
    const bool known = h != NULL;
    if (!known) h = find_hold(t, KV_NONE);
    if (h == NULL) return false;
    *h = (struct tree_hold){.page = page, .n_pages = t->nodes[page].depth + 1, .public = public};
    snprintf(h->name, sizeof h->name, "%s", name);
    for (uint32_t p = page; !known && p != KV_NONE; p = t->nodes[p].parent) {
        own(t, p);
        if (t->nodes[p].n_holds++ == 0) t->n_held++;
    }
    mark_public(t);
    return true;
}

bool tree_release(struct tree *t, uint32_t page)
{
    struct tree_hold *h = page == KV_NONE ? NULL : find_hold(t, page);
    if (h == NULL) return false;
    *h = (struct tree_hold){.page = KV_NONE};
    for (uint32_t p = page; p != KV_NONE; p = t->nodes[p].parent) {
        if (--t->nodes[p].n_holds == 0) t->n_held--;
        disown(t, p);
    }
    mark_public(t);
    return true;
}

// The first leaf below page, page itself if it has no child.
static uint32_t leaf_below(const struct tree *t, uint32_t page)
{
    while (t->nodes[page].first_child != KV_NONE) page = t->nodes[page].first_child;
    return page;
}

uint32_t tree_drop(struct tree *t, uint32_t page)
{
    uint32_t n = 0, at = leaf_below(t, page);
    for (;;) {
        const uint32_t older = t->nodes[at].older, parent = t->nodes[at].parent;
        const bool last = at == page;
        if (t->nodes[at].n_children == 0 && t->pool->refs[at] == 1) {
            n += tree_n_tokens(t, at);
            tree_remove(t, at, EVICT_DROPPED);
        }
        if (last) return n;
        at = older != KV_NONE ? leaf_below(t, older) : parent;
    }
}
