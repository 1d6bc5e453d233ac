// Products of packed weights and 8-bit activations in 256-bit registers, compiled by two files: with
// AVX-VNNI (vpdpbusd) and with AVX2 alone. A register holds four columns of eight weight rows, two make
// a panel; up to four activation rows share what was unpacked. The arithmetic is that of repack.h, so
// both give the bits of the AVX-512 table.
//
// AVX2 has vpmaddubsw only, whose sums of two products are 16 bits wide. Weights below 16 leave room
// for eight of them (15 * 127 * 16 = 30,480), below 32 for four, below 64 for two; Q8_0 multiplies
// |w| by the activation with w's sign (128 * 127 * 2 = 32,512). Then vpmaddwd widens: nothing saturates.
#pragma once

#include <math.h>

#include "compute/cpu/lanes.h"
#include "compute/cpu/repack.h"
#include "compute/cpu/tile_256.h"

#define INLINE      static inline __attribute__((always_inline))
#define EACH_ROW(t) _Pragma("GCC unroll 4") for (uint32_t t = 0; t < n; t++)
#define BOTH(v)     _Pragma("GCC unroll 2") for (uint32_t v = 0; v < VECTORS; v++)

enum {
    LANE_ROWS = 8, // weight rows of a register
    VECTORS = PANEL_ROWS / LANE_ROWS,
    PREFETCH_BYTES = 4096, // how far ahead of few rows' reading memory is asked for
};

// ---- quantising -----------------------------------------------------------------------------

// 32 values of one row, and the same as integers.
struct floats {
    __m256 v[4];
};
struct ints {
    __m256i v[4];
};

INLINE struct ints round_32(const struct floats *x, float inverse)
{
    struct ints out;
    const __m256 z = _mm256_set1_ps(inverse);
    for (int i = 0; i < 4; i++) out.v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x->v[i], z));
    return out;
}

// Sums of the two halves.
INLINE void sum_32(const struct ints *x, int32_t out[2])
{
    out[0] = lanes_sum_i32(_mm256_add_epi32(x->v[0], x->v[1]));
    out[1] = lanes_sum_i32(_mm256_add_epi32(x->v[2], x->v[3]));
}

// As bytes in order.
INLINE __m256i pack_32(const struct ints *x)
{
    const __m256i a = _mm256_packs_epi32(x->v[0], x->v[1]);
    const __m256i b = _mm256_packs_epi32(x->v[2], x->v[3]);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

INLINE void put_high(const struct ints *x, float scale, uint32_t r, struct act_block *out)
{
    int32_t s[2], quads[PACK_QUADS];
    sum_32(x, s);
    store_i(quads, pack_32(x));
    for (uint32_t i = 0; i < PACK_QUADS; i++) memcpy(out->q[i][r], &quads[i], sizeof quads[i]);
    out->scale[r] = scale;
    out->sum[r] = scale * (float)(s[0] + s[1]);
    out->bias[r] = -128 * (s[0] + s[1]);
    out->half[0][r] = -32 * s[0];
    out->half[1][r] = -32 * s[1];
}

// What rounding x to v left over, in steps of 1 / LOW_STEPS.
INLINE void put_low(const struct floats *x, const struct ints *v, float inverse, float scale,
                    uint32_t at, struct act_low *out)
{
    struct floats left;
    int32_t s[2];
    const __m256 z = _mm256_set1_ps(inverse);
    for (int i = 0; i < 4; i++)
        left.v[i] = _mm256_fmsub_ps(x->v[i], z, _mm256_cvtepi32_ps(v->v[i]));
    const struct ints l = round_32(&left, LOW_STEPS);
    sum_32(&l, s);
    store_i(out->q, pack_32(&l));
    out->scale = scale / LOW_STEPS;
    out->bias = -128 * (s[0] + s[1]);
    out->half[0] = -32 * s[0];
    out->half[1] = -32 * s[1];
    out->at = at;
}

// Block i of a row of n, zeros behind its end.
INLINE struct floats load_32(const float *x, uint32_t i, uint32_t n)
{
    const uint32_t k = i * PACK_COLS, left = n - k;
    float padded[PACK_COLS] = {0};
    if (left < PACK_COLS) memcpy(padded, x + k, left * sizeof *x);
    const float *from = left < PACK_COLS ? padded : x + k;
    struct floats out;
    for (int j = 0; j < 4; j++) out.v[j] = _mm256_loadu_ps(from + 8 * j);
    return out;
}

// Each block's absmax into its scale[r]; returns the absmax above which a second term is needed. Sums in
// the order of the AVX-512 table: sixteen lanes, the second half of a block first.
INLINE float find_outliers(const float *x, uint32_t n, uint32_t n_blocks, uint32_t r,
                           struct act_block *blocks)
{
    __m256 a = _mm256_setzero_ps(), b = a;
    float top = 0, error = 0;
    for (uint32_t i = 0; i < n_blocks; i++) {
        const struct floats f = load_32(x, i, n);
        a = _mm256_fmadd_ps(f.v[0], f.v[0], _mm256_fmadd_ps(f.v[2], f.v[2], a));
        b = _mm256_fmadd_ps(f.v[1], f.v[1], _mm256_fmadd_ps(f.v[3], f.v[3], b));
        const __m256 m0 = _mm256_max_ps(lanes_abs(f.v[0]), lanes_abs(f.v[1]));
        const __m256 m1 = _mm256_max_ps(lanes_abs(f.v[2]), lanes_abs(f.v[3]));
        const float max = lanes_max(_mm256_max_ps(m0, m1));
        blocks[i].scale[r] = max;
        top = max > top ? max : top;
        error += max * max;
    }
    const float bound = ERROR_BOUND / (float)PACK_COLS * lanes_sum(_mm256_add_ps(a, b));
    // Steps of 3 dB: at most one octave of errors is taken that need not be. Ends where nothing is left.
    for (float last = -1; error > bound && error != last;) {
        last = error;
        top *= 0.84f;
        error = 0;
        for (uint32_t i = 0; i < n_blocks; i++)
            if (blocks[i].scale[r] <= top) error += blocks[i].scale[r] * blocks[i].scale[r];
        if (error == last && top > 0) last = -1; // no block between the steps
    }
    return top;
}

static void quantize_row(const float *x, uint32_t n, uint32_t r, uint32_t n_blocks,
                         struct act_block *high, struct act_low *low, uint32_t *n_low)
{
    const float bound = find_outliers(x, n, n_blocks, r, high);
    *n_low = 0;
    for (uint32_t i = 0; i < n_blocks; i++) {
        const struct floats f = load_32(x, i, n);
        const float max = high[i].scale[r], scale = max / 127.0f;
        const float inverse = max > 0 ? 127.0f / max : 0.0f;
        const struct ints v = round_32(&f, inverse);
        put_high(&v, scale, r, &high[i]);
        if (!(max > bound)) continue;
        struct act_low *l = &low[(*n_low)++];
        put_low(&f, &v, inverse, scale, i, l);
        high[i].sum[r] += l->scale * (float)(l->bias / -128);
    }
}

static void quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                           const struct act_groups *to, uint32_t group)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        const size_t row = (size_t)group * ACT_GROUP + r;
        quantize_row(x[r], n, r, to->n_blocks, to->high + (size_t)group * to->n_blocks,
                     to->low + row * to->n_blocks, &to->n_low[row]);
    }
}

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

// Signed weights, whose sums need no correction.
INLINE void sum_signed(const uint8_t *p, uint32_t s, const int8_t *a, uint32_t step,
                       const uint32_t n, sums sum)
{
    const __m256i top = _mm256_set1_epi8((char)0x80), ones = _mm256_set1_epi16(1);
    EACH_ROW(t) BOTH(v) sum[t][v] = _mm256_setzero_si256();
    for (uint32_t q = 0; q < PACK_QUADS; q++) {
        __m256i w[VECTORS], absolute[VECTORS];
        BOTH(v)
        {
            w[v] = _mm256_xor_si256(weights_of(FMT_Q8_0, p, s, q, v * LANE_ROWS), top);
            absolute[v] = _mm256_abs_epi8(w[v]);
        }
        EACH_ROW(t)
        {
            const __m256i x = _mm256_set1_epi32(load_i32(a + q * step + t * 4));
            BOTH(v)
            {
                const __m256i two = _mm256_maddubs_epi16(absolute[v], _mm256_sign_epi8(x, w[v]));
                sum[t][v] = _mm256_add_epi32(sum[t][v], _mm256_madd_epi16(two, ones));
            }
        }
    }
}

// How many quads fit into sums of 16 bits.
INLINE uint32_t narrow_quads(enum fmt f)
{
    return f == FMT_Q6_K ? 2 : f == FMT_Q5_K ? 4 : 8;
}

INLINE void sum_quads(enum fmt f, const uint8_t *p, uint32_t s, uint32_t q0, uint32_t q1,
                      const int8_t *a, uint32_t step, const uint32_t n, sums sum)
{
    const uint32_t at_once = narrow_quads(f);
    const __m256i ones = _mm256_set1_epi16(1);
    if (f == FMT_Q8_0) {
        sum_signed(p, s, a, step, n, sum);
        return;
    }
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
#pragma GCC unroll 4
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
        const __m256 dmin = load_halves(k_part(f, p)->dmin + v * LANE_ROWS);
        const __m256 min = _mm256_mul_ps(dmin, load_bytes(sc->min[s] + v * LANE_ROWS));
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
