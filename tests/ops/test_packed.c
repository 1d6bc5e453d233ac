// Packed weights (compute/cpu/repack.h): the tables that have kernels for them against the arithmetic as
// that header states it, written out in C, bit for bit. Skipped where this machine runs none of them. What
// is done with tiles for many rows (packed_tile.h), with AVX-512 (lib/avx512_in_c.h) and with AVX-VNNI is checked
// everywhere, the instructions themselves being written out in C where this machine has none.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "compute/cpu/cpu.h"
#include "compute/cpu/packed_tile.h"
#include "kernels/common/decode.h"
#include "lib/ops_rig.h"

extern const struct cpu_kernels cpu_kernels_avx512_in_c;  // lib/attend_in_c.c
extern const struct cpu_kernels cpu_kernels_avxvnni_in_c; // lib/avxvnni_in_c.c

enum { SKIP = 77, K = 1056, ROWS = 12, MANY_ROWS = 131 };

static const enum fmt formats[] = {FMT_Q8_0, FMT_Q4_0, FMT_Q4_K, FMT_Q5_K, FMT_Q6_K};

// ---- the statement ------------------------------------------------------------------------------

// One row of activations: 32 with a scale, some with a second block of what was left over.
struct row {
    int q[K], low[K];
    float scale[K / 32], sum[K / 32];
    bool has_low[K / 32];
    float low_steps;
};

// Where neighbours are limited (repack.h), of those too.
static float top_of_block(const float *x, bool pairs)
{
    float top = 0;
    for (int i = 0; i < 32; i++) top = fmaxf(top, fabsf(x[i]));
    for (int i = 0; i < 32 && pairs; i += 2) top = fmaxf(top, fabsf(x[i] + x[i + 1]));
    return top;
}

// The largest absmax of a block that still needs no second term: blocks are taken from the top, in steps
// of a factor, until the squares of the rest are within the bound. Sums of squares are sixteen, strided,
// the second half of a block first, and halved again and again.
static float outlier_bound(const float *x, uint32_t n, const float *top_of, bool pairs)
{
    float lane[16] = {0}, top = 0, error = 0;
    for (uint32_t b = 0; b < n / 32; b++) {
        for (uint32_t i = 0; i < 32; i++) {
            const float v = x[b * 32 + (i + 16) % 32];
            lane[i % 16] = fmaf(v, v, lane[i % 16]);
        }
        top = fmaxf(top, top_of[b]);
        error += top_of[b] * top_of[b];
    }
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    const float bound = (pairs ? PAIR_BOUND : ERROR_BOUND) / 32.0f * lane[0];
    while (error > bound && top > 0) {
        top *= 0.84f;
        error = 0;
        for (uint32_t b = 0; b < n / 32; b++)
            if (top_of[b] <= top) error += top_of[b] * top_of[b];
    }
    return top;
}

static void state_row(const float *x, uint32_t n, bool pairs, struct row *out)
{
    float top_of[K / 32] = {0};
    for (uint32_t b = 0; b < n / 32; b++) top_of[b] = top_of_block(x + b * 32, pairs);
    const float bound = outlier_bound(x, n, top_of, pairs);
    out->low_steps = pairs ? LOW_STEPS_PAIRS : LOW_STEPS;
    for (uint32_t b = 0; b < n / 32; b++) {
        int sum = 0, low_sum = 0;
        const float inverse = top_of[b] > 0 ? 127.0f / top_of[b] : 0.0f;
        out->scale[b] = top_of[b] / 127.0f;
        out->has_low[b] = top_of[b] > bound;
        for (uint32_t i = b * 32; i < b * 32 + 32; i++) {
            out->q[i] = (int)rintf(x[i] * inverse);
            out->low[i] = (int)rintf(fmaf(x[i], inverse, -(float)out->q[i]) * out->low_steps);
            sum += out->q[i];
            low_sum += out->low[i];
        }
        out->sum[b] = out->scale[b] * (float)sum;
        if (out->has_low[b]) out->sum[b] += out->scale[b] / out->low_steps * (float)low_sum;
    }
}

// What a format makes of 32 weights: integers, a scale for each half, a minimum.
struct group {
    int w[32];
    float d[2], min;
    bool two;
};

static int nibble_of(const uint8_t *q, int i)
{
    return q[i % 16] >> i / 16 * 4 & 15;
}

static void open_k(enum fmt f, const uint8_t *p, uint32_t g, struct group *out)
{
    int scale, min;
    decode_scale_min(p + 4, (int)g, &scale, &min);
    out->d[0] = decode_f16(p) * (float)scale;
    out->min = decode_f16(p + 2) * (float)min;
    for (uint32_t i = 0; i < 32; i++) {
        out->w[i] = (f == FMT_Q5_K ? p + 48 : p + 16)[g / 2 * 32 + i] >> g % 2 * 4 & 15;
        if (f == FMT_Q5_K) out->w[i] |= (p[16 + i] >> g & 1) << 4;
    }
}

static void open_q6_k(const uint8_t *p, uint32_t g, struct group *out)
{
    const uint8_t *low = p + g / 4 * 64 + g % 2 * 32, *high = p + 128 + g / 4 * 32;
    out->two = true;
    for (uint32_t h = 0; h < 2; h++)
        out->d[h] = decode_f16(p + 208) * (float)(int8_t)p[192 + 2 * g + h];
    for (uint32_t i = 0; i < 32; i++)
        out->w[i] = ((low[i] >> g % 4 / 2 * 4 & 15) | (high[i] >> 2 * (g % 4) & 3) << 4) - 32;
}

// Group g of 32 columns of a weight row.
static struct group open_group(enum fmt f, const uint8_t *row, uint32_t g)
{
    struct group out = {0};
    if (fmt_info[f].block == 32) {
        const uint8_t *p = row + g * fmt_info[f].block_bytes;
        out.d[0] = decode_f16(p);
        for (int i = 0; i < 32; i++)
            out.w[i] = f == FMT_Q8_0 ? (int8_t)p[2 + i] : nibble_of(p + 2, i) - 8;
        return out;
    }
    const uint8_t *p = row + g / 8 * fmt_info[f].block_bytes;
    if (f == FMT_Q6_K)
        open_q6_k(p, g % 8, &out);
    else
        open_k(f, p, g % 8, &out);
    return out;
}

static float add_group(const struct group *w, const int *q, float scale, float acc)
{
    const int halves = w->two ? 2 : 1;
    for (int h = 0; h < halves; h++) {
        int sum = 0;
        for (int i = h * 32 / halves; i < (h + 1) * 32 / halves; i++) sum += w->w[i] * q[i];
        acc = fmaf((float)sum, w->d[h] * scale, acc);
    }
    return acc;
}

static float state_dot(enum fmt f, const uint8_t *weights, const struct row *x, uint32_t n)
{
    float acc = 0;
    for (uint32_t b = 0; b < n / 32; b++) {
        const struct group w = open_group(f, weights, b);
        acc = add_group(&w, x->q + b * 32, x->scale[b], acc);
        if (f == FMT_Q4_K || f == FMT_Q5_K) acc = fmaf(-w.min, x->sum[b], acc);
    }
    for (uint32_t b = 0; b < n / 32; b++) {
        const struct group w = open_group(f, weights, b);
        if (x->has_low[b]) acc = add_group(&w, x->low + b * 32, x->scale[b] / x->low_steps, acc);
    }
    return acc;
}

// ---- the kernels --------------------------------------------------------------------------------

struct groups {
    struct act_groups g;
};

static void groups_open(struct groups *out, uint32_t n, uint32_t n_rows)
{
    const uint32_t n_blocks = n / PACK_COLS, n_groups = (n_rows + ACT_GROUP - 1) / ACT_GROUP;
    out->g = (struct act_groups){.high = test_alloc(n_groups * n_blocks * sizeof *out->g.high),
                                 .low = test_alloc(n_rows * n_blocks * sizeof *out->g.low),
                                 .n_low = test_alloc(n_rows * sizeof(uint32_t)),
                                 .n_blocks = n_blocks};
    memset(out->g.high, 0, n_groups * n_blocks * sizeof *out->g.high);
}

static void groups_close(struct groups *g)
{
    free(g->g.high);
    free(g->g.low);
    free(g->g.n_low);
}

static bool limits_pairs(const struct cpu_kernels *k, enum fmt f)
{
    return k->limits_pairs && f == FMT_Q8_0;
}

static void quantize(const struct cpu_kernels *k, enum fmt f, const float *x, uint32_t n,
                     uint32_t n_rows, struct groups *g)
{
    groups_open(g, n, n_rows);
    g->g.limit_pairs = limits_pairs(k, f);
    for (uint32_t r = 0; r < n_rows; r += ACT_GROUP) {
        const float *rows[ACT_GROUP];
        const uint32_t left = n_rows - r;
        for (uint32_t i = 0; i < ACT_GROUP && i < left; i++) rows[i] = x + (r + i) * n;
        k->quantize_group(rows, left < ACT_GROUP ? left : ACT_GROUP, n, &g->g, r / ACT_GROUP);
    }
}

static void check_stated(const struct cpu_kernels *k, enum fmt f, const uint8_t *w, const float *x,
                         uint32_t n, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    static struct row stated;
    for (uint32_t r = 0; r < n_rows; r++) {
        state_row(x + r * n, n, limits_pairs(k, f), &stated);
        for (uint32_t c = 0; c < PANEL_ROWS; c++) {
            const float want = state_dot(f, w + c * fmt_row_bytes(f, n), &stated, n);
            if (out[r][c] != want)
                fail_msg("%s, %s, %u columns, row %u of %u, weight row %u: %.9g, expected %.9g",
                         k->isa, fmt_info[f].name, n, r, n_rows, c, (double)out[r][c],
                         (double)want);
        }
    }
}

static void check_rows(const struct cpu_kernels *k, enum fmt f, const uint8_t *w,
                       const uint8_t *panel, const float *x, uint32_t n, uint32_t n_rows)
{
    struct groups g;
    float out[ROWS][PANEL_ROWS];
    quantize(k, f, x, n, n_rows, &g);
    k->packed_dot(f, panel, n, &g.g, 0, n_rows, out);
    check_stated(k, f, w, x, n, n_rows, out);
    groups_close(&g);
}

// All rows by tiles, in chunks as a worker makes them.
static void check_tiles(const struct cpu_kernels *k, enum fmt f, const uint8_t *w,
                        const uint8_t *panel, const float *x, uint32_t n, uint32_t n_rows)
{
    static float out[(MANY_ROWS / TILE_ROWS + 1) * TILE_ROWS][PANEL_ROWS];
    struct groups g;
    const uint32_t n_blocks = n / PACK_COLS, n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS;
    struct act_tiles a = {.n_blocks = n_blocks, .by_quads = k->tiles_by_quads};
    struct weight_tile *open = aligned_alloc(64, n_blocks * sizeof *open);
    a.high = aligned_alloc(64, n_tiles * n_blocks * sizeof *a.high);
    a.low = aligned_alloc(64, n_tiles * n_blocks * sizeof *a.low);
    a.chunks = test_alloc(n_tiles * sizeof *a.chunks);
    assert_true(open && a.high && a.low);
    quantize(k, f, x, n, n_rows, &g);
    for (uint32_t r = 0; r < n_rows; r += CHUNK_ROWS)
        tiles_arrange(&g.g, r / ACT_GROUP, n_rows - r < CHUNK_ROWS ? n_rows - r : CHUNK_ROWS, &a);
    (k->tile_open ? k->tile_open : tile_open)(f, panel, n_blocks, open);
    for (uint32_t r = 0; r < n_rows; r += a.chunks[r / TILE_ROWS].n_rows)
        (k->tile_dot ? k->tile_dot : tile_dot)(f, open, &a, r / TILE_ROWS, out + r);
    check_stated(k, f, w, x, n, n_rows, out);
    groups_close(&g);
    free(open);
    free(a.high);
    free(a.low);
    free(a.chunks);
}

static void check_format(const struct cpu_kernels *k, enum fmt f, uint32_t n)
{
    random_seed(n + (uint32_t)f);
    uint8_t *w = random_weight(f, PANEL_ROWS, n), *panel = test_alloc(pack_bytes(f, PANEL_ROWS, n));
    float *x = test_alloc(MANY_ROWS * n * sizeof *x);
    random_floats(x, MANY_ROWS * n, 1);
    for (uint32_t r = 0; r < MANY_ROWS; r += 3) x[r * n + 40 * r % n] = 30; // outliers in some rows
    memset(x + n, 0, n * sizeof *x);                                        // and a row of zeros
    for (uint32_t i = 0; i < n; i++) x[2 * n + i] = i / 8 % 2 ? 1 : -1; // neighbours at their limit
    pack_panel(f, w, fmt_row_bytes(f, n), PANEL_ROWS, n, panel);
    for (uint32_t rows = 1; rows <= ROWS; rows++) check_rows(k, f, w, panel, x, n, rows);
    check_tiles(k, f, w, panel, x, n, ROWS + 1);
    check_tiles(k, f, w, panel, x, n, TILE_ROWS);
    check_tiles(k, f, w, panel, x, n, MANY_ROWS);
    free(w);
    free(panel);
    free(x);
}

static const struct cpu_kernels *tables[OPS_CPU_DEVICES + 2];
static int n_tables;

static void equals_the_statement(void **state)
{
    (void)state;
    for (int i = 0; i < n_tables; i++)
        for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
            check_format(tables[i], formats[f], 768);
            if (fmt_info[formats[f]].block == 32) check_format(tables[i], formats[f], K);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_the_statement)};
    for (int i = 0; i < OPS_CPU_DEVICES; i++) {
        struct err e = {0};
        const struct cpu_kernels *k;
        if (!cpu_isa_choose(&k, ops_cpu_devices[i], &e) || !k->packed_dot) continue;
        printf("checked: %s\n", k->isa);
        tables[n_tables++] = k;
    }
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        printf("checked: %s\n", cpu_kernels_avx512_in_c.isa);
        tables[n_tables++] = &cpu_kernels_avx512_in_c;
        printf("checked: %s in C\n", cpu_kernels_avxvnni_in_c.isa);
        tables[n_tables++] = &cpu_kernels_avxvnni_in_c;
    }
#endif
    if (n_tables == 0) {
        printf("skipped: no instruction set of this machine has packed kernels\n");
        return SKIP;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
