// The engine thread: takes jobs in, chooses steps, runs them, hands tokens out. It knows a network
// only through net.h and tokens only through tokenizer.h, so tests run it over a small fake.
//
// loop.c: thread and hand-over. admit.c: waiting -> running, single flight, preemption.
// step.c: one step through the network. emit.c: sampling and ends. report.c: progress and time left.
// ahead.c: what is computed while nobody asks.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compute/backend.h"
#include "engine/net.h"
#include "engine/sched.h"
#include "engine/seq.h"
#include "engine/stats.h"
#include "engine/tier.h"

struct loop_settings {
    struct net *net;         // borrowed, as all here
    struct dbuf *kv;         // n_pages pages
    struct backend *backend; // waited for after each step; NULL: net_step returns when it is done
    const struct tokenizer *tok; // NULL: no token ends an answer, and there are no stop strings
    uint32_t n_vocab, n_ctx, n_pages, page_tokens;
    uint32_t n_parallel, n_queue;
    uint32_t max_rows, prefill_rows; // of a step; max_rows >= n_parallel
    uint32_t step_ms, alone_ms;
    struct tier_settings tiers; // tree, bell and sizes of sequences are filled in by loop_open
    int32_t call_end_token;     // what closes a tool call in an answer; -1 = none
    double attend_tokens;       // as struct tree has it; 0 = a usual value
    uint32_t quota_pages;       // of one cache_salt; 0 = no quota
};

enum {
    AHEAD_MAX = 4, // texts that wait to be computed ahead; the oldest is forgotten for a fifth
    AHEAD_DOUBT =
        2, // half-lives that their pages count as older: who was answered may never come back
};

// One sequence's part of a step.
struct step_item {
    struct seq *seq;
    uint32_t n_rows;
    uint32_t out; // index among the out rows, UINT32_MAX without logits
};

// What a step is put together in; sized at open.
struct step_scratch {
    struct sched_entry *entries; // [n_parallel]
    uint32_t *rows;              // [n_parallel]
    struct step_item *items;     // [n_parallel]
    int32_t *tokens;             // [max_rows]
    struct batch_seq *seqs;      // [n_parallel]
    uint32_t *pages;             // [n_parallel * pages of n_ctx]
    uint32_t *out_rows;          // [n_parallel]
    struct topk_row *topk;       // [n_parallel]
    float *logits;               // [n_vocab]
    struct logit_adjust *adjust; // [cap_adjust]
    uint32_t cap_adjust;         // grows when a sequence is admitted, never in a step
};

struct loop;

// Something to do on the engine thread, on its caller's stack.
struct loop_call {
    void (*run)(struct loop *l, void *arg);
    void *arg;
    struct loop_call *next;
    bool done, refused;
};

struct loop {
    struct loop_settings cfg;
    struct doorbell *bell;
    pthread_t thread;
    struct stats stats;

    pthread_mutex_t lock;    // guards these
    struct seq **inbox;      // [n_inbox] handed in, not yet taken
    struct seq **live;       // [n_live] all that have not ended, the inbox included
    struct seq *ahead_inbox; // the latest of those that are to be computed ahead; NULL
    uint32_t n_inbox, n_live, cap_live;
    uint64_t next_id;
    struct loop_call *calls; // not yet run
    pthread_cond_t called;   // one of them was
    bool stopping;
    bool failed; // the device is lost: see failure
    struct err failure;

    // Engine thread only.
    struct kv_pool pool;
    struct tree tree;
    struct tier *tier;               // NULL: nothing below the device
    struct seq **waiting, **running; // [cap_live], [n_parallel]
    uint32_t n_waiting, n_running;
    struct seq *ahead
        [AHEAD_MAX]; // [n_ahead] to be computed when there is nothing else to do, the latest last
    uint32_t n_ahead;
    cache_listener *listener; // of cache events; NULL: none
    void *listener_arg;
    uint64_t next_order, report_ns, start_ns;
    uint32_t n_failures; // device errors in a row
    struct step_scratch scratch;
};

bool loop_open(struct loop **out, const struct loop_settings *s, struct err *e);
void loop_stop(struct loop *l);  // ends all jobs with ERR_SHUTDOWN; may be called twice
void loop_close(struct loop *l); // stops, then frees; NULL is fine
// As engine_submit. logits: instead of an answer, the last position's logits [n_vocab] are written
// there before the stream ends.
bool loop_submit(struct loop *l, const struct job *job, float *logits, struct stream **out,
                 struct err *e);
bool loop_check(const struct loop *l, const struct job *job, struct err *e); // as submit does
bool loop_ahead(struct loop *l, const struct job *job, struct err *e);       // as engine_ahead
// Runs a function on the engine thread, between two steps, and waits for its end (at most about a
// second, as a step). ERR_SHUTDOWN when the engine stops.
bool loop_call(struct loop *l, void (*run)(struct loop *l, void *arg), void *arg, struct err *e);
bool loop_stopping(struct loop *l); // from any thread
// Takes the store of the disk tier (cfg.tiers.disk); from any thread, once.
void loop_attach(struct loop *l, struct store *store);
// True once the device is lost and every job is refused; *e then says why.
bool loop_lost(struct loop *l, struct err *e);
void loop_stats(const struct loop *l, struct engine_stats *out);
size_t loop_slots(const struct loop *l, struct engine_slot *out, size_t max);

// ---- between the loop's files: engine thread only ---------------------------------------------

// admit.c
void loop_admit(struct loop *l);
void loop_preempt(struct loop *l, struct seq *s);
// Running sequences whose next page another running one computes wait for it. True when s does.
bool loop_is_led(struct loop *l, struct seq *s);
// step.c: runs one step; false when no sequence can advance.
bool loop_step(struct loop *l);
// emit.c
void loop_emit(struct loop *l, struct seq *s, uint32_t out);
void loop_end(struct loop *l, struct seq *s, enum finish finish, const struct err *error);
void loop_end_gone(struct loop *l); // cancelled or out of time
// ahead.c
void loop_ahead_take(struct loop *l);  // what was handed in
void loop_ahead_yield(struct loop *l); // to those that wait
void loop_ahead_start(struct loop *l); // where nobody runs or waits
void loop_ahead_stop(struct loop *l);  // forgets all that wait
// n more pages for the one that runs; false: there are none that are worth less.
bool loop_ahead_room(struct loop *l, uint32_t n_pages);
void loop_ahead_end(struct loop *l, struct seq *s, enum ahead_end end);
static inline bool loop_ahead_runs(const struct loop *l)
{
    return l->n_running == 1 && l->running[0]->ahead;
}
// report.c
void loop_report(struct loop *l);
// The figures that others may ask for, as they are now.
void loop_gauges(struct loop *l);
void loop_progress(struct loop *l, struct seq *s, double ahead_tokens, uint32_t queue_position);
void loop_set_stage(struct seq *s, enum stream_stage stage);
