// LINEAR: the input's rows are quantised (shared out by row), then workers take panels of weight rows
// one by one, of all weights of the op, so that a slow core delays nobody. Weights that were repacked
// at load have their own form of activations and of panels (repack.h).
#include <assert.h>
#include <string.h>

#include "compute/cpu/cpu.h"

// What a worker takes at once: one panel when many rows make it dear, more when it is a short dot.
enum { ROWS_AT_ONCE = 2 * PANEL_ROWS };
static_assert((int)TOKEN_BLOCK <= CHUNK_ROWS && (int)PACKED_ROWS <= CHUNK_ROWS,
              "a worker's results hold them");
// The same for packed panels: some 64 KB when memory is the limit; what stays in a core's cache
// beside the activations of a pass when many rows use it again and again.
// What any worker takes at once of many rows leaves each some turns, so that they end together.
enum { MAX_PANELS = 16, MIN_TURNS = 4 };
enum { PACKED_FEW_BYTES = 64 << 10, PACKED_MANY_BYTES = 256 << 10 };

// Packed for 8-bit activations; what is not takes those of 16 bits.
static bool is_packed(const struct dbuf *d)
{
    return d->data && pack_block_bytes(d->fmt) > 0;
}

// Of the op's weights, how many are packed.
static uint32_t count_packed(const struct op_linear *o)
{
    uint32_t n = 0;
    for (uint32_t m = 0; m < o->n; m++) n += is_packed(o->w[m]);
    return n;
}

static void quantize_groups(struct cpu_worker *w, const struct op_linear *o, uint32_t n_rows)
{
    const float *x[ACT_GROUP];
    uint32_t first, end;
    threads_share(n_rows, cpu_row_unit(w->cpu, n_rows), w->i, w->n, &first, &end);
    for (uint32_t r = first; r < end; r += ACT_GROUP) {
        const uint32_t left = n_rows - r, n = left < ACT_GROUP ? left : ACT_GROUP;
        for (uint32_t i = 0; i < n; i++) x[i] = hostbuf_row(o->x, r + i);
        w->cpu->k->quantize_group(x, n, o->x->n_cols, &w->groups, r / ACT_GROUP);
    }
    for (uint32_t r = first; r < end && cpu_is_tiled(w->cpu, n_rows); r += CHUNK_ROWS)
        tiles_arrange(&w->groups, r / ACT_GROUP, end - r < CHUNK_ROWS ? end - r : CHUNK_ROWS,
                      &w->tiles);
}

// x[n] as row r of w->acts.
static void quantize_row(struct cpu_worker *w, const float *x, uint32_t n, uint32_t r)
{
    const struct acts *a = &w->acts;
    int16_t *q = a->q + (size_t)r * a->k_pad;
    w->cpu->k->quantize(x, n, q, a->sums + (size_t)r * (a->k_pad / 16),
                        a->scales + (size_t)r * (a->k_pad / BLOCK_K));
}

static void quantize_rows(struct cpu_worker *w, const struct op_linear *o, uint32_t n_rows)
{
    uint32_t first, end;
    threads_share(n_rows, cpu_row_unit(w->cpu, n_rows), w->i, w->n, &first, &end);
    for (uint32_t r = first; r < end; r++) quantize_row(w, hostbuf_row(o->x, r), o->x->n_cols, r);
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

// Weight rows first .. first + n - 1 of m for one row.
static void store_row(const struct op_linear *o, uint32_t m, uint32_t row, uint32_t first,
                      uint32_t n, const float *acc)
{
    const float *bias = o->bias[m] ? hostbuf_row(o->bias[m], 0) + first : NULL;
    float *to = hostbuf_row(o->out[m], row) + first;
    if (!bias && n == PANEL_ROWS)
        memcpy(to, acc, PANEL_ROWS * sizeof *acc);
    else
        for (uint32_t j = 0; j < n; j++) to[j] = acc[j] + (bias ? bias[j] : 0.0f);
}

static void store_panel(const struct op_linear *o, uint32_t m, uint32_t row0, uint32_t n_rows,
                        uint32_t first, uint32_t n, float (*acc)[PANEL_ROWS])
{
    for (uint32_t i = 0; i < n_rows; i++) store_row(o, m, row0 + i, first, n, acc[i]);
}

// Block b of the panel that begins with weight row `first`: kept since loading, or unpacked just now.
static const struct panel_block *block_of(const struct cpu_worker *w, const struct dbuf *d,
                                          uint32_t first, uint32_t b, uint32_t n_blocks)
{
    const struct kept_block *kept = (const struct kept_block *)(const void *)d->data;
    if (!kept) return &w->s->panel[b];
    return (const void *)(kept + (size_t)(first / PANEL_ROWS) * n_blocks + b);
}

// Weight rows first .. first + PANEL_ROWS - 1 of m: unpacked once, then used for all rows.
static void do_panel(struct cpu_worker *w, const struct op_linear *o, uint32_t m, uint32_t n_rows,
                     uint32_t first)
{
    const struct cpu_kernels *k = w->cpu->k;
    const struct dbuf *weight = o->w[m];
    const uint32_t n_k = weight->n_cols, n_blocks = (n_k + BLOCK_K - 1) / BLOCK_K;
    const uint32_t left = weight->n_rows - first, n = left < PANEL_ROWS ? left : PANEL_ROWS;
    for (uint32_t b = 0; b < n_blocks && !weight->data; b++)
        k->panel_expand(weight->fmt, weight->weights + first * weight->row_bytes, weight->row_bytes,
                        n, b, n_k, &w->s->panel[b]);
    for (uint32_t row0 = 0; row0 < n_rows; row0 += TOKEN_BLOCK) {
        const uint32_t rows = n_rows - row0 < TOKEN_BLOCK ? n_rows - row0 : TOKEN_BLOCK;
        memset(w->s->acc, 0, rows * sizeof *w->s->acc[0]);
        for (uint32_t b = 0; b < n_blocks; b++)
            k->panel_dot(weight->fmt, block_of(w, weight, first, b, n_blocks), &w->acts, b, n_k,
                         row0, rows, w->s->acc[0]);
        store_panel(o, m, row0, rows, first, n, w->s->acc[0]);
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
                                  row0 / ACT_GROUP, rows, w->s->acc[0]);
            store_panel(o, m, row0, rows, c, left < PANEL_ROWS ? left : PANEL_ROWS, w->s->acc[0]);
        }
    }
}

// Asks for the lines that the results of a panel of m, from weight row c on, will be stored to.
static void ask_results(const struct op_linear *o, uint32_t m, uint32_t row0, uint32_t n_rows,
                        uint32_t c)
{
    for (uint32_t r = 0; r < n_rows; r++)
        __builtin_prefetch(hostbuf_row(o->out[m], row0 + r) + c, 1, 2);
}

// Neighbouring panels [first, end) of m times the chunk of rows at tile t. Results go to a row's place
// together: rows lie pages apart, so what costs is going there, and that begins while products are made.
static void do_chunk(struct cpu_worker *w, const struct op_linear *o, uint32_t m, uint32_t t,
                     uint32_t first, uint32_t end, const struct weight_tile *tiles)
{
    const struct dbuf *d = o->w[m];
    for (uint32_t i = first; i < end; i++) {
        ask_results(o, m, t * TILE_ROWS, w->tiles.chunks[t].n_rows, i * PANEL_ROWS);
        w->cpu->k->tile_dot(d->fmt, tiles + (size_t)(i - first) * w->tiles.n_blocks, &w->tiles, t,
                            w->s->acc[i - first]);
    }
    for (uint32_t r = 0; r < w->tiles.chunks[t].n_rows; r++)
        for (uint32_t i = first; i < end; i++) {
            const uint32_t c = i * PANEL_ROWS, left = d->n_rows - c;
            store_row(o, m, t * TILE_ROWS + r, c, left < PANEL_ROWS ? left : PANEL_ROWS,
                      w->s->acc[i - first][r]);
        }
}

// Packed panels [first, end) of m for many rows: unpacked once, then used for a chunk of rows after the other.
static void do_tiled(struct cpu_worker *w, const struct op_linear *o, uint32_t m, uint32_t n_rows,
                     uint32_t first, uint32_t end)
{
    const struct dbuf *d = o->w[m];
    const size_t panel_bytes = pack_bytes(d->fmt, PANEL_ROWS, d->n_cols);
    const uint32_t n_blocks = w->tiles.n_blocks;
    for (uint32_t i = first; i < end; i++)
        w->cpu->k->tile_open(d->fmt, d->data + i * panel_bytes, n_blocks,
                             w->s->tiles + (size_t)(i - first) * n_blocks);
    for (uint32_t row0 = 0; row0 < n_rows; row0 += w->tiles.chunks[row0 / TILE_ROWS].n_rows)
        for (uint32_t i = first; i < end; i += CHUNK_PANELS)
            do_chunk(w, o, m, row0 / TILE_ROWS, i, end - i < CHUNK_PANELS ? end : i + CHUNK_PANELS,
                     w->s->tiles + (size_t)(i - first) * n_blocks);
}

// Weight rows that a worker takes of weight m at once.
static uint32_t unit_rows(const struct cpu_worker *w, const struct op_linear *o, uint32_t m,
                          uint32_t n_rows)
{
    const struct dbuf *d = o->w[m];
    const bool few = n_rows <= ROW_BATCH;
    if (!d->data && few) return ROWS_AT_ONCE;
    if (!is_packed(d)) return PANEL_ROWS;
    const size_t at_once = few ? PACKED_FEW_BYTES : PACKED_MANY_BYTES;
    const size_t n = cpu_is_tiled(w->cpu, n_rows)
                         ? w->s->n_tiles / w->tiles.n_blocks
                         : at_once / pack_bytes(d->fmt, PANEL_ROWS, d->n_cols);
    const uint32_t fair = d->n_rows / PANEL_ROWS / (MIN_TURNS * w->n);
    const uint32_t most = few || fair > MAX_PANELS ? MAX_PANELS : fair;
    return PANEL_ROWS * (n < 1 || most < 1 ? 1 : n > most ? most : (uint32_t)n);
}

static void do_unit(struct cpu_worker *w, const struct op_linear *o, uint32_t m, uint32_t n_rows,
                    uint32_t first, uint32_t end)
{
    if (is_packed(o->w[m]) && cpu_is_tiled(w->cpu, n_rows))
        do_tiled(w, o, m, n_rows, first / PANEL_ROWS, (end + PANEL_ROWS - 1) / PANEL_ROWS);
    else if (is_packed(o->w[m]))
        do_packed(w, o, m, n_rows, first / PANEL_ROWS, (end + PANEL_ROWS - 1) / PANEL_ROWS);
    else if (n_rows <= ROW_BATCH && !o->w[m]->data)
        do_rows(w, o, m, n_rows, first, end);
    else
        do_panel(w, o, m, n_rows, first);
}

static bool has_q8_0(const struct op_linear *o)
{
    for (uint32_t m = 0; m < o->n; m++)
        if (o->w[m]->fmt == FMT_Q8_0) return true;
    return false;
}

static void set_form(struct cpu_worker *w, const struct op_linear *o)
{
    const uint32_t n_cols = o->x->n_cols;
    w->acts.k_pad = (n_cols + BLOCK_K - 1) / BLOCK_K * BLOCK_K;
    w->groups.n_blocks = w->tiles.n_blocks = (n_cols + PACK_COLS - 1) / PACK_COLS;
    w->groups.limit_pairs = w->cpu->k->limits_pairs && has_q8_0(o);
    w->tiles.by_quads = w->cpu->k->tiles_by_quads;
}

void cpu_linear(struct cpu_worker *w, const struct op_linear *o)
{
    const uint32_t n_rows = o->n_rows ? o->n_rows : w->cpu->batch->n_rows;
    const uint32_t n_packed = count_packed(o);
    uint32_t n_items[3] = {0}, unit[3] = {0};
    w->acts = w->cpu->acts;
    w->groups = w->cpu->groups;
    w->tiles = w->cpu->tiles;
    set_form(w, o);
    if (n_packed > 0) quantize_groups(w, o, n_rows);
    if (n_packed < o->n) quantize_rows(w, o, n_rows);
    cpu_sync(w);
    for (uint32_t m = 0; m < o->n; m++) {
        unit[m] = unit_rows(w, o, m, n_rows);
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

// ---- few rows ---------------------------------------------------------------------------------
// Every worker makes the quantised input for itself, so that nobody waits for it, and has a share of
// the panels that lies in one piece, so that reading goes on in a stream.

// What a worker asks for ahead of a barrier: about what memory delivers while it waits and prepares.
enum { AHEAD_BYTES = 24 << 10 };

static void prepare_few(struct cpu_worker *w, const struct op_linear *o,
                        const struct op_rms_norm *norm, uint32_t n_rows)
{
    const struct cpu_kernels *k = w->cpu->k;
    const uint32_t n_cols = o->x->n_cols, n_packed = count_packed(o);
    const float *x[FEW_ROWS];
    w->acts = w->s->acts;
    w->groups = w->s->groups;
    set_form(w, o);
    for (uint32_t r = 0; r < n_rows; r++) {
        x[r] = hostbuf_row(o->x, r);
        if (!norm) continue;
        // One of all leaves the normed row where the list says; nobody else reads it there.
        float *to = w->i == 0 ? hostbuf_row(norm->out, r) : w->s->rows + (size_t)r * w->acts.k_pad;
        k->rms_norm(hostbuf_row(norm->x, r), hostbuf_row(norm->w, 0), to, n_cols, norm->eps);
        x[r] = to;
    }
    if (n_packed > 0) k->quantize_group(x, n_rows, n_cols, &w->groups, 0);
    for (uint32_t r = 0; r < n_rows && n_packed < o->n; r++) quantize_row(w, x[r], n_cols, r);
}

// Panels, or rows as many, of all weights of o together; of gate and up, which go in pairs, of one.
static uint32_t few_items(const struct op_linear *o, const struct linear_tail *tail)
{
    uint32_t n = 0;
    for (uint32_t m = 0; m < (tail->swiglu ? 1 : o->n); m++)
        n += (o->w[m]->n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
    return n;
}

// Panel `item` of weight m, or of those behind it.
static void locate(const struct op_linear *o, uint32_t *item, uint32_t *m)
{
    for (*m = 0; *item * PANEL_ROWS >= o->w[*m]->n_rows; (*m)++)
        *item -= (o->w[*m]->n_rows + PANEL_ROWS - 1) / PANEL_ROWS;
}

static void do_few(struct cpu_worker *w, const struct op_linear *o, uint32_t m, uint32_t n_rows,
                   uint32_t item)
{
    const uint32_t first = item * PANEL_ROWS, left = o->w[m]->n_rows - first;
    do_unit(w, o, m, n_rows, first, first + (left < PANEL_ROWS ? left : PANEL_ROWS));
}

// The op that follows, for the columns of one panel, which no other worker touches.
static void finish_few(struct cpu_worker *w, const struct linear_tail *tail, uint32_t n_rows,
                       uint32_t first, uint32_t n)
{
    for (uint32_t r = 0; r < n_rows && tail->add; r++) {
        float *x = hostbuf_row(tail->add->x, r) + first;
        const float *y = hostbuf_row(tail->add->y, r) + first;
        for (uint32_t i = 0; i < n; i++) x[i] += y[i];
    }
    for (uint32_t r = 0; r < n_rows && tail->swiglu; r++) {
        const struct op_swiglu *s = tail->swiglu;
        w->cpu->k->swiglu(hostbuf_row(s->gate, r) + first, hostbuf_row(s->up, r) + first,
                          hostbuf_row(s->out, r) + first, n);
    }
}

void cpu_linear_few(struct cpu_worker *w, const struct op_linear *o, const struct op_rms_norm *norm,
                    const struct linear_tail *tail, uint32_t n_rows)
{
    const uint32_t total = few_items(o, tail);
    uint32_t item, m;
    prepare_few(w, o, norm, n_rows);
    while (cpu_take_share(w, total, &item)) {
        locate(o, &item, &m);
        do_few(w, o, m, n_rows, item);
        if (tail->swiglu) do_few(w, o, 1, n_rows, item);
        const uint32_t first = item * PANEL_ROWS, left = o->w[m]->n_rows - first;
        finish_few(w, tail, n_rows, first, left < PANEL_ROWS ? left : PANEL_ROWS);
    }
}

static void ask_for(const struct cpu *c, const struct dbuf *d, uint32_t item, size_t n_bytes)
{
    const size_t at = d->data ? item * cpu_pack_bytes(c, d->fmt, PANEL_ROWS, d->n_cols)
                              : item * PANEL_ROWS * d->row_bytes;
    const size_t end = d->data ? d->n_bytes : d->n_rows * d->row_bytes;
    const uint8_t *p = d->data ? d->data : d->weights;
    for (size_t i = at; i < end && i < at + n_bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

void cpu_linear_ahead(struct cpu_worker *w, const struct op_linear *o)
{
    const bool pair = o->n == 2 && o->w[0]->n_rows == o->w[1]->n_rows;
    const struct linear_tail tail = {.swiglu = pair ? &(struct op_swiglu){0} : NULL};
    uint32_t item, end, m;
    threads_share(few_items(o, &tail), 1, w->i, w->n, &item, &end);
    if (item == end) return;
    locate(o, &item, &m);
    ask_for(w->cpu, o->w[m], item, pair ? AHEAD_BYTES / 2 : AHEAD_BYTES);
    if (pair) ask_for(w->cpu, o->w[1], item, AHEAD_BYTES / 2);
}
