// Products of tiles (tiles.h), compiled twice: by packed_amx.c for processors that have tiles of 8-bit
// integers and AVX-512, and by a test with both written out in C (tile_seam.h), so that every machine
// can check what is done with them.
//
// A tile instruction gives the exact integer sums of 16 rows by 16 weight rows over 32 columns (16 where
// a scale is that short), which go through memory to the vector unit: the results of 16 rows stay in its
// registers for a whole weight row.
#pragma once

#include <string.h>

#include "compute/cpu/tile_seam.h"

// ---- unpacking a panel ------------------------------------------------------------------------

TILE_INLINE uint32_t tile_halves(enum fmt f)
{
    return f == FMT_Q6_K ? 2 : 1; // scales in 32 columns
}

// Bytes, eight in a word; less than 128 each, so that nothing crosses from one to the next.
TILE_INLINE uint64_t all_bytes(uint64_t v)
{
    return v * 0x0101010101010101u;
}
TILE_INLINE uint64_t minus(uint64_t bytes, uint64_t v)
{
    return ((bytes | all_bytes(0x80)) - all_bytes(v)) ^ all_bytes(0x80);
}

// Four columns of all rows: 64 bytes of quad q of sub-block s. Signed from here on.
TILE_INLINE void open_quad(enum fmt f, const uint8_t *p, uint32_t s, uint32_t q, void *to)
{
    enum { N = PANEL_ROWS * 4 / 8 };
    const struct packed_Q8_0 *q8 = (const void *)p;
    const struct packed_Q4_0 *q4 = (const void *)p;
    const struct packed_Q5_K *q5 = (const void *)p; // begins as Q4_K
    const struct packed_Q6_K *q6 = (const void *)p;
    uint64_t w[N], high[N] = {0};
    memcpy(w,
           f == FMT_Q8_0   ? q8->w[s][q]
           : f == FMT_Q4_0 ? q4->w[s / 2][q]
           : f == FMT_Q6_K ? q6->w[s / 2][q]
                           : q5->low.w[s / 2][q],
           sizeof w);
    if (f == FMT_Q5_K) memcpy(high, q5->high[q], sizeof high);
    if (f == FMT_Q6_K) memcpy(high, q6->high[s / 4][q], sizeof high);
    for (uint32_t i = 0; i < N; i++) {
        const uint64_t nibbles = w[i] >> s % 2 * 4 & all_bytes(15);
        if (f == FMT_Q8_0) w[i] ^= all_bytes(0x80);
        if (f == FMT_Q4_0) w[i] = minus(nibbles, 8);
        if (f == FMT_Q4_K) w[i] = nibbles;
        if (f == FMT_Q5_K) w[i] = nibbles | (high[i] >> s & all_bytes(1)) << 4;
        if (f == FMT_Q6_K) w[i] = minus(nibbles | (high[i] >> s % 4 * 2 & all_bytes(3)) << 4, 32);
    }
    memcpy(to, w, sizeof w);
}

// The scales and minimums of sub-block s; the products in the order of repack.h.
TILE_INLINE void open_scales(enum fmt f, const uint8_t *p, uint32_t s, struct weight_tile *to)
{
    if (f == FMT_Q8_0)
        v_store(to->d[0], v_halves(((const struct packed_Q8_0 *)(const void *)p)->d[s]));
    if (f == FMT_Q4_0)
        v_store(to->d[0], v_halves(((const struct packed_Q4_0 *)(const void *)p)->d[s]));
    if (f == FMT_Q6_K) {
        const struct packed_Q6_K *b = (const void *)p;
        for (uint32_t h = 0; h < 2; h++) {
            float scale[PANEL_ROWS];
            for (uint32_t r = 0; r < PANEL_ROWS; r++) scale[r] = b->scales[2 * s + h][r];
            v_store(to->d[h], v_mul(v_halves(b->d), v_load(scale)));
        }
    }
    if (!has_min(f)) return;
    const struct packed_Q4_K *b = (const void *)p; // Q5_K begins with one
    const uint8_t *low = b->scales[0][s % 4], *mid = b->scales[1][s % 4],
                  *high = b->scales[2][s % 4];
    float scale[PANEL_ROWS], min[PANEL_ROWS];
    for (uint32_t r = 0; r < PANEL_ROWS; r++) {
        scale[r] = (float)(s < 4 ? low[r] & 63 : (high[r] & 15) | (low[r] >> 6) << 4);
        min[r] = (float)(s < 4 ? mid[r] & 63 : high[r] >> 4 | (mid[r] >> 6) << 4);
    }
    v_store(to->d[0], v_mul(v_halves(b->d), v_load(scale)));
    v_store(to->min, v_mul(v_halves(b->dmin), v_load(min)));
}

TILE_INLINE void open_panel(enum fmt f, const uint8_t *panel, uint32_t n_blocks,
                            struct weight_tile *to)
{
    for (uint32_t b = 0; b < n_blocks; b++, to++) {
        const uint8_t *p = panel + b / PACK_SUBS * pack_block_bytes(f);
        for (uint32_t q = 0; q < PACK_QUADS; q++) open_quad(f, p, b % PACK_SUBS, q, to->w[q]);
        open_scales(f, p, b % PACK_SUBS, to);
    }
}

// ---- products ---------------------------------------------------------------------------------
// A product takes 16 cycles and is there after some 50; the way of its sums through memory takes as long again.
// So at step i product i starts, the sums of product i - 2 are stored and those of i - 4 used. Four steps
// make a turn of the registers.

enum { STORED_AFTER = 2, USED_AFTER = 4, TURN = 4 };

#define EACH_ROW(t)  TILE_UNROLL("GCC unroll 16") for (uint32_t t = 0; t < TILE_ROWS; t++)
#define EACH_STEP(j) TILE_UNROLL("GCC unroll 4") for (uint32_t j = 0; j < TURN; j++)

// Half h of the columns of q and w, or all of them.
TILE_INLINE void multiply(const uint32_t reg, const int8_t *q, const struct weight_tile *w,
                          uint32_t h)
{
    tile_product(reg, q + h * PACK_COLS / 2, w->w[h * PACK_QUADS / 2]);
}

TILE_INLINE void add_sums(enum fmt f, int32_t (*sums)[PANEL_ROWS], const struct weight_tile *w,
                          uint32_t h, const struct act_tile *a, lanes_16 *acc)
{
    const lanes_16 d = v_load(w->d[h]);
    EACH_ROW(t) acc[t] = v_fma(v_integers(sums[t]), v_mul(d, v_set(a->scale[t])), acc[t]);
    if (!has_min(f)) return;
    const lanes_16 min = v_load(w->min);
    EACH_ROW(t) acc[t] = v_fnma(min, v_set(a->sum[t]), acc[t]);
}

// out = the 16 rows of a times the panel w.
TILE_INLINE void dot_high(enum fmt f, const struct weight_tile *w, const struct act_tile *a,
                          uint32_t n_blocks, float (*out)[PANEL_ROWS])
{
    const uint32_t halves = tile_halves(f), n = n_blocks * halves;
    _Alignas(64) int32_t sums[TURN][TILE_ROWS][PANEL_ROWS];
    lanes_16 acc[TILE_ROWS];
    EACH_ROW(t) acc[t] = v_set(0);
    for (uint32_t i = 0; i < n + USED_AFTER; i += TURN) {
        EACH_STEP(j)
        {
            const uint32_t now = i + j, stored = now - STORED_AFTER, used = now - USED_AFTER;
            if (now < n) multiply(j, a[now / halves].q[0], w + now / halves, now % halves);
            if (stored < n) tile_store(stored % TURN, sums[stored % TURN]); // not before the first
            if (used < n)
                add_sums(f, sums[used % TURN], w + used / halves, used % halves, a + used / halves,
                         acc);
        }
    }
    EACH_ROW(t) v_store(out[t], acc[t]);
}

// Second terms: n tiles of them.
TILE_INLINE void dot_low(enum fmt f, const struct weight_tile *panel, const struct low_tile *a,
                         uint32_t n_tiles, float (*out)[PANEL_ROWS])
{
    const uint32_t halves = tile_halves(f), n = n_tiles * halves;
    _Alignas(64) int32_t sums[TURN][TILE_ROWS][PANEL_ROWS];
    for (uint32_t i = 0; n > 0 && i < n + USED_AFTER; i += TURN) {
        EACH_STEP(j)
        {
            const uint32_t now = i + j, stored = now - STORED_AFTER, used = now - USED_AFTER;
            const struct low_tile *l = a + used / halves;
            if (now < n)
                multiply(j, a[now / halves].q[0], panel + a[now / halves].block, now % halves);
            if (stored < n) tile_store(stored % TURN, sums[stored % TURN]);
            if (used >= n) continue;
            const lanes_16 d = v_load(panel[l->block].d[used % halves]);
            for (uint32_t t = 0; t < l->n; t++) {
                float *to = out[l->row[t]];
                const lanes_16 scale = v_mul(d, v_set(l->scale[t]));
                v_store(to, v_fma(v_integers(sums[used % TURN][t]), scale, v_load(to)));
            }
        }
    }
}

TILE_INLINE void dot_chunk(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                           uint32_t tile, float (*out)[PANEL_ROWS])
{
    const struct tile_chunk c = a->chunks[tile];
    const size_t at = (size_t)tile * a->n_blocks;
    for (uint32_t t = 0; t * TILE_ROWS < c.n_rows; t++)
        dot_high(f, w, a->high + at + (size_t)t * a->n_blocks, a->n_blocks, out + t * TILE_ROWS);
    dot_low(f, w, a->low + at, c.n_low, out);
}

static void tile_open(enum fmt f, const uint8_t *panel, uint32_t n_blocks, struct weight_tile *to)
{
    switch (f) {
    case FMT_Q8_0: open_panel(FMT_Q8_0, panel, n_blocks, to); break;
    case FMT_Q4_0: open_panel(FMT_Q4_0, panel, n_blocks, to); break;
    case FMT_Q4_K: open_panel(FMT_Q4_K, panel, n_blocks, to); break;
    case FMT_Q5_K: open_panel(FMT_Q5_K, panel, n_blocks, to); break;
    case FMT_Q6_K: open_panel(FMT_Q6_K, panel, n_blocks, to); break;
    default: break;
    }
}

// The tile registers are in use only in here: their state would burden every switch of the thread.
static void tile_dot(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                     uint32_t tile, float (*out)[PANEL_ROWS])
{
    tiles_begin(PACK_QUADS / tile_halves(f));
    switch (f) {
    case FMT_Q6_K: dot_chunk(FMT_Q6_K, w, a, tile, out); break;
    case FMT_Q4_K:
    case FMT_Q5_K: dot_chunk(FMT_Q4_K, w, a, tile, out); break;
    default: dot_chunk(FMT_Q8_0, w, a, tile, out); break;
    }
    tiles_end();
}
