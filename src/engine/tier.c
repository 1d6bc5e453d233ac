// Slots, the table of what is in host memory, and the threads that move bytes. Several threads: pages of
// one sequence are read, verified and brought to the device side by side, page by page by one thread, so
// that bytes are still in its core's cache when they are verified; writes to disk go one at a time,
// behind all reads.
//
// Invariants: a slot is in exactly one of free, the table (kept, being written or sent), a queue, or a
// thread's hands; only the engine thread touches free and table; a thread touches only the slot that
// it took from a queue.
#include "engine/tier.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/size.h"
#include "base/threads.h"

enum { WRITES_MIN = 4, WRITES_MAX = 62, TICK_S = 5, PROBE_MS = 25 };
#define WRITES_BYTES  ((uint64_t)64 << 20)
#define PREPARE_BYTES ((size_t)4 << 20)
#define HUGE_BYTES    ((size_t)2 << 20)
#define FAR_BYTES     ((uint64_t)32 << 20)

// ---- the table ----------------------------------------------------------------------------------

struct hash128 tier_chain(const struct tier *t, struct hash128 parent, struct hash128 salt,
                          const int32_t *tokens)
{
    const struct hash128 text = hash128(tokens, t->page_tokens * sizeof *tokens, 0);
    const struct hash128 all[3] = {parent, salt, text};
    return hash128(all, sizeof all, 0);
}

static uint32_t *bucket_of(const struct tier *t, struct hash128 chain)
{
    return &t->buckets[chain.lo & (t->n_buckets - 1)];
}

uint32_t tier_find(const struct tier *t, struct hash128 chain)
{
    for (uint32_t i = *bucket_of(t, chain); i != SLOT_NONE; i = t->slots[i].next)
        if (hash128_equal(t->slots[i].chain, chain)) return i;
    return SLOT_NONE;
}

void tier_slot_list(struct tier *t, uint32_t slot)
{
    struct tier_slot *s = &t->slots[slot];
    uint32_t *bucket = bucket_of(t, s->chain);
    assert(!s->in_table);
    s->next = *bucket;
    s->in_table = s->recent = true;
    *bucket = slot;
}

static void unlist(struct tier *t, uint32_t slot)
{
    struct tier_slot *s = &t->slots[slot];
    if (!s->in_table) return;
    uint32_t *link = bucket_of(t, s->chain);
    while (*link != slot) link = &t->slots[*link].next;
    *link = s->next;
    s->in_table = false;
}

// ---- slots --------------------------------------------------------------------------------------

void tier_slot_give(struct tier *t, uint32_t slot)
{
    struct tier_slot *s = &t->slots[slot];
    unlist(t, slot);
    if (s->state == SLOT_KEPT) t->n_kept--;
    if (s->raw != NULL) t->raw_free[t->n_raw_free++] = s->raw;
    s->raw = NULL;
    s->unwanted = s->any_ids = s->warm = s->far = false;
    s->state = SLOT_FREE;
    if (slot < t->n_slots)
        t->free[t->n_free++] = slot;
    else
        t->free_heads[t->n_free_heads++] = slot;
}

void tier_slot_keep(struct tier *t, uint32_t slot)
{
    struct tier_slot *s = &t->slots[slot];
    const uint32_t twin = s->in_table ? SLOT_NONE : tier_find(t, s->chain);
    if (!tier_keeps(t) || twin != SLOT_NONE || s->unwanted) {
        tier_slot_give(t, slot);
        return;
    }
    if (s->raw != NULL) t->raw_free[t->n_raw_free++] = s->raw;
    s->raw = NULL;
    if (!s->in_table) tier_slot_list(t, slot);
    if (s->state != SLOT_KEPT) t->n_kept++;
    s->state = SLOT_KEPT;
    s->recent = true;
}

// Second chance: a kept page that was used since the hand last passed is passed once more.
static uint32_t give_up_one(struct tier *t)
{
    if (t->n_kept == 0) return SLOT_NONE;
    for (;;) {
        const uint32_t slot = t->hand;
        struct tier_slot *s = &t->slots[slot];
        t->hand = (t->hand + 1) % t->n_slots;
        if (s->state != SLOT_KEPT) continue;
        if (!s->recent) return slot;
        s->recent = false;
    }
}

uint32_t tier_slot_take(struct tier *t)
{
    if (t->n_free == 0) {
        const uint32_t slot = give_up_one(t);
        if (slot == SLOT_NONE) return SLOT_NONE;
        tier_slot_give(t, slot);
    }
    t->slots[t->free[t->n_free - 1]].page = KV_NONE;
    return t->free[--t->n_free];
}

uint32_t tier_read_slot_take(struct tier *t)
{
    if (t->n_heads == 0) return tier_slot_take(t);
    if (t->n_free_heads == 0) return SLOT_NONE;
    t->slots[t->free_heads[t->n_free_heads - 1]].page = KV_NONE;
    return t->free_heads[--t->n_free_heads];
}

// ---- queues -------------------------------------------------------------------------------------

static bool ring_init(struct slot_ring *r, uint32_t cap)
{
    *r = (struct slot_ring){.at = calloc(cap, sizeof *r->at), .cap = cap};
    return r->at != NULL;
}

static void ring_put(struct slot_ring *r, uint32_t slot)
{
    assert(r->n < r->cap); // a slot is in one ring at most
    r->at[(r->first + r->n++) % r->cap] = slot;
}

static uint32_t ring_take(struct slot_ring *r)
{
    const uint32_t slot = r->at[r->first];
    r->first = (r->first + 1) % r->cap;
    r->n--;
    return slot;
}

static bool goes_up(enum slot_state work)
{
    return work == SLOT_READ || work == SLOT_SEND;
}

void tier_submit(struct tier *t, uint32_t slot, enum slot_state work)
{
    struct tier_slot *s = &t->slots[slot];
    if (s->state == SLOT_KEPT) t->n_kept--;
    const bool up = goes_up(work);
    *(up ? &t->n_reading : &t->n_writing) += 1;
    s->state = work;
    atomic_store_explicit(&s->moved, 0, memory_order_relaxed);
    pthread_mutex_lock(&t->lock);
    if (up) t->calls[s->i_call].left++;
    ring_put(up ? &t->reads : &t->writes, slot);
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

void tier_cancel(struct tier *t, uint32_t ticket)
{
    pthread_mutex_lock(&t->lock);
    for (uint32_t n = t->reads.n; n > 0; n--) {
        const uint32_t slot = ring_take(&t->reads);
        struct tier_slot *s = &t->slots[slot];
        const bool goes = !s->warm && s->ticket == ticket;
        if (goes) s->result = STORE_MISSING;
        if (goes) t->calls[s->i_call].left--;
        ring_put(goes ? &t->done : &t->reads, slot);
    }
    pthread_mutex_unlock(&t->lock);
}

void tier_call_at(struct tier *t, uint32_t i_call, uint32_t at)
{
    pthread_mutex_lock(&t->lock);
    t->calls[i_call].at = at;
    pthread_mutex_unlock(&t->lock);
}

// ---- the threads --------------------------------------------------------------------------------

// A page on its way up, by one thread.
struct way_up {
    const struct page_io *io;
    struct tier_slot *slot;
    struct page_way way;
    size_t given; // bytes that places were given for
    struct err e; // why there is no place for more of it
};

// Bytes are there when a place for the next ones is asked for.
static void note_moved(struct way_up *up)
{
    atomic_store_explicit(&up->slot->moved, up->given, memory_order_relaxed);
    if (up->given > 0 && up->slot->first_ns == 0) up->slot->first_ns = clock_ns();
}

static void *next_place(void *arg, size_t n)
{
    struct way_up *up = arg;
    note_moved(up);
    up->given += n;
    return up->io->next(up->io->arg, &up->way, n, &up->e);
}

// The record's data as they are on the device.
static bool send_data(const struct tier *t, const struct tier_slot *s, struct way_up *up)
{
    const unsigned char *data = store_data(s->record, t->page_tokens);
    const size_t all = t->cfg.code.page_bytes;
    if (tier_encodes(t)) {
        void *to = next_place(up, all);
        if (to != NULL) page_decode(&t->cfg.code, data, to);
        return to != NULL;
    }
    for (size_t at = 0; at < all; at += STORE_PIECE_BYTES) {
        const size_t n = all - at < STORE_PIECE_BYTES ? all - at : STORE_PIECE_BYTES;
        void *to = next_place(up, n);
        if (to == NULL) return false;
        memcpy(to, data + at, n);
    }
    return true;
}

// From disk (straight to the device, where pages are exact there) or host memory.
static enum store_result move_up(const struct tier *t, struct store *store, struct tier_slot *s,
                                 struct way_up *up)
{
    const struct store_sink sink = {next_place, up};
    const int32_t *ids = s->any_ids ? NULL : s->ids;
    enum store_result result = STORE_OK;
    if (s->state == SLOT_READ && !tier_encodes(t))
        return store_get_to(store, s->chain, s->parent, ids, s->record, &sink);
    if (s->state == SLOT_READ) result = store_get(store, s->chain, s->parent, ids, s->record);
    return result == STORE_OK && !send_data(t, s, up) ? STORE_MISSING : result;
}

// A page that a thread has put on its way, whose last bytes may not be there yet: they are waited for when the next
// one has been read.
struct landing {
    uint32_t slot; // SLOT_NONE: none
    struct page_way way;
};

static void say_lost(struct tier_slot *s, const struct err *e)
{
    log_warn("cache", "a page cannot be written to the device: %s", e->msg);
    if (s->result == STORE_OK) s->result = STORE_MISSING;
}

// False: nothing is to be landed.
static bool bring_up(struct tier *t, struct store *store, struct tier_slot *s,
                     const struct landing *before, struct page_way *way)
{
    struct way_up up = {.io = &t->cfg.io, .slot = s};
    const struct page_way *after = before->slot == SLOT_NONE ? NULL : &before->way;
    const bool begun = up.io->begin(up.io->arg, s->page, after, &up.way, &up.e);
    bool ok = begun;
    s->result = STORE_MISSING;
    s->first_ns = 0;
    if (begun) {
        s->result = move_up(t, store, s, &up);
        note_moved(&up);
        ok = up.io->end(up.io->arg, &up.way, s->result == STORE_OK, &up.e) && up.e.code == ERR_NONE;
    }
    if (!ok) say_lost(s, &up.e);
    *way = up.way;
    return begun && up.io->land != NULL;
}

// Encodes what is to be encoded, then writes to disk where that is wanted.
static void bring_down(struct tier *t, struct store *store, struct tier_slot *s, struct err *e)
{
    bool ok =
        s->raw == NULL || page_encode(&t->cfg.code, s->raw, store_data(s->record, t->page_tokens));
    if (!ok) err_set(e, ERR_UNSUPPORTED, "a page holds what q8_0 has no place for");
    if (ok && s->state == SLOT_WRITE) ok = store_put(store, s->record, s->worth, e);
    s->result = ok ? STORE_OK : STORE_BAD;
}

// A slot is through; under the lock.
static void hand_back(struct tier *t, uint32_t slot)
{
    const struct tier_slot *s = &t->slots[slot];
    struct tier_call *call = &t->calls[s->i_call];
    ring_put(&t->done, slot);
    if (!goes_up(s->state) || --call->left <= call->at) doorbell_ring(t->cfg.bell);
}

// Under the lock, but let go meanwhile. False: nothing was on its way.
static bool land(struct tier *t, struct landing *l)
{
    if (l->slot == SLOT_NONE) return false;
    struct tier_slot *s = &t->slots[l->slot];
    struct err e = {0};
    pthread_mutex_unlock(&t->lock);
    if (!t->cfg.io.land(t->cfg.io.arg, &l->way, &e)) say_lost(s, &e);
    s->done_ns = clock_ns();
    pthread_mutex_lock(&t->lock);
    hand_back(t, l->slot);
    l->slot = SLOT_NONE;
    return true;
}

// A page from the disk itself waits for those before it, once there are so many that the disk is busy: each of more at
// once would come later, and the first ones are the ones that are of use.
static bool may_read(const struct tier *t)
{
    if (t->reads.n == 0) return false;
    return !t->slots[t->reads.at[t->reads.first]].far || t->n_far < t->n_far_most;
}

// The next page on its way up, behind the thread's last one; under the lock, but let go meanwhile.
static bool read_one(struct tier *t, struct landing *last)
{
    if (!may_read(t)) return false;
    struct landing next = {.slot = ring_take(&t->reads)};
    struct tier_slot *s = &t->slots[next.slot];
    struct store *store = t->open;
    t->n_far += s->far;
    if (may_read(t))
        pthread_cond_signal(&t->work); // others may have waited behind a page from the disk
    pthread_mutex_unlock(&t->lock);
    const bool lands = bring_up(t, store, s, last, &next.way);
    s->done_ns = clock_ns();
    pthread_mutex_lock(&t->lock);
    t->n_far -= s->far;
    land(t, last);
    if (lands)
        *last = next;
    else
        hand_back(t, next.slot);
    return true;
}

static bool send_nothing(const struct page_io *io, struct page_way *way, size_t n_bytes,
                         struct err *e)
{
    for (size_t at = 0; at < n_bytes; at += STORE_PIECE_BYTES) {
        const size_t n = n_bytes - at < STORE_PIECE_BYTES ? n_bytes - at : STORE_PIECE_BYTES;
        void *to = io->next(io->arg, way, n, e);
        if (to == NULL) return false;
        memset(to, 0, n);
    }
    return true;
}

// What a thread's first page goes through is taken then and there: pinned memory, a stream, what the driver keeps for the
// thread, 2.5 ms a thread and more on a GPU. So that it is not the first request that waits for it, each thread brings a
// page of nothing to the device, all at once, so that each has a way of its own. Under the lock, but let go meanwhile.
static void first_way(struct tier *t)
{
    const struct page_io *io = &t->cfg.io;
    const uint32_t page = t->n_begun++ % t->n_pages;
    struct page_way way;
    struct err e = {0};
    pthread_mutex_unlock(&t->lock);
    const bool begun = io->begin(io->arg, page, NULL, &way, &e);
    pthread_mutex_lock(&t->lock);
    t->n_waiting++;
    pthread_cond_broadcast(&t->ready);
    while (t->n_waiting < t->n_wanted && !t->stopping) pthread_cond_wait(&t->ready, &t->lock);
    pthread_mutex_unlock(&t->lock);
    if (begun) {
        const bool sent = send_nothing(io, &way, t->cfg.code.page_bytes, &e);
        io->end(io->arg, &way, sent, &e);
        io->land(io->arg, &way, &e);
    }
    pthread_mutex_lock(&t->lock);
    t->n_ready++;
    pthread_cond_broadcast(&t->ready);
}

// Waits for work, the tick or the end; under the lock.
static void wait_for_work(struct tier *t)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += TICK_S;
    pthread_cond_timedwait(&t->work, &t->lock, &until);
}

static void do_tick(struct store *store, const double *memo)
{
    store_tick(store);
    if (memo != NULL) store_memo_write(store, memo);
}

// One of the dropped records; under the lock, but let go meanwhile.
static bool erase_one(struct tier *t)
{
    if (t->writing || t->n_drops == 0) return false;
    const struct store_entry where = t->drops[--t->n_drops];
    struct store *store = t->open;
    t->writing = true;
    pthread_mutex_unlock(&t->lock);
    store_erase(store, &where);
    pthread_mutex_lock(&t->lock);
    t->writing = false;
    return true;
}

// Memory of pages that are going to be used, a piece of it, by one thread at a time; under the lock, but let
// go meanwhile.
static bool prepare_some(struct tier *t)
{
    if (t->stopping || t->preparing || t->prepared == t->prepare_end) return false;
    const uint64_t some = PREPARE_BYTES / t->cfg.code.page_bytes + 1;
    const uint32_t first = t->prepared, left = t->prepare_end - first;
    const uint32_t n = some < left ? (uint32_t)some : left;
    t->preparing = true;
    pthread_mutex_unlock(&t->lock);
    t->cfg.io.prepare(t->cfg.io.arg, first, n);
    pthread_mutex_lock(&t->lock);
    t->prepared += n;
    t->preparing = false;
    return true;
}

// One write or one tick, whichever is due first; under the lock, but let go meanwhile.
static bool write_one(struct tier *t)
{
    const bool free = !t->writing, write = free && t->writes.n > 0;
    const bool news = t->memo_written[TIER_SOURCES] == 0 && t->memo[TIER_SOURCES] > 0;
    const bool tick =
        free && !write && t->open != NULL && (news || clock_ms_since(t->tick_ns) > TICK_S * 1000);
    struct err e = {0};
    if (!write && !tick) return erase_one(t) || prepare_some(t);
    const uint32_t slot = tick ? SLOT_NONE : ring_take(&t->writes);
    struct store *store = t->open;
    t->writing = true;
    double memo[STORE_MEMO];
    memcpy(memo, t->memo, sizeof memo);
    const bool changed = tick && memcmp(memo, t->memo_written, sizeof memo) != 0;
    if (changed) memcpy(t->memo_written, memo, sizeof memo);
    pthread_mutex_unlock(&t->lock);
    if (tick)
        do_tick(store, changed ? memo : NULL);
    else
        bring_down(t, store, &t->slots[slot], &e);
    pthread_mutex_lock(&t->lock);
    t->writing = false;
    if (tick) t->tick_ns = clock_ns();
    if (!tick && (e.code == ERR_NONE || t->write_error.code == ERR_NONE)) t->write_error = e;
    if (!tick) hand_back(t, slot);
    return true;
}

static void *work(void *arg)
{
    struct tier *t = arg;
    struct landing last = {.slot = SLOT_NONE};
    pthread_mutex_lock(&t->lock);
    if (t->cfg.io.land != NULL) first_way(t);
    for (;;) {
        if (read_one(t, &last) || land(t, &last) || write_one(t)) continue;
        if (t->stopping) break; // what another thread does now, it ends
        wait_for_work(t);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

// ---- open and close -----------------------------------------------------------------------------

static uint32_t pages_of_ctx(const struct tier *t)
{
    return (t->cfg.n_ctx + t->page_tokens - 1) / t->page_tokens;
}

static bool size_slots(struct tier *t, const struct tier_settings *s)
{
    const struct store_shape shape = {.n_ids = t->page_tokens, .data_bytes = s->code.stored_bytes};
    const struct store_shape bare = {.n_ids = t->page_tokens};
    t->record_stride = store_record_bytes(&shape);
    t->head_stride = store_record_bytes(&bare);
    uint64_t writes = WRITES_BYTES / t->record_stride, kept = s->ram_bytes / t->record_stride;
    if (writes < WRITES_MIN) writes = WRITES_MIN;
    if (writes > WRITES_MAX) writes = WRITES_MAX;
    if (kept > UINT32_MAX / 4) kept = UINT32_MAX / 4;
    t->n_writes_max = (uint32_t)writes;
    t->n_staging = (uint32_t)writes;
    if (tier_encodes(t)) // a read under way for each thread, and one behind
        t->n_staging += 2 * TIER_THREADS_MAX;
    else
        t->n_heads = pages_of_ctx(t) + 4 * TIER_THREADS_MAX;
    t->n_slots = (uint32_t)(t->n_staging + kept);
    for (t->n_buckets = 16; t->n_buckets < t->n_slots;) t->n_buckets *= 2;
    return size_mul(&t->records_bytes, t->n_slots, t->record_stride) &&
           size_add(&t->records_bytes, t->records_bytes, t->n_heads * t->head_stride);
}

static bool alloc_slots(struct tier *t)
{
    const uint32_t n = t->n_slots + t->n_heads;
    t->slots = calloc(n, sizeof *t->slots);
    t->ids = calloc((size_t)n * t->page_tokens, sizeof *t->ids);
    t->free = calloc(t->n_slots, sizeof *t->free);
    t->free_heads = calloc(t->n_heads + 1, sizeof *t->free_heads);
    t->buckets = malloc(t->n_buckets * sizeof *t->buckets);
    void *p = mmap(NULL, t->records_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); // untouched: costs nothing
    t->records = p == MAP_FAILED ? NULL : p;
    // 4 KiB at a time, the first touch of a large model's page costs more than the copy into it
    if (t->records != NULL && t->record_stride >= HUGE_BYTES)
        madvise(p, t->n_slots * t->record_stride, MADV_HUGEPAGE);
    if (t->slots == NULL || t->ids == NULL || t->free == NULL || t->free_heads == NULL ||
        t->buckets == NULL || t->records == NULL)
        return false;
    for (uint32_t i = 0; i < t->n_buckets; i++) t->buckets[i] = SLOT_NONE;
    unsigned char *heads = t->records + t->n_slots * t->record_stride;
    for (uint32_t i = n; i-- > 0;) { // the lowest on top: few are touched where few are needed
        struct tier_slot *s = &t->slots[i];
        s->ids = t->ids + (size_t)i * t->page_tokens;
        if (i >= t->n_slots) {
            s->record = heads + (i - t->n_slots) * t->head_stride;
            t->free_heads[t->n_free_heads++] = i;
        } else {
            s->record = t->records + i * t->record_stride;
            t->free[t->n_free++] = i;
        }
    }
    return ring_init(&t->reads, n) && ring_init(&t->writes, n) && ring_init(&t->done, n);
}

// Where pages that are to be encoded wait for a thread.
static bool alloc_raws(struct tier *t)
{
    const size_t each = t->cfg.code.page_bytes;
    if (!tier_encodes(t)) return true;
    t->raws = calloc(t->n_writes_max, each);
    t->raw_free = calloc(t->n_writes_max, sizeof *t->raw_free);
    if (t->raws == NULL || t->raw_free == NULL) return false;
    for (uint32_t i = 0; i < t->n_writes_max; i++)
        t->raw_free[t->n_raw_free++] = t->raws + i * each;
    return true;
}

static bool alloc_rest(struct tier *t)
{
    const size_t ctx_pages = pages_of_ctx(t);
    t->marks = calloc(t->n_pages, sizeof *t->marks);
    t->ring = calloc(t->n_pages, sizeof *t->ring);
    t->restores = calloc(t->cfg.n_parallel, sizeof *t->restores);
    t->calls = calloc(t->cfg.n_parallel + 1, sizeof *t->calls);
    bool ok = t->marks != NULL && t->ring != NULL && t->restores != NULL && t->calls != NULL;
    for (uint32_t i = 0; ok && i < t->cfg.n_parallel; i++) {
        struct tier_restore *r = &t->restores[i];
        r->chains = calloc(ctx_pages, sizeof *r->chains);
        r->arrivals = calloc(ctx_pages, sizeof *r->arrivals);
        r->load_s = calloc(ctx_pages, sizeof *r->load_s);
        r->sources = calloc(ctx_pages, sizeof *r->sources);
        r->alike.ids = calloc(t->page_tokens, sizeof *r->alike.ids);
        ok = r->alike.ids != NULL && r->chains != NULL && r->arrivals != NULL &&
             r->load_s != NULL && r->sources != NULL;
    }
    return ok;
}

static uint32_t thread_count(void)
{
    const uint32_t n = threads_core_count();
    return n < TIER_THREADS_MIN ? TIER_THREADS_MIN : n > TIER_THREADS_MAX ? TIER_THREADS_MAX : n;
}

bool tier_open(struct tier **out, const struct tier_settings *s, struct err *e)
{
    *out = NULL;
    if (s->code.page_bytes == 0 || (s->ram_bytes == 0 && !s->disk)) return true;
    struct tier *t = calloc(1, sizeof *t);
    if (t == NULL) return err_set(e, ERR_MEMORY, "no memory for the cache's tiers");
    t->cfg = *s;
    t->page_tokens = s->tree->pool->page_tokens;
    t->n_pages = s->tree->pool->n_pages;
    t->turn_ns = t->tick_ns = clock_ns();
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->ready, NULL);
    bool ok = size_slots(t, s) && alloc_slots(t) && alloc_raws(t) && alloc_rest(t);
    if (!ok) err_set(e, ERR_MEMORY, "no memory for a cache of %zu bytes", t->records_bytes);
    t->n_wanted = thread_count();
    const uint64_t far = FAR_BYTES / (t->record_stride + 1);
    t->n_far_most = far < TIER_THREADS_MIN ? TIER_THREADS_MIN : (uint32_t)(far < 64 ? far : 64);
    if (s->far_at_once > 0) t->n_far_most = s->far_at_once;
    while (ok && t->n_threads < t->n_wanted) {
        ok = pthread_create(&t->threads[t->n_threads], NULL, work, t) == 0;
        if (ok) t->n_threads++;
    }
    if (!ok) {
        err_set(e, ERR_MEMORY, "cannot start the cache's threads");
        tier_close(t);
        return false;
    }
    pthread_mutex_lock(&t->lock);
    while (s->io.land != NULL && t->n_ready < t->n_threads) pthread_cond_wait(&t->ready, &t->lock);
    pthread_mutex_unlock(&t->lock);
    tier_watch(t);
    *out = t;
    return true;
}

void tier_close(struct tier *t)
{
    if (t == NULL) return;
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    pthread_cond_broadcast(&t->work);
    pthread_cond_broadcast(&t->ready);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->n_threads; i++) pthread_join(t->threads[i], NULL);
    tier_warm_end(t);
    if (t->attached != NULL) do_tick(t->attached, t->memo);
    store_close(t->attached);
    for (uint32_t i = 0; t->restores != NULL && i < t->cfg.n_parallel; i++) {
        free(t->restores[i].chains);
        free(t->restores[i].arrivals);
        free(t->restores[i].load_s);
        free(t->restores[i].alike.ids);
        free(t->restores[i].sources);
    }
    if (t->records != NULL) munmap(t->records, t->records_bytes);
    free(t->drops);
    free(t->raws);
    free(t->raw_free);
    free(t->restores);
    free(t->calls);
    free(t->ring);
    free(t->marks);
    free(t->reads.at);
    free(t->writes.at);
    free(t->done.at);
    free(t->buckets);
    free(t->free);
    free(t->free_heads);
    free(t->ids);
    free(t->slots);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->ready);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

// How many pages of the device the first request may bring back: as many as there are on disk, of the
// length that one request can have.
static uint32_t pages_to_prepare(const struct tier *t, struct store *store)
{
    struct store_figures f;
    store_figures(store, &f);
    uint64_t n = pages_of_ctx(t);
    if (n > f.n_records) n = f.n_records;
    return n < t->n_pages ? (uint32_t)n : t->n_pages;
}

// What a bit that fell over made of it is not believed: nothing measured here would ever outweigh it.
static bool is_likely(const double *memo)
{
    for (int i = 0; i < TIER_SOURCES; i++)
        if (memo[i] != 0 && (memo[i] < 100 || memo[i] > 1e13)) return false;
    return memo[TIER_SOURCES] < 1e8 && memo[TIER_SOURCES + 1] < 1e7;
}

void tier_attach(struct tier *t, struct store *store)
{
    double memo[STORE_MEMO] = {0};
    if (store_memo_read(store, memo) && !is_likely(memo)) memset(memo, 0, sizeof memo);
    if (memo[FROM_FAR] <= 0) memo[FROM_FAR] = store_read_speed(store, PROBE_MS);
    pthread_mutex_lock(&t->lock);
    assert(t->attached == NULL && t->open == NULL);
    t->attached = t->open = store;
    memcpy(t->memo, memo, sizeof memo);
    memcpy(t->memo_written, memo, sizeof memo);
    t->prepare_end = pages_to_prepare(t, store);
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
    doorbell_ring(t->cfg.bell);
}

static_assert(STORE_MEMO == TIER_SOURCES + 2, "bps, prefill_tps, prefill_rows");

// ---- a turn -------------------------------------------------------------------------------------

static void take_store(struct tier *t)
{
    if (t->store != NULL || !t->cfg.disk) return;
    pthread_mutex_lock(&t->lock);
    t->store = t->attached;
    for (int i = 0; i < TIER_SOURCES; i++)
        if (t->bps[i] == 0) t->bps[i] = t->memo[i];
    if (t->memo[TIER_SOURCES + 1] > t->prefill_rows) {
        t->prefill_tps = t->memo[TIER_SOURCES];
        t->prefill_rows = t->memo[TIER_SOURCES + 1];
    }
    pthread_mutex_unlock(&t->lock);
    if (t->store == NULL) return;
    if (t->cfg.stats != NULL && t->prefill_tps >= 1)
        stats_expect(t->cfg.stats, t->prefill_tps, t->prefill_rows);
    tier_queue_all(t); // what was computed before
    if (t->cfg.warm) tier_warm_begin(t);
}

static void take_done(struct tier *t)
{
    for (;;) {
        pthread_mutex_lock(&t->lock);
        const uint32_t slot = t->done.n > 0 ? ring_take(&t->done) : SLOT_NONE;
        pthread_mutex_unlock(&t->lock);
        if (slot == SLOT_NONE) return;
        if (t->slots[slot].state == SLOT_READ || t->slots[slot].state == SLOT_SEND) {
            t->n_reading--;
            tier_arrived(t, slot);
        } else {
            tier_saved(t, slot);
        }
    }
}

// What the next process should know from the start. Steps of few rows say nothing about long prompts.
static void note_speeds(struct tier *t, double prefill_tps, double prefill_rows)
{
    if (prefill_tps > 0 && 2 * prefill_rows >= t->prefill_rows) {
        t->prefill_tps = prefill_tps;
        t->prefill_rows = prefill_rows;
    }
    pthread_mutex_lock(&t->lock);
    memcpy(t->memo, t->bps, sizeof t->bps);
    t->memo[TIER_SOURCES] = t->prefill_tps;
    t->memo[TIER_SOURCES + 1] = t->prefill_rows;
    pthread_mutex_unlock(&t->lock);
}

void tier_turn(struct tier *t, enum tier_load load, double prefill_tps, double prefill_rows)
{
    if (t == NULL) return;
    take_store(t);
    note_speeds(t, prefill_tps, prefill_rows);
    take_done(t);
    tier_deliver(t);
    tier_warm_turn(t);
    tier_save(t, load);
}

// Reads are waited for as long as they take: pages of the device may be in their hands.
void tier_drain(struct tier *t, uint32_t ms)
{
    if (t == NULL) return;
    const uint64_t start = clock_ns();
    tier_warm_end(t);
    for (;;) {
        const bool in_time = clock_ms_since(start) < ms;
        const bool to_save = t->ring_n > 0 || t->n_writing > 0;
        if (t->n_reading == 0 && (!to_save || !in_time)) return;
        take_done(t);
        if (in_time) tier_save(t, TIER_IDLE);
        if (t->n_writing + t->n_reading > 0) clock_sleep_ms(1);
    }
}

void tier_figures(struct tier *t, struct tier_figures *out)
{
    *out = (struct tier_figures){0};
    if (t == NULL) return;
    *out = t->figures;
    out->ram_pages = t->n_kept;
    out->ram_bytes = t->n_kept * (uint64_t)t->record_stride;
    if (t->store == NULL) return;
    struct store_figures f;
    store_figures(t->store, &f);
    out->disk_pages = f.n_records;
    out->disk_bytes = f.bytes;
    out->disk_cap_bytes = f.cap_bytes;
    out->bad = f.n_bad;
    out->disk_open = true;
    out->disk_writer = f.writer;
}
