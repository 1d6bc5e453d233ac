// Attention by tiles of 8-bit integers (tile_seam.h): the exact integer sums of kernels.h, of integers split in
// two bytes each, four products for one. As packed_tile.h it is compiled for AMX and, with the instructions
// in C, by a test.
//
// Keys and values are split anew for every tile of q vectors that meets them, which is why tiles are large.
#pragma once

#include "compute/cpu/tile_seam.h"

static inline void split_row(const int16_t *x, size_t n, int8_t *high, int8_t *low)
{
    for (size_t i = 0; i < n; i++) {
        high[i] = (int8_t)(x[i] >> SPLIT_BITS);
        low[i] = (int8_t)(x[i] & ((1 << SPLIT_BITS) - 1));
    }
}

// The vectors of t, once for all blocks of keys that they meet.
static inline void split_queries(struct attend_tile *t)
{
    split_row(t->q, (size_t)t->n * t->head_dim, t->split->q[0], t->split->q[1]);
    t->is_split = true;
}

// A page's keys: tiles of 64 columns by 16 keys. Columns that do not exist are zero.
static inline void split_keys(struct attend_split *s, const struct kv_unit *u, uint32_t dim)
{
    for (uint32_t d = 0; d < dim; d += SPLIT_COLS)
        for (uint32_t g = 0; g < PAGE_TOKENS / 16; g++)
            for (uint32_t i = 0; i < SPLIT_COLS / 4; i++) {
                const int16_t *from = u->k + ((d / 2 + 2 * i) * PAGE_TOKENS + g * 16) * 2;
                int8_t *high = s->k[0][d / SPLIT_COLS][g][i][0];
                int8_t *low = s->k[1][d / SPLIT_COLS][g][i][0];
                if (d + 4 * i < dim) {
                    split_quads(from, from + PAGE_TOKENS * 2, high, low);
                    continue;
                }
                memset(high, 0, 64);
                memset(low, 0, 64);
            }
}

// A block's values: tiles of 64 keys by 16 columns. Keys that do not exist are zero.
static inline void split_values(struct attend_split *s, const struct kv_unit *units,
                                uint32_t n_pages, uint32_t dim)
{
    for (uint32_t d = 0; d < dim; d += 16)
        for (uint32_t i = 0; i < KEY_BLOCK / 4; i++) {
            const uint32_t page = i * 4 / PAGE_TOKENS, pair = i * 2 % (PAGE_TOKENS / 2);
            int8_t *high = s->v[0][d / 16][i][0], *low = s->v[1][d / 16][i][0];
            if (page < n_pages) {
                const int16_t *from = units[page].v + (pair * dim + d) * 2;
                split_quads(from, from + dim * 2, high, low);
                continue;
            }
            memset(high, 0, 64);
            memset(low, 0, 64);
        }
}

// ---- scores -----------------------------------------------------------------------------------
// Here and below, while a pass is multiplied the sums of the pass before are stored, and those of the one
// before that are used.

// A pass: 16 q vectors from `row` on, the keys g * 16 .. g * 16 + 15 of a page, SUM_COLS columns from d on.
struct score_pass {
    uint32_t row, g, d;
};

static inline struct score_pass score_pass(const struct attend_tile *t, uint32_t first, uint32_t i)
{
    const uint32_t n_d = (t->head_dim + SUM_COLS - 1) / SUM_COLS;
    return (struct score_pass){first + i / n_d / 2 * 16, i / n_d % 2, i % n_d * SUM_COLS};
}

static inline void score_multiply(const struct attend_tile *t, struct score_pass p,
                                  int32_t (*old)[16][16])
{
    const struct attend_split *s = t->split;
    const size_t at = (size_t)p.row * t->head_dim + p.d;
    const uint32_t cols = t->head_dim - p.d < SUM_COLS ? t->head_dim - p.d : SUM_COLS;
    const int8_t *const q[2] = {s->q[0] + at, s->q[1] + at};
    const int8_t *const k[2] = {s->k[0][p.d / SPLIT_COLS][p.g][0][0],
                                s->k[1][p.d / SPLIT_COLS][p.g][0][0]};
    tile_multiply_split(q, t->head_dim, k, sizeof s->k[0][0], (cols + SPLIT_COLS - 1) / SPLIT_COLS,
                        old);
}

static inline void score_add(const struct attend_tile *t, const struct kv_unit *u,
                             struct score_pass p, uint32_t n, split_sums sums, float *scores)
{
    const lanes_16 k_scale = v_load(u->k_scales + p.g * 16);
    for (uint32_t i = 0; i < n; i++) {
        float *to = scores + (p.row + i) * KEY_BLOCK + p.g * 16;
        lanes_16 v = v_split_sums(sums, i);
        if (p.d) v = v_add(v_load(to), v);
        if (p.d + SUM_COLS >= t->head_dim)
            v = v_mul(v_mul(v, k_scale), v_set(t->q_scale[p.row + i]));
        v_store(to, v);
    }
}

// scores[i][0 .. 31] of the vectors [first, end) and a page's keys; the keys are split on the way.
static inline void score_page_split(struct attend_tile *t, uint32_t first, uint32_t end,
                                    const struct kv_unit *u, float *scores)
{
    const uint32_t n_d = (t->head_dim + SUM_COLS - 1) / SUM_COLS;
    const uint32_t n = (end - first + 15) / 16 * 2 * n_d;
    _Alignas(64) split_sums sums[2];
    split_keys(t->split, u, t->head_dim);
    for (uint32_t i = 0; i < n + 2; i++) {
        int32_t(*old)[16][16] = i > 0 ? sums[(i - 1) % 2] : NULL;
        if (i < n) score_multiply(t, score_pass(t, first, i), old);
        if (i == n) tile_store_split(old);
        if (i < 2) continue;
        const struct score_pass p = score_pass(t, first, i - 2);
        score_add(t, u, p, end - p.row < 16 ? end - p.row : 16, sums[i % 2], scores);
    }
}

// ---- weighted values --------------------------------------------------------------------------

static inline void value_multiply(const struct attend_tile *t, uint32_t row, uint32_t d,
                                  int32_t (*old)[16][16])
{
    const struct attend_split *s = t->split;
    const int8_t *const p[2] = {s->probs[0][row], s->probs[1][row]};
    const int8_t *const v[2] = {s->v[0][d / 16][0][0], s->v[1][d / 16][0][0]};
    tile_multiply_split(p, KEY_BLOCK, v, 0, 1, old);
}

static inline void value_add(struct attend_tile *t, uint32_t row, uint32_t n, uint32_t d,
                             split_sums sums)
{
    for (uint32_t i = 0; i < n; i++) {
        float *out = t->out + (size_t)(row + i) * t->head_dim + d;
        const lanes_16 old = v_mul(v_load(out), v_set(t->shrink[row + i]));
        v_store(out, v_fma(v_split_sums(sums, i), v_set(t->prob_scale[row + i]), old));
    }
}

// out of the vectors [first, end), shrunk, and a block's values by t->probs.
static inline void add_values_split(struct attend_tile *t, uint32_t first, uint32_t end,
                                    const struct kv_unit *units, uint32_t n_pages)
{
    struct attend_split *s = t->split;
    const uint32_t n_d = t->head_dim / 16, n = (end - first + 15) / 16 * n_d;
    _Alignas(64) split_sums sums[2];
    split_values(s, units, n_pages, t->head_dim);
    split_row(t->probs + first * KEY_BLOCK, (size_t)(end - first) * KEY_BLOCK, s->probs[0][first],
              s->probs[1][first]);
    for (uint32_t i = 0; i < n + 2; i++) {
        int32_t(*old)[16][16] = i > 0 ? sums[(i - 1) % 2] : NULL;
        if (i < n) value_multiply(t, first + i / n_d * 16, i % n_d * 16, old);
        if (i == n) tile_store_split(old);
        if (i < 2) continue;
        const uint32_t row = first + (i - 2) / n_d * 16;
        value_add(t, row, end - row < 16 ? end - row : 16, (i - 2) % n_d * 16, sums[i % 2]);
    }
}
