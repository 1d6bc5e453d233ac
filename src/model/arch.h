// What a GGUF's metadata says about the network: one struct for all dense transformer variants, read
// by a table per architecture. A new architecture is a row in arch.c, not a branch in the forward pass.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"

enum rope_kind { ROPE_NEOX, ROPE_NORM }; // pairs (i, i + n/2) or (2i, 2i + 1)

// Sampling values; a field is set when has_X. Sources: GGUF general.sampling.*, the architecture table.
struct sampling_defaults {
    bool has_temperature, has_top_k, has_top_p, has_min_p, has_repeat_penalty;
    float temperature, top_p, min_p, repeat_penalty;
    uint32_t top_k;
};

struct arch_traits {
    const char *name; // general.architecture
    enum rope_kind rope;
    bool qk_norm; // RMS norm of every q and k head before rope
    bool qkv_bias;
    bool moe;                                 // named, not yet supported
    struct sampling_defaults thinking, plain; // what the model's makers recommend
};

struct model_config {
    const struct arch_traits *traits;
    struct str name; // general.name, may be empty
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab;
    uint32_t n_ctx_train;
    float rms_eps;
    float rope_base;
    float rope_factor;                 // YaRN factor from %s.rope.scaling.*; 1 = none
    uint32_t rope_orig_ctx;            // what rope_factor stretches; n_ctx_train when absent
    const float *rope_divisors;        // [head_dim / 2], each frequency's divisor; NULL = none
    bool tied_embeddings;              // no output.weight: token_embd serves for both
    uint32_t file_type;                // general.file_type; UINT32_MAX when absent
    uint64_t n_params;                 // counted over tensors
    struct sampling_defaults sampling; // general.sampling.*
};

// The tensors of a dense transformer by their role; those from TENSOR_ATTN_NORM on are in every layer.
enum tensor_role {
    TENSOR_TOKEN_EMBD,
    TENSOR_OUTPUT_NORM,
    TENSOR_OUTPUT,
    TENSOR_ROPE_FREQS,
    TENSOR_ATTN_NORM,
    TENSOR_ATTN_Q,
    TENSOR_ATTN_K,
    TENSOR_ATTN_V,
    TENSOR_ATTN_Q_BIAS,
    TENSOR_ATTN_K_BIAS,
    TENSOR_ATTN_V_BIAS,
    TENSOR_ATTN_Q_NORM,
    TENSOR_ATTN_K_NORM,
    TENSOR_ATTN_OUTPUT,
    TENSOR_FFN_NORM,
    TENSOR_FFN_GATE,
    TENSOR_FFN_UP,
    TENSOR_FFN_DOWN,
    TENSOR_ROLE_COUNT
};

// Reads and checks the configuration, including that every tensor of every layer is there with the
// right shape and none is left over that the forward pass would not use; a file without tensors
// passes only when vocab_only. Borrows from g.
bool arch_read(struct model_config *out, const struct gguf *g, bool vocab_only, struct err *e);
// The tensor of a role (layer counts for those of layers only); NULL when the model has none.
const struct gguf_tensor *arch_tensor(const struct gguf *g, enum tensor_role role, uint32_t layer);
// A short name such as "Q4_K_M" for general.file_type; "mixed" when unknown.
const char *arch_file_type_name(uint32_t file_type);
