// The AVX-512 instructions that src/compute/cpu/*_avx512.c use, in C, as Intel's manual defines them: what is
// compiled with this header runs on any processor with AVX2, so that the kernels' logic is checked where there
// is no AVX-512. Not for speed, and not a check of the blocks of assembly, which have a form in C beside them.
#pragma once

#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi" // of wide vectors passed within one file

#define AVX512_IN_C
#define AVX512_NAME    "AVX-512 VNNI in C"
#define __AVX512VNNI__ 1

// One set of names for what is compiled so, another for the real ones.
#define avx512_quantize_group in_c_quantize_group
#define avx512_packed_dot     in_c_packed_dot
#define avx512_tile_open      in_c_tile_open
#define avx512_tile_dot       in_c_tile_dot
#define avx512_attend         in_c_attend
#define avx512_quantize_query in_c_quantize_query
#define cpu_kernels_avx512    cpu_kernels_avx512_in_c

typedef int8_t lanes_i8 __attribute__((vector_size(64)));
typedef uint8_t lanes_u8 __attribute__((vector_size(64)));
typedef int16_t lanes_i16 __attribute__((vector_size(64)));
typedef uint16_t lanes_u16 __attribute__((vector_size(64)));
typedef int32_t lanes_i32 __attribute__((vector_size(64)));
typedef uint32_t lanes_u32 __attribute__((vector_size(64)));

#define INLINE      static inline // all of it in one piece would take minutes to compile
#define IN_C        static inline __attribute__((unused))
#define LANES(i, n) for (int i = 0; i < (n); i++)

// name(parameters), whose result r is made by the statement.
#define IN_C_OP(type, name, parameters, ...) \
    IN_C type in_c_##name parameters         \
    {                                        \
        type r = {0};                        \
        __VA_ARGS__ return r;                \
    }
#define IN_C_FLOATS(name, parameters, lane) \
    IN_C_OP(__m512, name, parameters, LANES(i, 16) r[i] = lane;)
#define IN_C_INTS(lanes, name, parameters, lane)               \
    IN_C_OP(__m512i, name, parameters, {                       \
        lanes v;                                               \
        LANES(i, (int)(sizeof v / sizeof v[0])) v[i] = (lane); \
        r = (__m512i)v;                                        \
    })

// ---- memory -------------------------------------------------------------------------------------

IN_C bool in_c_aligned(const void *p)
{
    return (uintptr_t)p % 64 == 0;
}
IN_C_OP(__m512, loadu_ps, (const void *p), memcpy(&r, p, sizeof r);)
IN_C_OP(__m512, load_ps, (const void *p), assert(in_c_aligned(p)); memcpy(&r, p, sizeof r);)
IN_C_OP(__m512i, loadu_si512, (const void *p), memcpy(&r, p, sizeof r);)
IN_C_OP(__m512i, load_si512, (const void *p), assert(in_c_aligned(p)); memcpy(&r, p, sizeof r);)
IN_C void in_c_storeu_ps(void *p, __m512 v)
{
    memcpy(p, &v, sizeof v);
}
IN_C void in_c_storeu_si512(void *p, __m512i v)
{
    memcpy(p, &v, sizeof v);
}
IN_C void in_c_store_ps(void *p, __m512 v)
{
    assert(in_c_aligned(p));
    memcpy(p, &v, sizeof v);
}
IN_C void in_c_store_si512(void *p, __m512i v)
{
    assert(in_c_aligned(p));
    memcpy(p, &v, sizeof v);
}
IN_C_FLOATS(mask_loadu_ps, (__m512 s, __mmask16 k, const float *p), k >> i & 1 ? p[i] : s[i])

// ---- floats ---------------------------------------------------------------------------------------

IN_C_FLOATS(set1_ps, (float x), x)
IN_C_FLOATS(max_ps, (__m512 a, __m512 b), a[i] > b[i] ? a[i] : b[i])
IN_C_FLOATS(fmadd_ps, (__m512 a, __m512 b, __m512 c), fmaf(a[i], b[i], c[i]))
IN_C_FLOATS(fnmadd_ps, (__m512 a, __m512 b, __m512 c), fmaf(-a[i], b[i], c[i]))
IN_C_FLOATS(maskz_mul_ps, (__mmask16 k, __m512 a, __m512 b), k >> i & 1 ? a[i] * b[i] : 0)
IN_C_FLOATS(mask_div_ps, (__m512 s, __mmask16 k, __m512 a, __m512 b),
            k >> i & 1 ? a[i] / b[i] : s[i])
IN_C_FLOATS(maskz_div_ps, (__mmask16 k, __m512 a, __m512 b), k >> i & 1 ? a[i] / b[i] : 0)
IN_C_FLOATS(cvtepi32_ps, (__m512i a), (float)((lanes_i32)a)[i])
IN_C_OP(__m512, cvtph_ps, (__m256i a), {
    const __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(a));
    const __m256 high = _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1));
    LANES(i, 8) r[i] = low[i], r[8 + i] = high[i];
})
// Four lanes each: of a and b in turn, the lower two or the upper two.
IN_C_FLOATS(unpack_ps, (__m512 a, __m512 b, int up), (i % 2 ? b : a)[i / 4 * 4 + i % 4 / 2 + up])
IN_C_OP(__m512d, unpack_pd, (__m512d a, __m512d b, int up),
        LANES(i, 8) r[i] = (i % 2 ? b : a)[i / 2 * 2 + up];)
IN_C_FLOATS(shuffle_f32x4, (__m512 a, __m512 b, int order),
            (i < 8 ? a : b)[(order >> i / 4 * 2 & 3) * 4 + i % 4])
IN_C_FLOATS(permute_ps, (__m512 a, int order), a[i / 4 * 4 + (order >> i % 4 * 2 & 3)])
IN_C_OP(__mmask16, cmp_ps, (__m512 a, __m512 b, int how), {
    assert(how == _CMP_GE_OQ || how == _CMP_GT_OQ);
    LANES(i, 16) r |= (__mmask16)((how == _CMP_GE_OQ ? a[i] >= b[i] : a[i] > b[i]) << i);
})

// ---- integers -------------------------------------------------------------------------------------

IN_C int32_t in_c_narrow(int32_t x)
{
    return x > INT16_MAX ? INT16_MAX : x < INT16_MIN ? INT16_MIN : x;
}
IN_C uint8_t in_c_byte(int32_t x)
{
    return (uint8_t)(x > UINT8_MAX ? UINT8_MAX : x < 0 ? 0 : x);
}
IN_C int32_t in_c_int(float x) // what is out of range, or no number, becomes the least integer
{
    return x >= -2147483648.0f && x < 2147483648.0f ? (int32_t)x : INT32_MIN;
}
IN_C uint32_t in_c_quad(uint32_t sum, __m512i a, __m512i b, int i)
{
    LANES(j, 4) sum += (uint32_t)(((lanes_u8)a)[4 * i + j] * ((lanes_i8)b)[4 * i + j]);
    return sum;
}
IN_C_INTS(lanes_i8, set1_epi8, (char x), (int8_t)x)
IN_C_INTS(lanes_i32, set1_epi32, (int x), x)
IN_C_INTS(lanes_u32, add_epi32, (__m512i a, __m512i b), ((lanes_u32)a)[i] + ((lanes_u32)b)[i])
IN_C_INTS(lanes_u32, maskz_add_epi32, (__mmask16 k, __m512i a, __m512i b),
          k >> i & 1 ? ((lanes_u32)a)[i] + ((lanes_u32)b)[i] : 0)
IN_C_INTS(lanes_u32, slli_epi32, (__m512i a, int n), ((lanes_u32)a)[i] << n)
IN_C_INTS(lanes_i32, srai_epi32, (__m512i a, int n), ((lanes_i32)a)[i] >> n)
IN_C_INTS(lanes_u16, slli_epi16, (__m512i a, int n), (uint16_t)(((lanes_u16)a)[i] << n))
IN_C_INTS(lanes_u16, srli_epi16, (__m512i a, int n), (uint16_t)(((lanes_u16)a)[i] >> n))
IN_C_INTS(lanes_i32, cvtps_epi32, (__m512 a), in_c_int(rintf(a[i])))
IN_C_INTS(lanes_i32, cvttps_epi32, (__m512 a), in_c_int(a[i]))
IN_C_INTS(lanes_i32, cvtepu8_epi32, (__m128i a), ((const uint8_t *)&a)[i])
IN_C_INTS(lanes_i32, cvtepi8_epi32, (__m128i a), ((const int8_t *)&a)[i])
IN_C_INTS(lanes_i16, packs_epi32, (__m512i a, __m512i b),
          (int16_t)in_c_narrow(((lanes_i32)(i % 8 < 4 ? a : b))[i / 8 * 4 + i % 4]))
IN_C_INTS(lanes_u8, packus_epi16, (__m512i a, __m512i b),
          in_c_byte(((lanes_i16)(i % 16 < 8 ? a : b))[i / 16 * 8 + i % 8]))
IN_C_INTS(lanes_i32, permutexvar_epi32, (__m512i order, __m512i a),
          ((lanes_i32)a)[((lanes_i32)order)[i] & 15])
IN_C_INTS(lanes_u32, dpbusd_epi32, (__m512i s, __m512i a, __m512i b),
          in_c_quad(((lanes_u32)s)[i], a, b, i))

// ---- their names ------------------------------------------------------------------------------------

#undef _mm512_add_epi32
#define _mm512_add_epi32 in_c_add_epi32
#undef _mm512_add_ps
#define _mm512_add_ps(a, b) ((a) + (b))
#undef _mm512_and_si512
#define _mm512_and_si512(a, b) ((a) & (b))
#undef _mm512_castpd_ps
#define _mm512_castpd_ps(a) ((__m512)(a))
#undef _mm512_castps_pd
#define _mm512_castps_pd(a) ((__m512d)(a))
#undef _mm512_castps_si512
#define _mm512_castps_si512(a) ((__m512i)(a))
#undef _mm512_castsi512_ps
#define _mm512_castsi512_ps(a) ((__m512)(a))
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask(a, b, how) in_c_cmp_ps(a, b, how)
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps in_c_cvtepi32_ps
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32 in_c_cvtepi8_epi32
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 in_c_cvtepu8_epi32
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps in_c_cvtph_ps
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 in_c_cvtps_epi32
#undef _mm512_cvtss_f32
#define _mm512_cvtss_f32(a) ((a)[0])
#undef _mm512_cvttps_epi32
#define _mm512_cvttps_epi32 in_c_cvttps_epi32
#undef _mm512_div_ps
#define _mm512_div_ps(a, b) ((a) / (b))
#undef _mm512_dpbusd_epi32
#define _mm512_dpbusd_epi32 in_c_dpbusd_epi32
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps in_c_fmadd_ps
#undef _mm512_fnmadd_ps
#define _mm512_fnmadd_ps in_c_fnmadd_ps
#undef _mm512_load_ps
#define _mm512_load_ps in_c_load_ps
#undef _mm512_load_si512
#define _mm512_load_si512 in_c_load_si512
#undef _mm512_loadu_ps
#define _mm512_loadu_ps in_c_loadu_ps
#undef _mm512_loadu_si512
#define _mm512_loadu_si512 in_c_loadu_si512
#undef _mm512_mask_div_ps
#define _mm512_mask_div_ps in_c_mask_div_ps
#undef _mm512_mask_loadu_ps
#define _mm512_mask_loadu_ps in_c_mask_loadu_ps
#undef _mm512_maskz_add_epi32
#define _mm512_maskz_add_epi32 in_c_maskz_add_epi32
#undef _mm512_maskz_div_ps
#define _mm512_maskz_div_ps in_c_maskz_div_ps
#undef _mm512_maskz_mul_ps
#define _mm512_maskz_mul_ps in_c_maskz_mul_ps
#undef _mm512_max_ps
#define _mm512_max_ps in_c_max_ps
#undef _mm512_mul_ps
#define _mm512_mul_ps(a, b) ((a) * (b))
#undef _mm512_or_si512
#define _mm512_or_si512(a, b) ((a) | (b))
#undef _mm512_packs_epi32
#define _mm512_packs_epi32 in_c_packs_epi32
#undef _mm512_packus_epi16
#define _mm512_packus_epi16 in_c_packus_epi16
#undef _mm512_permute_ps
#define _mm512_permute_ps in_c_permute_ps
#undef _mm512_permutexvar_epi32
#define _mm512_permutexvar_epi32 in_c_permutexvar_epi32
#undef _mm512_set1_epi32
#define _mm512_set1_epi32 in_c_set1_epi32
#undef _mm512_set1_epi8
#define _mm512_set1_epi8 in_c_set1_epi8
#undef _mm512_set1_ps
#define _mm512_set1_ps in_c_set1_ps
#undef _mm512_setr_epi32
#define _mm512_setr_epi32(...) ((__m512i)(lanes_i32){__VA_ARGS__})
#undef _mm512_setzero_ps
#define _mm512_setzero_ps() in_c_set1_ps(0)
#undef _mm512_setzero_si512
#define _mm512_setzero_si512() in_c_set1_epi32(0)
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4 in_c_shuffle_f32x4
#undef _mm512_slli_epi16
#define _mm512_slli_epi16 in_c_slli_epi16
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 in_c_slli_epi32
#undef _mm512_srai_epi32
#define _mm512_srai_epi32 in_c_srai_epi32
#undef _mm512_srl_epi16
#define _mm512_srl_epi16(a, n) in_c_srli_epi16(a, _mm_cvtsi128_si32(n))
#undef _mm512_srli_epi16
#define _mm512_srli_epi16 in_c_srli_epi16
#undef _mm512_store_ps
#define _mm512_store_ps in_c_store_ps
#undef _mm512_store_si512
#define _mm512_store_si512 in_c_store_si512
#undef _mm512_storeu_ps
#define _mm512_storeu_ps in_c_storeu_ps
#undef _mm512_storeu_si512
#define _mm512_storeu_si512 in_c_storeu_si512
#undef _mm512_sub_ps
#define _mm512_sub_ps(a, b) ((a) - (b))
#undef _mm512_unpackhi_pd
#define _mm512_unpackhi_pd(a, b) in_c_unpack_pd(a, b, 1)
#undef _mm512_unpackhi_ps
#define _mm512_unpackhi_ps(a, b) in_c_unpack_ps(a, b, 2)
#undef _mm512_unpacklo_pd
#define _mm512_unpacklo_pd(a, b) in_c_unpack_pd(a, b, 0)
#undef _mm512_unpacklo_ps
#define _mm512_unpacklo_ps(a, b) in_c_unpack_ps(a, b, 0)
