// Heads on their way into and out of attention: rotated, and rounded to 8-bit integers.
//
// The rotation: the sign of some columns turned, then a Hadamard matrix over as many columns as the largest
// power of two that divides the head's. It is orthogonal, so products of two rotated vectors are those of the
// vectors; and it spreads what stands out in one column over all, so that integers with one scale
// a vector lose least. (KL divergence of keys and q in 8 bits on the shipped model: 0.00004 rotated, 0.00009 not.)
//
// Additions and products alone, in a stated order: any compiler and instruction set gives the same bits.
#pragma once

#include <assert.h>
#include <math.h>
#include <string.h>

#include "compute/cpu/kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#pragma GCC diagnostic ignored "-Wpsabi" // wide vectors do not leave the file

enum { HEAD_LANES = 8 };

typedef float head_lanes __attribute__((vector_size(32)));
typedef int32_t head_ints __attribute__((vector_size(32)));
typedef uint32_t head_words __attribute__((vector_size(32)));

static inline uint32_t rotated_cols(uint32_t n)
{
    return n & -n;
}

static inline head_lanes head_load(const float *x)
{
    head_lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

// The columns whose sign is turned, again every 32: bits of a number without a pattern (the golden ratio's).
#define SIGN INT32_MIN
static const head_ints head_signs[] = {
    {SIGN, 0, 0, SIGN, SIGN, SIGN, 0, SIGN},
    {SIGN, 0, 0, SIGN, SIGN, SIGN, SIGN, 0},
    {SIGN, SIGN, SIGN, 0, SIGN, SIGN, 0, 0},
    {0, SIGN, SIGN, SIGN, SIGN, 0, 0, SIGN},
};
#undef SIGN

static inline head_lanes head_turn(head_lanes v, uint32_t col)
{
    head_ints bits;
    memcpy(&bits, &v, sizeof bits);
    bits ^= head_signs[col / HEAD_LANES % 4];
    memcpy(&v, &bits, sizeof v);
    return v;
}

// Neighbours 1, 2 and 4 apart.
static inline head_lanes head_near(head_lanes v)
{
    const head_lanes one = {1, -1, 1, -1, 1, -1, 1, -1}, two = {1, 1, -1, -1, 1, 1, -1, -1};
    const head_lanes four = {1, 1, 1, 1, -1, -1, -1, -1};
    v = v * one + __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
    v = v * two + __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5);
    return v * four + __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
}

// x[n / 8] by the matrix, not yet scaled to be orthogonal.
static inline void head_mix(head_lanes *x, uint32_t n)
{
    const uint32_t cols = rotated_cols(n) / HEAD_LANES;
    n /= HEAD_LANES;
    for (uint32_t i = 0; i < n; i++) x[i] = head_near(x[i]);
    for (uint32_t step = 1; step < cols; step *= 2)
        for (uint32_t i = 0; i < n; i += 2 * step)
            for (uint32_t j = i; j < i + step; j++) {
                const head_lanes a = x[j], b = x[j + step];
                x[j] = a + b;
                x[j + step] = a - b;
            }
}

static inline void head_rotate(const float *x, uint32_t n, head_lanes *out)
{
    const float by = 1.0f / sqrtf((float)rotated_cols(n));
    assert(n % (4 * HEAD_LANES) == 0 && n <= MAX_HEAD_DIM);
    for (uint32_t i = 0; i < n; i += HEAD_LANES)
        out[i / HEAD_LANES] = head_turn(head_load(x + i), i);
    head_mix(out, n);
    for (uint32_t i = 0; i < n / HEAD_LANES; i++) out[i] *= by;
}

static inline void head_rotate_back(const float *x, uint32_t n, float by, float *out)
{
    head_lanes v[MAX_HEAD_DIM / HEAD_LANES];
    assert(n % HEAD_LANES == 0 && n <= MAX_HEAD_DIM);
    by /= sqrtf((float)rotated_cols(n));
    for (uint32_t i = 0; i < n; i += HEAD_LANES) v[i / HEAD_LANES] = head_load(x + i);
    head_mix(v, n);
    for (uint32_t i = 0; i < n; i += HEAD_LANES) {
        const head_lanes y = head_turn(v[i / HEAD_LANES] * by, i);
        memcpy(out + i, &y, sizeof y);
    }
}

static inline head_lanes head_abs(head_lanes v)
{
    head_ints bits;
    memcpy(&bits, &v, sizeof bits);
    bits &= 0x7fffffff;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline head_lanes head_larger(head_lanes a, head_lanes b)
{
    const head_ints pick = a > b;
    head_ints x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    x = (x & pick) | (y & ~pick);
    memcpy(&a, &x, sizeof a);
    return a;
}

// The largest magnitude, or, where `sum_cols` is 2, the largest sum of neighbours' (0 and 1, 2 and 3 ..).
static inline float head_top(const head_lanes *v, uint32_t n, uint32_t sum_cols)
{
    head_lanes top = {0};
    for (uint32_t i = 0; i < n / HEAD_LANES; i++) {
        head_lanes a = head_abs(v[i]);
        if (sum_cols == 2) a += __builtin_shufflevector(a, a, 1, 0, 3, 2, 5, 4, 7, 6);
        top = head_larger(a, top);
    }
    float max = 0;
    for (uint32_t i = 0; i < HEAD_LANES; i++) max = top[i] > max ? top[i] : max;
    return max;
}

// Thirty-two integers within 127 to bytes.
static inline void head_narrow(const head_words v[4], int8_t *q)
{
#if defined(__AVX2__) // gcc 12 does it lane by lane otherwise
    const __m256i a = _mm256_packs_epi32((__m256i)v[0], (__m256i)v[1]);
    const __m256i b = _mm256_packs_epi32((__m256i)v[2], (__m256i)v[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order);
    memcpy(q, &bytes, sizeof bytes);
#else
    for (uint32_t i = 0; i < 4 * HEAD_LANES; i++) q[i] = (int8_t)v[i / HEAD_LANES][i % HEAD_LANES];
#endif
}

// v times `inverse` to nearest integers within 127; returns their sum. Of what is no number anything may come.
static inline uint32_t head_round(const head_lanes *v, uint32_t n, float inverse, int8_t *q)
{
    const float shift = 12582912.0f; // 3 * 2^22: added and taken off, rounds to nearest even
    head_words sum = {0};
    for (uint32_t i = 0; i < n; i += 4 * HEAD_LANES, v += 4) {
        head_words bits[4];
        for (uint32_t j = 0; j < 4; j++) {
            const head_lanes x = v[j] * inverse + shift;
            memcpy(&bits[j], &x, sizeof x);
            bits[j] -= 0x4b400000;
            sum += bits[j];
        }
        head_narrow(bits, q + i);
    }
    uint32_t total = 0;
    for (uint32_t i = 0; i < HEAD_LANES; i++) total += sum[i];
    return total;
}

static inline float head_quantize(const float *x, uint32_t n, int8_t *q)
{
    head_lanes v[MAX_HEAD_DIM / HEAD_LANES];
    head_rotate(x, n, v);
    const float max = head_top(v, n, 1);
    head_round(v, n, max > 0 ? HEAD_MAX / max : 0, q);
    return max / HEAD_MAX;
}

// Magnitudes of at most `most`; where sum_cols is 2, sums of magnitudes as head_top has them.
static inline float head_quantize_query(const float *x, uint32_t n, uint32_t sum_cols, float most,
                                        int8_t *q, int32_t *bias)
{
    head_lanes v[MAX_HEAD_DIM / HEAD_LANES];
    head_rotate(x, n, v);
    const float max = head_top(v, n, sum_cols);
    *bias = (int32_t)(0u - KEY_BIAS * head_round(v, n, max > 0 ? most / max : 0, q));
    return max / most;
}
