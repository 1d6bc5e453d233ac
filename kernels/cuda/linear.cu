// Products of packed weights with a few columns of activations (decode steps, short prefills, logits):
// weights stream once from memory, are expanded to f16 in registers and multiplied on the matrix unit.
// No library, no scratch; any number of columns by blocks of 8 to 64.
//
// Equality: a block's warps take fixed parts of K (their number depends on the matrix alone) and their
// sums are added in warp order, so a column's result does not depend on the columns beside it.
#include "kernels/cuda/unit.h"
#include "kernels/common/args.h"

extern __shared__ char shared_bytes[];

template <int KIND, int NP, int NT> struct tile_sums {
    float c[NP][NT][4];
};

// Activations of granule n: 16 f16 of one column, this lane's share for four steps.
DEV void column_load(uint32_t b[8], const char *x, bool live)
{
    u32x4 lo = {0, 0, 0, 0}, hi = {0, 0, 0, 0};
    if (live) {
        lo = *(const u32x4 *)x;
        hi = *(const u32x4 *)(x + 16);
    }
    b[0] = lo.x, b[1] = lo.y, b[2] = lo.z, b[3] = lo.w;
    b[4] = hi.x, b[5] = hi.y, b[6] = hi.z, b[7] = hi.w;
}

// This warp's units [u0, u1) of NP panels.
template <int KIND, int NP, int NT>
DEV void multiply(tile_sums<KIND, NP, NT> &sum, const char *const w[NP], const args_linear &a,
                  uint32_t col0, uint32_t u0, uint32_t u1)
{
    // granules in flight: enough bytes for the memory's latency, few enough registers
    constexpr uint32_t DEPTH = KIND == PACK_H16 ? (NP == 1 ? 2 : 1) : KIND == PACK_Q8_0 && NP == 2 ? 2 : 4;
    const uint32_t lane = lane_id(), col = col0 + (lane >> 2), n_units = a.n_units;
    granule<KIND> ring[NP][DEPTH];
    scales sc[NP];
    if (u0 >= u1) return;
#pragma unroll
    for (uint32_t p = 0; p < NP; p++) {
        scales_load<KIND>(sc[p], w[p] + (uint64_t)u0 * unit<KIND>::BYTES, lane);
#pragma unroll
        for (uint32_t i = 0; i < DEPTH; i++)
            granule_load<KIND>(ring[p][i], w[p] + (uint64_t)u0 * unit<KIND>::BYTES, i, lane);
    }
    dependents_wait();
    const char *x = (const char *)a.x + ((uint64_t)col * n_units * 256 + u0 * 256 + (lane & 3) * 16) * 2;
    const uint64_t x_tile = (uint64_t)n_units * 256 * 2 * 8;
#pragma unroll 1
    for (uint32_t u = u0; u < u1; u++) {
        scales next[NP];
        const bool more = u + 1 < u1;
#pragma unroll
        for (uint32_t p = 0; p < NP; p++)
            scales_load<KIND>(next[p], w[p] + (uint64_t)(more ? u + 1 : u) * unit<KIND>::BYTES, lane);
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) {
            uint32_t b[8], op[NP][4][4];
            column_load(b, x, col < a.n);
#pragma unroll
            for (uint32_t p = 0; p < NP; p++) {
                granule_operands<KIND>(ring[p][n % DEPTH], sc[p], n, op[p]);
                const bool here = n + DEPTH < 4;
                if (here || more)
                    granule_load<KIND>(ring[p][n % DEPTH],
                                       w[p] + (uint64_t)(here ? u : u + 1) * unit<KIND>::BYTES,
                                       (n + DEPTH) & 3, lane);
            }
#pragma unroll
            for (uint32_t t = 0; t < NT; t++) {
                uint32_t b_next[8];
                if (t + 1 < NT)
                    column_load(b_next, x + (t + 1) * x_tile, col + (t + 1) * 8 < a.n);
#pragma unroll
                for (uint32_t j = 0; j < 4; j++)
#pragma unroll
                    for (uint32_t p = 0; p < NP; p++)
                        mma_16x8x16(sum.c[p][t], op[p][j], b[2 * j], b[2 * j + 1]);
                if (t + 1 < NT) {
#pragma unroll
                    for (uint32_t i = 0; i < 8; i++) b[i] = b_next[i];
                }
            }
            x += 128;
        }
#pragma unroll
        for (uint32_t p = 0; p < NP; p++) sc[p] = next[p];
    }
}

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

// Adds the warps' sums in order and stores: element i of a tile is row i % 16, column i / 16.
template <int KIND, int NP, int NT>
DEV void finish(const tile_sums<KIND, NP, NT> &sum, const args_linear &a, const linear_part &m,
                uint32_t panel0, uint32_t col0)
{
    f32x4 *const box = (f32x4 *)shared_bytes; // [warp][NP][lane]
    const uint32_t n_warps = n_threads() >> 5, lane = lane_id(), warp = warp_id();
#pragma unroll
    for (uint32_t t = 0; t < NT; t++) {
        if (t) sync_block();
#pragma unroll
        for (uint32_t p = 0; p < NP; p++) {
            const f32x4 v = {sum.c[p][t][0], sum.c[p][t][1], sum.c[p][t][2], sum.c[p][t][3]};
            box[(warp * NP + p) * 32 + lane] = v;
        }
        sync_block();
        const uint32_t n_out = a.mode == LINEAR_SWIGLU ? 128 : NP * 128;
        for (uint32_t i = tid(); i < n_out; i += n_threads()) {
            const uint32_t p = i >> 7, row = i & 15, c = i >> 4 & 7;
            const uint32_t from = (row & 7) * 4 + (c >> 1), e = (c & 1) + (row >> 3) * 2;
            const float *f = (const float *)box;
            float v = 0, v1 = 0;
            for (uint32_t w = 0; w < n_warps; w++) {
                v += f[((w * NP + p) * 32 + from) * 4 + e];
                if (NP == 2 && a.mode == LINEAR_SWIGLU) v1 += f[((w * NP + 1) * 32 + from) * 4 + e];
            }
            const uint32_t at_row = (panel0 + p) * 16 + row, at_col = col0 + t * 8 + c;
            if (at_row >= m.n_rows || at_col >= a.n) continue;
            v *= a.alpha;
            if (a.mode == LINEAR_SWIGLU) {
                const linear_part &up = a.part[1];
                v1 *= a.alpha;
                if (m.bias) v += m.bias[at_row];
                if (up.bias) v1 += up.bias[at_row];
                ((uint16_t *)m.out)[(uint64_t)at_col * row_stride(m.n_rows) + at_row] =
                    half_bits(silu(v) * v1 * SWIGLU_SCALE);
            } else {
                store_one(m, a.mode, at_row, at_col, v);
            }
        }
    }
}

template <int KIND, int NP, int NT> DEV void linear(const args_linear &a)
{
    const uint32_t block = block_x(), col0 = block_y() * NT * 8;
    const bool gated = a.mode == LINEAR_SWIGLU;
    uint32_t i = 0;
    if (!gated && a.n_parts > 1 && block >= a.part[1].block0) i = 1;
    if (!gated && a.n_parts > 2 && block >= a.part[2].block0) i = 2;
    const linear_part m = i == 0 ? a.part[0] : i == 1 ? a.part[1] : a.part[2];
    const uint32_t n_panels = (m.n_rows + 15) / 16, n_warps = n_threads() >> 5, warp = warp_id();
    const uint32_t panel0 = gated ? block : (block - m.block0) * NP;
    const uint64_t panel_bytes = (uint64_t)a.n_units * unit<KIND>::BYTES;
    const char *w[NP];
#pragma unroll
    for (uint32_t p = 0; p < NP; p++) {
        const uint32_t panel = gated || panel0 + p >= n_panels ? panel0 : panel0 + p;
        const char *base = (const char *)(gated && p ? a.part[1].w : m.w);
        w[p] = base + panel * panel_bytes;
    }
    const uint32_t each = a.n_units / n_warps, rest = a.n_units % n_warps;
    const uint32_t u0 = warp * each + (warp < rest ? warp : rest);
    const uint32_t u1 = u0 + each + (warp < rest ? 1 : 0);
    tile_sums<KIND, NP, NT> sum;
#pragma unroll
    for (uint32_t p = 0; p < NP; p++)
#pragma unroll
        for (uint32_t t = 0; t < NT; t++)
#pragma unroll
            for (uint32_t e = 0; e < 4; e++) sum.c[p][t][e] = 0;
    dependents_launch();
    multiply<KIND, NP, NT>(sum, w, a, col0, u0, u1);
    dependents_wait(); // also where this warp had no units
    finish<KIND, NP, NT>(sum, a, m, panel0, col0);
}

// At most 320 threads (LINEAR_WARPS_MAX); the second number asks for registers that let as many blocks
// live on a multiprocessor.
#define LINEAR_KERNEL(kind, np, nt, blocks)                                            \
    KERNEL void BOUNDS(320, blocks) linear_##kind##_##np##_##nt(const args_linear a)    \
    {                                                                                  \
        linear<PACK_##kind, np, nt>(a);                                                \
    }
#define LINEAR_KERNELS(kind)                                                           \
    LINEAR_KERNEL(kind, 1, 1, 2)                                                     \
    LINEAR_KERNEL(kind, 2, 1, 2)                                                     \
    LINEAR_KERNEL(kind, 2, 2, 1)                                                     \
    LINEAR_KERNEL(kind, 2, 4, 1)                                                     \
    LINEAR_KERNEL(kind, 2, 8, 1)

LINEAR_KERNELS(H16)
LINEAR_KERNELS(Q8_0)
LINEAR_KERNELS(Q4_0)
LINEAR_KERNELS(Q4_K)
LINEAR_KERNELS(Q5_K)
LINEAR_KERNELS(Q6_K)
