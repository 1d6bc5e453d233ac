// The innermost loops of many rows with AVX2: 32 columns (16 where a scale is that short) of 16 weight rows
// (two registers) and of four rows of activations as tiles.h lays them out. Sums are exact.
//
// What bounds them is the number of instructions: four vector operations a cycle at best, and three of all kinds
// where another thread shares the core (Zen 3). In assembly, because gcc 12 copies and spills the sums (58
// instructions for 40 in the Q8_0 loop).
#pragma once

#include "compute/cpu/lanes.h"
#include "compute/cpu/tiles.h"

enum { MANY_ROWS = 4, MANY_VECTORS = 2 };

typedef __m256i many_sums[MANY_ROWS][MANY_VECTORS];

// What the assembly reads, for the compiler's knowledge.
struct many_weights {
    int8_t b[PACK_QUADS / 2 * PANEL_ROWS * 4];
};
struct many_acts {
    int8_t b[MANY_ROWS * PACK_COLS];
};
struct many_ones {
    _Alignas(32) int16_t i[16];
};

// clang-format off
#define MANY_W(q, v)    "64*" #q "+32*" #v "(%[w])"
#define MANY_A(q, r)    "4*" #q "+32*" #r "(%[a])"
#define MANY_TAKE(q, r) "vpbroadcastd " MANY_A(q, r) ", %[x]\n\t"

// Signed weights: |w| times the activation with w's sign, whose sums of two are within 16 bits.
#define SIGNED_FIRST(s, p) "vpmaddwd %[ones], " p ", " s "\n\t"
#define SIGNED_NEXT(s, p)                              \
    "vpmaddwd %[ones], " p ", " p "\n\t"               \
    "vpaddd " p ", " s ", " s "\n\t"
#define SIGNED_ROW(q, r, s0, s1, add)                  \
    MANY_TAKE(q, r)                                    \
    "vpsignb " MANY_W(q, 0) ", %[x], %[t]\n\t"         \
    "vpsignb " MANY_W(q, 1) ", %[x], %[x]\n\t"         \
    "vpmaddubsw %[t], %[w0], %[t]\n\t"                 \
    "vpmaddubsw %[x], %[w1], %[x]\n\t"                 \
    add(s0, "%[t]")                                    \
    add(s1, "%[x]")
#define SIGNED_QUAD(q, add)                            \
    "vpabsb " MANY_W(q, 0) ", %[w0]\n\t"               \
    "vpabsb " MANY_W(q, 1) ", %[w1]\n\t"               \
    SIGNED_ROW(q, 0, "%[s0]", "%[s1]", add)            \
    SIGNED_ROW(q, 1, "%[s2]", "%[s3]", add)            \
    SIGNED_ROW(q, 2, "%[s4]", "%[s5]", add)            \
    SIGNED_ROW(q, 3, "%[s6]", "%[s7]", add)

// Unsigned weights below 16: sums of 16 bits hold all 32 columns.
#define NARROW_FIRST(s, w) "vpmaddubsw %[x], " w ", " s "\n\t"
#define NARROW_NEXT(s, w)                              \
    "vpmaddubsw %[x], " w ", %[t]\n\t"                 \
    "vpaddw %[t], " s ", " s "\n\t"
#define NARROW_QUAD(q, add)                            \
    "vmovdqa " MANY_W(q, 0) ", %[w0]\n\t"              \
    "vmovdqa " MANY_W(q, 1) ", %[w1]\n\t"              \
    MANY_TAKE(q, 0) add("%[s0]", "%[w0]") add("%[s1]", "%[w1]") \
    MANY_TAKE(q, 1) add("%[s2]", "%[w0]") add("%[s3]", "%[w1]") \
    MANY_TAKE(q, 2) add("%[s4]", "%[w0]") add("%[s5]", "%[w1]") \
    MANY_TAKE(q, 3) add("%[s6]", "%[w0]") add("%[s7]", "%[w1]")

// Unsigned weights below 64: sums of 16 bits hold two quads.
#define PAIR_ROW(q, q1, r, s0, s1)                     \
    MANY_TAKE(q, r)                                    \
    "vpmaddubsw %[x], %[w0], %[t]\n\t"                 \
    "vpmaddubsw %[x], %[w1], %[u]\n\t"                 \
    MANY_TAKE(q1, r)                                   \
    "vpmaddubsw %[x], %[w2], %[y]\n\t"                 \
    "vpmaddubsw %[x], %[w3], %[x]\n\t"                 \
    "vpaddw %[y], %[t], %[t]\n\t"                      \
    "vpaddw %[x], %[u], %[u]\n\t"                      \
    "vpmaddwd %[ones], %[t], %[t]\n\t"                 \
    "vpmaddwd %[ones], %[u], %[u]\n\t"                 \
    "vpaddd %[t], " s0 ", " s0 "\n\t"                  \
    "vpaddd %[u], " s1 ", " s1 "\n\t"
#define PAIR_QUADS(q, q1)                              \
    "vmovdqa " MANY_W(q, 0) ", %[w0]\n\t"              \
    "vmovdqa " MANY_W(q, 1) ", %[w1]\n\t"              \
    "vmovdqa " MANY_W(q1, 0) ", %[w2]\n\t"             \
    "vmovdqa " MANY_W(q1, 1) ", %[w3]\n\t"             \
    PAIR_ROW(q, q1, 0, "%[s0]", "%[s1]")               \
    PAIR_ROW(q, q1, 1, "%[s2]", "%[s3]")               \
    PAIR_ROW(q, q1, 2, "%[s4]", "%[s5]")               \
    PAIR_ROW(q, q1, 3, "%[s6]", "%[s7]")

#define MANY_QUADS(quad, first, next)                  \
    quad(0, first) quad(1, next) quad(2, next) quad(3, next) \
    quad(4, next) quad(5, next) quad(6, next) quad(7, next)
#define MANY_SUMS(c)                                                                        \
    [s0] c(s[0][0]), [s1] c(s[0][1]), [s2] c(s[1][0]), [s3] c(s[1][1]),                     \
    [s4] c(s[2][0]), [s5] c(s[2][1]), [s6] c(s[3][0]), [s7] c(s[3][1])
#define MANY_READS                                                                          \
    [w] "r"(w), [a] "r"(a), "m"(*(const struct many_weights *)w),                           \
    "m"(*(const struct many_weights *)(w + sizeof(struct many_weights))),                   \
    "m"(*(const struct many_acts *)a)

static inline __attribute__((always_inline)) void many_signed(const int8_t *w, const int8_t *a,
                                                              many_sums s)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i w0, w1, x, t;
    __asm__(MANY_QUADS(SIGNED_QUAD, SIGNED_FIRST, SIGNED_NEXT)
            : MANY_SUMS("=&x"), [w0] "=&x"(w0), [w1] "=&x"(w1), [x] "=&x"(x), [t] "=&x"(t)
            : MANY_READS, [ones] "x"(ones));
}

static inline __attribute__((always_inline)) void many_narrow(const int8_t *w, const int8_t *a,
                                                              many_sums s)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i w0, w1, x, t;
    __asm__(MANY_QUADS(NARROW_QUAD, NARROW_FIRST, NARROW_NEXT)
            : MANY_SUMS("=&x"), [w0] "=&x"(w0), [w1] "=&x"(w1), [x] "=&x"(x), [t] "=&x"(t)
            : MANY_READS);
    for (int r = 0; r < MANY_ROWS; r++)
        for (int v = 0; v < MANY_VECTORS; v++) s[r][v] = _mm256_madd_epi16(s[r][v], ones);
}

// Four quads, added to s.
static inline __attribute__((always_inline)) void many_pairs(const int8_t *w, const int8_t *a,
                                                             many_sums s)
{
    static const struct many_ones ones = {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
    __m256i w0, w1, w2, w3, x, y, t, u;
    __asm__(PAIR_QUADS(0, 1) PAIR_QUADS(2, 3)
            : MANY_SUMS("+&x"), [w0] "=&x"(w0), [w1] "=&x"(w1), [w2] "=&x"(w2), [w3] "=&x"(w3),
              [x] "=&x"(x), [y] "=&x"(y), [t] "=&x"(t), [u] "=&x"(u)
            : [w] "r"(w), [a] "r"(a), [ones] "m"(ones), "m"(*(const struct many_weights *)w),
              "m"(*(const struct many_acts *)a));
}
// clang-format on
