// A loaded network on a device: weights and activation buffers, and the forward pass of one step.
// Knows nothing of requests, pages in use or sampling policy.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "compute/backend.h"
#include "model/arch.h"

struct net;

struct net_settings {
    uint32_t n_ctx;    // longest sequence; above model_config.n_ctx_train YaRN stretches the rope
    uint32_t max_rows; // rows of a step at most
    uint32_t max_out;  // rows with logits at most
    uint32_t n_top;    // candidates kept per row, <= TOPK_MAX
    void (*progress)(void *arg, const char *stage, uint64_t done, uint64_t total);
    void *progress_arg;
};

// Allocates and loads everything but the KV pages. Borrows b, g and c, which must outlive the net.
bool net_open(struct net **out, struct backend *b, const struct gguf *g,
              const struct model_config *c, const struct net_settings *s, struct err *e);
void net_close(struct net *n);
// Device bytes that net_open will take: weights and activations (for planning before taking).
size_t net_bytes(struct backend *b, const struct gguf *g, const struct model_config *c,
                 const struct net_settings *s);
// Device bytes that its steps take beside that and the pages of shape kv (n_pages does not count).
size_t net_scratch_bytes(struct backend *b, const struct gguf *g, const struct model_config *c,
                         const struct net_settings *s, const struct kv_shape *kv);
// The rope stretch in force; 1 = none.
float net_rope_factor(const struct net *n);
// Rope frequencies for n_ctx: fills freqs[head_dim / 2] and *mscale; returns the factor (1 = none).
// Source: YaRN (arXiv 2309.00071), as Hugging Face's rope_scaling "yarn" computes it.
float net_rope_freqs(const struct model_config *c, uint32_t n_ctx, float *freqs, float *mscale);

// Runs one step: keys and values of all rows go into kv, logits and candidates of the out rows are
// then ready to be read. batch->n_out may be 0.
bool net_step(struct net *n, struct dbuf *kv, const struct batch *batch, struct err *e);
// After net_step: candidates of out rows [0, n_out) / all logits [n_vocab] of one out row
// (adjusted as the batch asked).
bool net_read_topk(struct net *n, uint32_t n_out, struct topk_row *out, struct err *e);
bool net_read_logits(struct net *n, uint32_t out_row, float *logits, struct err *e);
