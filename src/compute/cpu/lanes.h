// Small helpers over 256-bit registers, shared by the files compiled for AVX2 + FMA + F16C.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

static inline float lanes_max(__m256 v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

static inline int32_t lanes_sum_i32(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// In the order ((0+4)+(2+6)) + ((1+5)+(3+7)).
static inline float lanes_sum(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline __m256 lanes_abs(__m256 v)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

// Two runs of eight int32 to sixteen int16 in order, saturated.
static inline __m256i lanes_pack_i16(__m256i a, __m256i b)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
}

static inline int32_t load_i32(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __m256i load_i(const void *p)
{
    return _mm256_loadu_si256(p);
}
static inline void store_i(void *p, __m256i v)
{
    _mm256_storeu_si256(p, v);
}

// 2^x for x <= 127; what lies below -126 gives 0. 2^f for |f| <= 1/2 by a polynomial of degree 6
// (Taylor in f ln 2; remainder below 2^-22 relative); exact for integers. Rounded by an addition whose lowest
// bits are the integer.
static inline __m256 lanes_exp2_low(__m256 x)
{
    const __m256 shift = _mm256_set1_ps(12582912.0f); // 3 * 2^22
    const __m256 alive = _mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_GE_OQ);
    const __m256 shifted = _mm256_add_ps(x, shift);
    const __m256 f = _mm256_sub_ps(x, _mm256_sub_ps(shifted, shift));
    __m256 p = _mm256_set1_ps(1.5403530e-4f);
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.3333558e-3f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(9.6181291e-3f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(5.5504109e-2f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(2.4022651e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(6.9314718e-1f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
    const __m256i e = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    const __m256 y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
    return _mm256_and_ps(y, alive);
}

// The same for all x; what lies above 127 gives 2^127.
static inline __m256 lanes_exp2(__m256 x)
{
    return lanes_exp2_low(_mm256_min_ps(_mm256_set1_ps(127.0f), x)); // x where it is no number
}
