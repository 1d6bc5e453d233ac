// Times ops over the backend seam, one kind at a time, in the shapes of a real model: so one program
// judges every backend. What an op moves and computes is counted here from its definition; percent is
// the time that the device's ceilings allow, over the time it took.
//
// A list repeats an op over copies of its weights, so that caches do not serve what a model's next
// layer would not find there. Not here: whether results are right (tests/ops).
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/half.h"
#include "compute/backend.h"
#include "engine/engine.h"

enum {
    LISTS_MAX = 128,         // times an op stands in a list
    OPS_MAX = 2 * LISTS_MAX, // with its partner
    COPY_BYTES = 300 << 20,  // of weights in a list: more than any cache
    SUBMIT_MS = 10,          // that a list should take at least
    ROW_MS = 120,            // that a row of the table should take at least,
    ROW_RUNS = 3,            // at so many submits,
    ROW_MS_MAX = 1500,       // but not when it is that slow
    SEQS = 8,
    LAYERS = 4,
    DEPTH_SMALL = 4096,
    DEPTH_LARGE = 14336, // keys behind an attention row
    LARGE_ROWS = 1024,   // a device that wants more rows than this a step is large
};

struct shape {
    const char *name;
    uint32_t n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab;
};

static const struct shape shapes[] = {
    {"0.6b", 1024, 3072, 16, 8, 128, 151936},
    {"8b", 4096, 12288, 32, 8, 128, 151936},
    {"32b", 5120, 25600, 64, 8, 128, 151936},
};

static const uint32_t row_counts[] = {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 8192};
enum { N_ROW_COUNTS = sizeof row_counts / sizeof *row_counts };

struct bench {
    const struct engine_ops_settings *s;
    struct backend *b;
    const struct backend_class *class;
    struct backend_info info;
    struct backend_ceilings ceilings;
    struct shape shape;
    uint32_t n_q, n_kv, max_rows, depth;
    struct dbuf *stream, *h, *up[2], *q, *k, *v, *o, *logits, *topk, *freqs, *norm;
    struct op ops[OPS_MAX];
    uint32_t n_ops;
    struct batch batch;
    int32_t *tokens;    // [max_rows]
    uint32_t *out_rows; // [max_rows]
    uint32_t *pages;    // [SEQS * pages of depth + max_rows]
    struct batch_seq seqs[SEQS];
    uint64_t random;
};

static uint64_t random_bits(struct bench *b)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random;
}

// ---- buffers ------------------------------------------------------------------------------------

static bool take(struct bench *b, const struct buf_desc *d, struct dbuf **out, struct err *e)
{
    return b->class->alloc(b->b, d, out, e);
}

static void give(struct bench *b, struct dbuf *d)
{
    if (d != NULL) b->class->free(b->b, d);
}

static size_t row_bytes(struct bench *b, enum buf_kind kind, uint32_t n_cols)
{
    const struct buf_desc d = {.kind = kind, .n_rows = 1024, .n_cols = n_cols, .source.fd = -1};
    return b->class->size(b->b, &d) / 1024;
}

// Activations with random values of about 1.
static bool take_rows(struct bench *b, enum buf_kind kind, uint32_t rows, uint32_t cols,
                      struct dbuf **out, struct err *e)
{
    const struct buf_desc d = {
        .kind = kind, .n_rows = rows, .n_cols = cols, .source.fd = -1, .name = "activations"};
    if (!take(b, &d, out, e)) return false;
    if (kind == BUF_TOPK) return true;
    const uint32_t at_once = rows < 64 ? rows : 64;
    float *x = malloc((size_t)at_once * cols * sizeof *x);
    if (x == NULL) return err_set(e, ERR_MEMORY, "no memory for %u rows of %u", at_once, cols);
    for (size_t i = 0; i < (size_t)at_once * cols; i++)
        x[i] = (float)(int32_t)(random_bits(b) >> 32) * 0x1p-30f;
    bool ok = true;
    for (uint32_t r = 0; r < rows && ok; r += at_once)
        ok = b->class->write(b->b, *out, r, rows - r < at_once ? rows - r : at_once, x, e);
    free(x);
    return ok;
}

static bool take_vector(struct bench *b, uint32_t n, struct dbuf **out, struct err *e)
{
    static float ones[32768];
    for (uint32_t i = 0; i < n; i++) ones[i] = 1;
    const struct buf_desc d = {.kind = BUF_VECTOR,
                               .fmt = FMT_F32,
                               .n_rows = 1,
                               .n_cols = n,
                               .source = {ones, n * sizeof *ones, -1, 0},
                               .name = "a vector"};
    return take(b, &d, out, e) && b->class->wait(b->b, e);
}

static bool open_buffers(struct bench *b, struct err *e)
{
    const struct shape *m = &b->shape;
    const uint32_t rows = b->max_rows;
    const uint32_t page = b->info.page_tokens, each = (b->depth + rows + page - 1) / page + 1;
    b->tokens = calloc(rows, sizeof *b->tokens);
    b->out_rows = calloc(rows, sizeof *b->out_rows);
    b->pages = calloc((size_t)SEQS * each, sizeof *b->pages);
    if (b->tokens == NULL || b->out_rows == NULL || b->pages == NULL)
        return err_set(e, ERR_MEMORY, "no memory for a batch of %u rows", rows);
    for (uint32_t i = 0; i < rows; i++) b->tokens[i] = (int32_t)(random_bits(b) % m->n_vocab);
    return take_rows(b, BUF_STREAM, rows, m->n_embd, &b->stream, e) &&
           take_rows(b, BUF_ACT, rows, m->n_embd, &b->h, e) &&
           take_rows(b, BUF_ACT, rows, m->n_ff, &b->up[0], e) &&
           take_rows(b, BUF_ACT, rows, m->n_ff, &b->up[1], e) &&
           take_rows(b, BUF_ACT, rows, b->n_q, &b->q, e) &&
           take_rows(b, BUF_ACT, rows, b->n_q, &b->o, e) &&
           take_rows(b, BUF_ACT, rows, b->n_kv, &b->k, e) &&
           take_rows(b, BUF_ACT, rows, b->n_kv, &b->v, e) &&
           take_rows(b, BUF_LOGITS, SEQS, m->n_vocab, &b->logits, e) &&
           take_rows(b, BUF_TOPK, SEQS, TOPK_MAX, &b->topk, e) &&
           take_vector(b, m->n_embd, &b->norm, e) && take_vector(b, m->head_dim / 2, &b->freqs, e);
}

static void close_buffers(struct bench *b)
{
    struct dbuf *all[] = {b->stream, b->h, b->up[0],  b->up[1], b->q,    b->o,
                          b->k,      b->v, b->logits, b->topk,  b->norm, b->freqs};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) give(b, all[i]);
    free(b->tokens);
    free(b->out_rows);
    free(b->pages);
}

// ---- weights ------------------------------------------------------------------------------------

// Where a block holds its f16 scales: there random bits could be infinities.
static const struct {
    bool scaled;
    uint16_t at[2];
} scales[FMT_COUNT] = {
    [FMT_Q8_0] = {true, {0, 0}},
    [FMT_Q4_0] = {true, {0, 0}},
    [FMT_Q4_K] = {true, {offsetof(struct block_Q4_K, d), offsetof(struct block_Q4_K, dmin)}},
    [FMT_Q5_K] = {true, {offsetof(struct block_Q5_K, d), offsetof(struct block_Q5_K, dmin)}},
    [FMT_Q6_K] = {true, {offsetof(struct block_Q6_K, d), offsetof(struct block_Q6_K, d)}},
    [FMT_Q4_1] = {true, {offsetof(struct block_Q4_1, d), offsetof(struct block_Q4_1, min)}},
    [FMT_Q5_0] = {true, {0, 0}},
    [FMT_Q5_1] = {true, {offsetof(struct block_Q5_1, d), offsetof(struct block_Q5_1, min)}},
    [FMT_Q2_K] = {true, {offsetof(struct block_Q2_K, d), offsetof(struct block_Q2_K, dmin)}},
    [FMT_Q3_K] = {true, {offsetof(struct block_Q3_K, d), offsetof(struct block_Q3_K, d)}},
    [FMT_IQ4_NL] = {true, {0, 0}},
    [FMT_IQ4_XS] = {true, {0, 0}},
};

static void fill_weight(struct bench *b, enum fmt f, unsigned char *p, size_t n)
{
    const uint32_t block = fmt_info[f].block_bytes;
    const uint16_t d = f32_to_f16(1e-4f);
    for (size_t i = 0; i + 8 <= n; i += 8) {
        const uint64_t v = random_bits(b);
        memcpy(p + i, &v, 8);
    }
    for (size_t i = 0; i < n; i += block) {
        if (fmt_info[f].block == 1) // the exponent's upper bits: about 2^-8 and less
            p[i + block - 1] =
                (unsigned char)((p[i + block - 1] & 0x80) | (f == FMT_F16 ? 0x1c : 0x3b));
        if (f == FMT_MXFP4) p[i] = 114; // 2^-13
        for (int j = 0; j < 2 && scales[f].scaled; j++) memcpy(p + i + scales[f].at[j], &d, 2);
    }
}

// Copies of one random weight. The CPU uses them in place, so the bytes live as long.
struct weights {
    uint32_t n;
    struct dbuf *d[LISTS_MAX];
    unsigned char *bytes[LISTS_MAX];
};

static void close_weights(struct bench *b, struct weights *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        give(b, w->d[i]);
        free(w->bytes[i]);
    }
    w->n = 0;
}

static bool open_weights(struct bench *b, enum fmt f, uint32_t rows, uint32_t cols, uint32_t copies,
                         struct weights *w, struct err *e)
{
    const size_t n = rows * fmt_row_bytes(f, cols);
    for (w->n = 0; w->n < copies;) {
        const uint32_t i = w->n++;
        w->d[i] = NULL;
        w->bytes[i] = malloc(n + 8);
        if (w->bytes[i] == NULL)
            return err_set(e, ERR_MEMORY, "no memory for %u weights of %zu bytes", copies, n);
        if (i == 0)
            fill_weight(b, f, w->bytes[0], n);
        else
            memcpy(w->bytes[i], w->bytes[0], n);
        const struct buf_desc d = {.kind = BUF_WEIGHT,
                                   .fmt = f,
                                   .n_rows = rows,
                                   .n_cols = cols,
                                   .source = {w->bytes[i], n, -1, 0},
                                   .name = "a weight"};
        if (!take(b, &d, &w->d[i], e)) return false;
    }
    return b->class->wait(b->b, e);
}

// ---- timing -------------------------------------------------------------------------------------

// The quickest submit of the list, in ms.
static bool time_list(struct bench *b, double *ms, struct err *e)
{
    double spent = 0, best = 1e30;
    for (uint32_t i = 0; i < ROW_RUNS || spent < ROW_MS; i++) {
        const uint64_t start = clock_ns();
        if (b->s->cancel != NULL && atomic_load(b->s->cancel) != 0)
            return err_set(e, ERR_CANCELLED, "stopped");
        if (!b->class->submit(b->b, b->ops, b->n_ops, &b->batch, e) || !b->class->wait(b->b, e))
            return false;
        const double one = clock_ms_since(start);
        spent += one;
        best = fmin(best, one);
        if (spent > ROW_MS_MAX) break;
    }
    *ms = best;
    return true;
}

static double ideal_ms(const struct bench *b, const struct engine_op_timing *t)
{
    return 1e3 * fmax(t->bytes / b->ceilings.read_bytes_s, t->flops / b->ceilings.flop_s);
}

// How often the op should stand in a list: known once the ceilings are.
static uint32_t list_length(const struct bench *b, const struct engine_op_timing *t)
{
    const double ideal = ideal_ms(b, t);
    const double n = ideal > 0 ? SUBMIT_MS / ideal : LISTS_MAX;
    return n < 1 ? 1 : n > LISTS_MAX ? LISTS_MAX : (uint32_t)n;
}

// Times b->ops, which hold n_lists times what t counts once, and hands the row out.
static bool report(struct bench *b, struct engine_op_timing *t, uint32_t n_lists, struct err *e)
{
    double ms;
    if (!time_list(b, &ms, e)) return false;
    t->ms = ms / n_lists;
    t->percent = 100 * ideal_ms(b, t) / t->ms;
    t->by_flops = t->flops / b->ceilings.flop_s > t->bytes / b->ceilings.read_bytes_s;
    b->s->on_op(b->s->arg, t);
    return true;
}

static bool wants_op(const struct bench *b, const char *op, const char *what, const char *format)
{
    const char *only = b->s->op;
    return only == NULL || strstr(op, only) != NULL || strstr(what, only) != NULL ||
           strstr(format, only) != NULL;
}

static bool wants_rows(const struct bench *b, uint32_t rows)
{
    return rows <= b->max_rows && (b->s->rows == 0 || b->s->rows == rows);
}

// One sequence of so many rows at position 0.
static void batch_rows(struct bench *b, uint32_t rows)
{
    b->seqs[0] = (struct batch_seq){0, rows, 0, 0, (rows - 1) / b->info.page_tokens + 1};
    b->batch = (struct batch){.n_rows = rows,
                              .n_seqs = 1,
                              .n_page_ids = b->seqs[0].n_pages,
                              .tokens = b->tokens,
                              .seqs = b->seqs,
                              .pages = b->pages,
                              .out_rows = b->out_rows};
    for (uint32_t i = 0; i < b->seqs[0].n_pages; i++) b->pages[i] = i;
}

// ---- LINEAR -------------------------------------------------------------------------------------

// Weights that share an input, as the network has them.
struct linear_case {
    const char *name;
    struct dbuf *x, *out[3];
    uint32_t n, n_in, n_out[3];
    bool gated;         // followed by SWIGLU
    uint32_t most_rows; // 0 = any
};

static void put_linear(struct bench *b, const struct linear_case *c, const struct weights *w,
                       uint32_t i_copy)
{
    struct op op = {.kind = OP_LINEAR, .linear = {.x = c->x, .n = c->n}};
    for (uint32_t j = 0; j < c->n; j++) {
        op.linear.w[j] = w[j].d[i_copy % w[j].n];
        op.linear.out[j] = c->out[j];
    }
    b->ops[b->n_ops++] = op;
    if (c->gated)
        b->ops[b->n_ops++] =
            (struct op){.kind = OP_SWIGLU, .swiglu = {c->out[0], c->out[1], c->out[0], 0}};
}

static bool time_linear(struct bench *b, const struct linear_case *c, enum fmt f,
                        const struct weights *w, const char *what, struct err *e)
{
    for (size_t i = 0; i < N_ROW_COUNTS; i++) {
        const uint32_t rows = row_counts[i];
        struct engine_op_timing t = {
            .op = "linear", .what = what, .format = fmt_info[f].name, .rows = rows};
        if (!wants_rows(b, rows) || (c->most_rows > 0 && rows > c->most_rows)) continue;
        t.bytes = (double)rows * (double)row_bytes(b, BUF_ACT, c->n_in);
        for (uint32_t j = 0; j < c->n; j++) {
            t.bytes += (double)c->n_out[j] * (double)fmt_row_bytes(f, c->n_in);
            t.flops += 2.0 * rows * c->n_out[j] * c->n_in;
            if (!c->gated || j == 0)
                t.bytes += (double)rows * (double)row_bytes(b, BUF_ACT, c->n_out[j]);
        }
        batch_rows(b, rows);
        const uint32_t n = list_length(b, &t);
        b->n_ops = 0;
        for (uint32_t k = 0; k < n; k++) put_linear(b, c, w, k);
        if (!report(b, &t, n, e)) return false;
    }
    return true;
}

static bool bench_linear(struct bench *b, const struct linear_case *c, enum fmt f, struct err *e)
{
    struct weights w[3] = {0};
    char what[64];
    int at = snprintf(what, sizeof what, "%s %u", c->name, c->n_out[0]);
    for (uint32_t j = 1; j < c->n; j++)
        at += snprintf(what + at, sizeof what - (size_t)at, "+%u", c->n_out[j]);
    snprintf(what + at, sizeof what - (size_t)at, "x%u", c->n_in);
    if (!wants_op(b, "linear", what, fmt_info[f].name)) return true;
    size_t bytes = 0;
    for (uint32_t j = 0; j < c->n; j++) bytes += c->n_out[j] * fmt_row_bytes(f, c->n_in);
    uint32_t copies = (uint32_t)(COPY_BYTES / bytes) + 1;
    if (copies > LISTS_MAX) copies = LISTS_MAX;
    bool ok = true;
    for (uint32_t j = 0; j < c->n && ok; j++)
        ok = open_weights(b, f, c->n_out[j], c->n_in, copies, &w[j], e);
    ok = ok && time_linear(b, c, f, w, what, e);
    for (uint32_t j = 0; j < 3; j++) close_weights(b, &w[j]);
    return ok || err_prefix(e, "%s %s: ", what, fmt_info[f].name);
}

// Every weight of a layer, and the output. A format whose blocks are longer than a row is not asked.
static bool bench_format(struct bench *b, enum fmt f, struct err *e)
{
    const struct shape *m = &b->shape;
    const struct linear_case cases[] = {
        {"q+k+v", b->h, {b->q, b->k, b->v}, 3, m->n_embd, {b->n_q, b->n_kv, b->n_kv}, false, 0},
        {"attn out", b->o, {b->h}, 1, b->n_q, {m->n_embd}, false, 0},
        {"gate+up", b->h, {b->up[0], b->up[1]}, 2, m->n_embd, {m->n_ff, m->n_ff}, true, 0},
        {"down", b->up[0], {b->h}, 1, m->n_ff, {m->n_embd}, false, 0},
        {"output", b->h, {b->logits}, 1, m->n_embd, {m->n_vocab}, false, SEQS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!bench_linear(b, &cases[i], f, e)) return false;
    return true;
}

static bool bench_formats(struct bench *b, struct err *e)
{
    static const enum fmt usual[] = {FMT_Q4_K, FMT_Q6_K, FMT_Q8_0, FMT_BF16};
    const char *asked = b->s->format;
    struct buf known = {0};
    bool found = false, ok = true;
    for (size_t i = 0; asked == NULL && i < sizeof usual / sizeof *usual && ok; i++)
        ok = bench_format(b, usual[i], e);
    for (int f = 0; asked != NULL && f < FMT_COUNT && ok; f++) {
        buf_printf(&known, "%s%s", f > 0 ? ", " : "", fmt_info[f].name);
        if (strcmp(asked, "all") != 0 && strcmp(asked, fmt_info[f].name) != 0) continue;
        found = true;
        ok = bench_format(b, (enum fmt)f, e);
    }
    if (ok && asked != NULL && !found)
        ok = err_set(e, ERR_INPUT, "there is no format \"%s\"; there are all, %s", asked,
                     buf_cstr(&known));
    buf_free(&known);
    return ok;
}

// ---- attention and rope -------------------------------------------------------------------------

static struct op rope_op(const struct bench *b, struct dbuf *kv, uint32_t layer)
{
    const struct shape *m = &b->shape;
    return (struct op){.kind = OP_ROPE_KV,
                       .rope_kv = {.q = b->q,
                                   .k = b->k,
                                   .v = b->v,
                                   .freqs = b->freqs,
                                   .kv = kv,
                                   .layer = layer,
                                   .n_heads = m->n_heads,
                                   .n_kv_heads = m->n_kv_heads,
                                   .head_dim = m->head_dim,
                                   .n_rot = m->head_dim,
                                   .neox = true,
                                   .eps = 1e-6f,
                                   .mscale = 1}};
}

// Keys and values in all pages: pages that nobody wrote would all be the system's one page of zeros.
static bool fill_pages(struct bench *b, struct dbuf *kv, uint32_t n_pages, struct err *e)
{
    const uint32_t page = b->info.page_tokens, at_once = b->max_rows / page;
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (uint32_t i = 0; i < n_pages; i += at_once) {
            const uint32_t n = n_pages - i < at_once ? n_pages - i : at_once;
            const struct op op = rope_op(b, kv, layer);
            batch_rows(b, n * page);
            for (uint32_t j = 0; j < n; j++) b->pages[j] = i + j;
            if (!b->class->submit(b->b, &op, 1, &b->batch, e) || !b->class->wait(b->b, e))
                return false;
        }
    return true;
}

struct attend_case {
    uint32_t n_seqs, rows, pos0;
    bool shared; // all on the same pages
};

static bool time_attention(struct bench *b, const struct attend_case *c, const char *kv_name,
                           double token_bytes, struct dbuf *kv, struct err *e)
{
    const struct shape *m = &b->shape;
    const uint32_t page = b->info.page_tokens, each = (c->pos0 + c->rows + page - 1) / page;
    const double keys = (double)c->pos0 + c->rows;
    char what[64];
    snprintf(what, sizeof what, "%u x %u rows at %u%s", c->n_seqs, c->rows, c->pos0,
             c->n_seqs == 1 ? ""
             : c->shared    ? ", shared"
                            : ", each its own");
    if (!wants_op(b, "attention", what, kv_name)) return true;
    batch_rows(b, 1);
    b->batch.n_rows = b->batch.n_page_ids = 0;
    b->batch.n_seqs = c->n_seqs;
    for (uint32_t s = 0; s < c->n_seqs; s++) {
        b->seqs[s] =
            (struct batch_seq){b->batch.n_rows, c->rows, c->pos0, b->batch.n_page_ids, each};
        for (uint32_t p = 0; p < each; p++)
            b->pages[b->batch.n_page_ids++] = c->shared ? p : s * each + p;
        b->batch.n_rows += c->rows;
    }
    struct engine_op_timing t = {
        .op = "attention", .what = what, .format = kv_name, .rows = b->batch.n_rows};
    t.bytes = keys * token_bytes * (c->shared ? 1 : c->n_seqs) +
              2.0 * b->batch.n_rows * (double)row_bytes(b, BUF_ACT, b->n_q);
    t.flops = 4.0 * b->batch.n_rows * ((double)c->pos0 + 0.5 * (c->rows + 1)) * b->n_q;
    const uint32_t n = list_length(b, &t);
    b->n_ops = 0;
    for (uint32_t i = 0; i < n; i++)
        b->ops[b->n_ops++] =
            (struct op){.kind = OP_ATTENTION,
                        .attention = {b->q, kv, b->o, i % LAYERS, m->n_heads, m->n_kv_heads,
                                      m->head_dim, 1 / sqrtf((float)m->head_dim)}};
    return report(b, &t, n, e);
}

static bool time_rope(struct bench *b, const char *kv_name, double token_bytes, struct dbuf *kv,
                      struct err *e)
{
    const double moved =
        2.0 * (double)row_bytes(b, BUF_ACT, b->n_q) + 2.0 * (double)row_bytes(b, BUF_ACT, b->n_kv);
    for (size_t i = 0; i < N_ROW_COUNTS; i++) {
        const uint32_t rows = row_counts[i];
        struct engine_op_timing t = {.op = "rope_kv", .what = "", .format = kv_name, .rows = rows};
        if (!wants_rows(b, rows) || !wants_op(b, t.op, t.what, kv_name)) continue;
        t.bytes = rows * (moved + token_bytes);
        batch_rows(b, rows);
        const uint32_t n = list_length(b, &t);
        b->n_ops = 0;
        for (uint32_t k = 0; k < n; k++) b->ops[b->n_ops++] = rope_op(b, kv, k % LAYERS);
        if (!report(b, &t, n, e)) return false;
    }
    return true;
}

static bool bench_kv(struct bench *b, enum kv_type type, const char *name, struct err *e)
{
    const struct shape *m = &b->shape;
    const struct attend_case cases[] = {
        {1, 1, 64, false},
        {1, 1, b->depth, false},
        {SEQS, 1, b->depth, true},
        {SEQS, 1, b->depth, false},
        {1, 40, b->depth, false},
        {1, b->max_rows, 0, false},
        {1, b->max_rows, b->depth, false},
    };
    if (!wants_op(b, "attention rope_kv", "", name)) return true;
    struct kv_shape shape = {1, b->info.page_tokens, LAYERS, m->n_kv_heads, m->head_dim, type};
    const double token_bytes =
        (double)b->class->page_bytes(b->b, &shape) / LAYERS / shape.page_tokens;
    const uint32_t one = (b->depth + b->max_rows) / shape.page_tokens + 1;
    const uint32_t all = SEQS * (b->depth / shape.page_tokens + 1);
    shape.n_pages = one > all ? one : all;
    const struct buf_desc d = {.kind = BUF_KV, .kv = shape, .source.fd = -1, .name = "pages"};
    struct dbuf *kv = NULL;
    struct err none = {0};
    if (!take(b, &d, &kv, &none)) {
        if (none.code == ERR_UNSUPPORTED) return true; // the device has no such pages
        return err_set(e, none.code, "%s", none.msg);
    }
    bool ok = fill_pages(b, kv, shape.n_pages, e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases && ok; i++)
        if (b->s->rows == 0 || b->s->rows == cases[i].n_seqs * cases[i].rows)
            ok = time_attention(b, &cases[i], name, token_bytes, kv, e);
    ok = ok && time_rope(b, name, token_bytes, kv, e);
    give(b, kv);
    return ok;
}

// ---- ops on rows --------------------------------------------------------------------------------

static bool bench_rows(struct bench *b, struct err *e)
{
    const double stream = (double)row_bytes(b, BUF_STREAM, b->shape.n_embd);
    const double act = (double)row_bytes(b, BUF_ACT, b->shape.n_embd);
    const double wide = (double)row_bytes(b, BUF_ACT, b->shape.n_ff);
    const struct {
        struct op op;
        const char *name;
        double bytes; // a row
        uint32_t most_rows;
    } cases[] = {
        {{.kind = OP_RMS_NORM, .rms_norm = {b->stream, b->norm, b->h, 1e-6f, 0}},
         "rms_norm",
         stream + act,
         0},
        {{.kind = OP_SWIGLU, .swiglu = {b->up[0], b->up[1], b->up[0], 0}}, "swiglu", 3 * wide, 0},
        {{.kind = OP_ADD, .add = {b->stream, b->h, 0}}, "add", 2 * stream + act, 0},
        {{.kind = OP_TOPK, .topk = {b->logits, b->topk}}, "topk", 4.0 * b->shape.n_vocab, SEQS},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (size_t i = 0; i < N_ROW_COUNTS; i++) {
            struct engine_op_timing t = {
                .op = cases[c].name, .what = "", .format = "", .rows = row_counts[i]};
            if (!wants_rows(b, t.rows) || !wants_op(b, t.op, "", "")) continue;
            if (cases[c].most_rows > 0 && t.rows > cases[c].most_rows) continue;
            t.bytes = t.rows * cases[c].bytes;
            batch_rows(b, t.rows);
            b->batch.n_out = t.rows < SEQS ? t.rows : SEQS;
            const uint32_t n = list_length(b, &t);
            for (b->n_ops = 0; b->n_ops < n;) b->ops[b->n_ops++] = cases[c].op;
            if (!report(b, &t, n, e)) return false;
        }
    return true;
}

// ---- ceilings -----------------------------------------------------------------------------------

// For a device that cannot measure itself: the most that two plain ops reach.
static bool ceilings_by_ops(struct bench *b, struct err *e)
{
    const struct shape *m = &b->shape;
    const double add_bytes = 2.0 * (double)row_bytes(b, BUF_STREAM, m->n_embd) +
                             (double)row_bytes(b, BUF_ACT, m->n_embd);
    struct weights w = {0};
    double ms;
    batch_rows(b, b->max_rows);
    for (b->n_ops = 0; b->n_ops < 4;)
        b->ops[b->n_ops++] = (struct op){.kind = OP_ADD, .add = {b->stream, b->h, 0}};
    if (!time_list(b, &ms, e)) return false;
    b->ceilings.read_bytes_s = 4 * b->max_rows * add_bytes / ms * 1e3;
    const struct linear_case c = {"", b->h, {b->up[0]}, 1, m->n_embd, {m->n_ff}, false, 0};
    bool ok = open_weights(b, FMT_BF16, m->n_ff, m->n_embd, 1, &w, e);
    b->n_ops = 0;
    if (ok) put_linear(b, &c, &w, 0);
    ok = ok && time_list(b, &ms, e);
    b->ceilings.flop_s = 2.0 * b->max_rows * m->n_ff * m->n_embd / ms * 1e3;
    snprintf(b->ceilings.how, sizeof b->ceilings.how, "adding rows; a BF16 product of %u rows",
             b->max_rows);
    close_weights(b, &w);
    return ok;
}

static bool measure_ceilings(struct bench *b, struct err *e)
{
    const bool ok = b->class->ceilings != NULL ? b->class->ceilings(b->b, &b->ceilings, e)
                                               : ceilings_by_ops(b, e);
    if (!ok) return false;
    const struct engine_ceilings c = {.device = b->info.device,
                                      .how = b->ceilings.how,
                                      .read_bytes_s = b->ceilings.read_bytes_s,
                                      .flop_s = b->ceilings.flop_s};
    b->s->on_ceilings(b->s->arg, &c);
    return true;
}

// ---- open and close -----------------------------------------------------------------------------

static bool choose_shape(struct bench *b, struct err *e)
{
    const bool large = b->info.prefill_rows > LARGE_ROWS;
    const char *name = b->s->shape != NULL ? b->s->shape : large ? "32b" : "0.6b";
    b->depth = large ? DEPTH_LARGE : DEPTH_SMALL;
    b->max_rows = b->info.prefill_rows;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (strcmp(name, shapes[i].name) != 0) continue;
        b->shape = shapes[i];
        b->n_q = shapes[i].n_heads * shapes[i].head_dim;
        b->n_kv = shapes[i].n_kv_heads * shapes[i].head_dim;
        return true;
    }
    return err_set(e, ERR_INPUT, "there is no shape \"%s\"; there are 0.6b, 8b and 32b", name);
}

static bool run_all(struct bench *b, struct err *e)
{
    return measure_ceilings(b, e) && bench_formats(b, e) && bench_kv(b, KV_F16, "f16", e) &&
           bench_kv(b, KV_Q8_0, "q8_0", e) && bench_rows(b, e);
}

bool engine_bench_ops(const struct engine_ops_settings *s, struct err *e)
{
    const uint32_t most = row_counts[N_ROW_COUNTS - 1];
    const struct backend_settings bs = {.device = s->device,
                                        .n_threads = s->n_threads,
                                        .max_rows = most,
                                        .max_out = SEQS,
                                        .prefill_fp8 = s->prefill_type != NULL &&
                                                       strcmp(s->prefill_type, "fp8") == 0};
    struct bench *b = calloc(1, sizeof *b);
    if (b == NULL) return err_set(e, ERR_MEMORY, "no memory for a benchmark");
    b->s = s;
    b->random = 88172645463325252u;
    bool ok = backend_open(&b->b, &bs, e);
    if (ok) {
        b->class = b->b->class;
        b->class->info(b->b, &b->info);
        ok = choose_shape(b, e) && open_buffers(b, e) && run_all(b, e);
        close_buffers(b);
        b->class->close(b->b);
    }
    free(b);
    return ok;
}
