// LINEAR: the input's rows are quantised (shared out by row), then workers take panels of weight rows
// one by one, of all weights of the op, so that a slow core delays nobody.
#include <string.h>

#include "compute/cpu/cpu.h"

// What a worker takes at once: one panel when many rows make it dear, more when it is a short dot.
enum { ROWS_AT_ONCE = 2 * PANEL_ROWS };

static void quantize_rows(struct cpu_worker *w, const struct op_linear *o, uint32_t n_rows)
{
    const struct acts *a = &w->acts;
    uint32_t first, end;
    threads_share(n_rows, 1, w->i, w->n, &first, &end);
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

void cpu_linear(struct cpu_worker *w, const struct op_linear *o)
{
    const uint32_t n_rows = o->n_rows ? o->n_rows : w->cpu->batch->n_rows;
    const bool few = n_rows <= ROW_BATCH;
    const uint32_t unit = few ? ROWS_AT_ONCE : PANEL_ROWS;
    w->acts = w->cpu->acts;
    w->acts.k_pad = (o->x->n_cols + BLOCK_K - 1) / BLOCK_K * BLOCK_K;
    quantize_rows(w, o, n_rows);
    cpu_sync(w);
    uint32_t n_items[3] = {0};
    for (uint32_t m = 0; m < o->n; m++) n_items[m] = (o->w[m]->n_rows + unit - 1) / unit;
    for (;;) {
        uint32_t item = cpu_take(w), m = 0;
        while (m < o->n && item >= n_items[m]) item -= n_items[m++];
        if (m == o->n) break;
        const uint32_t first = item * unit, left = o->w[m]->n_rows - first;
        if (few)
            do_rows(w, o, m, n_rows, first, first + (left < unit ? left : unit));
        else
            do_panel(w, o, m, n_rows, first);
    }
}
