// The ceiling of the AVX-512 table: vpdpbusd.
#include "compute/cpu/packed_avx512.h"

#if defined(__AVX512VNNI__)

#include <immintrin.h>

#include "compute/cpu/peak_x86.h"

#define ZERO(s) "vpxord %%zmm" #s ", %%zmm" #s ", %%zmm" #s "\n\t"
#define ADD(s)  "vpdpbusd %[x], %[w], %%zmm" #s "\n\t"

uint64_t avx512_peak(uint32_t n_rounds)
{
    PEAK_RUN(ZERO, ADD, n_rounds, _mm512_set1_epi8(3), _mm512_set1_epi8(5));
    return (uint64_t)n_rounds * PEAK_SUMS * 64;
}

#endif
