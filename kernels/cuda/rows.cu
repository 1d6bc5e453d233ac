// What works row by row: norm with the residual add before it, gated activation, add, bias, gather, and
// rope with the write of keys and values. Row padding (args.h) is never written, so it stays zero.
#include "kernels/common/port.h"
#include "kernels/common/args.h"
#include "kernels/cuda/block.h"

// Two elements from column 2 i of a row of f32 or f16.
DEV void pair_get(const void *row, uint32_t half, uint32_t i, float &a, float &b)
{
    if (half) {
        const uint32_t v = ((const uint32_t *)row)[i];
        a = h_lo(v);
        b = h_hi(v);
    } else {
        const u32x2 v = ((const u32x2 *)row)[i];
        a = float_of(v.x);
        b = float_of(v.y);
    }
}

// A block a row. n_cols is even. Column pairs go round the threads: the sum's order depends on the
// block's size alone, and that on n_cols.
KERNEL void rms_norm(const args_norm a)
{
    __shared__ float box[33];
    const uint32_t n = a.n_cols / 2;
    const uint64_t row0 = (uint64_t)block_x() * a.stride;
    char *x = (char *)a.x + row0 * (a.x_half ? 2 : 4);
    const char *y = (const char *)a.y + row0 * 2;
    uint32_t *out = (uint32_t *)((char *)a.out + row0 * 2);
    dependents_launch();
    dependents_wait();
    float sum = 0;
    for (uint32_t i = tid(); i < n; i += n_threads()) {
        float u, v;
        pair_get(x, a.x_half, i, u, v);
        if (a.y) {
            float du, dv;
            pair_get(y, 1, i, du, dv);
            u += du;
            v += dv;
            const u32x2 both = {bits_of(u), bits_of(v)};
            ((u32x2 *)x)[i] = both;
        }
        sum += u * u + v * v;
    }
    sum = block_sum(sum, box);
    const float scale = 1.0f / sqrt_f(sum / (float)a.n_cols + a.eps);
    for (uint32_t i = tid(); i < n; i += n_threads()) {
        float u, v;
        pair_get(x, a.x_half, i, u, v);
        const u32x2 w = ((const u32x2 *)a.w)[i];
        out[i] = h2_pack_clamped(u * scale * float_of(w.x), v * scale * float_of(w.y));
    }
}

// Grid over stride / 8 * n_rows threads: eight elements each.
KERNEL void swiglu(const args_swiglu a)
{
    const uint64_t i = (uint64_t)block_x() * n_threads() + tid();
    dependents_launch();
    dependents_wait();
    if (i >= (uint64_t)a.stride / 8 * a.n_rows) return;
    const u32x4 g4 = ((const u32x4 *)a.gate)[i], u4 = ((const u32x4 *)a.up)[i];
    const uint32_t g[4] = {g4.x, g4.y, g4.z, g4.w}, u[4] = {u4.x, u4.y, u4.z, u4.w};
    uint32_t r[4];
    for (uint32_t e = 0; e < 4; e++) {
        const float x = h_lo(g[e]) * a.scale_in, y = h_hi(g[e]) * a.scale_in;
        const float sx = x * rcp_fast(1.0f + exp2_fast(-1.4426950408889634f * x));
        const float sy = y * rcp_fast(1.0f + exp2_fast(-1.4426950408889634f * y));
        r[e] = h2_pack_clamped(sx * h_lo(u[e]) * (a.scale_in * SWIGLU_SCALE),
                               sy * h_hi(u[e]) * (a.scale_in * SWIGLU_SCALE));
    }
    const u32x4 v = {r[0], r[1], r[2], r[3]};
    ((u32x4 *)a.out)[i] = v;
}

KERNEL void add(const args_add a)
{
    const uint64_t i = (uint64_t)block_x() * n_threads() + tid();
    dependents_launch();
    dependents_wait();
    if (i >= (uint64_t)a.stride / 4 * a.n_rows) return;
    f32x4 x = ((f32x4 *)a.x)[i];
    const u32x2 y = ((const u32x2 *)a.y)[i];
    x.x += h_lo(y.x) * a.scale;
    x.y += h_hi(y.x) * a.scale;
    x.z += h_lo(y.y) * a.scale;
    x.w += h_hi(y.y) * a.scale;
    ((f32x4 *)a.x)[i] = x;
}

// A block a row.
KERNEL void bias(const args_bias a)
{
    dependents_launch();
    dependents_wait();
    const uint64_t row0 = (uint64_t)block_x() * a.stride;
    for (uint32_t i = tid(); i < a.n_cols; i += n_threads()) {
        if (a.is_f32) {
            ((float *)a.x)[row0 + i] += a.bias[i];
        } else {
            uint16_t *p = (uint16_t *)a.x + row0 + i;
            *p = half_bits(half_at(p) + a.bias[i]);
        }
    }
}

// A block a row of 16-byte pieces.
KERNEL void gather(const args_gather a)
{
    dependents_launch();
    dependents_wait();
    const char *from = (const char *)a.x + (uint64_t)a.rows[block_x()] * a.row_bytes;
    char *to = (char *)a.out + (uint64_t)block_x() * a.row_bytes;
    for (uint32_t i = tid() * 16; i < a.row_bytes; i += n_threads() * 16)
        *(u32x4 *)(to + i) = *(const u32x4 *)(from + i);
}

// ---- rope and the key/value pages ---------------------------------------------------------------

enum { HEAD_MAX = 256 };

// What a lane needs for its elements of a head, known before the head is.
struct head_plan {
    float w[HEAD_MAX / 32], s[HEAD_MAX / 64], c[HEAD_MAX / 64];
};

DEV head_plan head_prepare(const args_rope &a, const float *w, uint32_t pos)
{
    head_plan h;
#pragma unroll
    for (uint32_t k = 0; k < HEAD_MAX / 32; k++) {
        const uint32_t i = lane_id() + 32 * k;
        h.w[k] = w && i < a.head_dim ? w[i] : 1.0f;
    }
#pragma unroll
    for (uint32_t k = 0; k < HEAD_MAX / 64; k++) {
        const uint32_t i = lane_id() + 32 * k;
        h.s[k] = 0, h.c[k] = 1;
        if (i >= a.n_rot / 2) continue;
        sin_cos((float)pos * a.freqs[i], h.s[k], h.c[k]);
        h.s[k] *= a.mscale;
        h.c[k] *= a.mscale;
    }
    return h;
}

DEV void head_norm(float *x, const head_plan &h, uint32_t n, float eps)
{
    float sum = 0;
    for (uint32_t i = lane_id(); i < n; i += 32) sum += x[i] * x[i];
    const float scale = 1.0f / sqrt_f(warp_sum(sum) / (float)n + eps);
#pragma unroll
    for (uint32_t k = 0; k < HEAD_MAX / 32; k++)
        if (lane_id() + 32 * k < n) x[lane_id() + 32 * k] *= scale * h.w[k];
    sync_warp();
}

DEV void head_rotate(float *x, const args_rope &a, const head_plan &h)
{
    const uint32_t half = a.n_rot / 2;
#pragma unroll
    for (uint32_t k = 0; k < HEAD_MAX / 64; k++) {
        const uint32_t i = lane_id() + 32 * k;
        if (i >= half) continue;
        float *p = x + (a.neox ? i : 2 * i), *q = x + (a.neox ? i + half : 2 * i + 1);
        const float u = *p, v = *q;
        *p = turned(u, -v, h.s[k], h.c[k]);
        *q = turned(v, u, h.s[k], h.c[k]);
    }
    sync_warp();
}

DEV void head_store(const float *x, char *to, uint32_t slot, uint32_t n, uint32_t q8)
{
    if (!q8) {
        for (uint32_t i = lane_id(); i < n / 2; i += 32) {
            const uint32_t e = 2 * i, chunk = (e / 8 & 7) ^ (slot & 7);
            *(uint32_t *)(to + ((e / 64 * 64 + slot) * 8 + chunk) * 16 + e % 8 * 2) =
                h2_pack_clamped(x[e], x[e + 1]);
        }
        return;
    }
    uint16_t *scales = (uint16_t *)(to + KV_PAGE_TOKENS * ((n + 63) / 64 * 64)) + slot * (n / 32);
    for (uint32_t b = 0; b < n / 32; b++) {
        const uint32_t e = b * 32 + lane_id();
        const float most = warp_max(x[e] < 0 ? -x[e] : x[e]);
        const float d = most / 127.0f, inverse = d > 0 ? 1.0f / d : 0.0f, q = x[e] * inverse;
        to[(e / 64 * 64 + slot) * 64 + e % 64] = (char)(int32_t)(q + (q < 0 ? -0.5f : 0.5f));
        if (lane_id() == 0) scales[b] = half_bits(d);
    }
}

// Grid: (rows, ceil(heads of q, k and v / 8)); a warp a head. Positions and pages came with the batch, so all
// that follows from them is ready when the heads are.
KERNEL void rope_kv(const args_rope a)
{
    __shared__ float box[8][HEAD_MAX];
    const uint32_t row = block_x(), h = block_y() * 8 + warp_id(), d = a.head_dim;
    const uint32_t n_kv = a.kv.n_kv_heads;
    float *x = box[warp_id()];
    dependents_launch();
    const bool is_q = h < a.n_heads, is_v = h >= a.n_heads + n_kv;
    const uint32_t head = is_q ? h : is_v ? h - a.n_heads - n_kv : h - a.n_heads;
    const void *from = is_q ? a.q : is_v ? a.v : a.k;
    const float *w = is_v ? 0 : is_q ? a.q_norm : a.k_norm;
    const batch_row r = a.rows[row];
    const head_plan plan = head_prepare(a, w, r.pos);
    const uint32_t page = is_q ? 0 : a.kv.pages[r.page0 + r.pos / KV_PAGE_TOKENS];
    dependents_wait();
    if (h >= a.n_heads + 2 * n_kv) return;
    uint32_t *in = (uint32_t *)((uint16_t *)from + (uint64_t)row * (is_q ? a.stride_q : a.stride_k) +
                                head * d);
    for (uint32_t i = lane_id(); i < d / 2; i += 32) {
        const uint32_t v = in[i];
        x[2 * i] = h_lo(v);
        x[2 * i + 1] = h_hi(v);
    }
    sync_warp();
    if (!is_v) {
        if (w) head_norm(x, plan, d, a.eps);
        head_rotate(x, a, plan);
    }
    if (is_q) {
        for (uint32_t i = lane_id(); i < d / 2; i += 32) in[i] = h2_pack_clamped(x[2 * i], x[2 * i + 1]);
        return;
    }
    char *to = a.kv.base + page * a.kv.page_bytes + (is_v ? n_kv + head : head) * (uint64_t)a.kv.head_bytes;
    head_store(x, to, r.pos % KV_PAGE_TOKENS, d, a.q8);
}
