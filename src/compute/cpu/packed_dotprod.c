// Packed products by SDOT (ARMv8.2 dotprod: Graviton 2, Cortex-A76, Apple M1 and later). See packed_neon.h.
#include "compute/cpu/neon.h"

#if defined(__ARM_FEATURE_DOTPROD) // nothing on machines of another kind

#include "compute/cpu/packed_neon.h"

void dotprod_quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                            const struct act_groups *to, uint32_t group)
{
    quantize_group(x, n_rows, n, to, group);
}

void dotprod_packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                        uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    packed_dot(f, panel, n_k, a, group, n_rows, out);
}

enum { SUMS = 16 }; // independent, to hide the latency

uint64_t dotprod_peak(uint32_t n_rounds)
{
    int32x4_t sum[SUMS];
    int8x16_t w = vdupq_n_s8(3), x = vdupq_n_s8(5);
    for (int i = 0; i < SUMS; i++) sum[i] = vdupq_n_s32(0);
    for (uint32_t r = 0; r < n_rounds; r++) {
        __asm__ volatile("" : "+w"(w), "+w"(x)); // the products are new each round
        for (int i = 0; i < SUMS; i++) sum[i] = vdotq_s32(sum[i], w, x);
    }
    for (int i = 1; i < SUMS; i++) sum[0] = vaddq_s32(sum[0], sum[i]);
    __asm__ volatile("" : : "w"(sum[0]));
    return (uint64_t)n_rounds * SUMS * 16;
}

#endif
