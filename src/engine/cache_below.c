// See cache_below.h. A page is known by its chain; a tree is made of the parents that records name. What is below the
// device is a run as long as one page goes on from another, under one salt, in one tier.
// Invariant: the tree of the device is not touched here; the disk is read outside the engine thread.
#include "engine/cache_below.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/seq.h"

enum { BATCH = 64, PEEKS_MAX = 256 };

struct page_at *page_list_add(struct page_list *p)
{
    if (p->n == p->cap) {
        const size_t cap = p->cap == 0 ? 1024 : 2 * p->cap;
        struct page_at *at = cap > UINT32_MAX / 2 ? NULL : realloc(p->at, cap * sizeof *at);
        if (at == NULL) {
            p->failed = true;
            return NULL;
        }
        p->at = at;
        p->cap = cap;
    }
    struct page_at *a = &p->at[p->n++];
    *a = (struct page_at){.trunk = UINT32_MAX, .first_child = UINT32_MAX, .sibling = UINT32_MAX};
    return a;
}

void page_list_free(struct page_list *p)
{
    free(p->at);
    *p = (struct page_list){0};
}

struct cache_trunk *trunk_list_add(struct trunk_list *l)
{
    if (l->n == l->cap) {
        const size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        struct cache_trunk *items = realloc(l->items, cap * sizeof *items);
        if (items == NULL) return NULL;
        l->items = items;
        l->cap = cap;
    }
    return &l->items[l->n++];
}

// The first words of a page, which may not be full.
static uint32_t copy_head(int32_t *to, const int32_t *ids, uint32_t page_tokens)
{
    uint32_t n = 0;
    for (; n < page_tokens && n < CACHE_HEAD_TOKENS && ids[n] != TREE_NO_TOKEN; n++) to[n] = ids[n];
    return n;
}

void page_list_add_ram(struct page_list *p, const struct tier *t)
{
    for (uint32_t i = 0; t != NULL && t->n_kept > 0 && i < t->n_slots; i++) {
        const struct tier_slot *s = &t->slots[i];
        if (s->state != SLOT_KEPT) continue;
        const struct store_header *h = (const void *)s->record;
        struct page_at *a = page_list_add(p);
        if (a == NULL) return;
        a->tier = CACHE_RAM;
        a->chain = s->chain;
        a->parent = h->parent;
        a->salt = h->salt;
        a->depth = h->depth;
        a->n_tokens =
            t->page_tokens - store_marks_missing(store_marks(store_ids(s->record), t->page_tokens));
        a->n_head = copy_head(a->head, store_ids(s->record), t->page_tokens);
    }
}

static int by_chain(const void *pa, const void *pb)
{
    const struct page_at *a = pa, *b = pb;
    const int c = hash128_compare(a->chain, b->chain);
    return c != 0 ? c : (a->tier > b->tier) - (a->tier < b->tier);
}

static uint32_t find(const struct page_list *p, struct hash128 chain)
{
    size_t lo = 0, hi = p->n;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        const int c = hash128_compare(p->at[mid].chain, chain);
        if (c == 0) return (uint32_t)mid;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return UINT32_MAX;
}

static struct store *store_of(struct tier *t)
{
    if (t == NULL) return NULL;
    pthread_mutex_lock(&t->lock);
    struct store *store = t->open;
    pthread_mutex_unlock(&t->lock);
    return store;
}

bool page_peek(struct tier *t, struct hash128 key, int32_t *ids)
{
    struct store *store = store_of(t);
    return store != NULL && store_peek(store, key, ids);
}

void page_list_complete(struct page_list *p, struct tier *t)
{
    struct store *store = store_of(t);
    struct store_entry found[BATCH];
    size_t next = 0, n = 0;
    while (store != NULL && (n = store_list(store, &next, found, NULL, BATCH)) > 0)
        for (size_t i = 0; i < n; i++) {
            struct page_at *a = page_list_add(p);
            if (a == NULL) return;
            a->tier = CACHE_DISK;
            a->chain = found[i].key;
            a->parent = found[i].parent;
            a->salt = found[i].salt;
            a->depth = found[i].depth;
            a->saved_unix = found[i].saved_unix;
            a->n_tokens = t->page_tokens - store_marks_missing(found[i].marks);
        }
    if (p->n == 0) return;
    qsort(p->at, p->n, sizeof *p->at, by_chain);
    size_t kept = 1;
    for (size_t i = 1; i < p->n; i++)
        if (!hash128_equal(p->at[i].chain, p->at[kept - 1].chain)) p->at[kept++] = p->at[i];
    p->n = kept;
}

// ---- trunks -------------------------------------------------------------------------------------

// Children of pages below the device; returns the first of those whose parent is not there, linked as siblings.
static uint32_t link_all(struct page_list *p)
{
    uint32_t roots = UINT32_MAX;
    for (uint32_t i = 0; i < p->n; i++) {
        struct page_at *a = &p->at[i];
        if (a->tier == CACHE_DEVICE) continue;
        const uint32_t parent = a->depth == 0 ? UINT32_MAX : find(p, a->parent);
        const bool below = parent != UINT32_MAX && p->at[parent].tier != CACHE_DEVICE;
        uint32_t *first = below ? &p->at[parent].first_child : &roots;
        a->sibling = *first;
        *first = i;
        if (below) p->at[parent].n_children++;
    }
    return roots;
}

static uint32_t run_end(const struct page_list *p, uint32_t first)
{
    uint32_t i = first;
    for (;;) {
        const struct page_at *a = &p->at[i];
        if (a->n_children != 1) return i;
        const struct page_at *child = &p->at[a->first_child];
        if (!hash128_equal(child->salt, a->salt) || child->tier != a->tier) return i;
        i = a->first_child;
    }
}

static void put_head(struct cache_trunk *c, const struct page_at *a, struct tier *t,
                     struct store *store, uint32_t *n_peeks)
{
    int32_t *ids = a->tier == CACHE_DISK && store != NULL && *n_peeks < PEEKS_MAX
                       ? malloc(t->page_tokens * sizeof *ids)
                       : NULL;
    c->n_head = a->n_head;
    memcpy(c->head, a->head, a->n_head * sizeof *a->head);
    if (ids != NULL && store_peek(store, a->chain, ids)) {
        c->n_head = copy_head(c->head, ids, t->page_tokens);
    }
    if (ids != NULL) ++*n_peeks;
    free(ids);
}

static bool put_run(struct page_list *p, const struct tier *t, uint32_t first, uint32_t last,
                    struct trunk_list *out)
{
    const struct page_at *a = &p->at[first], *z = &p->at[last];
    const uint32_t above = a->depth == 0 ? UINT32_MAX : find(p, a->parent);
    struct cache_trunk *c = trunk_list_add(out);
    if (c == NULL) return false;
    const struct hash128 none = seq_public_salt();
    const bool salted = !hash128_equal(z->salt, none);
    *c = (struct cache_trunk){
        .id = z->chain.lo,
        .tier = a->tier,
        .parent = above == UINT32_MAX ? UINT32_MAX : p->at[above].trunk,
        .n_before = a->depth * t->page_tokens,
        .n_tokens = (z->depth - a->depth) * t->page_tokens + z->n_tokens,
        .bytes = (z->depth - a->depth + 1) * (uint64_t)t->record_stride,
        .idle_s = a->saved_unix > 0 ? (double)(clock_unix() - a->saved_unix) : -1,
        .salt = salted ? z->salt.lo | 1 : 0,
    };
    for (uint32_t i = first;; i = p->at[i].first_child) {
        p->at[i].trunk = (uint32_t)out->n - 1;
        if (i == last) return true;
    }
}

bool page_list_to_trunks(struct page_list *p, struct tier *t, struct trunk_list *out)
{
    if (p->n == 0 || t == NULL) return true;
    uint32_t *stack = malloc(p->n * sizeof *stack), n = 0, n_peeks = 0;
    struct store *store = store_of(t);
    bool ok = stack != NULL;
    const uint32_t roots = link_all(p);
    for (uint32_t i = roots; ok && i != UINT32_MAX; i = p->at[i].sibling) stack[n++] = i;
    while (ok && n > 0) {
        const uint32_t first = stack[--n], last = run_end(p, first);
        ok = put_run(p, t, first, last, out);
        if (ok) put_head(&out->items[out->n - 1], &p->at[first], t, store, &n_peeks);
        for (uint32_t c = p->at[last].first_child; ok && c != UINT32_MAX; c = p->at[c].sibling)
            stack[n++] = c;
    }
    free(stack);
    return ok;
}
