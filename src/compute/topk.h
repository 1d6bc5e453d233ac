// The end of a step on the host: a row of logits is adjusted, and its best candidates are found.
// Used by the reference and the CPU backend.
#pragma once

#include "compute/backend.h"

// Applies those adjustments of the batch that name out row `row`, in their order. The list is sorted
// by out row.
void topk_adjust(float *logits, uint32_t row, const struct batch *batch);

// The k largest of logits[n] into out, largest first, equal ones by smaller id; and the log of the
// sum of all exponentials. NaN counts as -infinity.
void topk_select(const float *logits, uint32_t n, uint32_t k, struct topk_row *out);
