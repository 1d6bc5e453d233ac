// On the way up: a sequence that runs is held while pages that continue its text are read, verified and
// brought to the device by the tier's threads, many at once. The engine thread takes a page of the device
// for each, and puts those that came into the tree in the order of the text.
//
// Loading has to be quicker than computing. It is begun unless it was surely slower the last times, each
// source with a speed of its own; then it is judged by its own pace: as soon as what is left would take
// longer to come than to compute, what came is kept and the rest computed. So a restore loses no more
// than the first look at it. A page that is missing or bad, and silence, end it too: a sequence is held
// for a bounded time, whatever the disk does.
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/tier.h"

enum { SILENCE_MS = 2000, LOOK_MS = 10, SAVE_PAUSE_MS = 20, SAMPLES = 4, SURELY = 2 };

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

// What arrived and nobody waits for any more.
static void release_arrived(struct tier *t, struct tier_restore *r)
{
    for (uint32_t i = r->first; i < r->asked; i++) {
        const uint32_t page = r->arrivals[i].page;
        if (page != KV_NONE) kv_page_give(t->cfg.tree->pool, page);
        r->arrivals[i].page = KV_NONE;
    }
}

// What this restore says about its source: more, the longer it was.
static void learn_speed(struct tier *t, const struct tier_restore *r, double spent_s)
{
    enum { FEW = 4, MANY = 64 };
    if (spent_s <= 0 || r->n_came < FEW) return;
    const double bps = r->n_came * (double)t->record_stride / spent_s;
    const double weight = r->n_came >= MANY ? 0.5 : 0.5 * r->n_came / MANY;
    double *known = &t->bps[r->from];
    *known = *known > 0 ? *known + weight * (bps - *known) : bps;
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
    learn_speed(t, r, spent_s);
    t->figures.restores++;
    t->figures.ram_tokens += (uint64_t)r->n_ram * t->page_tokens;
    t->figures.disk_tokens += (uint64_t)r->n_disk * t->page_tokens;
    t->figures.restore_seconds += spent_s;
    log_debug("cache", "restored disk_pages=%u ram_pages=%u ms=%.1f gbps=%.2f", r->n_disk, r->n_ram,
              spent_s * 1e3, t->bps[r->from] / 1e9);
    r->seq = NULL;
    t->n_restores--;
}

void tier_forget(struct tier *t, struct seq *s)
{
    struct tier_restore *r = t == NULL ? NULL : restore_of(t, s);
    if (r != NULL) end_restore(t, r);
}

// ---- asking --------------------------------------------------------------------------------------

// From disk, into a slot that is free for it. False where it has to wait.
static bool read_up(struct tier *t, struct tier_restore *r, uint32_t i, uint32_t page)
{
    const struct seq *s = r->seq;
    const uint32_t slot = tier_slot_take(t);
    if (slot == SLOT_NONE) return false;
    struct tier_slot *to = &t->slots[slot];
    to->chain = r->chains[i];
    to->parent = i == r->first ? chain_before(t, s, i) : r->chains[i - 1];
    to->ticket = r->ticket;
    to->i_page = i;
    to->page = page;
    memcpy(to->ids, s->tokens + i * t->page_tokens, t->page_tokens * sizeof(int32_t));
    tier_submit(t, slot, SLOT_READ);
    return true;
}

// From host memory, where nothing else is being done with it.
static bool send_up(struct tier *t, struct tier_restore *r, uint32_t i, uint32_t slot,
                    uint32_t page)
{
    struct tier_slot *from = &t->slots[slot];
    if (from->state != SLOT_KEPT) return false;
    from->recent = true;
    from->ticket = r->ticket;
    from->i_page = i;
    from->page = page;
    tier_submit(t, slot, SLOT_SEND);
    return true;
}

static bool ask_for(struct tier *t, struct tier_restore *r, uint32_t i)
{
    uint32_t slot = tier_find(t, r->chains[i]);
    if (slot != SLOT_NONE && t->slots[slot].state != SLOT_KEPT) return false; // a moment
    const uint32_t page = tree_page_take(t->cfg.tree);
    if (page == KV_NONE) return false;
    slot = tier_find(t, r->chains[i]); // again: what was evicted may have taken its place
    const bool ram = slot != SLOT_NONE;
    if (!(ram ? send_up(t, r, i, slot, page) : read_up(t, r, i, page))) {
        kv_page_give(t->cfg.tree->pool, page);
        return false;
    }
    r->arrivals[i] = (struct tier_arrival){.page = KV_NONE, .ram = ram};
    r->n_flight++;
    return true;
}

static void ask(struct tier *t, struct tier_restore *r)
{
    // Pages of others were joined, also behind those that were looked for: nothing arrives for them.
    for (; r->asked < r->seq->n_shared; r->asked++) r->arrivals[r->asked].page = KV_NONE;
    for (; r->asked < r->seq->n_restore && r->n_flight < 2 * t->n_threads; r->asked++) {
        const bool gone = t->store == NULL && tier_find(t, r->chains[r->asked]) == SLOT_NONE;
        if (gone) r->seq->n_restore = r->asked; // it was in host memory only
        if (gone || !ask_for(t, r, r->asked)) return;
    }
}

// ---- the choice ---------------------------------------------------------------------------------

struct lower {
    uint32_t n[TIER_SOURCES];
};

// Where files are is seen from some of the pages.
static void tell_near_from_far(const struct tier *t, const struct tier_restore *r, uint32_t first,
                               uint32_t n, struct lower *l)
{
    const uint32_t n_disk = n - l->n[FROM_RAM];
    uint32_t n_near = 0, n_seen = 0;
    for (uint32_t k = 0; n_disk > 0 && k < SAMPLES; k++) {
        const struct hash128 chain = r->chains[first + (uint64_t)n * k / SAMPLES];
        if (t->store == NULL || tier_find(t, chain) != SLOT_NONE) continue;
        n_seen++;
        if (store_near(t->store, chain)) n_near++;
    }
    l->n[FROM_NEAR] = n_seen == 0 ? n_disk : (uint32_t)((uint64_t)n_disk * n_near / n_seen);
    l->n[FROM_FAR] = n_disk - l->n[FROM_NEAR];
}

// Seconds that loading takes, as far as that is known.
static double load_s(const struct tier *t, const struct lower *l)
{
    double s = 0;
    for (int i = 0; i < TIER_SOURCES; i++)
        if (t->bps[i] > 0) s += l->n[i] * (double)t->record_stride / t->bps[i];
    return s;
}

static enum tier_source most_of(const struct lower *l)
{
    enum tier_source most = FROM_RAM;
    for (enum tier_source i = FROM_RAM; i < TIER_SOURCES; i++)
        if (l->n[i] > l->n[most]) most = i;
    return most;
}

// How many pages the lower tiers hold behind those that s shares; their hashes are in r.
static uint32_t look_below(const struct tier *t, const struct seq *s, struct tier_restore *r,
                           struct lower *l)
{
    const uint32_t last = seq_sharable(s);
    uint32_t i = s->n_shared;
    struct hash128 chain = chain_before(t, s, i);
    *l = (struct lower){0};
    for (; i < last; i++) {
        chain = tier_chain(t, chain, seq_page_salt(s, i), s->tokens + i * t->page_tokens);
        if (!is_below(t, chain)) break;
        if (tier_find(t, chain) != SLOT_NONE) l->n[FROM_RAM]++;
        r->chains[i] = chain;
        r->arrivals[i].page = KV_NONE;
    }
    const uint32_t n = i - s->n_shared;
    tell_near_from_far(t, r, s->n_shared, n, l);
    return n;
}

void tier_seek(struct tier *t, struct seq *s)
{
    if (t == NULL || (t->store == NULL && !tier_keeps(t))) return;
    struct tier_restore *r = free_restore(t);
    struct lower l;
    assert(s->n_restore == 0 && s->n_pages == s->n_shared);
    count_uses(t, s);
    const uint32_t n = r == NULL ? 0 : look_below(t, s, r, &l);
    if (n == 0) return;
    r->from = most_of(&l);
    const double compute_s = t->prefill_tps > 0 ? n * t->page_tokens / t->prefill_tps : 1e9;
    if (load_s(t, &l) > SURELY * compute_s) {
        t->bps[r->from] *= r->from == FROM_FAR ? 1.05 : 2; // a bad moment's speed is tried again
        log_debug("cache", "computing is quicker pages=%u load_s=%.3f compute_s=%.3f", n,
                  load_s(t, &l), compute_s);
        return;
    }
    s->n_restore = s->n_shared + n;
    r->seq = s;
    r->ticket = ++t->next_ticket;
    r->first = r->asked = s->n_shared;
    r->n_flight = r->n_came = r->n_ram = r->n_disk = 0;
    r->tps = t->prefill_tps;
    r->start_ns = r->last_ns = clock_ns();
    t->n_restores++;
}

void tier_ask(struct tier *t)
{
    for (uint32_t i = 0; t != NULL && t->n_restores > 0 && i < t->cfg.n_parallel; i++)
        if (t->restores[i].seq != NULL) ask(t, &t->restores[i]);
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
    uint32_t page = s->page;
    s->page = KV_NONE;
    if (s->result == STORE_BAD)
        log_warn("cache", "a page on disk does not verify; it is computed again");
    if (r != NULL) {
        r->n_flight--;
        r->last_ns = clock_ns();
    }
    if (r != NULL && s->result == STORE_OK) {
        if (r->n_came++ == 0) r->first_ms = clock_ms_since(r->start_ns);
        r->arrivals[s->i_page].page = page;
        page = KV_NONE;
    } else if (r != NULL && s->i_page < r->seq->n_restore && s->i_page >= r->seq->n_shared) {
        r->seq->n_restore = s->i_page;
    }
    if (page != KV_NONE) kv_page_give(t->cfg.tree->pool, page);
    if (s->state == SLOT_SEND)
        tier_slot_keep(t, slot);
    else
        tier_slot_give(t, slot);
}

// ---- delivery -----------------------------------------------------------------------------------

static void deliver(struct tier *t, struct tier_restore *r)
{
    while (tier_holds(r->seq)) {
        struct tier_arrival *a = &r->arrivals[r->seq->n_shared];
        if (a->page == KV_NONE) return;
        *(a->ram ? &r->n_ram : &r->n_disk) += 1;
        const uint32_t page = a->page;
        a->page = KV_NONE;
        seq_restored(r->seq, t->cfg.tree, page);
    }
}

bool tier_restore_loses(const struct restore_pace *p)
{
    const double all_s = p->n * p->page_s;
    if (p->page_s <= 0 || p->spent_s < p->look_s) return false;
    if (p->came == 0) return p->spent_s > p->look_s + all_s / 10; // the first page takes longest
    const uint32_t could = p->came + p->flight; // as if all that is under way were there now
    if (could >= p->n) return false;
    const double each_s = (p->spent_s - p->first_s) / could;
    return each_s * (p->n - could) > p->left * p->page_s;
}

// Loading goes slower than computing would, or does not go at all.
static bool is_hopeless(const struct tier *t, const struct tier_restore *r)
{
    const struct seq *s = r->seq;
    if (clock_ms_since(r->last_ns) > SILENCE_MS) return true;
    if (r->n_flight == 0 && r->asked >= s->n_restore) return true; // what came was given away
    if (r->tps <= 0 || t->cfg.judge_ms == 0) return false;
    const struct restore_pace pace = {
        .spent_s = clock_ms_since(r->start_ns) / 1e3,
        .first_s = r->first_ms / 1e3,
        .look_s = t->cfg.judge_ms / 1e3,
        .page_s = t->page_tokens / r->tps,
        .n = s->n_restore - r->first,
        .left = s->n_restore - s->n_shared,
        .came = r->n_came,
        .flight = r->n_flight < t->n_threads ? r->n_flight : t->n_threads,
    };
    return tier_restore_loses(&pace);
}

// Not worth waiting for: the next time that is known.
static void give_up(struct tier *t, struct tier_restore *r)
{
    const double spent_s = clock_ms_since(r->start_ns) / 1e3;
    log_debug("cache", "computing is quicker than to go on loading pages=%u ms=%.1f", r->n_came,
              spent_s * 1e3);
    const double most = (r->n_came + t->n_threads) * (double)t->record_stride / spent_s;
    if (t->bps[r->from] == 0 || t->bps[r->from] > most) t->bps[r->from] = most;
    end_restore(t, r);
}

static void serve(struct tier *t, struct tier_restore *r)
{
    deliver(t, r);
    ask(t, r);
    if (!tier_holds(r->seq))
        end_restore(t, r);
    else if (is_hopeless(t, r))
        give_up(t, r);
}

void tier_deliver(struct tier *t)
{
    for (uint32_t i = 0; t->n_restores > 0 && i < t->cfg.n_parallel; i++)
        if (t->restores[i].seq != NULL) serve(t, &t->restores[i]);
}

int tier_timeout_ms(const struct tier *t)
{
    if (t == NULL) return -1;
    if (tier_warm_ready(t)) return 0;
    int ms = -1;
    for (uint32_t i = 0; t->n_restores > 0 && i < t->cfg.n_parallel; i++) {
        const struct tier_restore *r = &t->restores[i];
        if (r->seq == NULL) continue;
        const double left = SILENCE_MS + 1 - clock_ms_since(r->last_ns);
        const int look_ms = r->n_came < t->n_threads ? LOOK_MS : left > 0 ? (int)left : 0;
        if (ms < 0 || look_ms < ms) ms = look_ms;
    }
    const bool can_save = t->ring_n > 0 && (t->store != NULL || tier_keeps(t));
    if (!can_save || t->n_writing >= t->n_writes_max || t->load == TIER_URGENT) return ms;
    const int pause_ms = t->load == TIER_IDLE ? 0 : SAVE_PAUSE_MS; // credit comes with time
    return ms < 0 || pause_ms < ms ? pause_ms : ms;
}
