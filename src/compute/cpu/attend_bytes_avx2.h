// The innermost loops of attention with AVX2: eight sums of 8-bit products in registers. vpmaddubsw adds two
// products in 16 bits: of a score, since q is limited for it (255 * 128 = 32,640). Of values all sixteen of a page
// that a lane meets are added there before vpmaddwd widens them, since their weights are limited
// (127 * 254 = 32,258). So the sums are exact. What bounds the loops is the number of instructions (many_avx2.h):
// 8.5 and 12 products each. In assembly, because gcc 12 copies and spills the sums.
#pragma once

#include "compute/cpu/kernels.h"
#include "compute/cpu/lanes.h"

enum {
    BYTES_ROWS = 4,  // q vectors
    BYTES_COLS = 16, // keys, or columns of values
    BYTES_SUMS = BYTES_ROWS * BYTES_COLS / 8,
    PAGE_QUADS = PAGE_TOKENS / 4,
};

typedef __m256i bytes_sums[BYTES_SUMS];

// What the assembly reads, for the compiler's knowledge.
struct bytes_weights {
    uint8_t b[3 * KEY_BLOCK + PAGE_TOKENS];
};

// clang-format off
#define BYTES_PRODUCT(k, s)                         \
    "vpmaddubsw %[x], %[" k "], %[t]\n\t"           \
    "vpmaddwd %[ones], %[t], %[t]\n\t"              \
    "vpaddd %[t], %[" s "], %[" s "]\n\t"
#define BYTES_SCORE(q, s0, s1)                      \
    "vpbroadcastd " q ", %[x]\n\t"                  \
    BYTES_PRODUCT("k0", s0) BYTES_PRODUCT("k1", s1)

#define BYTES_SUMS_ARE(c)                                                                      \
    [s0] c(s[0]), [s1] c(s[1]), [s2] c(s[2]), [s3] c(s[3]),                                    \
    [s4] c(s[4]), [s5] c(s[5]), [s6] c(s[6]), [s7] c(s[7])

// s[2 i + h] += four columns of the vectors q, `stride` bytes apart, times the keys at k.
static inline __attribute__((always_inline)) void bytes_score(const uint8_t *k, const int8_t *q,
                                                              size_t stride, bytes_sums s)
{
    const int8_t *q3 = q + 3 * stride;
    const __m256i k0 = load_i(k), k1 = load_i(k + 32), ones = _mm256_set1_epi16(1);
    __m256i x, t;
    __asm__ volatile(BYTES_SCORE("(%[q])", "s0", "s1") BYTES_SCORE("(%[q],%[n])", "s2", "s3")
                     BYTES_SCORE("(%[q],%[n],2)", "s4", "s5") BYTES_SCORE("(%[q3])", "s6", "s7")
                     : BYTES_SUMS_ARE("+&x"), [x] "=&x"(x), [t] "=&x"(t)
                     : [k0] "x"(k0), [k1] "x"(k1), [q] "r"(q), [q3] "r"(q3), [n] "r"(stride),
                       [ones] "x"(ones)
                     : "memory");
}

// Weights of quad p: of vector r KEY_BLOCK bytes further on than of the one before.
#define BYTES_WEIGHT(p, r) "vpbroadcastd 4*" #p "+64*" #r "(%[p]), %[x]\n\t"
#define BYTES_START(v, s)                           \
    "vpmaddubsw " v ", %[x], %[" s "]\n\t"
#define BYTES_ADD(v, s)                             \
    "vpmaddubsw " v ", %[x], %[t]\n\t"              \
    "vpaddw %[t], %[" s "], %[" s "]\n\t"
#define BYTES_QUAD(p, v, times)                                                                \
    BYTES_WEIGHT(p, 0) times(v, "s0") times("32" v, "s1")                                      \
    BYTES_WEIGHT(p, 1) times(v, "s2") times("32" v, "s3")                                      \
    BYTES_WEIGHT(p, 2) times(v, "s4") times("32" v, "s5")                                      \
    BYTES_WEIGHT(p, 3) times(v, "s6") times("32" v, "s7")

// s[2 i + h], sums of 16 bits: a page's weights of the vectors at p times the columns at v, whose next four
// keys lie `stride` bytes further on.
static inline __attribute__((always_inline)) void bytes_values(const int8_t *v, size_t stride,
                                                               const uint8_t *p, bytes_sums s)
{
    const int8_t *v4 = v + 4 * stride;
    const size_t three = 3 * stride;
    __m256i x, t;
    __asm__ volatile(BYTES_QUAD(0, "(%[v])", BYTES_START) BYTES_QUAD(1, "(%[v],%[n])", BYTES_ADD)
            BYTES_QUAD(2, "(%[v],%[n],2)", BYTES_ADD) BYTES_QUAD(3, "(%[v],%[m])", BYTES_ADD)
            BYTES_QUAD(4, "(%[v4])", BYTES_ADD) BYTES_QUAD(5, "(%[v4],%[n])", BYTES_ADD)
            BYTES_QUAD(6, "(%[v4],%[n],2)", BYTES_ADD) BYTES_QUAD(7, "(%[v4],%[m])", BYTES_ADD)
            : BYTES_SUMS_ARE("=&x"), [x] "=&x"(x), [t] "=&x"(t)
            : [v] "r"(v), [v4] "r"(v4), [n] "r"(stride), [m] "r"(three), [p] "r"(p),
              "m"(*(const struct bytes_weights *)p)
            : "memory");
}
// clang-format on
