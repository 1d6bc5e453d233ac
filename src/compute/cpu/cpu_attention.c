// ATTENTION: workers take items of (kv head, some rows of one sequence). All q heads of the kv head's
// group and all rows of the item share a pass over the keys, block by absolute block.
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compute/cpu/cpu.h"

size_t cpu_kv_unit_bytes(const struct kv_shape *s)
{
    const size_t one = (size_t)PAGE_TOKENS * (s->head_dim * sizeof(int16_t) + sizeof(float));
    return 2 * one;
}

struct kv_unit cpu_kv_unit(const struct dbuf *kv, uint32_t page, uint32_t layer, uint32_t head)
{
    assert(page < kv->kv.n_pages);
    unsigned char *p = hostbuf_kv(kv, page, layer, head);
    const size_t vectors = (size_t)PAGE_TOKENS * kv->kv.head_dim * sizeof(int16_t);
    float *scales = (float *)(void *)(p + 2 * vectors);
    return (struct kv_unit){(int16_t *)(void *)p, (int16_t *)(void *)(p + vectors), scales,
                            scales + PAGE_TOKENS};
}

bool cpu_tile_open(struct attend_tile *t)
{
    const size_t n = (size_t)Q_TILE * MAX_HEAD_DIM;
    t->q = aligned_alloc(64, n * sizeof *t->q);
    t->out = aligned_alloc(64, n * sizeof *t->out);
    t->scores = aligned_alloc(64, Q_TILE * KEY_BLOCK * sizeof *t->scores);
    t->probs = aligned_alloc(64, Q_TILE * KEY_BLOCK * sizeof *t->probs);
    if (t->scores) memset(t->scores, 0, Q_TILE * KEY_BLOCK * sizeof *t->scores);
    return t->q && t->out && t->scores && t->probs;
}

void cpu_tile_close(struct attend_tile *t)
{
    free(t->q);
    free(t->out);
    free(t->scores);
    free(t->probs);
    *t = (struct attend_tile){0};
}

struct item {
    const struct batch_seq *seq;
    uint32_t row0, n_rows; // within the sequence's rows
    uint32_t kv_head;
};

// Item number i of the batch, long ones first within a sequence; false when there are no more.
static bool find_item(const struct batch *b, uint32_t tile_rows, uint32_t n_kv_heads, uint32_t i,
                      struct item *out)
{
    for (uint32_t s = 0; s < b->n_seqs; s++) {
        const struct batch_seq *seq = &b->seqs[s];
        const uint32_t n_tiles = (seq->n_rows + tile_rows - 1) / tile_rows;
        if (i >= n_tiles * n_kv_heads) {
            i -= n_tiles * n_kv_heads;
            continue;
        }
        const uint32_t row0 = (n_tiles - 1 - i / n_kv_heads) * tile_rows, left = seq->n_rows - row0;
        *out = (struct item){seq, row0, left < tile_rows ? left : tile_rows, i % n_kv_heads};
        return true;
    }
    return false;
}

// Vector v of the tile is head v % group of row v / group, so that heads of a row stand together.
static void load_queries(struct cpu_worker *w, const struct op_attention *o, const struct item *it)
{
    struct attend_tile *t = &w->s->tile;
    const uint32_t group = o->n_heads / o->n_kv_heads;
    t->n = it->n_rows * group;
    t->head_dim = o->head_dim;
    for (uint32_t v = 0; v < t->n; v++) {
        const uint32_t row = it->seq->row0 + it->row0 + v / group;
        const uint32_t head = it->kv_head * group + v % group;
        const float *q = hostbuf_row(o->q, row) + head * o->head_dim;
        const float scale = w->cpu->k->quantize_head(q, o->head_dim, t->q + v * o->head_dim);
        t->q_scale[v] = scale * o->scale * 1.44269504f; // softmax by powers of two
        t->max[v] = -INFINITY;
        memset(t->sum[v], 0, sizeof t->sum[v]);
    }
    memset(t->out, 0, (size_t)t->n * o->head_dim * sizeof *t->out);
}

static void store_rows(struct cpu_worker *w, const struct op_attention *o, const struct item *it)
{
    const struct attend_tile *t = &w->s->tile;
    const uint32_t group = o->n_heads / o->n_kv_heads;
    for (uint32_t v = 0; v < t->n; v++) {
        const uint32_t row = it->seq->row0 + it->row0 + v / group;
        float *out = hostbuf_row(o->out, row) + (it->kv_head * group + v % group) * o->head_dim;
        const float *s = t->sum[v];
        const float sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
        const float inverse = 1.0f / sum;
        for (uint32_t d = 0; d < o->head_dim; d++) out[d] = t->out[v * o->head_dim + d] * inverse;
    }
}

// The keys and values from `key` on into the second-level cache while the block before is worked on:
// a unit is 16 KB at a distance of all layers from the next, which no hardware prefetcher foresees.
static void prefetch_block(const struct op_attention *o, const struct batch *b,
                           const struct item *it, uint32_t key, uint32_t last)
{
    for (uint32_t k = key; k <= last && k < key + KEY_BLOCK; k += PAGE_TOKENS) {
        const unsigned char *p = hostbuf_kv(o->kv, cpu_page(b, it->seq, k), o->layer, it->kv_head);
        for (size_t i = 0; i < o->kv->unit_bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
    }
}

static void do_item(struct cpu_worker *w, const struct op_attention *o, const struct item *it)
{
    struct attend_tile *t = &w->s->tile;
    const struct batch *b = w->cpu->batch;
    const uint32_t group = o->n_heads / o->n_kv_heads;
    const uint32_t pos0 = it->seq->pos0 + it->row0, last = pos0 + it->n_rows - 1;
    load_queries(w, o, it);
    for (uint32_t key = 0; key <= last; key += KEY_BLOCK) {
        struct kv_unit units[KEY_PAGES];
        uint32_t n_pages = 0;
        for (uint32_t k = key; k <= last && n_pages < KEY_PAGES; k += PAGE_TOKENS)
            units[n_pages++] = cpu_kv_unit(o->kv, cpu_page(b, it->seq, k), o->layer, it->kv_head);
        prefetch_block(o, b, it, key + KEY_BLOCK, last);
        for (uint32_t v = 0; v < t->n; v++) {
            const uint32_t pos = pos0 + v / group, n = pos + 1 > key ? pos + 1 - key : 0;
            t->n_visible[v] = n < KEY_BLOCK ? n : KEY_BLOCK;
        }
        w->cpu->k->attend(t, units, n_pages);
    }
    store_rows(w, o, it);
}

void cpu_attention(struct cpu_worker *w, const struct op_attention *o)
{
    const uint32_t group = o->n_heads / o->n_kv_heads;
    assert(group > 0 && group <= Q_TILE);
    const uint32_t tile_rows = Q_TILE / group;
    struct item it;
    while (find_item(w->cpu->batch, tile_rows, o->n_kv_heads, cpu_take(w), &it)) do_item(w, o, &it);
}
