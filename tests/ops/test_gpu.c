// Every GPU kernel against the C reference: all formats, odd and even shapes, batches of decode steps
// and prompts, both kinds of key/value pages. Inputs are random, outputs are poisoned with NaN first.
// Errors are ||gpu - ref|| / ||ref||. What is bounded by f16 inputs (2^-11 each) gets 1e-3.
// Skips where there is no GPU.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "compute/backend.h"

enum { MAX_ROWS = 1024, MAX_OUT = 64, POSITIONS = 2048, SEQS_MAX = 16 };
enum { GPU, REF };

static struct backend *both[2];
static uint64_t seed = 1;

static uint32_t random_bits(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

// Roughly normal, variance 1.
static float random_value(void)
{
    float s = 0;
    for (int i = 0; i < 4; i++) s += (float)random_bits() * 0x1p-32f - 0.5f;
    return s * 1.7320508f;
}

static float *random_floats(size_t n, float scale)
{
    float *p = malloc(n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = scale * random_value();
    return p;
}

static void must(bool ok, const struct err *e)
{
    if (!ok) fail_msg("%s", e->msg);
}

// A buffer on both devices.
struct twin {
    struct dbuf *at[2];
    uint32_t n_rows, n_cols;
    enum buf_kind kind;
    void *source;
};

static struct twin twin_make(struct buf_desc d)
{
    struct twin t = {.n_rows = d.n_rows,
                     .n_cols = d.n_cols,
                     .kind = d.kind,
                     .source = (void *)(uintptr_t)d.source.map};
    struct err e = {0};
    d.name = "test";
    for (int i = 0; i < 2; i++) must(both[i]->class->alloc(both[i], &d, &t.at[i], &e), &e);
    for (int i = 0; i < 2; i++) must(both[i]->class->wait(both[i], &e), &e);
    return t;
}

static void twin_free(struct twin *t)
{
    for (int i = 0; i < 2; i++) both[i]->class->free(both[i], t->at[i]);
    free(t->source);
}

static struct twin activations(enum buf_kind kind, uint32_t rows, uint32_t cols)
{
    return twin_make(
        (struct buf_desc){.kind = kind, .n_rows = rows, .n_cols = cols, .source.fd = -1});
}

static struct twin vector(uint32_t n, float mean, float spread)
{
    float *p = random_floats(n, spread);
    for (uint32_t i = 0; i < n; i++) p[i] += mean;
    return twin_make((struct buf_desc){.kind = BUF_VECTOR,
                                       .fmt = FMT_F32,
                                       .n_rows = 1,
                                       .n_cols = n,
                                       .source = {p, n * 4u, -1, 0}});
}

static void put_half(unsigned char *at, float v)
{
    const uint16_t h = f32_to_f16(v);
    memcpy(at, &h, sizeof h);
}

// Random bytes are valid blocks once their scales are sensible.
static void fill_block(enum fmt f, unsigned char *b)
{
    const float d = 0.002f * (1 + 0.5f * random_value() * 0.2f);
    const uint16_t bf = f32_to_bf16(0.05f * random_value());
    const float plain = 0.05f * random_value();
    for (uint32_t i = 0; i < fmt_info[f].block_bytes; i++) b[i] = (unsigned char)random_bits();
    switch (f) {
    case FMT_F32: memcpy(b, &plain, 4); break;
    case FMT_F16: put_half(b, plain); break;
    case FMT_BF16: memcpy(b, &bf, 2); break;
    case FMT_Q8_0: put_half(b, d / 4); break;
    case FMT_Q4_0: put_half(b, d * 4); break;
    case FMT_Q4_K:
    case FMT_Q5_K:
        put_half(b, random_bits() % 32 ? d / 16 : 0); // mins alone, too
        put_half(b + 2, random_bits() % 32 ? d / 3 : 0);
        break;
    case FMT_Q6_K: put_half(b + 208, d / 64); break;
    case FMT_Q4_1:
    case FMT_Q5_1:
        put_half(b, d * 2);
        put_half(b + 2, d * -24);
        break;
    case FMT_Q5_0: put_half(b, d * 2); break;
    case FMT_Q2_K:
        put_half(b + 80, d * 2);
        put_half(b + 82, d * 3);
        break;
    case FMT_Q3_K: put_half(b + 108, d / 2); break;
    case FMT_IQ4_NL: put_half(b, d / 4); break;
    case FMT_IQ4_XS: put_half(b, d / 64); break;
    case FMT_MXFP4: b[0] = (unsigned char)(120 + random_bits() % 3); break;
    case FMT_COUNT: break;
    }
}

static struct twin weight(enum fmt f, uint32_t rows, uint32_t cols)
{
    const size_t row_bytes = fmt_row_bytes(f, cols), n = rows * row_bytes;
    unsigned char *p = malloc(n);
    for (size_t i = 0; i < n; i += fmt_info[f].block_bytes) fill_block(f, p + i);
    return twin_make((struct buf_desc){
        .kind = BUF_WEIGHT, .fmt = f, .n_rows = rows, .n_cols = cols, .source = {p, n, -1, 0}});
}

static void put_on(int i, struct twin *t, uint32_t rows, const float *v)
{
    struct err e = {0};
    must(both[i]->class->write(both[i], t->at[i], 0, rows, v, &e), &e);
}

static void randomize(struct twin *t, uint32_t rows, float scale)
{
    float *v = random_floats((size_t)rows * t->n_cols, scale);
    put_on(GPU, t, rows, v);
    put_on(REF, t, rows, v);
    free(v);
}

static void poison(struct twin *t, uint32_t rows)
{
    float *v = malloc((size_t)rows * t->n_cols * sizeof *v);
    for (size_t i = 0; i < (size_t)rows * t->n_cols; i++) v[i] = NAN;
    put_on(GPU, t, rows, v);
    free(v);
}

static float *read_on(int i, const struct twin *t, uint32_t row, uint32_t rows)
{
    struct err e = {0};
    float *v = malloc((size_t)rows * t->n_cols * sizeof *v);
    must(both[i]->class->read(both[i], t->at[i], row, rows, v, &e), &e);
    return v;
}

static double distance(const float *a, const float *b, size_t n)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        diff += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(diff / (norm > 0 ? norm : 1));
}

static void expect_near(const struct twin *t, uint32_t rows, double bound, const char *what)
{
    float *a = read_on(GPU, t, 0, rows), *b = read_on(REF, t, 0, rows);
    const double d = distance(a, b, (size_t)rows * t->n_cols);
    free(a);
    free(b);
    print_message("%-44s error %.2e (bound %.0e)\n", what, d, bound);
    if (!(d <= bound)) fail_msg("%s: error %g above %g", what, d, bound);
}

// ---- steps on both devices --------------------------------------------------------------------

struct step {
    struct op ops[2][8];
    uint32_t n_ops;
};

static struct op *next_op(struct step *s, enum op_kind kind, int i)
{
    if (i == GPU) s->n_ops++;
    struct op *o = &s->ops[i][s->n_ops - 1];
    *o = (struct op){.kind = kind};
    return o;
}

static void run_on(int i, const struct step *s, const struct batch *b)
{
    struct err e = {0};
    must(both[i]->class->submit(both[i], s->ops[i], s->n_ops, b, &e), &e);
    must(both[i]->class->wait(both[i], &e), &e);
}

// Rows without sequences: what ops other than attention need.
static struct batch plain_batch(uint32_t rows)
{
    static struct batch_seq seq;
    static int32_t tokens[MAX_ROWS];
    static const uint32_t page = 0;
    seq = (struct batch_seq){0, rows, 0, 0, 1};
    return (struct batch){.n_rows = rows,
                          .tokens = tokens,
                          .seqs = &seq,
                          .n_seqs = 1,
                          .pages = &page,
                          .n_page_ids = 1};
}

static void run_both(const struct step *s, uint32_t rows)
{
    const struct batch b = plain_batch(rows);
    run_on(GPU, s, &b);
    run_on(REF, s, &b);
}

static void add_linear(struct step *s, struct twin *x, struct twin *w, struct twin *bias,
                       struct twin *out, uint32_t n)
{
    for (int i = 0; i < 2; i++) {
        struct op_linear *o = &next_op(s, OP_LINEAR, i)->linear;
        o->x = x->at[i];
        o->n = n;
        for (uint32_t j = 0; j < n; j++) {
            o->w[j] = w[j].at[i];
            o->out[j] = out[j].at[i];
            o->bias[j] = bias && j == 1 ? bias->at[i] : NULL;
        }
    }
}

static void add_norm(struct step *s, struct twin *x, struct twin *w, struct twin *out)
{
    for (int i = 0; i < 2; i++)
        next_op(s, OP_RMS_NORM, i)->rms_norm =
            (struct op_rms_norm){x->at[i], w->at[i], out->at[i], 1e-6f, 0};
}

static void add_add(struct step *s, struct twin *x, struct twin *y)
{
    for (int i = 0; i < 2; i++) next_op(s, OP_ADD, i)->add = (struct op_add){x->at[i], y->at[i], 0};
}

static void add_swiglu(struct step *s, struct twin *gate, struct twin *up)
{
    for (int i = 0; i < 2; i++)
        next_op(s, OP_SWIGLU, i)->swiglu =
            (struct op_swiglu){gate->at[i], up->at[i], gate->at[i], 0};
}

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

// ---- products in e4m3 -------------------------------------------------------------------------

// What the sums' own precision costs in long rows: 0.004 was measured over 25,600 products.
#define FP8_BOUND 1e-2
static struct backend *exact, *eights; // the GPU without and with prefill_fp8

// The nearest e4m3 number, ties to even: 3 bits of mantissa, 2^-9 the smallest step, 448 the largest.
static double e4m3(double v)
{
    int exponent = 0;
    frexp(v, &exponent); // v = f 2^exponent, f in [0.5, 1)
    const double step = ldexp(1, exponent - 4 > -9 ? exponent - 4 : -9),
                 r = nearbyint(v / step) * step;
    return r > 448 ? 448 : r < -448 ? -448 : r;
}

static double half_of(double v)
{
    return (double)f16_to_f32(f32_to_f16((float)v));
}

// Rows as e4m3 numbers, times[i] back to values. Weights: held as f16 64 times too large, by a factor in f16.
static void to_e4m3(const float *v, uint32_t rows, uint32_t cols, bool weights, double *out,
                    double *times)
{
    for (uint32_t r = 0; r < rows; r++) {
        double most = 0, factor;
        for (uint32_t i = 0; i < cols; i++) {
            out[r * cols + i] = half_of((double)v[r * cols + i] * (weights ? 64 : 1));
            most = fmax(most, fabs(out[r * cols + i]));
        }
        factor = weights ? half_of(fmin(448 / most, 32768)) : (double)(1.0f / (float)(most / 448));
        times[r] = 1 / factor / (weights ? 64 : 1);
        for (uint32_t i = 0; i < cols; i++) {
            const double x = out[r * cols + i] * factor;
            out[r * cols + i] = e4m3(weights ? half_of(x) : (double)(float)x);
        }
    }
}

// The library's product with scales of rows and our conversions, against e4m3 arithmetic in double precision.
static void fp8_definition_case(uint32_t cols, double bound)
{
    enum { ROWS = 500, OUT = 64 };
    char what[80];
    float *wv = random_floats((size_t)OUT * cols, 0.05f);
    float *xv = random_floats((size_t)ROWS * cols, 1), *copy = malloc(sizeof *copy * OUT * cols);
    double *w8 = malloc(sizeof *w8 * OUT * cols), *x8 = malloc(sizeof *x8 * ROWS * cols);
    double w_times[OUT], x_times[ROWS], diff = 0, norm = 0;
    memcpy(copy, wv, sizeof *copy * OUT * cols);
    struct twin x = activations(BUF_ACT, ROWS, cols), out = activations(BUF_ACT, ROWS, OUT);
    struct twin w =
        twin_make((struct buf_desc){.kind = BUF_WEIGHT,
                                    .fmt = FMT_F32,
                                    .n_rows = OUT,
                                    .n_cols = cols,
                                    .source = {copy, sizeof *copy * OUT * cols, -1, 0}});
    struct step s = {0};
    put_on(GPU, &x, ROWS, xv);
    put_on(REF, &x, ROWS, xv);
    poison(&out, ROWS);
    add_linear(&s, &x, &w, NULL, &out, 1);
    run_both(&s, ROWS);
    float *got = read_on(GPU, &out, 0, ROWS);
    to_e4m3(wv, OUT, cols, true, w8, w_times);
    to_e4m3(xv, ROWS, cols, false, x8, x_times);
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t j = 0; j < OUT; j++) {
            double sum = 0;
            for (uint32_t k = 0; k < cols; k++)
                sum += x8[(size_t)i * cols + k] * w8[(size_t)j * cols + k];
            sum *= x_times[i] * w_times[j];
            const double d = (double)got[i * OUT + j] - sum;
            diff += d * d;
            norm += sum * sum;
        }
    snprintf(what, sizeof what, "e4m3 product of %u by its definition", cols);
    print_message("%-44s error %.2e (bound %.0e)\n", what, sqrt(diff / norm), bound);
    if (!(sqrt(diff / norm) <= bound)) fail_msg("%s: error %g", what, sqrt(diff / norm));
    expect_near(&out, ROWS, 6e-2, "e4m3 product");
    free(got), free(wv), free(xv), free(w8), free(x8);
    twin_free(&x), twin_free(&w), twin_free(&out);
}

static void test_fp8_definition(void **state)
{
    (void)state;
    if (!eights) skip();
    both[GPU] = eights;
    fp8_definition_case(512, 2e-3);
    fp8_definition_case(5120, FP8_BOUND);
    fp8_definition_case(25600, FP8_BOUND);
    both[GPU] = exact;
}

static double rows_distance(const struct twin *t, uint32_t row, uint32_t rows)
{
    float *a = read_on(GPU, t, row, rows), *b = read_on(REF, t, row, rows);
    const double d = distance(a, b, (size_t)rows * t->n_cols);
    free(a);
    free(b);
    return d;
}

// A feed-forward block in every format: norm, gate and up, their product, down, added to the stream. Three rows
// are decode steps beside a prompt: those are exact. Errors of 2^-4 in both factors are 4 % of a sum; below 1 %
// it was no e4m3.
static void fp8_chain_case(enum fmt f)
{
    enum { EMBD = 512, FF = 1536, ROWS = 453, SINGLE = 3 };
    struct twin x = activations(BUF_STREAM, ROWS, EMBD), h = activations(BUF_ACT, ROWS, EMBD);
    struct twin gu[2] = {activations(BUF_ACT, ROWS, FF), activations(BUF_ACT, ROWS, FF)};
    struct twin w[2] = {weight(f, FF, EMBD), weight(f, FF, EMBD)}, down = weight(f, EMBD, FF);
    struct twin norm = vector(EMBD, 1, 0.1f), bias = vector(EMBD, 0, 0.1f);
    struct batch_seq seqs[SINGLE + 1];
    const uint32_t pages[SINGLE + 1] = {0};
    struct step s = {0}, t = {0};
    for (uint32_t i = 0; i <= SINGLE; i++)
        seqs[i] = (struct batch_seq){i, i < SINGLE ? 1 : ROWS - SINGLE, 0, i, 1};
    struct batch b = plain_batch(ROWS);
    b.seqs = seqs, b.n_seqs = SINGLE + 1, b.pages = pages, b.n_page_ids = SINGLE + 1;
    randomize(&x, ROWS, 2);
    poison(&h, ROWS), poison(&gu[0], ROWS), poison(&gu[1], ROWS);
    add_norm(&s, &x, &norm, &h);
    add_linear(&s, &h, w, NULL, gu, 2);
    run_on(GPU, &s, &b), run_on(REF, &s, &b);
    for (int i = 0; i < 2; i++) {
        const double few = rows_distance(&gu[i], 0, SINGLE);
        const double many = rows_distance(&gu[i], SINGLE, ROWS - SINGLE);
        print_message("fp8 gate, up %-31s error %.2e and %.2e\n", fmt_info[f].name, few, many);
        assert_true(few <= 1e-3 && many > 1e-2 && many <= 6e-2);
    }
    randomize(&gu[0], ROWS, 1), randomize(&gu[1], ROWS, 1);
    add_swiglu(&t, &gu[0], &gu[1]);
    add_linear(&t, &gu[0], &down, NULL, &h, 1);
    add_add(&t, &x, &h);
    add_norm(&t, &x, &norm, &h);
    run_on(GPU, &t, &b), run_on(REF, &t, &b);
    assert_true(rows_distance(&x, 0, SINGLE) <= 2e-3);
    expect_near(&x, ROWS, 6e-2, "fp8 down, added to the stream");
    // all of it, and a product of the norm after it
    struct step u = {0};
    randomize(&x, ROWS, 2);
    poison(&h, ROWS), poison(&gu[0], ROWS), poison(&gu[1], ROWS);
    add_norm(&u, &x, &norm, &h);
    add_linear(&u, &h, w, NULL, gu, 2);
    add_swiglu(&u, &gu[0], &gu[1]);
    add_linear(&u, &gu[0], &down, NULL, &h, 1);
    add_add(&u, &x, &h);
    add_norm(&u, &x, &norm, &h);
    add_linear(&u, &h, w, NULL, &gu[1], 1);
    run_on(GPU, &u, &b), run_on(REF, &u, &b);
    assert_true(rows_distance(&x, 0, SINGLE) <= 2e-3);
    assert_true(rows_distance(&gu[1], 0, SINGLE) <= 3e-3);
    expect_near(&x, ROWS, 1e-1, "fp8 block, on the stream");
    expect_near(&gu[1], ROWS, 1.2e-1, "fp8 block, a product after it");
    struct twin *all[] = {&x, &h, &gu[0], &gu[1], &w[0], &w[1], &down, &norm, &bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) twin_free(all[i]);
}

static void test_fp8_chain(void **state)
{
    (void)state;
    if (!eights) skip();
    both[GPU] = eights;
    for (int f = 0; f < FMT_COUNT; f++) fp8_chain_case((enum fmt)f);
    both[GPU] = exact;
}

static double same_distance(const float *a, const struct twin *t, uint32_t rows)
{
    float *b = read_on(GPU, t, 0, rows);
    const double d = distance(b, a, (size_t)rows * t->n_cols);
    free(b);
    return d;
}

// Products whose scales the next op applies give what those with scales of their own do, but for f16's rounding:
// that moves a hundredth of the e4m3 numbers after it by a step.
static void test_fp8_raw(void **state)
{
    enum { EMBD = 1280, FF = 2560, ROWS = 500 };
    (void)state;
    if (!eights) skip();
    both[GPU] = eights;
    struct twin x = activations(BUF_STREAM, ROWS, EMBD), h = activations(BUF_ACT, ROWS, EMBD);
    struct twin gu[2] = {activations(BUF_ACT, ROWS, FF), activations(BUF_ACT, ROWS, FF)};
    struct twin w[2] = {weight(FMT_Q4_K, FF, EMBD), weight(FMT_Q6_K, FF, EMBD)};
    struct twin down = weight(FMT_Q8_0, EMBD, FF), norm = vector(EMBD, 1, 0.1f);
    struct step whole = {0}, first = {0}, second = {0}, third = {0};
    const struct batch b = plain_batch(ROWS);
    float *start = random_floats((size_t)ROWS * EMBD, 2);
    put_on(GPU, &x, ROWS, start);
    add_norm(&first, &x, &norm, &h);
    add_linear(&first, &h, w, NULL, gu, 2);
    add_swiglu(&second, &gu[0], &gu[1]);
    add_linear(&second, &gu[0], &down, NULL, &h, 1);
    add_add(&second, &x, &h);
    add_norm(&third, &x, &norm, &h);
    add_linear(&third, &h, w, NULL, &gu[1], 1);
    run_on(GPU, &first, &b), run_on(GPU, &second, &b), run_on(GPU, &third, &b);
    float *stream = read_on(GPU, &x, 0, ROWS), *after = read_on(GPU, &gu[1], 0, ROWS);
    put_on(GPU, &x, ROWS, start);
    poison(&h, ROWS), poison(&gu[0], ROWS), poison(&gu[1], ROWS);
    add_norm(&whole, &x, &norm, &h);
    add_linear(&whole, &h, w, NULL, gu, 2);
    add_swiglu(&whole, &gu[0], &gu[1]);
    add_linear(&whole, &gu[0], &down, NULL, &h, 1);
    add_add(&whole, &x, &h);
    add_norm(&whole, &x, &norm, &h);
    add_linear(&whole, &h, w, NULL, &gu[1], 1);
    run_on(GPU, &whole, &b);
    print_message("fp8 raw: error %.2e on the stream, %.2e after it\n",
                  same_distance(stream, &x, ROWS), same_distance(after, &gu[1], ROWS));
    assert_true(same_distance(stream, &x, ROWS) <= 1e-2);
    assert_true(same_distance(after, &gu[1], ROWS) <= 2e-2);
    free(start), free(stream), free(after);
    struct twin *all[] = {&x, &h, &gu[0], &gu[1], &w[0], &w[1], &down, &norm};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) twin_free(all[i]);
    both[GPU] = exact;
}

// A prompt cut anywhere into long chunks gives the same rows bit for bit, in e4m3 too.
static void test_fp8_cuts(void **state)
{
    enum { EMBD = 1280, OUT = 96, ROWS = 1000 };
    static const uint32_t cuts[] = {400, 465, 600};
    (void)state;
    if (!eights) skip();
    both[GPU] = eights;
    struct twin x = activations(BUF_ACT, ROWS, EMBD), out = activations(BUF_ACT, ROWS, OUT);
    struct twin w = weight(FMT_Q4_K, OUT, EMBD);
    struct step s = {0};
    float *v = random_floats((size_t)ROWS * EMBD, 1);
    add_linear(&s, &x, &w, NULL, &out, 1);
    put_on(GPU, &x, ROWS, v);
    const struct batch all = plain_batch(ROWS);
    run_on(GPU, &s, &all);
    float *whole = read_on(GPU, &out, 0, ROWS);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        const uint32_t rest = ROWS - cuts[i];
        put_on(GPU, &x, rest, v + (size_t)cuts[i] * EMBD);
        const struct batch part = plain_batch(rest);
        run_on(GPU, &s, &part);
        float *got = read_on(GPU, &out, 0, rest);
        assert_memory_equal(got, whole + (size_t)cuts[i] * OUT, (size_t)rest * OUT * sizeof *got);
        free(got);
    }
    free(whole), free(v);
    twin_free(&x), twin_free(&out), twin_free(&w);
    both[GPU] = exact;
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

static void test_pages(void **state)
{
    struct world w;
    struct err e = {0};
    (void)state;
    world_open(&w, (struct heads){8, 2, 128, KV_F16});
    const struct kv_shape shape = {4, w.page_tokens[GPU], 2, 2, 128, KV_F16};
    const size_t n = both[GPU]->class->page_bytes(both[GPU], &shape);
    unsigned char *a = malloc(n), *b = malloc(n);
    for (size_t i = 0; i < n; i++) a[i] = (unsigned char)random_bits();
    void *at = both[GPU]->class->page_begin(both[GPU], w.kv[GPU], 3, &e);
    must(at != NULL, &e);
    memcpy(at, a, n);
    must(both[GPU]->class->page_end(both[GPU], w.kv[GPU], 3, at, true, &e), &e);
    must(both[GPU]->class->page_read(both[GPU], w.kv[GPU], 3, b, &e), &e);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    world_close(&w);
}

static bool open_one(struct backend **out, const char *name, bool fp8, struct err *e)
{
    const struct backend_settings s = {.device = name,
                                       .n_threads = 16,
                                       .max_rows = MAX_ROWS,
                                       .max_out = MAX_OUT,
                                       .prefill_fp8 = fp8};
    return backend_open(out, &s, e);
}

// An argument names the device, another the tests (as test_fp8*); "cuda:noblas" leaves the library out.
int main(int argc, char **argv)
{
    const char *const name = argc > 1 ? argv[1] : "cuda";
    struct err e = {0};
    struct backend_info info = {0};
    if (!open_one(&both[GPU], name, false, &e) || !open_one(&both[REF], "ref", false, &e) ||
        !open_one(&eights, name, true, &e)) {
        print_message("skipped: %s\n", e.msg);
        return e.code == ERR_NOT_FOUND && !both[GPU] ? 77 : 1;
    }
    exact = both[GPU];
    eights->class->info(eights, &info);
    struct backend *const second = eights;
    if (!info.prefill_fp8) eights = NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),           cmocka_unit_test(test_embed),
        cmocka_unit_test(test_linear),         cmocka_unit_test(test_chain),
        cmocka_unit_test(test_columns_equal),  cmocka_unit_test(test_topk),
        cmocka_unit_test(test_attention),      cmocka_unit_test(test_cuts_equal),
        cmocka_unit_test(test_decodes_equal),  cmocka_unit_test(test_pages),
        cmocka_unit_test(test_fp8_definition), cmocka_unit_test(test_fp8_chain),
        cmocka_unit_test(test_fp8_cuts),       cmocka_unit_test(test_fp8_raw),
    };
    if (argc > 2) cmocka_set_test_filter(argv[2]);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < 2; i++) both[i]->class->close(both[i]);
    second->class->close(second);
    return failed != 0;
}
