// Weights between a GGUF file's blocks and the packed units (kernels/common/pack.h): packing at load,
// expansion to plain f16 rows for a library's matrix product, and rows of the embedding table.
// A warp owns one unit.
#include "kernels/cuda/unit.h"
#include "kernels/common/args.h"
#include "kernels/common/decode.h"

// The integer of weight i of block b as its packing holds it.
template <int FMT> DEV uint32_t raw_value(const uint8_t *b, uint32_t i)
{
    const uint32_t j = i / 32, l = i % 32;
    switch (FMT) {
    case FMT_Q8_0: return (uint32_t)b[2 + i] ^ 128;
    case FMT_IQ4_NL: return (uint32_t)(decode_iq4_value(decode_nibble(b + 2, (int)i)) + 128);
    case FMT_IQ4_XS: return (uint32_t)(decode_int_iq4_xs(b, (int)i) + 128);
    case FMT_MXFP4: return (uint32_t)(decode_int_mxfp4(b, (int)i) + 128);
    case FMT_Q4_1: return (uint32_t)decode_nibble(b + 4, (int)i);
    case FMT_Q5_0: return (uint32_t)(decode_int_q5_0(b, (int)i) + 16);
    case FMT_Q5_1: return (uint32_t)decode_int_q5_1(b, (int)i);
    case FMT_Q2_K: return (uint32_t)decode_pair(b + 16, (int)i);
    case FMT_Q3_K: return (uint32_t)(decode_int_q3_k(b, (int)i) + 32);
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
    const uint32_t n = decode_cols((enum fmt)FMT), bytes = decode_bytes((enum fmt)FMT);
    if (s.row0 + row >= s.n_rows || col >= s.n_cols) return 0;
    return s.raw + (uint64_t)(s.row0 + row - s.raw_row0) * s.row_bytes + (uint64_t)(col / n) * bytes;
}

template <int FMT> DEV uint32_t quant_at(const source &s, uint32_t row, uint32_t col)
{
    const uint8_t *b = block_at<FMT>(s, row, col);
    return b ? raw_value<FMT>(b, col % decode_cols((enum fmt)FMT)) : 0;
}

// A weight of the formats that are held as f16.
DEV float plain_at(const source &s, uint32_t fmt, uint32_t row, uint32_t col)
{
    if (s.row0 + row >= s.n_rows || col >= s.n_cols) return 0.0f;
    const uint8_t *r = s.raw + (uint64_t)(s.row0 + row - s.raw_row0) * s.row_bytes;
    const float v = fmt == FMT_F32   ? decode_f32(r + (uint64_t)col * 4)
                    : fmt == FMT_F16 ? decode_f16(r + (uint64_t)col * 2)
                                     : decode_bf16(r + (uint64_t)col * 2);
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
            if (U::H_WORDS)
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

// Factor and addend of the sixteen columns from column i of a block.
template <int FMT> DEV uint32_t affine_pair(const uint8_t *b, uint32_t i)
{
    if (FMT == FMT_Q2_K) {
        const uint32_t both = b[i / 16];
        return h2_pack_clamped(f16_at(b + 80) * (float)(both & 15), -f16_at(b + 82) * (float)(both >> 4));
    }
    return h2_pack_clamped(f16_at(b), FMT == FMT_Q5_0 ? -16.0f * f16_at(b) : f16_at(b + 2));
}

// The factor of group g of 32 columns of a block.
template <int FMT> DEV float group_scale(const uint8_t *b, uint32_t g)
{
    if (FMT == FMT_IQ4_XS) return f16_at(b) * (float)decode_scale_iq4_xs(b, (int)g);
    if (FMT == FMT_MXFP4) return decode_e8m0_half(b[0]) * (float)PACK_SCALE;
    return f16_at(b);
}

// Scales: entry i of 128 (two-byte entries) or 256 (bytes, or pairs).
template <int FMT>
DEV void pack_scales(const source &s, char *to, uint32_t col0, uint32_t lane)
{
    constexpr int KIND = (int)pack_kind_of(FMT);
    typedef unit<KIND> U;
    constexpr bool SIXTEEN = KIND == PACK_Q6_K || KIND == PACK_Q5_1; // columns that share a factor
    constexpr uint32_t N = SIXTEEN ? 256 : 128;
    for (uint32_t i = lane; i < N; i += 32) {
        const uint32_t row = i / (N / 16), sub = i % (N / 16) / 4, n = i % 4;
        const uint32_t at = n * 64 + sub * (SIXTEEN ? 16 : 32);
        const uint8_t *b = block_at<FMT>(s, row, col0 + at);
        if (KIND == PACK_Q6_K) {
            const int scale = !b                ? 0
                              : FMT == FMT_Q3_K ? decode_scale_q3_k(b + 96, (int)(n * 4 + sub))
                                                : (int8_t)b[192 + n * 4 + sub];
            ((uint8_t *)(to + U::S_AT))[i] = (uint8_t)(scale + 128);
        } else if (KIND == PACK_Q5_1) {
            ((uint32_t *)(to + U::S_AT))[i] = b ? affine_pair<FMT>(b, at % decode_cols((enum fmt)FMT)) : 0;
        } else if (KIND == PACK_Q4_K || KIND == PACK_Q5_K) {
            int scale = 0, min = 0;
            if (b) decode_scale_min(b + 4, (int)(2 * n + sub), &scale, &min);
            if (b && !has_scale(b)) scale = 0;
            ((uint16_t *)(to + U::S_AT))[i] = (uint16_t)(scale | min << 8);
        } else {
            ((uint16_t *)(to + U::S_AT))[i] = b ? half_bits(group_scale<FMT>(b, 2 * n + sub)) : 0;
        }
    }
    if (lane >= 16) return;
    const uint8_t *b = block_at<FMT>(s, lane, col0);
    if (KIND == PACK_Q6_K)
        ((uint16_t *)(to + U::D_AT))[lane] = b ? half_bits(f16_at(b + (FMT == FMT_Q3_K ? 108 : 208))) : 0;
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
KERNEL void repack_Q8_0(const args_repack a)
{
    switch (a.fmt) {
    case FMT_IQ4_NL: repack<FMT_IQ4_NL>(a); break;
    case FMT_IQ4_XS: repack<FMT_IQ4_XS>(a); break;
    case FMT_MXFP4: repack<FMT_MXFP4>(a); break;
    default: repack<FMT_Q8_0>(a); break;
    }
}
KERNEL void repack_Q5_1(const args_repack a)
{
    switch (a.fmt) {
    case FMT_Q4_1: repack<FMT_Q4_1>(a); break;
    case FMT_Q5_0: repack<FMT_Q5_0>(a); break;
    case FMT_Q2_K: repack<FMT_Q2_K>(a); break;
    default: repack<FMT_Q5_1>(a); break;
    }
}
KERNEL void repack_Q6_K(const args_repack a)
{
    if (a.fmt == FMT_Q3_K)
        repack<FMT_Q3_K>(a);
    else
        repack<FMT_Q6_K>(a);
}
KERNEL void repack_Q4_0(const args_repack a) { repack<FMT_Q4_0>(a); }
KERNEL void repack_Q4_K(const args_repack a) { repack<FMT_Q4_K>(a); }
KERNEL void repack_Q5_K(const args_repack a) { repack<FMT_Q5_K>(a); }

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
READ_KERNELS(Q5_1)
READ_KERNELS(Q4_K)
READ_KERNELS(Q5_K)
READ_KERNELS(Q6_K)
