// Activations to groups of four rows of 8-bit integers (repack.h), compiled by every table of packed weights
// on x86. Four rows go together, one in each lane where there is one number of a row and block.
#pragma once

#include <math.h>

#include "compute/cpu/lanes.h"
#include "compute/cpu/repack.h"

#if !defined(INLINE) // a test does without
#define INLINE static inline __attribute__((always_inline))
#endif

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

// As bytes in order.
INLINE __m256i pack_32(const struct ints *x)
{
    const __m256i a = _mm256_packs_epi32(x->v[0], x->v[1]);
    const __m256i b = _mm256_packs_epi32(x->v[2], x->v[3]);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
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

// ---- the first term -----------------------------------------------------------------------------

// The largest of each row's eight.
INLINE __m128 max_of_rows(const __m256 m[ACT_GROUP])
{
    __m128 h[ACT_GROUP];
    for (int r = 0; r < ACT_GROUP; r++)
        h[r] = _mm_max_ps(_mm256_castps256_ps128(m[r]), _mm256_extractf128_ps(m[r], 1));
    const __m128 a = _mm_max_ps(_mm_unpacklo_ps(h[0], h[1]), _mm_unpackhi_ps(h[0], h[1]));
    const __m128 b = _mm_max_ps(_mm_unpacklo_ps(h[2], h[3]), _mm_unpackhi_ps(h[2], h[3]));
    return _mm_max_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
}

// The magnitudes of sums of neighbours, the largest of each four.
INLINE __m256 max_of_pairs(const struct floats *f)
{
    const __m256 a = lanes_abs(_mm256_hadd_ps(f->v[0], f->v[1]));
    return _mm256_max_ps(a, lanes_abs(_mm256_hadd_ps(f->v[2], f->v[3])));
}

// Sum of the squares of the blocks' absmax up to `top`.
INLINE __m128 error_below(__m128 top, const struct act_block *blocks, uint32_t n_blocks)
{
    __m128 error = _mm_setzero_ps();
    for (uint32_t i = 0; i < n_blocks; i++) {
        const __m128 max = _mm_loadu_ps(blocks[i].scale);
        error = _mm_add_ps(error, _mm_and_ps(_mm_cmple_ps(max, top), _mm_mul_ps(max, max)));
    }
    return error;
}

// Each block's absmax into its scale; returns the absmax above which a second term is needed. Sums in
// sixteen lanes, the second half of a block first.
static __m128 find_outliers(const float *const x[ACT_GROUP], uint32_t n, const struct act_groups *g,
                            struct act_block *blocks)
{
    const uint32_t n_blocks = g->n_blocks;
    __m256 squares[ACT_GROUP][2];
    __m128 top = _mm_setzero_ps(), error = top;
    for (int r = 0; r < ACT_GROUP; r++) squares[r][0] = squares[r][1] = _mm256_setzero_ps();
    for (uint32_t i = 0; i < n_blocks; i++) {
        __m256 m[ACT_GROUP];
#pragma GCC unroll 4
        for (int r = 0; r < ACT_GROUP; r++) {
            const struct floats f = load_32(x[r], i, n);
            const __m256 a = _mm256_fmadd_ps(f.v[2], f.v[2], squares[r][0]);
            const __m256 b = _mm256_fmadd_ps(f.v[3], f.v[3], squares[r][1]);
            squares[r][0] = _mm256_fmadd_ps(f.v[0], f.v[0], a);
            squares[r][1] = _mm256_fmadd_ps(f.v[1], f.v[1], b);
            m[r] = _mm256_max_ps(_mm256_max_ps(lanes_abs(f.v[0]), lanes_abs(f.v[1])),
                                 _mm256_max_ps(lanes_abs(f.v[2]), lanes_abs(f.v[3])));
            if (g->limit_pairs) m[r] = _mm256_max_ps(m[r], max_of_pairs(&f));
        }
        const __m128 max = max_of_rows(m);
        _mm_storeu_ps(blocks[i].scale, max);
        top = _mm_max_ps(top, max);
        error = _mm_add_ps(error, _mm_mul_ps(max, max));
    }
    float sum[ACT_GROUP];
    for (int r = 0; r < ACT_GROUP; r++)
        sum[r] = lanes_sum(_mm256_add_ps(squares[r][0], squares[r][1]));
    const float most = (g->limit_pairs ? PAIR_BOUND : ERROR_BOUND) / (float)PACK_COLS;
    const __m128 bound = _mm_mul_ps(_mm_set1_ps(most), _mm_loadu_ps(sum));
    // Steps of 3 dB: at most one octave of errors is taken that need not be. Ends where nothing is left.
    for (;;) {
        const __m128 more =
            _mm_and_ps(_mm_cmpgt_ps(error, bound), _mm_cmpgt_ps(top, _mm_setzero_ps()));
        if (!_mm_movemask_ps(more)) return top;
        top = _mm_blendv_ps(top, _mm_mul_ps(top, _mm_set1_ps(0.84f)), more);
        error = _mm_blendv_ps(error, error_below(top, blocks, n_blocks), more);
    }
}

// 32 bytes of each row to quads of four rows; returns the rows' sums of either half.
INLINE __m256i put_quads(const __m256i row[ACT_GROUP], struct act_block *out)
{
    const __m256i a = _mm256_unpacklo_epi32(row[0], row[1]),
                  b = _mm256_unpacklo_epi32(row[2], row[3]);
    const __m256i c = _mm256_unpackhi_epi32(row[0], row[1]),
                  d = _mm256_unpackhi_epi32(row[2], row[3]);
    const __m256i quads[4] = {_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b),
                              _mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d)};
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        _mm_storeu_si128((__m128i *)(void *)out->q[i], _mm256_castsi256_si128(quads[i]));
        _mm_storeu_si128((__m128i *)(void *)out->q[i + 4], _mm256_extracti128_si256(quads[i], 1));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(_mm256_set1_epi8(1), quads[i]));
    }
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

INLINE void store_times(int32_t *to, __m128i v, int bits)
{
    _mm_storeu_si128((__m128i *)(void *)to,
                     _mm_slli_epi32(_mm_sub_epi32(_mm_setzero_si128(), v), bits));
}

// Block i of four rows, whose absmax stands where the scale will.
INLINE void put_high(const float *const x[ACT_GROUP], uint32_t i, uint32_t n, const float *inverse,
                     struct act_block *out)
{
    __m256i row[ACT_GROUP];
#pragma GCC unroll 4
    for (int r = 0; r < ACT_GROUP; r++) {
        const struct floats f = load_32(x[r], i, n);
        const struct ints v = round_32(&f, inverse[r]);
        row[r] = pack_32(&v);
    }
    const __m256i halves = put_quads(row, out);
    const __m128i a = _mm256_castsi256_si128(halves), b = _mm256_extracti128_si256(halves, 1);
    const __m128i sum = _mm_add_epi32(a, b);
    const __m128 scale = _mm_div_ps(_mm_loadu_ps(out->scale), _mm_set1_ps(127.0f));
    _mm_storeu_ps(out->scale, scale);
    _mm_storeu_ps(out->sum, _mm_mul_ps(scale, _mm_cvtepi32_ps(sum)));
    store_times(out->bias, sum, 7);
    store_times(out->half[0], a, 5);
    store_times(out->half[1], b, 5);
}

// ---- the second ---------------------------------------------------------------------------------

// What rounding block i of row r left over, in steps of 1 / n_steps.
static void put_low(const float *x, uint32_t i, uint32_t n, uint32_t r, float inverse,
                    float n_steps, struct act_block *high, struct act_low *out)
{
    struct floats f = load_32(x, i, n);
    const struct ints v = round_32(&f, inverse);
    const __m256 z = _mm256_set1_ps(inverse);
    for (int j = 0; j < 4; j++) f.v[j] = _mm256_fmsub_ps(f.v[j], z, _mm256_cvtepi32_ps(v.v[j]));
    const struct ints l = round_32(&f, n_steps);
    const int32_t a = lanes_sum_i32(_mm256_add_epi32(l.v[0], l.v[1]));
    const int32_t b = lanes_sum_i32(_mm256_add_epi32(l.v[2], l.v[3]));
    store_i(out->q, pack_32(&l));
    out->scale = high->scale[r] / n_steps;
    out->bias = -128 * (a + b);
    out->half[0] = -32 * a;
    out->half[1] = -32 * b;
    out->at = i;
    high->sum[r] += out->scale * (float)(a + b);
}

static void quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                           const struct act_groups *to, uint32_t group)
{
    const float *rows[ACT_GROUP];
    struct act_block *high = to->high + (size_t)group * to->n_blocks;
    struct act_low *low = to->low + (size_t)group * ACT_GROUP * to->n_blocks;
    uint32_t *n_low = to->n_low + (size_t)group * ACT_GROUP;
    for (uint32_t r = 0; r < ACT_GROUP; r++) rows[r] = x[r < n_rows ? r : 0];
    for (uint32_t r = 0; r < n_rows; r++) n_low[r] = 0;
    const __m128 bound = find_outliers(rows, n, to, high);
    const int wanted = (1 << n_rows) - 1;
    for (uint32_t i = 0; i < to->n_blocks; i++) {
        float inverse[ACT_GROUP];
        const __m128 max = _mm_loadu_ps(high[i].scale);
        const __m128 some = _mm_cmpgt_ps(max, _mm_setzero_ps());
        _mm_storeu_ps(inverse, _mm_and_ps(some, _mm_div_ps(_mm_set1_ps(127.0f), max)));
        const int outlier = _mm_movemask_ps(_mm_cmpgt_ps(max, bound)) & wanted;
        put_high(rows, i, n, inverse, &high[i]);
        for (uint32_t r = 0; r < n_rows && outlier >> r; r++)
            if (outlier >> r & 1)
                put_low(rows[r], i, n, r, inverse[r], to->limit_pairs ? LOW_STEPS_PAIRS : LOW_STEPS,
                        &high[i], &low[(size_t)r * to->n_blocks + n_low[r]++]);
    }
}
