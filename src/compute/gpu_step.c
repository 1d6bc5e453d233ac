// What a batch means for the kernels: the position of every row, and attention as a list of work.
// Sequences with few rows (decode steps, short prompts) are cut by keys into items; rows that see the
// same pages share items, so a prefix that several sequences hold is read once for up to eight of
// them. Sequences with many rows become tiles of queries.
// Invariant: cuts depend on absolute positions alone.
#include <stdlib.h>
#include <string.h>

#include "compute/gpu.h"

static const struct {
    size_t entry_bytes;
    uint32_t n_boxed; // entries that the box has room for
} regions[REGION_COUNT] = {
#define R(name, type, n) [REGION_##name] = {sizeof(type), n},
    GPU_REGIONS(R)
#undef R
};

static size_t box_offset(uint32_t r)
{
    size_t at = 0;
    for (uint32_t i = 0; i < r; i++)
        at += (regions[i].entry_bytes * regions[i].n_boxed + 15) / 16 * 16;
    return at;
}

void gpu_step_forget(struct gpu *g)
{
    for (uint32_t i = 0; i < GPU_GRAPHS_MAX; i++) {
        if (g->graphs[i].exec) g->api.graph_exec_destroy(g->graphs[i].exec);
        g->graphs[i] = (struct gpu_graph_entry){0};
    }
}

static bool is_boxed(const struct gpu *g, uint32_t r)
{
    return g->region[r] == g->box + box_offset(r);
}

// The boxes, once: the device's and that of the upload at hand.
static bool open_boxes(struct gpu *g, struct err *e)
{
    const struct gpu_api *a = &g->api;
    struct gpu_upload *up = g->step.up;
    if (!g->box) {
        if (!gpu_ok(a, a->mem_alloc(&g->box, box_offset(REGION_COUNT)), "memory for a batch", e))
            return false;
        for (uint32_t r = 0; r < REGION_COUNT; r++) {
            g->region[r] = g->box + box_offset(r);
            g->region_cap[r] = regions[r].n_boxed;
        }
    }
    if (up->box) return true;
    if (!gpu_ok(a, a->host_alloc(&up->box, box_offset(REGION_COUNT)), "pinned memory for a batch",
                e))
        return false;
    for (uint32_t r = 0; r < REGION_COUNT; r++) {
        up->at[r] = (char *)up->box + box_offset(r);
        up->cap[r] = regions[r].n_boxed;
    }
    return true;
}

static void *own_memory(const struct gpu_upload *up, uint32_t r)
{
    return up->box && up->at[r] == (char *)up->box + box_offset(r) ? NULL : up->at[r];
}

// Room for n entries of a region, on the device and in the pinned copy at hand. Graphs hold the
// device's addresses, so moving a region drops them.
static bool reserve(struct gpu *g, enum gpu_region r, uint32_t n, struct err *e)
{
    const struct gpu_api *a = &g->api;
    struct gpu_upload *up = g->step.up;
    uint32_t cap = 256;
    while (cap < n) cap *= 2;
    if (g->region_cap[r] < n) {
        if (!gpu_ok(a, a->stream_sync(g->stream), "a step on the device", e)) return false;
        gpu_step_forget(g);
        if (g->region[r] && !is_boxed(g, r)) a->mem_free(g->region[r]);
        g->region[r] = 0;
        g->region_cap[r] = 0;
        if (!gpu_ok(a, a->mem_alloc(&g->region[r], cap * regions[r].entry_bytes),
                    "memory for a batch", e))
            return false;
        g->region_cap[r] = cap;
    }
    if (up->cap[r] >= n) return true;
    void *p, *own = own_memory(up, r);
    if (!gpu_ok(a, a->host_alloc(&p, cap * regions[r].entry_bytes), "pinned memory for a batch", e))
        return false;
    memcpy(p, up->at[r], up->n[r] * regions[r].entry_bytes);
    if (own) a->host_free(own);
    up->at[r] = p;
    up->cap[r] = cap;
    return true;
}

static bool put(struct gpu *g, enum gpu_region r, const void *from, uint32_t n, struct err *e)
{
    struct gpu_upload *up = g->step.up;
    if (!reserve(g, r, up->n[r] + n, e)) return false;
    memcpy((char *)up->at[r] + up->n[r] * regions[r].entry_bytes, from, n * regions[r].entry_bytes);
    up->n[r] += n;
    return true;
}

static bool put_adjust(struct gpu *g, const struct batch *b, struct err *e)
{
    if (!put(g, REGION_n_adjust, &b->n_adjust, 1, e)) return false;
    for (uint32_t i = 0; i < b->n_adjust; i++) {
        const struct logit_adjust *a = &b->adjust[i];
        const struct topk_adjust_entry t = {a->out_row, a->token, a->scale, a->add, a->divide};
        if (!put(g, REGION_adjust, &t, 1, e)) return false;
    }
    return reserve(g, REGION_adjust, 1, e);
}

static bool put_rows(struct gpu *g, const struct batch *b, struct err *e)
{
    if (!reserve(g, REGION_rows, b->n_rows, e)) return false;
    struct batch_row *rows = g->step.up->at[REGION_rows];
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &b->seqs[i];
        for (uint32_t r = 0; r < s->n_rows; r++)
            rows[s->row0 + r] = (struct batch_row){s->pos0 + r, s->page0};
    }
    g->step.up->n[REGION_rows] = b->n_rows;
    return true;
}

// ---- attention of few rows --------------------------------------------------------------------

struct split_row {
    uint32_t row, pos, page0, part0;
    uint32_t pos0; // of its sequence in this step: pages before it are as they will be
};

static uint32_t n_splits(uint32_t pos)
{
    return pos / SPLIT_KEYS + 1;
}

static uint32_t keys_in(const struct split_row *r, uint32_t split)
{
    const uint32_t left = r->pos + 1 - split * SPLIT_KEYS;
    return left < SPLIT_KEYS ? left : SPLIT_KEYS;
}

static uint32_t old_pages(const struct split_row *r, uint32_t split)
{
    const uint32_t n = r->pos0 / KV_PAGE_TOKENS, before = split * (SPLIT_KEYS / KV_PAGE_TOKENS);
    return n > before ? n - before : 0;
}

// Do both rows see the same pages in this cut?
static bool same_keys(const struct batch *b, const struct split_row *x, const struct split_row *y,
                      uint32_t split)
{
    enum { PAGES = SPLIT_KEYS / KV_PAGE_TOKENS };
    if (x->page0 == y->page0) return true;
    if (keys_in(x, split) < SPLIT_KEYS || keys_in(y, split) < SPLIT_KEYS) return false;
    return memcmp(b->pages + x->page0 + split * PAGES, b->pages + y->page0 + split * PAGES,
                  PAGES * sizeof *b->pages) == 0;
}

static bool put_split(struct gpu *g, const struct batch *b, const struct split_row *rows,
                      uint32_t n, uint32_t split, uint32_t most, struct attn_wave *w, struct err *e)
{
    bool taken[SPLIT_WAVE_ROWS] = {false};
    for (uint32_t i = 0; i < n; i++) {
        if (taken[i] || n_splits(rows[i].pos) <= split) continue;
        struct attn_item item = {.key0 = split * SPLIT_KEYS,
                                 .table = rows[i].page0 + split * (SPLIT_KEYS / KV_PAGE_TOKENS),
                                 .n_old = UINT32_MAX};
        for (uint32_t j = i; j < n && item.n_queries < most; j++) {
            const struct split_row *r = &rows[j];
            if (taken[j] || n_splits(r->pos) <= split || !same_keys(b, &rows[i], r, split))
                continue;
            const uint32_t q = item.n_queries++;
            taken[j] = true;
            item.row[q] = r->row;
            item.pos[q] = r->pos;
            item.part[q] = n_splits(r->pos) == 1 ? ATTN_WHOLE : r->part0 + split;
            if (keys_in(r, split) > item.n_keys) item.n_keys = keys_in(r, split);
            if (old_pages(r, split) < item.n_old) item.n_old = old_pages(r, split);
        }
        if (item.n_queries > w->most_queries) w->most_queries = item.n_queries;
        if (!put(g, REGION_items, &item, 1, e)) return false;
    }
    return true;
}

static bool put_wave(struct gpu *g, const struct batch *b, const struct split_row *rows, uint32_t n,
                     uint32_t most, struct err *e)
{
    struct gpu_step *s = &g->step;
    struct attn_wave w = {.item0 = s->up->n[REGION_items], .merge0 = s->up->n[REGION_merges]};
    uint32_t last = 0;
    for (uint32_t i = 0; i < n; i++)
        if (n_splits(rows[i].pos) > last) last = n_splits(rows[i].pos);
    for (uint32_t split = 0; split < last; split++)
        if (!put_split(g, b, rows, n, split, most, &w, e)) return false;
    for (uint32_t i = 0; i < n; i++) {
        const struct attn_merge m = {rows[i].row, rows[i].part0, n_splits(rows[i].pos), 0};
        if (m.n_parts > 1 && !put(g, REGION_merges, &m, 1, e)) return false;
    }
    // idle items, so that a graph made for this many serves a step with a few more
    const struct attn_item idle = {0};
    while ((s->up->n[REGION_items] - w.item0) % 32)
        if (!put(g, REGION_items, &idle, 1, e)) return false;
    w.n_items = s->up->n[REGION_items] - w.item0;
    w.n_merges = s->up->n[REGION_merges] - w.merge0;
    if (s->n_waves == s->cap_waves) {
        const uint32_t cap = s->cap_waves ? s->cap_waves * 2 : 8;
        struct attn_wave *p = realloc(s->waves, cap * sizeof *p);
        if (!p) return err_set(e, ERR_MEMORY, "no memory for a batch");
        s->waves = p;
        s->cap_waves = cap;
    }
    s->waves[s->n_waves++] = w;
    return true;
}

static bool is_long(const struct gpu *g, const struct batch_seq *s, uint32_t head_dim)
{
    return s->n_rows > SPLIT_ROWS_MAX && g->cc >= 90 && g->cc < 100 && head_dim == 128;
}

static bool may_pack(const struct gpu *g, const struct op_attention *o, const struct batch_seq *s)
{
    const uint32_t group = o->n_heads / o->n_kv_heads;
    return g->cc >= 90 && g->cc < 100 && o->head_dim == 128 && s->n_rows > 1 &&
           s->n_rows <= SPLIT_ROWS_MAX && 128 % group == 0;
}

bool gpu_step_packs(const struct gpu *g, const struct op_attention *o, const struct batch_seq *s)
{
    return g->step.packs && may_pack(g, o, s);
}

// Is there room for the partial results of all short sequences?
static bool packs_fit(const struct gpu *g, const struct op_attention *o, const struct batch *b)
{
    uint64_t parts = 0;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &b->seqs[i];
        const uint64_t n_splits_here = (s->pos0 + s->n_rows - 1) / PACK_KEYS + 1;
        if (may_pack(g, o, s)) parts += s->n_rows * n_splits_here;
    }
    return parts <= SPLIT_PARTS_MAX;
}

static bool put_splits(struct gpu *g, const struct op_attention *o, const struct batch *b,
                       struct err *e)
{
    struct split_row rows[SPLIT_WAVE_ROWS];
    const uint32_t group = o->n_heads / o->n_kv_heads;
    uint32_t n = 0, parts = 0, most = SPLIT_HEADS_MAX / group;
    if (most == 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%u query heads share a key/value head, the GPU's kernels take %u at most: "
                       "use --device cpu",
                       group, SPLIT_HEADS_MAX);
    if (most > SPLIT_QUERIES) most = SPLIT_QUERIES;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &b->seqs[i];
        if (is_long(g, s, o->head_dim) || gpu_step_packs(g, o, s)) continue;
        for (uint32_t r = 0; r < s->n_rows; r++) {
            const uint32_t pos = s->pos0 + r;
            if (n == SPLIT_WAVE_ROWS || (n && parts + n_splits(pos) > SPLIT_PARTS_MAX)) {
                if (!put_wave(g, b, rows, n, most, e)) return false;
                n = parts = 0;
            }
            rows[n++] = (struct split_row){s->row0 + r, pos, s->page0, parts, s->pos0};
            parts += n_splits(pos);
        }
    }
    return n == 0 || put_wave(g, b, rows, n, most, e);
}

// ---- attention of many rows -------------------------------------------------------------------

static int by_keys(const void *a, const void *b)
{
    const struct attn_tile *x = a, *y = b;
    const uint32_t p = x->pos0 + x->n_rows, q = y->pos0 + y->n_rows;
    return p < q ? 1 : p > q ? -1 : x->row0 < y->row0 ? -1 : x->row0 > y->row0;
}

// Where a sequence's page table is for the kernels for many rows: its own, or for q8_0 that of its pages in
// the scratch, one after another.
static bool put_table(struct gpu *g, const struct op_attention *o, const struct batch_seq *s,
                      uint32_t *table, struct err *e)
{
    struct gpu_step *step = &g->step;
    step->flash = true;
    *table = s->page0;
    if (o->kv->kv.type != KV_Q8_0) return true;
    *table = step->up->n[REGION_pages];
    for (uint32_t n = (s->pos0 + s->n_rows - 1) / KV_PAGE_TOKENS + 1; n > 0; n--, step->kv_pages++)
        if (!put(g, REGION_pages, &step->kv_pages, 1, e)) return false;
    return true;
}

static bool put_packs(struct gpu *g, const struct op_attention *o, const struct batch_seq *s,
                      uint32_t *part0, struct err *e)
{
    const uint32_t most = 128 / (o->n_heads / o->n_kv_heads);
    uint32_t table;
    if (!put_table(g, o, s, &table, e)) return false;
    for (uint32_t r = 0; r < s->n_rows; r += most) {
        const uint32_t n = s->n_rows - r < most ? s->n_rows - r : most, end = s->pos0 + r + n;
        struct attn_pack p = {.row0 = s->row0 + r,
                              .n_rows = n,
                              .pos0 = s->pos0 + r,
                              .table = table,
                              .part0 = *part0,
                              .n_splits = (end - 1) / PACK_KEYS + 1};
        for (p.key0 = 0; p.key0 < end; p.key0 += PACK_KEYS) {
            p.n_keys = end - p.key0 < PACK_KEYS ? end - p.key0 : PACK_KEYS;
            if (!put(g, REGION_packs, &p, 1, e)) return false;
        }
        for (uint32_t i = 0; i < n; i++) {
            const struct attn_merge m = {p.row0 + i, *part0 + i * p.n_splits, p.n_splits, 0};
            if (!put(g, REGION_merges, &m, 1, e)) return false;
        }
        *part0 += n * p.n_splits;
        g->step.n_pack_merges += n;
    }
    return true;
}

static bool put_long(struct gpu *g, const struct op_attention *o, const struct batch_seq *s,
                     struct err *e)
{
    uint32_t table;
    if (!put_table(g, o, s, &table, e)) return false;
    for (uint32_t r = 0; r < s->n_rows; r += FLASH_ROWS) {
        const uint32_t n = s->n_rows - r < FLASH_ROWS ? s->n_rows - r : FLASH_ROWS;
        const struct attn_tile t = {s->row0 + r, n, s->pos0 + r, table};
        if (!put(g, REGION_tiles, &t, 1, e)) return false;
    }
    return true;
}

// Tiles with the most keys first, so that the last ones to start are short.
static bool put_tiles(struct gpu *g, const struct op_attention *o, const struct batch *b,
                      struct err *e)
{
    struct gpu_upload *up = g->step.up;
    uint32_t part0 = 0;
    g->step.pack_merge0 = up->n[REGION_merges];
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &b->seqs[i];
        if (is_long(g, s, o->head_dim)) {
            if (!put_long(g, o, s, e)) return false;
        } else if (gpu_step_packs(g, o, s) && !put_packs(g, o, s, &part0, e)) {
            return false;
        }
    }
    if (up->n[REGION_tiles])
        qsort(up->at[REGION_tiles], up->n[REGION_tiles], sizeof(struct attn_tile), by_keys);
    return true;
}

static const struct op_attention *first_attention(const struct op *ops, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ops[i].kind == OP_ATTENTION) return &ops[i].attention;
    return NULL;
}

static bool send_bytes(struct gpu *g, gpu_ptr to, const void *from, size_t n, struct err *e)
{
    return gpu_ok(&g->api, g->api.to_device(to, from, n, g->stream), "sending a batch", e);
}

static bool send(struct gpu *g, struct err *e)
{
    struct gpu_upload *up = g->step.up;
    size_t first = SIZE_MAX, end = 0; // of what the box holds
    for (uint32_t r = 0; r < REGION_COUNT; r++) {
        const size_t n = up->n[r] * regions[r].entry_bytes, at = box_offset(r);
        if (n == 0) continue;
        if (!is_boxed(g, r) || own_memory(up, r)) {
            if (!send_bytes(g, g->region[r], up->at[r], n, e)) return false;
            continue;
        }
        if (first == SIZE_MAX) first = at;
        end = at + n;
    }
    if (end > 0 && !send_bytes(g, g->box + first, (char *)up->box + first, end - first, e))
        return false;
    up->used = true;
    return gpu_ok(&g->api, g->api.event_record(up->done, g->stream), "sending a batch", e);
}

bool gpu_step_prepare(struct gpu *g, const struct op *ops, uint32_t n_ops, const struct batch *b,
                      struct err *e)
{
    struct gpu_step *s = &g->step;
    struct gpu_upload *up = &g->uploads[g->i_upload++ % GPU_UPLOADS];
    const struct op_attention *o = first_attention(ops, n_ops);
    if (!up->done &&
        !gpu_ok(&g->api, g->api.event_create(&up->done, GPU_EVENT_NO_TIMING), "an event", e))
        return false;
    if (up->used && !gpu_ok(&g->api, g->api.event_sync(up->done), "a step on the device", e))
        return false;
    memset(up->n, 0, sizeof up->n);
    s->batch = b;
    s->up = up;
    if (!open_boxes(g, e)) return false;
    s->n_waves = s->kv_pages = s->n_pack_merges = 0;
    s->flash = false;
    if (!put(g, REGION_tokens, b->tokens, b->n_rows, e) || !put_rows(g, b, e) ||
        !put(g, REGION_out_rows, b->out_rows, b->n_out, e) || !put_adjust(g, b, e) ||
        !put(g, REGION_pages, b->pages, b->n_page_ids, e))
        return false;
    s->packs = o && packs_fit(g, o, b);
    if (o && (!put_splits(g, o, b, e) || !put_tiles(g, o, b, e))) return false;
    return send(g, e);
}

void gpu_step_close(struct gpu *g)
{
    gpu_step_forget(g);
    for (uint32_t r = 0; r < REGION_COUNT; r++) {
        if (g->region[r] && !is_boxed(g, r)) g->api.mem_free(g->region[r]);
        for (uint32_t i = 0; i < GPU_UPLOADS; i++)
            if (own_memory(&g->uploads[i], r)) g->api.host_free(own_memory(&g->uploads[i], r));
    }
    if (g->box) g->api.mem_free(g->box);
    for (uint32_t i = 0; i < GPU_UPLOADS; i++) {
        if (g->uploads[i].box) g->api.host_free(g->uploads[i].box);
        if (g->uploads[i].done) g->api.event_destroy(g->uploads[i].done);
    }
    free(g->step.waves);
}
