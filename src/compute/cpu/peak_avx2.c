// The ceiling of the AVX2 table: vpmaddwd and the addition of its result, all in registers.
#include "compute/cpu/linear_avx2.h"

#if defined(__AVX2__)

#include <immintrin.h>

enum { SUMS = 12 }; // independent, to hide the latency of both instructions

uint64_t avx2_peak(uint32_t n_rounds)
{
    __m256i sum[SUMS];
    const __m256i w = _mm256_set1_epi16(3);
    for (int i = 0; i < SUMS; i++) sum[i] = _mm256_setzero_si256();
    for (uint32_t r = 0; r < n_rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            __m256i x;
            __asm__ volatile("vpmaddwd %1, %1, %0" : "=x"(x) : "x"(w)); // each product is made
            sum[i] = _mm256_add_epi32(sum[i], x);
        }
    }
    for (int i = 1; i < SUMS; i++) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
    __asm__ volatile("" : : "x"(sum[0]));
    return (uint64_t)n_rounds * SUMS * 16;
}

#endif
