// The other kernels of the AVX2 table; see kernels.h. Tables of wider instruction sets take some of them.
#pragma once

#include "compute/cpu/kernels.h"

float avx2_quantize_head(const float *x, uint32_t n, int8_t *q);
// Of the smaller integers that avx2_attend wants.
float avx2_quantize_query(const float *x, uint32_t n, int8_t *q, int32_t *bias);
void avx2_rotate_back(const float *x, uint32_t n, float by, float *out);
void avx2_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                 uint32_t n_pages);
void avx2_rms_norm(const float *x, const float *w, float *out, uint32_t n, float eps);
void avx2_swiglu(const float *gate, const float *up, float *out, uint32_t n);
uint32_t avx2_find_above(const float *x, uint32_t from, uint32_t n, float bound);
double avx2_sum_exp(const float *x, uint32_t n, float max);
