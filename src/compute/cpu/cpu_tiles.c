// Activations quantised in groups of four rows, brought to tiles of sixteen: see tiles.h. Portable.
#include "compute/cpu/tiles.h"

#include <assert.h>
#include <string.h>

static_assert(sizeof(struct act_tile) == 832, "no padding");
static_assert(sizeof(struct low_tile) == 832, "whole cache lines");
static_assert(sizeof(struct weight_tile) == 704, "no padding");

static void put_row(const struct act_block *from, uint32_t r, struct act_tile *to, uint32_t row)
{
    for (uint32_t i = 0; i < PACK_QUADS; i++) memcpy(to->q[row] + 4 * i, from->q[i][r], 4);
    to->scale[row] = from->scale[r];
    to->sum[row] = from->sum[r];
    for (int h = 0; h < 2; h++) to->half[h][row] = from->half[h][r];
    to->bias[row] = from->bias[r];
}

static void arrange_high(const struct act_groups *g, uint32_t group, uint32_t n_rows,
                         struct act_tile *to)
{
    const uint32_t n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS;
    const struct act_block *blocks = g->high + (size_t)group * g->n_blocks;
    if (n_rows % TILE_ROWS)
        memset(to + (n_tiles - 1) * (size_t)g->n_blocks, 0, g->n_blocks * sizeof *to);
    for (uint32_t row = 0; row < n_rows; row++) {
        const struct act_block *from = blocks + row / ACT_GROUP * (size_t)g->n_blocks;
        struct act_tile *tile = to + row / TILE_ROWS * (size_t)g->n_blocks;
        for (uint32_t b = 0; b < g->n_blocks; b++)
            put_row(from + b, row % ACT_GROUP, tile + b, row % TILE_ROWS);
    }
}

static void put_low(const struct act_low *from, struct low_tile *to, uint32_t row)
{
    memcpy(to->q[to->n], from->q, sizeof from->q);
    to->scale[to->n] = from->scale;
    for (int h = 0; h < 2; h++) to->half[h][to->n] = from->half[h];
    to->bias[to->n] = from->bias;
    to->row[to->n++] = (uint8_t)row;
}

// Second terms of all rows by column; a row has one of a block at most. Returns how many tiles.
static uint32_t arrange_low(const struct act_groups *g, uint32_t group, uint32_t n_rows,
                            struct low_tile *to)
{
    const size_t row0 = (size_t)group * ACT_GROUP;
    const struct act_low *next[CHUNK_ROWS], *end[CHUNK_ROWS];
    uint32_t at[CHUNK_ROWS], n_tiles = 0; // the block of *next, or one beyond all
    for (uint32_t row = 0; row < n_rows; row++) {
        next[row] = g->low + (row0 + row) * g->n_blocks;
        end[row] = next[row] + g->n_low[row0 + row];
        at[row] = next[row] < end[row] ? next[row]->at : g->n_blocks;
    }
    for (uint32_t b = 0; b < g->n_blocks; b++) {
        struct low_tile *tile = NULL;
        for (uint32_t row = 0; row < n_rows; row++) {
            if (at[row] != b) continue;
            if (!tile || tile->n == TILE_ROWS) {
                tile = to + n_tiles++;
                *tile = (struct low_tile){.block = b};
            }
            put_low(next[row]++, tile, row);
            at[row] = next[row] < end[row] ? next[row]->at : g->n_blocks;
        }
    }
    return n_tiles;
}

void tiles_arrange(const struct act_groups *g, uint32_t group, uint32_t n_rows,
                   const struct act_tiles *to)
{
    const uint32_t first = group * ACT_GROUP / TILE_ROWS;
    assert(n_rows <= CHUNK_ROWS && group * ACT_GROUP % TILE_ROWS == 0);
    arrange_high(g, group, n_rows, to->high + (size_t)first * g->n_blocks);
    to->chunks[first] = (struct tile_chunk){
        .n_rows = n_rows,
        .n_low = arrange_low(g, group, n_rows, to->low + (size_t)first * g->n_blocks),
    };
}
