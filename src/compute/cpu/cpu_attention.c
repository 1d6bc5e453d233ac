// ATTENTION: workers take items of (kv head, some rows). All q heads of the kv head's group (or a part of them,
// where a tile does not hold all) and all rows of the item share a pass over the keys, block by absolute
// block. The rows are a tile of one sequence, or the single rows of decoding sequences that begin with the
// same pages: what they share is then read once for all of them, and what is their own follows one by
// one. A row meets the same blocks in the same order either way.
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compute/cpu/cpu.h"

size_t cpu_kv_unit_bytes(const struct kv_shape *s)
{
    const size_t one = (size_t)PAGE_TOKENS * (s->head_dim + sizeof(float));
    return 2 * one;
}

struct kv_unit cpu_kv_unit(const struct dbuf *kv, uint32_t page, uint32_t layer, uint32_t head)
{
    assert(page < kv->kv.n_pages);
    unsigned char *p = hostbuf_kv(kv, page, layer, head);
    const size_t vectors = (size_t)PAGE_TOKENS * kv->kv.head_dim;
    float *scales = (float *)(void *)(p + 2 * vectors);
    return (struct kv_unit){p, (int8_t *)p + vectors, scales, scales + PAGE_TOKENS};
}

bool cpu_tile_open(struct attend_tile *t)
{
    const size_t n = (size_t)Q_TILE * MAX_HEAD_DIM;
    t->q = aligned_alloc(64, n * sizeof *t->q);
    t->out = aligned_alloc(64, n * sizeof *t->out);
    t->scores = aligned_alloc(64, Q_TILE * KEY_BLOCK * sizeof *t->scores);
    if (t->scores) memset(t->scores, 0, Q_TILE * KEY_BLOCK * sizeof *t->scores);
    return t->q && t->out && t->scores;
}

void cpu_tile_close(struct attend_tile *t)
{
    free(t->q);
    free(t->out);
    free(t->scores);
    *t = (struct attend_tile){0};
}

// ---- which sequences go together --------------------------------------------------------------

// How many leading pages a and b have in common, of those that are full for both.
static uint32_t common_pages(const struct batch *b, const struct batch_seq *x,
                             const struct batch_seq *y)
{
    const uint32_t *p = b->pages + x->page0, *q = b->pages + y->page0;
    const uint32_t pos = x->pos0 < y->pos0 ? x->pos0 : y->pos0, n = pos / PAGE_TOKENS;
    uint32_t i = 0;
    while (i < n && p[i] == q[i]) i++;
    return i;
}

// How the q heads of a kv head are shared out: n_parts of n_heads each, the last one perhaps of fewer.
struct head_parts {
    uint32_t n_parts, n_heads;
};

static struct head_parts head_parts(const struct op_attention *o)
{
    const uint32_t group = o->n_heads / o->n_kv_heads, n = (group + Q_TILE - 1) / Q_TILE;
    return (struct head_parts){n, (group + n - 1) / n};
}

// Sequences that may join a group: as many as a tile holds, and few enough that no worker is idle.
static uint32_t group_limit(const struct cpu *c, const struct batch *b,
                            const struct op_attention *o)
{
    const struct head_parts p = head_parts(o);
    const uint32_t fit = Q_TILE / p.n_heads;
    const uint32_t fair = b->n_seqs * o->n_kv_heads * p.n_parts / c->n_threads;
    const uint32_t n = fit < fair ? fit : fair;
    return n > 0 ? n : 1;
}

// All later sequences that share at least half of what the group has in common so far join it.
static void fill_group(struct cpu *c, const struct batch *b, uint32_t first, uint32_t limit,
                       struct attend_group *g)
{
    const struct batch_seq *head = &b->seqs[c->seq_order[first]];
    uint32_t shared = head->pos0 / PAGE_TOKENS;
    *g = (struct attend_group){.first = first, .n = 1};
    if (head->n_rows != 1) return;
    for (uint32_t i = first + 1; i < b->n_seqs && g->n < limit; i++) {
        const uint32_t s = c->seq_order[i];
        const uint32_t n = b->seqs[s].n_rows == 1 ? common_pages(b, head, &b->seqs[s]) : 0;
        if (n < KEY_PAGES || n < shared / 2) continue;
        shared = n < shared ? n : shared; // of all in the group
        c->seq_order[i] = c->seq_order[first + g->n];
        c->seq_order[first + g->n++] = s;
    }
    if (g->n > 1) g->shared = shared / KEY_PAGES * KEY_BLOCK;
}

void cpu_attention_plan(struct cpu *c, const struct batch *b, const struct op_attention *o)
{
    const uint32_t limit = group_limit(c, b, o);
    for (uint32_t i = 0; i < b->n_seqs; i++) c->seq_order[i] = i;
    c->n_groups = 0;
    for (uint32_t i = 0; i < b->n_seqs; i += c->attend_groups[c->n_groups++].n)
        fill_group(c, b, i, limit, &c->attend_groups[c->n_groups]);
}

// ---- items ------------------------------------------------------------------------------------

struct item {
    const struct batch_seq *seqs;
    const uint32_t *order; // [n_seqs] which of seqs
    uint32_t n_seqs;
    uint32_t row0, n_rows; // of the one sequence; or 0 and 1 of each
    uint32_t shared;       // keys that all have in common, whole blocks; 0 for one sequence
    uint32_t kv_head;
    uint32_t head0, n_heads; // q heads, all of kv_head's group
};

// Item number i of the batch, long ones first within a sequence; false when there are no more.
static bool find_item(const struct cpu *c, const struct op_attention *o, uint32_t i,
                      struct item *out)
{
    const struct head_parts p = head_parts(o);
    const uint32_t group = o->n_heads / o->n_kv_heads, tile_rows = Q_TILE / p.n_heads;
    const uint32_t n_slices = o->n_kv_heads * p.n_parts; // of a tile of rows
    for (uint32_t k = 0; k < c->n_groups; k++) {
        const struct attend_group *g = &c->attend_groups[k];
        const uint32_t *order = c->seq_order + g->first;
        const uint32_t n_rows = c->batch->seqs[order[0]].n_rows;
        const uint32_t n_tiles = (n_rows + tile_rows - 1) / tile_rows;
        if (i >= n_tiles * n_slices) {
            i -= n_tiles * n_slices;
            continue;
        }
        const uint32_t row0 = (n_tiles - 1 - i / n_slices) * tile_rows, left = n_rows - row0;
        const uint32_t kv_head = i % n_slices / p.n_parts, head = i % p.n_parts * p.n_heads;
        *out = (struct item){.seqs = c->batch->seqs,
                             .order = order,
                             .n_seqs = g->n,
                             .row0 = row0,
                             .n_rows = left < tile_rows ? left : tile_rows,
                             .shared = g->shared,
                             .kv_head = kv_head,
                             .head0 = kv_head * group + head,
                             .n_heads = group - head < p.n_heads ? group - head : p.n_heads};
        return true;
    }
    return false;
}

static uint32_t item_rows(const struct item *it)
{
    return it->n_seqs * it->n_rows;
}

static const struct batch_seq *item_seq(const struct item *it, uint32_t r)
{
    return &it->seqs[it->order[r / it->n_rows]];
}

// Row r of the item within its sequence.
static uint32_t item_row(const struct item *it, uint32_t r)
{
    return it->row0 + r % it->n_rows;
}

// Where vector v of the tile lies in d, which has q's form: head v % n_heads of row v / n_heads, so that heads of
// a row stand together.
static float *item_vector(const struct op_attention *o, const struct item *it, const struct dbuf *d,
                          uint32_t v)
{
    const uint32_t r = v / it->n_heads, row = item_seq(it, r)->row0 + item_row(it, r);
    return hostbuf_row(d, row) + (it->head0 + v % it->n_heads) * o->head_dim;
}

static void load_queries(struct cpu_worker *w, const struct op_attention *o, const struct item *it)
{
    struct attend_tile *t = &w->s->tile;
    t->n = item_rows(it) * it->n_heads;
    t->head_dim = o->head_dim;
    for (uint32_t v = 0; v < t->n; v++) {
        const float *q = item_vector(o, it, o->q, v);
        const float scale =
            w->cpu->k->quantize_query(q, o->head_dim, t->q + v * o->head_dim, &t->q_bias[v]);
        t->q_scale[v] = scale * o->scale * 1.44269504f; // softmax by powers of two
        t->max[v] = -INFINITY;
        t->mass[v] = 0;
        memset(t->sum[v], 0, sizeof t->sum[v]);
    }
    memset(t->out, 0, (size_t)t->n * o->head_dim * sizeof *t->out);
}

static void store_rows(struct cpu_worker *w, const struct op_attention *o, const struct item *it)
{
    const struct attend_tile *t = &w->s->tile;
    for (uint32_t v = 0; v < t->n; v++) {
        float s[8];
        for (int i = 0; i < 8; i++) s[i] = t->sum[v][i] + t->sum[v][i + 8];
        const float sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
        w->cpu->k->rotate_back(t->out + v * o->head_dim, o->head_dim, 1.0f / sum,
                               item_vector(o, it, o->out, v));
    }
}

// Units of the block that begins with `key`; returns how many.
static uint32_t find_units(const struct op_attention *o, const struct batch *b,
                           const struct batch_seq *seq, uint32_t kv_head, uint32_t key,
                           uint32_t n_keys, struct kv_unit units[KEY_PAGES])
{
    uint32_t n = 0;
    for (uint32_t k = key; k < n_keys && n < KEY_PAGES; k += PAGE_TOKENS)
        units[n++] = cpu_kv_unit(o->kv, cpu_page(b, seq, k), o->layer, kv_head);
    return n;
}

// The keys and values from `key` on into the second-level cache while the block before is worked on:
// a unit is some 8 KB at a distance of all layers from the next, which no hardware prefetcher foresees.
static void prefetch_block(const struct op_attention *o, const struct batch *b,
                           const struct batch_seq *seq, uint32_t kv_head, uint32_t key,
                           uint32_t n_keys)
{
    for (uint32_t k = key; k < n_keys && k < key + KEY_BLOCK; k += PAGE_TOKENS) {
        const unsigned char *p = hostbuf_kv(o->kv, cpu_page(b, seq, k), o->layer, kv_head);
        for (size_t i = 0; i < o->kv->unit_bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
    }
}

// Rows [first, end) of the item meet the keys [key, n_keys) of their sequence, the first of them
// standing for all.
static void attend_keys(struct cpu_worker *w, const struct op_attention *o, const struct item *it,
                        uint32_t first, uint32_t end, uint32_t key, uint32_t n_keys)
{
    struct attend_tile *t = &w->s->tile;
    const struct batch *b = w->cpu->batch;
    const struct batch_seq *seq = item_seq(it, first);
    for (; key < n_keys; key += KEY_BLOCK) {
        const uint32_t next = key + KEY_BLOCK;
        struct kv_unit units[KEY_PAGES];
        const uint32_t n_pages = find_units(o, b, seq, it->kv_head, key, n_keys, units);
        if (w->cpu->k->asks_ahead)
            t->n_ahead = find_units(o, b, seq, it->kv_head, next, n_keys, t->ahead);
        else
            prefetch_block(o, b, seq, it->kv_head, next, n_keys);
        for (uint32_t r = first; r < end; r++) {
            const uint32_t n_seen = item_seq(it, r)->pos0 + item_row(it, r) + 1;
            const uint32_t n = n_seen > key ? n_seen - key : 0;
            for (uint32_t v = r * it->n_heads; v < (r + 1) * it->n_heads; v++)
                t->n_visible[v] = n < KEY_BLOCK ? n : KEY_BLOCK;
        }
        w->cpu->k->attend(t, first * it->n_heads, end * it->n_heads, units, n_pages);
    }
}

static void do_item(struct cpu_worker *w, const struct op_attention *o,
                    const struct op_rope_kv *rope, const struct item *it)
{
    for (uint32_t r = 0; rope && r < item_rows(it); r++)
        cpu_rope_head(w, rope, item_seq(it, r), item_seq(it, r)->row0, it->kv_head);
    load_queries(w, o, it);
    if (it->shared > 0) attend_keys(w, o, it, 0, item_rows(it), 0, it->shared);
    for (uint32_t r = 0; r < item_rows(it); r += it->n_rows) {
        const uint32_t n_keys = item_seq(it, r)->pos0 + it->row0 + it->n_rows;
        attend_keys(w, o, it, r, r + it->n_rows, it->shared, n_keys);
    }
    store_rows(w, o, it);
}

void cpu_attention(struct cpu_worker *w, const struct op_attention *o,
                   const struct op_rope_kv *rope)
{
    struct item it;
    assert(!rope || head_parts(o).n_parts == 1); // who attends first makes the keys
    while (find_item(w->cpu, o, cpu_take(w), &it)) do_item(w, o, rope, &it);
}
