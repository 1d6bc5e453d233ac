// The kernels of packed weights (repack.h) and of attention with AVX-512 VNNI; see kernels.h for what they do.
#pragma once

#include "compute/cpu/tiles.h"

void avx512_quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                           const struct act_groups *to, uint32_t group);
void avx512_packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                       uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS]);
void avx512_tile_open(enum fmt f, const uint8_t *panel, uint32_t n_blocks, struct weight_tile *to);
void avx512_tile_dot(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                     uint32_t tile, float (*out)[PANEL_ROWS]);
uint64_t avx512_peak(uint32_t n_rounds); // peak_avx512.c
// attend_avx512.c
float avx512_quantize_query(const float *x, uint32_t n, int8_t *q, int32_t *bias);
void avx512_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                   uint32_t n_pages);
