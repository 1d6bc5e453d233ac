// The ceiling of the AVX2 table: vpmaddubsw and the addition of its result to sums of 16 bits. That is what nibbles and
// the weighted values of attention take for 32 products. Q8_0 and attention's scores take a third instruction
// for as many (alone on a core of Zen 3 98 of 166 GMAC/s), and what is not packed two for 16.
#include "compute/cpu/linear_avx2.h"

#if defined(__AVX2__)

#include <immintrin.h>

#include "compute/cpu/peak_x86.h"

#define ZERO(s) "vpxor %%ymm" #s ", %%ymm" #s ", %%ymm" #s "\n\t"
#define ADD(s)                           \
    "vpmaddubsw %[x], %[w], %%ymm12\n\t" \
    "vpaddw %%ymm12, %%ymm" #s ", %%ymm" #s "\n\t"

uint64_t avx2_peak(uint32_t n_rounds)
{
    PEAK_RUN(ZERO, ADD, n_rounds, _mm256_set1_epi8(3), _mm256_set1_epi8(5));
    return (uint64_t)n_rounds * PEAK_SUMS * 32;
}

#endif
