// The innermost loops of packed weights with AVX2: a sub-block of 32 columns, 16 weight rows (two
// registers) and four activation rows. In assembly, because gcc 12 reorders the additions of the 16-bit
// sums into chains that it then spills (measured on a Zen 3: Q4_0 at 75 against 97 GMAC/s a core, Q4_K at 82 against 90).
#pragma once

#include "compute/cpu/lanes.h"

// What the assembly reads, for the compiler's knowledge.
struct tile_512 {
    uint8_t b[512];
};
struct tile_128 {
    int8_t b[128];
};

// clang-format off
#define NIBBLE_ROW(off, sum0, sum1, add)                    \
    "vpbroadcastd " off "(%[a]), %[x]\n\t"                  \
    add(sum0, "%[w0]")                                      \
    add(sum1, "%[w1]")
#define NIBBLE_FIRST(sum, w) "vpmaddubsw %[x], " w ", " sum "\n\t"
#define NIBBLE_NEXT(sum, w)                                 \
    "vpmaddubsw %[x], " w ", %[t]\n\t"                      \
    "vpaddw %[t], " sum ", " sum "\n\t"
#define NIBBLE_LOW(off, off1)                               \
    "vpand " off "(%[w]), %[mask], %[w0]\n\t"               \
    "vpand " off1 "(%[w]), %[mask], %[w1]\n\t"
#define NIBBLE_HIGH(off, off1)                              \
    "vmovdqu " off "(%[w]), %[w0]\n\t"                      \
    "vmovdqu " off1 "(%[w]), %[w1]\n\t"                     \
    "vpsrlw $4, %[w0], %[w0]\n\t"                           \
    "vpsrlw $4, %[w1], %[w1]\n\t"                           \
    "vpand %[w0], %[mask], %[w0]\n\t"                       \
    "vpand %[w1], %[mask], %[w1]\n\t"
#define NIBBLE_QUAD(open, w, w1, a, b, c, d, add)           \
    open(w, w1)                                             \
    NIBBLE_ROW(a, "%[s0]", "%[s1]", add)                    \
    NIBBLE_ROW(b, "%[s2]", "%[s3]", add)                    \
    NIBBLE_ROW(c, "%[s4]", "%[s5]", add)                    \
    NIBBLE_ROW(d, "%[s6]", "%[s7]", add)
#define NIBBLE_QUADS(open)                                                     \
    NIBBLE_QUAD(open, "0", "32", "0", "4", "8", "12", NIBBLE_FIRST)            \
    NIBBLE_QUAD(open, "64", "96", "16", "20", "24", "28", NIBBLE_NEXT)         \
    NIBBLE_QUAD(open, "128", "160", "32", "36", "40", "44", NIBBLE_NEXT)       \
    NIBBLE_QUAD(open, "192", "224", "48", "52", "56", "60", NIBBLE_NEXT)       \
    NIBBLE_QUAD(open, "256", "288", "64", "68", "72", "76", NIBBLE_NEXT)       \
    NIBBLE_QUAD(open, "320", "352", "80", "84", "88", "92", NIBBLE_NEXT)       \
    NIBBLE_QUAD(open, "384", "416", "96", "100", "104", "108", NIBBLE_NEXT)    \
    NIBBLE_QUAD(open, "448", "480", "112", "116", "120", "124", NIBBLE_NEXT)
#define NIBBLE_ASM(open)                                                                    \
    __asm__(NIBBLE_QUADS(open)                                                              \
            : [s0] "=&x"(s[0][0]), [s1] "=&x"(s[0][1]), [s2] "=&x"(s[1][0]),                \
              [s3] "=&x"(s[1][1]), [s4] "=&x"(s[2][0]), [s5] "=&x"(s[2][1]),                \
              [s6] "=&x"(s[3][0]), [s7] "=&x"(s[3][1]), [w0] "=&x"(w0), [w1] "=&x"(w1),     \
              [x] "=&x"(x), [t] "=&x"(t)                                                    \
            : [w] "r"(w), [a] "r"(a), [mask] "x"(mask), "m"(*(const struct tile_512 *)w),    \
              "m"(*(const struct tile_128 *)(const void *)a))

// s[t][v], 16 bits a sum of two columns: the nibbles (the high ones if `high`) of w, [8 quads][16 rows][4],
// times the activations a, [8 quads][4 rows][4].
static inline __attribute__((always_inline)) void tile_nibbles(const void *w, bool high,
                                                               const int8_t *a, __m256i s[4][2])
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i w0, w1, x, t;
    if (high)
        NIBBLE_ASM(NIBBLE_HIGH);
    else
        NIBBLE_ASM(NIBBLE_LOW);
}
// clang-format on
