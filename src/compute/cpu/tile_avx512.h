// The innermost loop of attention: 12 inputs meet 32 outputs (two registers) in 24 sums.
//   sum[i][0..31] = sum over p of w[p][0..31] . x[i][p]     each element a pair of int16, vpdpwssd
// In assembly, because gcc 12 spills some of the sums otherwise (measured: attention at 49 GMAC/s a core
// of 115). Sums are exact, so it does not matter that fewer inputs take another way. Where w lies in two
// places, `next` (or NULL) is the second and has as many pairs as the first; inputs go on without a gap.
//
// `ahead` (or NULL): AHEAD_LINES / n_ahead lines of memory a pair are asked for from there on, n_ahead being 1
// or 2. Asked for all at once they fill the core's queue, and the products behind them wait.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TILE_INPUTS = 12, AHEAD_LINES = 2, LINE_BYTES = 64 };

#if !defined(AVX512_IN_C)

// clang-format off
#define TILE_ONE(x, off, a, b)                     \
    "vpbroadcastd " off x ", %%zmm26\n\t"          \
    "vpdpwssd %%zmm26, %%zmm24, %%zmm" a "\n\t"    \
    "vpdpwssd %%zmm26, %%zmm25, %%zmm" b "\n\t"
#define TILE_THREE(x, off, a, b, c, d, e, f)       \
    TILE_ONE("(%[" x "])", off, a, b)              \
    TILE_ONE("(%[" x "],%[xs])", off, c, d)        \
    TILE_ONE("(%[" x "],%[xs],2)", off, e, f)
#define TILE_PAIR(off)                                            \
    "vmovdqu64 (%[w]), %%zmm24\n\t"                               \
    "vmovdqu64 64(%[w]), %%zmm25\n\t"                             \
    "add %[ws], %[w]\n\t"                                         \
    TILE_THREE("x0", off, "0", "1", "2", "3", "4", "5")           \
    TILE_THREE("x1", off, "6", "7", "8", "9", "10", "11")         \
    TILE_THREE("x2", off, "12", "13", "14", "15", "16", "17")     \
    TILE_THREE("x3", off, "18", "19", "20", "21", "22", "23")
#define TILE_EACH(do)                                                            \
    do("0", "0") do("1", "64") do("2", "128") do("3", "192") do("4", "256")      \
    do("5", "320") do("6", "384") do("7", "448") do("8", "512") do("9", "576")   \
    do("10", "640") do("11", "704") do("12", "768") do("13", "832")              \
    do("14", "896") do("15", "960") do("16", "1024") do("17", "1088")            \
    do("18", "1152") do("19", "1216") do("20", "1280") do("21", "1344")          \
    do("22", "1408") do("23", "1472")
#define TILE_ZERO(z, off)  "vpxord %%zmm" z ", %%zmm" z ", %%zmm" z "\n\t"
#define TILE_STORE(z, off) "vmovdqu64 %%zmm" z ", " off "(%[sum])\n\t"
#define TILE_TWO   TILE_PAIR("0") TILE_PAIR("4")
#define TILE_TWO_2 "prefetcht1 (%[ahead])\n\t" TILE_PAIR("0")                    \
                   "prefetcht1 64(%[ahead])\n\t" TILE_PAIR("4")                  \
                   "sub $-128, %[ahead]\n\t"
#define TILE_TWO_4 "prefetcht1 (%[ahead])\n\tprefetcht1 64(%[ahead])\n\t" TILE_PAIR("0")       \
                   "prefetcht1 128(%[ahead])\n\tprefetcht1 192(%[ahead])\n\t" TILE_PAIR("4")   \
                   "add $256, %[ahead]\n\t"

#define TILE_ASM(pairs)                                                                           \
    __asm__ volatile(                                                                             \
        TILE_EACH(TILE_ZERO)                                                                      \
        ".p2align 5\n"                                                                            \
        "1:\n\t"                                                                                  \
        pairs                                                                                     \
        "add $8, %[x0]\n\t"                                                                       \
        "add $8, %[x1]\n\t"                                                                       \
        "add $8, %[x2]\n\t"                                                                       \
        "add $8, %[x3]\n\t"                                                                       \
        "dec %[n]\n\t"                                                                            \
        "jnz 1b\n\t"                                                                              \
        "mov %[next], %[w]\n\t"                                                                   \
        "xor %k[next], %k[next]\n\t"                                                              \
        "mov %[again], %[n]\n\t"                                                                  \
        "test %[w], %[w]\n\t"                                                                     \
        "jnz 1b\n\t"                                                                              \
        TILE_EACH(TILE_STORE)                                                                     \
        : [w] "+&r"(w), [next] "+&r"(next), [x0] "+&r"(x0), [x1] "+&r"(x1), [x2] "+&r"(x2),       \
          [x3] "+&r"(x3), [n] "+&r"(n), [ahead] "+&r"(ahead)                                      \
        : [ws] "r"(w_stride), [xs] "r"(x_stride), [sum] "r"(sum), [again] "m"(again)              \
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
          "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17",         \
          "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26")

// 12 inputs. Strides in bytes; n_pairs is even and not 0.
static inline void tile_multiply(const void *w, const void *next, size_t w_stride, const void *x,
                                 size_t x_stride, uint32_t n_pairs, const void *ahead,
                                 uint32_t n_ahead, __m512i sum[TILE_INPUTS][2])
{
    const char *x0 = x, *x1 = x0 + 3 * x_stride, *x2 = x1 + 3 * x_stride, *x3 = x2 + 3 * x_stride;
    uint32_t n = n_pairs / 2;
    const uint32_t again = n;
    if (!ahead)
        TILE_ASM(TILE_TWO);
    else if (n_ahead > 1)
        TILE_ASM(TILE_TWO_2);
    else
        TILE_ASM(TILE_TWO_4);
}
// clang-format on

#else // the same in C, for a test

static inline void tile_multiply(const void *w, const void *next, size_t w_stride, const void *x,
                                 size_t x_stride, uint32_t n_pairs, const void *ahead,
                                 uint32_t n_ahead, __m512i sum[TILE_INPUTS][2])
{
    (void)ahead, (void)n_ahead;
    for (int i = 0; i < TILE_INPUTS; i++) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    for (const char *at = x; w; w = next, next = NULL)
        for (uint32_t p = 0; p < n_pairs; p++, at += sizeof(int32_t))
            for (int i = 0; i < TILE_INPUTS * 2; i++) {
                int32_t pair;
                memcpy(&pair, at + (size_t)(i / 2) * x_stride, sizeof pair);
                const __m512i both =
                    _mm512_loadu_si512((const char *)w + p * w_stride + i % 2 * 64);
                sum[i / 2][i % 2] =
                    _mm512_dpwssd_epi32(sum[i / 2][i % 2], both, _mm512_set1_epi32(pair));
            }
}

#endif
