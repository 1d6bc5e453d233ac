// The formats that no table of kernels has its own code for: blocks to struct row_block in plain C,
// shared by all tables. Integers are exact, as for the others; only the minimums of Q4_1 and Q5_1, which
// are floats of their own in each 32 weights, are rounded to 13 bits of the block's largest.
#pragma once

#include <math.h>

#include "compute/cpu/kernels.h"
#include "kernels/common/decode.h"

// Neither floats nor packed (repack.h).
static inline bool is_rare(enum fmt f)
{
    switch (f) {
    case FMT_F32:
    case FMT_F16:
    case FMT_BF16:
    case FMT_Q8_0:
    case FMT_Q4_0:
    case FMT_Q4_K:
    case FMT_Q5_K:
    case FMT_Q6_K: return false;
    default: return true;
    }
}

enum { MIN_MAX = 4095 }; // 16 sums of at most 16 * ACT_MAX, times this, stay below 2^31

// Sub-blocks of 32 with a float minimum each (min: where in the sub-block's bytes).
static inline void unpack_mins(enum fmt f, const uint8_t *p, uint32_t cols, struct row_block *out)
{
    float min[MAX_SUBS] = {0}, most = 0;
    for (uint32_t g = 0; g < cols / 32; g++) {
        min[g] = decode_f16(p + g * decode_bytes(f) + 2);
        most = fabsf(min[g]) > most ? fabsf(min[g]) : most;
    }
    const float inverse = most > 0 ? MIN_MAX / most : 0.0f;
    for (int g = 0; g < MAX_SUBS; g++)
        out->min[2 * g] = out->min[2 * g + 1] = (int16_t)lrintf(-min[g] * inverse);
    out->dmin = most / MIN_MAX;
}

static inline int unpack_int_32(enum fmt f, const uint8_t *p, int i)
{
    switch (f) {
    case FMT_Q4_1: return decode_nibble(p + 4, i);
    case FMT_Q5_0: return decode_int_q5_0(p, i);
    case FMT_Q5_1: return decode_int_q5_1(p, i);
    case FMT_IQ4_NL: return decode_iq4_value(decode_nibble(p + 2, i));
    default: return decode_int_mxfp4(p, i);
    }
}

static inline void unpack_rare_32(enum fmt f, const uint8_t *p, uint32_t cols,
                                  struct row_block *out)
{
    if (f == FMT_Q4_1 || f == FMT_Q5_1) unpack_mins(f, p, cols, out);
    for (uint32_t g = 0; g < cols / 32; g++, p += decode_bytes(f)) {
        out->d[g] = f == FMT_MXFP4 ? decode_e8m0_half(p[0]) : decode_f16(p);
        for (int i = 0; i < 32; i++) out->w[g * 32 + (uint32_t)i] = (int16_t)unpack_int_32(f, p, i);
    }
}

static inline void unpack_q2_k(const uint8_t *p, struct row_block *out)
{
    out->d[0] = decode_f16(p + 80);
    out->dmin = decode_f16(p + 82);
    for (int g = 0; g < 16; g++) out->min[g] = p[g] >> 4;
    for (int i = 0; i < BLOCK_K; i++)
        out->w[i] = (int16_t)((p[i / 16] & 15) * decode_pair(p + 16, i));
}

static inline void unpack_q3_k(const uint8_t *p, struct row_block *out)
{
    out->d[0] = decode_f16(p + 108);
    for (int i = 0; i < BLOCK_K; i++)
        out->w[i] = (int16_t)(decode_scale_q3_k(p + 96, i / 16) * decode_int_q3_k(p, i));
}

// 127 * 32 is below 4096, the bound of kernels.h.
static inline void unpack_iq4_xs(const uint8_t *p, struct row_block *out)
{
    out->d[0] = decode_f16(p);
    for (int i = 0; i < BLOCK_K; i++)
        out->w[i] = (int16_t)(decode_scale_iq4_xs(p, i / 32) * decode_int_iq4_xs(p, i));
}

static inline void unpack_rare(enum fmt f, const uint8_t *p, uint32_t cols, struct row_block *out)
{
    switch (f) {
    case FMT_Q2_K: unpack_q2_k(p, out); break;
    case FMT_Q3_K: unpack_q3_k(p, out); break;
    case FMT_IQ4_XS: unpack_iq4_xs(p, out); break;
    default: unpack_rare_32(f, p, cols, out); break;
    }
}
