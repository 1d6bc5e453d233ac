// Jobs and what comes of them in tests, over any network: streams are read to their end with a limit
// in time, so that a deadlock is a failed test and not a hanging one.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"

struct outcome {
    int32_t *ids; // owned
    uint32_t n;
    enum finish finish;
    struct err error;
    struct stream_status status; // after the end
};

struct job greedy_job(const int32_t *ids, size_t n_ids, uint32_t max_tokens);
// Reads a stream to its end and closes it; fails the test after 200 s.
struct outcome outcome_wait(struct stream *s);
void outcome_free(struct outcome *o);
// Waits until the job is in this stage; fails the test after 60 s.
void wait_stage(const struct stream *s, enum stream_stage stage);
