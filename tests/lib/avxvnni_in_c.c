// Packed weights of the AVX-VNNI table, and that table, with its one instruction in C, as Intel's manual defines it: so
// that it is checked where there is AVX2 alone.
#if defined(__AVX2__)
#include <immintrin.h>
#include <stdint.h>

typedef uint32_t vnni_sums __attribute__((vector_size(32)));
typedef uint8_t vnni_unsigned __attribute__((vector_size(32)));
typedef int8_t vnni_signed __attribute__((vector_size(32)));

static inline __m256i in_c_dpbusd(__m256i sum, __m256i a, __m256i b)
{
    vnni_sums s = (vnni_sums)sum;
    for (int i = 0; i < 32; i++)
        s[i / 4] += (uint32_t)(((vnni_unsigned)a)[i] * ((vnni_signed)b)[i]);
    return (__m256i)s;
}

#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32 in_c_dpbusd
#define __AVXVNNI__             1
#define INLINE                  static inline // all of it in one piece would take minutes to compile
#define cpu_kernels_avxvnni     cpu_kernels_avxvnni_in_c

#include "compute/cpu/packed_avxvnni.c"
#endif
