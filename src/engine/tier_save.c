// On the way down: pages that the tree takes in are noted, and copied and written when there is time.
// Copies may take 2 % of the engine thread's time while it works, none while somebody waits for a first token (for two
// seconds at most: then 2 % again), and all of it while it has nothing to do, until the doorbell rings: a page of a large
// model takes milliseconds, and a request that comes waits for one at most. What is evicted before its turn is copied at
// once if a slot is free.
//
// Invariant: a page is in the ring at most once; what is in the ring is looked at again when its turn
// comes, for it may have left the tree.
#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/tier.h"

enum {
    SHARE = 50,
    CREDIT_MS = 1,
    PATIENCE_MS = 2000,
    IDLE_MS = 50,
    CATCH_UP_MS = 1000
}; // one part in SHARE of the time; a page at once then

static bool is_known(const struct tier *t, uint32_t page)
{
    const struct tree_node *n = &t->cfg.tree->nodes[page];
    return n->in_tree && t->marks[page].known && t->marks[page].generation == n->generation;
}

static void queue_page(struct tier *t, uint32_t page)
{
    if (t->marks[page].queued) return;
    t->marks[page].queued = true;
    t->ring[(t->ring_first + t->ring_n++) % t->n_pages] = page;
}

// The tree took a page in: its parent was taken in before.
static void on_stored(void *arg, uint32_t page)
{
    struct tier *t = arg;
    const struct tree_node *n = &t->cfg.tree->nodes[page];
    struct hash128 parent = {0};
    if (n->parent != KV_NONE) {
        assert(is_known(t, n->parent));
        parent = t->marks[n->parent].chain;
    }
    struct tier_mark *m = &t->marks[page];
    m->chain = tier_chain(t, parent, n->salt, tree_tokens(t->cfg.tree, page));
    m->generation = n->generation;
    m->known = true;
    queue_page(t, page);
}

static bool wants_disk(const struct tier *t, struct hash128 chain)
{
    return t->store != NULL && store_writable(t->store) && !store_has(t->store, chain);
}

// Copies a page's bytes into a slot, with all that its record says.
static bool copy_down(struct tier *t, uint32_t page, uint32_t slot)
{
    const struct tree_node *n = &t->cfg.tree->nodes[page];
    struct tier_slot *s = &t->slots[slot];
    struct store_header *h = (struct store_header *)(void *)s->record;
    struct err e = {0};
    if (tier_encodes(t)) s->raw = t->raw_free[--t->n_raw_free];
    s->worth = tree_use_worth(t->cfg.tree, n->depth, n->priority);
    s->chain = t->marks[page].chain;
    s->parent = n->parent == KV_NONE ? (struct hash128){0} : t->marks[n->parent].chain;
    *h = (struct store_header){
        .key = s->chain, .parent = s->parent, .salt = n->salt, .depth = n->depth};
    memcpy(store_ids(s->record), tree_tokens(t->cfg.tree, page), t->page_tokens * sizeof(int32_t));
    void *to = s->raw != NULL ? s->raw : store_data(s->record, t->page_tokens);
    if (t->cfg.io.read(t->cfg.io.arg, page, to, &e)) return true;
    log_debug("cache", "a page cannot be read from the device: %s", e.msg);
    return false;
}

// False when no slot is free now.
static bool save_page(struct tier *t, uint32_t page)
{
    const struct hash128 chain = t->marks[page].chain;
    const bool disk = wants_disk(t, chain);
    uint32_t slot = tier_find(t, chain);
    t->missed |= t->store != NULL && !store_writable(t->store);
    if (slot != SLOT_NONE) {
        if (disk && t->slots[slot].state == SLOT_KEPT) tier_submit(t, slot, SLOT_WRITE);
        return true;
    }
    if (!disk && !tier_keeps(t)) return true;
    const bool to_threads = disk || tier_encodes(t);
    if (to_threads && t->n_writing >= t->n_writes_max) return false;
    slot = tier_slot_take(t);
    if (slot == SLOT_NONE) return false;
    if (!copy_down(t, page, slot)) {
        tier_slot_give(t, slot);
        return true;
    }
    if (to_threads) {
        tier_slot_list(t, slot);
        tier_submit(t, slot, disk ? SLOT_WRITE : SLOT_PACK);
    } else {
        tier_slot_keep(t, slot);
    }
    return true;
}

// Found no more from now on; a thread makes it unreadable on disk.
static void drop_on_disk(struct tier *t, struct hash128 chain)
{
    struct store_entry where;
    if (t->store == NULL || !store_forget(t->store, chain, &where)) return;
    pthread_mutex_lock(&t->lock);
    if (t->n_drops == t->cap_drops) {
        const size_t cap = t->cap_drops == 0 ? 256 : 2 * t->cap_drops;
        struct store_entry *p = realloc(t->drops, cap * sizeof *p);
        if (p != NULL) t->drops = p, t->cap_drops = cap;
    }
    const bool later = t->n_drops < t->cap_drops;
    if (later) t->drops[t->n_drops++] = where;
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
    if (!later) store_erase(t->store, &where); // slow is better than never
}

// What a thread has just now is marked: it is not kept when it comes back.
void tier_drop(struct tier *t, struct hash128 chain)
{
    const uint32_t slot = tier_find(t, chain);
    if (slot != SLOT_NONE && t->slots[slot].state == SLOT_KEPT)
        tier_slot_give(t, slot);
    else if (slot != SLOT_NONE)
        t->slots[slot].unwanted = true;
    drop_on_disk(t, chain);
}

// Its last moment: it goes down now or not at all.
static void on_removed(void *arg, uint32_t page, enum evict_reason reason)
{
    struct tier *t = arg;
    if (!is_known(t, page)) return;
    if (reason == EVICT_DROPPED || reason == EVICT_REPLACED)
        tier_drop(t, t->marks[page].chain);
    else if (t->marks[page].queued && !save_page(t, page))
        t->figures.skipped++;
    t->marks[page].known = false;
}

void tier_watch(struct tier *t)
{
    t->cfg.tree->watch[0] =
        (struct tree_watch){.arg = t, .stored = on_stored, .removed = on_removed};
}

void tier_queue_all(struct tier *t)
{
    for (uint32_t page = 0; page < t->n_pages; page++)
        if (is_known(t, page)) queue_page(t, page);
}

// What could not be written while the disk was full, or another process wrote, goes down when it can be again.
static void catch_up(struct tier *t, uint64_t now)
{
    if (!t->missed || t->ring_n > 0 || now - t->missed_ns < CATCH_UP_MS * UINT64_C(1000000)) return;
    t->missed_ns = now;
    if (!store_writable(t->store)) return;
    t->missed = false;
    tier_queue_all(t);
}

static bool is_called(const struct tier *t)
{
    struct pollfd p = {.fd = t->cfg.bell->event.fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

// A restore from a slow disk, a prompt on a slow processor and requests without end would hold saving back for ever.
static enum tier_load patient(struct tier *t, enum tier_load load, uint64_t now)
{
    const uint32_t ms = t->cfg.patience_ms > 0 ? t->cfg.patience_ms : PATIENCE_MS;
    if (load != TIER_URGENT || t->ring_n == 0) {
        t->held_ns = 0;
        return load;
    }
    if (t->held_ns == 0) t->held_ns = now;
    return now - t->held_ns < ms * (uint64_t)1000000 ? TIER_URGENT : TIER_BUSY;
}

void tier_save(struct tier *t, enum tier_load load)
{
    const uint64_t start = clock_ns();
    catch_up(t, start);
    load = patient(t, load, start);
    const bool busy = load == TIER_BUSY;
    t->load = load;
    t->credit_ns += (int64_t)(start - t->turn_ns) / SHARE;
    t->turn_ns = start;
    if (t->credit_ns > CREDIT_MS * 1000000ll) t->credit_ns = CREDIT_MS * 1000000ll;
    const int64_t limit = busy ? t->credit_ns : IDLE_MS * 1000000ll;
    if (load == TIER_URGENT) return;
    if (t->cfg.disk && t->store == NULL && !tier_keeps(t)) return; // until the store is there
    uint64_t now = start;
    while (t->ring_n > 0 && (int64_t)(now - start) < limit) {
        const uint32_t page = t->ring[t->ring_first];
        if (is_known(t, page) && !save_page(t, page)) break;
        t->marks[page].queued = false;
        t->ring_first = (t->ring_first + 1) % t->n_pages;
        t->ring_n--;
        now = clock_ns();
        if (!busy && is_called(t)) break;
    }
    if (busy) t->credit_ns -= (int64_t)(now - start);
}

void tier_saved(struct tier *t, uint32_t slot)
{
    struct tier_slot *s = &t->slots[slot];
    t->n_writing--;
    if (s->result == STORE_OK) {
        if (s->state == SLOT_WRITE) t->figures.saved++;
        if (s->unwanted) drop_on_disk(t, s->chain);
        t->write_warned = false;
        tier_slot_keep(t, slot);
    } else {
        pthread_mutex_lock(&t->lock);
        const struct err e = t->write_error;
        pthread_mutex_unlock(&t->lock);
        if (!t->write_warned)
            log_warn(
                "cache",
                "pages are not saved for now: %s (make room there, or --cache-dir takes another "
                "folder)",
                e.msg);
        t->write_warned = t->missed = true;
        tier_slot_give(t, slot);
    }
}
