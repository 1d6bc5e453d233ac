// A hash table from (chained key) to page; parent, salt and tokens are compared on every hit, so a
// collision can cost time but never hand out a wrong page.
//
// Invariants: a parent of a page in the tree is in the tree; n_idle counts the pages whose only owner
// is the tree; parents were used no earlier than their children, so evicting leaves by age is LRU.
#include "engine/tree.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

bool tree_init(struct tree *t, struct kv_pool *pool, struct err *e)
{
    uint32_t n_buckets = 16;
    while (n_buckets < pool->n_pages && n_buckets < 1u << 30) n_buckets *= 2;
    struct tree_node *nodes = calloc(pool->n_pages, sizeof *nodes);
    int32_t *tokens = calloc((size_t)pool->n_pages * pool->page_tokens, sizeof *tokens);
    uint32_t *buckets = malloc(n_buckets * sizeof *buckets);
    if (nodes == NULL || tokens == NULL || buckets == NULL) {
        free(nodes);
        free(tokens);
        free(buckets);
        return err_set(e, ERR_MEMORY, "no memory for a prefix tree of %u pages", pool->n_pages);
    }
    for (uint32_t i = 0; i < n_buckets; i++) buckets[i] = KV_NONE;
    *t = (struct tree){
        .pool = pool, .nodes = nodes, .tokens = tokens, .buckets = buckets, .n_buckets = n_buckets};
    return true;
}

void tree_deinit(struct tree *t)
{
    if (t->pool != NULL) {
        while (tree_evict(t)) {
        }
        assert(t->n_nodes == 0);
    }
    free(t->nodes);
    free(t->tokens);
    free(t->buckets);
    *t = (struct tree){0};
}

uint64_t tree_root_key(struct hash128 salt)
{
    return hash64(&salt, sizeof salt, 0);
}

uint64_t tree_next_key(uint64_t key, const int32_t *tokens, uint32_t page_tokens)
{
    return hash64(tokens, page_tokens * sizeof *tokens, key);
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
        if (n->key == r->key && n->parent == r->parent && n->salt.lo == r->salt.lo &&
            n->salt.hi == r->salt.hi &&
            memcmp(tokens_of(t, page), r->tokens, t->pool->page_tokens * sizeof(int32_t)) == 0)
            return page;
    }
    return KV_NONE;
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
                            .parent = r->parent,
                            .next = *bucket,
                            .generation = n->generation,
                            .salt = r->salt,
                            .in_tree = true};
    *bucket = page;
    memcpy(tokens_of(t, page), r->tokens, t->pool->page_tokens * sizeof(int32_t));
    if (r->parent != KV_NONE) {
        t->nodes[r->parent].n_children++;
        t->nodes[r->parent].used = t->clock;
    }
    kv_page_pin(t->pool, page);
    t->n_nodes++;
    return page;
}

void tree_pin(struct tree *t, uint32_t page)
{
    assert(t->nodes[page].in_tree);
    if (t->pool->refs[page] == 1) t->n_idle--;
    kv_page_pin(t->pool, page);
    t->nodes[page].used = ++t->clock;
}

void tree_unpin(struct tree *t, uint32_t page)
{
    struct tree_node *n = &t->nodes[page];
    kv_page_give(t->pool, page);
    if (!n->in_tree) return;
    n->used = ++t->clock;
    if (t->pool->refs[page] == 1) t->n_idle++;
}

static void remove_node(struct tree *t, uint32_t page)
{
    struct tree_node *n = &t->nodes[page];
    uint32_t *link = bucket_of(t, n->key);
    while (*link != page) link = &t->nodes[*link].next;
    *link = n->next;
    if (n->parent != KV_NONE) t->nodes[n->parent].n_children--;
    n->in_tree = false;
    n->generation++;
    t->n_nodes--;
    t->n_idle--;
    kv_page_give(t->pool, page);
}

// Walks all nodes: 10,000 pages take about 20 us, and a page is evicted once per page_tokens
// computed tokens, each of which costs far more.
bool tree_evict(struct tree *t)
{
    if (t->n_idle == 0) return false;
    uint32_t best = KV_NONE;
    for (uint32_t i = 0; i < t->pool->n_pages; i++) {
        const struct tree_node *n = &t->nodes[i];
        if (!n->in_tree || n->n_children > 0 || t->pool->refs[i] > 1) continue;
        if (best == KV_NONE || n->used < t->nodes[best].used) best = i;
    }
    assert(best != KV_NONE); // an idle page's children are idle: one of them is a leaf
    remove_node(t, best);
    t->n_evicted++;
    return true;
}

uint32_t tree_page_take(struct tree *t)
{
    if (t->pool->n_free == 0 && !tree_evict(t)) return KV_NONE;
    return kv_page_take(t->pool);
}
