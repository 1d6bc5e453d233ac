// The choice of kernels. Pure: no device, no state; tested on any machine.
#include "compute/gpu_pick.h"

#include <assert.h>
#include <stddef.h>

const char *const gpu_kernel_names[GPU_KERNEL_COUNT] = {
#define LINEAR(pack, np, nt) [GPU_linear_##pack##_##np##_##nt] = "linear_" #pack "_" #np "_" #nt,
#define PACKED(op, pack)     [GPU_##op##_##pack] = #op "_" #pack,
#define PLAIN(name)          [GPU_##name] = #name,
#include "kernels/common/kernels.def"
#undef LINEAR
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
#define GPU_OP_repack        GPU_OP_REPACK
#define GPU_OP_dequant       GPU_OP_DEQUANT
#define GPU_OP_embed         GPU_OP_EMBED
#define LINEAR(pack, np, nt) {GPU_OP_LINEAR, PACK_##pack, np, nt, GPU_linear_##pack##_##np##_##nt},
#define PACKED(op, pack)     {GPU_OP_##op, PACK_##pack, 0, 0, GPU_##op##_##pack},
#define PLAIN(name)
#include "kernels/common/kernels.def"
#undef LINEAR
#undef PACKED
#undef PLAIN
};

static bool serves(const struct row *r, enum gpu_op op, enum pack_kind pack, uint32_t n, bool gated)
{
    if (r->op != op || r->pack != pack) return false;
    if (op != GPU_OP_LINEAR) return true;
    if (gated && r->panels != 2) return false;
    return n <= 8 * r->tiles || r->tiles == 8;
}

enum gpu_kernel gpu_pick(enum gpu_op op, enum pack_kind pack, uint32_t n, bool gated,
                         uint32_t *columns, uint32_t *panels)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        if (!serves(r, op, pack, n, gated)) continue;
        if (columns) *columns = 8 * r->tiles;
        if (panels) *panels = r->panels;
        return r->kernel;
    }
    assert(!"no kernel serves this");
    return GPU_KERNEL_COUNT;
}

uint32_t gpu_linear_warps(uint32_t n_units)
{
    uint32_t best = n_units < 4 ? n_units : 4, waste = UINT32_MAX;
    for (uint32_t w = 4; w <= LINEAR_WARPS_MAX && w <= n_units; w++) {
        const uint32_t idle = (n_units + w - 1) / w * w - n_units;
        if (idle <= waste) {
            best = w;
            waste = idle;
        }
    }
    return best ? best : 1;
}
