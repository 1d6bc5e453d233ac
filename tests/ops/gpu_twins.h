// The GPU and the C reference side by side: buffers on both, filled alike, and steps that both run. For the tests of
// tests/ops alone, each of which has its own two devices.
#pragma once

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

static inline uint32_t random_bits(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

// Roughly normal, variance 1.
static inline float random_value(void)
{
    float s = 0;
    for (int i = 0; i < 4; i++) s += (float)random_bits() * 0x1p-32f - 0.5f;
    return s * 1.7320508f;
}

static inline float *random_floats(size_t n, float scale)
{
    float *p = malloc(n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = scale * random_value();
    return p;
}

static inline void must(bool ok, const struct err *e)
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

static inline struct twin twin_make(struct buf_desc d)
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

static inline void twin_free(struct twin *t)
{
    for (int i = 0; i < 2; i++) both[i]->class->free(both[i], t->at[i]);
    free(t->source);
}

static inline struct twin activations(enum buf_kind kind, uint32_t rows, uint32_t cols)
{
    return twin_make(
        (struct buf_desc){.kind = kind, .n_rows = rows, .n_cols = cols, .source.fd = -1});
}

static inline struct twin vector(uint32_t n, float mean, float spread)
{
    float *p = random_floats(n, spread);
    for (uint32_t i = 0; i < n; i++) p[i] += mean;
    return twin_make((struct buf_desc){.kind = BUF_VECTOR,
                                       .fmt = FMT_F32,
                                       .n_rows = 1,
                                       .n_cols = n,
                                       .source = {p, n * 4u, -1, 0}});
}

static inline void put_half(unsigned char *at, float v)
{
    const uint16_t h = f32_to_f16(v);
    memcpy(at, &h, sizeof h);
}

// Random bytes are valid blocks once their scales are sensible.
static inline void fill_block(enum fmt f, unsigned char *b)
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

static inline struct twin weight(enum fmt f, uint32_t rows, uint32_t cols)
{
    const size_t row_bytes = fmt_row_bytes(f, cols), n = rows * row_bytes;
    unsigned char *p = malloc(n);
    for (size_t i = 0; i < n; i += fmt_info[f].block_bytes) fill_block(f, p + i);
    return twin_make((struct buf_desc){
        .kind = BUF_WEIGHT, .fmt = f, .n_rows = rows, .n_cols = cols, .source = {p, n, -1, 0}});
}

static inline void put_on(int i, struct twin *t, uint32_t rows, const float *v)
{
    struct err e = {0};
    must(both[i]->class->write(both[i], t->at[i], 0, rows, v, &e), &e);
}

static inline void randomize(struct twin *t, uint32_t rows, float scale)
{
    float *v = random_floats((size_t)rows * t->n_cols, scale);
    put_on(GPU, t, rows, v);
    put_on(REF, t, rows, v);
    free(v);
}

static inline void poison(struct twin *t, uint32_t rows)
{
    float *v = malloc((size_t)rows * t->n_cols * sizeof *v);
    for (size_t i = 0; i < (size_t)rows * t->n_cols; i++) v[i] = NAN;
    put_on(GPU, t, rows, v);
    free(v);
}

static inline float *read_on(int i, const struct twin *t, uint32_t row, uint32_t rows)
{
    struct err e = {0};
    float *v = malloc((size_t)rows * t->n_cols * sizeof *v);
    must(both[i]->class->read(both[i], t->at[i], row, rows, v, &e), &e);
    return v;
}

static inline double distance(const float *a, const float *b, size_t n)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        diff += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(diff / (norm > 0 ? norm : 1));
}

static inline void expect_near(const struct twin *t, uint32_t rows, double bound, const char *what)
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
    struct op ops[2][12];
    uint32_t n_ops;
};

static inline struct op *next_op(struct step *s, enum op_kind kind, int i)
{
    if (i == GPU) s->n_ops++;
    struct op *o = &s->ops[i][s->n_ops - 1];
    *o = (struct op){.kind = kind};
    return o;
}

static inline void run_on(int i, const struct step *s, const struct batch *b)
{
    struct err e = {0};
    must(both[i]->class->submit(both[i], s->ops[i], s->n_ops, b, &e), &e);
    must(both[i]->class->wait(both[i], &e), &e);
}

// Rows without sequences: what ops other than attention need.
static inline struct batch plain_batch(uint32_t rows)
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

static inline void run_both(const struct step *s, uint32_t rows)
{
    const struct batch b = plain_batch(rows);
    run_on(GPU, s, &b);
    run_on(REF, s, &b);
}

static inline void add_linear(struct step *s, struct twin *x, struct twin *w, struct twin *bias,
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

static inline void add_norm(struct step *s, struct twin *x, struct twin *w, struct twin *out)
{
    for (int i = 0; i < 2; i++)
        next_op(s, OP_RMS_NORM, i)->rms_norm =
            (struct op_rms_norm){x->at[i], w->at[i], out->at[i], 1e-6f, 0};
}

static inline void add_add(struct step *s, struct twin *x, struct twin *y)
{
    for (int i = 0; i < 2; i++) next_op(s, OP_ADD, i)->add = (struct op_add){x->at[i], y->at[i], 0};
}

static inline void add_swiglu(struct step *s, struct twin *gate, struct twin *up)
{
    for (int i = 0; i < 2; i++)
        next_op(s, OP_SWIGLU, i)->swiglu =
            (struct op_swiglu){gate->at[i], up->at[i], gate->at[i], 0};
}

static inline bool open_one(struct backend **out, const char *name, bool fp8, struct err *e)
{
    const struct backend_settings s = {.device = name,
                                       .n_threads = 16,
                                       .max_rows = MAX_ROWS,
                                       .max_out = MAX_OUT,
                                       .prefill_fp8 = fp8};
    return backend_open(out, &s, e);
}
