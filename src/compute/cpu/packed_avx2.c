// Packed weights with AVX2 alone: few rows as packed_256.h has them, many rows against panels unpacked once
// (tiles.h), 32 rows of activations at a time.
#include "compute/cpu/packed_avx2.h"

#if defined(__AVX2__) // nothing on machines of another kind

#include <assert.h>

#include "compute/cpu/many_avx2.h"
#include "compute/cpu/packed_256.h"

void avx2_quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                         const struct act_groups *to, uint32_t group)
{
    quantize_group(x, n_rows, n, to, group);
}

void avx2_packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                     uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    assert(f != FMT_Q8_0 || a->limit_pairs);
    packed_dot(f, panel, n_k, a, group, n_rows, out);
}

// ---- many rows: a panel unpacked ------------------------------------------------------------------

INLINE void open_panel(enum fmt f, const uint8_t *panel, uint32_t n_blocks, struct weight_tile *to)
{
    struct scales sc;
    for (uint32_t b = 0; b < n_blocks; b++, to++) {
        const uint32_t s = b % PACK_SUBS;
        const uint8_t *p = panel + b / PACK_SUBS * pack_block_bytes(f);
        if (s == 0) open_block(f, p, &sc);
        for (uint32_t row = 0; row < PANEL_ROWS; row += LANE_ROWS) {
            for (uint32_t q = 0; q < PACK_QUADS; q++)
                store_i(to->w[q][row], weights_of(f, p, s, q, row));
            for (uint32_t h = 0; h < halves_of(f); h++)
                _mm256_storeu_ps(to->d[h] + row, scale_of(f, p, &sc, s, h, row));
            if (has_min(f)) _mm256_storeu_ps(to->min + row, min_of(f, p, &sc, s, row));
        }
    }
}

void avx2_tile_open(enum fmt f, const uint8_t *panel, uint32_t n_blocks, struct weight_tile *to)
{
    switch (f) {
    case FMT_Q8_0: open_panel(FMT_Q8_0, panel, n_blocks, to); break;
    case FMT_Q4_0: open_panel(FMT_Q4_0, panel, n_blocks, to); break;
    case FMT_Q4_K: open_panel(FMT_Q4_K, panel, n_blocks, to); break;
    case FMT_Q5_K: open_panel(FMT_Q5_K, panel, n_blocks, to); break;
    case FMT_Q6_K: open_panel(FMT_Q6_K, panel, n_blocks, to); break;
    default: break;
    }
}

// ---- many rows: products --------------------------------------------------------------------------
// Eight sums at a time, of some weight rows and registers of eight rows of activations (many_avx2.h): sum i
// belongs to weight row `row` + i / registers and register i % registers.

#define EACH_SUM(i) _Pragma("GCC unroll 8") for (uint32_t i = 0; i < MANY_SUMS; i++)

enum {
    STRIP_ROWS = 2 * TILE_ROWS,
    STRIP_BLOCKS = 8, // what stays in the first cache: 19 KB with the weights
};

INLINE uint32_t registers_of(enum many_shape shape)
{
    return shape == MANY_2X4 ? 4 : shape == MANY_4X2 ? 2 : 1;
}

// Half h of the columns, or all, with the corrections for unsigned weights.
INLINE void sum_many(enum fmt f, enum many_shape shape, const struct weight_tile *w, uint32_t row,
                     const int8_t *a, const int8_t *b, uint32_t h, many_sums s)
{
    const uint8_t *p = (const uint8_t *)w->w[0][row];
    const size_t half = sizeof(struct many_half);
    if (f == FMT_Q8_0) {
        many_wide(shape, p, a, b, s);
    } else if (f == FMT_Q4_0 || f == FMT_Q4_K) {
        many_narrow(shape, p, a, b, s);
        EACH_SUM(i)
        {
            if (f != FMT_Q4_0) break;
            const uint32_t v = i % registers_of(shape);
            const int8_t *tile = (v < 2 ? a : b) + offsetof(struct act_tile, bias);
            s[i] = _mm256_add_epi32(s[i], _mm256_srai_epi32(load_i(tile + v % 2 * 32), 4));
        }
    } else if (f == FMT_Q6_K && h == 0) {
        many_pairs(shape, START_HALF, p, a, b, s);
    } else if (f == FMT_Q6_K) {
        many_pairs(shape, START_SECOND, p + half, a + half, b + half, s);
    } else {
        many_pairs(shape, START_NONE, p, a, b, s);
        many_pairs(shape, START_ON, p + half, a + half, b + half, s);
    }
}

// acc += the weight rows from `row` on of a panel's blocks w times tiles a and b (b is a where the shape has one).
INLINE void many_blocks(enum fmt f, enum many_shape shape, const struct weight_tile *w,
                        uint32_t row, const struct act_tile *a, const struct act_tile *b,
                        uint32_t n_blocks, __m256 acc[MANY_SUMS])
{
    const uint32_t n = registers_of(shape);
    for (uint32_t k = 0; k < n_blocks; k++, w++, a++, b++) {
        for (uint32_t h = 0; h < halves_of(f); h++) {
            many_sums s;
            sum_many(f, shape, w, row, a->quads[0][0], b->quads[0][0], h, s);
            EACH_SUM(i)
            {
                const __m256 d = _mm256_broadcast_ss(&w->d[h][row + i / n]);
                const struct act_tile *t = i % n < 2 ? a : b;
                const __m256 scale = _mm256_load_ps(t->scale + i % n % 2 * MANY_LANES);
                acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s[i]), _mm256_mul_ps(d, scale), acc[i]);
            }
        }
        if (!has_min(f)) continue;
        EACH_SUM(i)
        {
            const __m256 min = _mm256_broadcast_ss(&w->min[row + i / n]);
            const struct act_tile *t = i % n < 2 ? a : b;
            acc[i] = _mm256_fnmadd_ps(min, _mm256_load_ps(t->sum + i % n % 2 * MANY_LANES), acc[i]);
        }
    }
}

// n_rows rows of activations, one or two tiles, times the panel w; acc is one row of activations after the other
// for each weight row.
INLINE void many_strip(enum fmt f, enum many_shape shape, const struct weight_tile *w,
                       const struct act_tile *a, uint32_t n_blocks,
                       float acc[PANEL_ROWS][STRIP_ROWS])
{
    const struct act_tile *b = shape == MANY_2X4 ? a + n_blocks : a;
    const uint32_t n = registers_of(shape);
    memset(acc, 0, PANEL_ROWS * sizeof *acc);
    for (uint32_t k = 0; k < n_blocks; k += STRIP_BLOCKS) {
        const uint32_t left = n_blocks - k, blocks = left < STRIP_BLOCKS ? left : STRIP_BLOCKS;
        for (uint32_t row = 0; row < PANEL_ROWS; row += MANY_SUMS / n) {
            __m256 sum[MANY_SUMS];
            EACH_SUM(i) sum[i] = _mm256_load_ps(acc[row + i / n] + i % n * MANY_LANES);
            many_blocks(f, shape, w + k, row, a + k, b + k, blocks, sum);
            EACH_SUM(i) _mm256_store_ps(acc[row + i / n] + i % n * MANY_LANES, sum[i]);
        }
    }
}

// Eight columns of eight rows, `stride` floats apart, to eight rows of eight.
INLINE void turn_eight(const float *from, uint32_t stride, __m256 to[8])
{
    __m256 t[8], u[8];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 8; i += 2) {
        const __m256 a = _mm256_load_ps(from + i * stride);
        const __m256 b = _mm256_load_ps(from + (i + 1) * stride);
        t[i] = _mm256_unpacklo_ps(a, b);
        t[i + 1] = _mm256_unpackhi_ps(a, b);
    }
#pragma GCC unroll 2
    for (uint32_t i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++) {
        to[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        to[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

// A strip's results as rows of activations.
static void store_strip(float acc[PANEL_ROWS][STRIP_ROWS], uint32_t n_rows,
                        float (*out)[PANEL_ROWS])
{
    for (uint32_t r = 0; r < n_rows; r += MANY_LANES)
        for (uint32_t c = 0; c < PANEL_ROWS; c += MANY_LANES) {
            __m256 rows[MANY_LANES];
            turn_eight(acc[c] + r, STRIP_ROWS, rows);
            EACH_SUM(i) _mm256_storeu_ps(out[r + i] + c, rows[i]);
        }
}

// Second terms: the rows of l times the panel's block w, added where they belong.
INLINE void many_low(enum fmt f, enum many_shape shape, const struct weight_tile *w,
                     const struct low_tile *l, float (*out)[PANEL_ROWS])
{
    const uint32_t n = registers_of(shape);
    for (uint32_t h = 0; h < halves_of(f); h++) {
        _Alignas(32) float total[PANEL_ROWS][TILE_ROWS];
        for (uint32_t row = 0; row < PANEL_ROWS; row += MANY_SUMS / n) {
            many_sums s;
            sum_many(f, shape, w, row, l->quads[0][0], l->quads[0][0], h, s);
            EACH_SUM(i)
            _mm256_store_ps(total[row + i / n] + i % n * MANY_LANES, _mm256_cvtepi32_ps(s[i]));
        }
        for (uint32_t c = 0; c < PANEL_ROWS; c += MANY_LANES) {
            const __m256 d = _mm256_load_ps(w->d[h] + c);
            for (uint32_t r0 = 0; r0 < l->n; r0 += MANY_LANES) {
                __m256 rows[MANY_LANES];
                turn_eight(total[c] + r0, TILE_ROWS, rows);
                for (uint32_t i = 0; i < MANY_LANES && r0 + i < l->n; i++) {
                    float *to = out[l->row[r0 + i]] + c;
                    const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(l->scale[r0 + i]));
                    _mm256_storeu_ps(to, _mm256_fmadd_ps(rows[i], scale, _mm256_loadu_ps(to)));
                }
            }
        }
    }
}

INLINE void many_chunk(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                       uint32_t tile, float (*out)[PANEL_ROWS])
{
    _Alignas(32) float acc[PANEL_ROWS][STRIP_ROWS];
    const struct tile_chunk c = a->chunks[tile];
    const size_t n_blocks = a->n_blocks, at = tile * n_blocks;
    uint32_t row = 0;
    for (; row + TILE_ROWS < c.n_rows; row += STRIP_ROWS) {
        many_strip(f, MANY_2X4, w, a->high + at + row / TILE_ROWS * n_blocks, a->n_blocks, acc);
        store_strip(acc, STRIP_ROWS, out + row);
    }
    if (row < c.n_rows) {
        many_strip(f, MANY_4X2, w, a->high + at + row / TILE_ROWS * n_blocks, a->n_blocks, acc);
        store_strip(acc, TILE_ROWS, out + row);
    }
    for (uint32_t i = 0; i < c.n_low; i++) {
        const struct low_tile *l = a->low + at + i;
        if (l->n > MANY_LANES)
            many_low(f, MANY_4X2, w + l->block, l, out);
        else
            many_low(f, MANY_8X1, w + l->block, l, out);
    }
}

void avx2_tile_dot(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                   uint32_t tile, float (*out)[PANEL_ROWS])
{
    switch (f) {
    case FMT_Q8_0: many_chunk(FMT_Q8_0, w, a, tile, out); break;
    case FMT_Q4_0: many_chunk(FMT_Q4_0, w, a, tile, out); break;
    case FMT_Q4_K: many_chunk(FMT_Q4_K, w, a, tile, out); break;
    case FMT_Q5_K: many_chunk(FMT_Q5_K, w, a, tile, out); break;
    case FMT_Q6_K: many_chunk(FMT_Q6_K, w, a, tile, out); break;
    default: break;
    }
}

#endif
