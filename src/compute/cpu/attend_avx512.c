// The table of the AVX-512 kernels.
#include "compute/cpu/attend_avx2.h"

#if defined(__AVX512VNNI__) // nothing on machines of another kind

#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_avx512.h"

const struct cpu_kernels cpu_kernels_avx512 = {
    .isa = "AVX-512 VNNI",
    .numerics = 0x300,
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .split = avx2_split,
    .quantize_group = avx512_quantize_group,
    .packed_dot = avx512_packed_dot,
    .quantize_head = avx2_quantize_head,
    .attend = avx2_attend,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .scan = {avx2_find_above, avx2_sum_exp},
    .peak = avx512_peak,
    .peak_name = "vpdpbusd, int8 products into int32",
};

#endif
