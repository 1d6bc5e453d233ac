// The enum and the table made from formats.def. Shared by model/ and compute/; knows no code of either.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fmt {
#define FMT(id, name, gguf, block, bytes) FMT_##id,
#include "kernels/common/formats.def"
#undef FMT
    FMT_COUNT
};

struct fmt_info {
    const char *name;
    uint32_t gguf_type;   // the number a GGUF file uses
    uint32_t block;       // weights in a block; a row holds whole blocks
    uint32_t block_bytes; // bytes of a block
};

static const struct fmt_info fmt_info[FMT_COUNT] = {
#define FMT(id, name, gguf, block, bytes) {name, gguf, block, bytes},
#include "kernels/common/formats.def"
#undef FMT
};

// Bytes of a row of n_cols weights; n_cols is a multiple of the format's block.
static inline size_t fmt_row_bytes(enum fmt f, size_t n_cols)
{
    return n_cols / fmt_info[f].block * fmt_info[f].block_bytes;
}
