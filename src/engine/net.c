// Loading a network onto a device and running its steps. One walk names every buffer; measuring and
// taking memory both follow it, so that the plan cannot differ from what is taken.
// Not here: the network itself (forward.c), which pages a sequence has (the scheduler's).
// Invariant: after net_open a step allocates nothing.
#include "engine/net.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/size.h"
#include "engine/forward.h"
#include "model/quant.h"

struct net {
    struct backend *backend;
    const struct gguf *g;
    const struct model_config *config;
    struct net_settings settings;
    struct forward f;
    struct forward_ops list, early; // early: for steps with rows that want no logits
    float rope_factor;
    float *freqs;      // [head_dim / 2], in host
    struct arena host; // vectors that the file keeps in another format than F32, and freqs
    uint64_t done_bytes, total_bytes; // weights on their way to the device
};

// ---- the walk --------------------------------------------------------------------------------

// Called for each buffer; slot is where its handle belongs.
typedef bool visit_fn(struct net *n, const struct buf_desc *d, struct dbuf **slot, void *arg,
                      struct err *e);

struct walk {
    struct net *n;
    visit_fn *visit;
    void *arg;
};

static bool walk_tensor(const struct walk *w, enum tensor_role role, uint32_t layer,
                        struct dbuf **slot, struct err *e)
{
    const struct gguf_tensor *t = arch_tensor(w->n->g, role, layer);
    char name[256];
    if (t == NULL) return true;
    snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.p);
    struct buf_desc d = {.kind = t->n_dims > 1 ? BUF_WEIGHT : BUF_VECTOR,
                         .fmt = t->fmt,
                         .n_rows = (uint32_t)t->dims[1],
                         .n_cols = (uint32_t)t->dims[0],
                         .source = {t->data, t->n_bytes, t->fd, t->file_off},
                         .name = name};
    return w->visit(w->n, &d, slot, w->arg, e);
}

static bool walk_weights(const struct walk *w, struct err *e)
{
    struct forward *f = &w->n->f;
    for (int role = 0; role < TENSOR_ATTN_NORM; role++)
        if (role != TENSOR_ROPE_FREQS && // joined to freqs
            !walk_tensor(w, (enum tensor_role)role, 0, &f->weights[role], e))
            return false;
    for (uint32_t i = 0; i < w->n->config->n_layers; i++)
        for (int role = TENSOR_ATTN_NORM; role < TENSOR_ROLE_COUNT; role++)
            if (!walk_tensor(w, (enum tensor_role)role, i, &f->layers[i].at[role], e)) return false;
    return true;
}

static bool walk_activations(const struct walk *w, struct err *e)
{
    const struct model_config *c = w->n->config;
    const struct net_settings *s = &w->n->settings;
    struct forward *f = &w->n->f;
    const uint32_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const uint32_t rows = s->max_rows, out = s->max_out;
    const struct {
        struct dbuf **slot;
        const char *name;
        enum buf_kind kind;
        uint32_t n_rows, n_cols;
    } table[] = {
        {&f->x, "residual stream", BUF_STREAM, rows, c->n_embd},
        {&f->h, "hidden state", BUF_ACT, rows, c->n_embd},
        {&f->q, "queries", BUF_ACT, rows, q},
        {&f->k, "keys", BUF_ACT, rows, kv},
        {&f->v, "values", BUF_ACT, rows, kv},
        {&f->attn, "attention output", BUF_ACT, rows, q},
        {&f->gate, "feed-forward gate", BUF_ACT, rows, c->n_ff},
        {&f->up, "feed-forward up", BUF_ACT, rows, c->n_ff},
        {&f->last, "rows for logits", BUF_STREAM, out, c->n_embd},
        {&f->last_norm, "normed rows for logits", BUF_ACT, out, c->n_embd},
        {&f->logits, "logits", BUF_LOGITS, out, c->n_vocab},
        {&f->topk, "candidates", BUF_TOPK, out, s->n_top < c->n_vocab ? s->n_top : c->n_vocab},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct buf_desc d = {.kind = table[i].kind,
                             .n_rows = table[i].n_rows,
                             .n_cols = table[i].n_cols,
                             .source.fd = -1,
                             .name = table[i].name};
        if (!w->visit(w->n, &d, table[i].slot, w->arg, e)) return false;
    }
    return true;
}

static bool walk_all(const struct walk *w, struct err *e)
{
    const struct net *n = w->n;
    const uint32_t half = n->config->head_dim / 2;
    struct buf_desc freqs = {.kind = BUF_VECTOR,
                             .fmt = FMT_F32,
                             .n_rows = 1,
                             .n_cols = half,
                             .source = {n->freqs, half * sizeof(float), -1, 0},
                             .name = "rope frequencies"};
    return walk_weights(w, e) && w->visit(w->n, &freqs, &w->n->f.freqs, w->arg, e) &&
           walk_activations(w, e);
}

// ---- visits ----------------------------------------------------------------------------------

static bool visit_measure(struct net *n, const struct buf_desc *d, struct dbuf **slot, void *arg,
                          struct err *e)
{
    size_t *sum = arg;
    (void)slot;
    (void)e;
    if (!size_add(sum, *sum, n->backend->class->size(n->backend, d))) *sum = SIZE_MAX;
    return true;
}

// A vector in F16 or BF16 becomes F32 in host memory first: vectors are always F32 on a device.
static bool widen(struct net *n, struct buf_desc *d, struct err *e)
{
    float *p = arena_array(&n->host, d->n_cols, sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory to decode %s", d->name);
    quant_decode_row(d->fmt, d->source.map, p, d->n_cols);
    d->fmt = FMT_F32;
    d->source = (struct weight_source){p, d->n_cols * sizeof *p, -1, 0};
    return true;
}

static bool visit_alloc(struct net *n, const struct buf_desc *desc, struct dbuf **slot, void *arg,
                        struct err *e)
{
    struct buf_desc d = *desc;
    (void)arg;
    if (d.kind == BUF_VECTOR && d.fmt != FMT_F32 && !widen(n, &d, e)) return false;
    if (!n->backend->class->alloc(n->backend, &d, slot, e)) return false;
    n->done_bytes += desc->source.n_bytes;
    if (desc->source.n_bytes > 0 && n->settings.progress != NULL)
        n->settings.progress(n->settings.progress_arg, "weights", n->done_bytes, n->total_bytes);
    return true;
}

static bool visit_count(struct net *n, const struct buf_desc *d, struct dbuf **slot, void *arg,
                        struct err *e)
{
    (void)slot;
    (void)arg;
    (void)e;
    n->total_bytes += d->source.n_bytes;
    return true;
}

static bool visit_free(struct net *n, const struct buf_desc *d, struct dbuf **slot, void *arg,
                       struct err *e)
{
    (void)d;
    (void)arg;
    (void)e;
    n->backend->class->free(n->backend, *slot);
    *slot = NULL;
    return true;
}

// ---- opening ---------------------------------------------------------------------------------

// The net's record with its tables, and no device memory yet.
static struct net *new_net(struct backend *b, const struct gguf *g, const struct model_config *c,
                           const struct net_settings *s, struct err *e)
{
    struct net *n = calloc(1, sizeof *n);
    if (n != NULL) {
        *n = (struct net){.backend = b, .g = g, .config = c, .settings = *s, .rope_factor = 1};
        n->f.layers = calloc(c->n_layers, sizeof *n->f.layers);
        n->list.ops = calloc(forward_max_ops(c), sizeof *n->list.ops);
        n->early.ops = calloc(forward_max_ops(c), sizeof *n->early.ops);
        n->freqs = arena_array(&n->host, c->head_dim / 2, sizeof *n->freqs);
        if (n->f.layers != NULL && n->list.ops != NULL && n->early.ops != NULL && n->freqs != NULL)
            return n;
    }
    net_close(n);
    err_set(e, ERR_MEMORY, "no memory for the tables of %u layers", c->n_layers);
    return NULL;
}

void net_close(struct net *n)
{
    if (n == NULL) return;
    struct walk w = {n, visit_free, NULL};
    if (n->f.layers != NULL) {
        if (n->config->tied_embeddings) n->f.weights[TENSOR_OUTPUT] = NULL; // the embedding's
        walk_all(&w, NULL);
    }
    free(n->f.layers);
    free(n->list.ops);
    free(n->early.ops);
    arena_free(&n->host);
    free(n);
}

size_t net_bytes(struct backend *b, const struct gguf *g, const struct model_config *c,
                 const struct net_settings *s)
{
    size_t sum = 0;
    struct net *n = new_net(b, g, c, s, NULL);
    if (n == NULL) return SIZE_MAX;
    struct walk w = {n, visit_measure, &sum};
    walk_all(&w, NULL);
    net_close(n);
    return sum;
}

struct collect {
    struct buf_desc *bufs; // NULL: only counted
    uint32_t n;
};

static bool visit_collect(struct net *n, const struct buf_desc *d, struct dbuf **slot, void *arg,
                          struct err *e)
{
    struct collect *c = arg;
    (void)n;
    (void)slot;
    (void)e;
    if (c->bufs != NULL) {
        c->bufs[c->n] = *d;
        c->bufs[c->n].name = NULL; // the walk's own
    }
    c->n++;
    return true;
}

size_t net_scratch_bytes(struct backend *b, const struct gguf *g, const struct model_config *c,
                         const struct net_settings *s, const struct kv_shape *kv)
{
    size_t sum = SIZE_MAX;
    struct collect all = {0};
    if (b->class->scratch == NULL) return 0;
    struct net *n = new_net(b, g, c, s, NULL);
    if (n == NULL) return SIZE_MAX;
    const struct walk w = {n, visit_collect, &all};
    walk_all(&w, NULL);
    all.bufs = calloc(all.n, sizeof *all.bufs);
    if (all.bufs != NULL) {
        all.n = 0;
        walk_all(&w, NULL);
        const struct scratch_about about = {
            .bufs = all.bufs, .n_bufs = all.n, .n_heads = c->n_heads, .n_ctx = s->n_ctx, .kv = *kv};
        sum = b->class->scratch(b, &about);
    }
    free(all.bufs);
    net_close(n);
    return sum;
}

bool net_open(struct net **out, struct backend *b, const struct gguf *g,
              const struct model_config *c, const struct net_settings *s, struct err *e)
{
    assert(s->n_ctx > 0 && s->max_rows > 0 && s->max_out > 0);
    assert(s->n_top > 0 && s->n_top <= TOPK_MAX);
    struct net *n = new_net(b, g, c, s, e);
    if (n == NULL) return false;
    n->rope_factor = net_rope_freqs(c, s->n_ctx, n->freqs, &n->f.mscale);
    struct walk count = {n, visit_count, NULL}, take = {n, visit_alloc, NULL};
    if (!walk_all(&count, e) || !walk_all(&take, e) || !b->class->wait(b, e)) {
        net_close(n);
        return false;
    }
    if (c->tied_embeddings) n->f.weights[TENSOR_OUTPUT] = n->f.weights[TENSOR_TOKEN_EMBD];
    forward_build(&n->list, c, &n->f, false);
    forward_build(&n->early, c, &n->f, true);
    *out = n;
    return true;
}

float net_rope_factor(const struct net *n)
{
    return n->rope_factor;
}

// ---- stepping --------------------------------------------------------------------------------

bool net_step(struct net *n, struct dbuf *kv, const struct batch *batch, struct err *e)
{
    assert(batch->n_rows > 0 && batch->n_rows <= n->settings.max_rows);
    assert(batch->n_out <= n->settings.max_out);
    // with logits for every row the two lists do the same work, and this one with fewer ops
    struct forward_ops *list = batch->n_out < batch->n_rows ? &n->early : &n->list;
    forward_set(list, kv, batch->n_out);
    uint32_t n_ops = batch->n_out > 0 ? list->n_all : list->n_kv;
    return n->backend->class->submit(n->backend, list->ops, n_ops, batch, e);
}

bool net_read_topk(struct net *n, uint32_t n_out, struct topk_row *out, struct err *e)
{
    assert(n_out <= n->settings.max_out);
    return n->backend->class->read(n->backend, n->f.topk, 0, n_out, out, e);
}

bool net_read_logits(struct net *n, uint32_t out_row, float *logits, struct err *e)
{
    assert(out_row < n->settings.max_out);
    return n->backend->class->read(n->backend, n->f.logits, out_row, 1, logits, e);
}
