// The reference backend: each op of ops.def in plain portable C, f32 activations, weights decoded
// row by row. It defines what the ops mean; every other backend is tested against it. Not made to be
// fast: rows are shared among threads so that golden tests take seconds, no more.
//
// Invariant: an output element depends on its own row's inputs only, in a fixed order of operations,
// so results are equal bit for bit whatever the batch or the thread count.
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/threads.h"
#include "compute/hostbuf.h"
#include "compute/topk.h"
#include "kernels/common/decode.h"

enum { LANES = 8, PAGE_TOKENS = 32, MAX_HEAD_DIM = 512 };

struct ref {
    struct backend base;
    struct backend_settings settings;
    struct threads *threads;
    float *decoded[THREADS_MAX]; // one weight row a thread, grown when a weight is allocated
    uint32_t max_cols;
};

struct job {
    struct ref *ref;
    const struct op *op;
    const struct batch *batch;
};

// ---- arithmetic -----------------------------------------------------------------------------

// Sum of a[i] * b[i]: LANES partial sums by i % LANES, then the lanes in order, then the rest.
static float dot(const float *a, const float *b, uint32_t n)
{
    float lane[LANES] = {0}, sum = 0;
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++) lane[j] += a[i + j] * b[i + j];
    for (uint32_t j = 0; j < LANES; j++) sum += lane[j];
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void rms_norm(const float *x, const float *w, float *out, uint32_t n, float eps)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    const float scale = (float)(1.0 / sqrt(sum / n + (double)eps));
    for (uint32_t i = 0; i < n; i++) out[i] = x[i] * scale * w[i];
}

static void rotate_head(float *x, const struct op_rope_kv *o, uint32_t pos)
{
    const float *freqs = hostbuf_row(o->freqs, 0);
    const uint32_t half = o->n_rot / 2;
    for (uint32_t i = 0; i < half; i++) {
        const float angle = (float)pos * freqs[i]; // f32, as Hugging Face computes it
        const float c = cosf(angle) * o->mscale, s = sinf(angle) * o->mscale;
        float *a = o->neox ? x + i : x + 2 * i, *b = o->neox ? x + i + half : x + 2 * i + 1;
        const float u = *a, v = *b;
        *a = u * c - v * s;
        *b = v * c + u * s;
    }
}

static void kv_store(const struct dbuf *kv, unsigned char *to, const float *from)
{
    for (uint32_t i = 0; i < kv->kv.head_dim; i++) {
        const uint16_t half = f32_to_f16(from[i]);
        if (kv->kv.type == KV_F32)
            memcpy(to + i * 4, from + i, 4);
        else
            memcpy(to + i * 2, &half, 2);
    }
}

static void kv_load(const struct dbuf *kv, const unsigned char *from, float *to)
{
    const enum fmt f = kv->kv.type == KV_F32 ? FMT_F32 : FMT_F16;
    decode_row(f, from, to, kv->kv.head_dim);
}

// A unit holds the keys [token][head_dim], then the values, of the KV's type.
static size_t token_bytes(const struct kv_shape *s)
{
    return s->head_dim * (s->type == KV_F32 ? sizeof(float) : sizeof(uint16_t));
}

static size_t unit_bytes(const struct kv_shape *s)
{
    return 2 * PAGE_TOKENS * token_bytes(s);
}

// ---- ops ------------------------------------------------------------------------------------
// Each takes the part of the rows that its thread does: [first, end).

static uint32_t batch_page(const struct batch *b, const struct batch_seq *s, uint32_t pos)
{
    assert(pos / PAGE_TOKENS < s->n_pages && s->page0 + s->n_pages <= b->n_page_ids);
    return b->pages[s->page0 + pos / PAGE_TOKENS];
}

static const struct batch_seq *row_seq(const struct batch *b, uint32_t row, uint32_t *pos)
{
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &b->seqs[i];
        if (row < s->row0 || row >= s->row0 + s->n_rows) continue;
        *pos = s->pos0 + row - s->row0;
        return s;
    }
    assert(!"row of no sequence");
    return NULL;
}

static void ref_embed(const struct job *j, uint32_t first, uint32_t end)
{
    const struct op_embed *o = &j->op->embed;
    for (uint32_t r = first; r < end; r++) {
        const int32_t token = j->batch->tokens[r];
        assert(token >= 0 && (uint32_t)token < o->table->n_rows);
        decode_row(o->table->fmt, o->table->weights + (size_t)token * o->table->row_bytes,
                   hostbuf_row(o->out, r), o->table->n_cols);
    }
}

static void ref_rms_norm(const struct job *j, uint32_t first, uint32_t end)
{
    const struct op_rms_norm *o = &j->op->rms_norm;
    for (uint32_t r = first; r < end; r++)
        rms_norm(hostbuf_row(o->x, r), hostbuf_row(o->w, 0), hostbuf_row(o->out, r), o->x->n_cols,
                 o->eps);
}

static void ref_rope_kv(const struct job *j, uint32_t first, uint32_t end)
{
    const struct op_rope_kv *o = &j->op->rope_kv;
    const uint32_t d = o->head_dim;
    for (uint32_t r = first; r < end; r++) {
        uint32_t pos;
        const struct batch_seq *s = row_seq(j->batch, r, &pos);
        const uint32_t page = batch_page(j->batch, s, pos), slot = pos % PAGE_TOKENS;
        const size_t stride = token_bytes(&o->kv->kv);
        for (uint32_t h = 0; h < o->n_heads; h++) {
            float *q = hostbuf_row(o->q, r) + h * d;
            if (o->q_norm) rms_norm(q, hostbuf_row(o->q_norm, 0), q, d, o->eps);
            rotate_head(q, o, pos);
        }
        for (uint32_t h = 0; h < o->n_kv_heads; h++) {
            float *k = hostbuf_row(o->k, r) + h * d;
            if (o->k_norm) rms_norm(k, hostbuf_row(o->k_norm, 0), k, d, o->eps);
            rotate_head(k, o, pos);
            unsigned char *unit = hostbuf_kv(o->kv, page, o->layer, h);
            kv_store(o->kv, unit + slot * stride, k);
            kv_store(o->kv, unit + (PAGE_TOKENS + slot) * stride, hostbuf_row(o->v, r) + h * d);
        }
    }
}

// One head of one row: online softmax over blocks of one page each, by absolute position.
static void attend_head(const struct op_attention *o, const struct batch *b,
                        const struct batch_seq *s, uint32_t pos, uint32_t head, const float *q,
                        float *out)
{
    const uint32_t d = o->head_dim, kv_head = head / (o->n_heads / o->n_kv_heads);
    float vector[MAX_HEAD_DIM], scores[PAGE_TOKENS], max = -INFINITY, sum = 0;
    memset(out, 0, d * sizeof *out);
    for (uint32_t p0 = 0; p0 <= pos; p0 += PAGE_TOKENS) {
        const uint32_t page = batch_page(b, s, p0);
        const uint32_t n = pos - p0 + 1 < PAGE_TOKENS ? pos - p0 + 1 : PAGE_TOKENS;
        const size_t stride = token_bytes(&o->kv->kv);
        const unsigned char *k = hostbuf_kv(o->kv, page, o->layer, kv_head);
        const unsigned char *v = k + PAGE_TOKENS * stride;
        float new_max = max;
        for (uint32_t i = 0; i < n; i++) {
            kv_load(o->kv, k + i * stride, vector);
            scores[i] = dot(q, vector, d) * o->scale;
            if (scores[i] > new_max) new_max = scores[i];
        }
        const float shrink = expf(max - new_max);
        sum *= shrink;
        for (uint32_t i = 0; i < d; i++) out[i] *= shrink;
        for (uint32_t i = 0; i < n; i++) {
            const float weight = expf(scores[i] - new_max);
            sum += weight;
            kv_load(o->kv, v + i * stride, vector);
            for (uint32_t c = 0; c < d; c++) out[c] += weight * vector[c];
        }
        max = new_max;
    }
    for (uint32_t i = 0; i < d; i++) out[i] /= sum;
}

static void ref_attention(const struct job *j, uint32_t first, uint32_t end)
{
    const struct op_attention *o = &j->op->attention;
    for (uint32_t r = first; r < end; r++) {
        uint32_t pos;
        const struct batch_seq *s = row_seq(j->batch, r, &pos);
        for (uint32_t h = 0; h < o->n_heads; h++)
            attend_head(o, j->batch, s, pos, h, hostbuf_row(o->q, r) + h * o->head_dim,
                        hostbuf_row(o->out, r) + h * o->head_dim);
    }
}

static void ref_swiglu(const struct job *j, uint32_t first, uint32_t end)
{
    const struct op_swiglu *o = &j->op->swiglu;
    for (uint32_t r = first; r < end; r++) {
        const float *gate = hostbuf_row(o->gate, r), *up = hostbuf_row(o->up, r);
        float *out = hostbuf_row(o->out, r);
        for (uint32_t i = 0; i < o->gate->n_cols; i++)
            out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}

static void ref_add(const struct job *j, uint32_t first, uint32_t end)
{
    const struct op_add *o = &j->op->add;
    for (uint32_t r = first; r < end; r++) {
        float *x = hostbuf_row(o->x, r);
        const float *y = hostbuf_row(o->y, r);
        for (uint32_t i = 0; i < o->x->n_cols; i++) x[i] += y[i];
    }
}

static void ref_gather(const struct job *j, uint32_t first, uint32_t end)
{
    const struct op_gather *o = &j->op->gather;
    for (uint32_t r = first; r < end; r++)
        memcpy(hostbuf_row(o->out, r), hostbuf_row(o->x, j->batch->out_rows[r]), o->x->row_bytes);
}

static void ref_topk(const struct job *j, uint32_t first, uint32_t end)
{
    const struct op_topk *o = &j->op->topk;
    const struct topk_scan scan = {topk_find_above, topk_sum_exp};
    for (uint32_t r = first; r < end; r++) {
        float *logits = hostbuf_row(o->logits, r);
        topk_adjust(logits, r, j->batch);
        topk_select(&scan, logits, o->logits->n_cols, o->out->n_cols,
                    (struct topk_row *)(void *)(o->out->data + r * o->out->row_bytes));
    }
}

// Shared by weight rows, so that each is decoded once.
static void ref_linear(const struct job *j, uint32_t i_thread, uint32_t n_threads)
{
    const struct op_linear *o = &j->op->linear;
    const uint32_t n_rows = o->n_rows ? o->n_rows : j->batch->n_rows;
    float *row = j->ref->decoded[i_thread];
    for (uint32_t m = 0; m < o->n; m++) {
        const struct dbuf *w = o->w[m];
        const float *bias = o->bias[m] ? hostbuf_row(o->bias[m], 0) : NULL;
        uint32_t first, end;
        threads_share(w->n_rows, 1, i_thread, n_threads, &first, &end);
        for (uint32_t c = first; c < end; c++) {
            decode_row(w->fmt, w->weights + c * w->row_bytes, row, w->n_cols);
            for (uint32_t r = 0; r < n_rows; r++)
                hostbuf_row(o->out[m], r)[c] =
                    dot(hostbuf_row(o->x, r), row, w->n_cols) + (bias ? bias[c] : 0.0f);
        }
    }
}

static void run_share(void *arg, uint32_t i_thread, uint32_t n_threads)
{
    const struct job *j = arg;
    uint32_t n = j->batch->n_rows, first, end;
    if (j->op->kind == OP_RMS_NORM && j->op->rms_norm.n_rows) n = j->op->rms_norm.n_rows;
    if (j->op->kind == OP_SWIGLU && j->op->swiglu.n_rows) n = j->op->swiglu.n_rows;
    if (j->op->kind == OP_ADD && j->op->add.n_rows) n = j->op->add.n_rows;
    if (j->op->kind == OP_GATHER || j->op->kind == OP_TOPK) n = j->batch->n_out;
    threads_share(n, 1, i_thread, n_threads, &first, &end);
    switch (j->op->kind) {
    case OP_EMBED: ref_embed(j, first, end); break;
    case OP_RMS_NORM: ref_rms_norm(j, first, end); break;
    case OP_LINEAR: ref_linear(j, i_thread, n_threads); break;
    case OP_ROPE_KV: ref_rope_kv(j, first, end); break;
    case OP_ATTENTION: ref_attention(j, first, end); break;
    case OP_SWIGLU: ref_swiglu(j, first, end); break;
    case OP_ADD: ref_add(j, first, end); break;
    case OP_GATHER: ref_gather(j, first, end); break;
    case OP_TOPK: ref_topk(j, first, end); break;
    case OP_COUNT: break;
    }
}

// ---- the backend ----------------------------------------------------------------------------

static void ref_close(struct backend *b)
{
    if (!b) return;
    struct ref *ref = (struct ref *)b;
    threads_close(ref->threads);
    for (uint32_t i = 0; i < THREADS_MAX; i++) free(ref->decoded[i]);
    free(ref);
}

static bool ref_open(struct backend **out, const struct backend_settings *s, struct err *e)
{
    struct ref *ref = calloc(1, sizeof *ref);
    if (!ref) return err_set(e, ERR_MEMORY, "no memory for the reference backend");
    ref->base.class = &backend_ref;
    ref->settings = *s;
    if (!threads_open(&ref->threads, s->n_threads, e)) {
        free(ref);
        return false;
    }
    *out = &ref->base;
    return true;
}

static void ref_info(const struct backend *b, struct backend_info *out)
{
    const struct ref *ref = (const struct ref *)b;
    *out = (struct backend_info){.name = "ref",
                                 .page_tokens = PAGE_TOKENS,
                                 .unified = true,
                                 .prefill_rows =
                                     ref->settings.max_rows < 256 ? ref->settings.max_rows : 256,
                                 .numerics = 1};
    snprintf(out->device, sizeof out->device, "plain C, %u threads", threads_count(ref->threads));
    hostbuf_memory(&out->mem_total_bytes, &out->mem_free_bytes);
}

static size_t ref_size(const struct backend *b, const struct buf_desc *d)
{
    (void)b;
    return hostbuf_size(d, unit_bytes(&d->kv));
}

static size_t ref_page_bytes(const struct backend *b, const struct kv_shape *s)
{
    (void)b;
    return hostbuf_page_bytes(s, unit_bytes(s));
}

static struct page_form ref_page_form(const struct backend *b, const struct kv_shape *s)
{
    (void)b;
    return (struct page_form){.values = s->type == KV_F32 ? PAGE_F32 : PAGE_F16,
                              .n_values = 2 * (size_t)PAGE_TOKENS * s->n_layers * s->n_kv_heads *
                                          s->head_dim};
}

static bool check_kv(const struct kv_shape *s, struct err *e)
{
    if (s->type != KV_F16 && s->type != KV_F32)
        return err_set(e, ERR_UNSUPPORTED,
                       "the reference keeps keys and values as floats: leave --kv-type out, or say "
                       "f32 or f16");
    if (s->head_dim > MAX_HEAD_DIM)
        return err_set(e, ERR_UNSUPPORTED, "head_dim %u: at most %d is supported", s->head_dim,
                       MAX_HEAD_DIM);
    if (s->page_tokens != PAGE_TOKENS)
        return err_set(e, ERR_INTERNAL, "pages of %u tokens asked for, not %d", s->page_tokens,
                       PAGE_TOKENS);
    return true;
}

// A weight's row must fit each thread's scratch; taken here, so that a step allocates nothing.
static bool ref_alloc(struct backend *b, const struct buf_desc *d, struct dbuf **out, struct err *e)
{
    struct ref *ref = (struct ref *)b;
    if (d->kind == BUF_WEIGHT && d->n_cols > ref->max_cols) {
        for (uint32_t i = 0; i < threads_count(ref->threads); i++) {
            float *p = realloc(ref->decoded[i], d->n_cols * sizeof *p);
            if (!p) return err_set(e, ERR_MEMORY, "no memory for rows of %u weights", d->n_cols);
            ref->decoded[i] = p;
        }
        ref->max_cols = d->n_cols;
    }
    if (d->kind == BUF_KV && !check_kv(&d->kv, e)) return false;
    return hostbuf_alloc(d, unit_bytes(&d->kv), out, e);
}

static bool ref_submit(struct backend *b, const struct op *ops, uint32_t n_ops,
                       const struct batch *batch, struct err *e)
{
    (void)e;
    struct ref *ref = (struct ref *)b;
    assert(batch->n_rows <= ref->settings.max_rows && batch->n_out <= ref->settings.max_out);
    for (uint32_t i = 0; i < n_ops; i++) {
        struct job job = {ref, &ops[i], batch};
        threads_run(ref->threads, run_share, &job);
    }
    return true;
}

static bool ref_wait(struct backend *b, struct err *e)
{
    (void)b;
    (void)e;
    return true;
}

const struct backend_class backend_ref = {
    .name = "ref",
    .kv_type = KV_F32,
    .open = ref_open,
    .close = ref_close,
    .info = ref_info,
    .size = ref_size,
    .alloc = ref_alloc,
    .free = hostbuf_free,
    .read = hostbuf_read,
    .write = hostbuf_write,
    .page_bytes = ref_page_bytes,
    .page_form = ref_page_form,
    .page_read = hostbuf_page_read,
    .page_copy = hostbuf_page_copy,
    .page_begin = hostbuf_page_begin,
    .page_next = hostbuf_page_next,
    .page_end = hostbuf_page_end,
    .page_prepare = hostbuf_page_prepare,
    .submit = ref_submit,
    .wait = ref_wait,
};
