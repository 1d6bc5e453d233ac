// Packed weights with AVX2 alone: few rows as packed_256.h has them, many rows against panels unpacked once
// (tiles.h), four rows of activations at a time.
#include "compute/cpu/packed_avx2.h"

#if defined(__AVX2__) // nothing on machines of another kind

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
    packed_dot(f, panel, n_k, a, group, n_rows, out);
}

// ---- many rows: a panel unpacked ------------------------------------------------------------------

// Weights of Q8_0 as signed bytes, all others unsigned as they are packed.
INLINE void open_panel(enum fmt f, const uint8_t *panel, uint32_t n_blocks, struct weight_tile *to)
{
    const __m256i top = _mm256_set1_epi8((char)0x80);
    struct scales sc;
    for (uint32_t b = 0; b < n_blocks; b++, to++) {
        const uint32_t s = b % PACK_SUBS;
        const uint8_t *p = panel + b / PACK_SUBS * pack_block_bytes(f);
        if (s == 0) open_block(f, p, &sc);
        for (uint32_t row = 0; row < PANEL_ROWS; row += LANE_ROWS) {
            for (uint32_t q = 0; q < PACK_QUADS; q++) {
                const __m256i w = weights_of(f, p, s, q, row);
                store_i(to->w[q][row], f == FMT_Q8_0 ? _mm256_xor_si256(w, top) : w);
            }
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

#define EACH_MANY(r) _Pragma("GCC unroll 4") for (uint32_t r = 0; r < MANY_ROWS; r++)

// Half h of the columns of w, or all of them, times the rows from `row` on of a tile's q and half.
INLINE void sum_many(enum fmt f, const struct weight_tile *w, int8_t (*q)[PACK_COLS],
                     int32_t (*half)[TILE_ROWS], uint32_t row, uint32_t h, many_sums s)
{
    const int8_t *weights = w->w[0][0], *a = q[row];
    if (f == FMT_Q8_0) {
        many_signed(weights, a, s);
    } else if (f == FMT_Q4_0 || f == FMT_Q4_K) {
        many_narrow(weights, a, s);
        EACH_MANY(r)
        {
            if (f != FMT_Q4_0) break;
            const __m256i bias = _mm256_set1_epi32((half[0][row + r] + half[1][row + r]) / 4);
            BOTH(v) s[r][v] = _mm256_add_epi32(s[r][v], bias);
        }
    } else if (f == FMT_Q5_K) {
        EACH_MANY(r) BOTH(v) s[r][v] = _mm256_setzero_si256();
        many_pairs(weights, a, s);
        many_pairs(weights + sizeof(struct many_weights), a + PACK_COLS / 2, s);
    } else {
        EACH_MANY(r) BOTH(v) s[r][v] = _mm256_set1_epi32(half[h][row + r]);
        many_pairs(weights + h * sizeof(struct many_weights), a + h * PACK_COLS / 2, s);
    }
}

// out = MANY_ROWS rows of a, from `row` on, times the panel w.
INLINE void many_high(enum fmt f, const struct weight_tile *w, struct act_tile *a, uint32_t row,
                      uint32_t n_blocks, float (*out)[PANEL_ROWS])
{
    __m256 acc[MANY_ROWS][VECTORS];
    EACH_MANY(r) BOTH(v) acc[r][v] = _mm256_setzero_ps();
    for (uint32_t b = 0; b < n_blocks; b++, w++, a++) {
        for (uint32_t h = 0; h < halves_of(f); h++) {
            many_sums s;
            sum_many(f, w, a->q, a->half, row, h, s);
            EACH_MANY(r)
            {
                const __m256 scale = _mm256_set1_ps(a->scale[row + r]);
                BOTH(v)
                {
                    const __m256 d = _mm256_load_ps(w->d[h] + v * LANE_ROWS);
                    acc[r][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(s[r][v]),
                                                _mm256_mul_ps(d, scale), acc[r][v]);
                }
                if (!has_min(f)) continue;
                const __m256 sum = _mm256_set1_ps(a->sum[row + r]);
                BOTH(v)
                acc[r][v] =
                    _mm256_fnmadd_ps(_mm256_load_ps(w->min + v * LANE_ROWS), sum, acc[r][v]);
            }
        }
    }
    EACH_MANY(r) BOTH(v) _mm256_storeu_ps(out[r] + v * LANE_ROWS, acc[r][v]);
}

// Second terms: rows [row, row + MANY_ROWS) of l, as many as there are.
INLINE void many_low(enum fmt f, const struct weight_tile *w, struct low_tile *l, uint32_t row,
                     float (*out)[PANEL_ROWS])
{
    for (uint32_t h = 0; h < halves_of(f); h++) {
        many_sums s;
        sum_many(f, w, l->q, l->half, row, h, s);
        for (uint32_t r = 0; r < MANY_ROWS && row + r < l->n; r++) {
            float *to = out[l->row[row + r]];
            BOTH(v)
            {
                const __m256 scale = _mm256_mul_ps(_mm256_load_ps(w->d[h] + v * LANE_ROWS),
                                                   _mm256_set1_ps(l->scale[row + r]));
                const __m256 sum = _mm256_cvtepi32_ps(s[r][v]);
                const __m256 old = _mm256_loadu_ps(to + v * LANE_ROWS);
                _mm256_storeu_ps(to + v * LANE_ROWS, _mm256_fmadd_ps(sum, scale, old));
            }
        }
    }
}

INLINE void many_chunk(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                       uint32_t tile, float (*out)[PANEL_ROWS])
{
    const struct tile_chunk c = a->chunks[tile];
    const size_t n_blocks = a->n_blocks, at = tile * n_blocks;
    for (uint32_t row = 0; row < c.n_rows; row += MANY_ROWS)
        many_high(f, w, a->high + at + row / TILE_ROWS * n_blocks, row % TILE_ROWS, a->n_blocks,
                  out + row);
    for (uint32_t i = 0; i < c.n_low; i++) {
        struct low_tile *l = a->low + at + i;
        for (uint32_t row = 0; row < l->n; row += MANY_ROWS) many_low(f, w + l->block, l, row, out);
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
