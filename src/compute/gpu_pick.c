// The choice of kernels. Pure: no device, no state; tested on any machine.
#include "compute/gpu_pick.h"

#include <assert.h>
#include <stddef.h>

#include "kernels/common/args.h"

const char *const gpu_kernel_names[GPU_KERNEL_COUNT] = {
#define FEW(pack, panels)   [GPU_few_##pack##_##panels] = "few_" #pack "_" #panels,
#define SOME(pack, tiles)   [GPU_some_##pack##_##tiles] = "some_" #pack "_" #tiles,
#define WIDE(pack, columns) [GPU_wide_##pack##_##columns] = "wide_" #pack "_" #columns,
#define PACKED(op, pack)    [GPU_##op##_##pack] = #op "_" #pack,
#define PLAIN(name)         [GPU_##name] = #name,
#include "kernels/common/kernels.def"
#undef FEW
#undef SOME
#undef WIDE
#undef PACKED
#undef PLAIN
};

struct row {
    enum gpu_op op;
    enum pack_kind pack;
    uint32_t panels, tiles;
    enum gpu_kernel kernel;
};

// In rising order of columns within a pack, as kernels.def has them.
static const struct row rows[] = {
#define GPU_OP_repack     GPU_OP_REPACK
#define GPU_OP_dequant    GPU_OP_DEQUANT
#define GPU_OP_embed      GPU_OP_EMBED
#define GPU_OP_peak       GPU_OP_PEAK
#define GPU_OP_dequant8   GPU_OP_DEQUANT8
#define FEW(pack, panels) {GPU_OP_FEW, PACK_##pack, panels, 0, GPU_few_##pack##_##panels},
#define SOME(pack, tiles) {GPU_OP_SOME, PACK_##pack, 0, tiles, GPU_some_##pack##_##tiles},
#define WIDE(pack, columns) \
    {GPU_OP_WIDE, PACK_##pack, 0, (columns) / 8, GPU_wide_##pack##_##columns},
#define PACKED(op, pack) {GPU_OP_##op, PACK_##pack, 0, 0, GPU_##op##_##pack},
#define PLAIN(name)
#include "kernels/common/kernels.def"
#undef FEW
#undef SOME
#undef WIDE
#undef PACKED
#undef PLAIN
};

static bool serves(const struct row *r, enum gpu_op op, enum pack_kind pack, uint32_t n, bool gated)
{
    if (r->op != op || r->pack != pack) return false;
    if (op == GPU_OP_FEW) return r->panels == (gated ? 2 : 1);
    if (op == GPU_OP_SOME) return n <= 8 * r->tiles || r->tiles == 8;
    return op != GPU_OP_WIDE || n <= 8 * r->tiles;
}

enum gpu_kernel gpu_pick(enum gpu_op op, enum pack_kind pack, uint32_t n, bool gated,
                         uint32_t *columns)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        if (!serves(r, op, pack, n, gated)) continue;
        if (columns) *columns = 8 * r->tiles;
        return r->kernel;
    }
    assert(!"no kernel serves this");
    return GPU_KERNEL_COUNT;
}

// Four units and more a warp pay for the sum at the end; eight warps keep a long row's memory busy, and that of a
// matrix whose blocks are too few to fill the device (3 of them on each of 132 multiprocessors).
uint32_t gpu_few_warps(uint32_t n_units, uint32_t n_panels, bool gated)
{
    const bool few_blocks = n_panels <= 396 && n_units >= 16;
    return !gated && (n_units >= 32 || few_blocks) ? 8 : 4; // four have a thread for each result
}

// A last round of few blocks leaves memory idle, for they have too few loads on their way (768 blocks of 8B's gate
// and up at five: 53.4 us; six take them all at once: 49.4).
uint32_t gpu_few_live(uint32_t n_blocks, uint32_t n_sm)
{
    uint32_t best = 6;
    double most = 0;
    for (uint32_t k = 6; k >= 4; k--) {
        const double rounds = (double)n_blocks / (k * n_sm);
        const double fill = rounds / (double)(uint32_t)(rounds + 0.999999);
        if (fill <= most + 0.05) continue;
        most = fill;
        best = k;
    }
    return best;
}

// As many slices as fill the device once, two units and more each.
uint32_t gpu_slices(uint32_t n_units, uint32_t n_blocks, uint32_t live)
{
    const uint32_t want = live / (n_blocks ? n_blocks : 1), most = n_units / 2;
    const uint32_t n = want < most ? want : most;
    return n < 1 ? 1 : n > 16 ? 16 : n;
}

uint32_t gpu_rows8_threads(uint32_t stride)
{
    const uint32_t pieces = stride / 8;
    return ((pieces + ROWS8_PIECES - 1) / ROWS8_PIECES + 31) / 32 * 32;
}
