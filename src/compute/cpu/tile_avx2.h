// The innermost loop of everything in int16: sixteen outputs (two registers) for n inputs.
//   out[i][0..15] = sum over p of w[p][0..15] . q[i][p]     each element a pair of int16, vpmaddwd
// w advances by w_stride bytes a pair, input i starts q_stride bytes after input i - 1. Sums are exact,
// so it does not matter which of the forms below does a row. Where w lies in two places, `next` (or NULL) is the
// second and has as many pairs as the first; inputs go on without a gap. `ahead` (or NULL): a line of memory
// a pair is asked for from there on. Between products it costs nothing; hundreds of lines asked for at once
// fill the core's queue, and the work behind them waits.
//
// Six inputs fill the 16 registers: 12 sums, 2 of w, 1 broadcast, 1 product. In assembly, because gcc 12
// spills the sums otherwise (measured: 45 against 75 GMAC/s a core on a Zen 3).
#pragma once

#include <stddef.h>

#include "compute/cpu/lanes.h"

enum { TILE = 6, LINE_BYTES = 64 };

// clang-format off
#define TILE_STEP(off, q, sum0, sum1)           \
    "vpbroadcastd " off q ", %%ymm14\n\t"       \
    "vpmaddwd %%ymm14, %%ymm12, %%ymm15\n\t"    \
    "vpmaddwd %%ymm14, %%ymm13, %%ymm14\n\t"    \
    "vpaddd %%ymm15, " sum0 ", " sum0 "\n\t"    \
    "vpaddd %%ymm14, " sum1 ", " sum1 "\n\t"
#define TILE_PAIR(off)                                           \
    "vmovdqu (%[w]), %%ymm12\n\t"                                \
    "vmovdqu 32(%[w]), %%ymm13\n\t"                              \
    "add %[ws], %[w]\n\t"                                        \
    TILE_STEP(off, "(%[q])", "%%ymm0", "%%ymm1")                 \
    TILE_STEP(off, "(%[q],%[qs])", "%%ymm2", "%%ymm3")           \
    TILE_STEP(off, "(%[q],%[qs],2)", "%%ymm4", "%%ymm5")         \
    TILE_STEP(off, "(%[r])", "%%ymm6", "%%ymm7")                 \
    TILE_STEP(off, "(%[r],%[qs])", "%%ymm8", "%%ymm9")           \
    TILE_STEP(off, "(%[r],%[qs],2)", "%%ymm10", "%%ymm11")
#define TILE_TWO_PAIRS TILE_PAIR("0") TILE_PAIR("4")
#define TILE_AHEAD                                               \
    "prefetcht0 (%[ahead])\n\t"                                  \
    "prefetcht0 64(%[ahead])\n\t"                                \
    "sub $-128, %[ahead]\n\t"
#define TILE_ZERO(a) "vpxor " a ", " a ", " a "\n\t"
#define TILE_STORE(off, a) "vmovdqu " a ", " off "(%[out])\n\t"

#define TILE_ASM(pairs)                                                                        \
    __asm__ volatile(                                                                          \
        TILE_ZERO("%%ymm0") TILE_ZERO("%%ymm1") TILE_ZERO("%%ymm2") TILE_ZERO("%%ymm3")        \
        TILE_ZERO("%%ymm4") TILE_ZERO("%%ymm5") TILE_ZERO("%%ymm6") TILE_ZERO("%%ymm7")        \
        TILE_ZERO("%%ymm8") TILE_ZERO("%%ymm9") TILE_ZERO("%%ymm10") TILE_ZERO("%%ymm11")      \
        ".p2align 5\n"                                                                         \
        "1:\n\t"                                                                               \
        pairs                                                                                  \
        "add $8, %[q]\n\t"                                                                     \
        "add $8, %[r]\n\t"                                                                     \
        "dec %[n]\n\t"                                                                         \
        "jnz 1b\n\t"                                                                           \
        "mov %[next], %[w]\n\t"                                                                \
        "xor %k[next], %k[next]\n\t"                                                           \
        "mov %[again], %[n]\n\t"                                                               \
        "test %[w], %[w]\n\t"                                                                  \
        "jnz 1b\n\t"                                                                           \
        TILE_STORE("0", "%%ymm0") TILE_STORE("32", "%%ymm1")                                   \
        TILE_STORE("64", "%%ymm2") TILE_STORE("96", "%%ymm3")                                  \
        TILE_STORE("128", "%%ymm4") TILE_STORE("160", "%%ymm5")                                \
        TILE_STORE("192", "%%ymm6") TILE_STORE("224", "%%ymm7")                                \
        TILE_STORE("256", "%%ymm8") TILE_STORE("288", "%%ymm9")                                \
        TILE_STORE("320", "%%ymm10") TILE_STORE("352", "%%ymm11")                              \
        : [w] "+&r"(w), [next] "+&r"(next), [q] "+&r"(q), [r] "+&r"(r), [n] "+&r"(n),          \
          [ahead] "+&r"(ahead)                                                                 \
        : [ws] "r"(w_stride), [qs] "r"(q_stride), [out] "r"(out), [again] "r"(again)           \
        : "memory", "cc", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7",      \
          "ymm8", "ymm9", "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15")

// Six inputs; n_pairs is even and not 0.
static inline void tile_six(const void *w, const void *next, size_t w_stride, const void *q,
                            size_t q_stride, uint32_t n_pairs, const void *ahead,
                            __m256i out[TILE][2])
{
    const char *r = (const char *)q + 3 * q_stride;
    uint32_t n = n_pairs / 2;
    const uint32_t again = n;
    if (ahead)
        TILE_ASM(TILE_AHEAD TILE_TWO_PAIRS);
    else
        TILE_ASM(TILE_TWO_PAIRS);
}
// clang-format on

// n <= 4 inputs, a constant after inlining.
static inline __attribute__((always_inline)) void tile_few(const void *w, const void *next,
                                                           size_t w_stride, const void *q,
                                                           size_t q_stride, uint32_t n_pairs,
                                                           const void *ahead, const uint32_t n,
                                                           __m256i out[][2])
{
    const char *qp = q, *line = ahead ? ahead : q; // a line that is there anyway
    const size_t step = ahead ? LINE_BYTES : 0;
    __m256i sum[4][2];
    for (uint32_t i = 0; i < n; i++) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (; w; w = next, next = NULL) {
        const char *wp = w;
        for (uint32_t p = 0; p < n_pairs; p++, wp += w_stride, qp += 4, line += step) {
            _mm_prefetch(line, _MM_HINT_T0);
            const __m256i w0 = load_i(wp), w1 = load_i(wp + 32);
            for (uint32_t i = 0; i < n; i++) {
                const __m256i x = _mm256_set1_epi32(load_i32(qp + i * q_stride));
                sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(w0, x));
                sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(w1, x));
            }
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        out[i][0] = sum[i][0];
        out[i][1] = sum[i][1];
    }
}

// How many of n_left inputs the next tile takes.
static inline uint32_t tile_size(uint32_t n_left)
{
    if (n_left >= TILE) return TILE;
    return n_left >= 4 ? 4 : n_left >= 2 ? 2 : 1;
}

// n inputs as tile_size gave it.
static inline void tile_run(const void *w, const void *next, size_t w_stride, const void *q,
                            size_t q_stride, uint32_t n_pairs, const void *ahead, uint32_t n,
                            __m256i out[TILE][2])
{
    switch (n) {
    case TILE: tile_six(w, next, w_stride, q, q_stride, n_pairs, ahead, out); break;
    case 4: tile_few(w, next, w_stride, q, q_stride, n_pairs, ahead, 4, out); break;
    case 2: tile_few(w, next, w_stride, q, q_stride, n_pairs, ahead, 2, out); break;
    default: tile_few(w, next, w_stride, q, q_stride, n_pairs, ahead, 1, out); break;
    }
}
