// The linear kernels of the AVX2 table for weights that are not packed; see kernels.h.
#pragma once

#include "compute/cpu/kernels.h"

void avx2_quantize(const float *x, uint32_t n, int16_t *q, int16_t *sums, float *scales);
void avx2_panel_expand(enum fmt f, const uint8_t *rows, size_t row_bytes, uint32_t n_rows,
                       uint32_t i_block, uint32_t n_k, struct panel_block *out);
void avx2_panel_dot(enum fmt f, const struct panel_block *p, const struct acts *a, uint32_t i_block,
                    uint32_t n_k, uint32_t row0, uint32_t n_rows, float (*acc)[PANEL_ROWS]);
void avx2_row_dot(enum fmt f, const uint8_t *row, uint32_t n_k, const struct acts *a,
                  uint32_t n_rows, float *out);
uint64_t avx2_peak(uint32_t n_rounds); // peak_avx2.c
