// The innermost loop of many rows with AVX-512 VNNI: 32 columns (16 where a scale is that short) of 16 weight
// rows (one register) and of up to 12 rows of activations as tiles.h lays them out. Sums are exact.
//
// Activations are broadcast by the product itself, so that there is nothing but products in it: two a cycle are
// the ports' limit, and a load each is what the caches give beside them. In assembly, because gcc 12 loads and
// broadcasts on their own.
#pragma once

#include <immintrin.h>
#include <string.h>

#include "compute/cpu/tiles.h"

enum { MANY_ROWS = 12, MANY_GROUP = 4, MANY_GROUPS = MANY_ROWS / MANY_GROUP };

#if !defined(AVX512_IN_C)

// What the assembly reads, for the compiler's knowledge: after a comma, or instead of all. clang (14 and 19) has an
// address in a register for each such operand, beside the pointer's own, and of those there are not enough: it
// is told of any memory.
#if defined(__clang__)
#define MANY_MEMORY(what, p)
#define MANY_CLOBBERS "memory"
#else
#define MANY_MEMORY(what, p) , "m"(*(const struct what *)(p))
#define MANY_CLOBBERS
#endif
struct many_weights {
    int8_t b[PACK_QUADS / 2 * PANEL_ROWS * 4];
};
struct many_acts {
    int8_t b[MANY_GROUP * PACK_COLS];
};
struct many_bias {
    int32_t b[MANY_GROUP];
};

// clang-format off
#define MANY_ROW(q, r, a, s) "vpdpbusd 4*" #q "+32*" #r "(%[" a "])%{1to16%}, %[x], %[" s "]\n\t"
#define MANY_FOUR(q, a, s0, s1, s2, s3) \
    MANY_ROW(q, 0, a, s0) MANY_ROW(q, 1, a, s1) MANY_ROW(q, 2, a, s2) MANY_ROW(q, 3, a, s3)
#define MANY_LOAD(q) "vmovdqa64 64*" #q "(%[w]), %[x]\n\t"
#define MANY_QUAD_4(q)  MANY_LOAD(q) MANY_FOUR(q, "a0", "s0", "s1", "s2", "s3")
#define MANY_QUAD_8(q)  MANY_QUAD_4(q) MANY_FOUR(q, "a1", "s4", "s5", "s6", "s7")
#define MANY_QUAD_12(q) MANY_QUAD_8(q) MANY_FOUR(q, "a2", "s8", "s9", "s10", "s11")
#define MANY_HALF(n)    MANY_QUAD_##n(0) MANY_QUAD_##n(1) MANY_QUAD_##n(2) MANY_QUAD_##n(3)
#define MANY_ALL(n)     MANY_HALF(n) MANY_QUAD_##n(4) MANY_QUAD_##n(5) MANY_QUAD_##n(6) MANY_QUAD_##n(7)

#define MANY_ZERO(s)       "vpxord %[" s "], %[" s "], %[" s "]\n\t"
#define MANY_TAKE(r, b, s) "vpbroadcastd 4*" #r "(%[" b "]), %[" s "]\n\t"
#define MANY_ZERO_4     MANY_ZERO("s0") MANY_ZERO("s1") MANY_ZERO("s2") MANY_ZERO("s3")
#define MANY_ZERO_8     MANY_ZERO_4 MANY_ZERO("s4") MANY_ZERO("s5") MANY_ZERO("s6") MANY_ZERO("s7")
#define MANY_ZERO_12    MANY_ZERO_8 MANY_ZERO("s8") MANY_ZERO("s9") MANY_ZERO("s10") MANY_ZERO("s11")
#define MANY_TAKE_4     MANY_TAKE(0, "b0", "s0") MANY_TAKE(1, "b0", "s1") MANY_TAKE(2, "b0", "s2") MANY_TAKE(3, "b0", "s3")
#define MANY_TAKE_8     MANY_TAKE_4 \
    MANY_TAKE(0, "b1", "s4") MANY_TAKE(1, "b1", "s5") MANY_TAKE(2, "b1", "s6") MANY_TAKE(3, "b1", "s7")
#define MANY_TAKE_12    MANY_TAKE_8 \
    MANY_TAKE(0, "b2", "s8") MANY_TAKE(1, "b2", "s9") MANY_TAKE(2, "b2", "s10") MANY_TAKE(3, "b2", "s11")

#define MANY_SUMS_4  [s0] "=&v"(s[0]), [s1] "=&v"(s[1]), [s2] "=&v"(s[2]), [s3] "=&v"(s[3])
#define MANY_SUMS_8  MANY_SUMS_4, [s4] "=&v"(s[4]), [s5] "=&v"(s[5]), [s6] "=&v"(s[6]), [s7] "=&v"(s[7])
#define MANY_SUMS_12 MANY_SUMS_8, [s8] "=&v"(s[8]), [s9] "=&v"(s[9]), [s10] "=&v"(s[10]), [s11] "=&v"(s[11])
#define MANY_ACTS(i)    [a##i] "r"(a[i]) MANY_MEMORY(many_acts, a[i])
#define MANY_ACTS_4     [w] "r"(w) MANY_MEMORY(many_weights, w), MANY_ACTS(0)
#define MANY_ACTS_8     MANY_ACTS_4, MANY_ACTS(1)
#define MANY_ACTS_12    MANY_ACTS_8, MANY_ACTS(2)
#define MANY_BIAS(i)    [b##i] "r"(bias[i]) MANY_MEMORY(many_bias, bias[i])
#define MANY_BIAS_4     MANY_BIAS(0)
#define MANY_BIAS_8     MANY_BIAS_4, MANY_BIAS(1)
#define MANY_BIAS_12    MANY_BIAS_8, MANY_BIAS(2)
#define MANY_MORE       MANY_MEMORY(many_weights, w + sizeof(struct many_weights))

#define MANY_ASM(n) \
    if (!bias) \
        __asm__(MANY_ZERO_##n MANY_ALL(n) : MANY_SUMS_##n, [x] "=&v"(x) : MANY_ACTS_##n MANY_MORE : MANY_CLOBBERS); \
    else if (half) \
        __asm__(MANY_TAKE_##n MANY_HALF(n) : MANY_SUMS_##n, [x] "=&v"(x) \
                : MANY_ACTS_##n, MANY_BIAS_##n : MANY_CLOBBERS); \
    else \
        __asm__(MANY_TAKE_##n MANY_ALL(n) : MANY_SUMS_##n, [x] "=&v"(x) \
                : MANY_ACTS_##n MANY_MORE, MANY_BIAS_##n : MANY_CLOBBERS)

// s[i] = bias of row i + w times row i: eight quads, or four where `half`. a[g] is where rows 4 g .. 4 g + 3
// lie, bias[g] (bias may be NULL) where their first sums. n is 4, 8 or 12. All but pointers are constants after inlining.
static inline __attribute__((always_inline)) void
many_products(const int8_t *w, const int8_t *const *a, const int32_t *const *bias, const bool half,
              const uint32_t n, __m512i *s)
{
    __m512i x;
    if (n == 12) {
        MANY_ASM(12);
    } else if (n == 8) {
        MANY_ASM(8);
    } else {
        MANY_ASM(4);
    }
}
// clang-format on

#else // the same in C, for a test

static inline void many_products(const int8_t *w, const int8_t *const *a,
                                 const int32_t *const *bias, const bool half, const uint32_t n,
                                 __m512i *s)
{
    for (uint32_t t = 0; t < n; t++) {
        s[t] = _mm512_set1_epi32(bias ? bias[t / MANY_GROUP][t % MANY_GROUP] : 0);
        for (uint32_t q = 0; q < (half ? PACK_QUADS / 2 : PACK_QUADS); q++) {
            int32_t quad;
            memcpy(&quad, a[t / MANY_GROUP] + t % MANY_GROUP * PACK_COLS + 4 * q, sizeof quad);
            s[t] =
                _mm512_dpbusd_epi32(s[t], _mm512_load_si512(w + 64 * q), _mm512_set1_epi32(quad));
        }
    }
}

#endif
