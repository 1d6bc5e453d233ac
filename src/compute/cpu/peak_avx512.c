// The ceiling of the AVX-512 table: vpdpbusd, all in registers.
#include "compute/cpu/packed_avx512.h"

#if defined(__AVX512VNNI__)

#include <immintrin.h>

enum { SUMS = 12 }; // independent, to hide the latency

uint64_t avx512_peak(uint32_t n_rounds)
{
    __m512i sum[SUMS], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(5);
    for (int i = 0; i < SUMS; i++) sum[i] = _mm512_setzero_si512();
    for (uint32_t r = 0; r < n_rounds; r++) {
        __asm__ volatile("" : "+v"(w), "+v"(x)); // the products are new each round
        for (int i = 0; i < SUMS; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], w, x);
    }
    for (int i = 1; i < SUMS; i++) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    __asm__ volatile("" : : "v"(sum[0]));
    return (uint64_t)n_rounds * SUMS * 64;
}

#endif
