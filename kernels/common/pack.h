// How a GPU holds weights: cut into units of 16 rows by 256 columns, in the order in which the lanes
// of a matrix instruction want them, so that each lane's part is whole 16-byte loads. Read by the host
// (sizes) and by the kernels that write and read the units.
//
// A unit is four granules of 64 columns. In granule n, lane (g, t) = (lane / 4, lane % 4) owns rows g
// and g + 8 and the 16 columns 64 n + 16 t + 4 j + {0, 1, 2, 3}, step j = 0..3 (the k of one 16 x 16
// tile; activations are taken in the same order, so the sum is over the same products).
//
// Values are held 64 times too large (PACK_SCALE): small weights then stay clear of f16's subnormals.
// Rows are padded to 16, columns to 256, with zeros. Formats without a packing of their own take one that holds
// their values: integers and factors move over as they are (IQ4_XS's and Q2_K's factors rounded to f16).
#pragma once

#include <stdint.h>

#include "kernels/common/formats.h"

enum pack_kind {
    PACK_H16,  // F32, F16, BF16
    PACK_Q8_0, // IQ4_NL, IQ4_XS and MXFP4, too
    PACK_Q4_0,
    PACK_Q5_1, // five bits, factor and addend for each 16 columns: Q4_1, Q5_0, Q5_1, Q2_K
    PACK_Q4_K,
    PACK_Q5_K,
    PACK_Q6_K, // Q3_K, too
    PACK_COUNT
};
enum { PACK_ROWS = 16, PACK_COLS = 256, PACK_SCALE = 64 };

// Bytes of a unit's parts, in this order:
//   q  [4 granules][n 16-byte chunks][32 lanes][16]  low bits (or whole values)
//   h  [4 granules][32 lanes][n bytes]               fifth / fifth and sixth bits
//   s  [16 rows][...]                                scales; see kernels/cuda/unit.h
//   d  [16 rows][n bytes]                            scale of the scales

#if defined(__CUDACC__) || defined(__HIP__)
#define PACK_FN static constexpr __host__ __device__ inline
#else
#define PACK_FN static inline
#endif

PACK_FN uint32_t pack_q_bytes(int kind)
{
    return kind == PACK_H16 ? 8192 : kind == PACK_Q8_0 ? 4096 : 2048;
}
PACK_FN uint32_t pack_h_bytes(int kind)
{
    return kind == PACK_Q5_K || kind == PACK_Q5_1 ? 512 : kind == PACK_Q6_K ? 1024 : 0;
}
PACK_FN uint32_t pack_s_bytes(int kind)
{
    return kind == PACK_H16 ? 0 : kind == PACK_Q5_1 ? 1024 : 256;
}
PACK_FN uint32_t pack_d_bytes(int kind)
{
    return kind == PACK_Q4_K || kind == PACK_Q5_K ? 64 : kind == PACK_Q6_K ? 32 : 0;
}
PACK_FN uint32_t pack_unit_bytes(int kind)
{
    return pack_q_bytes(kind) + pack_h_bytes(kind) + pack_s_bytes(kind) + pack_d_bytes(kind);
}
PACK_FN uint32_t pack_kind_of(int fmt)
{
    switch (fmt) {
    case FMT_Q8_0:
    case FMT_IQ4_NL:
    case FMT_IQ4_XS:
    case FMT_MXFP4: return PACK_Q8_0;
    case FMT_Q4_0: return PACK_Q4_0;
    case FMT_Q4_1:
    case FMT_Q5_0:
    case FMT_Q5_1:
    case FMT_Q2_K: return PACK_Q5_1;
    case FMT_Q4_K: return PACK_Q4_K;
    case FMT_Q5_K: return PACK_Q5_K;
    case FMT_Q6_K:
    case FMT_Q3_K: return PACK_Q6_K;
    default: return PACK_H16;
    }
}
