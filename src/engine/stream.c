// A ring of tokens with one producer and one consumer, an eventfd that says "look again", and a
// status that is copied under a mutex.
//
// Invariants: the producer never writes to a full ring (it asks first and parks the sequence); the
// end is kept beside the ring, so it always fits and comes after all tokens; nothing here waits.
#include "engine/stream.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { RING = 256 }; // tokens; a consumer that is further behind stops its own sequence

// A token event without the room that only an end needs.
struct token_event {
    int32_t id;
    float logprob;
    uint32_t n_top;
    int32_t top_ids[TOP_LOGPROBS_MAX];
    float top_logprobs[TOP_LOGPROBS_MAX];
};

struct stream {
    atomic_uint refs;
    atomic_bool cancelled;
    struct event event;    // to the consumer
    struct doorbell *bell; // to the engine

    // Free-running counters. The producer stores head with release after the entry is written, the
    // consumer stores tail with release after it was read; each loads the other's with acquire.
    atomic_uint head, tail;
    atomic_bool parked; // the producer waits for room
    bool end_taken;     // consumer only

    pthread_mutex_t lock; // guards what follows
    bool ended;
    enum finish finish;
    struct err error;
    struct stream_progress progress;
    enum stream_stage stage;
    uint64_t submit_ns, stage_ns, progress_ns, first_ns;
    uint64_t spent_ns[STAGE_DONE + 1];

    struct token_event ring[RING];
};

struct doorbell *doorbell_open(struct err *e)
{
    struct doorbell *d = calloc(1, sizeof *d);
    if (d == NULL) {
        err_set(e, ERR_MEMORY, "no memory for the engine's queue");
        return NULL;
    }
    if (!event_open(&d->event, e)) {
        free(d);
        return NULL;
    }
    atomic_init(&d->refs, 1);
    return d;
}

struct doorbell *doorbell_ref(struct doorbell *d)
{
    atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
    return d;
}

void doorbell_unref(struct doorbell *d)
{
    // acq_rel: whoever frees has seen everybody's last use.
    if (d == NULL || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1) return;
    event_close(&d->event);
    free(d);
}

void doorbell_ring(struct doorbell *d)
{
    event_signal(&d->event);
}

bool stream_open(struct stream **out, struct doorbell *bell, uint32_t n_prompt, struct err *e)
{
    struct stream *s = calloc(1, sizeof *s);
    if (s == NULL) return err_set(e, ERR_MEMORY, "no memory for a stream");
    if (!event_open(&s->event, e)) {
        free(s);
        return false;
    }
    pthread_mutex_init(&s->lock, NULL);
    atomic_init(&s->refs, 2);
    s->bell = doorbell_ref(bell);
    s->progress = (struct stream_progress){.n_prompt = n_prompt, .eta_ms = -1};
    s->submit_ns = s->stage_ns = s->progress_ns = clock_ns();
    *out = s;
    return true;
}

void stream_unref(struct stream *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    event_close(&s->event);
    doorbell_unref(s->bell);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

// ---- the engine's side ----------------------------------------------------------------------

bool stream_has_room(const struct stream *s)
{
    const unsigned head = atomic_load_explicit(&s->head, memory_order_relaxed);
    const unsigned tail = atomic_load_explicit(&s->tail, memory_order_acquire);
    return head - tail < RING;
}

bool stream_park(struct stream *s)
{
    // Flag first, then look again: the consumer advances the tail first, then looks at the flag
    // (both sequentially consistent), so one of the two sees the other.
    atomic_store(&s->parked, true);
    const unsigned head = atomic_load_explicit(&s->head, memory_order_relaxed);
    if (head - atomic_load(&s->tail) == RING) return true;
    atomic_store(&s->parked, false);
    return false;
}

void stream_put(struct stream *s, const struct stream_event *token)
{
    assert(stream_has_room(s) && token->n_top <= TOP_LOGPROBS_MAX);
    const unsigned head = atomic_load_explicit(&s->head, memory_order_relaxed);
    struct token_event *t = &s->ring[head % RING];
    t->id = token->id;
    t->logprob = token->logprob;
    t->n_top = token->n_top;
    for (uint32_t i = 0; i < token->n_top; i++) {
        t->top_ids[i] = token->top[i].id;
        t->top_logprobs[i] = token->top[i].logprob;
    }
    atomic_store_explicit(&s->head, head + 1, memory_order_release);
    event_signal(&s->event);
}

void stream_end(struct stream *s, enum finish finish, const struct err *error)
{
    stream_set_stage(s, STAGE_DONE);
    pthread_mutex_lock(&s->lock);
    s->ended = true;
    s->finish = finish;
    if (error != NULL) s->error = *error;
    pthread_mutex_unlock(&s->lock);
    event_signal(&s->event);
}

bool stream_is_cancelled(const struct stream *s)
{
    return atomic_load_explicit(&s->cancelled, memory_order_relaxed);
}

void stream_set_stage(struct stream *s, enum stream_stage stage)
{
    const uint64_t now = clock_ns();
    pthread_mutex_lock(&s->lock);
    s->spent_ns[s->stage] += now - s->stage_ns;
    s->stage = stage;
    s->stage_ns = now;
    pthread_mutex_unlock(&s->lock);
}

void stream_set_progress(struct stream *s, const struct stream_progress *p)
{
    const uint64_t now = clock_ns();
    pthread_mutex_lock(&s->lock);
    s->progress = *p;
    s->progress_ns = now;
    if (s->first_ns == 0 && p->n_generated > 0) s->first_ns = now;
    pthread_mutex_unlock(&s->lock);
}

uint64_t stream_submit_ns(const struct stream *s)
{
    return s->submit_ns; // written before the stream is shared
}

// ---- the consumer's side --------------------------------------------------------------------

static bool take_token(struct stream *s, struct stream_event *out)
{
    const unsigned tail = atomic_load_explicit(&s->tail, memory_order_relaxed);
    if (atomic_load_explicit(&s->head, memory_order_acquire) == tail) return false;
    const struct token_event *t = &s->ring[tail % RING];
    *out = (struct stream_event){
        .kind = EVENT_TOKEN, .id = t->id, .logprob = t->logprob, .n_top = t->n_top};
    for (uint32_t i = 0; i < t->n_top; i++) {
        out->top[i].id = t->top_ids[i];
        out->top[i].logprob = t->top_logprobs[i];
    }
    atomic_store(&s->tail, tail + 1);
    if (atomic_exchange(&s->parked, false)) doorbell_ring(s->bell);
    return true;
}

static bool take_end(struct stream *s, struct stream_event *out)
{
    if (s->end_taken) return false;
    pthread_mutex_lock(&s->lock);
    const bool ended = s->ended;
    if (ended)
        *out = (struct stream_event){.kind = EVENT_END, .finish = s->finish, .error = s->error};
    pthread_mutex_unlock(&s->lock);
    return ended;
}

// The end is looked for first and the ring once more after it: tokens put before the end are seen.
static bool take(struct stream *s, struct stream_event *out)
{
    if (take_token(s, out)) return true;
    struct stream_event end;
    if (!take_end(s, &end)) return false;
    if (take_token(s, out)) return true;
    s->end_taken = true;
    *out = end;
    return true;
}

bool stream_next(struct stream *s, struct stream_event *out)
{
    if (take(s, out)) return true;
    // Clear, then look again: a token that came in between has signalled before or after the clear.
    event_clear(&s->event);
    if (!take(s, out)) return false;
    event_signal(&s->event); // there may be more; the descriptor stays readable
    return true;
}

int stream_fd(const struct stream *s)
{
    return s->event.fd;
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

void stream_status(const struct stream *cs, struct stream_status *out)
{
    struct stream *s = (struct stream *)(uintptr_t)cs; // the mutex is not part of the value
    const uint64_t now = clock_ns();
    pthread_mutex_lock(&s->lock);
    uint64_t spent[STAGE_DONE + 1];
    memcpy(spent, s->spent_ns, sizeof spent);
    if (now > s->stage_ns) spent[s->stage] += now - s->stage_ns;
    const struct stream_progress p = s->progress;
    *out = (struct stream_status){
        .stage = s->stage,
        .n_prompt = p.n_prompt,
        .n_cached = p.n_cached,
        .n_processed = p.n_processed,
        .n_generated = p.n_generated,
        .queue_position = p.queue_position,
        .ttft_ms = s->first_ns == 0 ? 0 : ms(s->first_ns - s->submit_ns),
        .eta_ms = p.eta_ms,
        .cache = p.cache,
    };
    if (p.eta_ms > 0 && now > s->progress_ns) out->eta_ms -= ms(now - s->progress_ns);
    pthread_mutex_unlock(&s->lock);
    if (p.eta_ms >= 0 && out->eta_ms < 0) out->eta_ms = 0;
    out->queued_ms = ms(spent[STAGE_QUEUED] + spent[STAGE_WAITING_PREFIX]);
    out->prefill_ms = ms(spent[STAGE_PREFILL]);
    out->generate_ms = ms(spent[STAGE_GENERATE]);
    out->total_ms = out->queued_ms + out->prefill_ms + out->generate_ms;
}

void stream_cancel(struct stream *s)
{
    atomic_store_explicit(&s->cancelled, true, memory_order_relaxed);
    doorbell_ring(s->bell); // a system call: the flag is visible to whoever wakes from it
}

void stream_close(struct stream *s)
{
    if (s == NULL) return;
    stream_cancel(s);
    stream_unref(s);
}
