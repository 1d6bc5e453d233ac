// Packed weights with AVX2 alone: packed_256.h.
#include "compute/cpu/packed_avx2.h"

#if defined(__AVX2__) // nothing on machines of another kind

#include "compute/cpu/packed_256.h"

void avx2_quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                         const struct act_groups *to, uint32_t group)
{
    quantize_group(x, n_rows, n, to, group);
}

void avx2_packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                     uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    packed_dot(f, panel, n_k, a, group, n_rows, out);
}

#endif
