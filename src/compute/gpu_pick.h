// Which kernel serves what: the table of kernels.def and one pure function that reads it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/common/pack.h"

enum gpu_kernel {
#define LINEAR(pack, np, nt) GPU_linear_##pack##_##np##_##nt,
#define PACKED(op, pack)     GPU_##op##_##pack,
#define PLAIN(name)          GPU_##name,
#include "kernels/common/kernels.def"
#undef LINEAR
#undef PACKED
#undef PLAIN
    GPU_KERNEL_COUNT
};

extern const char *const gpu_kernel_names[GPU_KERNEL_COUNT];

enum gpu_op { GPU_OP_LINEAR, GPU_OP_REPACK, GPU_OP_DEQUANT, GPU_OP_EMBED };
enum {
    LINEAR_WARPS_MAX = 10,
    SMALL_COLUMNS_MAX = 128 // above, expanding the weights once and a library's product are faster
};

// The kernel for op on weights packed as `pack` with n columns of activations; gated: gate and up
// matrix together with SWIGLU. *columns (may be NULL): how many columns one block takes; *panels: how
// many panels of 16 rows.
enum gpu_kernel gpu_pick(enum gpu_op op, enum pack_kind pack, uint32_t n, bool gated,
                         uint32_t *columns, uint32_t *panels);
// Warps of a LINEAR block for rows of n_units units: a function of the matrix alone, so that the order
// of sums is too.
uint32_t gpu_linear_warps(uint32_t n_units);
