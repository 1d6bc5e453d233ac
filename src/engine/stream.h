// A job's stream as the engine sees it: where tokens and progress go in. The consumer's side is in
// engine.h. Both ends hold a reference; whichever lets go last frees it.
//
// Threads: the ring has one producer (the engine thread) and one consumer. Status and end are behind
// a mutex that is held for a copy only.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/event.h"
#include "engine/engine.h"

// What wakes the engine thread. Streams may outlive the engine, so it is counted too.
struct doorbell {
    struct event event;
    atomic_uint refs;
};
struct doorbell *doorbell_open(struct err *e); // with one reference
struct doorbell *doorbell_ref(struct doorbell *d);
void doorbell_unref(struct doorbell *d); // NULL is fine
void doorbell_ring(struct doorbell *d);

// What stream_status is made from; the engine thread sets it as a whole.
struct stream_progress {
    uint32_t n_prompt, n_cached, n_processed, n_generated;
    uint32_t queue_position;
    struct cache_report cache;
    double eta_ms; // at the time it was set; < 0 = not known
};

// Opens with two references: the caller's (to be handed to the consumer) and the engine's.
bool stream_open(struct stream **out, struct doorbell *bell, uint32_t n_prompt, struct err *e);
void stream_unref(struct stream *s); // the engine's reference

bool stream_has_room(const struct stream *s);
// For a full ring: asks to be woken when the consumer has read. False when there is room after all.
bool stream_park(struct stream *s);
void stream_put(struct stream *s, const struct stream_event *token); // needs room
void stream_end(struct stream *s, enum finish finish, const struct err *error);
bool stream_is_cancelled(const struct stream *s);
void stream_set_stage(struct stream *s, enum stream_stage stage);
void stream_set_progress(struct stream *s, const struct stream_progress *p);
uint64_t stream_submit_ns(const struct stream *s);
