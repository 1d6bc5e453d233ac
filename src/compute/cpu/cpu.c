// The CPU backend: weights repacked at load where the kernels want that (repack.h), in place from the map
// otherwise; products of integers (kernels.h), KV pages of 32 tokens in 8 bits a value, one run of the
// thread pool per step. Nothing is allocated in a step.
//
// Invariant: work is shared out by output (rows, weight rows, heads), never by what is summed, so the
// thread count and the batch change nothing in a result.
#include "compute/cpu/cpu.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/common/decode.h"

enum { PREFILL_ROWS = 512 };
// What a worker unpacks at once for many rows: 352 KB, beside a chunk of rows in a core's second cache.
enum { MANY_WEIGHT_TILES = 512 };

void cpu_sync(struct cpu_worker *w)
{
    w->phase++;
    w->partition = 0;
    w->n_empty = 0;
    atomic_store_explicit(&w->cpu->shares[w->phase % 2][w->i].taken, 0, memory_order_relaxed);
    if (w->i == 0) atomic_store_explicit(&w->cpu->next_item[w->phase % 2], 0, memory_order_relaxed);
    threads_barrier(w->cpu->threads);
}

uint32_t cpu_take(struct cpu_worker *w)
{
    return atomic_fetch_add_explicit(&w->cpu->next_item[w->phase % 2], 1, memory_order_relaxed);
}

bool cpu_take_share(struct cpu_worker *w, uint32_t total, uint32_t *item)
{
    for (; w->n_empty < w->n; w->n_empty++) {
        const uint32_t of = (w->i + w->n_empty) % w->n;
        atomic_uint *taken = &w->cpu->shares[w->phase % 2][of].taken;
        uint32_t first, end;
        threads_share(total, 1, of, w->n, &first, &end);
        *item = first + atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
        if (*item < end) return true;
    }
    return false;
}

uint32_t cpu_page(const struct batch *b, const struct batch_seq *s, uint32_t pos)
{
    const uint32_t i = pos / PAGE_TOKENS;
    assert(i < s->n_pages && s->page0 + s->n_pages <= b->n_page_ids);
    return b->pages[s->page0 + i];
}

// ---- row-wise ops: each worker does rows [first, end) ------------------------------------------
// Whole groups of rows, as LINEAR quantises them: so no barrier stands between the two.

void cpu_embed(struct cpu_worker *w, const struct op_embed *o, uint32_t first, uint32_t end)
{
    for (uint32_t r = first; r < end; r++) {
        const int32_t token = w->cpu->batch->tokens[r];
        assert(token >= 0 && (uint32_t)token < o->table->n_rows);
        decode_row(o->table->fmt, o->table->weights + (size_t)token * o->table->row_bytes,
                   hostbuf_row(o->out, r), o->table->n_cols);
    }
}

static void do_norm(struct cpu_worker *w, const struct op_rms_norm *o, uint32_t first, uint32_t end)
{
    for (uint32_t r = first; r < end; r++)
        w->cpu->k->rms_norm(hostbuf_row(o->x, r), hostbuf_row(o->w, 0), hostbuf_row(o->out, r),
                            o->x->n_cols, o->eps);
}

static void do_swiglu(struct cpu_worker *w, const struct op_swiglu *o, uint32_t first, uint32_t end)
{
    for (uint32_t r = first; r < end; r++)
        w->cpu->k->swiglu(hostbuf_row(o->gate, r), hostbuf_row(o->up, r), hostbuf_row(o->out, r),
                          o->gate->n_cols);
}

static void do_add(const struct op_add *o, uint32_t first, uint32_t end)
{
    for (uint32_t r = first; r < end; r++) {
        float *restrict x = hostbuf_row(o->x, r);
        const float *restrict y = hostbuf_row(o->y, r);
        for (uint32_t i = 0; i < o->x->n_cols; i++) x[i] += y[i];
    }
}

static void do_gather(struct cpu_worker *w, const struct op_gather *o, uint32_t first, uint32_t end)
{
    for (uint32_t r = first; r < end; r++)
        memcpy(hostbuf_row(o->out, r), hostbuf_row(o->x, w->cpu->batch->out_rows[r]),
               o->x->row_bytes);
}

static void do_topk(struct cpu_worker *w, const struct op_topk *o, uint32_t first, uint32_t end)
{
    for (uint32_t r = first; r < end; r++) {
        float *logits = hostbuf_row(o->logits, r);
        topk_adjust(logits, r, w->cpu->batch);
        topk_select(&w->cpu->k->scan, logits, o->logits->n_cols, o->out->n_cols,
                    (struct topk_row *)(void *)(o->out->data + r * o->out->row_bytes));
    }
}

// ---- rope and KV ----------------------------------------------------------------------------

static float *rope_row(const struct cpu *c, uint32_t row)
{
    return c->rope + row * c->max_rot;
}

// Cosines and sines of a row's position: the same for all layers, so once a step.
void cpu_rope_angles(const struct cpu *c, const struct op_rope_kv *o, uint32_t row, uint32_t pos)
{
    const float *freqs = hostbuf_row(o->freqs, 0);
    float *cosine = rope_row(c, row), *sine = cosine + o->n_rot / 2;
    for (uint32_t i = 0; i < o->n_rot / 2; i++) {
        const float angle = (float)pos * freqs[i];
        cosine[i] = cosf(angle) * o->mscale;
        sine[i] = sinf(angle) * o->mscale;
    }
}

// Pairs of neighbouring elements.
static void rotate_pairs(float *x, const float *c, uint32_t half)
{
    const float *s = c + half;
    for (uint32_t i = 0; i < half; i++) {
        const float u = x[2 * i], v = x[2 * i + 1];
        x[2 * i] = u * c[i] - v * s[i];
        x[2 * i + 1] = v * c[i] + u * s[i];
    }
}

// Pairs of elements half the rotated width apart.
static void rotate_halves(float *x, const float *c, uint32_t half)
{
    float *restrict a = x, *restrict b = x + half;
    const float *restrict s = c + half;
    for (uint32_t i = 0; i < half; i++) {
        const float u = a[i], v = b[i];
        a[i] = u * c[i] - v * s[i];
        b[i] = v * c[i] + u * s[i];
    }
}

static void store_kv(struct cpu_worker *w, const struct op_rope_kv *o, uint32_t row, uint32_t page,
                     uint32_t slot, uint32_t h)
{
    const uint32_t d = o->head_dim;
    int8_t q[MAX_HEAD_DIM];
    const struct kv_unit u = cpu_kv_unit(o->kv, page, o->layer, h);
    u.k_scales[slot] = w->cpu->k->quantize_head(hostbuf_row(o->k, row) + h * d, d, q);
    for (uint32_t i = 0; i < d; i++)
        u.k[(i / 4 * PAGE_TOKENS + slot) * 4 + i % 4] = (uint8_t)(q[i] + KEY_BIAS);
    u.v_scales[slot] = w->cpu->k->quantize_head(hostbuf_row(o->v, row) + h * d, d, q);
    int8_t *v = u.v + slot / 4 * d * 4 + slot % 4;
    for (uint32_t i = 0; i < d; i++) v[4 * i] = q[i];
}

static void rope_head(struct cpu_worker *w, const struct op_rope_kv *o, const struct dbuf *norm,
                      uint32_t row, float *x)
{
    if (norm) w->cpu->k->rms_norm(x, hostbuf_row(norm, 0), x, o->head_dim, o->eps);
    (o->neox ? rotate_halves : rotate_pairs)(x, rope_row(w->cpu, row), o->n_rot / 2);
}

void cpu_rope_head(struct cpu_worker *w, const struct op_rope_kv *o, const struct batch_seq *seq,
                   uint32_t row, uint32_t kv_head)
{
    const uint32_t d = o->head_dim, group = o->n_heads / o->n_kv_heads;
    const uint32_t pos = seq->pos0 + row - seq->row0;
    for (uint32_t h = kv_head * group; h < (kv_head + 1) * group; h++)
        rope_head(w, o, o->q_norm, row, hostbuf_row(o->q, row) + h * d);
    rope_head(w, o, o->k_norm, row, hostbuf_row(o->k, row) + kv_head * d);
    store_kv(w, o, row, cpu_page(w->cpu->batch, seq, pos), pos % PAGE_TOKENS, kv_head);
}

static void do_rope_kv(struct cpu_worker *w, const struct op_rope_kv *o, uint32_t first,
                       uint32_t end)
{
    const struct op_rope_kv *known = w->rope;
    const bool same =
        known && known->freqs == o->freqs && known->n_rot == o->n_rot && known->mscale == o->mscale;
    const struct batch *b = w->cpu->batch;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &b->seqs[i];
        for (uint32_t j = 0; j < s->n_rows; j++) {
            const uint32_t row = s->row0 + j, pos = s->pos0 + j;
            if (row < first || row >= end) continue;
            if (!same) cpu_rope_angles(w->cpu, o, row, pos);
            for (uint32_t h = 0; h < o->n_kv_heads; h++) cpu_rope_head(w, o, s, row, h);
        }
    }
    w->rope = o;
}

// ---- a step ---------------------------------------------------------------------------------

// Rows that a row-wise op is shared out over; 0 for the others.
uint32_t cpu_op_rows(const struct op *op, const struct batch *b)
{
    switch (op->kind) {
    case OP_RMS_NORM: return op->rms_norm.n_rows ? op->rms_norm.n_rows : b->n_rows;
    case OP_LINEAR: return op->linear.n_rows ? op->linear.n_rows : b->n_rows;
    case OP_SWIGLU: return op->swiglu.n_rows ? op->swiglu.n_rows : b->n_rows;
    case OP_ADD: return op->add.n_rows ? op->add.n_rows : b->n_rows;
    case OP_GATHER:
    case OP_TOPK: return b->n_out;
    default: return b->n_rows;
    }
}

static void do_op(struct cpu_worker *w, const struct op *op)
{
    const uint32_t n = cpu_op_rows(op, w->cpu->batch);
    const bool alone = op->kind == OP_GATHER || op->kind == OP_ATTENTION || op->kind == OP_TOPK;
    uint32_t first, end;
    if (n == 0) return;
    if (w->partition && (alone || w->partition != n)) cpu_sync(w);
    threads_share(n, op->kind == OP_TOPK ? 1 : cpu_row_unit(w->cpu, n), w->i, w->n, &first, &end);
    w->partition =
        op->kind == OP_TOPK ? UINT32_MAX : n; // its rows are shared out as no other op's are
    switch (op->kind) {
    case OP_EMBED: cpu_embed(w, &op->embed, first, end); break;
    case OP_RMS_NORM: do_norm(w, &op->rms_norm, first, end); break;
    case OP_ROPE_KV: do_rope_kv(w, &op->rope_kv, first, end); break;
    case OP_SWIGLU: do_swiglu(w, &op->swiglu, first, end); break;
    case OP_ADD: do_add(&op->add, first, end); break;
    case OP_GATHER: do_gather(w, &op->gather, first, end); break;
    case OP_TOPK: do_topk(w, &op->topk, first, end); break;
    case OP_LINEAR: cpu_linear(w, &op->linear); break;
    case OP_ATTENTION: cpu_attention(w, &op->attention, NULL); break;
    case OP_COUNT: break;
    }
    if (op->kind == OP_LINEAR || op->kind == OP_ATTENTION) cpu_sync(w);
}

static void run_step(void *arg, uint32_t i_thread, uint32_t n_threads)
{
    struct cpu *c = arg;
    struct cpu_worker w = {.cpu = c, .s = c->scratch[i_thread], .i = i_thread, .n = n_threads};
    for (uint32_t i = 0, n; i < c->n_ops; i += n) {
        n = cpu_few(&w, c->ops + i, c->n_ops - i);
        if (n > 0) continue;
        do_op(&w, &c->ops[i]);
        n = 1;
    }
}

static bool cpu_submit(struct backend *b, const struct op *ops, uint32_t n_ops,
                       const struct batch *batch, struct err *e)
{
    (void)e;
    struct cpu *c = (struct cpu *)b;
    assert(batch->n_rows <= c->settings.max_rows && batch->n_out <= c->settings.max_out);
    c->ops = ops;
    c->n_ops = n_ops;
    c->batch = batch;
    for (uint32_t i = 0; i < n_ops; i++) {
        if (ops[i].kind != OP_ATTENTION) continue;
        cpu_attention_plan(c, batch, &ops[i].attention);
        break;
    }
    atomic_store_explicit(&c->next_item[0], 0, memory_order_relaxed);
    for (uint32_t i = 0; i < c->n_threads; i++)
        atomic_store_explicit(&c->shares[0][i].taken, 0, memory_order_relaxed);
    threads_run(c->threads, run_step, c);
    return true;
}

static bool cpu_wait(struct backend *b, struct err *e)
{
    (void)b;
    (void)e;
    return true;
}

// ---- memory ---------------------------------------------------------------------------------

static bool grow(void **p, size_t n_bytes)
{
    void *fresh = aligned_alloc(64, (n_bytes + 63) / 64 * 64);
    if (!fresh) return false;
    free(*p);
    *p = fresh;
    return true;
}

static bool fit_acts(struct acts *a, uint32_t n_rows, uint32_t n_blocks)
{
    const size_t n = (size_t)n_rows * n_blocks;
    return grow((void **)&a->q, n * BLOCK_K * sizeof *a->q) &&
           grow((void **)&a->sums, n * BLOCK_K / 16 * sizeof *a->sums) &&
           grow((void **)&a->scales, n * sizeof *a->scales);
}

static bool fit_groups(struct act_groups *g, uint32_t n_rows, uint32_t n_blocks)
{
    const size_t n = (size_t)n_rows * n_blocks;
    const size_t n_group_blocks = (n / ACT_GROUP + n_blocks) * PACK_SUBS;
    return grow((void **)&g->high, n_group_blocks * sizeof *g->high) &&
           grow((void **)&g->low, n * PACK_SUBS * sizeof *g->low) &&
           grow((void **)&g->n_low, n_rows * sizeof *g->n_low);
}

static bool fit_tiles(struct act_tiles *t, uint32_t n_rows, uint32_t n_blocks)
{
    const size_t n_tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS, n = n_tiles * n_blocks * PACK_SUBS;
    return grow((void **)&t->high, n * sizeof *t->high) &&
           grow((void **)&t->low, n * sizeof *t->low) &&
           grow((void **)&t->chunks, n_tiles * sizeof *t->chunks);
}

// One panel at least, and several of short rows.
static bool fit_weight_tiles(struct cpu_scratch *s, uint32_t n_blocks)
{
    const size_t n = (size_t)n_blocks * PACK_SUBS;
    s->n_tiles = n > MANY_WEIGHT_TILES ? n : MANY_WEIGHT_TILES;
    return grow((void **)&s->tiles, s->n_tiles * sizeof *s->tiles);
}

static bool fit_scratch(struct cpu_scratch *s, uint32_t n_blocks)
{
    return grow((void **)&s->panel, n_blocks * sizeof *s->panel) &&
           grow((void **)&s->rows, (size_t)FEW_ROWS * n_blocks * BLOCK_K * sizeof *s->rows) &&
           fit_acts(&s->acts, FEW_ROWS, n_blocks) && fit_groups(&s->groups, FEW_ROWS, n_blocks);
}

static void free_acts(struct acts *a)
{
    free(a->q);
    free(a->sums);
    free(a->scales);
}

static void free_groups(struct act_groups *g)
{
    free(g->high);
    free(g->low);
    free(g->n_low);
}

// Room for rows of n_cols weights: quantised activations, and a panel of them for each worker.
static bool fit_weight(struct cpu *c, uint32_t n_cols)
{
    const uint32_t n_blocks = (n_cols + BLOCK_K - 1) / BLOCK_K;
    if (n_blocks <= c->max_blocks) return true;
    bool ok =
        fit_acts(&c->acts, c->n_rows, n_blocks) && fit_groups(&c->groups, c->n_rows, n_blocks);
    for (uint32_t i = 0; i < c->n_threads && ok; i++) ok = fit_scratch(c->scratch[i], n_blocks);
    if (c->k->tile_dot) ok = ok && fit_tiles(&c->tiles, c->n_rows, n_blocks);
    for (uint32_t i = 0; i < c->n_threads && ok && c->k->tile_dot; i++)
        ok = fit_weight_tiles(c->scratch[i], n_blocks);
    if (ok) c->max_blocks = n_blocks;
    return ok;
}

static bool fit_kv(struct cpu *c, const struct kv_shape *s, struct err *e)
{
    if (s->type != KV_Q8_0)
        return err_set(e, ERR_UNSUPPORTED,
                       "the CPU keeps keys and values in 8 bits: leave --kv-type out, or say q8_0");
    if (s->head_dim % 32 || s->head_dim == 0 || s->head_dim > MAX_HEAD_DIM)
        return err_set(e, ERR_UNSUPPORTED,
                       "head_dim %u: the cpu backend takes multiples of 32 up to %d", s->head_dim,
                       MAX_HEAD_DIM);
    if (s->page_tokens != PAGE_TOKENS)
        return err_set(e, ERR_INTERNAL, "pages of %u tokens asked for, not %d", s->page_tokens,
                       PAGE_TOKENS);
    if (s->head_dim <= c->max_rot) return true;
    if (!grow((void **)&c->rope, (size_t)c->n_rows * s->head_dim * sizeof *c->rope))
        return err_set(e, ERR_MEMORY, "no memory for the rope table");
    c->max_rot = s->head_dim;
    return true;
}

static size_t cpu_size(const struct backend *b, const struct buf_desc *d)
{
    if (d->kind == BUF_WEIGHT)
        return cpu_pack_bytes((const struct cpu *)b, d->fmt, d->n_rows, d->n_cols);
    return hostbuf_size(d, cpu_kv_unit_bytes(&d->kv));
}

static size_t cpu_page_bytes(const struct backend *b, const struct kv_shape *s)
{
    (void)b;
    return hostbuf_page_bytes(s, cpu_kv_unit_bytes(s));
}

// Of 8 bits already.
static struct page_form page_form(const struct backend *b, const struct kv_shape *s)
{
    (void)b, (void)s;
    return (struct page_form){.values = PAGE_OPAQUE};
}

static bool cpu_alloc(struct backend *b, const struct buf_desc *d, struct dbuf **out, struct err *e)
{
    struct cpu *c = (struct cpu *)b;
    if (d->kind == BUF_WEIGHT && !fit_weight(c, d->n_cols))
        return err_set(e, ERR_MEMORY, "%s: no memory to work on rows of %u weights", d->name,
                       d->n_cols);
    if (d->kind == BUF_KV && !fit_kv(c, &d->kv, e)) return false;
    if (!hostbuf_alloc(d, cpu_kv_unit_bytes(&d->kv), out, e)) return false;
    if (d->kind != BUF_WEIGHT || cpu_pack(c, *out, d->name, e)) return true;
    hostbuf_free(b, *out);
    *out = NULL;
    return false;
}

// ---- open, close, info ------------------------------------------------------------------------

static void cpu_close(struct backend *b)
{
    if (!b) return;
    struct cpu *c = (struct cpu *)b;
    threads_close(c->threads);
    for (uint32_t i = 0; i < c->n_threads; i++) {
        if (!c->scratch[i]) continue;
        free(c->scratch[i]->panel);
        free(c->scratch[i]->rows);
        free(c->scratch[i]->tiles);
        free_acts(&c->scratch[i]->acts);
        free_groups(&c->scratch[i]->groups);
        cpu_tile_close(&c->scratch[i]->tile);
        free(c->scratch[i]);
    }
    free_acts(&c->acts);
    free_groups(&c->groups);
    free(c->tiles.high);
    free(c->tiles.low);
    free(c->tiles.chunks);
    free(c->seq_order);
    free(c->attend_groups);
    free(c->rope);
    free(c);
}

static bool open_scratch(struct cpu *c)
{
    c->seq_order = calloc(c->n_rows, sizeof *c->seq_order);
    c->attend_groups = calloc(c->n_rows, sizeof *c->attend_groups);
    if (!c->seq_order || !c->attend_groups) return false;
    for (uint32_t i = 0; i < c->n_threads; i++) {
        c->scratch[i] = aligned_alloc(64, (sizeof *c->scratch[i] + 63) / 64 * 64);
        if (!c->scratch[i]) return false;
        memset(c->scratch[i], 0, sizeof *c->scratch[i]);
        if (!cpu_tile_open(&c->scratch[i]->tile)) return false;
    }
    return true;
}

static bool cpu_open(struct backend **out, const struct backend_settings *s, struct err *e)
{
    struct cpu *c = aligned_alloc(64, (sizeof *c + 63) / 64 * 64);
    if (!c) return err_set(e, ERR_MEMORY, "no memory for the cpu backend");
    *c = (struct cpu){.base.class = &backend_cpu, .settings = *s};
    c->n_rows = s->max_rows > s->max_out ? s->max_rows : s->max_out;
    if (!cpu_isa_choose(&c->k, s->device, e)) goto fail;
    if (!threads_open(&c->threads, s->n_threads, e)) goto fail;
    c->n_threads = threads_count(c->threads);
    if (!open_scratch(c)) {
        err_set(e, ERR_MEMORY, "no memory for the scratch of %u threads", c->n_threads);
        goto fail;
    }
    *out = &c->base;
    return true;
fail:
    cpu_close(&c->base);
    return false;
}

static void cpu_name(char *out, size_t n)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, n, "CPU");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, n, "%.80s", colon + 2);
        break;
    }
    if (f) fclose(f);
}

static void cpu_info(const struct backend *b, struct backend_info *out)
{
    const struct cpu *c = (const struct cpu *)b;
    char name[96];
    cpu_name(name, sizeof name);
    *out = (struct backend_info){.name = "cpu",
                                 .page_tokens = PAGE_TOKENS,
                                 .unified = true,
                                 .prefill_rows = PREFILL_ROWS,
                                 .numerics = c->k->numerics};
    if (out->prefill_rows > c->settings.max_rows) out->prefill_rows = c->settings.max_rows;
    snprintf(out->device, sizeof out->device, "%s (%s), %u threads", name, c->k->isa, c->n_threads);
    hostbuf_memory(&out->mem_total_bytes, &out->mem_free_bytes);
}

const struct backend_class backend_cpu = {
    .name = "cpu",
    .kv_type = KV_Q8_0,
    .open = cpu_open,
    .close = cpu_close,
    .info = cpu_info,
    .size = cpu_size,
    .alloc = cpu_alloc,
    .free = hostbuf_free,
    .read = hostbuf_read,
    .write = hostbuf_write,
    .page_bytes = cpu_page_bytes,
    .page_form = page_form,
    .page_read = hostbuf_page_read,
    .page_copy = hostbuf_page_copy,
    .page_begin = hostbuf_page_begin,
    .page_next = hostbuf_page_next,
    .page_end = hostbuf_page_end,
    .page_prepare = hostbuf_page_prepare,
    .submit = cpu_submit,
    .wait = cpu_wait,
    .ceilings = cpu_ceilings,
};
