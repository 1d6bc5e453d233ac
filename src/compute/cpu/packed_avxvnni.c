// Packed weights with AVX-VNNI, for processors that have vpdpbusd in 256 bits only, and the table of
// their kernels: all others are those of AVX2.
#include "compute/cpu/packed_avx2.h"

#if defined(__AVXVNNI__) // nothing on machines of another kind

#include "compute/cpu/attend_avx2.h"
#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_256.h"

enum { SUMS = 12 }; // independent, to hide the instruction's latency

static uint64_t peak(uint32_t n_rounds)
{
    __m256i sum[SUMS], w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(5);
    for (int i = 0; i < SUMS; i++) sum[i] = _mm256_setzero_si256();
    for (uint32_t r = 0; r < n_rounds; r++) {
        __asm__ volatile("" : "+x"(w), "+x"(x)); // the products are new each round
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) sum[i] = _mm256_dpbusd_avx_epi32(sum[i], w, x);
    }
    for (int i = 1; i < SUMS; i++) sum[0] = _mm256_add_epi32(sum[0], sum[i]);
    __asm__ volatile("" : : "x"(sum[0]));
    return (uint64_t)n_rounds * SUMS * 32;
}

const struct cpu_kernels cpu_kernels_avxvnni = {
    .isa = "AVX-VNNI",
    .numerics = 0x204, // the bits of AVX2 but for Q8_0
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .keeps_panels = true,
    .quantize_group = quantize_group,
    .packed_dot = packed_dot,
    .quantize_head = avx2_quantize_head,
    .quantize_query = avx2_quantize_query,
    .rotate_back = avx2_rotate_back,
    .attend = avx2_attend,
    .asks_ahead = true,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .scan = {avx2_find_above, avx2_sum_exp},
    .peak = peak,
    .peak_name = "vpdpbusd in 256 bits, int8 products into int32",
};

#endif
