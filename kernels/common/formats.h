// The enum and the table made from formats.def, and the blocks' layout. Shared by model/ and
// compute/; knows no code of either. Blocks are little-endian, as GGUF files store them, and need no
// alignment beyond 2 bytes. Source: the block structures of ggml's quantisation formats.
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fmt {
#define FMT(id, name, gguf, block, bytes) FMT_##id,
#include "kernels/common/formats.def"
#undef FMT
    FMT_COUNT
};

struct fmt_info {
    const char *name;
    uint32_t gguf_type;   // the number a GGUF file uses
    uint32_t block;       // weights in a block; a row holds whole blocks
    uint32_t block_bytes; // bytes of a block
};

static const struct fmt_info fmt_info[FMT_COUNT] = {
#define FMT(id, name, gguf, block, bytes) {name, gguf, block, bytes},
#include "kernels/common/formats.def"
#undef FMT
};

// ---- blocks: d, dmin are binary16 bits -------------------------------------------------------

struct block_F32 {
    float x;
};
struct block_F16 {
    uint16_t x;
};
struct block_BF16 {
    uint16_t x;
};
struct block_Q8_0 {
    uint16_t d;
    int8_t q[32];
}; // x = d * q
struct block_Q4_0 {
    uint16_t d;
    uint8_t q[16];
}; // low nibbles 0..15, high 16..31: x = d * (q - 8)
// Eight groups of 32: x = d * scale * q - dmin * min. scales: eight 6-bit scales and mins, packed.
// Each 32 bytes of q hold two groups: low nibbles the first, high nibbles the second.
struct block_Q4_K {
    uint16_t d, dmin;
    uint8_t scales[12], q[128];
};
// As Q4_K with a fifth bit: bit g of high[i] belongs to element i of group g.
struct block_Q5_K {
    uint16_t d, dmin;
    uint8_t scales[12], high[32], q[128];
};
// Sixteen groups of 16: x = d * scale * (q - 32); low four bits in q, the upper two in high.
struct block_Q6_K {
    uint8_t q[128], high[64];
    int8_t scales[16];
    uint16_t d;
};

// Nibbles as in Q4_0; min is the weight of q = 0: x = d * q + min.
struct block_Q4_1 {
    uint16_t d, min;
    uint8_t q[16];
};
// Nibbles as in Q4_0; bit i of high is weight i's fifth: x = d * (q - 16).
struct block_Q5_0 {
    uint16_t d;
    uint8_t high[4], q[16];
};
struct block_Q5_1 {
    uint16_t d, min;
    uint8_t high[4], q[16];
}; // x = d * q + min
// Sixteen groups of 16, each with a byte: scale low, minimum high. In each half of 128 weights, group
// of 32 number j is the bit pair j of 32 bytes of q. x = d * scale * q - dmin * min
struct block_Q2_K {
    uint8_t scales[16], q[64];
    uint16_t d, dmin;
};
// Pairs as in Q2_K, sixteen 6-bit scales packed; bit j of high[i], when clear, takes 4 from weight i of
// group j of 32. x = d * (scale - 32) * (q - 4 or 0)
struct block_Q3_K {
    uint8_t high[32], q[64], scales[12];
    uint16_t d;
};
// Nibbles as in Q4_0, each the number of one of sixteen values: x = d * values[q].
struct block_IQ4_NL {
    uint16_t d;
    uint8_t q[16];
};
// Eight groups of 32 with the same values, each 16 bytes laid out as IQ4_NL's. Scale of group g: four
// bits of scales_low[g / 2], two of scales_high; x = d * (scale - 32) * values[q]
struct block_IQ4_XS {
    uint16_t d, scales_high;
    uint8_t scales_low[4], q[128];
};
// OCP Microscaling: a power of two, and nibbles (as in Q4_0) that are E2M1 floats.
struct block_MXFP4 {
    uint8_t exponent, q[16];
}; // x = 2^(exponent - 127) * q

#define FMT(id, name, gguf, block, bytes) \
    static_assert(sizeof(struct block_##id) == (bytes), "block of " name);
#include "kernels/common/formats.def"
#undef FMT

// Bytes of a row of n_cols weights; n_cols is a multiple of the format's block.
static inline size_t fmt_row_bytes(enum fmt f, size_t n_cols)
{
    return n_cols / fmt_info[f].block * fmt_info[f].block_bytes;
}
