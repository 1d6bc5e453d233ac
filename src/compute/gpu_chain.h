// Launches of few_* kernels, held back so that those that follow one another become one (gpu_chain.c).
#pragma once

#include "compute/gpu.h"

// A product of up to eight columns as its own kernel takes it.
struct gpu_few_launch {
    struct args_linear args;
    enum gpu_kernel kernel;
    uint32_t n_blocks, n_warps, shared_bytes; // a block a panel (of gate)
};

struct gpu_chain {
    struct gpu_few_launch held[CHAIN_PRODUCTS];
    uint32_t n;
};

// What chains want of the device, if it is one that has them; else use_chain becomes false.
bool gpu_chain_open(struct gpu *g, struct err *e);
// Launches l, or holds it back.
bool gpu_chain_add(struct gpu *g, struct gpu_chain *c, const struct gpu_few_launch *l,
                   struct err *e);
// Launches what is held: before any other launch, and before memory that it uses moves.
bool gpu_chain_flush(struct gpu *g, struct gpu_chain *c, struct err *e);
