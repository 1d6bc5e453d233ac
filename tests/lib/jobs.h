// Running jobs in tests: a loop over the fake network, and streams read to their end with a limit in
// time, so that a deadlock is a failed test and not a hanging one.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/loop.h"
#include "lib/fake_net.h"

struct rig_settings {
    uint32_t n_pages, page_tokens, n_ctx, n_parallel, n_queue, prefill_rows; // 0 = a usual value
    const struct tokenizer *tok;
};

struct rig {
    struct net *net;
    struct loop *loop;
};

void rig_open(struct rig *r, const struct rig_settings *s);
void rig_close(struct rig *r); // also checks that no page leaked and no batch was wrong

struct outcome {
    int32_t *ids; // owned
    uint32_t n;
    enum finish finish;
    struct err error;
    struct stream_status status; // after the end
};

struct job greedy_job(const int32_t *ids, size_t n_ids, uint32_t max_tokens);
// Submits; fails the test on an error.
struct stream *rig_submit(struct rig *r, const struct job *job);
// Reads a stream to its end and closes it; fails the test after 60 s.
struct outcome outcome_wait(struct stream *s);
void outcome_free(struct outcome *o);
// Submits and waits.
struct outcome rig_run(struct rig *r, const struct job *job);
// Waits until a condition on the stream's status holds; fails the test after 20 s.
void wait_stage(const struct stream *s, enum stream_stage stage);
void wait_steps(const struct net *n, uint32_t n_steps); // until that many steps are done
void wait_held(const struct net *n);                    // until a step waits for `hold`
// Does o hold exactly the tokens that the fake network gives for ids when nothing else runs?
bool outcome_is_alone(const struct outcome *o, const int32_t *ids, size_t n_ids);
// n tokens below FAKE_VOCAB that depend on seed only.
void fill_tokens(int32_t *ids, size_t n, uint64_t seed);
