// Packed weights with AVX-VNNI, for processors that have vpdpbusd in 256 bits only, and the table of
// their kernels: all others are those of AVX2.
#include "compute/cpu/packed_avx2.h"

#if defined(__AVXVNNI__) // nothing on machines of another kind

#include "compute/cpu/attend_avx2.h"
#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_256.h"
#include "compute/cpu/peak_x86.h"

#define ZERO(s) "vpxor %%ymm" #s ", %%ymm" #s ", %%ymm" #s "\n\t"
#define ADD(s)  "%{vex%} vpdpbusd %[x], %[w], %%ymm" #s "\n\t"

static uint64_t peak(uint32_t n_rounds)
{
    PEAK_RUN(ZERO, ADD, n_rounds, _mm256_set1_epi8(3), _mm256_set1_epi8(5));
    return (uint64_t)n_rounds * PEAK_SUMS * 32;
}

const struct cpu_kernels cpu_kernels_avxvnni = {
    .isa = "AVX-VNNI",
    .numerics = 0x206, // the bits of AVX2 but for Q8_0
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
