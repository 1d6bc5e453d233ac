// The network on small random models against a second forward pass written here in double precision,
// token by token and matrix by matrix, for each architecture; and what steps must not depend on.
// (golden/ has the comparison with Hugging Face on a trained model.)
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/net.h"
#include "lib/fail_malloc.h"
#include "lib/gguf_make.h"

enum { N_CTX = 128, MAX_ROWS = 32, MAX_OUT = 4, MAX_DIM = 512 };

// ---- a network on the reference device -------------------------------------------------------

struct rig {
    struct buf file;
    struct gguf *g;
    struct model_config c;
    struct backend *b;
    struct net *net;
    struct dbuf *kv;
    uint32_t page_tokens, n_pages;
    double factor; // context over trained context, at least 1
};

static void rig_open(struct rig *r, const struct make_shape *s, const struct net_settings *ns)
{
    struct gguf_make m = {0};
    struct err e = {0};
    struct backend_info info;
    struct backend_settings bs = {
        .device = "ref", .n_threads = 1, .max_rows = MAX_ROWS, .max_out = MAX_OUT};
    *r = (struct rig){0};
    make_model(&m, s);
    make_file(&m, &r->file);
    make_free(&m);
    struct str part = buf_view(&r->file);
    if (!gguf_open_memory(&r->g, &part, 1, "m.gguf", &e) || !arch_read(&r->c, r->g, false, &e) ||
        !backend_open(&r->b, &bs, &e) || !net_open(&r->net, r->b, r->g, &r->c, ns, &e))
        fail_msg("%s", e.msg);
    r->factor = fmax((double)ns->n_ctx / r->c.n_ctx_train, 1);
    r->b->class->info(r->b, &info);
    r->page_tokens = info.page_tokens;
    r->n_pages = 2 * ((N_CTX + info.page_tokens - 1) / info.page_tokens);
    struct buf_desc d = {
        .kind = BUF_KV,
        .kv = {r->n_pages, info.page_tokens, s->n_layers, s->n_kv_heads, s->head_dim, KV_F32},
        .source.fd = -1,
        .name = "pages"};
    if (!r->b->class->alloc(r->b, &d, &r->kv, &e)) fail_msg("%s", e.msg);
}

static void rig_close(struct rig *r)
{
    r->b->class->free(r->b, r->kv);
    net_close(r->net);
    r->b->class->close(r->b);
    gguf_close(r->g);
    buf_free(&r->file);
}

static const struct net_settings settings = {
    .n_ctx = N_CTX, .max_rows = MAX_ROWS, .max_out = MAX_OUT, .n_top = 8};

// One sequence's rows at pos0; its pages are first, first + 2, ... Logits of the last row into
// logits[n_vocab] unless NULL.
static void step(struct rig *r, const int32_t *tokens, uint32_t n, uint32_t pos0, uint32_t first,
                 float *logits)
{
    uint32_t pages[64], last = n - 1;
    struct err e = {0};
    for (uint32_t i = 0; i < r->n_pages / 2; i++) pages[i] = first + 2 * i;
    struct batch_seq seq = {0, n, pos0, 0, r->n_pages / 2};
    struct batch batch = {.n_rows = n,
                          .n_seqs = 1,
                          .n_out = logits != NULL,
                          .n_page_ids = r->n_pages / 2,
                          .tokens = tokens,
                          .seqs = &seq,
                          .pages = pages,
                          .out_rows = &last};
    if (!net_step(r->net, r->kv, &batch, &e)) fail_msg("%s", e.msg);
    if (logits != NULL && !net_read_logits(r->net, 0, logits, &e)) fail_msg("%s", e.msg);
}

// ---- the second forward pass -----------------------------------------------------------------

static const float *weights(const struct rig *r, const char *name)
{
    const struct gguf_tensor *t = gguf_tensor_find(r->g, name);
    return t == NULL ? NULL : (const float *)(const void *)t->data;
}

static const float *layer_weights(const struct rig *r, uint32_t layer, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s", layer, name);
    return weights(r, full);
}

static void matrix(const float *w, const float *bias, const double *x, uint32_t cols, uint32_t rows,
                   double *out)
{
    for (uint32_t i = 0; i < rows; i++) {
        out[i] = bias == NULL ? 0 : (double)bias[i];
        for (uint32_t j = 0; j < cols; j++) out[i] += (double)w[i * cols + j] * x[j];
    }
}

static void norm(const double *x, const float *w, uint32_t n, double *out)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += x[i] * x[i] / n;
    for (uint32_t i = 0; i < n; i++) out[i] = x[i] / sqrt(sum + 1e-6) * (double)w[i];
}

// YaRN, when the context is `factor` times the trained one: the pair (a real number, found by halving)
// that turns so often within the trained context.
static double pair_that_turns(double turns, uint32_t d, uint32_t trained)
{
    double low = 0, high = d;
    for (int step = 0; step < 60; step++) {
        double i = (low + high) / 2, radians = trained * pow(1e6, -2 * i / d);
        if (radians / (2 * acos(-1)) > turns)
            low = i;
        else
            high = i;
    }
    return low;
}

// Pairs of 32 turns and more keep their frequency, those of one and fewer are slowed by the factor.
static double frequency(uint32_t i, uint32_t d, double factor, uint32_t trained)
{
    double plain = pow(1e6, -2.0 * i / d);
    double from = floor(pair_that_turns(32, d, trained));
    double to = fmin(ceil(pair_that_turns(1, d, trained)), d - 1);
    double slowed = i <= from ? 0 : i >= to ? 1 : (i - from) / (to - from);
    return plain * (1 - slowed) + plain / factor * slowed;
}

// Rotates pair i of a head by pos * base^(-2i/d); pairs are halves apart, or neighbours for llama.
static void rotate(const struct rig *r, double *x, uint32_t pos)
{
    const uint32_t d = r->c.head_dim;
    const bool neighbours = strcmp(r->c.traits->name, "llama") == 0;
    const double size = r->factor > 1 ? 0.1 * log(r->factor) + 1 : 1;
    for (uint32_t i = 0; i < d / 2; i++) {
        uint32_t a = neighbours ? 2 * i : i, b = neighbours ? 2 * i + 1 : i + d / 2;
        double angle = pos * frequency(i, d, r->factor, r->c.n_ctx_train), u = x[a], v = x[b];
        x[a] = size * (u * cos(angle) - v * sin(angle));
        x[b] = size * (u * sin(angle) + v * cos(angle));
    }
}

struct memory { // keys and values of all layers and positions
    double k[4][N_CTX][MAX_DIM], v[4][N_CTX][MAX_DIM];
};

static void heads_ready(const struct rig *r, uint32_t layer, const char *norm_name, double *x,
                        uint32_t n_heads, uint32_t pos)
{
    const float *w = layer_weights(r, layer, norm_name);
    const uint32_t d = r->c.head_dim;
    for (uint32_t h = 0; h < n_heads; h++) {
        if (w != NULL) norm(x + h * d, w, d, x + h * d);
        rotate(r, x + h * d, pos);
    }
}

static void attention(const struct rig *r, struct memory *m, uint32_t layer, uint32_t pos,
                      const double *q, double *out)
{
    const struct model_config *c = &r->c;
    const uint32_t d = c->head_dim;
    for (uint32_t h = 0; h < c->n_heads; h++) {
        const uint32_t at = h / (c->n_heads / c->n_kv_heads) * d;
        double p[N_CTX], sum = 0;
        for (uint32_t t = 0; t <= pos; t++) {
            double s = 0;
            for (uint32_t i = 0; i < d; i++) s += q[h * d + i] * m->k[layer][t][at + i];
            sum += p[t] = exp(s / sqrt(d));
        }
        for (uint32_t i = 0; i < d; i++) {
            out[h * d + i] = 0;
            for (uint32_t t = 0; t <= pos; t++)
                out[h * d + i] += p[t] / sum * m->v[layer][t][at + i];
        }
    }
}

static void block(const struct rig *r, struct memory *m, uint32_t l, uint32_t pos, double *x)
{
    const struct model_config *c = &r->c;
    const uint32_t nq = c->n_heads * c->head_dim, nkv = c->n_kv_heads * c->head_dim;
    double h[MAX_DIM], q[MAX_DIM], y[MAX_DIM], gate[MAX_DIM], up[MAX_DIM];
    norm(x, layer_weights(r, l, "attn_norm.weight"), c->n_embd, h);
    matrix(layer_weights(r, l, "attn_q.weight"), layer_weights(r, l, "attn_q.bias"), h, c->n_embd,
           nq, q);
    matrix(layer_weights(r, l, "attn_k.weight"), layer_weights(r, l, "attn_k.bias"), h, c->n_embd,
           nkv, m->k[l][pos]);
    matrix(layer_weights(r, l, "attn_v.weight"), layer_weights(r, l, "attn_v.bias"), h, c->n_embd,
           nkv, m->v[l][pos]);
    heads_ready(r, l, "attn_q_norm.weight", q, c->n_heads, pos);
    heads_ready(r, l, "attn_k_norm.weight", m->k[l][pos], c->n_kv_heads, pos);
    attention(r, m, l, pos, q, h);
    matrix(layer_weights(r, l, "attn_output.weight"), NULL, h, nq, c->n_embd, y);
    for (uint32_t i = 0; i < c->n_embd; i++) x[i] += y[i];
    norm(x, layer_weights(r, l, "ffn_norm.weight"), c->n_embd, h);
    matrix(layer_weights(r, l, "ffn_gate.weight"), NULL, h, c->n_embd, c->n_ff, gate);
    matrix(layer_weights(r, l, "ffn_up.weight"), NULL, h, c->n_embd, c->n_ff, up);
    for (uint32_t i = 0; i < c->n_ff; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    matrix(layer_weights(r, l, "ffn_down.weight"), NULL, gate, c->n_ff, c->n_embd, y);
    for (uint32_t i = 0; i < c->n_embd; i++) x[i] += y[i];
}

static void naive_logits(const struct rig *r, const int32_t *tokens, uint32_t n, double *logits)
{
    const struct model_config *c = &r->c;
    struct memory *m = calloc(1, sizeof *m);
    double x[MAX_DIM], h[MAX_DIM];
    const float *embd = weights(r, "token_embd.weight"), *output = weights(r, "output.weight");
    assert_non_null(m);
    for (uint32_t pos = 0; pos < n; pos++) {
        for (uint32_t i = 0; i < c->n_embd; i++)
            x[i] = (double)embd[(uint32_t)tokens[pos] * c->n_embd + i];
        for (uint32_t l = 0; l < c->n_layers; l++) block(r, m, l, pos, x);
    }
    norm(x, weights(r, "output_norm.weight"), c->n_embd, h);
    matrix(output == NULL ? embd : output, NULL, h, c->n_embd, c->n_vocab, logits);
    free(m);
}

// ---- tests -----------------------------------------------------------------------------------

enum { VOCAB = 100 };
static const struct make_shape shapes[] = {
    {"qwen3", 2, 64, 4, 2, 32, 96, VOCAB, 512, true, 1},
    {"qwen3", 3, 96, 6, 1, 64, 128, VOCAB, 512, false, 2},
    {"qwen2", 2, 64, 2, 2, 32, 64, VOCAB, 512, true, 3},
    {"llama", 2, 64, 4, 2, 32, 96, VOCAB, 512, false, 4},
};

static void make_tokens(int32_t *out, uint32_t n, uint32_t seed)
{
    for (uint32_t i = 0; i < n; i++) out[i] = (int32_t)((i * i * 31 + i * 7 + seed) % VOCAB);
}

// With a context of n_ctx: above the trained 512, YaRN.
static void check_second_pass(uint32_t n_ctx)
{
    struct net_settings ns = settings;
    ns.n_ctx = n_ctx;
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        struct rig r;
        int32_t tokens[45];
        float logits[VOCAB];
        double want[VOCAB];
        rig_open(&r, &shapes[k], &ns);
        make_tokens(tokens, 45, 5);
        naive_logits(&r, tokens, 45, want);
        step(&r, tokens, 30, 0, 0, NULL); // no logits asked for: keys and values only
        step(&r, tokens + 30, 14, 30, 0, NULL);
        step(&r, tokens + 44, 1, 44, 0, logits);
        for (int i = 0; i < VOCAB; i++)
            if (!(fabs((double)logits[i] - want[i]) < 1e-4))
                fail_msg("%s: logit %d is %.7g, expected %.7g", shapes[k].arch, i,
                         (double)logits[i], want[i]);
        rig_close(&r);
    }
}

static void equals_the_second_pass(void **state)
{
    (void)state;
    check_second_pass(N_CTX);
}

static void equals_it_beyond_training(void **state)
{
    (void)state;
    check_second_pass(1024);
    check_second_pass(4096);
}

// However the prompt is cut, the logits have the same bits.
static void any_split_gives_the_same_bits(void **state)
{
    struct rig r;
    int32_t tokens[40];
    float whole[VOCAB], split[VOCAB];
    (void)state;
    rig_open(&r, &shapes[0], &settings);
    make_tokens(tokens, 40, 9);
    step(&r, tokens, 20, 0, 0, NULL);
    step(&r, tokens + 20, 20, 20, 0, whole);
    for (uint32_t cut = 9; cut < 32; cut += 5) {
        step(&r, tokens, cut, 0, 1, split);
        for (uint32_t i = cut; i < 40; i += 8)
            step(&r, tokens + i, 40 - i < 8 ? 40 - i : 8, i, 1, split);
        assert_memory_equal(whole, split, sizeof whole);
    }
    rig_close(&r);
}

// Two sequences in one step, three rows with logits, adjustments: each as if it were alone.
static void sequences_do_not_meet(void **state)
{
    struct rig r;
    int32_t tokens[11], a[6], b[5];
    float alone[3][VOCAB], together[VOCAB];
    struct topk_row top[3];
    struct err e = {0};
    (void)state;
    rig_open(&r, &shapes[0], &settings);
    make_tokens(a, 6, 1);
    make_tokens(b, 5, 77);
    step(&r, a, 4, 0, 0, alone[0]);
    step(&r, a + 4, 2, 4, 0, alone[1]);
    step(&r, b, 5, 0, 1, alone[2]);
    memcpy(tokens, a, sizeof a);
    memcpy(tokens + 6, b, sizeof b);
    const uint32_t pages[] = {3, 2}, out_rows[] = {3, 5, 10};
    const struct batch_seq seqs[] = {{0, 6, 0, 0, 1}, {6, 5, 0, 1, 1}};
    const struct logit_adjust adjust[] = {{1, 7, 1, 1000, false}, {2, 8, 1, -INFINITY, false}};
    struct batch batch = {.n_rows = 11,
                          .n_seqs = 2,
                          .n_out = 3,
                          .n_page_ids = 2,
                          .n_adjust = 2,
                          .tokens = tokens,
                          .seqs = seqs,
                          .pages = pages,
                          .out_rows = out_rows,
                          .adjust = adjust};
    assert_true(net_step(r.net, r.kv, &batch, &e));
    assert_true(net_read_topk(r.net, 3, top, &e));
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(net_read_logits(r.net, i, together, &e));
        for (int32_t t = 0; t < VOCAB; t++) {
            float want = alone[i][t];
            if (i == 1 && t == 7) want += 1000;
            if (i == 2 && t == 8) want = -INFINITY;
            assert_true(together[t] == want);
        }
        assert_int_equal(top[i].n, settings.n_top);
        for (uint32_t j = 0; j < top[i].n; j++)
            assert_true(together[top[i].ids[j]] == top[i].logits[j]);
    }
    assert_int_equal(top[1].ids[0], 7);
    rig_close(&r);
}

// ---- memory ----------------------------------------------------------------------------------

// A device that counts: every alloc is of the size that `size` said, and everything is given back.
static size_t taken, n_live;
static long fail_at; // this alloc fails, counted from 0; negative: none

static size_t count_size(const struct backend *b, const struct buf_desc *d)
{
    (void)b;
    return d->kind == BUF_WEIGHT ? d->source.n_bytes : (size_t)d->n_rows * d->n_cols * 4;
}

static bool count_alloc(struct backend *b, const struct buf_desc *d, struct dbuf **out,
                        struct err *e)
{
    if (fail_at-- == 0) return err_set(e, ERR_MEMORY, "full at %s", d->name);
    struct dbuf *record = malloc(1);
    if (record == NULL) return err_set(e, ERR_MEMORY, "no memory for %s", d->name);
    assert_true(d->name != NULL && d->name[0] != '\0');
    if (d->kind == BUF_VECTOR) assert_int_equal(d->fmt, FMT_F32);
    taken += count_size(b, d);
    n_live++;
    *out = record;
    return true;
}

static void count_free(struct backend *b, struct dbuf *d)
{
    (void)b;
    if (d != NULL) n_live--;
    free(d);
}

static bool count_wait(struct backend *b, struct err *e)
{
    (void)b;
    (void)e;
    return true;
}

static uint64_t last_done, last_total;

static void on_progress(void *arg, const char *stage, uint64_t done, uint64_t total)
{
    assert_ptr_equal(arg, &last_done);
    assert_string_equal(stage, "weights");
    assert_true(done > last_done && done <= total);
    last_done = done;
    last_total = total;
}

static const struct backend_class counting = {.name = "count",
                                              .size = count_size,
                                              .alloc = count_alloc,
                                              .free = count_free,
                                              .wait = count_wait};

static void takes_what_it_plans(void **state)
{
    struct backend b = {&counting};
    (void)state;
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        struct gguf_make m = {0};
        struct buf file = {0};
        struct gguf *g;
        struct model_config c;
        struct net *net = NULL;
        struct err e = {0};
        struct net_settings ns = settings;
        ns.progress = on_progress;
        ns.progress_arg = &last_done;
        make_model(&m, &shapes[k]);
        make_file(&m, &file);
        struct str part = buf_view(&file);
        assert_true(gguf_open_memory(&g, &part, 1, "m.gguf", &e) && arch_read(&c, g, false, &e));
        size_t plan = net_bytes(&b, g, &c, &ns);
        taken = n_live = last_done = 0;
        fail_at = -1;
        assert_true(net_open(&net, &b, g, &c, &ns, &e));
        assert_int_equal(taken, plan);
        assert_true(last_done == last_total && last_total > c.n_params * 4); // F32, and the rope's
        net_close(net);
        assert_int_equal(n_live, 0);
        size_t n_buffers = gguf_n_tensors(g) + 1 + 12; // weights, frequencies, activations
        for (size_t i = 0; i < n_buffers; i++) {
            fail_at = (long)i;
            last_done = 0;
            e = (struct err){0};
            assert_false(net_open(&net, &b, g, &c, &ns, &e));
            assert_int_equal(e.code, ERR_MEMORY);
            assert_int_equal(n_live, 0);
        }
        gguf_close(g);
        buf_free(&file);
        make_free(&m);
    }
}

// Whatever host allocation fails while opening, nothing stays behind on the device.
static void survives_failing_allocations(void **state)
{
    struct backend b = {&counting};
    struct gguf_make m = {0};
    struct buf file = {0};
    struct gguf *g;
    struct model_config c;
    struct err e = {0};
    long n = 0;
    (void)state;
    if (!fail_malloc_works()) skip();
    make_model(&m, &shapes[2]);
    make_file(&m, &file);
    struct str part = buf_view(&file);
    assert_true(gguf_open_memory(&g, &part, 1, "m.gguf", &e) && arch_read(&c, g, false, &e));
    fail_at = -1;
    n_live = 0;
    for (bool failed = true; failed; n++) {
        struct net *net = NULL;
        e = (struct err){0};
        fail_malloc_after(n);
        bool ok = net_open(&net, &b, g, &c, &settings, &e);
        failed = fail_malloc_done();
        fail_malloc_after(-1);
        if (failed && (ok || e.code != ERR_MEMORY)) fail_msg("allocation %ld: %s", n, e.msg);
        if (!failed && !ok) fail_msg("%s", e.msg);
        net_close(net);
        assert_int_equal(n_live, 0);
    }
    assert_true(n > (long)gguf_n_tensors(g));
    gguf_close(g);
    buf_free(&file);
    make_free(&m);
}

// ---- rope ------------------------------------------------------------------------------------

// Expected values: YaRN as Hugging Face's transformers computes it, in numpy float64 from the formula
// of arXiv 2309.00071 with beta 32 and 1 and the correction range rounded outwards.
static void stretches_the_rope(void **state)
{
    static const struct {
        uint32_t head_dim, n_ctx_train, orig, n_ctx;
        float base, config_factor;
        double factor, mscale;
        struct {
            uint32_t i;
            double freq;
        } points[8];
    } cases[] = {
        {128,
         40960,
         40960,
         65536,
         1e6f,
         1,
         1.6,
         1.04700036,
         {{0, 1},
          {1, 0.805842188},
          {16, 0.0316227766},
          {21, 0.0107460783},
          {25, 0.00443162223},
          {32, 0.000823529412},
          {42, 7.2173874e-05},
          {63, 7.755861e-07}}},
        {128,
         131072,
         32768,
         131072,
         1e6f,
         4,
         4,
         1.13862944,
         {{0, 1},
          {1, 0.805842188},
          {16, 0.0316227766},
          {21, 0.0107460783},
          {25, 0.00413173802},
          {32, 0.000602941176},
          {42, 2.88695496e-05},
          {63, 3.1023444e-07}}},
        {64,
         2048,
         2048,
         4096,
         1e4f,
         1,
         2,
         1.06931472,
         {{0, 1},
          {1, 0.749894209},
          {8, 0.1},
          {10, 0.05190843},
          {12, 0.026757734},
          {16, 0.00692307692},
          {21, 0.00118568685},
          {31, 6.66760716e-05}}},
        {64,
         4096,
         4096,
         4096,
         1e4f,
         1,
         1,
         1, // none: base^(-2i/64)
         {{0, 1},
          {1, 0.749894209},
          {8, 0.1},
          {12, 0.0316227766},
          {16, 0.01},
          {24, 0.001},
          {28, 0.000316227766},
          {31, 0.000133352143}}},
    };
    (void)state;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct model_config c = {.head_dim = cases[k].head_dim,
                                 .n_ctx_train = cases[k].n_ctx_train,
                                 .rope_orig_ctx = cases[k].orig,
                                 .rope_base = cases[k].base,
                                 .rope_factor = cases[k].config_factor};
        float freqs[64], mscale = 0;
        float factor = net_rope_freqs(&c, cases[k].n_ctx, freqs, &mscale);
        assert_float_equal(factor, cases[k].factor, 1e-6);
        assert_float_equal(mscale, cases[k].mscale, 1e-6);
        for (int i = 0; i < 8; i++) {
            double got = (double)freqs[cases[k].points[i].i], want = cases[k].points[i].freq;
            if (!(fabs(got / want - 1) < 2e-6))
                fail_msg("case %zu: frequency %u is %.9g, expected %.9g", k, cases[k].points[i].i,
                         got, want);
        }
    }
}

static void divides_frequencies(void **state)
{
    const float divisors[] = {1, 2, 4, 8};
    struct model_config c = {.head_dim = 8,
                             .n_ctx_train = 100,
                             .rope_orig_ctx = 100,
                             .rope_base = 1e4f,
                             .rope_factor = 1,
                             .rope_divisors = divisors};
    float freqs[4], mscale;
    (void)state;
    assert_true(net_rope_freqs(&c, 100, freqs, &mscale) == 1 && mscale == 1);
    assert_float_equal(freqs[0], 1, 0);
    assert_float_equal(freqs[1], 0.05, 1e-8);
    assert_float_equal(freqs[2], 0.0025, 1e-9);
    assert_float_equal(freqs[3], 0.000125, 1e-10);
}

static void says_when_it_stretches(void **state)
{
    struct rig r;
    struct net_settings ns = settings;
    (void)state;
    ns.n_ctx = 1024; // shapes[0] is trained for 512
    rig_open(&r, &shapes[0], &ns);
    assert_true(net_rope_factor(r.net) == 2);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_second_pass),
        cmocka_unit_test(equals_it_beyond_training),
        cmocka_unit_test(any_split_gives_the_same_bits),
        cmocka_unit_test(sequences_do_not_meet),
        cmocka_unit_test(takes_what_it_plans),
        cmocka_unit_test(survives_failing_allocations),
        cmocka_unit_test(stretches_the_rope),
        cmocka_unit_test(divides_frequencies),
        cmocka_unit_test(says_when_it_stretches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
