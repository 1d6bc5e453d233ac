// The kernels of the two aarch64 tables; see kernels.h and packed_neon.h.
#pragma once

#include "compute/cpu/kernels.h"

void dotprod_quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                            const struct act_groups *to, uint32_t group);
void dotprod_packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                        uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS]);
uint64_t dotprod_peak(uint32_t n_rounds);
void i8mm_packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                     uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS]);
uint64_t i8mm_peak(uint32_t n_rounds);

// attend_neon.c: by SDOT too.
float neon_quantize_head(const float *x, uint32_t n, int8_t *q);
float neon_quantize_query(const float *x, uint32_t n, int8_t *q, int32_t *bias);
void neon_rotate_back(const float *x, uint32_t n, float by, float *out);
void neon_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                 uint32_t n_pages);
void neon_rms_norm(const float *x, const float *w, float *out, uint32_t n, float eps);
void neon_swiglu(const float *gate, const float *up, float *out, uint32_t n);
double neon_sum_exp(const float *x, uint32_t n, float max);
uint32_t neon_find_above(const float *x, uint32_t from, uint32_t n, float bound);
