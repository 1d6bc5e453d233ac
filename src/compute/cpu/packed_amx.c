// Packed weights with AMX, and the table of its kernels: prompts' products by tiles of 8-bit integers
// (packed_tile.h), all else as AVX-512 does it.
#include "compute/cpu/packed_avx512.h"

#if defined(__AMX_INT8__) || defined(__AMXINT8__) // gcc; clang 14; nothing on other machines

#include "compute/cpu/attend_avx2.h"
#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_tile.h"

enum { PEAK_COLS = 64 }; // a tile's width: products of weights have half of it

static uint64_t peak(uint32_t n_rounds)
{
    int8_t zeros[TILE_ROWS * PEAK_COLS] = {0};
    // gcc 12 does not know that a tile's load reads it
    __asm__ volatile("" : : "r"(zeros) : "memory");
    tiles_begin(PEAK_COLS / 4);
    _tile_loadd(4, zeros, PEAK_COLS);
    _tile_loadd(6, zeros, PEAK_COLS);
    for (uint32_t r = 0; r < n_rounds; r++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 6);
        _tile_dpbssd(2, 4, 6);
        _tile_dpbssd(3, 4, 6);
    }
    tiles_end();
    return (uint64_t)n_rounds * 4 * TILE_ROWS * PANEL_ROWS * PEAK_COLS;
}

const struct cpu_kernels cpu_kernels_amx = {
    .isa = "AMX",
    .numerics = 0x302, // the bits of AVX-512
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .keeps_panels = true,
    .quantize_group = avx512_quantize_group,
    .packed_dot = avx512_packed_dot,
    .tile_open = tile_open,
    .tile_dot = tile_dot,
    .quantize_head = avx2_quantize_head,
    .quantize_query = avx512_quantize_query,
    .rotate_back = avx2_rotate_back,
    .attend = avx512_attend,
    .asks_ahead = true,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .scan = {avx2_find_above, avx2_sum_exp},
    .peak = peak,
    .peak_name = "tdpbssd, int8 products into int32",
};

#endif
