// The definition of every weight format: from a block's bytes to floats. One text for the C code of
// model/ and compute/ and for CUDA and HIP device code; kernels are checked against it. Nothing fast
// lives here. Bytes are little-endian and need no alignment.
// Source: the GGUF block layouts as published with ggml; MXFP4's values: the OCP Microscaling
// specification 1.0.
#pragma once

#include "kernels/common/formats.h"

#if defined(__CUDACC__) || defined(__HIP__)
#define DECODE_FN static inline __host__ __device__
#else
#define DECODE_FN static inline
#endif

DECODE_FN float decode_bits(uint32_t bits)
{
    union {
        uint32_t u;
        float f;
    } v;
    v.u = bits;
    return v.f;
}

DECODE_FN uint32_t decode_u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

DECODE_FN float decode_bf16(const uint8_t *p)
{
    return decode_bits(decode_u16(p) << 16);
}

DECODE_FN float decode_f32(const uint8_t *p)
{
    return decode_bits(decode_u16(p) | decode_u16(p + 2) << 16);
}

// IEEE binary16. Subnormals are exact: mantissa * 2^-24.
DECODE_FN float decode_f16(const uint8_t *p)
{
    const uint32_t h = decode_u16(p), sign = (h & 0x8000u) << 16;
    const uint32_t exponent = h >> 10 & 31u, mantissa = h & 1023u;
    if (exponent == 31) return decode_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return decode_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    const float f = (float)mantissa * 5.9604644775390625e-8f;
    return sign ? -f : f;
}

// Q8_0: f16 d; int8 q[32]. x = d q
DECODE_FN void decode_block_q8_0(const uint8_t *b, float *out)
{
    const float d = decode_f16(b);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)b[2 + i];
}

// Q4_0: f16 d; 16 bytes, low nibbles are weights 0..15, high ones 16..31. x = d (q - 8)
DECODE_FN void decode_block_q4_0(const uint8_t *b, float *out)
{
    const float d = decode_f16(b);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((b[2 + i] & 15) - 8);
        out[i + 16] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

// The eight 6-bit scales and minimums that Q4_K and Q5_K pack into 12 bytes.
DECODE_FN void decode_scale_min(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
        return;
    }
    *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
}

// Q4_K: f16 d, dmin; 12 bytes of scales; 4 x 32 bytes, each the low nibbles of 32 weights, then the
// high nibbles of the next 32. x = d scale q - dmin min
DECODE_FN void decode_block_q4_k(const uint8_t *b, float *out)
{
    const float d = decode_f16(b), dmin = decode_f16(b + 2);
    for (int j = 0; j < 8; j++) {
        int scale, min;
        decode_scale_min(b + 4, j, &scale, &min);
        const float ds = d * (float)scale, dm = dmin * (float)min;
        const uint8_t *q = b + 16 + j / 2 * 32;
        for (int i = 0; i < 32; i++) out[j * 32 + i] = ds * (float)(q[i] >> j % 2 * 4 & 15) - dm;
    }
}

// Q5_K: as Q4_K with a fifth bit: bit j of qh[i] belongs to weight i of group j.
DECODE_FN void decode_block_q5_k(const uint8_t *b, float *out)
{
    const float d = decode_f16(b), dmin = decode_f16(b + 2);
    const uint8_t *qh = b + 16;
    for (int j = 0; j < 8; j++) {
        int scale, min;
        decode_scale_min(b + 4, j, &scale, &min);
        const float ds = d * (float)scale, dm = dmin * (float)min;
        const uint8_t *q = b + 48 + j / 2 * 32;
        for (int i = 0; i < 32; i++) {
            const int low = q[i] >> j % 2 * 4 & 15, high = qh[i] >> j & 1;
            out[j * 32 + i] = ds * (float)(low | high << 4) - dm;
        }
    }
}

// Q6_K: 128 bytes of low nibbles, 64 bytes of high pairs, int8 scales[16], f16 d. In each half of
// 128 weights, group g of 32 takes nibble g / 2 of ql[i + 32 (g % 2)] and pair g of qh[i].
// x = d scale (q - 32)
DECODE_FN void decode_block_q6_k(const uint8_t *b, float *out)
{
    const float d = decode_f16(b + 208);
    for (int half = 0; half < 2; half++) {
        const uint8_t *ql = b + half * 64, *qh = b + 128 + half * 32, *scales = b + 192 + half * 8;
        for (int i = 0; i < 128; i++) {
            const int g = i / 32, l = i % 32;
            const int low = ql[l + 32 * (g % 2)] >> g / 2 * 4 & 15, high = qh[l] >> 2 * g & 3;
            const float ds = d * (float)(int8_t)scales[i / 16];
            out[half * 128 + i] = ds * (float)((low | high << 4) - 32);
        }
    }
}

// ---- formats met less often: one weight at a time ----------------------------------------------

// Weight i of 16 bytes whose low nibbles are weights 0..15 and high ones 16..31.
DECODE_FN int decode_nibble(const uint8_t *q, int i)
{
    return q[i % 16] >> i / 16 * 4 & 15;
}

// The fifth bit of weight i, as 16 or 0.
DECODE_FN int decode_fifth(const uint8_t *high, int i)
{
    return (high[i / 8] >> i % 8 & 1) << 4;
}

// Q4_1: f16 d, min; nibbles. x = d q + min
DECODE_FN float decode_weight_q4_1(const uint8_t *b, int i)
{
    return decode_f16(b) * (float)decode_nibble(b + 4, i) + decode_f16(b + 2);
}

// Q5_0: f16 d; 32 fifth bits; nibbles. x = d (q - 16)
DECODE_FN int decode_int_q5_0(const uint8_t *b, int i)
{
    return (decode_nibble(b + 6, i) | decode_fifth(b + 2, i)) - 16;
}

// Q5_1: f16 d, min; 32 fifth bits; nibbles. x = d q + min
DECODE_FN int decode_int_q5_1(const uint8_t *b, int i)
{
    return decode_nibble(b + 8, i) | decode_fifth(b + 4, i);
}
DECODE_FN float decode_weight_q5_1(const uint8_t *b, int i)
{
    return decode_f16(b) * (float)decode_int_q5_1(b, i) + decode_f16(b + 2);
}

// Q2_K and Q3_K: 64 bytes of pairs. In each half of 128 weights, group g of 32 is pair g of 32 bytes.
DECODE_FN int decode_pair(const uint8_t *q, int i)
{
    return q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

// Q2_K: 16 bytes of scales (low) and minimums (high); pairs; f16 d, dmin. x = d scale q - dmin min
DECODE_FN float decode_weight_q2_k(const uint8_t *b, int i)
{
    const int both = b[i / 16];
    const float ds = decode_f16(b + 80) * (float)(both & 15);
    return ds * (float)decode_pair(b + 16, i) - decode_f16(b + 82) * (float)(both >> 4);
}

// The sixteen 6-bit scales that Q3_K packs into 12 bytes: low bits as nibbles of the first eight bytes
// (0..7 low, 8..15 high), upper pairs in the last four (scale g: pair g / 4 of byte g % 4).
DECODE_FN int decode_scale_q3_k(const uint8_t *s, int g)
{
    return ((s[g % 8] >> g / 8 * 4 & 15) | (s[8 + g % 4] >> g / 4 * 2 & 3) << 4) - 32;
}

// Q3_K: bit j of high[i % 32], when clear, takes 4 from weight i of group j of 32; pairs; scales; f16 d.
// x = d scale q
DECODE_FN int decode_int_q3_k(const uint8_t *b, int i)
{
    return decode_pair(b + 32, i) - (b[i % 32] >> i / 32 & 1 ? 0 : 4);
}
DECODE_FN float decode_weight_q3_k(const uint8_t *b, int i)
{
    return decode_f16(b + 108) * (float)decode_scale_q3_k(b + 96, i / 16) *
           (float)decode_int_q3_k(b, i);
}

// The sixteen values of IQ4_NL and IQ4_XS, -127 to 113, as bytes of two numbers.
DECODE_FN int decode_iq4_value(int q)
{
    const uint64_t values = q < 8 ? 0xf6eaddcfbfad9881u : 0x7159453526190d01u;
    return (int8_t)(values >> q % 8 * 8 & 255);
}

// IQ4_XS: f16 d; 16 bits of upper pairs, 4 bytes of low nibbles of the scales; 8 x 16 bytes of nibbles.
DECODE_FN int decode_scale_iq4_xs(const uint8_t *b, int g)
{
    const int low = b[4 + g / 2] >> g % 2 * 4 & 15, high = decode_u16(b + 2) >> 2 * g & 3;
    return (low | high << 4) - 32;
}
DECODE_FN int decode_int_iq4_xs(const uint8_t *b, int i)
{
    return decode_iq4_value(decode_nibble(b + 8 + i / 32 * 16, i % 32));
}
DECODE_FN float decode_weight_iq4_xs(const uint8_t *b, int i)
{
    return decode_f16(b) * (float)decode_scale_iq4_xs(b, i / 32) * (float)decode_int_iq4_xs(b, i);
}

// MXFP4: an E8M0 exponent; nibbles. An E2M1 float is half of 0 1 2 3 4 6 8 12, bit 3 its sign.
DECODE_FN int decode_int_mxfp4(const uint8_t *b, int i)
{
    const int q = decode_nibble(b + 1, i);
    const int size = (int)(0x0c08060403020100u >> q % 8 * 8 & 255);
    return q & 8 ? -size : size;
}
// 2^(exponent - 128): what these integers are multiplied with. The two least ones are subnormal.
DECODE_FN float decode_e8m0_half(uint8_t e)
{
    return decode_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

// Weight i of the block at b, for the formats above; 0 for the others.
DECODE_FN float decode_weight(enum fmt f, const uint8_t *b, int i)
{
    switch (f) {
    case FMT_Q4_1: return decode_weight_q4_1(b, i);
    case FMT_Q5_0: return decode_f16(b) * (float)decode_int_q5_0(b, i);
    case FMT_Q5_1: return decode_weight_q5_1(b, i);
    case FMT_Q2_K: return decode_weight_q2_k(b, i);
    case FMT_Q3_K: return decode_weight_q3_k(b, i);
    case FMT_IQ4_NL: return decode_f16(b) * (float)decode_iq4_value(decode_nibble(b + 2, i));
    case FMT_IQ4_XS: return decode_weight_iq4_xs(b, i);
    case FMT_MXFP4: return decode_e8m0_half(b[0]) * (float)decode_int_mxfp4(b, i);
    default: return 0;
    }
}

// Weights and bytes of a block, where there is no table (device code).
DECODE_FN uint32_t decode_cols(enum fmt f)
{
    switch (f) {
#define FMT(id, name, gguf, block, bytes) \
    case FMT_##id:                        \
        return block;
#include "kernels/common/formats.def"
#undef FMT
    default: return 1;
    }
}
DECODE_FN uint32_t decode_bytes(enum fmt f)
{
    switch (f) {
#define FMT(id, name, gguf, block, bytes) \
    case FMT_##id:                        \
        return bytes;
#include "kernels/common/formats.def"
#undef FMT
    default: return 1;
    }
}

// ---- all formats ---------------------------------------------------------------------------------

// One block of format f: fmt_info[f].block floats.
DECODE_FN void decode_block(enum fmt f, const uint8_t *b, float *out)
{
    switch (f) {
    case FMT_F32: out[0] = decode_f32(b); break;
    case FMT_F16: out[0] = decode_f16(b); break;
    case FMT_BF16: out[0] = decode_bf16(b); break;
    case FMT_Q8_0: decode_block_q8_0(b, out); break;
    case FMT_Q4_0: decode_block_q4_0(b, out); break;
    case FMT_Q4_K: decode_block_q4_k(b, out); break;
    case FMT_Q5_K: decode_block_q5_k(b, out); break;
    case FMT_Q6_K: decode_block_q6_k(b, out); break;
    default:
        for (uint32_t i = 0; i < decode_cols(f); i++) out[i] = decode_weight(f, b, (int)i);
        break;
    }
}

#if !defined(__CUDACC__) && !defined(__HIP__)
// n_cols weights (a multiple of the format's block) of one row.
static inline void decode_row(enum fmt f, const void *row, float *out, size_t n_cols)
{
    const uint8_t *b = (const uint8_t *)row;
    const uint32_t block = fmt_info[f].block, block_bytes = fmt_info[f].block_bytes;
    for (size_t i = 0; i < n_cols; i += block, b += block_bytes) decode_block(f, b, out + i);
}
#endif
