// Products of few columns that follow one another go into one launch (kernels/cuda/chain.cu) where the device can:
// they are held back here until something else is to be launched.
// Invariant: what is launched runs in the order in which it was given.
#include "compute/gpu_chain.h"

#include <string.h>

enum chain_kind {
#define CLASS(name, warps, slots, bytes, least) CHAIN_##name,
    CHAIN_CLASSES(CLASS)
#undef CLASS
};
static const struct chain_class {
    enum gpu_kernel kernel;
    uint32_t n_threads, shared_bytes, least; // least: columns from which on it is quicker
} classes[] = {
#define CLASS(name, warps, slots, bytes, least) \
    [CHAIN_##name] = {GPU_chain_##name, (warps)*32, CHAIN_SHARED(warps, slots, bytes), least},
    CHAIN_CLASSES(CLASS)
#undef CLASS
};

static const struct chain_class *class_of_pack(uint8_t pack)
{
    switch (pack) {
    case PACK_H16: return &classes[CHAIN_H16];
    case PACK_Q8_0: return &classes[CHAIN_Q8_0];
    default: return NULL;
    }
}

static const struct chain_class *class_of(const struct args_linear *a)
{
    const struct chain_class *c = class_of_pack(a->pack[0]);
    for (uint32_t i = 1; i < a->n_parts; i++)
        if (class_of_pack(a->pack[i]) != c) return NULL;
    return c != NULL && a->n >= c->least ? c : NULL;
}

bool gpu_chain_open(struct gpu *g, struct err *e)
{
    static const uint64_t zero;
    size_t have = 0;
    g->use_chain = g->use_chain && g->cc >= 90 && g->cc < 100;
    if (!g->use_chain) return true;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (!gpu_ok(&g->api,
                    g->api.function_attr(g->kernels[classes[i].kernel], GPU_FUNC_MAX_SHARED,
                                         (int)classes[i].shared_bytes),
                    "shared memory", e))
            return false;
    return gpu_grow(g, &g->arrived, &have, sizeof zero, "a counter", e) &&
           gpu_ok(&g->api, g->api.to_device(g->arrived, &zero, sizeof zero, g->stream), "a counter",
                  e) &&
           gpu_ok(&g->api, g->api.stream_sync(g->stream), "a counter", e);
}

static bool launch_one(struct gpu *g, struct gpu_few_launch *l, struct err *e)
{
    return gpu_run(g, l->kernel, l->n_blocks, 1, l->n_warps * 32, l->shared_bytes, &l->args,
                   g->stream, e);
}

bool gpu_chain_flush(struct gpu *g, struct gpu_chain *c, struct err *e)
{
    const uint32_t n = c->n;
    c->n = 0;
    if (n == 0) return true;
    if (n == 1) return launch_one(g, &c->held[0], e);
    struct args_chain a = {.arrived = (uint64_t *)(uintptr_t)g->arrived, .n_products = n};
    for (uint32_t i = 0; i < n; i++) {
        a.product[i] = c->held[i].args;
        a.n_panels[i] = c->held[i].n_blocks;
        a.n_warps[i] = c->held[i].n_warps;
    }
    const struct chain_class *class = class_of(&a.product[0]);
    return gpu_run(g, class->kernel, g->n_sm, 1, class->n_threads, class->shared_bytes, &a,
                   g->stream, e);
}

bool gpu_chain_add(struct gpu *g, struct gpu_chain *c, const struct gpu_few_launch *l,
                   struct err *e)
{
    const struct chain_class *class = g->use_chain ? class_of(&l->args) : NULL;
    const bool joins =
        class != NULL && c->n > 0 && c->n < CHAIN_PRODUCTS && class_of(&c->held[0].args) == class;
    if (!joins && !gpu_chain_flush(g, c, e)) return false;
    c->held[c->n++] = *l;
    return class != NULL || gpu_chain_flush(g, c, e);
}
