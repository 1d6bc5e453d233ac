// The tiers below device memory: pages that the tree holds, or held, as bytes in host memory and in a
// store on disk (base/store.h). Pages go down soon after they are computed and come back when a
// sequence's text goes on where the tree ends.
//
// tier.c: slots, host memory, threads that read and write. tier_save.c: on the way down.
// tier_restore.c: on the way up. tier_warm.c: at start. tier_verify.c: every page on disk, looked at.
//
// Threads: the engine thread calls everything but what says otherwise. Slots pass to the reading and
// writing threads through queues under the lock and come back the same way; no lock is held over I/O.
//
// Never a wrong answer: a page is known by a 128-bit hash chained over its path's salts and tokens
// (never by the tree's 64-bit keys); on disk it lies in the folder of the fingerprint (fingerprint.h),
// which its record names too; a record's tokens are compared and its checksum verified, and what fails
// is recomputed.
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/store.h"
#include "compute/backend.h"
#include "engine/page_code.h"
#include "engine/seq.h"
#include "engine/stats.h"
#include "engine/stream.h"
#include "engine/tree.h"

#define SLOT_NONE UINT32_MAX // an enumerator is an int
enum { TIER_THREADS_MIN = 4, TIER_THREADS_MAX = 16 };

// What the engine thread has to do beside: nothing, answers that go on, or somebody waits for a first token.
enum tier_load { TIER_IDLE, TIER_BUSY, TIER_URGENT };

// How a page's bytes are read from the device (engine thread) and written to it (any thread, for pages
// that no step uses): see page_begin, page_next, page_end and page_land in compute/backend.h.
struct page_io {
    void *arg;
    bool (*read)(void *arg, uint32_t page, void *out, struct err *e);
    bool (*copy)(void *arg, uint32_t from, uint32_t to, struct err *e); // engine thread
    bool (*begin)(void *arg, uint32_t page, const struct page_way *after, struct page_way *out,
                  struct err *e);
    void *(*next)(void *arg, struct page_way *w, size_t n, struct err *e);
    bool (*end)(void *arg, struct page_way *w, bool good, struct err *e);
    bool (*land)(void *arg, struct page_way *w, struct err *e); // NULL: end did that
    void (*prepare)(void *arg, uint32_t first, uint32_t n);     // pages [first, first + n)
};

struct tier_settings {
    struct page_io io;
    struct tree *tree; // borrowed
    // Borrowed: rung when a write is done, or the reads that somebody waits for.
    struct doorbell *bell;
    struct stats *stats; // borrowed: told how fast earlier processes computed; NULL: nobody is
    uint32_t n_parallel, n_ctx;
    struct page_code code; // page_bytes 0 = there are no tiers
    uint64_t ram_bytes;    // of the tier in host memory; 0 = none
    bool disk;             // a store will come (tier_attach)
    bool warm;             // bring hot pages back before they are asked for
    // So long nothing is saved for those who wait for a first token; 0 = usual.
    uint32_t patience_ms;
    // A restore that goes slower than computing is given up from then on; 0 = never.
    uint32_t judge_ms;
    uint32_t far_at_once; // pages read from the disk itself at once; 0 = as many as keep one busy
};

// READ, SEND, PACK, WRITE: with the threads: from disk to the device, from host memory to the device, encoded,
// (encoded and) to disk. KEPT: in host memory, may be given up. ARRIVED: read by the
// warm-up, its page waits for its turn.
enum slot_state { SLOT_FREE, SLOT_READ, SLOT_SEND, SLOT_PACK, SLOT_WRITE, SLOT_KEPT, SLOT_ARRIVED };

struct tier_slot {
    enum slot_state state;
    enum store_result result;
    bool in_table, recent;
    bool unwanted; // dropped while a thread has it
    // READ: no certain tokens are expected; for the warm-up; from the disk itself.
    bool any_ids, warm, far;
    uint32_t next;                // in its bucket
    uint32_t ticket, i_page;      // READ and SEND: for whom
    struct hash128 chain, parent; // what it holds: the key in the store
    int32_t *ids;                 // [page_tokens] READ: what the record must hold
    // As the store has it; in a head slot without the data, which go to the page.
    unsigned char *record;
    unsigned char *raw; // PACK, WRITE: what is to be encoded; NULL = nothing
    double worth;       // WRITE: of the use that it comes from
    uint32_t page;      // READ, SEND, ARRIVED: of the device, taken for it; else KV_NONE
    uint64_t first_ns;  // when the first of its bytes were on their way to the device
    uint64_t done_ns;   // when a thread was done with it
    uint32_t i_call;    // READ and SEND: of the calls, whose it is
    // READ and SEND: bytes on their way; relaxed: what is judged by it may be a little old.
    atomic_size_t moved;
};

// What is known of a page of the tree.
struct tier_mark {
    struct hash128 chain;
    uint32_t generation; // of the tree's node
    bool known, queued;  // queued: in the ring of those to be saved
};

// A ring of slot numbers.
struct slot_ring {
    uint32_t *at; // [cap]
    uint32_t first, n, cap;
};

// Where pages come back from, each with a speed of its own: host memory, files that the system has in
// memory, files on the disk.
enum tier_source { FROM_RAM, FROM_NEAR, FROM_FAR, TIER_SOURCES };

struct tier_arrival {
    uint32_t page; // of the device, with bytes; KV_NONE
    uint32_t slot; // that it comes with; SLOT_NONE
    bool ram;
};

// Who waits for pages is called when no more of them are under way than it said: each page's call would take a core from
// the threads that bring them.
struct tier_call {
    uint32_t left, at; // pages under way; the engine's bell rings from so many on
};

// A page on disk that is not the sequence's next, but begins like it: comes into the tree, where the sequence copies its
// beginning (seq_fork).
struct tier_alike {
    struct hash128 chain;
    uint32_t i_page; // in the sequence; the last that is asked for
    uint32_t page;   // of the device, when it came; KV_NONE
    bool asked, came;
    int32_t *ids; // [page_tokens] what it holds
};

// A sequence that pages come back for.
struct tier_restore {
    struct seq *seq; // NULL: free
    uint32_t ticket;
    uint32_t base, first;          // pages that the sequence had; first that comes back
    uint32_t asked;                // pages from first to here were asked for
    uint32_t n_flight, n_came;     // reads under way; done
    uint32_t n_ram, n_disk;        // pages that the sequence got
    uint64_t start_ns, last_ns;    // last: when something came, or the sequence began to wait
    uint64_t done_ns;              // when the latest page that came was there
    double first_ms;               // when the first bytes of the first page came, after the start
    double tps;                    // what computing instead would do; 0 = not known
    double other_s;                // what is not from `from` should take
    enum tier_source from;         // most of it
    struct tier_alike alike;       // where the sequence says so
    struct tier_arrival *arrivals; // [pages of n_ctx]
    struct hash128 *chains;        // [pages of n_ctx] from base on
    double *load_s;                // [pages of n_ctx] what each takes to come, from base on
    enum tier_source *sources;     // [pages of n_ctx] the same pages
};

struct tier {
    struct tier_settings cfg;
    uint32_t page_tokens, n_pages;
    // Slots for pages, staging ones (not for host memory) included; behind them, where pages are exact, head slots:
    // for reads whose data go to the device at once, as many as one request can wait for.
    struct tier_slot *slots; // [n_slots + n_heads]
    uint32_t n_slots, n_heads, n_staging, n_writes_max;
    unsigned char *records; // [n_slots][record_stride], then [n_heads][head_stride]
    unsigned char *raws;    // [n_writes_max][page_bytes] where pages are encoded
    int32_t *ids;           // [n_slots][page_tokens]
    size_t record_stride, head_stride, records_bytes;

    // Engine thread only.
    uint32_t *free, *free_heads; // [n_free], [n_free_heads]
    uint32_t n_free, n_free_heads, hand;
    unsigned char **raw_free; // [n_raw_free]
    uint32_t n_raw_free;
    uint32_t *buckets; // [n_buckets]
    uint32_t n_buckets, n_kept, n_writing, n_reading;
    enum tier_load load;     // as of the last turn
    struct tier_mark *marks; // [n_pages]
    uint32_t *ring;          // [n_pages] pages to be saved
    uint32_t ring_first, ring_n;
    struct tier_restore *restores; // [n_parallel]
    uint32_t next_ticket, n_restores;
    struct tier_warm *warm; // NULL: over, or not wanted
    struct store *store;    // NULL until there is one
    int64_t credit_ns;      // time that saving may take
    uint64_t held_ns;       // since then it waits for first tokens; 0 = it does not
    uint64_t turn_ns;
    // Measured, also by earlier processes; 0 = not known yet. rows: of the steps that the last is of.
    double bps[TIER_SOURCES], prefill_tps, prefill_rows;
    bool write_warned, missed; // missed: something that is not on disk could not be written
    uint64_t missed_ns;        // when that was last looked at
    struct tier_figures figures;

    pthread_t threads[TIER_THREADS_MAX];
    uint32_t n_threads, n_wanted; // wanted: before the first began
    pthread_mutex_t lock;         // guards these
    pthread_cond_t work, ready;
    uint32_t n_begun, n_waiting, n_ready; // threads on their first way to the device
    uint32_t n_far, n_far_most;           // pages being read from the disk itself; at once
    struct slot_ring reads, writes, done;
    struct tier_call *calls;   // [n_parallel] of restores, and one of the warm-up
    struct store_entry *drops; // [n_drops] forgotten already, to be erased on disk
    size_t n_drops, cap_drops;
    struct store *attached; // handed over, the engine thread has not seen it yet
    struct store *open;     // the threads' copy of store
    uint64_t tick_ns;
    double memo[STORE_MEMO], memo_written[STORE_MEMO]; // bps, prefill_tps
    struct err write_error; // why the first of those failed that the last good one is before
    uint32_t prepared, prepare_end; // pages of the device whose memory was taken; will be
    bool writing, preparing, stopping;
};

// NULL in *out where the settings ask for no tier.
bool tier_open(struct tier **out, const struct tier_settings *s, struct err *e);
void tier_close(struct tier *t); // writes what is queued, closes the store; NULL is fine
// Takes the store; from any thread, at most once.
void tier_attach(struct tier *t, struct store *store);

// A page below the device goes from all tiers; engine thread.
void tier_drop(struct tier *t, struct hash128 chain);

// Verifies every page on disk; from any thread. *stop is looked at before each page.
bool tier_verify(struct tier *t, bool (*stop)(void *arg), void *arg, struct cache_check *out,
                 struct err *e);

// Once a turn of the loop, between steps. prefill_tps: measured in steps of so many rows, 0 = not yet.
void tier_turn(struct tier *t, enum tier_load load, double prefill_tps, double prefill_rows);
// How long the engine may sleep: ms, -1 = until the doorbell rings.
int tier_timeout_ms(const struct tier *t);
// The last turns: saves what is not saved yet, for at most ms.
void tier_drain(struct tier *t, uint32_t ms);
void tier_figures(struct tier *t, struct tier_figures *out);

// tier_restore.c. s runs and has taken what the tree holds. Where more of its text is in a lower tier
// and loading is estimated to be quicker than computing, s gets it (tier_brings), as tier_choice.h says.
void tier_seek(struct tier *t, struct seq *s);
// Begins to load for those that seek: takes pages of the device, so nothing that was only matched may be held.
void tier_ask(struct tier *t);
// How a restore goes. n pages in all, of which `left` are not in the sequence yet; came: arrived, in any order, with the
// parts of those under way; first: of them, what was there at first_s, where the first bytes were. page_s: what computing
// a page takes.
struct restore_pace {
    double spent_s, first_s, look_s, page_s;
    double came, first;
    uint32_t n, left;
};
// Is computing what is left quicker than to wait for it? Not before look_s.
bool tier_restore_loses(const struct restore_pace *p);
// How many pages more of s's text the lower tiers hold behind its first n_pages, the last of them
// `last` (KV_NONE: none). Looks only: nothing is asked for or counted as used.
void tier_probe(const struct tier *t, const struct seq *s, uint32_t n_pages, uint32_t last,
                uint32_t *n_ram, uint32_t *n_disk);
// And a page on disk that begins as the text goes on behind those n_pages + n_ram + n_disk. False: none.
bool tier_probe_alike(const struct tier *t, const struct seq *s, uint32_t n_pages, uint32_t last,
                      struct hash128 *key);
// More of its pages come; meanwhile it computes those before restore_from, and is held from there on.
static inline bool tier_brings(const struct seq *s)
{
    return s->n_shared < s->n_restore || s->restore_alike;
}
static inline bool tier_holds(const struct seq *s)
{
    return tier_brings(s) && s->n_shared >= s->restore_from;
}
// s copied n tokens of a page of the tree: counted as from disk where that came for it.
void tier_copied(struct tier *t, struct seq *s, uint32_t from, uint32_t n);
// s ends or gives its pages back.
void tier_forget(struct tier *t, struct seq *s);

// ---- between the tier's files -------------------------------------------------------------------

static inline bool tier_encodes(const struct tier *t)
{
    return t->cfg.code.encoding != PAGES_EXACT;
}
static inline bool tier_keeps(const struct tier *t)
{
    return t->n_slots > t->n_staging;
}
// The hash of a path that goes on with a page; the root's is {0}.
struct hash128 tier_chain(const struct tier *t, struct hash128 parent, struct hash128 salt,
                          const int32_t *tokens);
uint32_t tier_find(const struct tier *t,
                   struct hash128 chain); // slot with valid bytes, or SLOT_NONE
// A slot, by giving up a kept page if need be; SLOT_NONE when all are under way.
uint32_t tier_slot_take(struct tier *t);
uint32_t tier_read_slot_take(struct tier *t);       // for READ; SLOT_NONE when all are under way
void tier_slot_give(struct tier *t, uint32_t slot); // free
// Its bytes are valid: found from now on; freed at once where nothing is kept in host memory.
void tier_slot_keep(struct tier *t, uint32_t slot);
void tier_slot_list(struct tier *t, uint32_t slot);
void tier_submit(struct tier *t, uint32_t slot,
                 enum slot_state work); // READ, SEND, PACK or WRITE
// Reads of this ticket that no thread has begun are done, with nothing.
void tier_cancel(struct tier *t, uint32_t ticket);
// Whose pages i_call are: the bell rings when no more than `at` of them are under way.
void tier_call_at(struct tier *t, uint32_t i_call, uint32_t at);
// tier_save.c
void tier_watch(struct tier *t); // sets the tree's hooks
void tier_queue_all(struct tier *t);
void tier_save(struct tier *t, enum tier_load load);
void tier_saved(struct tier *t, uint32_t slot); // a write is done
// tier_restore.c
void tier_arrived(struct tier *t, uint32_t slot); // a read is done
void tier_deliver(struct tier *t);
// tier_warm.c
void tier_warm_begin(struct tier *t);
void tier_warm_end(struct tier *t); // NULL is fine
void tier_warm_turn(struct tier *t);
bool tier_warm_arrived(struct tier *t, uint32_t slot); // false: the read was not for it
bool tier_warm_ready(const struct tier *t);            // has something to do now
