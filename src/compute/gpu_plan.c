// What steps take of device memory beside the buffers that the engine asks for: counted before anything is
// taken, taken while the model loads. So a step allocates nothing, and what does not fit is known at start.
// Invariant: gpu_plan_take takes what gpu_scratch counted; only steps beyond its bounds grow anything (gpu_grow).
#include "compute/gpu.h"

// Kernels that the library loads when they first run, graphs of decode steps, arrays of a batch: 9 MiB on an H200
// (driver 580, CUDA 13) after prompts and answers of a 32B model.
#define RUNTIME_BYTES ((size_t)128 << 20)
// The driver hands memory out in whole blocks; smaller pieces share one.
#define BLOCK_BYTES ((size_t)2 << 20)

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t in_blocks(size_t n)
{
    return (n + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

// What the driver takes for a buffer, above its size.
static size_t rounding(size_t n)
{
    return n >= BLOCK_BYTES / 2 ? in_blocks(n) - n : 512;
}

static struct gpu_planned count(const struct gpu *g, const struct scratch_about *a)
{
    struct gpu_planned p = {0};
    const size_t head = (size_t)KV_PAGE_TOKENS * a->kv.head_dim * 2;
    size_t stride = 0, rows = 0;
    for (uint32_t i = 0; i < a->n_bufs; i++) {
        const struct buf_desc *d = &a->bufs[i];
        if (d->kind != BUF_WEIGHT) continue;
        gpu_large_count(&p.large, d);
        stride = larger(stride, row_stride(d->n_cols));
        rows = larger(rows, d->n_rows);
    }
    p.parts = (size_t)SPLIT_PARTS_MAX * a->n_heads * (a->kv.head_dim + 4) * sizeof(float);
    p.slices = (size_t)SLICED_BLOCKS_MAX * SOME_ROWS * SOME_COLUMNS_MAX * sizeof(float);
    p.tiles = g->cc >= 90 ? SOME_COLUMNS_MAX * stride * 2 : 0;
    p.squares = FEW_COLUMNS_MAX * (rows / 16 + 4) * sizeof(float);
    if (a->kv.type == KV_Q8_0) // one long sequence's pages of a layer as f16
        p.kv_scratch = head * 2 * a->kv.n_kv_heads * (a->n_ctx / KV_PAGE_TOKENS + 1);
    return p;
}

size_t gpu_scratch(struct backend *b, const struct scratch_about *a)
{
    struct gpu *g = gpu_of(b);
    const struct gpu_planned p = count(g, a);
    const size_t steps = in_blocks(p.parts) + in_blocks(p.slices) + in_blocks(p.tiles) +
                         in_blocks(p.squares) + in_blocks(p.kv_scratch) +
                         gpu_large_bytes(g, &p.large) + 4 * BLOCK_BYTES;
    size_t lost = BLOCK_BYTES;
    for (uint32_t i = 0; i < a->n_bufs; i++) lost += rounding(gpu_size(b, &a->bufs[i]));
    g->planned = p;
    // the loader's staging is given back before the rest is taken
    return lost + RUNTIME_BYTES + larger(steps, gpu_load_bytes());
}

bool gpu_plan_take(struct gpu *g, struct err *e)
{
    const struct gpu_planned *p = &g->planned;
    return gpu_grow(g, &g->parts, &g->parts_bytes, p->parts, "attention's partial results", e) &&
           gpu_grow(g, &g->slices, &g->slices_bytes, p->slices, "slices of a product", e) &&
           gpu_grow(g, &g->tiles, &g->tiles_bytes, p->tiles, "tiles of activations", e) &&
           gpu_grow(g, &g->squares, &g->squares_bytes, p->squares, "sums of squares", e) &&
           gpu_grow(g, &g->kv_scratch, &g->kv_scratch_bytes, p->kv_scratch, "keys as f16", e) &&
           gpu_large_take(g, e);
}
