// LINEAR: the input's rows are quantised (shared out by row), then workers take panels of weight rows
// one by one, of all weights of the op, so that a slow core delays nobody. Weights that were repacked
// at load have their own form of activations and of panels (repack.h).
#include <string.h>

#include "compute/cpu/cpu.h"

// What a worker takes at once: one panel when many rows make it dear, more when it is a short dot.
enum { ROWS_AT_ONCE = 2 * PANEL_ROWS };
// The same for packed panels: some 64 KB when memory is the limit; what stays in a core's cache
// beside the activations of a pass when many rows use it again and again.
enum { PACKED_FEW_BYTES = 64 << 10, PACKED_MANY_BYTES = 256 << 10 };

// Of the op's weights, how many are packed.
static uint32_t count_packed(const struct op_linear *o)
{
    uint32_t n = 0;
    for (uint32_t m = 0; m < o->n; m++) n += o->w[m]->data != NULL;
    return n;
}

static void quantize_groups(struct cpu_worker *w, const struct op_linear *o, uint32_t n_rows)
{
    const float *x[ACT_GROUP];
    uint32_t first, end;
    threads_share(n_rows, ACT_GROUP, w->i, w->n, &first, &end);
    for (uint32_t r = first; r < end; r += ACT_GROUP) {
        const uint32_t left = n_rows - r, n = left < ACT_GROUP ? left : ACT_GROUP;
        for (uint32_t i = 0; i < n; i++) x[i] = hostbuf_row(o->x, r + i);
        w->cpu->k->quantize_group(x, n, o->x->n_cols, &w->groups, r / ACT_GROUP);
    }
}

static void quantize_rows(struct cpu_worker *w, const struct op_linear *o, uint32_t n_rows)
{
    const struct acts *a = &w->acts;
    uint32_t first, end;
    threads_share(n_rows, ACT_GROUP, w->i, w->n, &first, &end);
    for (uint32_t r = first; r < end; r++)
        w->cpu->k->quantize(hostbuf_row(o->x, r), o->x->n_cols, a->q + (size_t)r * a->k_pad,
                            a->sums + (size_t)r * (a->k_pad / 16),
                            a->scales + (size_t)r * (a->k_pad / BLOCK_K));
    if (!w->cpu->k->split || n_rows > ROW_BATCH) return;
    for (uint32_t r = first; r < end; r++)
        w->cpu->k->split(a->q + (size_t)r * a->k_pad, a->k_pad, a->split + (size_t)r * a->k_pad);
}

// Weight rows [first, end) of m, one at a time.
static void do_rows(struct cpu_worker *w, const struct op_linear *o, uint32_t m, uint32_t n_rows,
                    uint32_t first, uint32_t end)
{
    const struct dbuf *weight = o->w[m];
    for (uint32_t c = first; c < end; c++) {
        float out[ROW_BATCH];
        w->cpu->k->row_dot(weight->fmt, weight->weights + c * weight->row_bytes, weight->n_cols,
                           &w->acts, n_rows, out);
        const float bias = o->bias[m] ? hostbuf_row(o->bias[m], 0)[c] : 0.0f;
        for (uint32_t i = 0; i < n_rows; i++) hostbuf_row(o->out[m], i)[c] = out[i] + bias;
    }
}

static void store_panel(const struct op_linear *o, uint32_t m, uint32_t row0, uint32_t n_rows,
                        uint32_t first, uint32_t n, float (*acc)[PANEL_ROWS])
{
    const float *bias = o->bias[m] ? hostbuf_row(o->bias[m], 0) + first : NULL;
    for (uint32_t i = 0; i < n_rows; i++) {
        float *to = hostbuf_row(o->out[m], row0 + i) + first;
        if (!bias && n == PANEL_ROWS) {
            memcpy(to, acc[i], sizeof acc[i]);
            continue;
        }
        for (uint32_t j = 0; j < n; j++) to[j] = acc[i][j] + (bias ? bias[j] : 0.0f);
    }
}

// Weight rows first .. first + PANEL_ROWS - 1 of m: unpacked once, then used for all rows.
static void do_panel(struct cpu_worker *w, const struct op_linear *o, uint32_t m, uint32_t n_rows,
                     uint32_t first)
{
    const struct cpu_kernels *k = w->cpu->k;
    const struct dbuf *weight = o->w[m];
    const uint32_t n_k = weight->n_cols, n_blocks = (n_k + BLOCK_K - 1) / BLOCK_K;
    const uint32_t left = weight->n_rows - first, n = left < PANEL_ROWS ? left : PANEL_ROWS;
    for (uint32_t b = 0; b < n_blocks; b++)
        k->panel_expand(weight->fmt, weight->weights + first * weight->row_bytes, weight->row_bytes,
                        n, b, n_k, &w->s->panel[b]);
    for (uint32_t row0 = 0; row0 < n_rows; row0 += TOKEN_BLOCK) {
        const uint32_t rows = n_rows - row0 < TOKEN_BLOCK ? n_rows - row0 : TOKEN_BLOCK;
        memset(w->s->acc, 0, rows * sizeof *w->s->acc);
        for (uint32_t b = 0; b < n_blocks; b++)
            k->panel_dot(weight->fmt, &w->s->panel[b], &w->acts, b, n_k, row0, rows, w->s->acc);
        store_panel(o, m, row0, rows, first, n, w->s->acc);
    }
}

// Packed panels [first, end) of m for all rows of activations: a dozen rows at a time, so that both
// the rows and the panels stay in the cache.
static void do_packed(struct cpu_worker *w, const struct op_linear *o, uint32_t m, uint32_t n_rows,
                      uint32_t first, uint32_t end)
{
    const struct dbuf *d = o->w[m];
    const size_t panel_bytes = pack_bytes(d->fmt, PANEL_ROWS, d->n_cols);
    for (uint32_t row0 = 0; row0 < n_rows; row0 += PACKED_ROWS) {
        const uint32_t rows = n_rows - row0 < PACKED_ROWS ? n_rows - row0 : PACKED_ROWS;
        for (uint32_t i = first; i < end; i++) {
            const uint32_t c = i * PANEL_ROWS, left = d->n_rows - c;
            w->cpu->k->packed_dot(d->fmt, d->data + i * panel_bytes, d->n_cols, &w->groups,
                                  row0 / ACT_GROUP, rows, w->s->acc);
            store_panel(o, m, row0, rows, c, left < PANEL_ROWS ? left : PANEL_ROWS, w->s->acc);
        }
    }
}

// Weight rows that a worker takes of weight m at once.
static uint32_t unit_rows(const struct op_linear *o, uint32_t m, bool few)
{
    const struct dbuf *d = o->w[m];
    if (!d->data) return few ? ROWS_AT_ONCE : PANEL_ROWS;
    const size_t at_once = few ? PACKED_FEW_BYTES : PACKED_MANY_BYTES;
    const size_t n = at_once / pack_bytes(d->fmt, PANEL_ROWS, d->n_cols);
    return PANEL_ROWS * (n < 1 ? 1 : n > 16 ? 16 : (uint32_t)n);
}

static void do_unit(struct cpu_worker *w, const struct op_linear *o, uint32_t m, uint32_t n_rows,
                    uint32_t first, uint32_t end)
{
    if (o->w[m]->data)
        do_packed(w, o, m, n_rows, first / PANEL_ROWS, (end + PANEL_ROWS - 1) / PANEL_ROWS);
    else if (n_rows <= ROW_BATCH)
        do_rows(w, o, m, n_rows, first, end);
    else
        do_panel(w, o, m, n_rows, first);
}

void cpu_linear(struct cpu_worker *w, const struct op_linear *o)
{
    const uint32_t n_rows = o->n_rows ? o->n_rows : w->cpu->batch->n_rows;
    const uint32_t n_packed = count_packed(o);
    uint32_t n_items[3] = {0}, unit[3] = {0};
    w->acts = w->cpu->acts;
    w->acts.k_pad = (o->x->n_cols + BLOCK_K - 1) / BLOCK_K * BLOCK_K;
    w->groups = w->cpu->groups;
    w->groups.n_blocks = (o->x->n_cols + PACK_COLS - 1) / PACK_COLS;
    if (n_packed > 0) quantize_groups(w, o, n_rows);
    if (n_packed < o->n) quantize_rows(w, o, n_rows);
    cpu_sync(w);
    for (uint32_t m = 0; m < o->n; m++) {
        unit[m] = unit_rows(o, m, n_rows <= ROW_BATCH);
        n_items[m] = (o->w[m]->n_rows + unit[m] - 1) / unit[m];
    }
    for (;;) {
        uint32_t item = cpu_take(w), m = 0;
        while (m < o->n && item >= n_items[m]) item -= n_items[m++];
        if (m == o->n) break;
        const uint32_t first = item * unit[m], left = o->w[m]->n_rows - first;
        do_unit(w, o, m, n_rows, first, first + (left < unit[m] ? left : unit[m]));
    }
}
