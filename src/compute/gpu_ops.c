// Ops to kernel launches. What stands side by side is done at once: a product and the residual add
// after it; gate, up and their activation. Few rows go to kernels that read packed weights; many rows to
// the library's product on weights expanded to f16.
// Invariant: a fused pair leaves the buffers that later ops of the list read as the single ops would;
// the last op's result always exists.
#include "compute/gpu_chain.h"

#include <assert.h>

#define AT(p) ((void *)(uintptr_t)(p))

// Activations whose rows still lack the norm's factor (args_linear): the next product applies it.
struct unscaled {
    const struct dbuf *x; // NULL: none
    uint32_t n_squares, n_cols;
    float eps;
};

// Results of a product in e4m3 that still want their scales (args_norm8): the next op but the add, or the gated
// activation, applies them.
struct raw {
    const struct dbuf *y, *w[2]; // y NULL: none
    float times;
};

struct run {
    struct gpu *g;
    const struct op *ops;
    uint32_t n_ops, i;
    const struct batch *batch;
    struct err *e;
    struct unscaled h;
    uint32_t n_single;     // rows of decode steps, the batch's first: never in e4m3
    const struct dbuf *x8; // the activations whose e4m3 form is at hand
    struct raw raw;
    const struct op_rope_kv *rope; // what the attention at hand does itself; NULL: nothing
    struct gpu_chain *chain;       // products that wait for those after them
};

static bool launch(const struct run *r, enum gpu_kernel k, uint32_t x, uint32_t y, uint32_t threads,
                   uint32_t shared_bytes, void *args)
{
    return x == 0 || y == 0 ||
           (gpu_chain_flush(r->g, r->chain, r->e) &&
            gpu_run(r->g, k, x, y, threads, shared_bytes, args, r->g->stream, r->e));
}

// Memory that waiting products use may move.
static bool grow(const struct run *r, gpu_ptr *p, size_t *have, size_t n, const char *what)
{
    return *have >= n ||
           (gpu_chain_flush(r->g, r->chain, r->e) && gpu_grow(r->g, p, have, n, what, r->e));
}

static uint32_t rows_of(const struct run *r, uint32_t n)
{
    return n ? n : r->batch->n_rows;
}

static bool run_embed(const struct run *r, const struct op_embed *o)
{
    const struct dbuf *t = o->table;
    struct args_embed a = {.packed = AT(t->p),
                           .tokens = AT(r->g->region[REGION_tokens]),
                           .out = AT(o->out->p),
                           .n_units = t->stride / PACK_COLS,
                           .stride = o->out->stride};
    if (o->out->kind != BUF_STREAM)
        return err_set(r->e, ERR_INTERNAL, "embedding rows go to a residual stream only");
    return launch(r, gpu_pick(GPU_OP_EMBED, t->pack, 0, false, NULL), a.n_units, r->batch->n_rows,
                  32, 0, &a);
}

// ---- products ---------------------------------------------------------------------------------

static enum linear_mode mode_of(const struct dbuf *out)
{
    return out->kind == BUF_ACT ? LINEAR_F16 : LINEAR_F32;
}

// Blocks of `rows` rows for each part, one part after another.
static uint32_t place_blocks(struct args_linear *a, uint32_t rows)
{
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < a->n_parts; i++) {
        a->part[i].block0 = blocks;
        blocks += (a->part[i].n_rows + rows - 1) / rows;
    }
    return blocks;
}

static bool is_staged(enum pack_kind pack)
{
    return pack == PACK_Q5_1 || pack == PACK_Q4_K || pack == PACK_Q5_K || pack == PACK_Q6_K;
}

// Bytes of a warp's units on their way through shared memory, of the largest part.
static uint32_t staged_bytes(const struct args_linear *a, uint32_t warps, uint32_t panels)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < a->n_parts; i++) {
        const uint32_t unit = pack_unit_bytes(a->pack[i]);
        const uint32_t n = unit * panels * FEW_STAGES(panels, warps, unit);
        if (is_staged((enum pack_kind)a->pack[i]) && n > most) most = n;
    }
    return most;
}

static bool is_mixed(const struct args_linear *a)
{
    for (uint32_t i = 1; i < a->n_parts; i++)
        if (a->pack[i] != a->pack[0]) return true;
    return false;
}

static bool is_sm90(const struct gpu *g)
{
    return g->cc >= 90 && g->cc < 100;
}

// Shared memory that lets as many blocks of gate and up live on a multiprocessor as gpu_few_live says, of the 196
// KiB that allow_shared (gpu.c) divides off; a block takes 1024 more than it asks for, and some of its own.
static uint32_t share_of(const struct run *r, uint32_t n_blocks)
{
    return is_sm90(r->g) ? 196 * 1024 / gpu_few_live(n_blocks, r->g->n_sm) - 1024 - 256 : 0;
}

static bool launch_few(const struct run *r, struct args_linear *a)
{
    const bool gated = a->mode == LINEAR_SWIGLU;
    const uint32_t n_panels = (a->part[0].n_rows + 15) / 16;
    const uint32_t blocks = gated ? n_panels : place_blocks(a, PACK_ROWS);
    const uint32_t warps = gpu_few_warps(a->n_units, blocks, gated);
    const uint32_t panels = gated ? 2 : 1, sums = warps * panels * 512;
    const uint32_t units = warps * staged_bytes(a, warps, panels);
    const uint32_t live = gated ? share_of(r, blocks) : 0, most = units > sums ? units : sums;
    const enum gpu_kernel k =
        is_mixed(a) ? GPU_few_mixed
                    : gpu_pick(GPU_OP_FEW, (enum pack_kind)a->pack[0], a->n, gated, NULL);
    const struct gpu_few_launch l = {*a, k, blocks, warps, most > live ? most : live};
    if (r->batch->n_rows > FEW_COLUMNS_MAX) // then some launches do not come by here
        return launch(r, k, blocks, 1, warps * 32, l.shared_bytes, a);
    return gpu_chain_add(r->g, r->chain, &l, r->e);
}

// Blocks of a launch of SOME or WIDE, and the slices of K that they divide it into.
static bool slice_up(const struct run *r, struct args_linear *a, uint32_t live, uint32_t *blocks)
{
    struct gpu *g = r->g;
    const bool gated = a->mode == LINEAR_SWIGLU;
    const uint32_t half = SOME_ROWS / 2;
    *blocks = gated ? (a->part[0].n_rows + half - 1) / half : place_blocks(a, SOME_ROWS);
    a->n_slices = gated ? 1 : (uint8_t)gpu_slices(a->n_units, *blocks, live);
    if (a->n_slices == 1) return true;
    const size_t n = (size_t)a->n_slices * SOME_COLUMNS_MAX * *blocks * SOME_ROWS * sizeof(float);
    if (!grow(r, &g->slices, &g->slices_bytes, n, "slices of a product")) return false;
    a->slices = AT(g->slices);
    return true;
}

static bool add_slices(const struct run *r, struct args_linear *a, uint32_t blocks)
{
    return a->n_slices == 1 || launch(r, GPU_linear_sum, blocks, a->n, 128, 0, a);
}

static bool launch_some(const struct run *r, struct args_linear *a, enum pack_kind pack)
{
    uint32_t columns, blocks;
    const enum gpu_kernel k = gpu_pick(GPU_OP_SOME, pack, a->n, false, &columns);
    return slice_up(r, a, 396, &blocks) &&
           launch(r, k, blocks, (a->n + columns - 1) / columns * a->n_slices, 128, columns * 512,
                  a) &&
           add_slices(r, a, blocks);
}

// The tiles of x must be in g->tiles: see put_tiles_of.
static bool launch_wide(const struct run *r, struct args_linear *a, enum pack_kind pack)
{
    uint32_t columns, blocks;
    const enum gpu_kernel k = gpu_pick(GPU_OP_WIDE, pack, a->n, false, &columns);
    a->x = AT(r->g->tiles);
    return slice_up(r, a, columns > 64 ? 132 : 264, &blocks) &&
           launch(r, k, blocks, a->n_slices, 256, 4 * columns * 128 + 64, a) &&
           add_slices(r, a, blocks);
}

// n rows of activations as the tiles that WIDE wants.
static bool put_tiles_of(const struct run *r, gpu_ptr x, uint32_t n, uint32_t n_units)
{
    struct gpu *g = r->g;
    uint32_t columns;
    gpu_pick(GPU_OP_WIDE, PACK_H16, n, false, &columns);
    struct args_tiles a = {.x = AT(x), .n = n, .n_tile = columns, .n_granules = n_units * 4};
    const size_t most = (size_t)SOME_COLUMNS_MAX * n_units * PACK_COLS * 2;
    if (!grow(r, &g->tiles, &g->tiles_bytes, most, "tiles of activations")) return false;
    a.out = AT(g->tiles);
    return launch(r, GPU_wide_tiles, a.n_granules, columns / 32, 256, 0, &a);
}

// Is every row of the product in a launch of FEW?
static bool is_few(const struct run *r, const struct op_linear *o)
{
    return rows_of(r, o->n_rows) <= FEW_COLUMNS_MAX;
}

static uint32_t n_squares_of(const struct dbuf *w)
{
    return ((w->n_rows + 15) / 16 + 3) / 4 * 4;
}

static void take_norm(const struct run *r, const struct op_linear *o,
                      const struct op_rms_norm *norm, struct args_linear *a)
{
    if (norm) {
        a->n_squares = n_squares_of(o->w[0]);
        a->norm_w = AT(norm->w->p);
        a->norm_out = AT(norm->out->p);
        a->squares = AT(r->g->squares);
    }
    if (r->h.x != o->x) return;
    a->n_squares = r->h.n_squares;
    a->row_squares = AT(r->g->squares);
    a->n_norm = (float)r->h.n_cols;
    a->eps = r->h.eps;
}

// Parts [first, first + n) of o in one launch for up to SOME_COLUMNS_MAX rows each; where these are few, with
// the norm after it.
static bool launch_small(const struct run *r, const struct op_linear *o, uint32_t first, uint32_t n,
                         enum linear_mode mode, struct dbuf *add_to, const struct op_rms_norm *norm)
{
    const uint32_t n_rows = rows_of(r, o->n_rows);
    for (uint32_t row = 0; row < n_rows; row += SOME_COLUMNS_MAX) {
        const uint32_t n_here = n_rows - row < SOME_COLUMNS_MAX ? n_rows - row : SOME_COLUMNS_MAX;
        struct args_linear a = {.x = AT(o->x->p + (size_t)row * o->x->stride * 2),
                                .n = n_here,
                                .n_units = o->x->stride / PACK_COLS,
                                .alpha = o->x->scale / PACK_SCALE,
                                .mode = (uint8_t)mode,
                                .n_parts = (uint8_t)n,
                                .n_slices = 1};
        for (uint32_t i = 0; i < n; i++) {
            const struct dbuf *out = add_to ? add_to : o->out[first + i];
            const size_t row_bytes = (size_t)out->stride * (out->kind == BUF_ACT ? 2 : 4);
            const struct dbuf *bias = o->bias[first + i];
            a.pack[i] = (uint8_t)o->w[first + i]->pack;
            a.part[i] = (struct linear_part){.w = AT(o->w[first + i]->p),
                                             .out = AT(out->p + row * row_bytes),
                                             .bias = bias ? AT(bias->p) : NULL,
                                             .n_rows = o->w[first + i]->n_rows};
        }
        const enum pack_kind pack = o->w[first]->pack;
        const bool wide = n_here > FEW_COLUMNS_MAX && is_sm90(r->g);
        // parts of other packs before this one have the tiles made already
        if (wide && (first == 0 || n_rows > SOME_COLUMNS_MAX) &&
            !put_tiles_of(r, (gpu_ptr)(uintptr_t)a.x, n_here, a.n_units))
            return false;
        if (n_here <= FEW_COLUMNS_MAX) take_norm(r, o, norm, &a);
        if (!(n_here <= FEW_COLUMNS_MAX ? launch_few(r, &a)
              : wide                    ? launch_wide(r, &a, pack)
                                        : launch_some(r, &a, pack)))
            return false;
    }
    return true;
}

// May these parts share a launch?
static bool joins(const struct run *r, const struct op_linear *o, uint32_t i, uint32_t j)
{
    const enum pack_kind x = o->w[i]->pack, y = o->w[j]->pack;
    if (mode_of(o->out[i]) != mode_of(o->out[j])) return false;
    return x == y || (is_few(r, o) && is_staged(x) && is_staged(y));
}

static bool linear_small(const struct run *r, const struct op_linear *o, struct dbuf *add_to,
                         const struct op_rms_norm *norm)
{
    for (uint32_t i = 0; i < o->n;) {
        const enum linear_mode mode = add_to ? LINEAR_ADD : mode_of(o->out[i]);
        uint32_t n = 1;
        while (i + n < o->n && !add_to && joins(r, o, i, i + n)) n++;
        if (!launch_small(r, o, i, n, mode, add_to, norm)) return false;
        i += n;
    }
    return true;
}

static bool is_large(const struct run *r, const struct op_linear *o)
{
    const struct gpu *g = r->g;
    const uint32_t most = SOME_COLUMNS_MAX * (is_sm90(g) ? WIDE_PASSES_MAX : 1);
    if (!g->blas || rows_of(r, o->n_rows) <= most) return false;
    for (uint32_t i = 0; i < o->n; i++)
        if (!gpu_large_fits(g, o->w[i])) return false;
    return true;
}

static bool is_fp8(const struct run *r, const struct op_linear *o)
{
    return r->g->fp8 && o->n_rows == 0 && is_large(r, o) &&
           gpu_large_fits_fp8(r->g, o, r->batch->n_rows);
}

static const struct op *op_at(const struct run *r, uint32_t i)
{
    return i < r->n_ops ? &r->ops[i] : NULL;
}

// Is the op after op i a product in e4m3 of what that one writes?
static bool feeds_fp8(const struct run *r, uint32_t i, const struct dbuf *out)
{
    const struct op *next = op_at(r, i + 1);
    return next && next->kind == OP_LINEAR && next->linear.x == out && is_fp8(r, &next->linear);
}

static uint32_t norm_threads(uint32_t n_cols)
{
    const uint32_t n = (n_cols / 4 + 31) / 32 * 32; // a function of the width alone
    return n < 1024 ? n : 1024;
}

// Is op i a norm of the whole stream whose rows go to a product in e4m3?
static bool is_norm8(const struct run *r, uint32_t i)
{
    const struct op *op = op_at(r, i);
    if (!op || op->kind != OP_RMS_NORM) return false;
    const struct op_rms_norm *o = &op->rms_norm;
    return o->x->kind == BUF_STREAM && !o->n_rows &&
           o->x->n_cols <= 2 * NORM8_PAIRS * norm_threads(o->x->n_cols) && feeds_fp8(r, i, o->out);
}

// The stream that the next op adds this product to, if the product itself is then not needed.
static struct dbuf *residual_of(const struct run *r, const struct op_linear *o)
{
    const struct op *next = op_at(r, r->i + 1);
    if (o->n != 1 || !next || next->kind != OP_ADD || next->add.y != o->out[0]) return NULL;
    if (o->n_rows != next->add.n_rows) return NULL;
    return op_at(r, r->i + 2) ? next->add.x : NULL;
}

static bool gates_next(const struct run *r, const struct op_linear *o)
{
    const struct op *next = op_at(r, r->i + 1);
    return o->n == 2 && next && next->kind == OP_SWIGLU && next->swiglu.gate == o->out[0] &&
           next->swiglu.up == o->out[1] && next->swiglu.out == o->out[0] &&
           next->swiglu.n_rows == o->n_rows && o->w[0]->pack == o->w[1]->pack && op_at(r, r->i + 2);
}

// The norm that follows the add, where the product may write it: the next op is then another product of
// few rows, which reads it as its input.
static const struct op_rms_norm *norm_after(const struct run *r, const struct op_linear *o,
                                            const struct dbuf *add_to)
{
    const struct op *norm = op_at(r, r->i + 2), *next = op_at(r, r->i + 3);
    if (!add_to || !is_few(r, o) || !norm || norm->kind != OP_RMS_NORM) return NULL;
    if (norm->rms_norm.x != add_to || norm->rms_norm.out == o->x ||
        norm->rms_norm.n_rows != o->n_rows)
        return NULL;
    if (!next || next->kind != OP_LINEAR || next->linear.x != norm->rms_norm.out) return NULL;
    return next->linear.n_rows != o->n_rows ? NULL : &norm->rms_norm;
}

static bool run_small(struct run *r, const struct op_linear *o)
{
    if (gates_next(r, o)) {
        r->i++;
        o->out[0]->scale = 1.0f / SWIGLU_SCALE;
        const bool ok = launch_small(r, o, 0, 2, LINEAR_SWIGLU, NULL, NULL);
        r->h.x = NULL;
        return ok;
    }
    struct gpu *g = r->g;
    struct dbuf *add_to = residual_of(r, o);
    const struct op_rms_norm *norm = norm_after(r, o, add_to);
    const size_t n = FEW_COLUMNS_MAX * n_squares_of(o->w[0]) * sizeof(float);
    if (norm && !grow(r, &g->squares, &g->squares_bytes, n, "sums of squares")) return false;
    const bool ok = linear_small(r, o, add_to, norm);
    r->h.x = NULL;
    if (norm) {
        r->h = (struct unscaled){norm->out, n_squares_of(o->w[0]), add_to->n_cols, norm->eps};
        norm->out->scale = 1;
    }
    r->i += norm ? 2 : add_to ? 1 : 0;
    return ok;
}

// Gate and up may stay raw where the gated activation goes to a product in e4m3.
static bool gates_raw(const struct run *r, const struct op_linear *o)
{
    const struct op *next = op_at(r, r->i + 1);
    return o->n == 2 && next && next->kind == OP_SWIGLU && next->swiglu.gate == o->out[0] &&
           next->swiglu.up == o->out[1] && next->swiglu.out == o->out[0] && !next->swiglu.n_rows &&
           !o->bias[0] && !o->bias[1] && o->out[0]->kind == BUF_ACT && o->out[1]->kind == BUF_ACT &&
           feeds_fp8(r, r->i + 1, o->out[0]);
}

// What is added to the stream may stay raw where the norm after it adds.
static bool adds_raw(const struct run *r, const struct op_linear *o, const struct dbuf *add_to)
{
    const struct op *norm = op_at(r, r->i + 2);
    return add_to && !o->bias[0] && o->out[0]->kind == BUF_ACT && o->out[0] != o->x &&
           is_norm8(r, r->i + 2) && norm->rms_norm.x == add_to;
}

// Products in e4m3. Rows of decode steps are done again after it by the kernels for few rows: the library wants
// its scales at addresses of whole sixteens, so it begins at row 0.
static bool run_fp8(struct run *r, const struct op_linear *o, struct dbuf *add_to, bool raw)
{
    struct op_linear single = *o;
    const struct gpu_large_job j = {.o = o,
                                    .add_to = raw ? NULL : add_to,
                                    .n_rows = r->batch->n_rows,
                                    .kind = raw ? PRODUCT_E4M3 : PRODUCT_E4M3_ROWS};
    single.n_rows = r->n_single;
    if (r->x8 != o->x && !gpu_large_quantise(r->g, o->x, r->batch->n_rows, r->e)) return false;
    r->x8 = NULL;
    if (raw)
        r->raw =
            (struct raw){o->out[0], {o->w[0], o->n > 1 ? o->w[1] : NULL}, o->x->scale / RAW_SCALE};
    return gpu_large_linear(r->g, &j, r->e) &&
           (r->n_single == 0 || linear_small(r, &single, add_to, NULL));
}

static bool run_large(struct run *r, const struct op_linear *o)
{
    struct dbuf *add_to = residual_of(r, o);
    const bool fp8 = is_fp8(r, o), raw = fp8 && (gates_raw(r, o) || adds_raw(r, o, add_to));
    if (fp8 && !raw && r->n_single) add_to = NULL; // or these rows would be added twice
    const struct gpu_large_job j = {.o = o, .add_to = add_to, .n_rows = rows_of(r, o->n_rows)};
    const bool ok = fp8 ? run_fp8(r, o, add_to, raw) : gpu_large_linear(r->g, &j, r->e);
    if (add_to) r->i++;
    return ok;
}

// Advances r->i past what was fused.
static bool run_linear(struct run *r, const struct op_linear *o)
{
    for (uint32_t i = 0; i < o->n; i++) {
        if (o->x->kind != BUF_ACT || o->x->n_cols != o->w[i]->n_cols)
            return err_set(r->e, ERR_INTERNAL, "a product of %u inputs by %u weights a row",
                           o->x->n_cols, o->w[i]->n_cols);
        o->out[i]->scale = 1;
    }
    return is_large(r, o) ? run_large(r, o) : run_small(r, o);
}

static bool run_norm(struct run *r, const struct op_rms_norm *o)
{
    struct args_norm a = {.x = AT(o->x->p),
                          .w = AT(o->w->p),
                          .out = AT(o->out->p),
                          .n_cols = o->x->n_cols,
                          .stride = o->x->stride,
                          .x_half = o->x->kind == BUF_ACT,
                          .eps = o->eps};
    const uint32_t threads = norm_threads(a.n_cols);
    if (o->out->kind != BUF_ACT || o->x->scale != 1.0f)
        return err_set(r->e, ERR_INTERNAL, "a norm goes from the stream to activations only");
    o->out->scale = 1;
    if (is_norm8(r, r->i)) {
        struct args_norm8 b = {.x = a.x,
                               .w = a.w,
                               .out = AT(r->g->large.rows8),
                               .plain = a.out,
                               .scales = AT(r->g->large.row_scales),
                               .n_cols = a.n_cols,
                               .stride = a.stride,
                               .n_plain = r->n_single,
                               .eps = a.eps};
        if (r->raw.y) {
            b.raw = AT(r->raw.y->p);
            b.columns = AT(r->raw.w[0]->scales);
            b.raw_times = r->raw.times;
        }
        r->raw.y = NULL;
        r->x8 = o->out;
        return launch(r, GPU_norm_e4m3, r->batch->n_rows, 1, threads, 0, &b);
    }
    return launch(r, GPU_rms_norm, rows_of(r, o->n_rows), 1, threads, 0, &a);
}

// ---- keys, values, attention ------------------------------------------------------------------

static struct kv_place place_of(const struct run *r, const struct dbuf *kv, uint32_t layer)
{
    return (struct kv_place){.base = AT(kv->p + layer * kv->layer_bytes),
                             .pages = AT(r->g->region[REGION_pages]),
                             .page_bytes = kv->page_bytes,
                             .head_bytes = (uint32_t)kv->head_bytes,
                             .n_kv_heads = kv->kv.n_kv_heads};
}

// Decode steps on sm_90a: heads of 128, pages of f16.
static bool is_grouped(const struct run *r, const struct dbuf *kv)
{
    return is_sm90(r->g) && kv->kv.head_dim == 128 && kv->kv.type == KV_F16;
}

// Is the attention after it done by a kernel that does this as well? All rows are decode steps then, and few enough a
// block that turning them again for each cut of the keys costs less than a launch (64 rows: 5 us more than it saves).
static bool attention_turns(const struct run *r, const struct op_rope_kv *o)
{
    const struct op *next = op_at(r, r->i + 1);
    const struct gpu_step *s = &r->g->step;
    return next && next->kind == OP_ATTENTION && next->attention.kv == o->kv &&
           next->attention.layer == o->layer && next->attention.q == o->q && is_grouped(r, o->kv) &&
           o->n_rot == 128 && r->batch->n_rows == r->batch->n_seqs && s->n_waves == 1 &&
           !s->flash && s->waves[0].most_queries * (o->n_heads / o->n_kv_heads) <= 16;
}

static bool run_rope(struct run *r, const struct op_rope_kv *o)
{
    if (attention_turns(r, o)) {
        r->rope = o;
        return true;
    }
    struct args_rope a = {.kv = place_of(r, o->kv, o->layer),
                          .q = AT(o->q->p),
                          .k = AT(o->k->p),
                          .v = AT(o->v->p),
                          .q_norm = o->q_norm ? AT(o->q_norm->p) : NULL,
                          .k_norm = o->k_norm ? AT(o->k_norm->p) : NULL,
                          .freqs = AT(o->freqs->p),
                          .rows = AT(r->g->region[REGION_rows]),
                          .n_heads = o->n_heads,
                          .stride_q = o->q->stride,
                          .stride_k = o->k->stride,
                          .head_dim = (uint16_t)o->head_dim,
                          .n_rot = (uint16_t)o->n_rot,
                          .neox = o->neox,
                          .q8 = o->kv->kv.type == KV_Q8_0,
                          .eps = o->eps,
                          .mscale = o->mscale};
    return launch(r, GPU_rope_kv, r->batch->n_rows, (o->n_heads + 2 * o->n_kv_heads + 7) / 8, 256,
                  0, &a);
}

static const float log2_e = 1.4426950408889634f;

static bool merge_parts(const struct run *r, const struct op_attention *o, uint32_t merge0,
                        uint32_t n)
{
    struct args_merge m = {.parts = AT(r->g->parts),
                           .merges =
                               (const struct attn_merge *)AT(r->g->region[REGION_merges]) + merge0,
                           .out = AT(o->out->p),
                           .n_heads = o->n_heads,
                           .head_dim = o->head_dim,
                           .stride = o->out->stride};
    return launch(r, GPU_attend_merge, n, o->n_heads, 256, 0, &m);
}

static bool attend_group(const struct run *r, const struct args_split *s, uint32_t n_items,
                         uint32_t n_kv_heads)
{
    struct args_group a = {.split = *s};
    const struct op_rope_kv *o = r->rope;
    if (o) {
        a.k = AT(o->k->p);
        a.v = AT(o->v->p);
        a.q_norm = o->q_norm ? AT(o->q_norm->p) : NULL;
        a.k_norm = o->k_norm ? AT(o->k_norm->p) : NULL;
        a.freqs = AT(o->freqs->p);
        a.stride_k = o->k->stride;
        a.neox = o->neox;
        a.eps = o->eps;
        a.mscale = o->mscale;
    }
    return launch(r, o ? GPU_group_rope_128 : GPU_group_128, n_items, n_kv_heads, 160,
                  GROUP_SHARED_BYTES, &a);
}

static bool attend_wave(const struct run *r, const struct op_attention *o,
                        const struct attn_wave *w)
{
    struct gpu *g = r->g;
    const uint32_t d = o->head_dim, page = KV_PAGE_TOKENS * d * 2 * 2;
    struct args_split a = {.kv = place_of(r, o->kv, o->layer),
                           .q = AT(o->q->p),
                           .out = AT(o->out->p),
                           .parts = AT(g->parts),
                           .items =
                               (const struct attn_item *)AT(g->region[REGION_items]) + w->item0,
                           .n_heads = o->n_heads,
                           .stride = o->q->stride,
                           .scale_log2 = o->scale * log2_e,
                           .q8 = o->kv->kv.type == KV_Q8_0};
    if (is_grouped(r, o->kv))
        return attend_group(r, &a, w->n_items, o->n_kv_heads) &&
               merge_parts(r, o, w->merge0, w->n_merges);
    const bool narrow = w->most_queries * (o->n_heads / o->n_kv_heads) <= 16;
    const enum gpu_kernel k = d == 64 ? (narrow ? GPU_attend_64_1 : GPU_attend_64_4)
                                      : (narrow ? GPU_attend_128_1 : GPU_attend_128_4);
    return launch(r, k, w->n_items, o->n_kv_heads, narrow ? 128 : 256, 3 * page, &a) &&
           merge_parts(r, o, w->merge0, w->n_merges);
}

static bool attend_few(const struct run *r, const struct op_attention *o)
{
    for (uint32_t i = 0; i < r->g->step.n_waves; i++)
        if (!attend_wave(r, o, &r->g->step.waves[i])) return false;
    return true;
}

static const uint32_t flash_shared_bytes = 32768 + 2 * 65536 + 64;

// q8_0 pages of the sequences with many rows, as f16 in the scratch.
static bool expand_pages(const struct run *r, const struct op_attention *o, struct kv_place *place)
{
    struct gpu *g = r->g;
    const size_t head = (size_t)KV_PAGE_TOKENS * o->head_dim * 2, page = head * 2 * o->n_kv_heads;
    uint32_t page0 = 0;
    if (!grow(r, &g->kv_scratch, &g->kv_scratch_bytes, page * g->step.kv_pages, "keys as f16"))
        return false;
    for (uint32_t i = 0; i < r->batch->n_seqs; i++) {
        const struct batch_seq *s = &r->batch->seqs[i];
        const uint32_t n = (s->pos0 + s->n_rows - 1) / KV_PAGE_TOKENS + 1;
        if (s->n_rows <= SPLIT_ROWS_MAX && !gpu_step_packs(g, o, s)) continue;
        struct args_kv_dequant a = {.kv = *place,
                                    .out = AT(g->kv_scratch),
                                    .out_page_bytes = page,
                                    .table = s->page0,
                                    .out_page0 = page0,
                                    .head_dim = o->head_dim};
        if (!launch(r, GPU_kv_dequant, n, 2 * o->n_kv_heads, 128, 0, &a)) return false;
        page0 += n;
    }
    place->base = AT(g->kv_scratch);
    place->page_bytes = page;
    place->head_bytes = (uint32_t)head;
    return true;
}

static bool attend_many(const struct run *r, const struct op_attention *o)
{
    struct gpu *g = r->g;
    const uint32_t n = g->step.up->n[REGION_tiles], n_packs = g->step.up->n[REGION_packs];
    struct args_flash a = {.kv = place_of(r, o->kv, o->layer),
                           .q = AT(o->q->p),
                           .out = AT(o->out->p),
                           .tiles = AT(g->region[REGION_tiles]),
                           .n_tiles = n,
                           .n_heads = o->n_heads,
                           .stride = o->q->stride,
                           .scale_log2 = o->scale * log2_e};
    if (o->kv->kv.type == KV_Q8_0 && !expand_pages(r, o, &a.kv)) return false;
    struct args_pack p = {.kv = a.kv,
                          .q = a.q,
                          .parts = AT(g->parts),
                          .packs = AT(g->region[REGION_packs]),
                          .n_heads = a.n_heads,
                          .stride = a.stride,
                          .scale_log2 = a.scale_log2};
    return launch(r, GPU_flash_128, n * o->n_heads, 1, 384, flash_shared_bytes, &a) &&
           launch(r, GPU_flash_pack_128, n_packs, o->n_kv_heads, 384, flash_shared_bytes, &p) &&
           (n_packs == 0 || merge_parts(r, o, g->step.pack_merge0, g->step.n_pack_merges));
}

static bool run_attention(struct run *r, const struct op_attention *o)
{
    struct gpu *g = r->g;
    const size_t parts = (size_t)SPLIT_PARTS_MAX * o->n_heads * (o->head_dim + 4) * sizeof(float);
    o->out->scale = 1;
    const bool ok = grow(r, &g->parts, &g->parts_bytes, parts, "attention's partial results") &&
                    (g->step.n_waves == 0 || attend_few(r, o)) &&
                    (!g->step.flash || attend_many(r, o));
    r->rope = NULL;
    return ok;
}

// ---- the rest ---------------------------------------------------------------------------------

static bool run_swiglu(struct run *r, const struct op_swiglu *o)
{
    if (!o->n_rows && feeds_fp8(r, r->i, o->out)) {
        struct args_rows8 b = {.gate = AT(o->gate->p),
                               .up = AT(o->up->p),
                               .out = AT(r->g->large.rows8),
                               .plain = AT(o->out->p),
                               .scales = AT(r->g->large.row_scales),
                               .stride = o->gate->stride,
                               .n_plain = r->n_single,
                               .n_cols = o->gate->n_cols};
        if (r->raw.y) {
            b.gate_columns = AT(r->raw.w[0]->scales);
            b.up_columns = AT(r->raw.w[1]->scales);
            b.raw_times = r->raw.times;
        }
        r->raw.y = NULL;
        o->out->scale = 1.0f / SWIGLU_SCALE;
        r->x8 = o->out;
        return launch(r, GPU_swiglu_e4m3, r->batch->n_rows, 1, gpu_rows8_threads(b.stride), 0, &b);
    }
    struct args_swiglu a = {.gate = AT(o->gate->p),
                            .up = AT(o->up->p),
                            .out = AT(o->out->p),
                            .stride = o->gate->stride,
                            .n_rows = rows_of(r, o->n_rows),
                            .scale_in = 1};
    o->out->scale = 1.0f / SWIGLU_SCALE;
    return launch(r, GPU_swiglu, (uint32_t)(((uint64_t)a.stride / 8 * a.n_rows + 255) / 256), 1,
                  256, 0, &a);
}

static bool run_add(const struct run *r, const struct op_add *o)
{
    struct args_add a = {.x = AT(o->x->p),
                         .y = AT(o->y->p),
                         .stride = o->x->stride,
                         .n_rows = rows_of(r, o->n_rows),
                         .scale = o->y->scale};
    if (o->x->kind != BUF_STREAM || o->y->kind != BUF_ACT)
        return err_set(r->e, ERR_INTERNAL, "only activations are added, and to a residual stream");
    return launch(r, GPU_add, (uint32_t)(((uint64_t)a.stride / 4 * a.n_rows + 255) / 256), 1, 256,
                  0, &a);
}

static bool run_gather(const struct run *r, const struct op_gather *o)
{
    const uint32_t size = o->x->kind == BUF_ACT ? 2 : 4;
    struct args_gather a = {.x = AT(o->x->p),
                            .out = AT(o->out->p),
                            .rows = AT(r->g->region[REGION_out_rows]),
                            .row_bytes = o->x->stride * size};
    assert((o->x->kind == BUF_ACT) == (o->out->kind == BUF_ACT));
    o->out->scale = o->x->scale;
    return launch(r, GPU_gather, r->batch->n_out, 1, 256, 0, &a);
}

static bool run_topk(const struct run *r, const struct op_topk *o)
{
    struct gpu *g = r->g;
    const uint32_t n = o->logits->n_cols, n_out = r->batch->n_out;
    if (!grow(r, &g->topk_work, &g->topk_bytes, n_out * sizeof(struct topk_work),
              "candidates of logits"))
        return false;
    struct args_topk a = {.logits = AT(o->logits->p),
                          .out = AT(o->out->p),
                          .work = AT(g->topk_work),
                          .entries = AT(g->region[REGION_adjust]),
                          .n_entries = AT(g->region[REGION_n_adjust]),
                          .n = n,
                          .k = o->out->n_cols < n ? o->out->n_cols : n,
                          .stride = o->logits->stride};
    return launch(r, GPU_topk_scan, TOPK_PIECES, n_out, 256, 0, &a) &&
           launch(r, GPU_topk_keep, TOPK_PIECES, n_out, 1024, 0, &a) &&
           launch(r, GPU_topk, n_out, 1, 1024, 0, &a);
}

static bool run_one(struct run *r)
{
    const struct op *o = &r->ops[r->i];
    switch (o->kind) {
    case OP_EMBED: return run_embed(r, &o->embed);
    case OP_RMS_NORM: return run_norm(r, &o->rms_norm);
    case OP_LINEAR: return run_linear(r, &o->linear);
    case OP_ROPE_KV: return run_rope(r, &o->rope_kv);
    case OP_ATTENTION: return run_attention(r, &o->attention);
    case OP_SWIGLU: return run_swiglu(r, &o->swiglu);
    case OP_ADD: return run_add(r, &o->add);
    case OP_GATHER: return run_gather(r, &o->gather);
    case OP_TOPK: return run_topk(r, &o->topk);
    case OP_COUNT: break;
    }
    return err_set(r->e, ERR_INTERNAL, "unknown op %d", (int)o->kind);
}

bool gpu_ops_run(struct gpu *g, const struct op *ops, uint32_t n_ops, struct err *e)
{
    struct gpu_chain chain = {.n = 0};
    struct run r = {
        .g = g, .ops = ops, .n_ops = n_ops, .batch = g->step.batch, .e = e, .chain = &chain};
    while (r.n_single < r.batch->n_seqs && r.batch->seqs[r.n_single].n_rows == 1) r.n_single++;
    for (; r.i < n_ops; r.i++)
        if (!run_one(&r)) return false;
    return gpu_chain_flush(g, &chain, e);
}
