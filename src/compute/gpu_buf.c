// Buffers of the GPU backend: how much, where, and their way to and from the host.
// Invariant: a row's padding is zero from the start and nothing writes it; a KV page is one piece of
// memory, all layers of it, so a cache tier moves it with one copy.
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/size.h"
#include "compute/gpu.h"

enum { COPY_WIDE_BYTES = 1 << 20 };

static bool is_f16(const struct dbuf *d)
{
    return d->kind == BUF_ACT;
}

static size_t head_bytes(const struct kv_shape *s)
{
    const size_t dim = (s->head_dim + 63) / 64 * 64;
    const size_t scales = s->type == KV_Q8_0 ? (size_t)s->page_tokens * (dim / 32) * 2 : 0;
    return s->page_tokens * dim * (s->type == KV_Q8_0 ? 1 : 2) + scales;
}

size_t gpu_page_bytes(const struct backend *b, const struct kv_shape *s)
{
    (void)b;
    return head_bytes(s) * 2 * s->n_kv_heads * s->n_layers;
}

struct page_form gpu_page_form(const struct backend *b, const struct kv_shape *s)
{
    if (s->type == KV_Q8_0) return (struct page_form){.values = PAGE_OPAQUE};
    return (struct page_form){.values = PAGE_F16,
                              .n_values = gpu_page_bytes(b, s) / sizeof(uint16_t)};
}

// Fills everything of d but its memory; its size is in n_bytes.
static void describe(const struct backend *b, const struct buf_desc *desc, struct dbuf *d)
{
    const size_t rows = desc->n_rows ? desc->n_rows : 1, stride = row_stride(desc->n_cols);
    *d = (struct dbuf){.kind = desc->kind,
                       .fmt = desc->fmt,
                       .pack = (enum pack_kind)pack_kind_of((int)desc->fmt),
                       .n_rows = desc->n_rows,
                       .n_cols = desc->n_cols,
                       .stride = (uint32_t)stride,
                       .scale = 1,
                       .kv = desc->kv};
    switch (desc->kind) {
    case BUF_WEIGHT:
        d->n_bytes = (rows + 15) / 16 * (stride / PACK_COLS) * pack_unit_bytes((int)d->pack);
        if (gpu_of(b)->fp8) d->n_bytes += (rows + 15) / 16 * 16 * sizeof(float);
        break;
    case BUF_VECTOR: d->n_bytes = stride * 4; break;
    case BUF_STREAM:
    case BUF_LOGITS: d->n_bytes = rows * stride * 4; break;
    case BUF_ACT: d->n_bytes = rows * stride * 2; break;
    case BUF_TOPK: d->n_bytes = rows * sizeof(struct topk_row); break;
    case BUF_KV:
        d->head_bytes = head_bytes(&desc->kv);
        d->layer_bytes = d->head_bytes * 2 * desc->kv.n_kv_heads;
        d->page_bytes = gpu_page_bytes(b, &desc->kv);
        d->n_bytes = d->page_bytes * desc->kv.n_pages;
        break;
    }
}

size_t gpu_size(const struct backend *b, const struct buf_desc *desc)
{
    struct dbuf d;
    describe(b, desc, &d);
    return d.n_bytes;
}

static bool check_kv(const struct buf_desc *d, struct err *e)
{
    const struct kv_shape *s = &d->kv;
    if (s->type != KV_F16 && s->type != KV_Q8_0)
        return err_set(e, ERR_UNSUPPORTED,
                       "a GPU keeps keys and values in 16 or 8 bits: leave --kv-type out, or say "
                       "f16 or q8_0");
    if (s->head_dim > 128 || s->head_dim % 64)
        return err_set(e, ERR_UNSUPPORTED,
                       "heads of %u elements: the GPU's attention has 64 and 128", s->head_dim);
    if (s->page_tokens != KV_PAGE_TOKENS)
        return err_set(e, ERR_INTERNAL, "pages of %u tokens asked for, not %d", s->page_tokens,
                       KV_PAGE_TOKENS);
    return true;
}

static bool take_memory(struct gpu *g, struct dbuf *d, const char *name, struct err *e)
{
    struct err own = {0};
    if (!gpu_ok(&g->api, g->api.ctx_set(g->ctx), "choosing the device", e)) return false;
    if (!gpu_ok(&g->api, g->api.mem_alloc(&d->p, d->n_bytes ? d->n_bytes : 16), "allocating", &own))
        return err_set(e, own.code,
                       "no device memory for %s (%.2f GiB): %s; lower --ctx or --kv-memory",
                       name ? name : "a buffer", (double)d->n_bytes / (1u << 30), own.msg);
    if (d->kind == BUF_WEIGHT) return true; // written whole
    return gpu_ok(&g->api, g->api.fill(d->p, 0, d->n_bytes, g->stream), "clearing memory", e);
}

static bool fill_vector(struct gpu *g, struct dbuf *d, const struct buf_desc *desc, struct err *e)
{
    if (desc->fmt != FMT_F32)
        return err_set(e, ERR_INTERNAL, "vector %s is %s, not F32", desc->name,
                       fmt_info[desc->fmt].name);
    return gpu_ok(&g->api, g->api.to_device(d->p, desc->source.map, desc->n_cols * 4u, g->stream),
                  "copying a vector", e) &&
           gpu_ok(&g->api, g->api.stream_sync(g->stream), "copying a vector", e);
}

bool gpu_alloc(struct backend *b, const struct buf_desc *desc, struct dbuf **out, struct err *e)
{
    struct gpu *g = gpu_of(b);
    if (desc->kind == BUF_KV && !check_kv(desc, e)) return false;
    struct dbuf *d = malloc(sizeof *d);
    if (!d) return err_set(e, ERR_MEMORY, "no memory for a buffer's record");
    describe(b, desc, d);
    if (!take_memory(g, d, desc->name, e)) {
        free(d);
        return false;
    }
    bool ok = true;
    if (desc->kind == BUF_VECTOR) ok = fill_vector(g, d, desc, e);
    if (desc->kind == BUF_WEIGHT) {
        if (g->fp8) d->scales = d->p + d->n_bytes - (desc->n_rows + 15) / 16 * 16 * sizeof(float);
        ok = gpu_load_weight(g, d, desc, e);
    }
    if (desc->kind == BUF_KV && desc->kv.n_pages > g->n_pages) g->n_pages = desc->kv.n_pages;
    if (desc->kind == BUF_KV) g->large.room = d->p, g->large.room_bytes = d->n_bytes;
    if (desc->kind == BUF_STREAM) g->large.stream_cols = desc->n_cols;
    if (!ok) {
        gpu_free(b, d);
        return false;
    }
    *out = d;
    return true;
}

void gpu_free(struct backend *b, struct dbuf *d)
{
    struct gpu *g = gpu_of(b);
    if (!d) return;
    gpu_load_wait(g, NULL); // a weight may still be on its way
    gpu_large_forget(g, d);
    if (g->large.room == d->p) g->large.room = 0, g->large.room_bytes = 0;
    g->api.ctx_set(g->ctx);
    g->api.stream_sync(g->stream);
    gpu_step_forget(g);
    g->api.mem_free(d->p);
    free(d);
}

// ---- to and from the host ---------------------------------------------------------------------

static bool box_reserve(struct gpu *g, size_t n, struct err *e)
{
    if (n <= g->host_box_bytes) return true;
    if (g->host_box) g->api.host_free(g->host_box);
    g->host_box = NULL;
    g->host_box_bytes = 0;
    if (!gpu_ok(&g->api, g->api.host_alloc(&g->host_box, n), "pinned memory", e)) return false;
    g->host_box_bytes = n;
    return true;
}

static bool fetch(struct gpu *g, gpu_ptr from, size_t n, gpu_stream stream, struct err *e)
{
    return gpu_ok(&g->api, g->api.ctx_set(g->ctx), "choosing the device", e) &&
           box_reserve(g, n, e) &&
           gpu_ok(&g->api, g->api.to_host(g->host_box, from, n, stream), "reading the device", e) &&
           gpu_ok(&g->api, g->api.stream_sync(stream), "a step on the device", e);
}

bool gpu_read(struct backend *b, const struct dbuf *d, uint32_t row, uint32_t n_rows, void *out,
              struct err *e)
{
    struct gpu *g = gpu_of(b);
    const size_t row_bytes =
        d->kind == BUF_TOPK ? sizeof(struct topk_row) : (size_t)d->stride * (is_f16(d) ? 2 : 4);
    if (!fetch(g, d->p + row * row_bytes, n_rows * row_bytes, g->stream, e)) return false;
    const char *from = g->host_box;
    if (d->kind == BUF_TOPK) {
        memcpy(out, from, n_rows * row_bytes);
        return true;
    }
    float *to = out;
    for (uint32_t r = 0; r < n_rows; r++, from += row_bytes, to += d->n_cols) {
        if (!is_f16(d)) {
            memcpy(to, from, d->n_cols * sizeof *to);
            continue;
        }
        const uint16_t *h = (const uint16_t *)(const void *)from;
        for (uint32_t i = 0; i < d->n_cols; i++) to[i] = f16_to_f32(h[i]) * d->scale;
    }
    return true;
}

bool gpu_write(struct backend *b, struct dbuf *d, uint32_t row, uint32_t n_rows, const float *in,
               struct err *e)
{
    struct gpu *g = gpu_of(b);
    const size_t row_bytes = (size_t)d->stride * (is_f16(d) ? 2 : 4), n = n_rows * row_bytes;
    if (!gpu_ok(&g->api, g->api.ctx_set(g->ctx), "choosing the device", e) || !box_reserve(g, n, e))
        return false;
    memset(g->host_box, 0, n);
    char *to = g->host_box;
    for (uint32_t r = 0; r < n_rows; r++, to += row_bytes, in += d->n_cols) {
        if (!is_f16(d)) {
            memcpy(to, in, d->n_cols * sizeof *in);
            continue;
        }
        uint16_t *h = (uint16_t *)(void *)to;
        for (uint32_t i = 0; i < d->n_cols; i++) h[i] = f32_to_f16(in[i]);
    }
    d->scale = 1;
    return gpu_ok(&g->api, g->api.to_device(d->p + row * row_bytes, g->host_box, n, g->stream),
                  "writing the device", e) &&
           gpu_ok(&g->api, g->api.stream_sync(g->stream), "writing the device", e);
}

struct copy {
    char *to;
    const char *from;
    size_t n;
};

static void copy_share(void *arg, uint32_t i, uint32_t n)
{
    const struct copy *c = arg;
    const size_t each = (c->n / n + 4095) / 4096 * 4096, at = i * each;
    if (at >= c->n) return;
    memcpy(c->to + at, c->from + at, c->n - at < each ? c->n - at : each);
}

// By the loader's threads: a page of a large model is 16 MiB, and memory that nobody touched yet costs a page
// fault every 4 KiB, which would keep a request waiting for 5 to 10 ms.
static void copy_wide(const struct gpu *g, void *to, const void *from, size_t n)
{
    struct copy c = {to, from, n};
    if (g->threads && n >= COPY_WIDE_BYTES)
        threads_run(g->threads, copy_share, &c);
    else
        memcpy(to, from, n);
}

bool gpu_page_copy(struct backend *b, struct dbuf *kv, uint32_t from, uint32_t to, struct err *e)
{
    struct gpu *g = gpu_of(b);
    const struct gpu_api *a = &g->api;
    const size_t n = kv->page_bytes;
    return gpu_ok(a, a->ctx_set(g->ctx), "choosing the device", e) &&
           gpu_ok(a, a->copy(kv->p + to * n, kv->p + from * n, n, g->stream), "copying a page",
                  e) &&
           gpu_ok(a, a->stream_sync(g->stream), "copying a page", e);
}

// On a stream of its own: a page is read beside the step that is at work, which does not write it.
bool gpu_page_read(struct backend *b, const struct dbuf *kv, uint32_t page, void *out,
                   struct err *e)
{
    struct gpu *g = gpu_of(b);
    if (!fetch(g, kv->p + page * kv->page_bytes, kv->page_bytes, g->page_stream, e)) return false;
    copy_wide(g, out, g->host_box, kv->page_bytes);
    return true;
}
