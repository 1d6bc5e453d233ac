// The end of a product of up to eight columns, for the kernels that differ in how weights come: the sums of the
// warps that share a panel are put side by side in shared memory and added in order.
#pragma once

#include "kernels/cuda/linear.h"

// K formats and Q5_1: the compiler sinks loads of scales to where they are used, and each unit then waits for memory
// (measured: half the bandwidth). So their units come whole, by asynchronous copies into shared memory.
template <int KIND> struct staged {
    enum { YES = KIND == PACK_Q5_1 || KIND == PACK_Q4_K || KIND == PACK_Q5_K || KIND == PACK_Q6_K };
};

// The warps that share a panel. box: [warp][NP][lane] in shared memory; factor: column_factors'.
struct few_team {
    f32x4 *box;
    const float *factor;
    uint32_t tid, warp, n_warps; // within the team
};

// What a result's thread knows before all sums are there: element i of a tile is row i % 16, column i / 16.
struct few_old {
    uint32_t row, col;
    bool live, adds;
    float old, weight; // of the residual stream, of the norm
};

// Factors that columns of x still lack, warp by warp: what the norm divides by.
DEV void column_factors(const args_linear &a, float *factor, uint32_t warp, uint32_t n_warps)
{
    for (uint32_t col = warp; col < a.n; col += n_warps) {
        float sum = 0;
        for (uint32_t i = lane_id() * 4; i < a.n_squares; i += 128) {
            const f32x4 v = *(const f32x4 *)(a.row_squares + col * a.n_squares + i);
            sum += v.x + v.y + v.z + v.w;
        }
        sum = warp_sum(sum);
        if (lane_id() == 0) factor[col] = 1.0f / NORM_SCALE / sqrt_f(sum / a.n_norm + a.eps);
    }
}

// The residual stream's new value as the next product wants it, and the panel's share of the row's squares. By
// whole warps; sixteen lanes are a column's rows.
DEV void store_normed(const args_linear &a, const linear_part &m, uint32_t panel, uint32_t row, uint32_t col,
                      float weight, float x, bool live)
{
    float square = live ? x * x : 0.0f;
    for (uint32_t i = 8; i; i >>= 1) square += lane_xor_f(square, i);
    if (live) {
        ((uint16_t *)a.norm_out)[(uint64_t)col * row_stride(m.n_rows) + row] = half_bits(x * weight * NORM_SCALE);
    }
    if ((row & 15) != 0 || col >= a.n) return;
    float *to = a.squares + col * a.n_squares + panel;
    to[0] = square;
    if (panel + 1 == (m.n_rows + 15) / 16) // up to a multiple of four
        for (uint32_t i = panel + 1; i < a.n_squares; i++) *++to = 0;
}

// Where this thread's result goes, and what is there.
DEV few_old few_look(const args_linear &a, const linear_part &m, uint32_t panel, const few_team &t, bool gated)
{
    few_old o;
    o.row = panel * 16 + (t.tid & 15);
    o.col = t.tid >> 4;
    o.live = o.col < 8 && o.col < a.n && o.row < m.n_rows;
    o.adds = !gated && a.mode == LINEAR_ADD && o.live;
    o.old = o.adds ? ((const float *)m.out)[(uint64_t)o.col * row_stride(m.n_rows) + o.row] : 0.0f;
    o.weight = !gated && a.norm_out && o.live ? a.norm_w[o.row] : 0.0f;
    return o;
}

// A warp's sums to the box. The team waits for all of its warps between this and few_store.
template <int NP> DEV void few_put(const float sum[NP][4], const few_team &t)
{
#pragma unroll
    for (uint32_t p = 0; p < NP; p++) {
        const f32x4 v = {sum[p][0], sum[p][1], sum[p][2], sum[p][3]};
        t.box[(t.warp * NP + p) * 32 + lane_id()] = v;
    }
}

// Adds the warps' sums in order and stores.
template <int NP>
DEV void few_store(const few_old &o, const args_linear &a, const linear_part &m, uint32_t panel, const few_team &t)
{
    if (t.tid >= 128) return;
    const float *f = (const float *)t.box;
    const uint32_t r = t.tid & 15;
    const uint32_t at = ((r & 7) * 4 + (o.col >> 1)) * 4 + (o.col & 1) + (r >> 3) * 2;
    const float alpha = a.row_squares && o.live ? a.alpha * t.factor[o.col] : a.alpha;
    float v[NP];
#pragma unroll
    for (uint32_t p = 0; p < NP; p++) {
        v[p] = 0;
        for (uint32_t w = 0; w < t.n_warps; w++) v[p] += f[(w * NP + p) * 128 + at];
        v[p] *= alpha;
    }
    if (NP == 2) {
        if (o.live) store_gated(m, a.part[1], o.row, o.col, v[0], v[NP - 1]);
        return;
    }
    if (o.adds) {
        if (m.bias) v[0] += m.bias[o.row];
        v[0] += o.old;
        ((float *)m.out)[(uint64_t)o.col * row_stride(m.n_rows) + o.row] = v[0];
    } else if (o.live) {
        store_one(m, a.mode, o.row, o.col, v[0]);
    }
    if (a.norm_out) store_normed(a, m, panel, o.row, o.col, o.weight, v[0], o.live);
}
