// OpenAI JSON out: errors, heads of answers and chunks, usage, timings, progress. Writers into a
// buffer; no state, no sockets.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "engine/engine.h"

struct response_head {
    const char *id; // "chatcmpl-..." or "cmpl-..."
    bool chat;      // otherwise a text completion
    int64_t created_unix;
    struct str model;
};

struct response_times { // what the engine cannot know, ms
    double queue_in_ms; // last byte of the body to the queue
};

// {"error": {...}}. n_prompt and n_ctx are added to "too long" when n_prompt is not 0.
void response_error(struct buf *b, const struct err *e, uint32_t n_prompt, uint32_t n_ctx);
// {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":... without the closing
// brace.
void response_open(struct buf *b, const struct response_head *h, bool chunk);
// "usage":{...}
void response_usage(struct buf *b, const struct stream_status *st, uint32_t n_reasoning, bool chat);
// "timings":{...}
void response_timings(struct buf *b, const struct stream_status *st,
                      const struct response_times *t);
// "submind":{"cache":{...}}: where the prompt's tokens came from, and why no more were cached
void response_cache(struct buf *b, const struct stream_status *st, const char *cache_type);
// "prompt_progress":{...}
void response_progress(struct buf *b, const struct stream_status *st);
// A number that JSON can hold: NaN and infinities become the bound.
void response_number(struct buf *b, double v);
