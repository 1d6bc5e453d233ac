// Products in 8-bit floats (e4m3), which the user asks for (--prefill-type fp8): weights and activations of long
// prompts as bytes with a scale a row. The kernels that make activations write them in this form at once.
// Only chips of sm_90 run them; elsewhere they are empty.
//
// Invariant: a row's bytes depend on that row alone, so a prompt may be cut anywhere.
#include "kernels/cuda/block.h"
#include "kernels/cuda/unit.h"
#include "kernels/common/args.h"

#if PORT_SM90

// The factor that brings a row to e4m3's range; its inverse is the row's scale. Infinity makes NaN, and NaN stays
// what it is, so both are seen in the result.
DEV float row_factor(float most, float *scale)
{
    const float s = most / E4M3_MAX;
    *scale = s;
    return s > 1e-30f ? 1.0f / s : 0.0f;
}

DEV float abs_f(float x) { return x < 0 ? -x : x; }
DEV float most_of(uint32_t h2) { return max_f(abs_f(h_lo(h2)), abs_f(h_hi(h2))); }

// ---- weights ------------------------------------------------------------------------------------

// A block of four warps a panel; units go round the warps.
template <int KIND> DEV void peak(const args_peak &a)
{
    __shared__ float box[4][16];
    const uint32_t lane = lane_id(), panel = block_x();
    const masks m = masks_make();
    float most[2] = {0, 0};
    dependents_launch();
    for (uint32_t u = warp_id(); u < a.n_units; u += 4) {
        const char *at = unit_at<KIND>(a.packed, (uint64_t)panel * a.n_units + u);
        scales sc;
        scales_load<KIND>(sc, at, lane);
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) {
            granule<KIND> in;
            uint32_t op[4][4];
            granule_load<KIND>(in, at, n, lane);
            granule_operands<KIND>(in, sc, n, m, op);
#pragma unroll
            for (uint32_t p = 0; p < 16; p++)
                most[p & 1] = max_f(most[p & 1], most_of(op[p >> 2][p & 3]));
        }
    }
    for (uint32_t r = 0; r < 2; r++)
        for (uint32_t x = 1; x < 4; x <<= 1) most[r] = max_f(most[r], lane_xor_f(most[r], x));
    if ((lane & 3) == 0) {
        box[warp_id()][lane >> 2] = most[0];
        box[warp_id()][(lane >> 2) + 8] = most[1];
    }
    sync_block();
    dependents_wait();
    if (tid() >= 16) return;
    const float v = max_f(max_f(box[0][tid()], box[1][tid()]), max_f(box[2][tid()], box[3][tid()]));
    // a factor that f16 holds exactly; dequant8 finds it again
    const float want = v > 0 ? E4M3_MAX / v : 1.0f;
    const float factor = h_lo(h2_pack(want < 32768.0f ? want : 32768.0f, 0.0f));
    a.scales[panel * 16 + tid()] = 1.0f / (factor * (float)PACK_SCALE);
}

// As dequant (pack.cu): grid (n_units, ceil(n_panels / 4)), a warp a unit.
template <int KIND> DEV void dequant8(const args_dequant8 &a)
{
    const uint32_t lane = lane_id(), u = block_x(), panel = block_y() * 4 + warp_id();
    dependents_launch();
    if (panel < a.n_panels) {
        const char *at = unit_at<KIND>(a.packed, (uint64_t)panel * a.n_units + u);
        const masks m = masks_make();
        granule<KIND> in[4];
        scales sc;
        scales_load<KIND>(sc, at, lane);
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) granule_load<KIND>(in[n], at, n, lane);
        dependents_wait(); // the product before may still read the scratch
        const uint64_t stride = (uint64_t)a.n_units * 256;
        const uint32_t row = panel * 16 + (lane >> 2);
        char *to = (char *)a.out + row * stride + u * 256 + (lane & 3) * 16;
        uint32_t factor[2];
        for (uint32_t r = 0; r < 2; r++)
            factor[r] = h2_same(1.0f / (a.scales[row + 8 * r] * (float)PACK_SCALE));
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) {
            uint32_t op[4][4];
            granule_operands<KIND>(in[n], sc, n, m, op);
#pragma unroll
            for (uint32_t r = 0; r < 2; r++) {
                uint32_t w[4];
#pragma unroll
                for (uint32_t j = 0; j < 4; j++)
                    w[j] = e4m3_of_f16(h2_mul(op[j][r], factor[r])) |
                           e4m3_of_f16(h2_mul(op[j][r + 2], factor[r])) << 16;
                const u32x4 v = {w[0], w[1], w[2], w[3]};
                *(u32x4 *)(to + r * 8 * stride + n * 64) = v;
            }
        }
    }
    dependents_wait();
}

// ---- activations --------------------------------------------------------------------------------

// A block a row, as rms_norm (rows.cu), whose sums it takes in the same order. A thread keeps its pairs.
DEV void norm8(const args_norm8 &a)
{
    __shared__ float box[33];
    const uint32_t n = a.n_cols / 2, row = block_x();
    u32x2 *x = (u32x2 *)(a.x + (uint64_t)row * a.stride);
    const uint32_t *raw = (const uint32_t *)((const uint16_t *)a.raw + (uint64_t)row * a.stride);
    const bool adds = a.raw && row >= a.n_plain;
    float v[2 * NORM8_PAIRS], sum = 0, most = 0;
    dependents_launch();
    dependents_wait();
    const float times = adds ? a.scales[row] * a.raw_times : 0.0f;
#pragma unroll
    for (uint32_t k = 0; k < NORM8_PAIRS; k++) {
        const uint32_t i = tid() + k * n_threads();
        v[2 * k] = v[2 * k + 1] = 0;
        if (i >= n) continue;
        const u32x2 p = x[i];
        v[2 * k] = float_of(p.x);
        v[2 * k + 1] = float_of(p.y);
        if (adds) {
            const u32x2 c = ((const u32x2 *)a.columns)[i];
            v[2 * k] += h_lo(raw[i]) * (times * float_of(c.x));
            v[2 * k + 1] += h_hi(raw[i]) * (times * float_of(c.y));
            const u32x2 both = {bits_of(v[2 * k]), bits_of(v[2 * k + 1])};
            x[i] = both;
        }
        sum += v[2 * k] * v[2 * k] + v[2 * k + 1] * v[2 * k + 1];
    }
    sum = block_sum(sum, box);
    const float scale = 1.0f / sqrt_f(sum / (float)a.n_cols + a.eps);
#pragma unroll
    for (uint32_t k = 0; k < NORM8_PAIRS; k++) {
        const uint32_t i = tid() + k * n_threads();
        if (i >= n) continue;
        const u32x2 w = ((const u32x2 *)a.w)[i];
        v[2 * k] *= scale * float_of(w.x);
        v[2 * k + 1] *= scale * float_of(w.y);
        most = max_f(most, max_f(abs_f(v[2 * k]), abs_f(v[2 * k + 1])));
        if (row < a.n_plain)
            ((uint32_t *)((uint16_t *)a.plain + (uint64_t)row * a.stride))[i] =
                h2_pack_clamped(v[2 * k], v[2 * k + 1]);
    }
    most = block_max(most, box);
    float row_scale;
    const float factor = row_factor(most, &row_scale);
    uint16_t *out = (uint16_t *)((char *)a.out + (uint64_t)row * a.stride);
#pragma unroll
    for (uint32_t k = 0; k < NORM8_PAIRS; k++) {
        const uint32_t i = tid() + k * n_threads();
        if (i < n)
            out[i] = (uint16_t)e4m3_of_f32(v[2 * k] * factor, v[2 * k + 1] * factor);
        else if (i < a.stride / 2)
            out[i] = 0; // the scratch has held rows of another width
    }
    if (tid() == 0) a.scales[row] = row_scale;
}

DEV float silu(float x) { return x * rcp_fast(1.0f + exp2_fast(-1.4426950408889634f * x)); }

// silu(gate) * up * SWIGLU_SCALE of two pairs, as f16; g and u: their scales.
DEV uint32_t gate_pair(uint32_t gate, uint32_t up, u32x2 g, u32x2 u)
{
    const float x = silu(h_lo(gate) * float_of(g.x)), y = silu(h_hi(gate) * float_of(g.y));
    return h2_pack_clamped(x * (h_lo(up) * float_of(u.x) * SWIGLU_SCALE),
                           y * (h_hi(up) * float_of(u.y) * SWIGLU_SCALE));
}

// Four scales for a row's factor, from column 4 i; ones where nothing is raw.
DEV void columns_load(u32x2 to[2], const float *columns, uint32_t i, float times, bool raw)
{
    const f32x4 one = {1.0f, 1.0f, 1.0f, 1.0f};
    const f32x4 c = raw ? ((const f32x4 *)columns)[i] : one;
    to[0].x = bits_of(c.x * times), to[0].y = bits_of(c.y * times);
    to[1].x = bits_of(c.z * times), to[1].y = bits_of(c.w * times);
}

// A block a row; a thread keeps up to ROWS8_PIECES pieces of eight elements.
template <bool GATED> DEV void rows8(const args_rows8 &a)
{
    __shared__ float box[33];
    const uint32_t n = a.stride / 8, row = block_x();
    const u32x4 *gate = (const u32x4 *)a.gate + (uint64_t)row * n;
    const u32x4 *up = (const u32x4 *)a.up + (uint64_t)row * n;
    const bool raw = GATED && a.gate_columns && row >= a.n_plain;
    uint32_t v[ROWS8_PIECES][4];
    float most = 0;
    dependents_launch();
    dependents_wait();
    const float times = raw ? a.scales[row] * a.raw_times : 1.0f;
#pragma unroll
    for (uint32_t k = 0; k < ROWS8_PIECES; k++) {
        const uint32_t i = tid() + k * n_threads();
        if (i >= n) continue;
        const u32x4 g = gate[i];
        v[k][0] = g.x, v[k][1] = g.y, v[k][2] = g.z, v[k][3] = g.w;
        if (GATED) {
            const u32x4 u4 = up[i];
            const uint32_t u[4] = {u4.x, u4.y, u4.z, u4.w};
            const bool scaled = raw && i * 8 < a.n_cols; // what is padded is zero
#pragma unroll
            for (uint32_t h = 0; h < 2; h++) {
                u32x2 gs[2], us[2];
                columns_load(gs, a.gate_columns, 2 * i + h, times, scaled);
                columns_load(us, a.up_columns, 2 * i + h, times, scaled);
                v[k][2 * h] = gate_pair(v[k][2 * h], u[2 * h], gs[0], us[0]);
                v[k][2 * h + 1] = gate_pair(v[k][2 * h + 1], u[2 * h + 1], gs[1], us[1]);
            }
        }
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) most = max_f(most, most_of(v[k][e]));
        if (GATED && row < a.n_plain) {
            const u32x4 plain = {v[k][0], v[k][1], v[k][2], v[k][3]};
            ((u32x4 *)a.plain)[(uint64_t)row * n + i] = plain;
        }
    }
    most = block_max(most, box);
    float row_scale;
    const float factor = row_factor(most, &row_scale);
    u32x2 *out = (u32x2 *)a.out + (uint64_t)row * n;
#pragma unroll
    for (uint32_t k = 0; k < ROWS8_PIECES; k++) {
        const uint32_t i = tid() + k * n_threads();
        if (i >= n) continue;
        uint32_t w[2] = {0, 0};
#pragma unroll
        for (uint32_t e = 0; e < 4; e++)
            w[e >> 1] |= e4m3_of_f32(h_lo(v[k][e]) * factor, h_hi(v[k][e]) * factor) << 16 * (e & 1);
        const u32x2 both = {w[0], w[1]};
        out[i] = both;
    }
    if (tid() == 0) a.scales[row] = row_scale;
}

#define FP8_BODY(call) { call; }
#else
#define FP8_BODY(call) {}
#endif

KERNEL void BOUNDS(1024, 1) norm_e4m3(const args_norm8 a) FP8_BODY(norm8(a))
KERNEL void BOUNDS(ROWS8_THREADS, 2) swiglu_e4m3(const args_rows8 a) FP8_BODY(rows8<true>(a))
KERNEL void BOUNDS(ROWS8_THREADS, 2) rows_e4m3(const args_rows8 a) FP8_BODY(rows8<false>(a))

#define WEIGHT_KERNELS(kind)                                                                  \
    KERNEL void BOUNDS(128, 4) peak_##kind(const args_peak a) FP8_BODY(peak<PACK_##kind>(a))  \
    KERNEL void BOUNDS(128, 4) dequant8_##kind(const args_dequant8 a) FP8_BODY(dequant8<PACK_##kind>(a))
WEIGHT_KERNELS(H16)
WEIGHT_KERNELS(Q8_0)
WEIGHT_KERNELS(Q4_0)
WEIGHT_KERNELS(Q5_1)
WEIGHT_KERNELS(Q4_K)
WEIGHT_KERNELS(Q5_K)
WEIGHT_KERNELS(Q6_K)
