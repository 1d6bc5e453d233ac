// Products of many rows: each matrix is expanded from its packed form into scratch, as f16 or, where the user
// asked for it, as e4m3 with a scale a row, and multiplied by the library. Where memory allows, the e4m3 form of
// all matrices is kept.
// Not here: which products come here (gpu_ops.c), the library (gpu_blas.c).
// Invariant: a row of a result does not depend on the rows beside it.
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "compute/gpu.h"

#define AT(p) ((void *)(uintptr_t)(p))

enum { TUNE_ROWS = 4096, TUNE_ROWS_LEAST = 1024, TUNE_LEAST = 2 << 20 }; // elements of a matrix
#define TUNE_ROOM ((size_t)1 << 30)

static size_t expanded_bytes(const struct dbuf *w)
{
    return (size_t)(w->n_rows + 15) / 16 * 16 * w->stride * 2;
}

void gpu_large_close(struct gpu *g)
{
    struct gpu_large *l = &g->large;
    const gpu_ptr own[] = {l->scratch, l->rows8, l->row_scales, l->kept};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (own[i]) g->api.mem_free(own[i]);
    free(l->all);
    *l = (struct gpu_large){0};
}

// ---- memory -------------------------------------------------------------------------------------

void gpu_large_count(struct gpu_large_want *want, const struct buf_desc *d)
{
    const size_t stride = row_stride(d->n_cols), rows = (d->n_rows + 15) / 16 * 16;
    if (rows * stride * 2 > GPU_EXPANDED_MAX) return; // embedding and output: their rows are few
    if (rows * stride * 2 > want->scratch) want->scratch = rows * stride * 2;
    if (stride > want->stride) want->stride = stride;
}

size_t gpu_large_bytes(const struct gpu *g, const struct gpu_large_want *want)
{
    const size_t rows = gpu_max_rows(g);
    if (!g->blas) return 0;
    return want->scratch + (g->fp8 ? rows * want->stride + rows * sizeof(float) : 0);
}

bool gpu_large_take(struct gpu *g, struct err *e)
{
    struct gpu_large *l = &g->large;
    const size_t rows = gpu_max_rows(g);
    if (!g->blas) return true;
    if (!gpu_grow(g, &l->scratch, &l->scratch_bytes, l->want.scratch, "a matrix as f16", e))
        return false;
    return !g->fp8 ||
           (gpu_grow(g, &l->rows8, &l->rows8_bytes, rows * l->want.stride, "rows as e4m3", e) &&
            gpu_grow(g, &l->row_scales, &l->row_scales_bytes, rows * sizeof(float),
                     "scales of rows", e));
}

bool gpu_large_fits(const struct gpu *g, const struct dbuf *w)
{
    return expanded_bytes(w) <= g->large.scratch_bytes;
}

bool gpu_large_fits_fp8(const struct gpu *g, const struct op_linear *o, uint32_t n_rows)
{
    if (!g->fp8 || o->x->stride > ROWS8_THREADS * ROWS8_PIECES * 8 ||
        (size_t)n_rows * o->x->stride > g->large.rows8_bytes ||
        (size_t)n_rows * sizeof(float) > g->large.row_scales_bytes)
        return false;
    for (uint32_t i = 0; i < o->n; i++)
        if (o->w[i]->n_rows % 16) return false; // the library wants whole sixteens
    return true;
}

// ---- expansion ----------------------------------------------------------------------------------

// The scales of a matrix's rows, found when they are first needed.
static bool find_scales(struct gpu *g, struct dbuf *w, struct err *e)
{
    struct args_peak a = {.packed = AT(w->p),
                          .scales = AT(w->scales),
                          .n_panels = (w->n_rows + 15) / 16,
                          .n_units = w->stride / PACK_COLS};
    if (w->has_scales) return true;
    w->has_scales = true;
    return gpu_run(g, gpu_pick(GPU_OP_PEAK, w->pack, 0, false, NULL), a.n_panels, 1, 128, 0, &a,
                   g->stream, e);
}

static bool expand_to(struct gpu *g, struct dbuf *w, bool fp8, gpu_ptr to, struct err *e)
{
    const uint32_t n_panels = (w->n_rows + 15) / 16, n_units = w->stride / PACK_COLS;
    struct args_dequant plain = {AT(w->p), AT(to), n_panels, n_units};
    struct args_dequant8 small = {AT(w->p), AT(w->scales), AT(to), n_panels, n_units};
    const enum gpu_kernel k =
        gpu_pick(fp8 ? GPU_OP_DEQUANT8 : GPU_OP_DEQUANT, w->pack, 0, false, NULL);
    return (!fp8 || find_scales(g, w, e)) &&
           gpu_run(g, k, n_units, (n_panels + 3) / 4, 128, 0, fp8 ? (void *)&small : (void *)&plain,
                   g->stream, e);
}

static size_t kept_bytes(const struct dbuf *w)
{
    return w->n_rows % 16 || expanded_bytes(w) > GPU_EXPANDED_MAX ? 0 : expanded_bytes(w) / 2;
}

// The e4m3 form of all matrices, if that leaves the better part of what is free to others.
bool gpu_large_keep(struct gpu *g, struct err *e)
{
    const struct gpu_api *a = &g->api;
    struct gpu_large *l = &g->large;
    size_t n = 0, free_bytes = 0, total = 0;
    if (!g->fp8 || l->kept) return true;
    for (uint32_t i = 0; i < l->n_all; i++) n += kept_bytes(l->all[i]);
    a->mem_info(&free_bytes, &total);
    if (n == 0 || n > free_bytes / 2 || a->mem_alloc(&l->kept, n) != 0) return true;
    gpu_ptr to = l->kept;
    for (uint32_t i = 0; i < l->n_all; i++) {
        struct dbuf *w = l->all[i];
        if (kept_bytes(w) == 0) continue;
        if (!expand_to(g, w, true, to, e)) return false;
        w->kept = to;
        to += kept_bytes(w);
    }
    log_debug("cuda", "kept_e4m3_mib=%zu", n >> 20);
    return true;
}

// ---- products -----------------------------------------------------------------------------------

bool gpu_large_quantise(struct gpu *g, const struct dbuf *x, uint32_t n_rows, struct err *e)
{
    struct args_rows8 a = {.gate = AT(x->p),
                           .out = AT(g->large.rows8),
                           .scales = AT(g->large.row_scales),
                           .stride = x->stride};
    return gpu_run(g, GPU_rows_e4m3, n_rows, 1, gpu_rows8_threads(x->stride), 0, &a, g->stream, e);
}

static bool add_bias(struct gpu *g, const struct dbuf *out, const struct dbuf *b, uint32_t n_rows,
                     struct err *e)
{
    struct args_bias a = {.x = AT(out->p),
                          .bias = AT(b->p),
                          .n_cols = out->n_cols,
                          .stride = out->stride,
                          .is_f32 = out->kind != BUF_ACT};
    return gpu_run(g, GPU_bias, n_rows, 1, 256, 0, &a, g->stream, e);
}

static bool multiply(struct gpu *g, const struct gpu_large_job *j, const struct dbuf *w,
                     const struct dbuf *out, struct err *e)
{
    const struct gpu_large *l = &g->large;
    const struct dbuf *x = j->o->x;
    struct gpu_product p = {.kind = j->kind,
                            .w = j->kind != PRODUCT_F16 && w->kept ? w->kept : l->scratch,
                            .x = x->p,
                            .out = out->p,
                            .w_scales = w->scales,
                            .m = w->n_rows,
                            .n = j->n_rows,
                            .k = w->stride,
                            .ldo = out->stride,
                            .alpha = x->scale / PACK_SCALE,
                            .add = j->add_to != NULL,
                            .out_f32 = out->kind != BUF_ACT};
    if (j->kind != PRODUCT_F16) {
        p.x = l->rows8;
        p.x_scales = l->row_scales;
        p.alpha = j->kind == PRODUCT_E4M3 ? RAW_SCALE : x->scale;
    }
    return gpu_blas_multiply(g->blas, g->stream, &p, e);
}

bool gpu_large_linear(struct gpu *g, const struct gpu_large_job *j, struct err *e)
{
    const struct op_linear *o = j->o;
    const bool fp8 = j->kind != PRODUCT_F16;
    for (uint32_t i = 0; i < o->n; i++) {
        struct dbuf *w = o->w[i], *out = j->add_to ? j->add_to : o->out[i];
        if ((!fp8 || !w->kept) && !expand_to(g, w, fp8, g->large.scratch, e)) return false;
        if (!multiply(g, j, w, out, e)) return false;
        if (o->bias[i] && !add_bias(g, out, o->bias[i], j->n_rows, e)) return false;
    }
    return true;
}

// ---- choice of algorithms -----------------------------------------------------------------------

static bool is_new_shape(const struct gpu_large *l, const struct dbuf *w)
{
    for (uint32_t i = 0; i < l->n_tuned; i++)
        if (l->tuned[i].n_rows == w->n_rows && l->tuned[i].stride == w->stride) return false;
    for (uint32_t i = 0; i < l->n_met; i++)
        if (l->met[i]->n_rows == w->n_rows && l->met[i]->stride == w->stride) return false;
    return l->n_met < GPU_LARGE_SHAPES;
}

bool gpu_large_meet(struct gpu *g, struct dbuf *w, struct err *e)
{
    struct gpu_large *l = &g->large;
    if (!g->blas || expanded_bytes(w) > GPU_EXPANDED_MAX) return true;
    if (l->n_all == l->cap_all) {
        const uint32_t cap = l->cap_all ? 2 * l->cap_all : 64;
        struct dbuf **p = realloc(l->all, cap * sizeof(struct dbuf *));
        if (!p) return err_set(e, ERR_MEMORY, "no memory for a list of weights");
        l->all = p;
        l->cap_all = cap;
    }
    l->all[l->n_all++] = w;
    if (g->use_tuning && (size_t)w->n_rows * w->stride >= TUNE_LEAST && is_new_shape(l, w))
        l->met[l->n_met++] = w;
    return true;
}

void gpu_large_forget(struct gpu *g, const struct dbuf *w)
{
    struct gpu_large *l = &g->large;
    for (uint32_t i = 0; i < l->n_met; i++)
        if (l->met[i] == w) l->met[i--] = l->met[--l->n_met];
    for (uint32_t i = 0; i < l->n_all; i++)
        if (l->all[i] == w) l->all[i--] = l->all[--l->n_all];
}

// Times the library's algorithms for the shape of w: rows of the matrix itself are the activations, so that
// the numbers are a network's. room holds rows and results.
static bool tune_shape(struct gpu *g, struct dbuf *w, bool add, uint32_t n, gpu_ptr room,
                       struct err *e)
{
    const struct gpu_large *l = &g->large;
    const bool fp8 = g->fp8 && w->n_rows % 16 == 0; // then results are raw f16, added by the norm
    const size_t row_bytes = (size_t)w->stride * (fp8 ? 1 : 2);
    const uint32_t padded = (w->n_rows + 15) / 16 * 16;
    gpu_ptr at = room;
    float us, first_us;
    for (uint32_t i = 0; i < n; i += padded, at += padded * row_bytes)
        if (!expand_to(g, w, fp8, at, e)) return false;
    if (!expand_to(g, w, fp8, l->scratch, e)) return false;
    const struct gpu_product p = {.kind = fp8 ? PRODUCT_E4M3 : PRODUCT_F16,
                                  .w = l->scratch,
                                  .x = room,
                                  .out = (at + 255) / 256 * 256,
                                  .m = w->n_rows,
                                  .n = n,
                                  .k = w->stride,
                                  .ldo = row_stride(w->n_rows),
                                  .alpha = fp8 ? RAW_SCALE : 1.0f / PACK_SCALE,
                                  .add = add && !fp8,
                                  .out_f32 = add && !fp8};
    if (!gpu_blas_tune(g->blas, &g->api, g->stream, &p, &us, &first_us, e)) return false;
    log_debug("cuda", "product=%ux%u rows=%u %s us=%.1f first_us=%.1f tflops=%.0f", w->n_rows,
              w->n_cols, n, fp8 ? "fp8" : "f16", (double)us, (double)first_us,
              2e-6 * w->n_rows * w->n_cols * n / (double)us);
    return true;
}

// Rows that a trial of w may have in so much room.
static uint32_t tune_rows(const struct dbuf *w, size_t room)
{
    const size_t row = (size_t)w->stride * 2 + row_stride(w->n_rows) * sizeof(float) + 4;
    const size_t spare = expanded_bytes(w) + 4096, n = room > spare ? (room - spare) / row : 0;
    return n < TUNE_ROWS ? (uint32_t)(n / 256 * 256) : TUNE_ROWS;
}

static bool tune_all(struct gpu *g, gpu_ptr room, size_t room_bytes, struct err *e)
{
    struct gpu_large *l = &g->large;
    for (uint32_t i = 0; i < l->n_met; i++) {
        struct dbuf *w = l->met[i];
        const uint32_t n = tune_rows(w, room_bytes);
        if (n < TUNE_ROWS_LEAST) continue;
        // what is as wide as the residual stream is added to it; other results are f16
        if (!tune_shape(g, w, w->n_rows == l->stream_cols, n, room, e)) return false;
        if (l->n_tuned < GPU_LARGE_SHAPES)
            l->tuned[l->n_tuned++] = (struct gpu_shape){w->n_rows, w->stride};
    }
    return true;
}

// Pages that nobody uses yet are the room, or what can be had for the moment.
bool gpu_large_tune(struct gpu *g, struct err *e)
{
    const struct gpu_api *a = &g->api;
    struct gpu_large *l = &g->large;
    const uint64_t start = clock_ns();
    size_t n = l->room_bytes, free_bytes = 0, total = 0;
    gpu_ptr room = l->room;
    if (l->n_met == 0) return true;
    const bool own = n == 0;
    if (own) {
        a->mem_info(&free_bytes, &total);
        n = free_bytes > 2 * TUNE_ROOM && a->mem_alloc(&room, TUNE_ROOM) == 0 ? TUNE_ROOM : 0;
    } else if (n > TUNE_ROOM) {
        n = TUNE_ROOM;
    }
    bool ok = n == 0 || (tune_all(g, room, n, e) &&
                         gpu_ok(a, a->fill(room, 0, n, g->stream), "clearing memory", e));
    ok = gpu_ok(a, a->stream_sync(g->stream), "choosing products", ok ? e : NULL) && ok;
    if (own && n) a->mem_free(room);
    l->n_met = 0;
    log_debug("cuda", "products_chosen ms=%.0f", clock_ms_since(start));
    return ok;
}
