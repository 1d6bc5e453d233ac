// Which kernel serves what: the table of kernels.def and one pure function that reads it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/common/pack.h"

enum gpu_kernel {
#define FEW(pack, panels)   GPU_few_##pack##_##panels,
#define SOME(pack, tiles)   GPU_some_##pack##_##tiles,
#define WIDE(pack, columns) GPU_wide_##pack##_##columns,
#define PACKED(op, pack)    GPU_##op##_##pack,
#define PLAIN(name)         GPU_##name,
#include "kernels/common/kernels.def"
#undef FEW
#undef SOME
#undef WIDE
#undef PACKED
#undef PLAIN
    GPU_KERNEL_COUNT
};

extern const char *const gpu_kernel_names[GPU_KERNEL_COUNT];

enum gpu_op {
    GPU_OP_FEW,
    GPU_OP_SOME,
    GPU_OP_WIDE,
    GPU_OP_REPACK,
    GPU_OP_DEQUANT,
    GPU_OP_EMBED,
    GPU_OP_PEAK,
    GPU_OP_DEQUANT8
};
enum {
    FEW_COLUMNS_MAX = 8,
    SOME_COLUMNS_MAX = 128, // of a launch of SOME or WIDE
    WIDE_PASSES_MAX =
        3,          // more columns than these many WIDE launches take are faster by expanding the
                    // weights once and a library's product
    SOME_ROWS = 128 // rows of a block of SOME
};

// The kernel for op on weights packed as `pack`. FEW: gated, gate and up with SWIGLU. SOME, WIDE: for n columns;
// *columns (may be NULL) is how many a block takes.
enum gpu_kernel gpu_pick(enum gpu_op op, enum pack_kind pack, uint32_t n, bool gated,
                         uint32_t *columns);
// How many of n_blocks blocks of gate and up live on a multiprocessor at once. Decides no order of sums.
uint32_t gpu_few_live(uint32_t n_blocks, uint32_t n_sm);
// Warps of a FEW block; slices of K of a SOME or WIDE launch of n_blocks where `live` blocks run at once, for rows
// of n_units units: functions of the matrices alone, so that the order of sums is too.
uint32_t gpu_few_warps(uint32_t n_units, uint32_t n_panels, bool gated);
uint32_t gpu_slices(uint32_t n_units, uint32_t n_blocks, uint32_t live);
// Threads of a block of swiglu_e4m3 or rows_e4m3 for rows of so many elements.
uint32_t gpu_rows8_threads(uint32_t stride);
