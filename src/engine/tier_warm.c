// Pages that were used most come back at start, before anybody asks for them: by use, as many as half of
// the free pages, in the order of their depth, so that each finds its parent in the tree. It gives way
// to sequences that wait for pages of their own, and never evicts.
//
// A record is taken at its own word about its tokens here, since nobody asks for certain ones: so its
// key is computed again from its parent, its salt and its tokens.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/tier.h"

enum { BATCH = 256, BUDGET_MS = 50 };

struct warm_entry {
    struct hash128 chain, parent;
    double uses;
    uint32_t depth;
    uint32_t page, generation; // where it is on the device; KV_NONE = not
    uint32_t slot;             // that it was read with and waits in; SLOT_NONE
};

struct tier_warm {
    struct warm_entry *entries;             // [n], by depth
    uint32_t *by_chain;                     // [n] their numbers, by chain
    uint32_t n, end, asked, done, n_flight; // end: what is asked for at most
    uint64_t start_ns;
};

static int by_use(const void *pa, const void *pb)
{
    const struct warm_entry *a = pa, *b = pb;
    if (a->uses != b->uses) return (a->uses < b->uses) - (a->uses > b->uses);
    return (a->depth > b->depth) - (a->depth < b->depth);
}

static int by_depth(const void *pa, const void *pb)
{
    const struct warm_entry *a = pa, *b = pb;
    return (a->depth > b->depth) - (a->depth < b->depth);
}

static int by_chain(const void *pa, const void *pb, void *arg)
{
    const struct warm_entry *entries = arg;
    return hash128_compare(entries[*(const uint32_t *)pa].chain,
                           entries[*(const uint32_t *)pb].chain);
}

static struct warm_entry *find(const struct tier_warm *w, struct hash128 chain)
{
    uint32_t lo = 0, hi = w->n;
    while (lo < hi) {
        const uint32_t mid = (lo + hi) / 2;
        const int c = hash128_compare(w->entries[w->by_chain[mid]].chain, chain);
        if (c == 0) return &w->entries[w->by_chain[mid]];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

// ---- the choice ---------------------------------------------------------------------------------

static bool list_all(struct tier_warm *w, struct store *store)
{
    struct store_entry found[BATCH];
    double uses[BATCH];
    size_t next = 0, n, cap = 0;
    while ((n = store_list(store, &next, found, uses, BATCH)) > 0) {
        if (w->n + n > cap) {
            cap = cap == 0 ? 1024 : 2 * cap;
            struct warm_entry *p = realloc(w->entries, cap * sizeof *p);
            if (p == NULL) return false;
            w->entries = p;
        }
        for (size_t i = 0; i < n; i++)
            w->entries[w->n++] = (struct warm_entry){.chain = found[i].key,
                                                     .parent = found[i].parent,
                                                     .uses = uses[i],
                                                     .depth = found[i].depth,
                                                     .page = KV_NONE,
                                                     .slot = SLOT_NONE};
    }
    return true;
}

// ---- coming back --------------------------------------------------------------------------------

static bool is_root(const struct warm_entry *entry)
{
    return entry->parent.lo == 0 && entry->parent.hi == 0;
}

static bool still_there(const struct tier *t, const struct warm_entry *entry)
{
    if (entry == NULL || entry->page == KV_NONE) return false;
    const struct tree_node *n = &t->cfg.tree->nodes[entry->page];
    return n->in_tree && n->generation == entry->generation;
}

// Where the record's page belongs in the tree; false where its parent is not there or it is not what
// its key says.
static bool place_of(const struct tier *t, const struct warm_entry *entry, void *record,
                     struct tree_ref *out)
{
    const struct store_header *h = record;
    const struct warm_entry *parent = is_root(entry) ? NULL : find(t->warm, entry->parent);
    if (!is_root(entry) && !still_there(t, parent)) return false;
    const struct hash128 chain = tier_chain(t, entry->parent, h->salt, store_ids(record));
    if (!hash128_equal(chain, entry->chain)) return false;
    *out = (struct tree_ref){.parent = parent == NULL ? KV_NONE : parent->page,
                             .salt = h->salt,
                             .tokens = store_ids(record)};
    uint64_t key = tree_root_key(h->salt);
    if (parent != NULL) {
        const struct tree_node *n = &t->cfg.tree->nodes[parent->page];
        key = hash128_equal(n->salt, h->salt) ? n->key : tree_salted_key(n->key, h->salt);
    }
    out->key = tree_next_key(key, out->tokens, t->page_tokens);
    return true;
}

// A page that is in the tree already, because a request was quicker, is taken for ours.
static void deliver(struct tier *t, struct warm_entry *entry)
{
    struct tree *tree = t->cfg.tree;
    struct tier_slot *s = &t->slots[entry->slot];
    struct tree_ref ref;
    if (!place_of(t, entry, s->record, &ref)) return;
    uint32_t page = tree_find(tree, &ref);
    if (page == KV_NONE) {
        page = tree_publish(tree, &ref, s->page);
        s->page = KV_NONE;
        tree_unpin(tree, page, NULL);
        t->figures.warmed++;
    }
    entry->page = page;
    entry->generation = tree->nodes[page].generation;
}

static void give_slot(struct tier *t, uint32_t slot)
{
    struct tier_slot *s = &t->slots[slot];
    if (s->page != KV_NONE) kv_page_give(t->cfg.tree->pool, s->page);
    s->page = KV_NONE;
    tier_slot_give(t, slot);
}

void tier_warm_end(struct tier *t)
{
    struct tier_warm *w = t->warm;
    if (w == NULL) return;
    if (w->n > 0)
        log_info("cache", "warmed pages=%llu ms=%.0f", (unsigned long long)t->figures.warmed,
                 clock_ms_since(w->start_ns));
    for (uint32_t i = w->done; i < w->asked; i++)
        if (w->entries[i].slot != SLOT_NONE) give_slot(t, w->entries[i].slot);
    free(w->entries);
    free(w->by_chain);
    free(w);
    t->warm = NULL;
}

void tier_warm_begin(struct tier *t)
{
    struct tier_warm *w = calloc(1, sizeof *w);
    if (w == NULL) return; // warmth is a favour
    const uint32_t most = t->cfg.tree->pool->n_free / 2;
    bool ok = list_all(w, t->store);
    if (ok && w->n > 0) qsort(w->entries, w->n, sizeof *w->entries, by_use);
    if (w->n > most) w->n = most;
    if (ok && w->n > 0) qsort(w->entries, w->n, sizeof *w->entries, by_depth);
    w->by_chain = ok && w->n > 0 ? calloc(w->n, sizeof *w->by_chain) : NULL;
    t->warm = w;
    if (w->by_chain == NULL) {
        tier_warm_end(t);
        return;
    }
    for (uint32_t i = 0; i < w->n; i++) w->by_chain[i] = i;
    qsort_r(w->by_chain, w->n, sizeof *w->by_chain, by_chain, w->entries);
    w->end = w->n;
    w->start_ns = clock_ns();
}

static void ask(struct tier *t)
{
    struct tier_warm *w = t->warm;
    struct kv_pool *pool = t->cfg.tree->pool;
    if (pool->n_free == 0) w->end = w->asked; // others need the room
    while (t->n_restores == 0 && w->asked < w->end && w->asked - w->done < 2 * t->n_threads) {
        const uint32_t slot = pool->n_free > 0 ? tier_read_slot_take(t) : SLOT_NONE;
        if (slot == SLOT_NONE) break;
        struct tier_slot *s = &t->slots[slot];
        s->chain = w->entries[w->asked].chain;
        s->parent = w->entries[w->asked].parent;
        s->i_page = w->asked++;
        s->any_ids = s->warm = true;
        s->i_call = t->cfg.n_parallel;
        s->page = kv_page_take(pool);
        w->n_flight++;
        tier_submit(t, slot, SLOT_READ);
    }
    tier_call_at(t, t->cfg.n_parallel, w->asked < w->end ? t->n_threads : 0);
}

bool tier_warm_arrived(struct tier *t, uint32_t slot)
{
    struct tier_slot *s = &t->slots[slot];
    if (!s->warm) return false;
    s->state = SLOT_ARRIVED;
    if (t->warm != NULL) t->warm->n_flight--;
    if (t->warm == NULL || s->result != STORE_OK)
        give_slot(t, slot);
    else
        t->warm->entries[s->i_page].slot = slot;
    return true;
}

static bool is_next_there(const struct tier_warm *w)
{
    return w->done < w->asked && (w->entries[w->done].slot != SLOT_NONE || w->n_flight == 0);
}

void tier_warm_turn(struct tier *t)
{
    const uint64_t start = clock_ns();
    struct tier_warm *w = t->warm;
    if (w == NULL) return;
    for (; is_next_there(w) && clock_ms_since(start) < BUDGET_MS; w->done++) {
        struct warm_entry *entry = &w->entries[w->done];
        if (entry->slot == SLOT_NONE) continue; // it did not come
        deliver(t, entry);
        give_slot(t, entry->slot);
        entry->slot = SLOT_NONE;
    }
    ask(t);
    if (w->done == w->end) tier_warm_end(t);
}

bool tier_warm_ready(const struct tier *t)
{
    return t->warm != NULL && is_next_there(t->warm);
}
