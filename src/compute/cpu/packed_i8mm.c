// Packed products by SMMLA (ARMv8.6 i8mm: Graviton 3, Neoverse V1 and N2, Apple M2 and later). See
// packed_neon.h.
#include "compute/cpu/neon.h"

#if defined(__ARM_FEATURE_MATMUL_INT8) // nothing on machines of another kind

#include "compute/cpu/packed_neon.h"

void i8mm_packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                     uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    packed_dot(f, panel, n_k, a, group, n_rows, out);
}

enum { SUMS = 16 }; // independent, to hide the latency

uint64_t i8mm_peak(uint32_t n_rounds)
{
    int32x4_t sum[SUMS];
    int8x16_t w = vdupq_n_s8(3), x = vdupq_n_s8(5);
    for (int i = 0; i < SUMS; i++) sum[i] = vdupq_n_s32(0);
    for (uint32_t r = 0; r < n_rounds; r++) {
        __asm__ volatile("" : "+w"(w), "+w"(x)); // the products are new each round
        for (int i = 0; i < SUMS; i++) sum[i] = vmmlaq_s32(sum[i], w, x);
    }
    for (int i = 1; i < SUMS; i++) sum[0] = vaddq_s32(sum[0], sum[i]);
    __asm__ volatile("" : : "w"(sum[0]));
    return (uint64_t)n_rounds * SUMS * 32;
}

#endif
