// Activations quantised in groups of four rows, brought to tiles of sixteen: see tiles.h. Portable.
#include "compute/cpu/tiles.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

static_assert(sizeof(struct act_tile) == 832, "no padding");
static_assert(sizeof(struct low_tile) == 832, "whole cache lines");
static_assert(offsetof(struct low_tile, bias) == offsetof(struct act_tile, bias),
              "one loop for both");
static_assert(offsetof(struct low_tile, half) == offsetof(struct act_tile, half),
              "one loop for both");
static_assert(sizeof(struct weight_tile) == 704, "no padding");

static void put_row(const struct act_block *from, uint32_t r, struct act_tile *to, uint32_t row,
                    bool by_quads)
{
    for (uint32_t i = 0; i < PACK_QUADS; i++)
        memcpy(by_quads ? to->quads[i][row] : to->q[row] + 4 * i, from->q[i][r], 4);
    to->scale[row] = from->scale[r];
    to->sum[row] = from->sum[r];
    for (int h = 0; h < 2; h++) to->half[h][row] = from->half[h][r];
    to->bias[row] = from->bias[r];
}

typedef int32_t quads_4 __attribute__((vector_size(16)));

// Four quads of four rows, each a vector of one quad, to four rows, PACK_COLS apart.
static void put_quads(const int8_t (*from)[ACT_GROUP][4], int8_t *to)
{
    quads_4 q[4], low[2], high[2];
    memcpy(q, from, sizeof q);
    for (int i = 0; i < 2; i++) {
        low[i] = __builtin_shufflevector(q[2 * i], q[2 * i + 1], 0, 4, 1, 5);
        high[i] = __builtin_shufflevector(q[2 * i], q[2 * i + 1], 2, 6, 3, 7);
    }
    const quads_4 rows[4] = {
        __builtin_shufflevector(low[0], low[1], 0, 1, 4, 5),
        __builtin_shufflevector(low[0], low[1], 2, 3, 6, 7),
        __builtin_shufflevector(high[0], high[1], 0, 1, 4, 5),
        __builtin_shufflevector(high[0], high[1], 2, 3, 6, 7),
    };
    for (uint32_t r = 0; r < 4; r++) memcpy(to + r * PACK_COLS, &rows[r], sizeof rows[r]);
}

// A group's four rows, the first as `row` of the tile.
static void put_group(const struct act_block *from, struct act_tile *to, uint32_t row,
                      bool by_quads)
{
    if (!by_quads) {
        put_quads(from->q, to->q[row]);
        put_quads(from->q + PACK_QUADS / 2, to->q[row] + PACK_COLS / 2);
    }
    for (uint32_t i = 0; i < PACK_QUADS && by_quads; i++)
        memcpy(to->quads[i][row], from->q[i], sizeof from->q[i]);
    memcpy(to->scale + row, from->scale, sizeof from->scale);
    memcpy(to->sum + row, from->sum, sizeof from->sum);
    for (int h = 0; h < 2; h++) memcpy(to->half[h] + row, from->half[h], sizeof from->half[h]);
    memcpy(to->bias + row, from->bias, sizeof from->bias);
}

static void arrange_high(const struct act_groups *g, uint32_t group, uint32_t n_rows, bool by_quads,
                         struct act_tile *to)
{
    const uint32_t n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS;
    const struct act_block *from = g->high + (size_t)group * g->n_blocks;
    if (n_rows % TILE_ROWS)
        memset(to + (n_tiles - 1) * (size_t)g->n_blocks, 0, g->n_blocks * sizeof *to);
    for (uint32_t row = 0; row < n_rows; row += ACT_GROUP) {
        struct act_tile *tile = to + row / TILE_ROWS * (size_t)g->n_blocks;
        for (uint32_t b = 0; b < g->n_blocks; b++, from++) {
            if (n_rows - row >= ACT_GROUP)
                put_group(from, tile + b, row % TILE_ROWS, by_quads);
            else // nothing is known of what stands behind the last row
                for (uint32_t r = 0; r < n_rows - row; r++)
                    put_row(from, r, tile + b, row % TILE_ROWS + r, by_quads);
        }
    }
}

static void put_low(const struct act_low *from, struct low_tile *to, uint32_t row, bool by_quads)
{
    for (uint32_t i = 0; i < PACK_QUADS; i++)
        memcpy(by_quads ? to->quads[i][to->n] : to->q[to->n] + 4 * i, from->q[i], 4);
    to->scale[to->n] = from->scale;
    for (int h = 0; h < 2; h++) to->half[h][to->n] = from->half[h];
    to->bias[to->n] = from->bias;
    to->row[to->n++] = (uint8_t)row;
}

// Second terms of all rows by column; a row has one of a block at most. Returns how many tiles.
static uint32_t arrange_low(const struct act_groups *g, uint32_t group, uint32_t n_rows,
                            bool by_quads, struct low_tile *to)
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
            put_low(next[row]++, tile, row, by_quads);
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
    arrange_high(g, group, n_rows, to->by_quads, to->high + (size_t)first * g->n_blocks);
    to->chunks[first] = (struct tile_chunk){
        .n_rows = n_rows,
        .n_low = arrange_low(g, group, n_rows, to->by_quads, to->low + (size_t)first * g->n_blocks),
    };
}
