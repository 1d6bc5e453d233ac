// Products of packed weights and 8-bit activations in 256-bit registers, compiled by two files: with
// AVX-VNNI (vpdpbusd) and with AVX2 alone. A register holds four columns of eight weight rows, two make
// a panel; up to four activation rows share what was unpacked. The arithmetic is that of repack.h, so
// both give the bits of the AVX-512 table.
//
// AVX2 has vpmaddubsw only, whose sums of two products are 16 bits wide. Weights below 16 leave room
// for eight of them (15 * 127 * 16 = 30,480), below 32 for four, below 64 for two, all 255 for one, since
// the activations are limited for it (255 * 128 = 32,640). Then vpmaddwd widens: nothing saturates.
#pragma once

#include "compute/cpu/quantize_256.h"
#include "compute/cpu/tile_256.h"

#define EACH_ROW(t) _Pragma("GCC unroll 4") for (uint32_t t = 0; t < n; t++)
#define BOTH(v)     _Pragma("GCC unroll 2") for (uint32_t v = 0; v < VECTORS; v++)

enum {
    LANE_ROWS = 8, // weight rows of a register
    VECTORS = PANEL_ROWS / LANE_ROWS,
    PREFETCH_BYTES = 4096, // how far ahead of few rows' reading memory is asked for
};

// ---- formats --------------------------------------------------------------------------------

// The scales of one block, spread for use.
struct scales {
    _Alignas(32) uint8_t scale[PACK_SUBS][PANEL_ROWS];
    _Alignas(32) uint8_t min[PACK_SUBS][PANEL_ROWS];
};

INLINE __m256 load_halves(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE __m256 load_bytes(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)));
}

INLINE __m256i low_bits(__m256i v, int bits)
{
    return _mm256_and_si256(v, _mm256_set1_epi8((char)((1 << bits) - 1)));
}

// The six-bit scales and minimums that Q4_K and Q5_K pack into 12 bytes; half of the rows' registers
// at a time.
INLINE void open_k(const struct packed_Q4_K *b, struct scales *s)
{
    const __m256i two = _mm256_set1_epi8(0x30);
    for (uint32_t i = 0; i < 4; i += 2) {
        const __m256i low = load_i(b->scales[0][i]), min = load_i(b->scales[1][i]);
        const __m256i high = load_i(b->scales[2][i]);
        const __m256i scale_top = _mm256_and_si256(_mm256_srli_epi16(low, 2), two);
        const __m256i min_top = _mm256_and_si256(_mm256_srli_epi16(min, 2), two);
        const __m256i min_low = low_bits(_mm256_srli_epi16(high, 4), 4);
        store_i(s->scale[i], low_bits(low, 6));
        store_i(s->scale[4 + i], _mm256_or_si256(low_bits(high, 4), scale_top));
        store_i(s->min[i], low_bits(min, 6));
        store_i(s->min[4 + i], _mm256_or_si256(min_low, min_top));
    }
}

INLINE const struct packed_Q4_K *k_part(enum fmt f, const uint8_t *p)
{
    return f == FMT_Q5_K ? &((const struct packed_Q5_K *)(const void *)p)->low : (const void *)p;
}

INLINE void open_block(enum fmt f, const uint8_t *p, struct scales *s)
{
    if (f == FMT_Q4_K || f == FMT_Q5_K) open_k(k_part(f, p), s);
}

// The scales of sub-block i alone.
INLINE void open_sub(enum fmt f, const uint8_t *p, uint32_t i, struct scales *s)
{
    if (f != FMT_Q4_K && f != FMT_Q5_K) return;
    const struct packed_Q4_K *b = k_part(f, p);
    const __m128i low = _mm_loadu_si128((const __m128i *)(const void *)b->scales[0][i % 4]);
    const __m128i high = _mm_loadu_si128((const __m128i *)(const void *)b->scales[2][i % 4]);
    const __m128i top = _mm_and_si128(_mm_srli_epi16(low, 2), _mm_set1_epi8(0x30));
    const __m128i scale = i < 4 ? _mm_and_si128(low, _mm_set1_epi8(63))
                                : _mm_or_si128(_mm_and_si128(high, _mm_set1_epi8(15)), top);
    _mm_store_si128((__m128i *)(void *)s->scale[i], scale);
}

INLINE uint32_t halves_of(enum fmt f)
{
    return f == FMT_Q6_K ? 2 : 1; // scales in 32 columns
}

// Scale number h of sub-block s for the eight rows from `row` on.
INLINE __m256 scale_of(enum fmt f, const uint8_t *p, const struct scales *sc, uint32_t s,
                       uint32_t h, uint32_t row)
{
    if (f == FMT_Q8_0)
        return load_halves(((const struct packed_Q8_0 *)(const void *)p)->d[s] + row);
    if (f == FMT_Q4_0)
        return load_halves(((const struct packed_Q4_0 *)(const void *)p)->d[s] + row);
    if (f == FMT_Q6_K) {
        const struct packed_Q6_K *b = (const void *)p;
        const __m128i bytes = _mm_loadl_epi64((const void *)(b->scales[2 * s + h] + row));
        return _mm256_mul_ps(load_halves(b->d + row),
                             _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
    }
    return _mm256_mul_ps(load_halves(k_part(f, p)->d + row), load_bytes(sc->scale[s] + row));
}

// Of formats with minimums.
INLINE __m256 min_of(enum fmt f, const uint8_t *p, const struct scales *sc, uint32_t s,
                     uint32_t row)
{
    return _mm256_mul_ps(load_halves(k_part(f, p)->dmin + row), load_bytes(sc->min[s] + row));
}

INLINE __m256i nibbles(const pack_quad w[][PACK_QUADS], uint32_t s, uint32_t q, uint32_t row)
{
    const __m256i both = load_i(w[s / 2][q][row]);
    return low_bits(s % 2 ? _mm256_srli_epi16(both, 4) : both, 4);
}

// Quad q of sub-block s for the eight rows from `row` on, unsigned.
INLINE __m256i weights_of(enum fmt f, const uint8_t *p, uint32_t s, uint32_t q, uint32_t row)
{
    if (f == FMT_Q8_0) return load_i(((const struct packed_Q8_0 *)(const void *)p)->w[s][q][row]);
    if (f == FMT_Q4_0) return nibbles(((const struct packed_Q4_0 *)(const void *)p)->w, s, q, row);
    if (f == FMT_Q4_K) return nibbles(k_part(f, p)->w, s, q, row);
    if (f == FMT_Q5_K) {
        const struct packed_Q5_K *b = (const void *)p;
        const __m256i high = _mm256_srl_epi16(load_i(b->high[q][row]), _mm_cvtsi32_si128((int)s));
        return _mm256_or_si256(nibbles(b->low.w, s, q, row),
                               _mm256_slli_epi16(low_bits(high, 1), 4));
    }
    const struct packed_Q6_K *b = (const void *)p;
    const __m256i high =
        _mm256_srl_epi16(load_i(b->high[s / 4][q][row]), _mm_cvtsi32_si128((int)(2 * (s % 4))));
    return _mm256_or_si256(nibbles(b->w, s, q, row), _mm256_slli_epi16(low_bits(high, 2), 4));
}

// What the sum of row t starts with: the correction for unsigned weights.
INLINE int32_t bias_of(enum fmt f, const struct act_block *a, uint32_t h, uint32_t t)
{
    if (f == FMT_Q8_0) return a->bias[t];
    if (f == FMT_Q4_0) return a->bias[t] >> 4;
    if (f == FMT_Q6_K) return a->half[h][t];
    return 0;
}

INLINE int32_t low_bias(enum fmt f, const struct act_low *l, uint32_t h)
{
    if (f == FMT_Q8_0) return l->bias;
    if (f == FMT_Q4_0) return l->bias / 16;
    if (f == FMT_Q6_K) return l->half[h];
    return 0;
}

// ---- products -------------------------------------------------------------------------------

typedef __m256i sums[ACT_GROUP][VECTORS];

// Quads [q0, q1) of a sub-block times n rows of activations, quad q of row t at a + q * step + t * 4,
// into sum, which starts with the corrections.
#if defined(__AVXVNNI__)

INLINE void sum_quads(enum fmt f, const uint8_t *p, uint32_t s, uint32_t q0, uint32_t q1,
                      const int8_t *a, uint32_t step, const uint32_t n, sums sum)
{
#pragma GCC unroll 8
    for (uint32_t q = q0; q < q1; q++) {
        __m256i w[VECTORS];
        BOTH(v) w[v] = weights_of(f, p, s, q, v * LANE_ROWS);
        EACH_ROW(t)
        {
            const __m256i x = _mm256_set1_epi32(load_i32(a + q * step + t * 4));
            BOTH(v) sum[t][v] = _mm256_dpbusd_avx_epi32(sum[t][v], w[v], x);
        }
    }
}

#else

// How many quads fit into sums of 16 bits.
INLINE uint32_t narrow_quads(enum fmt f)
{
    return f == FMT_Q8_0 ? 1 : f == FMT_Q6_K ? 2 : f == FMT_Q5_K ? 4 : 8;
}

INLINE void sum_quads(enum fmt f, const uint8_t *p, uint32_t s, uint32_t q0, uint32_t q1,
                      const int8_t *a, uint32_t step, const uint32_t n, sums sum)
{
    const uint32_t at_once = narrow_quads(f);
    const __m256i ones = _mm256_set1_epi16(1);
    if ((f == FMT_Q4_0 || f == FMT_Q4_K) && n == ACT_GROUP) {
        sums narrow;
        tile_nibbles(f == FMT_Q4_0 ? ((const struct packed_Q4_0 *)(const void *)p)->w[s / 2]
                                   : k_part(f, p)->w[s / 2],
                     s % 2, a, narrow);
        EACH_ROW(t)
        BOTH(v)
        sum[t][v] = _mm256_add_epi32(sum[t][v], _mm256_madd_epi16(narrow[t][v], ones));
        return;
    }
#pragma GCC unroll 8
    for (; q0 < q1; q0 += at_once) {
        sums narrow;
#pragma GCC unroll 8
        for (uint32_t q = q0; q < q0 + at_once; q++) {
            __m256i w[VECTORS];
            BOTH(v) w[v] = weights_of(f, p, s, q, v * LANE_ROWS);
            EACH_ROW(t)
            {
                const __m256i x = _mm256_set1_epi32(load_i32(a + q * step + t * 4));
                BOTH(v)
                {
                    const __m256i two = _mm256_maddubs_epi16(w[v], x);
                    narrow[t][v] = q == q0 ? two : _mm256_add_epi16(narrow[t][v], two);
                }
            }
        }
        EACH_ROW(t)
        BOTH(v)
        sum[t][v] = _mm256_add_epi32(sum[t][v], _mm256_madd_epi16(narrow[t][v], ones));
    }
}

#endif

// Products of sub-block s for n rows of activations of one group into acc.
INLINE void add_products(enum fmt f, const uint8_t *p, const struct scales *sc, uint32_t s,
                         const struct act_block *a, const uint32_t n,
                         __m256 acc[ACT_GROUP][VECTORS])
{
    const uint32_t halves = halves_of(f), quads = PACK_QUADS / halves;
#pragma GCC unroll 2
    for (uint32_t h = 0; h < halves; h++) {
        sums sum;
        EACH_ROW(t) BOTH(v) sum[t][v] = _mm256_set1_epi32(bias_of(f, a, h, t));
        sum_quads(f, p, s, h * quads, (h + 1) * quads, a->q[0][0], sizeof a->q[0], n, sum);
        BOTH(v)
        {
            const __m256 d = scale_of(f, p, sc, s, h, v * LANE_ROWS);
            EACH_ROW(t)
            {
                const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(a->scale[t]));
                acc[t][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][v]), scale, acc[t][v]);
            }
        }
    }
}

INLINE void add_mins(enum fmt f, const uint8_t *p, const struct scales *sc, uint32_t s,
                     const struct act_block *a, const uint32_t n, __m256 acc[ACT_GROUP][VECTORS])
{
    BOTH(v)
    {
        const __m256 min = min_of(f, p, sc, s, v * LANE_ROWS);
        EACH_ROW(t)
        acc[t][v] = _mm256_fnmadd_ps(min, _mm256_set1_ps(a->sum[t]), acc[t][v]);
    }
}

// An eighth of what lies PREFETCH_BYTES ahead: asked for all at once it would fill the core's queue.
INLINE void fetch_ahead(const uint8_t *p, size_t block_bytes, uint32_t s)
{
    const size_t part = block_bytes / PACK_SUBS, first = (s * part + 63) / 64 * 64;
    for (size_t i = first; i < (s + 1) * part; i += 64)
        _mm_prefetch((const char *)p + PREFETCH_BYTES + i, _MM_HINT_T0);
}

INLINE void add_high(enum fmt f, const uint8_t *p, uint32_t n_k, const struct act_block *a,
                     bool ahead, const uint32_t n, float (*out)[PANEL_ROWS])
{
    const size_t block_bytes = pack_block_bytes(f);
    __m256 acc[ACT_GROUP][VECTORS];
    EACH_ROW(t) BOTH(v) acc[t][v] = _mm256_setzero_ps();
    for (uint32_t k = 0; k < n_k; k += BLOCK_K, p += block_bytes) {
        struct scales sc;
        open_block(f, p, &sc);
        const uint32_t n_subs = (n_k - k < BLOCK_K ? n_k - k : BLOCK_K) / PACK_COLS;
        for (uint32_t s = 0; s < n_subs; s++, a++) {
            if (ahead) fetch_ahead(p, block_bytes, s);
            add_products(f, p, &sc, s, a, n, acc);
            if (has_min(f)) add_mins(f, p, &sc, s, a, n, acc);
        }
    }
    EACH_ROW(t) BOTH(v) _mm256_storeu_ps(out[t] + v * LANE_ROWS, acc[t][v]);
}

// The second terms of one row.
INLINE void add_low(enum fmt f, const uint8_t *p, const struct act_low *low, uint32_t n_low,
                    float *out)
{
    const uint32_t halves = halves_of(f), quads = PACK_QUADS / halves;
    __m256 acc[VECTORS];
    BOTH(v) acc[v] = _mm256_loadu_ps(out + v * LANE_ROWS);
    for (const struct act_low *l = low; l < low + n_low; l++) {
        const uint8_t *block = p + l->at / PACK_SUBS * pack_block_bytes(f);
        const uint32_t s = l->at % PACK_SUBS;
        struct scales sc;
        open_sub(f, block, s, &sc);
        for (uint32_t h = 0; h < halves; h++) {
            sums sum;
            BOTH(v) sum[0][v] = _mm256_set1_epi32(low_bias(f, l, h));
            sum_quads(f, block, s, h * quads, (h + 1) * quads, l->q[0], 4, 1, sum);
            BOTH(v)
            {
                const __m256 scale = _mm256_mul_ps(scale_of(f, block, &sc, s, h, v * LANE_ROWS),
                                                   _mm256_set1_ps(l->scale));
                acc[v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[0][v]), scale, acc[v]);
            }
        }
    }
    BOTH(v) _mm256_storeu_ps(out + v * LANE_ROWS, acc[v]);
}

INLINE void run(enum fmt f, const uint8_t *p, uint32_t n_k, const struct act_groups *g,
                uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    for (uint32_t row = 0; row < n_rows; row += ACT_GROUP) {
        const struct act_block *a = g->high + (group + row / ACT_GROUP) * (size_t)g->n_blocks;
        const uint32_t n = n_rows - row;
        if (n == 1)
            add_high(f, p, n_k, a, n_rows == 1, 1, out + row);
        else if (n == 2)
            add_high(f, p, n_k, a, n_rows == 2, 2, out + row);
        else
            add_high(f, p, n_k, a, n_rows <= ACT_GROUP, ACT_GROUP, out + row);
    }
    for (size_t t = 0, row = (size_t)group * ACT_GROUP; t < n_rows; t++, row++)
        if (g->n_low[row]) add_low(f, p, g->low + row * g->n_blocks, g->n_low[row], out[t]);
}

static void packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                       uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    switch (f) {
    case FMT_Q8_0: run(FMT_Q8_0, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q4_0: run(FMT_Q4_0, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q4_K: run(FMT_Q4_K, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q5_K: run(FMT_Q5_K, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q6_K: run(FMT_Q6_K, panel, n_k, a, group, n_rows, out); break;
    default: break;
    }
}
