// How much KV memory an engine takes: decided before anything is taken. Pure arithmetic.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct plan_input {
    uint64_t free_bytes;    // of the device now
    uint64_t network_bytes; // weights and activations
    uint64_t scratch_bytes; // what steps take beside them
    uint64_t page_bytes;    // one KV page
    uint64_t kv_bytes;      // asked for; 0 = decide
    uint32_t page_tokens, n_ctx, n_parallel;
};

// Pages to take: at least enough for one request of n_ctx tokens. ERR_MEMORY gives the numbers and
// the flags that change them.
bool plan_pages(const struct plan_input *in, uint32_t *n_pages, struct err *e);
