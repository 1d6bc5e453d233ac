// The innermost loops of many rows with AVX2: 32 columns (16 where a scale is that short) of some weight rows and
// some rows of activations, eight sums in registers, eight rows of activations in each. Sums are exact.
//
// What bounds them is the number of instructions: four vector operations a cycle at best, and three of all kinds
// where another thread shares the core (Zen 3). So activations are memory operands of the products, and a
// weight, four columns of a row, is spread once for all of them. In assembly, because gcc 12 copies and spills
// the sums.
#pragma once

#include <assert.h>
#include <stddef.h>

#include "compute/cpu/lanes.h"
#include "compute/cpu/tiles.h"

enum { MANY_SUMS = 8, MANY_LANES = 8 };

static_assert(offsetof(struct act_tile, half) == 576 && offsetof(struct act_tile, bias) == 704,
              "where the assembly reads them");

// Weight rows by registers of activations. Only in the first do these come from two tiles.
enum many_shape { MANY_2X4, MANY_4X2, MANY_8X1 };

typedef __m256i many_sums[MANY_SUMS];

// What the assembly reads, for the compiler's knowledge.
struct many_weights {
    int8_t b[PACK_QUADS * PANEL_ROWS * 4];
};
struct many_half {
    int8_t b[PACK_QUADS / 2 * PANEL_ROWS * 4];
};
struct many_acts {
    int8_t
        b[PACK_QUADS * TILE_ROWS * 4 + 4 * TILE_ROWS * sizeof(float)]; // quads, scales, corrections
};
struct many_rest {
    int8_t b[PACK_QUADS / 2 * TILE_ROWS * 4 + 4 * TILE_ROWS * sizeof(float)];
};
struct many_ones {
    _Alignas(32) int16_t i[16];
};

// clang-format off
// Weight row r of quad q; activations of quad q, register v of a tile.
#define MANY_W(q, r)       "64*" #q "+4*" #r "(%[w])"
#define MANY_A(q, tile, v) "64*" #q "+32*" #v "(%[" #tile "])"

// The eight sums of quad q, or quads q and q1: take spreads a weight, times is for one sum.
#define SHAPE_2X4(q, q1, take, times)                                                          \
    take(q, q1, 0) times(q, q1, a, 0, 0) times(q, q1, a, 1, 1) times(q, q1, b, 0, 2) times(q, q1, b, 1, 3) \
    take(q, q1, 1) times(q, q1, a, 0, 4) times(q, q1, a, 1, 5) times(q, q1, b, 0, 6) times(q, q1, b, 1, 7)
#define SHAPE_4X2(q, q1, take, times)                                                          \
    take(q, q1, 0) times(q, q1, a, 0, 0) times(q, q1, a, 1, 1)                                 \
    take(q, q1, 1) times(q, q1, a, 0, 2) times(q, q1, a, 1, 3)                                 \
    take(q, q1, 2) times(q, q1, a, 0, 4) times(q, q1, a, 1, 5)                                 \
    take(q, q1, 3) times(q, q1, a, 0, 6) times(q, q1, a, 1, 7)
#define SHAPE_8X1(q, q1, take, times)                                                          \
    take(q, q1, 0) times(q, q1, a, 0, 0) take(q, q1, 1) times(q, q1, a, 0, 1)                  \
    take(q, q1, 2) times(q, q1, a, 0, 2) take(q, q1, 3) times(q, q1, a, 0, 3)                  \
    take(q, q1, 4) times(q, q1, a, 0, 4) take(q, q1, 5) times(q, q1, a, 0, 5)                  \
    take(q, q1, 6) times(q, q1, a, 0, 6) take(q, q1, 7) times(q, q1, a, 0, 7)

#define TAKE_ONE(q, q1, r) "vpbroadcastd " MANY_W(q, r) ", %[x]\n\t"
#define TAKE_TWO(q, q1, r) TAKE_ONE(q, q1, r) "vpbroadcastd " MANY_W(q1, r) ", %[y]\n\t"

// What sums start with, the corrections for unsigned weights (tiles.h), of the rows of register v: behind the
// quads that a tile begins with; MANY_SECOND where it is the second half of these.
#define MANY_BIAS(tile, v)   "704+32*" #v "(%[" #tile "])"
#define MANY_HALF(tile, v)   "576+32*" #v "(%[" #tile "])"
#define MANY_SECOND(tile, v) "640-256+32*" #v "(%[" #tile "])"

// Weights of 8 bits: the activations see to it that sums of two are within 16 bits.
#define TIMES_START(q, q1, tile, v, s)                         \
    "vpmaddubsw " MANY_A(q, tile, v) ", %[x], %[t]\n\t"        \
    "vpmaddwd %[ones], %[t], %[t]\n\t"                         \
    "vpaddd " MANY_BIAS(tile, v) ", %[t], %[s" #s "]\n\t"
#define TIMES_WIDE(q, q1, tile, v, s)                          \
    "vpmaddubsw " MANY_A(q, tile, v) ", %[x], %[t]\n\t"        \
    "vpmaddwd %[ones], %[t], %[t]\n\t"                         \
    "vpaddd %[t], %[s" #s "], %[s" #s "]\n\t"
// Below 16: sums of 16 bits hold all 32 columns.
#define TIMES_FIRST(q, q1, tile, v, s)                         \
    "vpmaddubsw " MANY_A(q, tile, v) ", %[x], %[s" #s "]\n\t"
#define TIMES_NARROW(q, q1, tile, v, s)                        \
    "vpmaddubsw " MANY_A(q, tile, v) ", %[x], %[t]\n\t"        \
    "vpaddw %[t], %[s" #s "], %[s" #s "]\n\t"
// Below 64: sums of 16 bits hold two quads.
#define TIMES_BOTH(q, q1, tile, v)                             \
    "vpmaddubsw " MANY_A(q, tile, v) ", %[x], %[t]\n\t"        \
    "vpmaddubsw " MANY_A(q1, tile, v) ", %[y], %[u]\n\t"       \
    "vpaddw %[u], %[t], %[t]\n\t"
#define TIMES_PAIR(q, q1, tile, v, s)                          \
    TIMES_BOTH(q, q1, tile, v)                                 \
    "vpmaddwd %[ones], %[t], %[t]\n\t"                         \
    "vpaddd %[t], %[s" #s "], %[s" #s "]\n\t"
#define TIMES_PAIR0(q, q1, tile, v, s)                         \
    TIMES_BOTH(q, q1, tile, v)                                 \
    "vpmaddwd %[ones], %[t], %[s" #s "]\n\t"
#define TIMES_HALF(q, q1, tile, v, s)                          \
    TIMES_BOTH(q, q1, tile, v)                                 \
    "vpmaddwd %[ones], %[t], %[t]\n\t"                         \
    "vpaddd " MANY_HALF(tile, v) ", %[t], %[s" #s "]\n\t"
#define TIMES_SECOND(q, q1, tile, v, s)                        \
    TIMES_BOTH(q, q1, tile, v)                                 \
    "vpmaddwd %[ones], %[t], %[t]\n\t"                         \
    "vpaddd " MANY_SECOND(tile, v) ", %[t], %[s" #s "]\n\t"

#define WIDE_QUADS(shape)                                                                      \
    shape(0, 0, TAKE_ONE, TIMES_START) shape(1, 1, TAKE_ONE, TIMES_WIDE)                        \
    shape(2, 2, TAKE_ONE, TIMES_WIDE) shape(3, 3, TAKE_ONE, TIMES_WIDE)                        \
    shape(4, 4, TAKE_ONE, TIMES_WIDE) shape(5, 5, TAKE_ONE, TIMES_WIDE)                        \
    shape(6, 6, TAKE_ONE, TIMES_WIDE) shape(7, 7, TAKE_ONE, TIMES_WIDE)
#define NARROW_QUADS(shape)                                                                    \
    shape(0, 0, TAKE_ONE, TIMES_FIRST) shape(1, 1, TAKE_ONE, TIMES_NARROW)                     \
    shape(2, 2, TAKE_ONE, TIMES_NARROW) shape(3, 3, TAKE_ONE, TIMES_NARROW)                    \
    shape(4, 4, TAKE_ONE, TIMES_NARROW) shape(5, 5, TAKE_ONE, TIMES_NARROW)                    \
    shape(6, 6, TAKE_ONE, TIMES_NARROW) shape(7, 7, TAKE_ONE, TIMES_NARROW)
#define PAIR_QUADS(shape, first) shape(0, 1, TAKE_TWO, first) shape(2, 3, TAKE_TWO, TIMES_PAIR)

#define MANY_SUMS_ARE(c)                                                                       \
    [s0] c(s[0]), [s1] c(s[1]), [s2] c(s[2]), [s3] c(s[3]),                                    \
    [s4] c(s[4]), [s5] c(s[5]), [s6] c(s[6]), [s7] c(s[7])
#define MANY_READS                                                                             \
    [w] "r"(w), [a] "r"(a), [b] "r"(b), "m"(*(const struct many_weights *)w),                   \
    "m"(*(const struct many_acts *)a), "m"(*(const struct many_acts *)b)

#define WIDE_ASM(shape)                                                                        \
    __asm__(WIDE_QUADS(shape)                                                                  \
            : MANY_SUMS_ARE("=&x"), [x] "=&x"(x), [t] "=&x"(t) : MANY_READS, [ones] "x"(ones))
#define NARROW_ASM(shape)                                                                      \
    __asm__(NARROW_QUADS(shape)                                                                \
            : MANY_SUMS_ARE("=&x"), [x] "=&x"(x), [t] "=&x"(t) : MANY_READS)
#define PAIR_ASM(shape, first, sums, acts)                                                     \
    __asm__(PAIR_QUADS(shape, first)                                                           \
            : MANY_SUMS_ARE(sums), [x] "=&x"(x), [y] "=&x"(y), [t] "=&x"(t), [u] "=&x"(u)      \
            : [w] "r"(w), [a] "r"(a), [b] "r"(b), [ones] "m"(ones),                            \
              "m"(*(const struct many_half *)w), "m"(*(const struct acts *)a),                 \
              "m"(*(const struct acts *)b))
#define PAIR_NONE(shape)   PAIR_ASM(shape, TIMES_PAIR0, "=&x", many_half)
#define PAIR_ON(shape)     PAIR_ASM(shape, TIMES_PAIR, "+&x", many_half)
#define PAIR_HALF(shape)   PAIR_ASM(shape, TIMES_HALF, "=&x", many_acts)
#define PAIR_SECOND(shape) PAIR_ASM(shape, TIMES_SECOND, "=&x", many_rest)
#define MANY_SHAPES(run)                                                                       \
    if (shape == MANY_2X4) run(SHAPE_2X4);                                                     \
    else if (shape == MANY_4X2) run(SHAPE_4X2);                                                \
    else run(SHAPE_8X1)
// clang-format on

#define MANY_INLINE static inline __attribute__((always_inline))

// s: all quads of weights of 8 bits, from w on, times activations by quads, from a and b on (which begin
// tiles), with the corrections beside these.
MANY_INLINE void many_wide(enum many_shape shape, const uint8_t *w, const int8_t *a,
                           const int8_t *b, many_sums s)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i x, t;
    MANY_SHAPES(WIDE_ASM);
}

// s: the same of weights below 16, without corrections.
MANY_INLINE void many_narrow(enum many_shape shape, const uint8_t *w, const int8_t *a,
                             const int8_t *b, many_sums s)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i x, t;
    MANY_SHAPES(NARROW_ASM);
#pragma GCC unroll 8
    for (int i = 0; i < MANY_SUMS; i++) s[i] = _mm256_madd_epi16(s[i], ones);
}

enum many_start { START_NONE, START_ON, START_HALF, START_SECOND };

// Four quads of weights below 64, from w on, times those from a and b on, in s: alone, added to what it was, or with
// the corrections of the half that they are.
MANY_INLINE void many_pairs(enum many_shape shape, enum many_start start, const uint8_t *w,
                            const int8_t *a, const int8_t *b, many_sums s)
{
    static const struct many_ones ones = {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
    __m256i x, y, t, u;
    if (start == START_NONE) {
        MANY_SHAPES(PAIR_NONE);
    } else if (start == START_ON) {
        MANY_SHAPES(PAIR_ON);
    } else if (start == START_HALF) {
        MANY_SHAPES(PAIR_HALF);
    } else {
        MANY_SHAPES(PAIR_SECOND);
    }
}
