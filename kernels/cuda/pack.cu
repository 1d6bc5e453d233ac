// Weights between a GGUF file's blocks and the packed units (kernels/common/pack.h): packing at load,
// expansion to plain f16 rows for a library's matrix product, and rows of the embedding table.
// A warp owns one unit.
#include "kernels/cuda/unit.h"
#include "kernels/common/args.h"
#include "kernels/common/decode.h"

// The stored integer of weight i of block b.
template <int FMT> DEV uint32_t raw_value(const uint8_t *b, uint32_t i)
{
    const uint32_t j = i / 32, l = i % 32;
    switch (FMT) {
    case FMT_Q8_0: return (uint32_t)b[2 + i] ^ 128;
    case FMT_Q4_0: return i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4;
    case FMT_Q4_K: return b[16 + j / 2 * 32 + l] >> j % 2 * 4 & 15;
    case FMT_Q5_K:
        return (uint32_t)(b[48 + j / 2 * 32 + l] >> j % 2 * 4 & 15) | (uint32_t)(b[16 + l] >> j & 1) << 4;
    case FMT_Q6_K: {
        const uint32_t half = i / 128, g = j % 4;
        const uint32_t low = b[half * 64 + l + 32 * (g % 2)] >> g / 2 * 4 & 15;
        return low | (uint32_t)(b[128 + half * 32 + l] >> 2 * g & 3) << 4;
    }
    }
    return 0;
}

struct source {
    const uint8_t *raw;
    uint32_t row0, n_rows, n_cols, row_bytes; // row0: of the unit's panel; raw starts at row raw_row0
    uint32_t raw_row0;
};

template <int FMT> DEV const uint8_t *block_at(const source &s, uint32_t row, uint32_t col)
{
    constexpr uint32_t n = FMT == FMT_Q8_0 || FMT == FMT_Q4_0 ? 32 : 256;
    constexpr uint32_t bytes = FMT == FMT_Q8_0   ? 34
                               : FMT == FMT_Q4_0 ? 18
                               : FMT == FMT_Q4_K ? 144
                               : FMT == FMT_Q5_K ? 176
                                                 : 210;
    if (s.row0 + row >= s.n_rows || col >= s.n_cols) return 0;
    return s.raw + (uint64_t)(s.row0 + row - s.raw_row0) * s.row_bytes + (uint64_t)(col / n) * bytes;
}

template <int FMT> DEV uint32_t quant_at(const source &s, uint32_t row, uint32_t col)
{
    constexpr uint32_t n = FMT == FMT_Q8_0 || FMT == FMT_Q4_0 ? 32 : 256;
    const uint8_t *b = block_at<FMT>(s, row, col);
    return b ? raw_value<FMT>(b, col % n) : 0;
}

// A weight of the formats that are held as f16: the plain ones, and those that have no packing.
DEV float plain_at(const source &s, uint32_t fmt, uint32_t row, uint32_t col)
{
    if (s.row0 + row >= s.n_rows || col >= s.n_cols) return 0.0f;
    const uint8_t *r = s.raw + (uint64_t)(s.row0 + row - s.raw_row0) * s.row_bytes;
    const uint32_t n = decode_cols((enum fmt)fmt), bytes = decode_bytes((enum fmt)fmt);
    const float v = fmt == FMT_F32    ? decode_f32(r + (uint64_t)col * 4)
                    : fmt == FMT_F16  ? decode_f16(r + (uint64_t)col * 2)
                    : fmt == FMT_BF16 ? decode_bf16(r + (uint64_t)col * 2)
                                      : decode_weight((enum fmt)fmt, r + (uint64_t)(col / n) * bytes,
                                                      (int)(col % n));
    return v * (float)PACK_SCALE;
}

// Bits of granule n for this lane; p and e: register and half of the operand (see unit.h).
template <int FMT>
DEV void pack_bits(const source &s, char *to, uint32_t col0, uint32_t n, uint32_t lane)
{
    constexpr int KIND = (int)pack_kind_of(FMT);
    typedef unit<KIND> U;
    const uint32_t g = lane >> 2, t = lane & 3;
    uint32_t h[2] = {0, 0};
    for (uint32_t j = 0; j < 4; j++) {
        uint32_t low = 0, wide[2] = {0, 0};
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t p = i & 3, e = i >> 2, row = g + (p & 1) * 8;
            const uint32_t q = quant_at<FMT>(s, row, col0 + n * 64 + t * 16 + j * 4 + (p >> 1) * 2 + e);
            low |= (q & 15) << (4 * p + 16 * e);
            wide[p >> 1] |= (q & 255) << ((p & 1) * 16 + e * 8);
            if (KIND == PACK_Q5_K || KIND == PACK_Q6_K)
                h[KIND == PACK_Q6_K ? j >> 1 : 0] |= (q >> 4)
                                                     << (high_bit<KIND>((int)j, (int)p) + 16 * e);
        }
        if (KIND == PACK_Q8_0) {
            uint32_t *w = (uint32_t *)(to + ((n * 2 + (j >> 1)) * 32 + lane) * 16 + (j & 1) * 8);
            w[0] = wide[0];
            w[1] = wide[1];
        } else {
            *(uint32_t *)(to + (n * 32 + lane) * 16 + j * 4) = low;
        }
    }
    uint32_t *at = (uint32_t *)(to + U::H_AT + (n * 32 + lane) * 4 * U::H_WORDS);
    for (uint32_t i = 0; i < U::H_WORDS; i++) at[i] = h[i];
}

DEV float f16_at(const uint8_t *b) { return decode_f16(b) * (float)PACK_SCALE; }

// The pair (d, dmin / d) of a Q4_K or Q5_K block. Where there is no d, or next to none, its groups' scales are
// zero (scaled) and dmin takes its place: the pair is then (dmin, 1).
DEV bool has_scale(const uint8_t *b)
{
    const float d = decode_f16(b), dmin = decode_f16(b + 2);
    const float size = d < 0 ? -d : d, other = dmin < 0 ? -dmin : dmin;
    return size * 16384.0f > other;
}
DEV uint32_t scale_pair(const uint8_t *b)
{
    if (!has_scale(b)) return h2_pack_clamped(f16_at(b + 2), 1.0f);
    return h2_pack_clamped(f16_at(b), decode_f16(b + 2) / decode_f16(b));
}

// Scales: entry i of 128 (two-byte entries) or 256 (bytes).
template <int FMT>
DEV void pack_scales(const source &s, char *to, uint32_t col0, uint32_t lane)
{
    constexpr int KIND = (int)pack_kind_of(FMT);
    typedef unit<KIND> U;
    constexpr uint32_t N = KIND == PACK_Q6_K ? 256 : 128;
    for (uint32_t i = lane; i < N; i += 32) {
        const uint32_t row = i / (N / 16), sub = i % (N / 16) / 4, n = i % 4;
        const uint8_t *b = block_at<FMT>(s, row, col0 + n * 64 + sub * (KIND == PACK_Q6_K ? 16 : 32));
        if (KIND == PACK_Q6_K) {
            ((uint8_t *)(to + U::S_AT))[i] = b ? (uint8_t)(b[192 + n * 4 + sub] ^ 128) : 128;
        } else if (KIND == PACK_Q4_K || KIND == PACK_Q5_K) {
            int scale = 0, min = 0;
            if (b) decode_scale_min(b + 4, (int)(2 * n + sub), &scale, &min);
            if (b && !has_scale(b)) scale = 0;
            ((uint16_t *)(to + U::S_AT))[i] = (uint16_t)(scale | min << 8);
        } else {
            ((uint16_t *)(to + U::S_AT))[i] = b ? half_bits(f16_at(b)) : 0;
        }
    }
    if (lane >= 16) return;
    const uint8_t *b = block_at<FMT>(s, lane, col0);
    if (KIND == PACK_Q6_K)
        ((uint16_t *)(to + U::D_AT))[lane] = b ? half_bits(f16_at(b + 208)) : 0;
    else if (KIND == PACK_Q4_K || KIND == PACK_Q5_K)
        ((uint32_t *)(to + U::D_AT))[lane] = b ? scale_pair(b) : 0;
}

DEV void pack_plain(const source &s, uint32_t fmt, char *to, uint32_t col0, uint32_t lane)
{
    const uint32_t g = lane >> 2, t = lane & 3;
    for (uint32_t n = 0; n < 4; n++)
        for (uint32_t j = 0; j < 4; j++)
            for (uint32_t p = 0; p < 4; p++) {
                const uint32_t row = g + (p & 1) * 8;
                const uint32_t col = col0 + n * 64 + t * 16 + j * 4 + (p >> 1) * 2;
                *(uint32_t *)(to + ((n * 4 + j) * 32 + lane) * 16 + p * 4) =
                    h2_pack_clamped(plain_at(s, fmt, row, col), plain_at(s, fmt, row, col + 1));
            }
}

// Grid: (units of a row, panels); one warp a block.
template <int FMT> DEV void repack(const args_repack &a)
{
    const uint32_t n_units = (a.n_cols + 255) / 256, u = block_x(), panel = a.panel0 + block_y();
    constexpr int KIND = (int)pack_kind_of(FMT);
    const source s = {(const uint8_t *)a.raw, panel * 16, a.n_rows, a.n_cols, a.row_bytes,
                      a.panel0 * 16};
    char *to = (char *)unit_at<KIND>(a.packed, (uint64_t)panel * n_units + u);
    for (uint32_t n = 0; n < 4; n++) pack_bits<FMT>(s, to, u * 256, n, lane_id());
    pack_scales<FMT>(s, to, u * 256, lane_id());
}

KERNEL void repack_H16(const args_repack a)
{
    const uint32_t n_units = (a.n_cols + 255) / 256, u = block_x(), panel = a.panel0 + block_y();
    const source s = {(const uint8_t *)a.raw, panel * 16, a.n_rows, a.n_cols, a.row_bytes,
                      a.panel0 * 16};
    char *to = (char *)a.packed + ((uint64_t)panel * n_units + u) * unit<PACK_H16>::BYTES;
    pack_plain(s, a.fmt, to, u * 256, lane_id());
}
#define REPACK_KERNEL(id) \
    KERNEL void repack_##id(const args_repack a) { repack<FMT_##id>(a); }
REPACK_KERNEL(Q8_0)
REPACK_KERNEL(Q4_0)
REPACK_KERNEL(Q4_K)
REPACK_KERNEL(Q5_K)
REPACK_KERNEL(Q6_K)

// Grid: (n_units, ceil(n_panels / 4)); four warps a block, one panel each.
template <int KIND> DEV void dequant(const args_dequant &a)
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
        uint16_t *to = (uint16_t *)a.out + (panel * 16 + (lane >> 2)) * stride + u * 256 + (lane & 3) * 16;
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) {
            uint32_t op[4][4];
            granule_operands<KIND>(in[n], sc, n, m, op);
#pragma unroll
            for (uint32_t r = 0; r < 2; r++) {
                u32x4 *p = (u32x4 *)(to + r * 8 * stride + n * 64);
                const u32x4 lo = {op[0][r], op[0][r + 2], op[1][r], op[1][r + 2]};
                const u32x4 hi = {op[2][r], op[2][r + 2], op[3][r], op[3][r + 2]};
                p[0] = lo;
                p[1] = hi;
            }
        }
    }
    dependents_wait();
}

// Grid: (n_units, tokens); one warp a block.
template <int KIND> DEV void embed(const args_embed &a)
{
    const uint32_t lane = lane_id(), u = block_x(), i = block_y();
    dependents_launch();
    dependents_wait();
    const uint32_t token = (uint32_t)a.tokens[i], r = token >> 3 & 1;
    const char *at = unit_at<KIND>(a.packed, (uint64_t)(token / 16) * a.n_units + u);
    const masks m = masks_make();
    scales sc;
    scales_load<KIND>(sc, at, lane);
    float *to = a.out + (uint64_t)i * a.stride + u * 256 + (lane & 3) * 16;
#pragma unroll
    for (uint32_t n = 0; n < 4; n++) {
        granule<KIND> in;
        uint32_t op[4][4];
        granule_load<KIND>(in, at, n, lane);
        granule_operands<KIND>(in, sc, n, m, op);
        if (lane >> 2 != (token & 7)) continue;
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t x = r ? op[j][1] : op[j][0], y = r ? op[j][3] : op[j][2];
            const float s = 1.0f / (float)PACK_SCALE;
            const f32x4 v = {h_lo(x) * s, h_hi(x) * s, h_lo(y) * s, h_hi(y) * s};
            *(f32x4 *)(to + n * 64 + j * 4) = v;
        }
    }
}

#define READ_KERNELS(kind)                                                                       \
    KERNEL void BOUNDS(128, 4) dequant_##kind(const args_dequant a) { dequant<PACK_##kind>(a); } \
    KERNEL void embed_##kind(const args_embed a) { embed<PACK_##kind>(a); }
READ_KERNELS(H16)
READ_KERNELS(Q8_0)
READ_KERNELS(Q4_0)
READ_KERNELS(Q4_K)
READ_KERNELS(Q5_K)
READ_KERNELS(Q6_K)
