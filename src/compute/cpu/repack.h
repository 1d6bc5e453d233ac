// Weights repacked at load for kernels that multiply 8-bit integers: panels of 16 rows, four
// neighbours in k of each row together, so that one register holds what one instruction wants. A
// packed block is 256 columns of 16 rows and as large as the file's own blocks; weights stay
// unsigned, the activations' sums correct for it.
//
// Arithmetic of the packed kernels. 32 activations share a scale, absmax / 127. Their rounding errors
// have a variance of scale^2 / 12; where the row's sum of absmax^2 is above ERROR_BOUND times its mean
// square and its number of blocks, the blocks with the largest absmax get a second term, their rounding
// errors as 8-bit integers, until the rest is below: outliers, few blocks in most rows. (KL divergence
// from exact arithmetic on the shipped model: 0.0012 without, 0.0007 at 8 with 8 % of the blocks,
// below 0.00002 with all of them; normally distributed values stay at 5 and need none.)
// Where a table limits_pairs and weights of Q8_0 are among the op's: the scale is the largest magnitude of
// a block's single values and sums of neighbours (0 and 1, 2 and 3 ..) / 127, PAIR_BOUND stands for ERROR_BOUND and
// LOW_STEPS_PAIRS for LOW_STEPS. So neighbours of one sign add up to 128 at most, and 255 times that is
// within 16 bits. Steps are some 1.3 times as large; normally distributed values stay at 8.
// Per (sub-)block of a weight row, in the order of k, all integer sums being exact:
//   acc = fma((float)sum, d * activation scale, acc)      d: the f32 product of the format's scales
// for formats with minimums then:
//   acc = fma(-(dmin * min), sum of the 32 activations, acc)
// and after the last block the first line again for each second term.
// One activation row or many: the same operations per element, hence equal results bit for bit.
#pragma once

#include "compute/cpu/kernels.h"

enum {
    PACK_COLS = 32, // activations with one scale
    PACK_QUADS = PACK_COLS / 4,
    PACK_SUBS = BLOCK_K / PACK_COLS,
    ERROR_BOUND = 8,
    PAIR_BOUND = 11,
    LOW_STEPS = 254,       // of the second term in one step of the first: halves become 127
    LOW_STEPS_PAIRS = 127, // two halves become 128
};

// 32 columns of ACT_GROUP rows of activations.
struct act_block {
    int8_t q[PACK_QUADS][ACT_GROUP][4];
    float scale[ACT_GROUP];
    float sum[ACT_GROUP];       // of the dequantised values
    int32_t bias[ACT_GROUP];    // -128 times the sum of q
    int32_t half[2][ACT_GROUP]; // -32 times the sum of each half of q
};

// The second term of a block of one row, with what act_block says of the first.
struct act_low {
    int8_t q[PACK_QUADS][4];
    float scale;
    int32_t bias, half[2];
    uint32_t at; // which block
};

// Activations for packed weights. Group g's blocks stand from g * n_blocks on; the second terms of
// row r are the first n_low[r] from r * n_blocks on, in order.
struct act_groups {
    struct act_block *high;
    struct act_low *low;
    uint32_t *n_low; // [rows]
    uint32_t n_blocks;
    bool limit_pairs;
};

typedef uint8_t pack_quad[PANEL_ROWS][4];

struct packed_Q8_0 {
    pack_quad w[PACK_SUBS][PACK_QUADS]; // q + 128
    uint16_t d[PACK_SUBS][PANEL_ROWS];
};

// Sub-block 2 j in the low nibbles of w[j], 2 j + 1 in the high ones; so in all formats below.
struct packed_Q4_0 {
    pack_quad w[PACK_SUBS / 2][PACK_QUADS];
    uint16_t d[PACK_SUBS][PANEL_ROWS];
};

// scales: bytes 4 i .. 4 i + 3 of the file's twelve in scales[i].
struct packed_Q4_K {
    pack_quad w[PACK_SUBS / 2][PACK_QUADS];
    uint8_t scales[3][4][PANEL_ROWS];
    uint16_t d[PANEL_ROWS], dmin[PANEL_ROWS];
};

struct packed_Q5_K {
    struct packed_Q4_K low;
    pack_quad high[PACK_QUADS]; // bit s: the fifth bit of sub-block s
};

struct packed_Q6_K {
    pack_quad w[PACK_SUBS / 2][PACK_QUADS];
    pack_quad high[2][PACK_QUADS]; // bits 2 i, 2 i + 1 of high[h]: sub-block 4 h + i
    int8_t scales[16][PANEL_ROWS];
    uint16_t d[PANEL_ROWS], unused[PANEL_ROWS];
};

// F32, F16 and BF16 weights, whose form of kernels.h (int16, a scale each 256 columns) is made once
// where a table keeps panels: of struct panel_block what they use, its beginning.
struct kept_block {
    _Alignas(64) int16_t w[BLOCK_K / 2][PANEL_ROWS][2];
    float d[PANEL_ROWS];
};

// Bytes of 256 columns of a panel; 0 for formats that are not packed.
size_t pack_block_bytes(enum fmt f);
// Bytes of n_rows rows of n_k columns; 0 as above.
size_t pack_bytes(enum fmt f, uint32_t n_rows, uint32_t n_k);
// n_rows <= PANEL_ROWS rows of n_k columns to a panel; missing rows and columns become zero.
void pack_panel(enum fmt f, const uint8_t *rows, size_t row_bytes, uint32_t n_rows, uint32_t n_k,
                uint8_t *out);
