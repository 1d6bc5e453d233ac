// The loop that measures an x86 table's ceiling (struct cpu_kernels' peak): twelve independent sums, to hide the latency
// of what is added to them, all in registers. In assembly, because gcc 12 copies and spills sums of intrinsics
// (measured with AVX2: 100 GMAC/s a core instead of 167), and a ceiling that is too low flatters every kernel.
#pragma once

#include <stdint.h>

enum { PEAK_SUMS = 12 };

// clang-format off
#define PEAK_EACH(do) do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11)

// n_rounds times add(0) .. add(11), after zero(0) .. zero(11): texts of instructions on registers 0 to 11 of the table's
// width, register 12 for what is between, and the operands %[w] and %[x].
#define PEAK_RUN(zero, add, n_rounds, w_, x_)                                                  \
    do {                                                                                       \
        uint64_t left = (uint64_t)(n_rounds) + 1;                                              \
        __asm__ volatile(PEAK_EACH(zero)                                                       \
                         "jmp 2f\n"                                                            \
                         ".p2align 5\n"                                                        \
                         "1:\n\t"                                                              \
                         PEAK_EACH(add)                                                        \
                         "2:\n\t"                                                              \
                         "dec %[left]\n\t"                                                     \
                         "jnz 1b\n\t"                                                          \
                         : [left] "+&r"(left) : [w] "v"(w_), [x] "v"(x_)                       \
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",       \
                           "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12");                 \
    } while (0)
// clang-format on
