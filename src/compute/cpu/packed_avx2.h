// Packed weights in 256-bit registers, see packed_256.h: for the tables.
#pragma once

#include "compute/cpu/tiles.h"

void avx2_quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                         const struct act_groups *to, uint32_t group);
void avx2_packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                     uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS]);
void avx2_tile_open(enum fmt f, const uint8_t *panel, uint32_t n_blocks, struct weight_tile *to);
void avx2_tile_dot(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                   uint32_t tile, float (*out)[PANEL_ROWS]);
