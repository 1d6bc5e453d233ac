// The network of the papers, once: pre-norm blocks of grouped-query attention with rotary positions
// and a gated feed-forward, as Llama, Qwen2 and Qwen3 share it. What an architecture lacks (q/k norm,
// bias) is a NULL weight, what differs (pairing of the rotation) an argument.
// Not here: formats, devices, fusion. The backend knows those.
#include "engine/forward.h"

#include <math.h>

enum { OPS_A_LAYER = 11, OPS_AROUND = 6 };

uint32_t forward_max_ops(const struct model_config *c)
{
    return OPS_AROUND + OPS_A_LAYER * c->n_layers;
}

static struct op *embed(struct op *o, struct dbuf *table, struct dbuf *out)
{
    *o = (struct op){.kind = OP_EMBED, .embed = {table, out}};
    return o + 1;
}

static struct op *rms_norm(struct op *o, struct dbuf *x, struct dbuf *w, struct dbuf *out,
                           float eps)
{
    *o = (struct op){.kind = OP_RMS_NORM, .rms_norm = {x, w, out, eps, 0}};
    return o + 1;
}

static struct op *linear(struct op *o, struct dbuf *w, struct dbuf *x, struct dbuf *out)
{
    *o = (struct op){.kind = OP_LINEAR,
                     .linear = {.x = x, .w = {w}, .out = {out}, .n = 1, .n_rows = 0}};
    return o + 1;
}

static struct op *add(struct op *o, struct dbuf *x, struct dbuf *y)
{
    *o = (struct op){.kind = OP_ADD, .add = {x, y, 0}};
    return o + 1;
}

// q, k, v = W h + b, with keys and values into their pages.
static struct op *project(struct op *o, const struct model_config *c, const struct forward *f,
                          uint32_t layer)
{
    struct dbuf *const *w = f->layers[layer].at;
    *o++ = (struct op){
        .kind = OP_LINEAR,
        .linear = {.x = f->h,
                   .w = {w[TENSOR_ATTN_Q], w[TENSOR_ATTN_K], w[TENSOR_ATTN_V]},
                   .bias = {w[TENSOR_ATTN_Q_BIAS], w[TENSOR_ATTN_K_BIAS], w[TENSOR_ATTN_V_BIAS]},
                   .out = {f->q, f->k, f->v},
                   .n = 3},
    };
    *o++ = (struct op){
        .kind = OP_ROPE_KV,
        .rope_kv = {.q = f->q,
                    .k = f->k,
                    .v = f->v,
                    .q_norm = w[TENSOR_ATTN_Q_NORM],
                    .k_norm = w[TENSOR_ATTN_K_NORM],
                    .freqs = f->freqs,
                    .layer = layer,
                    .n_heads = c->n_heads,
                    .n_kv_heads = c->n_kv_heads,
                    .head_dim = c->head_dim,
                    .n_rot = c->head_dim,
                    .neox = c->traits->rope == ROPE_NEOX,
                    .eps = c->rms_eps,
                    .mscale = f->mscale},
    };
    return o;
}

static struct op *attend(struct op *o, const struct model_config *c, const struct forward *f,
                         uint32_t layer)
{
    *o = (struct op){
        .kind = OP_ATTENTION,
        .attention = {.q = f->q,
                      .out = f->attn,
                      .layer = layer,
                      .n_heads = c->n_heads,
                      .n_kv_heads = c->n_kv_heads,
                      .head_dim = c->head_dim,
                      .scale = 1.0f / sqrtf((float)c->head_dim)},
    };
    return o + 1;
}

// gate = W_gate h, up = W_up h, gate = silu(gate) * up
static struct op *gated(struct op *o, const struct forward *f, struct dbuf *const *w)
{
    *o++ = (struct op){.kind = OP_LINEAR,
                       .linear = {.x = f->h,
                                  .w = {w[TENSOR_FFN_GATE], w[TENSOR_FFN_UP]},
                                  .out = {f->gate, f->up},
                                  .n = 2}};
    *o++ = (struct op){.kind = OP_SWIGLU, .swiglu = {f->gate, f->up, f->gate, 0}};
    return o;
}

static struct op *gather(struct op *o, struct dbuf *x, struct dbuf *out)
{
    *o = (struct op){.kind = OP_GATHER, .gather = {x, out}};
    return o + 1;
}

// What follows attention in a block, on the stream x and the attention's rows.
static struct op *finish_block(struct op *o, const struct forward *f, struct dbuf *const *w,
                               struct dbuf *x, struct dbuf *attn, float eps)
{
    o = linear(o, w[TENSOR_ATTN_OUTPUT], attn, f->h);
    o = add(o, x, f->h);
    o = rms_norm(o, x, w[TENSOR_FFN_NORM], f->h, eps);
    o = gated(o, f, w);
    o = linear(o, w[TENSOR_FFN_DOWN], f->gate, f->h);
    return add(o, x, f->h);
}

void forward_build(struct forward_ops *out, const struct model_config *c, const struct forward *f,
                   bool early)
{
    struct op *o = out->ops, *keys_done = o;
    const float eps = c->rms_eps;
    o = embed(o, f->weights[TENSOR_TOKEN_EMBD], f->x);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        struct dbuf *const *w = f->layers[i].at;
        o = rms_norm(o, f->x, w[TENSOR_ATTN_NORM], f->h, eps);
        o = keys_done = project(o, c, f, i);
        o = attend(o, c, f, i);
        if (!early || i + 1 < c->n_layers) o = finish_block(o, f, w, f->x, f->attn, eps);
    }
    out->n_kv = (uint32_t)(keys_done - out->ops);
    out->n_body = (uint32_t)(o - out->ops);
    o = gather(o, f->x, f->last);
    if (early) { // q is free now
        o = gather(o, f->attn, f->q);
        o = finish_block(o, f, f->layers[c->n_layers - 1].at, f->last, f->q, eps);
    }
    o = rms_norm(o, f->last, f->weights[TENSOR_OUTPUT_NORM], f->last_norm, eps);
    o = linear(o, f->weights[TENSOR_OUTPUT], f->last_norm, f->logits);
    *o++ = (struct op){.kind = OP_TOPK, .topk = {f->logits, f->topk}};
    out->n_all = (uint32_t)(o - out->ops);
}

void forward_set(struct forward_ops *list, struct dbuf *kv, uint32_t n_out)
{
    for (uint32_t i = 0; i < list->n_body; i++) {
        struct op *o = &list->ops[i];
        if (o->kind == OP_ROPE_KV) o->rope_kv.kv = kv;
        if (o->kind == OP_ATTENTION) o->attention.kv = kv;
    }
    for (uint32_t i = list->n_body; i < list->n_all; i++) {
        struct op *o = &list->ops[i];
        if (o->kind == OP_RMS_NORM) o->rms_norm.n_rows = n_out;
        if (o->kind == OP_LINEAR) o->linear.n_rows = n_out;
        if (o->kind == OP_SWIGLU) o->swiglu.n_rows = n_out;
        if (o->kind == OP_ADD) o->add.n_rows = n_out;
    }
}
