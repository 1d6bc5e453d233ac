// A network behind engine/net.h that is exact and quick: every logit depends on all tokens before it,
// through values that were written into pages. A wrong page, a wrong order, a stale or a missing
// value changes what comes out. Linked instead of the real one.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/net.h"

enum { FAKE_VOCAB = 300, FAKE_OUT = 64, FAKE_LOG = 256 };

struct fake_step {
    int32_t first; // token of its first row
    uint32_t n_rows;
};

struct net {
    uint32_t n_pages, page_tokens;
    uint64_t *slots; // [n_pages][page_tokens]
    float logits[FAKE_OUT][FAKE_VOCAB];
    atomic_uint n_steps, n_rows, max_seqs;
    atomic_uint delay_us;  // of a step
    atomic_uint n_failing; // this many next steps fail
    atomic_uint n_spoilt;  // this many next logits are no numbers
    atomic_bool hold;      // steps wait while it is set
    atomic_uint n_held;    // steps that wait now
    atomic_uint n_wrong;   // batches that break net.h's rules
    atomic_bool watch;     // count steps after which the engine thread allocates before the next
    atomic_uint n_allocating;
    struct fake_step log[FAKE_LOG]; // the first steps; to be read when none is under way
};

struct net *fake_net_open(uint32_t n_pages, uint32_t page_tokens);
void fake_net_close(struct net *n);

// The same arithmetic without pages: n_new greedy tokens after ids.
void fake_answer(const int32_t *ids, size_t n_ids, uint32_t n_new, int32_t *out);
// All logits after ids.
void fake_logits(const int32_t *ids, size_t n_ids, float *logits);
