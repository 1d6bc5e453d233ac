// The innermost loops of attention: 12 inputs meet 32 outputs (two registers) in 24 sums.
//   sum[i][0..31] = start[i] + sum over p of w[p][0..31] . x[i][p]     each element four bytes, vpdpbusd
// That instruction takes one factor unsigned and the other signed: of scores w, the keys, is the unsigned one; of
// weighted values x, the weights. A broadcast of x serves two products, so the ports that multiply are what bounds
// the loop: with the broadcast in the product, as in many_avx512.h, it would be the loads, of which that is twice as
// many. In assembly, because gcc 12 spills some of the sums otherwise (measured with 16-bit integers: attention
// at 49 GMAC/s a core of 115). Sums are exact, so it does not matter that fewer inputs take another way. Where
// w lies in two places, `next` (or NULL) is the second and has as many quads as the first; inputs go on without a
// gap.
//
// `ahead` (or NULL): AHEAD_LINES / n_ahead lines of memory a quad are asked for from there on, n_ahead being 1
// or 2. Asked for all at once they fill the core's queue, and the products behind them wait.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TILE_INPUTS = 12, AHEAD_LINES = 2, LINE_BYTES = 64 };

#if !defined(AVX512_IN_C)

// sum + the unsigned bytes of a times the signed ones of b. In assembly too: gcc 12 copies the sum before and
// after the intrinsic, twice as many instructions.
static inline __attribute__((always_inline)) __m512i tile_add(__m512i sum, __m512i a, __m512i b)
{
    __asm__("vpdpbusd %[b], %[a], %[sum]" : [sum] "+v"(sum) : [a] "v"(a), [b] "v"(b));
    return sum;
}

// clang-format off
#define TILE_SCORE(z) "vpdpbusd %%zmm26, %%zmm24, %%zmm" z "\n\t"
#define TILE_SCORE_2(z) "vpdpbusd %%zmm26, %%zmm25, %%zmm" z "\n\t"
#define TILE_VALUE(z) "vpdpbusd %%zmm24, %%zmm26, %%zmm" z "\n\t"
#define TILE_VALUE_2(z) "vpdpbusd %%zmm25, %%zmm26, %%zmm" z "\n\t"
#define TILE_ONE(times, x, off, a, b)                      \
    "vpbroadcastd " off x ", %%zmm26\n\t"                  \
    times(a) times##_2(b)
#define TILE_THREE(times, x, off, a, b, c, d, e, f)        \
    TILE_ONE(times, "(%[" x "])", off, a, b)               \
    TILE_ONE(times, "(%[" x "],%[xs])", off, c, d)         \
    TILE_ONE(times, "(%[" x "],%[xs],2)", off, e, f)
#define TILE_QUAD(times, off)                                           \
    "vmovdqu64 (%[w]), %%zmm24\n\t"                                     \
    "vmovdqu64 64(%[w]), %%zmm25\n\t"                                   \
    "add %[ws], %[w]\n\t"                                               \
    TILE_THREE(times, "x0", off, "0", "1", "2", "3", "4", "5")          \
    TILE_THREE(times, "x1", off, "6", "7", "8", "9", "10", "11")        \
    TILE_THREE(times, "x2", off, "12", "13", "14", "15", "16", "17")    \
    TILE_THREE(times, "x3", off, "18", "19", "20", "21", "22", "23")
#define TILE_EACH(do)                                                            \
    do("0", "0", "0") do("1", "64", "0") do("2", "128", "4") do("3", "192", "4")      \
    do("4", "256", "8") do("5", "320", "8") do("6", "384", "12") do("7", "448", "12") \
    do("8", "512", "16") do("9", "576", "16") do("10", "640", "20") do("11", "704", "20")      \
    do("12", "768", "24") do("13", "832", "24") do("14", "896", "28") do("15", "960", "28")    \
    do("16", "1024", "32") do("17", "1088", "32") do("18", "1152", "36") do("19", "1216", "36")  \
    do("20", "1280", "40") do("21", "1344", "40") do("22", "1408", "44") do("23", "1472", "44")
#define TILE_ZERO(z, off, i)  "vpxord %%zmm" z ", %%zmm" z ", %%zmm" z "\n\t"
#define TILE_TAKE(z, off, i)  "vpbroadcastd " i "(%[start]), %%zmm" z "\n\t"
#define TILE_STORE(z, off, i) "vmovdqu64 %%zmm" z ", " off "(%[sum])\n\t"
#define TILE_TWO(times)   TILE_QUAD(times, "0") TILE_QUAD(times, "4")
#define TILE_TWO_2(times) "prefetcht1 (%[ahead])\n\t" TILE_QUAD(times, "0")                    \
                          "prefetcht1 64(%[ahead])\n\t" TILE_QUAD(times, "4")                  \
                          "sub $-128, %[ahead]\n\t"
#define TILE_TWO_4(times) "prefetcht1 (%[ahead])\n\tprefetcht1 64(%[ahead])\n\t"               \
                          TILE_QUAD(times, "0")                                                \
                          "prefetcht1 128(%[ahead])\n\tprefetcht1 192(%[ahead])\n\t"           \
                          TILE_QUAD(times, "4")                                                \
                          "add $256, %[ahead]\n\t"

#define TILE_ASM(begin, quads)                                                                    \
    __asm__ volatile(                                                                             \
        TILE_EACH(begin)                                                                          \
        ".p2align 5\n"                                                                            \
        "1:\n\t"                                                                                  \
        quads                                                                                     \
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
        : [ws] "r"(w_stride), [xs] "r"(x_stride), [sum] "r"(sum), [start] "r"(start),             \
          [again] "m"(again)                                                                      \
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
          "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17",         \
          "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26")

#define TILE_MULTIPLY(begin, times)              \
    if (!ahead)                                  \
        TILE_ASM(begin, TILE_TWO(times));        \
    else if (n_ahead > 1)                        \
        TILE_ASM(begin, TILE_TWO_2(times));      \
    else                                         \
        TILE_ASM(begin, TILE_TWO_4(times))

// 12 inputs. Strides in bytes; n_quads is even and not 0. start[12], or NULL: w is signed then, x is not, and
// sums start at 0. The pointer is a constant NULL, or none, after inlining.
static inline __attribute__((always_inline)) void
tile_multiply(const void *w, const void *next, size_t w_stride, const void *x, size_t x_stride,
              uint32_t n_quads, const int32_t *start, const void *ahead, uint32_t n_ahead,
              __m512i sum[TILE_INPUTS][2])
{
    const char *x0 = x, *x1 = x0 + 3 * x_stride, *x2 = x1 + 3 * x_stride, *x3 = x2 + 3 * x_stride;
    uint32_t n = n_quads / 2;
    const uint32_t again = n;
    if (start) {
        TILE_MULTIPLY(TILE_TAKE, TILE_SCORE);
    } else {
        TILE_MULTIPLY(TILE_ZERO, TILE_VALUE);
    }
}
// clang-format on

#else // the same in C, for a test

static inline __m512i tile_add(__m512i sum, __m512i a, __m512i b)
{
    return _mm512_dpbusd_epi32(sum, a, b);
}

static inline void tile_multiply(const void *w, const void *next, size_t w_stride, const void *x,
                                 size_t x_stride, uint32_t n_quads, const int32_t *start,
                                 const void *ahead, uint32_t n_ahead, __m512i sum[TILE_INPUTS][2])
{
    (void)ahead, (void)n_ahead;
    for (int i = 0; i < TILE_INPUTS; i++)
        sum[i][0] = sum[i][1] = _mm512_set1_epi32(start ? start[i] : 0);
    for (const char *at = x; w; w = next, next = NULL)
        for (uint32_t p = 0; p < n_quads; p++, at += sizeof(int32_t))
            for (int i = 0; i < TILE_INPUTS * 2; i++) {
                int32_t quad;
                memcpy(&quad, at + (size_t)(i / 2) * x_stride, sizeof quad);
                const __m512i a = _mm512_set1_epi32(quad), s = sum[i / 2][i % 2];
                const __m512i b = _mm512_loadu_si512((const char *)w + p * w_stride + i % 2 * 64);
                sum[i / 2][i % 2] = start ? tile_add(s, b, a) : tile_add(s, a, b);
            }
}

#endif
