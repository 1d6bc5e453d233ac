// What of a model fits where, how fast it can be at most, and how long a context fits. Pure arithmetic.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct sizing_model {
    struct str name, type;
    uint64_t file_bytes, n_params;
    uint32_t n_layers, n_kv_heads, head_dim, n_embd, n_ff, n_vocab, n_ctx_train;
};

// One memory that could hold the model.
struct sizing_place {
    char name[96];       // "GPU memory (GTT)", "memory"
    bool is_cpu;         // keeps keys and values in 8 bits, in a form of its own
    uint64_t free_bytes; // that may be used
    double read_bytes_s; // of the device that works there; 0: not known
    double flop_s;       // in prefill; 0: not known
    const char *how;     // where the two rates come from
};

struct sizing_wish {
    uint32_t n_ctx, n_parallel;
};

struct sizing {
    uint64_t weights_bytes, scratch_bytes;
    uint64_t kv_f16_bytes, kv_q8_bytes, kv_cpu_bytes; // of a token: on a GPU, on a CPU
};

// With keys and values as the device keeps them unless told otherwise: f16 on a GPU, 8 bits on a CPU.
struct sizing_fit {
    uint64_t kv_bytes; // of a token
    uint64_t one_bytes,
        all_bytes; // weights, scratch, keys and values of one request / of all, nothing shared
    bool one_fits, all_fit;
    uint64_t longest;                 // tokens of one request; 0: not even the weights fit
    uint64_t longest_q8;              // the same with --kv-type q8_0: more on a GPU
    double decode_empty, decode_full; // tokens per second at most; 0: not known
    double prefill_s;                 // of n_ctx tokens, attention included; 0: not known
};

void sizing_compute(const struct sizing_model *m, struct sizing *out);
void sizing_fit_in(const struct sizing_model *m, const struct sizing_wish *w,
                   const struct sizing *s, const struct sizing_place *p, struct sizing_fit *out);
