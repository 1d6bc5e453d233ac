// Many rows against packed weights (repack.h): a panel is unpacked once for all rows of a step, to bytes
// and f32 scales; activations lie row by row in tiles of 16. So it suits processors that multiply 16 rows of
// activations times 16 weight rows in one instruction (AMX), and those for which unpacking was a fifth of the
// work (AVX2, AVX-512). AVX2 has activations by quads, so that a register of eight rows is an operand of the
// product as it lies there.
//
// The arithmetic is that of repack.h, operation by operation, so that a row has the same bits here and
// among few rows. What differs is who goes together: second terms, which few blocks of a row have, are
// gathered over up to CHUNK_ROWS rows, those of the same columns to a tile.
#pragma once

#include "compute/cpu/repack.h"

enum {
    TILE_ROWS = 16,   // of activations
    CHUNK_ROWS = 128, // whose second terms go together
    CHUNK_PANELS = 4, // whose results are stored together
    CHUNK_TILES = CHUNK_ROWS / TILE_ROWS,
};

// 32 columns of 16 rows of activations; rows that do not exist are zero.
struct act_tile {
    union {
        _Alignas(64) int8_t q[TILE_ROWS][PACK_COLS];
        int8_t quads[PACK_QUADS][TILE_ROWS][4]; // where act_tiles.by_quads says so
    };
    float scale[TILE_ROWS];
    int32_t half[2][TILE_ROWS]; // -32 times the sum of each half of q
    int32_t bias[TILE_ROWS];    // -128 times the sum of q
    float sum[TILE_ROWS];       // of the dequantised values
};

// Second terms of the columns of block number `block`, of n rows, the others zero.
struct low_tile {
    union {
        _Alignas(64) int8_t q[TILE_ROWS][PACK_COLS];
        int8_t quads[PACK_QUADS][TILE_ROWS][4];
    };
    float scale[TILE_ROWS];
    int32_t half[2][TILE_ROWS], bias[TILE_ROWS]; // where act_tile has them
    uint8_t row[TILE_ROWS];                      // within the chunk
    uint32_t block, n;
};

struct tile_chunk {
    uint32_t n_rows, n_low;
};

// Tile t's blocks stand from high[t * n_blocks] on. A chunk's second terms stand from low[t * n_blocks]
// on, in the order of columns, where t is its first tile; chunks[t] says how many rows and tiles of these.
struct act_tiles {
    struct act_tile *high;
    struct low_tile *low;
    struct tile_chunk *chunks;
    uint32_t n_blocks;
    bool by_quads;
};

// 32 columns of a panel, unpacked: signed for AMX, as its table wants them otherwise. Scales are for each half
// of the columns; where the format has one for both only the first counts.
struct weight_tile {
    _Alignas(64) int8_t w[PACK_QUADS][PANEL_ROWS][4];
    float d[2][PANEL_ROWS];
    float min[PANEL_ROWS];
};

// Rows of g, the first n_rows <= CHUNK_ROWS from group `group` on (a multiple of TILE_ROWS / ACT_GROUP),
// to a chunk of `to`, which begins with that tile.
void tiles_arrange(const struct act_groups *g, uint32_t group, uint32_t n_rows,
                   const struct act_tiles *to);
