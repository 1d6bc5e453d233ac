// The engine thread's life, and the hand-over of jobs to it.
// Invariant: a sequence is in `live` from hand-over to its end, and in exactly one of inbox, waiting
// and running; after the hand-over only the engine thread looks inside it.
#include "engine/loop.h"

#include <assert.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

enum { STOPS_MAX = 16, BIAS_MAX = 1024, DRAIN_MS = 2000 };

// ---- checks of a job, on the submitting thread --------------------------------------------------

static bool check_tokens(const struct loop *l, const struct job *job, struct err *e)
{
    if (job->n_ids == 0) return err_set(e, ERR_INPUT, "the prompt is empty");
    for (size_t i = 0; i < job->n_ids; i++)
        if (job->ids[i] < 0 || (uint32_t)job->ids[i] >= l->cfg.n_vocab)
            return err_set(e, ERR_INPUT, "prompt token %zu is %d; the vocabulary ends at %u", i,
                           job->ids[i], l->cfg.n_vocab - 1);
    for (size_t i = 0; i < job->n_bias; i++)
        if (job->bias[i].token < 0 || (uint32_t)job->bias[i].token >= l->cfg.n_vocab ||
            isnan(job->bias[i].bias))
            return err_set(e, ERR_INPUT, "logit_bias of token %d: no such token or no number",
                           job->bias[i].token);
    return true;
}

static bool check_size(const struct loop *l, const struct job *job, bool logits, struct err *e)
{
    const uint64_t n_new = logits ? 0 : 1; // logits need no room for an answer
    if (job->n_ids + n_new > l->cfg.n_ctx)
        return err_set(e, ERR_TOO_LONG,
                       "the request exceeds the available context size: %zu prompt tokens, %u "
                       "context; shorten it or start with a larger --ctx",
                       job->n_ids, l->cfg.n_ctx);
    const uint64_t room = (uint64_t)l->cfg.n_pages * l->cfg.page_tokens;
    if (job->n_ids + n_new > room)
        return err_set(e, ERR_MEMORY,
                       "%zu prompt tokens can never fit the KV memory of %llu tokens; raise "
                       "--kv-memory",
                       job->n_ids, (unsigned long long)room);
    return true;
}

static bool check_job(const struct loop *l, const struct job *job, bool logits, struct err *e)
{
    if (job->n_stops > STOPS_MAX)
        return err_set(e, ERR_INPUT, "%zu stop strings; at most %d are allowed", job->n_stops,
                       STOPS_MAX);
    if (job->n_bias > BIAS_MAX)
        return err_set(e, ERR_INPUT, "%zu entries in logit_bias; at most %d are allowed",
                       job->n_bias, BIAS_MAX);
    if (job->n_top_logprobs > TOP_LOGPROBS_MAX)
        return err_set(e, ERR_INPUT, "top_logprobs is %u; at most %d are given",
                       job->n_top_logprobs, TOP_LOGPROBS_MAX);
    if ((job->form.answer != NULL || job->form.call != NULL) && l->cfg.tok == NULL)
        return err_set(e, ERR_UNSUPPORTED, "without a vocabulary no form can be asked for");
    return check_size(l, job, logits, e) && check_tokens(l, job, e);
}

bool loop_check(const struct loop *l, const struct job *job, struct err *e)
{
    return check_job(l, job, false, e);
}

static bool hand_over(struct loop *l, struct seq *s, struct err *e)
{
    bool ok = false;
    pthread_mutex_lock(&l->lock);
    if (l->failed) {
        err_set(e, l->failure.code, "%s", l->failure.msg);
    } else if (l->stopping) {
        err_set(e, ERR_SHUTDOWN, "the engine is stopping");
    } else if (l->n_live >= l->cap_live) {
        err_set(e, ERR_FULL, "the queue is full: %u requests run or wait", l->n_live);
        if (e != NULL) e->retry_after_ms = stats_retry_ms(&l->stats, l->n_live, l->cfg.n_parallel);
    } else {
        s->id = ++l->next_id;
        l->inbox[l->n_inbox++] = s;
        l->live[l->n_live++] = s;
        ok = true;
    }
    pthread_mutex_unlock(&l->lock);
    if (ok) doorbell_ring(l->bell);
    return ok;
}

bool loop_submit(struct loop *l, const struct job *job, float *logits, struct stream **out,
                 struct err *e)
{
    if (!check_job(l, job, logits != NULL, e)) return false;
    struct seq *s;
    if (!seq_open(&s, job, l->cfg.n_ctx, l->cfg.n_vocab, l->cfg.page_tokens, e)) return false;
    struct stream *stream;
    if (!stream_open(&stream, l->bell, s->n_prompt, e)) {
        seq_close(s);
        return false;
    }
    s->stream = stream;
    s->logits = logits;
    if (job->timeout_ms > 0)
        s->deadline_ns = stream_submit_ns(stream) + (uint64_t)job->timeout_ms * 1000000;
    if (!hand_over(l, s, e)) {
        if (e == NULL || e->code == ERR_FULL) stats_refused(&l->stats);
        seq_close(s);
        stream_unref(stream);
        return false;
    }
    *out = stream;
    return true;
}

bool loop_call(struct loop *l, void (*run)(struct loop *l, void *arg), void *arg, struct err *e)
{
    struct loop_call c = {.run = run, .arg = arg};
    pthread_mutex_lock(&l->lock);
    c.refused = l->stopping;
    if (!c.refused) {
        c.next = l->calls;
        l->calls = &c;
        doorbell_ring(l->bell);
        while (!c.done) pthread_cond_wait(&l->called, &l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return !c.refused || err_set(e, ERR_SHUTDOWN, "the engine is stopping");
}

// ---- the engine thread --------------------------------------------------------------------------

// Calls that came in. refuse: the engine stops, nothing is run any more.
static void take_calls(struct loop *l, bool refuse)
{
    pthread_mutex_lock(&l->lock);
    while (l->calls != NULL) {
        struct loop_call *c = l->calls;
        l->calls = c->next;
        pthread_mutex_unlock(&l->lock);
        if (!refuse) c->run(l, c->arg);
        pthread_mutex_lock(&l->lock);
        c->refused = refuse;
        c->done = true;
        pthread_cond_broadcast(&l->called);
    }
    pthread_mutex_unlock(&l->lock);
}

// False when the engine is to stop.
static bool take_inbox(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    for (uint32_t i = 0; i < l->n_inbox; i++) l->waiting[l->n_waiting++] = l->inbox[i];
    l->n_inbox = 0;
    const bool go_on = !l->stopping;
    pthread_mutex_unlock(&l->lock);
    return go_on;
}

static void end_all(struct loop *l, const struct err *error)
{
    while (l->n_running > 0) loop_end(l, l->running[0], FINISH_ERROR, error);
    while (l->n_waiting > 0) loop_end(l, l->waiting[0], FINISH_ERROR, error);
    loop_ahead_stop(l);
}

// Milliseconds until the next deadline, -1 = none.
static int next_deadline_ms(const struct loop *l)
{
    uint64_t first = UINT64_MAX;
    for (uint32_t i = 0; i < l->n_running; i++)
        if (l->running[i]->deadline_ns > 0 && l->running[i]->deadline_ns < first)
            first = l->running[i]->deadline_ns;
    for (uint32_t i = 0; i < l->n_waiting; i++)
        if (l->waiting[i]->deadline_ns > 0 && l->waiting[i]->deadline_ns < first)
            first = l->waiting[i]->deadline_ns;
    const int tier_ms = tier_timeout_ms(l->tier);
    if (first == UINT64_MAX) return tier_ms;
    const uint64_t now = clock_ns();
    const uint64_t ms = first > now ? (first - now) / 1000000 + 1 : 0;
    if (tier_ms >= 0 && (uint64_t)tier_ms < ms) return tier_ms;
    return ms > 1000000 ? 1000000 : (int)ms;
}

static void sleep_until_needed(struct loop *l)
{
    struct pollfd p = {.fd = l->bell->event.fd, .events = POLLIN};
    poll(&p, 1, next_deadline_ms(l));
    event_clear(&l->bell->event);
}

// Who waits for pages to come back waits for a first token, too: what came would else be copied down again before the
// first step.
static enum tier_load load_of(const struct loop *l)
{
    bool urgent = l->n_waiting > 0;
    if (loop_ahead_runs(l) && !urgent) return TIER_IDLE;
    for (uint32_t i = 0; i < l->n_running; i++)
        if (l->running[i]->n_generated == 0) urgent = true;
    return urgent ? TIER_URGENT : l->n_running > 0 ? TIER_BUSY : TIER_IDLE;
}

static void *run(void *arg)
{
    struct loop *l = arg;
    while (take_inbox(l)) {
        l->tree.now_s = (double)(clock_ns() - l->start_ns) / 1e9;
        loop_ahead_take(l);
        loop_ahead_yield(l);
        take_calls(l, false);
        loop_end_gone(l);
        if (l->failed) end_all(l, &l->failure); // written by this thread only
        const struct speed speed = stats_speed(&l->stats);
        tier_turn(l->tier, load_of(l), speed.bulk_tps, speed.bulk_rows);
        loop_admit(l);
        const bool stepped = loop_step(l);
        loop_report(l);
        if (!stepped) sleep_until_needed(l);
    }
    struct err error = {0};
    err_set(&error, ERR_SHUTDOWN, "the server is stopping");
    end_all(l, &error);
    take_calls(l, true);
    tier_drain(l->tier, DRAIN_MS);
    return NULL;
}

// ---- open and close -----------------------------------------------------------------------------

static bool alloc_scratch(struct loop *l)
{
    struct step_scratch *x = &l->scratch;
    const struct loop_settings *c = &l->cfg;
    const size_t n = c->n_parallel, ctx_pages = (c->n_ctx + c->page_tokens - 1) / c->page_tokens;
    x->entries = calloc(n, sizeof *x->entries);
    x->rows = calloc(n, sizeof *x->rows);
    x->items = calloc(n, sizeof *x->items);
    x->tokens = calloc(c->max_rows, sizeof *x->tokens);
    x->seqs = calloc(n, sizeof *x->seqs);
    x->pages = calloc(n * ctx_pages, sizeof *x->pages);
    x->out_rows = calloc(n, sizeof *x->out_rows);
    x->topk = calloc(n, sizeof *x->topk);
    x->logits = calloc(c->n_vocab, sizeof *x->logits);
    l->cap_live = c->n_parallel + c->n_queue;
    l->inbox = calloc(l->cap_live, sizeof(struct seq *));
    l->live = calloc(l->cap_live, sizeof(struct seq *));
    l->waiting = calloc(l->cap_live, sizeof(struct seq *));
    l->running = calloc(n, sizeof(struct seq *));
    return x->entries != NULL && x->rows != NULL && x->items != NULL && x->tokens != NULL &&
           x->seqs != NULL && x->pages != NULL && x->out_rows != NULL && x->topk != NULL &&
           x->logits != NULL && l->inbox != NULL && l->live != NULL && l->waiting != NULL &&
           l->running != NULL;
}

static void free_all(struct loop *l)
{
    struct step_scratch *x = &l->scratch;
    tier_close(l->tier);
    tree_deinit(&l->tree);
    assert(l->pool.n_free == l->pool.n_pages);
    kv_deinit(&l->pool);
    free(x->entries);
    free(x->rows);
    free(x->items);
    free(x->tokens);
    free(x->seqs);
    free(x->pages);
    free(x->out_rows);
    free(x->topk);
    free(x->logits);
    free(x->adjust);
    free(l->inbox);
    free(l->live);
    free(l->waiting);
    free(l->running);
    doorbell_unref(l->bell);
    stats_deinit(&l->stats);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->called);
    free(l);
}

static bool open_tiers(struct loop *l, struct err *e)
{
    struct tier_settings s = l->cfg.tiers;
    s.tree = &l->tree;
    s.bell = l->bell;
    s.stats = &l->stats;
    s.n_parallel = l->cfg.n_parallel;
    s.n_ctx = l->cfg.n_ctx;
    return tier_open(&l->tier, &s, e);
}

bool loop_open(struct loop **out, const struct loop_settings *s, struct err *e)
{
    assert(s->max_rows >= s->n_parallel && s->n_parallel > 0 && s->prefill_rows > 0);
    struct loop *l = calloc(1, sizeof *l);
    if (l == NULL) return err_set(e, ERR_MEMORY, "no memory for the scheduler");
    l->cfg = *s;
    l->start_ns = clock_ns();
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->called, NULL);
    stats_init(&l->stats);
    l->stats.s.pages_total = s->n_pages;
    l->bell = doorbell_open(e);
    bool ok = l->bell != NULL && kv_init(&l->pool, s->n_pages, s->page_tokens, e) &&
              tree_init(&l->tree, &l->pool, e);
    if (ok) {
        if (s->attend_tokens > 0) l->tree.attend_tokens = s->attend_tokens;
        l->tree.quota_pages = s->quota_pages;
        l->tree.exempt = seq_public_salt();
    }
    ok = ok && open_tiers(l, e);
    if (ok && !alloc_scratch(l)) ok = err_set(e, ERR_MEMORY, "no memory for the scheduler");
    if (ok && pthread_create(&l->thread, NULL, run, l) != 0)
        ok = err_set(e, ERR_MEMORY, "cannot start the engine thread");
    if (!ok) {
        free_all(l);
        return false;
    }
    *out = l;
    return true;
}

void loop_stop(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    const bool first = !l->stopping;
    l->stopping = true;
    pthread_mutex_unlock(&l->lock);
    if (!first) return;
    doorbell_ring(l->bell);
    pthread_join(l->thread, NULL);
}

void loop_close(struct loop *l)
{
    if (l == NULL) return;
    loop_stop(l);
    free_all(l);
}

bool loop_stopping(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    const bool stopping = l->stopping;
    pthread_mutex_unlock(&l->lock);
    return stopping;
}

void loop_attach(struct loop *l, struct store *store)
{
    tier_attach(l->tier, store);
}

// ---- figures ------------------------------------------------------------------------------------

bool loop_lost(struct loop *l, struct err *e)
{
    pthread_mutex_lock(&l->lock);
    const bool lost = l->failed;
    if (lost) err_set(e, l->failure.code, "%s", l->failure.msg);
    pthread_mutex_unlock(&l->lock);
    return lost;
}

void loop_stats(const struct loop *l, struct engine_stats *out)
{
    stats_copy(&l->stats, out);
}

size_t loop_slots(const struct loop *cl, struct engine_slot *out, size_t max)
{
    struct loop *l = (struct loop *)(uintptr_t)cl; // the mutex is not part of the value
    pthread_mutex_lock(&l->lock);
    const size_t n = l->n_live < max ? l->n_live : max;
    for (size_t i = 0; i < n; i++) {
        out[i].job_id = l->live[i]->id;
        out[i].priority = l->live[i]->priority;
        stream_status(l->live[i]->stream, &out[i].status);
    }
    pthread_mutex_unlock(&l->lock);
    return n;
}
