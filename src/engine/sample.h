// Sampling a token from a row's candidates. Pure: same candidates, settings and random state give the
// same token on every machine.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compute/backend.h"
#include "engine/engine.h"

struct sample_rng {
    uint64_t state[2];
}; // seeded from sampling.seed; one per sequence
void sample_seed(struct sample_rng *r, uint64_t seed);

// Picks a token: greedy, or temperature after top_k, top_p and min_p (in this order, on the
// untempered distribution as stated in sample.c). row holds the largest logits and the log-sum-exp
// over the whole vocabulary. Returns false when the candidates cannot decide it exactly (top_p or
// "all" reaches beyond them): the caller then reads all logits and calls sample_pick_full.
bool sample_pick(const struct topk_row *row, const struct sampling *s, struct sample_rng *r,
                 int32_t *id);
int32_t sample_pick_full(const float *logits, uint32_t n_vocab, const struct sampling *s,
                         struct sample_rng *r, struct topk_row *scratch);

// The same where the row's tokens are all that may come; its lse is of no account.
int32_t sample_pick_among(const struct topk_row *row, const struct sampling *s,
                          struct sample_rng *r);

// The adjustments that penalties and biases ask for: counts holds how often each distinct token was
// generated or (repeat penalty) stood in the last tokens of prompt and answer.
struct token_count {
    int32_t id;
    uint32_t n_generated, n_seen;
};
// Writes at most max entries for out_row; returns how many.
size_t sample_adjust(const struct sampling *s, const struct token_count *counts, size_t n_counts,
                     const struct logit_bias *bias, size_t n_bias, uint32_t out_row,
                     struct logit_adjust *out, size_t max);
