// On the way up: a sequence that runs is held while pages that continue its text are read, verified and
// written to the device, in the order of its text. Many reads are in flight; what comes early waits.
//
// Loading has to be quicker than computing: before it begins by the speeds measured so far, while it
// runs by how it goes. A page that is missing or bad, and silence, end it: the rest is computed. So a
// sequence is held for a bounded time, whatever the disk does.
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/tier.h"

enum { SILENCE_MS = 2000, JUDGE_MS = 500, BUSY_MS = 50, SAVE_PAUSE_MS = 20 };
static const double assumed_bps = 400e6; // until a speed was measured
static const double copy_bps = 4e9;      // host memory to device, a guess on the safe side

// The hash of the path that ends with the sequence's page before i.
static struct hash128 chain_before(const struct tier *t, const struct seq *s, uint32_t i)
{
    return i == 0 ? (struct hash128){0} : t->marks[s->pages[i - 1]].chain;
}

static bool is_below(const struct tier *t, struct hash128 chain)
{
    return tier_find(t, chain) != SLOT_NONE ||
           (t->store != NULL && store_has(t->store, chain, true));
}

// Their copies on disk are in use too, though nobody reads them.
static void count_uses(const struct tier *t, const struct seq *s)
{
    for (uint32_t i = 0; t->store != NULL && i < s->n_shared; i++)
        store_has(t->store, t->marks[s->pages[i]].chain, true);
}

static struct tier_restore *free_restore(struct tier *t)
{
    for (uint32_t i = 0; i < t->cfg.n_parallel; i++)
        if (t->restores[i].seq == NULL) return &t->restores[i];
    return NULL;
}

static struct tier_restore *restore_of(struct tier *t, const struct seq *s)
{
    for (uint32_t i = 0; i < t->cfg.n_parallel; i++)
        if (t->restores[i].seq == s) return &t->restores[i];
    return NULL;
}

static double load_s(const struct tier *t, uint32_t n_disk, uint32_t n_ram)
{
    const double bps = t->read_bps > 0 ? t->read_bps : assumed_bps;
    const double bytes = (double)t->record_stride;
    return n_disk * bytes / bps + (n_disk + n_ram) * bytes / copy_bps;
}

// What arrived and nobody waits for any more.
static void release_arrived(struct tier *t, struct tier_restore *r)
{
    for (uint32_t i = r->first; i < r->asked; i++) {
        if (r->arrived[i] != KV_NONE) kv_page_give(t->cfg.tree->pool, r->arrived[i]);
        r->arrived[i] = KV_NONE;
    }
    for (uint32_t i = 0; i < t->n_slots; i++)
        if (t->slots[i].state == SLOT_ARRIVED && t->slots[i].ticket == r->ticket)
            tier_slot_keep(t, i);
}

static void end_restore(struct tier *t, struct tier_restore *r)
{
    struct seq *s = r->seq;
    const double spent_s = clock_ms_since(r->start_ns) / 1e3;
    release_arrived(t, r);
    s->n_restore = 0;
    s->report.n_ram += r->n_ram * t->page_tokens;
    s->report.n_disk += r->n_disk * t->page_tokens;
    s->report.restored_ms += spent_s * 1e3;
    if (r->n_disk >= 4 && spent_s > 0) {
        const double bps = r->n_disk * (double)t->record_stride / spent_s;
        t->read_bps = t->read_bps > 0 ? (t->read_bps + bps) / 2 : bps;
    }
    t->figures.restores++;
    t->figures.ram_tokens += (uint64_t)r->n_ram * t->page_tokens;
    t->figures.disk_tokens += (uint64_t)r->n_disk * t->page_tokens;
    t->figures.restore_seconds += spent_s;
    log_debug("cache", "restored disk_pages=%u ram_pages=%u ms=%.1f", r->n_disk, r->n_ram,
              spent_s * 1e3);
    r->seq = NULL;
    t->n_restores--;
}

void tier_forget(struct tier *t, struct seq *s)
{
    struct tier_restore *r = t == NULL ? NULL : restore_of(t, s);
    if (r != NULL) end_restore(t, r);
}

// ---- asking --------------------------------------------------------------------------------------

// Where the device's memory can be read into, the page is taken now and needs no copy later. Not where
// host memory is to keep one. False when no page can be had.
static bool take_place(struct tier *t, uint32_t slot)
{
    struct tier_slot *to = &t->slots[slot];
    if (t->cfg.io.map == NULL || tier_keeps(t)) return true;
    to->page = tree_page_take(t->cfg.tree);
    if (to->page == KV_NONE) return false;
    to->data = t->cfg.io.map(t->cfg.io.arg, to->page);
    if (to->data != NULL) return true;
    kv_page_give(t->cfg.tree->pool, to->page);
    to->page = KV_NONE;
    return true;
}

static void ask_for(struct tier *t, struct tier_restore *r, uint32_t i, uint32_t slot)
{
    struct tier_slot *to = &t->slots[slot];
    const struct seq *s = r->seq;
    to->chain = r->chains[i];
    to->parent = i == r->first ? chain_before(t, s, i) : r->chains[i - 1];
    to->ticket = r->ticket;
    to->i_page = i;
    memcpy(to->ids, s->tokens + i * t->page_tokens, t->page_tokens * sizeof(int32_t));
    r->n_flight++;
    tier_submit(t, slot, SLOT_READ);
}

static void ask(struct tier *t, struct tier_restore *r)
{
    if (r->asked < r->seq->n_shared) r->asked = r->seq->n_shared; // joined pages of others
    for (; r->asked < r->seq->n_restore; r->asked++) {
        if (tier_find(t, r->chains[r->asked]) != SLOT_NONE) continue;
        if (t->store == NULL) r->seq->n_restore = r->asked; // it was in host memory only
        if (t->store == NULL) return;
        const uint32_t slot = tier_slot_take(t);
        if (slot == SLOT_NONE) return;
        if (!take_place(t, slot)) {
            tier_slot_give(t, slot);
            return;
        }
        ask_for(t, r, r->asked, slot);
    }
}

void tier_seek(struct tier *t, struct seq *s)
{
    if (t == NULL || (t->store == NULL && !tier_keeps(t))) return;
    struct tier_restore *r = free_restore(t);
    const uint32_t last = seq_sharable(s);
    uint32_t i = s->n_shared, n_ram = 0;
    assert(s->n_restore == 0 && s->n_pages == s->n_shared);
    count_uses(t, s);
    if (r == NULL) return;
    struct hash128 chain = chain_before(t, s, i);
    for (; i < last; i++) {
        chain = tier_chain(t, chain, seq_page_salt(s, i), s->tokens + i * t->page_tokens);
        if (!is_below(t, chain)) break;
        if (tier_find(t, chain) != SLOT_NONE) n_ram++;
        r->chains[i] = chain;
        r->arrived[i] = KV_NONE;
    }
    const uint32_t n = i - s->n_shared;
    if (n == 0) return;
    const double compute_s = t->prefill_tps > 0 ? n * t->page_tokens / t->prefill_tps : 1e9;
    if (load_s(t, n - n_ram, n_ram) > compute_s) {
        t->read_bps *= 1.05; // a speed that was measured at a bad moment is tried again one day
        return;
    }
    s->n_restore = i;
    r->seq = s;
    r->ticket = ++t->next_ticket;
    r->first = r->asked = s->n_shared;
    r->n_flight = r->n_ram = r->n_disk = 0;
    r->tps = t->prefill_tps;
    r->start_ns = r->last_ns = clock_ns();
    t->n_restores++;
    ask(t, r);
}

void tier_probe(const struct tier *t, const struct seq *s, uint32_t n_pages, uint32_t last,
                uint32_t *n_ram, uint32_t *n_disk)
{
    *n_ram = *n_disk = 0;
    if (t == NULL || (last != KV_NONE && !t->marks[last].known)) return;
    struct hash128 chain = last == KV_NONE ? (struct hash128){0} : t->marks[last].chain;
    for (uint32_t i = n_pages; i < seq_sharable(s); i++) {
        chain = tier_chain(t, chain, seq_page_salt(s, i), s->tokens + i * t->page_tokens);
        if (tier_find(t, chain) != SLOT_NONE)
            (*n_ram)++;
        else if (t->store != NULL && store_has(t->store, chain, false))
            (*n_disk)++;
        else
            return;
    }
}

static struct tier_restore *of_ticket(struct tier *t, uint32_t ticket)
{
    for (uint32_t i = 0; i < t->cfg.n_parallel; i++)
        if (t->restores[i].seq != NULL && t->restores[i].ticket == ticket) return &t->restores[i];
    return NULL;
}

void tier_arrived(struct tier *t, uint32_t slot)
{
    struct tier_slot *s = &t->slots[slot];
    if (tier_warm_arrived(t, slot)) return;
    struct tier_restore *r = of_ticket(t, s->ticket);
    const uint32_t page = s->page;
    s->page = KV_NONE;
    if (r != NULL) r->n_flight--;
    if (s->result != STORE_OK) {
        if (s->result == STORE_BAD)
            log_warn("cache", "a page on disk does not verify; it is computed again");
        if (r != NULL && s->i_page < r->seq->n_restore && s->i_page >= r->seq->n_shared)
            r->seq->n_restore = s->i_page;
        if (page != KV_NONE) kv_page_give(t->cfg.tree->pool, page);
        tier_slot_give(t, slot);
    } else if (page != KV_NONE) {
        if (r != NULL)
            r->arrived[s->i_page] = page;
        else
            kv_page_give(t->cfg.tree->pool, page);
        tier_slot_give(t, slot);
    } else if (r == NULL || tier_find(t, s->chain) != SLOT_NONE) {
        tier_slot_keep(t, slot);
    } else {
        s->state = SLOT_ARRIVED;
        tier_slot_list(t, slot);
    }
}

// ---- delivery -----------------------------------------------------------------------------------

enum delivery { DELIVERED, NOT_THERE, IMPOSSIBLE };

static enum delivery deliver_page(struct tier *t, struct tier_restore *r)
{
    struct err e = {0};
    const uint32_t i = r->seq->n_shared;
    const struct hash128 chain = r->chains[i];
    if (r->arrived[i] != KV_NONE) {
        seq_restored(r->seq, t->cfg.tree, r->arrived[i]);
        r->arrived[i] = KV_NONE;
        r->n_disk++;
        r->last_ns = clock_ns();
        return DELIVERED;
    }
    if (tier_find(t, chain) == SLOT_NONE) return NOT_THERE;
    const uint32_t page = tree_page_take(t->cfg.tree);
    if (page == KV_NONE) return IMPOSSIBLE;
    const uint32_t slot = tier_find(t, chain); // again: what was evicted may have taken its place
    if (slot == SLOT_NONE) {
        kv_page_give(t->cfg.tree->pool, page);
        return NOT_THERE;
    }
    struct tier_slot *from = &t->slots[slot];
    if (!t->cfg.io.write(t->cfg.io.arg, page, store_data(from->record, t->page_tokens), &e)) {
        log_warn("cache", "a page cannot be written to the device: %s", e.msg);
        kv_page_give(t->cfg.tree->pool, page);
        return IMPOSSIBLE;
    }
    const bool disk = from->state == SLOT_ARRIVED;
    *(disk ? &r->n_disk : &r->n_ram) += 1;
    seq_restored(r->seq, t->cfg.tree, page);
    if (disk) tier_slot_keep(t, slot);
    from->recent = true;
    r->last_ns = clock_ns();
    return DELIVERED;
}

// Loading goes slower than computing would, or does not go at all.
static bool is_hopeless(const struct tier *t, const struct tier_restore *r)
{
    const struct seq *s = r->seq;
    if (clock_ms_since(r->last_ns) > SILENCE_MS) return true;
    if (r->n_flight == 0 && r->asked >= s->n_restore) return true; // what came was given away
    const double spent_s = clock_ms_since(r->start_ns) / 1e3;
    const uint32_t n = r->n_disk + r->n_ram, left = s->n_restore - s->n_shared;
    if (r->tps <= 0 || spent_s * 1e3 < JUDGE_MS || n == 0) return false;
    return spent_s / n * left > left * t->page_tokens / r->tps;
}

static void serve(struct tier *t, struct tier_restore *r, double budget_ms)
{
    const uint64_t start = clock_ns();
    enum delivery d = DELIVERED;
    while (d == DELIVERED && tier_holds(r->seq) && clock_ms_since(start) < budget_ms) {
        d = deliver_page(t, r);
        if (d == DELIVERED) ask(t, r);
    }
    const bool in_time = clock_ms_since(start) < budget_ms;
    ask(t, r);
    if (d == IMPOSSIBLE || !tier_holds(r->seq) || (in_time && is_hopeless(t, r))) end_restore(t, r);
}

void tier_deliver(struct tier *t, bool busy)
{
    for (uint32_t i = 0; t->n_restores > 0 && i < t->cfg.n_parallel; i++)
        if (t->restores[i].seq != NULL) serve(t, &t->restores[i], busy ? BUSY_MS : 10 * BUSY_MS);
}

int tier_timeout_ms(const struct tier *t)
{
    if (t == NULL) return -1;
    if (tier_warm_ready(t)) return 0;
    int ms = -1;
    for (uint32_t i = 0; t->n_restores > 0 && i < t->cfg.n_parallel; i++) {
        const struct tier_restore *r = &t->restores[i];
        if (r->seq == NULL) continue;
        const uint32_t i_next = r->seq->n_shared;
        if (r->arrived[i_next] != KV_NONE || tier_find(t, r->chains[i_next]) != SLOT_NONE)
            return 0; // goes on at once
        const double left = SILENCE_MS + 1 - clock_ms_since(r->last_ns);
        if (ms < 0 || left < ms) ms = left > 0 ? (int)left : 0;
    }
    const bool can_save = t->ring_n > 0 && (t->store != NULL || tier_keeps(t));
    if (!can_save || t->n_writing + 2 >= t->n_staging || t->load == TIER_URGENT) return ms;
    const int pause_ms = t->load == TIER_IDLE ? 0 : SAVE_PAUSE_MS; // credit comes with time
    return ms < 0 || pause_ms < ms ? pause_ms : ms;
}
