// The forward pass of a dense decoder-only transformer as a list of ops over a network's buffers.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "compute/backend.h"
#include "model/arch.h"

// A layer's weights by role; NULL where the architecture has none.
struct layer_weights {
    struct dbuf *at[TENSOR_ROLE_COUNT];
};

// Everything that the ops read and write. Owned by the net.
struct forward {
    struct dbuf
        *weights[TENSOR_ATTN_NORM]; // of the model, by role; output is the embedding if tied
    struct layer_weights *layers;   // [n_layers]
    struct dbuf *freqs;             // [head_dim / 2]
    float mscale;                   // YaRN's temperature, on q and on k
    struct dbuf *x;                 // [max_rows][n_embd] the residual stream
    struct dbuf *h;                 // [max_rows][n_embd] into and out of the blocks
    struct dbuf *q, *attn;          // [max_rows][n_heads * head_dim]
    struct dbuf *k, *v;             // [max_rows][n_kv_heads * head_dim]
    struct dbuf *gate, *up;         // [max_rows][n_ff]
    struct dbuf *last, *last_norm;  // [max_out][n_embd] the rows that want logits
    struct dbuf *logits;            // [max_out][n_vocab]
    struct dbuf *topk;              // [max_out]
};

// The step's ops. The first n_kv leave every key and value in its page, the first n_body run over all rows of
// the batch; the rest make logits and candidates of those that want them.
struct forward_ops {
    struct op *ops; // room for forward_max_ops, the caller's
    uint32_t n_kv, n_body, n_all;
};

uint32_t forward_max_ops(const struct model_config *c);
// Writes the list; the KV buffer and the number of out rows are set for each step by forward_set. early: rows
// without logits end with the last layer's attention, for steps where these are most rows.
void forward_build(struct forward_ops *out, const struct model_config *c, const struct forward *f,
                   bool early);
void forward_set(struct forward_ops *list, struct dbuf *kv, uint32_t n_out);
