// Every GPU kernel against the C reference: all formats, odd and even shapes, batches of decode steps
// and prompts, both kinds of key/value pages. Inputs are random, outputs are poisoned with NaN first.
// Errors are ||gpu - ref|| / ||ref||. What is bounded by f16 inputs (2^-11 each) gets 1e-3.
// Skips where there is no GPU.
#include "ops/gpu_twins.h"

#include "kernels/common/args.h"
#include "kernels/common/pack.h"

// ---- products ---------------------------------------------------------------------------------

// The third part is of another format where `last` says so.
static void linear_case(enum fmt f, enum fmt last, uint32_t cols, const uint32_t n_out[3],
                        uint32_t rows)
{
    char what[80];
    struct twin x = activations(BUF_ACT, rows, cols), w[3], out[3], bias = vector(n_out[1], 0, 1);
    struct step s = {0};
    for (int i = 0; i < 3; i++) {
        w[i] = weight(i == 2 ? last : f, n_out[i], cols);
        out[i] = activations(i == 2 && last == f ? BUF_LOGITS : BUF_ACT, rows, n_out[i]);
        poison(&out[i], rows);
    }
    randomize(&x, rows, 1);
    add_linear(&s, &x, w, &bias, out, 3);
    run_both(&s, rows);
    snprintf(what, sizeof what, "linear %s %ux%u, %u rows", fmt_info[f].name, n_out[0], cols, rows);
    for (int i = 0; i < 3; i++) expect_near(&out[i], rows, 1e-3, what);
    for (int i = 0; i < 3; i++) {
        twin_free(&w[i]);
        twin_free(&out[i]);
    }
    twin_free(&x);
    twin_free(&bias);
}

static void test_linear(void **state)
{
    static const uint32_t rows[] = {1, 2, 8, 9, 17, 33, 64, 65, 130, 300, 400};
    static const uint32_t outs[3] = {272, 48, 100};
    (void)state;
    for (int f = 0; f < FMT_COUNT; f++) {
        const enum fmt own = (enum fmt)f;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            linear_case(own, own, i % 2 ? 1280 : 768, outs, rows[i]);
        if (fmt_info[f].block <= 32) linear_case(own, own, 160, outs, 3);
        if (fmt_info[f].block <= 32) linear_case(own, own, 320, outs, 200);
    }
    static const enum fmt mixed[][2] = {{FMT_Q4_K, FMT_Q6_K},   {FMT_Q5_K, FMT_Q6_K},
                                        {FMT_Q8_0, FMT_Q6_K},   {FMT_Q2_K, FMT_Q3_K},
                                        {FMT_Q4_1, FMT_IQ4_XS}, {FMT_Q4_K, FMT_BF16}};
    for (size_t i = 0; i < sizeof mixed / sizeof *mixed; i++)
        for (uint32_t n = 1; n <= 64; n *= 4) linear_case(mixed[i][0], mixed[i][1], 5120, outs, n);
}

// One block of the feed-forward, the norm after it and, with `more`, a product of that: every fused pair of
// kernels. The norm's own result need not exist where a product reads it.
static void chain_case(enum fmt f, uint32_t rows, bool more)
{
    enum { EMBD = 512, FF = 1536 };
    char what[80];
    struct twin x = activations(BUF_STREAM, rows, EMBD), h = activations(BUF_ACT, rows, EMBD);
    struct twin gu[2] = {activations(BUF_ACT, rows, FF), activations(BUF_ACT, rows, FF)};
    struct twin w[2] = {weight(f, FF, EMBD), weight(f, FF, EMBD)}, down = weight(f, EMBD, FF);
    struct twin norm = vector(EMBD, 1, 0.1f);
    struct step s = {0};
    randomize(&x, rows, 2);
    poison(&h, rows);
    poison(&gu[0], rows);
    poison(&gu[1], rows);
    add_norm(&s, &x, &norm, &h);
    add_linear(&s, &h, w, NULL, gu, 2);
    add_swiglu(&s, &gu[0], &gu[1]);
    add_linear(&s, &gu[0], &down, NULL, &h, 1);
    add_add(&s, &x, &h);
    add_norm(&s, &x, &norm, &h);
    if (more) add_linear(&s, &h, w, NULL, &gu[1], 1);
    run_both(&s, rows);
    snprintf(what, sizeof what, "feed-forward %s, %u rows", fmt_info[f].name, rows);
    expect_near(&gu[0], rows, 3e-3, what);
    expect_near(&x, rows, 2e-3, what);
    expect_near(more ? &gu[1] : &h, rows, 2e-3, what);
    struct twin *all[] = {&x, &h, &gu[0], &gu[1], &w[0], &w[1], &down, &norm};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) twin_free(all[i]);
}

static void test_chain(void **state)
{
    static const uint32_t rows[] = {1, 5, 8, 20, 60, 150, 450};
    (void)state;
    for (int f = 0; f < FMT_COUNT; f++)
        for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++)
            chain_case((enum fmt)f, rows[i / 2], i % 2);
}

// A column's result may not depend on the columns beside it, bit for bit: neither among up to eight, nor
// among up to 128 columns.
static void test_columns_equal(void **state)
{
    enum { EMBD = 1280, OUT = 96, ROWS = 128 };
    (void)state;
    struct twin x = activations(BUF_ACT, ROWS, EMBD), out = activations(BUF_ACT, ROWS, OUT);
    struct twin w = weight(FMT_Q4_K, OUT, EMBD);
    struct step s = {0};
    randomize(&x, ROWS, 1);
    add_linear(&s, &x, &w, NULL, &out, 1);
    static const uint32_t whole[2] = {8, ROWS};
    for (int i = 0; i < 2; i++) {
        const struct batch all = plain_batch(whole[i]);
        run_on(GPU, &s, &all);
        float *many = read_on(GPU, &out, 0, whole[i]);
        for (uint32_t n = i ? 9 : 1; n < whole[i]; n += i ? 9 : 1) {
            const struct batch part = plain_batch(n);
            poison(&out, ROWS);
            run_on(GPU, &s, &part);
            float *v = read_on(GPU, &out, 0, n);
            assert_memory_equal(v, many, n * OUT * sizeof *v);
            free(v);
        }
        free(many);
    }
    twin_free(&x);
    twin_free(&out);
    twin_free(&w);
}

// ---- several products in a launch ---------------------------------------------------------------

static struct backend *apart; // the GPU with a launch for each product

enum { TOGETHER_EMBD = 1280, TOGETHER_FF = 5376, TOGETHER_ROWS = 8 };

// From attention's result to the next layer's queries, keys and values, on both devices of `both`.
struct together {
    struct twin attn, x, h, gu[2], qkv[3], w_out, w_gu[2], w_down, w_qkv[3], norm;
    struct step step;
};

// most: what values and down are of, as in Q4_K_M.
static void together_open(struct together *t, enum fmt f, enum fmt most)
{
    static const uint32_t outs[3] = {1024, 256, 256};
    const uint32_t rows = TOGETHER_ROWS, embd = TOGETHER_EMBD, ff = TOGETHER_FF;
    *t = (struct together){.attn = activations(BUF_ACT, rows, 1024),
                           .x = activations(BUF_STREAM, rows, embd),
                           .h = activations(BUF_ACT, rows, embd),
                           .w_out = weight(f, embd, 1024),
                           .w_down = weight(most, embd, ff),
                           .norm = vector(embd, 1, 0.1f)};
    for (int i = 0; i < 2; i++) {
        t->gu[i] = activations(BUF_ACT, rows, ff);
        t->w_gu[i] = weight(f, ff, embd);
    }
    for (int i = 0; i < 3; i++) {
        t->qkv[i] = activations(BUF_ACT, rows, outs[i]);
        t->w_qkv[i] = weight(i == 2 ? most : f, outs[i], embd);
    }
    add_linear(&t->step, &t->attn, &t->w_out, NULL, &t->h, 1);
    add_add(&t->step, &t->x, &t->h);
    add_norm(&t->step, &t->x, &t->norm, &t->h);
    add_linear(&t->step, &t->h, t->w_gu, NULL, t->gu, 2);
    add_swiglu(&t->step, &t->gu[0], &t->gu[1]);
    add_linear(&t->step, &t->gu[0], &t->w_down, NULL, &t->h, 1);
    add_add(&t->step, &t->x, &t->h);
    add_norm(&t->step, &t->x, &t->norm, &t->h);
    add_linear(&t->step, &t->h, t->w_qkv, NULL, t->qkv, 3);
}

static void together_close(struct together *t)
{
    struct twin *all[] = {&t->attn,  &t->x,        &t->h,        &t->gu[0],
                          &t->gu[1], &t->qkv[0],   &t->qkv[1],   &t->qkv[2],
                          &t->w_out, &t->w_gu[0],  &t->w_gu[1],  &t->w_down,
                          &t->norm,  &t->w_qkv[0], &t->w_qkv[1], &t->w_qkv[2]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) twin_free(all[i]);
}

static void expect_same(const struct twin *t, uint32_t rows, const char *what)
{
    float *a = read_on(0, t, 0, rows), *b = read_on(1, t, 0, rows);
    for (size_t i = 0; i < (size_t)rows * t->n_cols; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s, row %zu, column %zu: %.9g and %.9g", what, i / t->n_cols, i % t->n_cols,
                     (double)a[i], (double)b[i]);
    free(a), free(b);
}

// Steps follow one another without a pause, so that one finds what another left behind.
static void together_case(struct together *t, uint32_t rows, const char *what)
{
    const struct batch b = plain_batch(rows);
    struct err e = {0};
    randomize(&t->attn, rows, 1);
    randomize(&t->x, rows, 2);
    for (int i = 0; i < 3; i++) poison(&t->qkv[i], rows);
    for (int i = 0; i < 2; i++) {
        for (int turn = 0; turn < 5; turn++)
            must(both[i]->class->submit(both[i], t->step.ops[i], t->step.n_ops, &b, &e), &e);
        must(both[i]->class->wait(both[i], &e), &e);
    }
    expect_same(&t->x, rows, what);
    for (int i = 0; i < 3; i++) expect_same(&t->qkv[i], rows, what);
}

static bool shares_launches(enum fmt f)
{
#define IS(name, warps, slots, bytes, least) || pack_kind_of((int)f) == PACK_##name
    return false CHAIN_CLASSES(IS);
#undef IS
}

// Bit for bit what a launch for each product gives, for every kind of packed weights. Those whose products have
// launches of their own in any case are looked at once: under a race checker each takes long.
static void test_launches_joined(void **state)
{
    (void)state;
    for (int f = 0; f < FMT_COUNT; f++) {
        struct together t;
        const bool shares = shares_launches((enum fmt)f);
        together_open(&t, (enum fmt)f, f == FMT_Q4_K || f == FMT_Q5_K ? FMT_Q6_K : (enum fmt)f);
        for (uint32_t rows = shares ? 1 : TOGETHER_ROWS; rows <= TOGETHER_ROWS;
             rows += rows == 1 ? 2 : 5)
            together_case(&t, rows, fmt_info[f].name);
        together_close(&t);
        print_message("%s%s\n", fmt_info[f].name, shares ? ", in one launch" : "");
    }
}

static struct backend *reference;

static int compare_with_apart(void **state)
{
    (void)state;
    reference = both[REF];
    both[REF] = apart;
    return 0;
}

static int compare_with_reference(void **state)
{
    (void)state;
    both[REF] = reference;
    return 0;
}

// ---- rows -------------------------------------------------------------------------------------

static void test_embed(void **state)
{
    (void)state;
    for (int f = 0; f < FMT_COUNT; f++) {
        struct twin t = weight((enum fmt)f, 300, 512), out = activations(BUF_STREAM, 40, 512);
        struct step s = {0};
        int32_t tokens[40];
        for (int i = 0; i < 40; i++) tokens[i] = (int32_t)(random_bits() % 300);
        for (int i = 0; i < 2; i++)
            next_op(&s, OP_EMBED, i)->embed = (struct op_embed){t.at[i], out.at[i]};
        poison(&out, 40);
        struct batch b = plain_batch(40);
        b.tokens = tokens;
        run_on(GPU, &s, &b);
        run_on(REF, &s, &b);
        expect_near(&out, 40, 5e-4, fmt_info[f].name);
        twin_free(&t);
        twin_free(&out);
    }
}

static void test_rows(void **state)
{
    (void)state;
    enum { ROWS = 37 };
    for (uint32_t cols = 64; cols <= 5120; cols = cols * 4 + 64) {
        struct twin x = activations(BUF_STREAM, ROWS, cols), h = activations(BUF_ACT, ROWS, cols);
        struct twin u = activations(BUF_ACT, ROWS, cols), w = vector(cols, 1, 0.3f);
        struct step norm = {0}, add = {0}, glu = {0}, pick = {0};
        randomize(&x, ROWS, 3);
        poison(&h, ROWS);
        add_norm(&norm, &x, &w, &h);
        run_both(&norm, ROWS);
        expect_near(&h, ROWS, 1e-3, "rms_norm");
        add_add(&add, &x, &h);
        run_both(&add, ROWS);
        expect_near(&x, ROWS, 1e-3, "add");
        randomize(&h, ROWS, 40); // products far above one
        randomize(&u, ROWS, 40);
        add_swiglu(&glu, &h, &u);
        run_both(&glu, ROWS);
        expect_near(&h, ROWS, 2e-3, "swiglu");
        struct twin few = activations(BUF_STREAM, 5, cols);
        static const uint32_t out_rows[5] = {36, 0, 7, 7, 20};
        for (int i = 0; i < 2; i++)
            next_op(&pick, OP_GATHER, i)->gather = (struct op_gather){x.at[i], few.at[i]};
        struct batch b = plain_batch(ROWS);
        b.out_rows = out_rows;
        b.n_out = 5;
        poison(&few, 5);
        run_on(GPU, &pick, &b);
        run_on(REF, &pick, &b);
        expect_near(&few, 5, 1e-3, "gather");
        struct twin *all[] = {&x, &h, &u, &w, &few};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) twin_free(all[i]);
    }
}

static void topk_case(uint32_t n, uint32_t k, float scale, bool ties)
{
    enum { ROWS = 3 };
    struct twin logits = activations(BUF_LOGITS, ROWS, n), out = activations(BUF_TOPK, ROWS, k);
    static struct topk_row rows[2][ROWS];
    struct logit_adjust adjust[] = {{0, 5, 1.3f, 0, true},
                                    {0, 5, 1, -0.5f, false},
                                    {0, 7, 1, -INFINITY, false},
                                    {1, 1, 1.3f, 0.25f, true},
                                    {2, (int32_t)n - 1, 1, 99, false}};
    float *v = random_floats((size_t)ROWS * n, scale);
    if (ties)
        for (size_t i = 0; i < (size_t)ROWS * n; i++) v[i] = floorf(v[i]);
    put_on(GPU, &logits, ROWS, v);
    put_on(REF, &logits, ROWS, v);
    free(v);
    struct step s = {0};
    struct err e = {0};
    for (int i = 0; i < 2; i++)
        next_op(&s, OP_TOPK, i)->topk = (struct op_topk){logits.at[i], out.at[i]};
    static const uint32_t out_rows[ROWS] = {0, 1, 2};
    struct batch b = plain_batch(ROWS);
    b.out_rows = out_rows;
    b.n_out = ROWS;
    b.adjust = adjust;
    b.n_adjust = 5;
    for (int i = 0; i < 2; i++) {
        run_on(i, &s, &b);
        must(both[i]->class->read(both[i], out.at[i], 0, ROWS, rows[i], &e), &e);
    }
    for (int r = 0; r < ROWS; r++) {
        const struct topk_row *g = &rows[GPU][r], *f = &rows[REF][r];
        assert_int_equal(g->n, f->n);
        assert_memory_equal(g->ids, f->ids, f->n * sizeof *f->ids);
        assert_memory_equal(g->logits, f->logits, f->n * sizeof *f->logits);
        if (fabsf(g->lse - f->lse) > 1e-4f * fabsf(f->lse) + 1e-4f)
            fail_msg("lse %g, not %g", (double)g->lse, (double)f->lse);
    }
    twin_free(&logits);
    twin_free(&out);
}

static void test_topk(void **state)
{
    (void)state;
    topk_case(151936, 128, 3, false);
    topk_case(151936, 64, 1e-3f, false);
    topk_case(151936, 128, 0.6f, true); // thousands of equal values
    topk_case(4096, 128, 5, false);
    topk_case(40, 40, 1, false);
    topk_case(300, 1, 100, false);
}

// ---- keys, values, attention ------------------------------------------------------------------

struct span {
    uint32_t pos0, n_rows, share;
}; // share: sequence whose first pages it takes, plus 1

struct heads {
    uint32_t n_heads, n_kv_heads, head_dim;
    enum kv_type type;
};

struct world {
    struct heads h;
    struct twin q, k, v, out, q_norm, k_norm, freqs;
    struct dbuf *kv[2];
    uint32_t page_tokens[2];
};

static void world_open(struct world *w, struct heads h)
{
    float *f = malloc(h.head_dim / 2 * sizeof *f);
    struct err e = {0};
    w->h = h;
    for (uint32_t i = 0; i < h.head_dim / 2; i++)
        f[i] = powf(1e6f, -2.0f * (float)i / (float)h.head_dim);
    w->q = activations(BUF_ACT, MAX_ROWS, h.n_heads * h.head_dim);
    w->k = activations(BUF_ACT, MAX_ROWS, h.n_kv_heads * h.head_dim);
    w->v = activations(BUF_ACT, MAX_ROWS, h.n_kv_heads * h.head_dim);
    w->out = activations(BUF_ACT, MAX_ROWS, h.n_heads * h.head_dim);
    w->q_norm = vector(h.head_dim, 1, 0.1f);
    w->k_norm = vector(h.head_dim, 1, 0.1f);
    w->freqs = twin_make((struct buf_desc){.kind = BUF_VECTOR,
                                           .fmt = FMT_F32,
                                           .n_rows = 1,
                                           .n_cols = h.head_dim / 2,
                                           .source = {f, h.head_dim * 2u, -1, 0}});
    for (int i = 0; i < 2; i++) {
        struct backend_info info;
        both[i]->class->info(both[i], &info);
        w->page_tokens[i] = info.page_tokens;
        const struct buf_desc d = {.kind = BUF_KV,
                                   .kv = {SEQS_MAX * POSITIONS / info.page_tokens, info.page_tokens,
                                          2, h.n_kv_heads, h.head_dim, i == GPU ? h.type : KV_F32},
                                   .name = "pages"};
        must(both[i]->class->alloc(both[i], &d, &w->kv[i], &e), &e);
    }
}

static void world_close(struct world *w)
{
    struct twin *all[] = {&w->q, &w->k, &w->v, &w->out, &w->q_norm, &w->k_norm, &w->freqs};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) twin_free(all[i]);
    for (int i = 0; i < 2; i++) both[i]->class->free(both[i], w->kv[i]);
}

// The batch of some spans as device i pages it; page numbers are scattered.
struct paged {
    struct batch batch;
    struct batch_seq seqs[SEQS_MAX];
    uint32_t pages[SEQS_MAX * POSITIONS / 16];
    int32_t tokens[MAX_ROWS];
};

static void page_batch(const struct world *w, int i, const struct span *spans, uint32_t n,
                       struct paged *p)
{
    const uint32_t each = POSITIONS / w->page_tokens[i], total = each * SEQS_MAX;
    memset(p, 0, sizeof *p);
    p->batch = (struct batch){.n_seqs = n, .tokens = p->tokens, .seqs = p->seqs, .pages = p->pages};
    for (uint32_t s = 0; s < n; s++) {
        const uint32_t end = spans[s].pos0 + spans[s].n_rows;
        const uint32_t n_pages = (end + w->page_tokens[i] - 1) / w->page_tokens[i];
        const uint32_t page0 = p->batch.n_page_ids;
        for (uint32_t j = 0; j < n_pages; j++) {
            // shared: all pages before the one that this step writes
            const bool shared = spans[s].share && (j + 1) * w->page_tokens[i] <= spans[s].pos0;
            const uint32_t owner = shared ? spans[s].share - 1 : s;
            p->pages[p->batch.n_page_ids++] = (owner * each + j) * 7 % total;
        }
        p->seqs[s] =
            (struct batch_seq){p->batch.n_rows, spans[s].n_rows, spans[s].pos0, page0, n_pages};
        p->batch.n_rows += spans[s].n_rows;
    }
}

static void rope_step(struct world *w, struct step *s)
{
    *s = (struct step){0};
    const struct heads *h = &w->h;
    for (int i = 0; i < 2; i++)
        next_op(s, OP_ROPE_KV, i)->rope_kv = (struct op_rope_kv){.q = w->q.at[i],
                                                                 .k = w->k.at[i],
                                                                 .v = w->v.at[i],
                                                                 .q_norm = w->q_norm.at[i],
                                                                 .k_norm = w->k_norm.at[i],
                                                                 .freqs = w->freqs.at[i],
                                                                 .kv = w->kv[i],
                                                                 .layer = 1,
                                                                 .n_heads = h->n_heads,
                                                                 .n_kv_heads = h->n_kv_heads,
                                                                 .head_dim = h->head_dim,
                                                                 .n_rot = h->head_dim,
                                                                 .neox = h->n_heads != 4,
                                                                 .eps = 1e-6f,
                                                                 .mscale = 1};
}

static void attention_step(struct world *w, struct step *s)
{
    const struct heads *h = &w->h;
    rope_step(w, s);
    for (int i = 0; i < 2; i++)
        next_op(s, OP_ATTENTION, i)->attention =
            (struct op_attention){.q = w->q.at[i],
                                  .kv = w->kv[i],
                                  .out = w->out.at[i],
                                  .layer = 1,
                                  .n_heads = h->n_heads,
                                  .n_kv_heads = h->n_kv_heads,
                                  .head_dim = h->head_dim,
                                  .scale = 2.0f / sqrtf((float)h->head_dim)};
}

static uint32_t span_rows(const struct span *spans, uint32_t n)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < n; i++) rows += spans[i].n_rows;
    return rows;
}

static void attend_spans(struct world *w, const struct span *spans, uint32_t n, const char *what)
{
    static struct paged p[2];
    struct step s;
    const uint32_t rows = span_rows(spans, n);
    char text[80];
    poison(&w->out, rows);
    // turned queries need not exist where attention follows: looked at first, alone
    for (int attend = 0; attend < 2; attend++) {
        randomize(&w->q, rows, 1);
        randomize(&w->k, rows, 1);
        randomize(&w->v, rows, 1);
        if (attend)
            attention_step(w, &s);
        else
            rope_step(w, &s);
        for (int i = 0; i < 2; i++) {
            page_batch(w, i, spans, n, &p[i]);
            run_on(i, &s, &p[i].batch);
        }
        if (!attend) expect_near(&w->q, rows, 1e-3, "rope");
    }
    snprintf(text, sizeof text, "attention %u/%u/%u %s %s", w->h.n_heads, w->h.n_kv_heads,
             w->h.head_dim, w->h.type == KV_Q8_0 ? "q8_0" : "f16", what);
    expect_near(&w->out, rows, w->h.type == KV_Q8_0 ? 1.5e-2 : 1.5e-3, text);
}

static void attention_case(struct heads h)
{
    struct world w;
    world_open(&w, h);
    const struct span first[] = {{0, 1, 0}}, second[] = {{1, 1, 0}}, prompt[] = {{0, 20, 0}};
    const struct span longer[] = {{20, 236, 0}}, cut[] = {{256, 64, 0}}, far[] = {{320, 300, 0}};
    const struct span one[] = {{620, 1, 0}}, tail[] = {{621, 40, 0}};
    attend_spans(&w, first, 1, "first token");
    attend_spans(&w, second, 1, "second token");
    attend_spans(&w, prompt, 1, "20 rows");
    attend_spans(&w, longer, 1, "236 rows at 20");
    attend_spans(&w, cut, 1, "64 rows at 256");
    attend_spans(&w, far, 1, "300 rows at 320");
    attend_spans(&w, one, 1, "decode at 620");
    attend_spans(&w, tail, 1, "40 rows at 621");
    // decode steps on one prefix of 640 tokens, each with a page of its own behind it
    struct span several[10] = {{640, 1, 0}};
    for (uint32_t i = 1; i < 9; i++) several[i] = (struct span){640, 1, 1};
    attend_spans(&w, several, 9, "9 decodes on a shared prefix");
    several[9] = (struct span){0, 150, 0};
    attend_spans(&w, several, 10, "9 decodes beside a prompt");
    several[9] = (struct span){0, 12, 0};
    attend_spans(&w, several, 10, "9 decodes beside a short prompt");
    world_close(&w);
}

static void test_attention(void **state)
{
    (void)state;
    attention_case((struct heads){16, 2, 128, KV_F16});
    attention_case((struct heads){8, 2, 128, KV_F16});
    attention_case((struct heads){4, 4, 128, KV_F16});
    attention_case((struct heads){8, 2, 64, KV_F16});
    attention_case((struct heads){16, 2, 128, KV_Q8_0});
    attention_case((struct heads){8, 2, 64, KV_Q8_0});
}

// A prompt cut anywhere into long chunks gives the same rows bit for bit.
static void test_cuts_equal(void **state)
{
    enum { ROWS = 700 };
    static const uint32_t cuts[] = {100, 128, 129, 300, 448, 600};
    static struct paged p;
    struct world w;
    struct step s;
    (void)state;
    world_open(&w, (struct heads){16, 2, 128, KV_F16});
    float *q = random_floats((size_t)ROWS * 16 * 128, 1),
          *kv = random_floats((size_t)ROWS * 2 * 128, 1);
    const struct span all[] = {{0, ROWS, 0}};
    put_on(GPU, &w.q, ROWS, q);
    put_on(GPU, &w.k, ROWS, kv);
    put_on(GPU, &w.v, ROWS, kv);
    attention_step(&w, &s);
    page_batch(&w, GPU, all, 1, &p);
    run_on(GPU, &s, &p.batch);
    float *whole = read_on(GPU, &w.out, 0, ROWS);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        const uint32_t c = cuts[i], rest = ROWS - c;
        const struct span tail[] = {{c, rest, 0}};
        put_on(GPU, &w.q, rest, q + (size_t)c * 16 * 128);
        put_on(GPU, &w.k, rest, kv + (size_t)c * 2 * 128);
        put_on(GPU, &w.v, rest, kv + (size_t)c * 2 * 128);
        page_batch(&w, GPU, tail, 1, &p);
        run_on(GPU, &s, &p.batch);
        float *part = read_on(GPU, &w.out, 0, rest);
        assert_memory_equal(part, whole + (size_t)c * 16 * 128,
                            (size_t)rest * 16 * 128 * sizeof *part);
        free(part);
    }
    free(whole);
    free(q);
    free(kv);
    world_close(&w);
}

// On sm_90 a decode step's row is the same bit for bit alone and beside others that share its prefix.
static void test_decodes_equal(void **state)
{
    enum { N = 9, POS = 1300, HEADS = 16, KV_HEADS = 2, Q = HEADS * 128, K = KV_HEADS * 128 };
    static struct paged p;
    struct world w;
    struct step s;
    struct backend_info info;
    (void)state;
    both[GPU]->class->info(both[GPU], &info);
    if (strstr(info.device, "sm_90") == NULL) skip();
    world_open(&w, (struct heads){HEADS, KV_HEADS, 128, KV_F16});
    struct span all[N] = {{0, POS, 0}};
    float *q = random_floats((size_t)POS * Q, 1), *k = random_floats((size_t)POS * K, 1);
    attention_step(&w, &s);
    for (uint32_t from = 0; from < POS; from += MAX_ROWS / 2) { // the prefix
        const uint32_t n = POS - from < MAX_ROWS / 2 ? POS - from : MAX_ROWS / 2;
        all[0] = (struct span){from, n, 0};
        put_on(GPU, &w.q, n, q + (size_t)from * Q);
        put_on(GPU, &w.k, n, k + (size_t)from * K);
        put_on(GPU, &w.v, n, k + (size_t)(POS - from - n) * K);
        page_batch(&w, GPU, all, 1, &p);
        run_on(GPU, &s, &p.batch);
    }
    for (uint32_t i = 0; i < N; i++) all[i] = (struct span){POS, 1, i ? 1 : 0};
    page_batch(&w, GPU, all, N, &p);
    put_on(GPU, &w.q, N, q);
    put_on(GPU, &w.k, N, k);
    put_on(GPU, &w.v, N, k + (size_t)N * K);
    run_on(GPU, &s, &p.batch);
    float *together = read_on(GPU, &w.out, 0, N);
    for (uint32_t i = 0; i < N; i++) {
        struct batch_seq own = p.seqs[i];
        struct batch alone = p.batch;
        own.row0 = 0;
        alone.seqs = &own;
        alone.n_seqs = alone.n_rows = 1;
        put_on(GPU, &w.q, 1, q + (size_t)i * Q);
        put_on(GPU, &w.k, 1, k + (size_t)i * K);
        put_on(GPU, &w.v, 1, k + (size_t)(N + i) * K);
        run_on(GPU, &s, &alone);
        float *v = read_on(GPU, &w.out, 0, 1);
        assert_memory_equal(v, together + (size_t)i * Q, Q * sizeof *v);
        free(v);
    }
    free(together);
    free(q);
    free(k);
    world_close(&w);
}

// Bytes of a page, `piece` at a time, good or not; behind *after where that is still on its way.
static void page_send(struct dbuf *kv, uint32_t page, const unsigned char *bytes, size_t n,
                      size_t piece, bool good, const struct page_way *after, struct page_way *way)
{
    const struct backend_class *class = both[GPU]->class;
    struct err e = {0};
    must(class->page_begin(both[GPU], kv, page, after, way, &e), &e);
    for (size_t at = 0; at < n; at += piece) {
        const size_t some = n - at < piece ? n - at : piece;
        void *to = class->page_next(both[GPU], way, some, &e);
        must(to != NULL, &e);
        memcpy(to, bytes + at, some);
    }
    must(class->page_end(both[GPU], way, good, &e), &e);
}

static void page_holds(struct dbuf *kv, uint32_t page, const unsigned char *bytes, size_t n)
{
    struct err e = {0};
    unsigned char *got = malloc(n);
    must(both[GPU]->class->page_read(both[GPU], kv, page, got, &e), &e);
    assert_memory_equal(got, bytes, n);
    free(got);
}

static void test_pages(void **state)
{
    enum { PAGES = 8, BAD = 3, PIECE = 300000 };
    const struct backend_class *class = both[GPU]->class;
    struct backend_info info;
    struct page_way ways[PAGES];
    unsigned char *bytes[PAGES];
    struct dbuf *kv;
    struct err e = {0};
    (void)state;
    class->info(both[GPU], &info);
    const struct buf_desc d = {// more than goes at once
                               .kind = BUF_KV,
                               .kv = {PAGES, info.page_tokens, 8, 32, 128, KV_F16},
                               .name = "pages"};
    must(class->alloc(both[GPU], &d, &kv, &e), &e);
    const size_t n = class->page_bytes(both[GPU], &d.kv);
    for (int p = 0; p < PAGES; p++) {
        bytes[p] = malloc(n);
        for (size_t i = 0; i < n; i++) bytes[p][i] = (unsigned char)random_bits();
    }
    for (size_t piece = n; piece > PIECE / 8;
         piece = piece / 3 + 1) { // at once, and in many pieces
        page_send(kv, 3, bytes[0], n, piece, true, NULL, &ways[0]);
        must(class->page_land(both[GPU], &ways[0], &e), &e);
        page_holds(kv, 3, bytes[0], n);
        bytes[0][piece % n]++;
    }
    page_send(kv, 3, bytes[0], n, PIECE, true, NULL, &ways[0]);
    must(class->page_land(both[GPU], &ways[0], &e), &e);
    must(class->page_copy(both[GPU], kv, 3, 1, &e), &e);
    page_holds(kv, 1, bytes[0], n);
    // one behind the other, the last one landing while the next is on its way; one is bad, one comes as a whole
    for (int p = 0; p < PAGES; p++) {
        const size_t piece = p == PAGES - 2 ? n : PIECE;
        page_send(kv, (uint32_t)p, bytes[p], n, piece, p != BAD, p > 0 ? &ways[p - 1] : NULL,
                  &ways[p]);
        if (p > 0) must(class->page_land(both[GPU], &ways[p - 1], &e), &e);
    }
    must(class->page_land(both[GPU], &ways[PAGES - 1], &e), &e);
    memset(bytes[BAD], 0, n); // some of it had gone
    for (int p = 0; p < PAGES; p++) page_holds(kv, (uint32_t)p, bytes[p], n);
    for (int p = 0; p < PAGES; p++) free(bytes[p]);
    class->free(both[GPU], kv);
}

// An argument names the device, another the tests (as test_l*); "cuda:noblas" leaves the library out.
int main(int argc, char **argv)
{
    const char *const name = argc > 1 ? argv[1] : "cuda";
    char alone[80];
    struct err e = {0};
    snprintf(alone, sizeof alone, "%.60s:nochain", name);
    if (!open_one(&both[GPU], name, false, &e) || !open_one(&both[REF], "ref", false, &e) ||
        !open_one(&apart, alone, false, &e)) {
        print_message("skipped: %s\n", e.msg);
        return e.code == ERR_NOT_FOUND && !both[GPU] ? 77 : 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_columns_equal),
        cmocka_unit_test(test_topk),
        cmocka_unit_test_setup_teardown(test_launches_joined, compare_with_apart,
                                        compare_with_reference),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_cuts_equal),
        cmocka_unit_test(test_decodes_equal),
        cmocka_unit_test(test_pages),
    };
    if (argc > 2) cmocka_set_test_filter(argv[2]);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < 2; i++) both[i]->class->close(both[i]);
    apart->class->close(apart);
    return failed != 0;
}
