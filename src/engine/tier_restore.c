// On the way up: while pages that continue a sequence's text are read, verified and brought to the device by the
// tier's threads, many at once, the sequence computes what stands before them, and is held when it has. The engine
// thread takes a page of the device for each, and puts those that came into the tree in the order of the text.
//
// Which pages come and which are computed is chosen before anything is read (tier_choice.h), from what each source's
// speed was and where the pages are: in host memory, in files that the system has in memory, or on the disk. Should
// they come slower than they did before, they are judged by their own pace: as soon as what is left would take
// longer to come than to compute, what came is kept and the rest computed. A page that is missing or bad, and
// silence, end a restore too: a sequence is held for a bounded time, whatever the disk does.
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/tier.h"
#include "engine/tier_choice.h"

// LOOK_MS: how long the engine sleeps while pages come, to put them into the tree and to judge how they come.
enum { SILENCE_MS = 2000, LOOK_MS = 5, SAVE_PAUSE_MS = 20, NEAR_MAX = 256 };
// Until one was seen, bytes a second. From memory: as to a GPU, for whose devices are slower computes slower, too; a
// slow guess would have the first restart compute what it could load.
static const double guessed_bps[TIER_SOURCES] = {2.4e10, 2.4e10, 5e8};

// The hash of the path that ends with the sequence's page before i.
static struct hash128 chain_before(const struct tier *t, const struct seq *s, uint32_t i)
{
    return i == 0 ? (struct hash128){0} : t->marks[s->pages[i - 1]].chain;
}

// The sequence uses page i: that keeps it on disk, too.
static bool use_on_disk(const struct tier *t, const struct seq *s, uint32_t i, struct hash128 chain)
{
    const double worth = tree_use_worth(t->cfg.tree, i, s->hint.priority);
    return t->store != NULL && store_use(t->store, chain, worth);
}

// Their copies on disk are in use too, though nobody reads them.
static void count_uses(const struct tier *t, const struct seq *s)
{
    for (uint32_t i = 0; i < s->n_shared; i++) use_on_disk(t, s, i, t->marks[s->pages[i]].chain);
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
    if (r->alike.page != KV_NONE) kv_page_give(t->cfg.tree->pool, r->alike.page);
    r->alike.page = KV_NONE;
}

// What this restore says about the source of most of it: more, the longer it was.
static void learn_speed(struct tier *t, const struct tier_restore *r)
{
    enum { FEW = 4, MANY = 64 };
    const double all_s = r->n_came == 0 ? 0 : (double)(r->done_ns - r->start_ns) / 1e9;
    const double spent_s = all_s > 2 * r->other_s ? all_s - r->other_s : all_s / 2;
    if (spent_s <= 0 || r->n_came < FEW) return;
    uint32_t n = 0;
    for (uint32_t i = r->first; i < r->asked; i++)
        if (r->sources[i] == r->from) n++;
    if (n > r->n_came) n = r->n_came; // the rest was never there
    const double bps = n * (double)t->record_stride / spent_s;
    const double weight = n >= MANY ? 0.5 : 0.5 * n / MANY;
    double *known = &t->bps[r->from];
    *known = *known > 0 ? *known + weight * (bps - *known) : bps;
}

static void end_restore(struct tier *t, struct tier_restore *r)
{
    struct seq *s = r->seq;
    const double spent_s = clock_ms_since(r->start_ns) / 1e3;
    tier_cancel(t, r->ticket);
    release_arrived(t, r);
    s->n_restore = s->restore_from = 0;
    s->restore_alike = false;
    s->report.n_ram += r->n_ram * t->page_tokens;
    s->report.n_disk += r->n_disk * t->page_tokens;
    s->report.restored_ms += spent_s * 1e3;
    learn_speed(t, r);
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

void tier_copied(struct tier *t, struct seq *s, uint32_t from, uint32_t n)
{
    if (t == NULL || from != s->alike_page) return;
    s->alike_page = KV_NONE;
    s->report.n_disk += n;
    t->figures.disk_tokens += n;
}

// ---- asking --------------------------------------------------------------------------------------

// From disk, into a slot that is free for it. SLOT_NONE where it has to wait.
static uint32_t read_up(struct tier *t, struct tier_restore *r, uint32_t i, uint32_t page)
{
    const struct seq *s = r->seq;
    const uint32_t slot = tier_read_slot_take(t);
    if (slot == SLOT_NONE) return SLOT_NONE;
    struct tier_slot *to = &t->slots[slot];
    to->i_call = (uint32_t)(r - t->restores);
    to->chain = r->chains[i];
    to->parent = i == r->base ? chain_before(t, s, i) : r->chains[i - 1];
    to->ticket = r->ticket;
    to->i_page = i;
    to->page = page;
    to->far = r->sources[i] == FROM_FAR;
    memcpy(to->ids, s->tokens + i * t->page_tokens, t->page_tokens * sizeof(int32_t));
    tier_submit(t, slot, SLOT_READ);
    return slot;
}

// From host memory, where nothing else is being done with it.
static uint32_t send_up(struct tier *t, struct tier_restore *r, uint32_t i, uint32_t slot,
                        uint32_t page)
{
    struct tier_slot *from = &t->slots[slot];
    if (from->state != SLOT_KEPT) return SLOT_NONE;
    from->i_call = (uint32_t)(r - t->restores);
    from->recent = true;
    from->ticket = r->ticket;
    from->i_page = i;
    from->page = page;
    tier_submit(t, slot, SLOT_SEND);
    return slot;
}

static bool ask_for(struct tier *t, struct tier_restore *r, uint32_t i)
{
    uint32_t slot = tier_find(t, r->chains[i]);
    if (slot != SLOT_NONE && t->slots[slot].state != SLOT_KEPT) return false; // a moment
    const uint32_t page = tree_page_take(t->cfg.tree);
    if (page == KV_NONE) return false;
    slot = tier_find(t, r->chains[i]); // again: what was evicted may have taken its place
    const bool ram = slot != SLOT_NONE;
    slot = ram ? send_up(t, r, i, slot, page) : read_up(t, r, i, page);
    if (slot == SLOT_NONE) {
        kv_page_give(t->cfg.tree->pool, page);
        return false;
    }
    r->arrivals[i] = (struct tier_arrival){.page = KV_NONE, .slot = slot, .ram = ram};
    r->n_flight++;
    return true;
}

static void ask_alike(struct tier *t, struct tier_restore *r)
{
    struct tier_alike *a = &r->alike;
    const struct seq *s = r->seq;
    const uint32_t slot = tier_read_slot_take(t);
    const uint32_t page = slot == SLOT_NONE ? KV_NONE : tree_page_take(t->cfg.tree);
    if (page == KV_NONE) {
        if (slot != SLOT_NONE) tier_slot_give(t, slot);
        return;
    }
    struct tier_slot *to = &t->slots[slot];
    to->chain = a->chain;
    to->parent = a->i_page == r->base ? chain_before(t, s, a->i_page) : r->chains[a->i_page - 1];
    to->ticket = r->ticket;
    to->i_page = a->i_page;
    to->i_call = (uint32_t)(r - t->restores);
    to->page = page;
    to->any_ids = a->asked = true;
    r->n_flight++;
    tier_submit(t, slot, SLOT_READ);
}

static void ask_all(struct tier *t, struct tier_restore *r)
{
    // Pages of others were joined, also behind those that were looked for: nothing arrives for them.
    for (; r->asked < r->seq->n_shared; r->asked++)
        r->arrivals[r->asked] = (struct tier_arrival){.page = KV_NONE, .slot = SLOT_NONE};
    const uint32_t most = t->n_heads > 0 ? t->n_heads : 2 * t->n_threads;
    for (; r->asked < r->seq->n_restore && r->n_flight < most; r->asked++) {
        const bool gone = t->store == NULL && tier_find(t, r->chains[r->asked]) == SLOT_NONE;
        if (gone) { // it was in host memory only
            r->seq->n_restore = r->asked;
            r->seq->restore_alike = false;
        }
        if (gone || !ask_for(t, r, r->asked)) return;
    }
    if (r->seq->restore_alike && !r->alike.asked && r->n_flight < most) ask_alike(t, r);
}

// Called when all that was asked for is there, or where more is to be asked for, in time for the threads to go on.
static void ask(struct tier *t, struct tier_restore *r)
{
    ask_all(t, r);
    const bool more = r->asked < r->seq->n_restore || (r->seq->restore_alike && !r->alike.asked);
    tier_call_at(t, (uint32_t)(r - t->restores), more ? t->n_threads : 0);
}

// ---- the choice ---------------------------------------------------------------------------------

static double speed_of(const struct tier *t, enum tier_source from)
{
    return t->bps[from] > 0 ? t->bps[from] : guessed_bps[from];
}

// How many pages the lower tiers hold behind those that s shares; their hashes and where they are is in r then.
static uint32_t look_below(const struct tier *t, const struct seq *s, struct tier_restore *r)
{
    const uint32_t last = seq_sharable(s);
    uint32_t i = s->n_shared;
    struct hash128 chain = chain_before(t, s, i);
    for (; i < last; i++) {
        chain = tier_chain(t, chain, seq_page_salt(s, i), s->tokens + i * t->page_tokens);
        const bool ram = tier_find(t, chain) != SLOT_NONE;
        if (!use_on_disk(t, s, i, chain) && !ram) break;
        r->sources[i] = ram ? FROM_RAM : FROM_FAR;
        r->chains[i] = chain;
        r->arrivals[i].page = KV_NONE;
    }
    return i - s->n_shared;
}

// Files that the system has in memory are as good as memory.
static void tell_near_from_far(const struct tier *t, struct tier_restore *r, uint32_t n)
{
    bool near[NEAR_MAX];
    for (uint32_t k = 0; t->store != NULL && k < n; k += NEAR_MAX) {
        const uint32_t some = n - k < NEAR_MAX ? n - k : NEAR_MAX;
        store_near(t->store, r->chains + r->base + k, some, near);
        for (uint32_t i = 0; i < some; i++) {
            enum tier_source *source = &r->sources[r->base + k + i];
            if (*source == FROM_FAR && near[i]) *source = FROM_NEAR;
        }
    }
}

// The source of most of its pages, and what the others should take.
static void note_sources(const struct tier *t, struct tier_restore *r, uint32_t end)
{
    uint32_t n[TIER_SOURCES] = {0};
    r->from = FROM_RAM;
    r->other_s = 0;
    for (uint32_t i = r->first; i < end; i++) n[r->sources[i]]++;
    for (enum tier_source k = FROM_RAM; k < TIER_SOURCES; k++)
        if (n[k] > n[r->from]) r->from = k;
    for (enum tier_source k = FROM_RAM; k < TIER_SOURCES; k++)
        if (k != r->from) r->other_s += n[k] * (double)t->record_stride / speed_of(t, k);
}

static struct tier_choice choose(const struct tier *t, const struct tier_restore *r, uint32_t n)
{
    const double page_s = t->prefill_tps > 0 ? t->page_tokens / t->prefill_tps : 1e9;
    bool far = false;
    for (uint32_t i = r->base; i < r->base + n; i++) {
        const bool here = r->sources[i] == FROM_FAR;
        r->load_s[i] =
            (double)t->record_stride / speed_of(t, r->sources[i]) * (here ? TIER_FAR_DOUBT : 1);
        far |= here;
    }
    const struct tier_choice c =
        tier_choose(r->load_s + r->base, n, page_s, far ? TIER_FAR_COST_S : 0);
    log_debug("cache", "below pages=%u first=%u end=%u choice_s=%.3f compute_s=%.3f", n, c.first,
              c.end, c.seconds, n * page_s);
    return c;
}

// The page on disk that begins most like the text goes on behind its first i pages, the last of them `parent`. False where
// that is too little for a copy.
static bool begins_alike(const struct tier *t, const struct seq *s, uint32_t i,
                         struct hash128 parent, struct store_entry *out)
{
    const uint32_t n_have = i * t->page_tokens, left = s->n_tokens - 1 - n_have;
    const uint32_t n = left < t->page_tokens ? left : t->page_tokens;
    if (n < seq_copy_least(t->page_tokens)) return false;
    const uint32_t marks = store_marks(s->tokens + n_have, n);
    return store_child(t->store, parent, seq_page_salt(s, i), marks, out) &&
           store_marks_alike(out->marks, marks) >= seq_copy_least(t->page_tokens);
}

// Of the text behind all whole pages that are here or come: a page on disk that begins like it, where to load it is
// quicker than to compute what they have in common.
static bool find_alike(const struct tier *t, const struct seq *s, struct tier_restore *r,
                       uint32_t i)
{
    struct store_entry found;
    uint32_t n_at_hand = 0;
    bool near;
    if (i == 0 || t->store == NULL || tier_encodes(t)) return false;
    const struct hash128 parent = i == r->base ? chain_before(t, s, i) : r->chains[i - 1];
    if (!begins_alike(t, s, i, parent, &found)) return false;
    const uint32_t left = s->n_tokens - 1 - i * t->page_tokens;
    const uint32_t n_same =
        store_marks_alike(found.marks, store_marks(s->tokens + i * t->page_tokens, left));
    if (i == r->base) { // the tree may have one that is as good
        const struct tree_ref ref = seq_page_ref(s, i, s->pages[i - 1]);
        tree_nearest(t->cfg.tree, &ref, left, &n_at_hand);
    }
    store_near(t->store, &found.key, 1, &near);
    const double load_s = (double)t->record_stride / speed_of(t, near ? FROM_NEAR : FROM_FAR);
    const double compute_s = t->prefill_tps > 0 ? n_same / t->prefill_tps : 1e9;
    if (n_at_hand >= n_same || load_s > compute_s) return false;
    use_on_disk(t, s, i, found.key);
    r->alike.chain = found.key;
    r->alike.i_page = i;
    return true;
}

void tier_seek(struct tier *t, struct seq *s)
{
    if (t == NULL || (t->store == NULL && !tier_keeps(t))) return;
    struct tier_restore *r = free_restore(t);
    assert(s->n_restore == 0 && s->n_pages == s->n_shared);
    count_uses(t, s);
    if (r == NULL) return;
    const uint64_t start = clock_ns();
    r->base = s->n_shared;
    const uint32_t n = look_below(t, s, r);
    struct tier_choice c = {0};
    if (n > 0) tell_near_from_far(t, r, n);
    if (n > 0) c = choose(t, r, n);
    r->first = r->asked = r->base + c.first;
    note_sources(t, r, c.first == c.end ? r->base + n : r->base + c.end);
    s->restore_alike = c.end == n && find_alike(t, s, r, r->base + n);
    r->alike.asked = r->alike.came = false;
    r->alike.page = KV_NONE;
    if (n == 0 && !s->restore_alike) return;
    if (n > 0 && c.first == c.end) { // a bad moment's speed is tried again
        t->bps[r->from] = speed_of(t, r->from) * (r->from == FROM_FAR ? 1.05 : 2);
        return;
    }
    s->restore_from = r->first;
    s->n_restore = r->base + c.end;
    r->seq = s;
    r->ticket = ++t->next_ticket;
    r->n_flight = r->n_came = r->n_ram = r->n_disk = 0;
    r->tps = t->prefill_tps;
    r->start_ns = r->last_ns = start;
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
        else if (t->store != NULL && store_has(t->store, chain))
            (*n_disk)++;
        else
            return;
    }
}

bool tier_probe_alike(const struct tier *t, const struct seq *s, uint32_t n_pages, uint32_t last,
                      struct hash128 *key)
{
    uint32_t n_ram, n_disk;
    struct store_entry found;
    tier_probe(t, s, n_pages, last, &n_ram, &n_disk);
    const uint32_t end = n_pages + n_ram + n_disk;
    if (t == NULL || t->store == NULL || end == 0 || tier_encodes(t)) return false;
    if (last != KV_NONE && !t->marks[last].known) return false;
    struct hash128 chain = last == KV_NONE ? (struct hash128){0} : t->marks[last].chain;
    for (uint32_t i = n_pages; i < end; i++)
        chain = tier_chain(t, chain, seq_page_salt(s, i), s->tokens + i * t->page_tokens);
    if (!begins_alike(t, s, end, chain, &found)) return false;
    *key = found.key;
    return true;
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
        if (!s->any_ids) r->arrivals[s->i_page].slot = SLOT_NONE;
    }
    if (r != NULL && s->any_ids) {
        r->alike.came = true;
        if (s->result == STORE_OK) {
            memcpy(r->alike.ids, store_ids(s->record), t->page_tokens * sizeof(int32_t));
            r->alike.page = page;
            page = KV_NONE;
        }
    } else if (r != NULL && s->result == STORE_OK) {
        const double first_ms = (double)(s->first_ns - r->start_ns) / 1e6;
        if (r->n_came++ == 0 || first_ms < r->first_ms) r->first_ms = first_ms;
        if (r->n_came == 1 || s->done_ns > r->done_ns) r->done_ns = s->done_ns;
        r->arrivals[s->i_page].page = page;
        page = KV_NONE;
    } else if (r != NULL && s->i_page < r->seq->n_restore && s->i_page >= r->seq->n_shared) {
        r->seq->n_restore = s->i_page;
        r->seq->restore_alike = false;
    }
    if (page != KV_NONE) kv_page_give(t->cfg.tree->pool, page);
    if (s->state == SLOT_SEND)
        tier_slot_keep(t, slot);
    else
        tier_slot_give(t, slot);
}

// ---- delivery -----------------------------------------------------------------------------------

// Puts the page into the tree behind what the sequence has now. Its record is taken at its own word about its tokens: so
// its key is computed again from them.
static void deliver_alike(struct tier *t, struct tier_restore *r)
{
    struct seq *s = r->seq;
    struct tier_alike *a = &r->alike;
    const bool in_place = s->n_shared == a->i_page && s->n_pages == s->n_shared;
    if (!a->came && in_place) return;
    s->restore_alike = false;
    if (a->page == KV_NONE || !in_place) return; // what came is given back in the end
    const struct hash128 salt = seq_page_salt(s, a->i_page);
    const struct hash128 chain = tier_chain(t, chain_before(t, s, a->i_page), salt, a->ids);
    if (chain.lo != a->chain.lo || chain.hi != a->chain.hi) return;
    const uint32_t page =
        tree_publish_after(t->cfg.tree, s->pages[a->i_page - 1], salt, a->ids, a->page);
    a->page = KV_NONE;
    s->alike_page = page;
    tree_unpin(t->cfg.tree, page, NULL);
}

static void deliver(struct tier *t, struct tier_restore *r)
{
    while (tier_holds(r->seq) && r->seq->n_shared < r->seq->n_restore) {
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
    if (p->came <= 0) return p->spent_s > p->look_s + all_s / 20; // the first page takes longest
    const double since = p->came - p->first < 0.5 ? 0.5 : p->came - p->first;
    return (p->spent_s - p->first_s) / since * (p->n - p->came) > p->left * p->page_s;
}

// Pages that came and the parts of those that are on their way.
static double moved_pages(const struct tier *t, const struct tier_restore *r)
{
    size_t bytes = 0;
    for (uint32_t i = r->first; i < r->asked; i++) {
        const uint32_t slot = r->arrivals[i].slot;
        if (slot == SLOT_NONE) continue;
        bytes += atomic_load_explicit(&t->slots[slot].moved, memory_order_relaxed);
    }
    return r->n_came + (double)bytes / (double)t->cfg.code.page_bytes;
}

// Loading goes slower than computing would, or does not go at all.
static bool is_hopeless(const struct tier *t, const struct tier_restore *r)
{
    const struct seq *s = r->seq;
    if (clock_ms_since(r->last_ns) > SILENCE_MS) return true;
    if (r->n_flight == 0 && r->asked >= s->n_restore) return true; // what came was given away
    if (r->tps <= 0 || t->cfg.judge_ms == 0) return false;
    const double piece = (double)STORE_PIECE_BYTES / (double)t->cfg.code.page_bytes;
    const bool begun = r->n_came > 0; // else when that was is not known yet
    const struct restore_pace pace = {
        .spent_s = clock_ms_since(r->start_ns) / 1e3,
        .first_s = begun ? r->first_ms / 1e3 : 0,
        .look_s = t->cfg.judge_ms / 1e3,
        .page_s = t->page_tokens / r->tps,
        .came = moved_pages(t, r),
        .first = !begun      ? 0
                 : piece < 1 ? piece
                             : 1,
        .n = s->n_restore - r->first,
        .left = s->n_restore - s->n_shared,
    };
    return tier_restore_loses(&pace);
}

// Not worth waiting for: the next time that is known.
static void give_up(struct tier *t, struct tier_restore *r)
{
    const double spent_s = clock_ms_since(r->start_ns) / 1e3;
    log_debug("cache", "computing is quicker than to go on loading pages=%u ms=%.1f", r->n_came,
              spent_s * 1e3);
    const double most = (moved_pages(t, r) + 1) * (double)t->record_stride / spent_s;
    if (t->bps[r->from] == 0 || t->bps[r->from] > most) t->bps[r->from] = most;
    end_restore(t, r);
}

// All whole pages are there; the one that begins alike is not worth a long wait.
static bool is_alike_late(const struct tier *t, const struct tier_restore *r)
{
    const struct seq *s = r->seq;
    if (!s->restore_alike || s->n_shared < s->n_restore) return false;
    return !r->alike.asked || (t->cfg.judge_ms > 0 && clock_ms_since(r->last_ns) > t->cfg.judge_ms);
}

static void serve(struct tier *t, struct tier_restore *r)
{
    const struct seq *s = r->seq;
    deliver(t, r);
    ask(t, r);
    if (s->restore_alike && s->n_shared >= s->n_restore) deliver_alike(t, r);
    if (!tier_brings(s) || is_alike_late(t, r))
        end_restore(t, r);
    else if (!tier_holds(s))
        r->last_ns = clock_ns();
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
        ms = LOOK_MS;
    }
    const bool can_save = t->ring_n > 0 && (t->store != NULL || tier_keeps(t));
    if (!can_save || t->n_writing >= t->n_writes_max || t->load == TIER_URGENT) return ms;
    const int pause_ms = t->load == TIER_IDLE ? 0 : SAVE_PAUSE_MS; // credit comes with time
    return ms < 0 || pause_ms < ms ? pause_ms : ms;
}
