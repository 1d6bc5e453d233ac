// Packed weights with AMX, and the table of its kernels: prompts' products and attention by tiles of
// 8-bit integers (packed_tile.h, attend_split.h), all else as AVX-512 does it.
#include "compute/cpu/packed_avx512.h"

#if defined(__AMX_INT8__) || defined(__AMXINT8__) // gcc; clang 14; nothing on other machines

#include "compute/cpu/attend_avx2.h"
#include "compute/cpu/attend_split.h"
#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_tile.h"

// Few vectors leave most of a tile empty: they go as AVX-512 does them, with the same bits.
static void attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                   uint32_t n_pages)
{
    if (end - first < TILE_ROWS) {
        avx512_attend(t, first, end, units, n_pages);
        return;
    }
    if (!t->is_split) split_queries(t);
    tiles_begin_split();
    for (uint32_t p = 0; p < n_pages; p++)
        score_page_split(t, first, end, &units[p], t->scores + p * PAGE_TOKENS);
    struct kv_unit both[KEY_PAGES] = {units[0], units[n_pages - 1]};
    avx512_soften(t, both, first, end);
    add_values_split(t, first, end, units, n_pages);
    tiles_end();
}

static uint64_t peak(uint32_t n_rounds)
{
    int8_t zeros[TILE_ROWS * 64] = {0};
    tiles_begin(SPLIT_COLS / 4);
    _tile_loadd(4, zeros, 64);
    _tile_loadd(6, zeros, 64);
    for (uint32_t r = 0; r < n_rounds; r++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 6);
        _tile_dpbssd(2, 4, 6);
        _tile_dpbssd(3, 4, 6);
    }
    tiles_end();
    return (uint64_t)n_rounds * 4 * TILE_ROWS * PANEL_ROWS * SPLIT_COLS;
}

const struct cpu_kernels cpu_kernels_amx = {
    .isa = "AMX",
    .numerics = 0x300, // the bits of AVX-512
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .keeps_panels = true,
    .split = avx2_split,
    .quantize_group = avx512_quantize_group,
    .packed_dot = avx512_packed_dot,
    .tile_open = tile_open,
    .tile_dot = tile_dot,
    .quantize_head = avx2_quantize_head,
    .attend = attend,
    .splits_heads = true,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .scan = {avx2_find_above, avx2_sum_exp},
    .peak = peak,
    .peak_name = "tdpbssd, int8 products into int32",
};

#endif
