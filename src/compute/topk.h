// The end of a step on the host: a row of logits is adjusted, and its best candidates are found.
// Used by the reference and the CPU backend.
#pragma once

#include "compute/backend.h"

// The two passes over all logits, which a backend may have faster.
struct topk_scan {
    // The first i >= from with x[i] > bound; n when there is none.
    uint32_t (*find_above)(const float *x, uint32_t from, uint32_t n, float bound);
    // Sum of exp(x[i] - max); NaN and -infinity add nothing.
    double (*sum_exp)(const float *x, uint32_t n, float max);
};

// The same in plain C.
uint32_t topk_find_above(const float *x, uint32_t from, uint32_t n, float bound);
double topk_sum_exp(const float *x, uint32_t n, float max);

// Applies those adjustments of the batch that name out row `row`, in their order. The list is sorted
// by out row.
void topk_adjust(float *logits, uint32_t row, const struct batch *batch);

// The k largest of logits[n] into out, largest first, equal ones by smaller id; and the log of the
// sum of all exponentials. NaN counts as -infinity.
void topk_select(const struct topk_scan *scan, const float *logits, uint32_t n, uint32_t k,
                 struct topk_row *out);
