// What the product kernels share: the parts of a launch and the ways to store a result.
#pragma once

#include "kernels/cuda/unit.h"
#include "kernels/common/args.h"

DEV float silu(float x) { return x * rcp_fast(1.0f + exp2_fast(-1.4426950408889634f * x)); }

DEV void store_one(const linear_part &m, uint32_t mode, uint32_t row, uint32_t col, float v)
{
    const uint64_t at = (uint64_t)col * row_stride(m.n_rows) + row;
    if (m.bias) v += m.bias[row];
    if (mode == LINEAR_F16)
        ((uint16_t *)m.out)[at] = half_bits(v);
    else if (mode == LINEAR_F32)
        ((float *)m.out)[at] = v;
    else
        ((float *)m.out)[at] += v;
}

DEV void store_gated(const linear_part &gate, const linear_part &up, uint32_t row, uint32_t col, float g,
                     float u)
{
    if (gate.bias) g += gate.bias[row];
    if (up.bias) u += up.bias[row];
    ((uint16_t *)gate.out)[(uint64_t)col * row_stride(gate.n_rows) + row] =
        half_bits(silu(g) * u * SWIGLU_SCALE);
}

// The part that a block serves.
DEV uint32_t part_of(const args_linear &a, uint32_t block)
{
    if (a.n_parts > 2 && block >= a.part[2].block0) return 2;
    return a.n_parts > 1 && block >= a.part[1].block0 ? 1 : 0;
}

DEV linear_part part_get(const args_linear &a, uint32_t i)
{
    return i == 0 ? a.part[0] : i == 1 ? a.part[1] : a.part[2];
}

#if PORT_AMD
DEV uint32_t grid_blocks(void)
{
    return __builtin_amdgcn_grid_size_x() / __builtin_amdgcn_workgroup_size_x();
}
#else
DEV uint32_t grid_blocks(void)
{
    uint32_t v;
    asm("mov.u32 %0, %%nctaid.x;" : "=r"(v));
    return v;
}
#endif
