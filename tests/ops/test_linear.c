// LINEAR in every format on the host's backends:
//  - each of the CPU's instruction sets against the reference, within a bound that follows from its
//    rounding: activations to absmax / 2047 a block of 256, float weights to absmax / 4095; or, where
//    weights are packed for 8-bit products, activations to absmax / 127 a block of 32.
//    Rounding errors are independent and uniform (deviation step / sqrt 12), so an output's error has
//    deviation step / sqrt 12 * |w|; six of them, and 1e-5 of the sum of magnitudes for float sums.
//  - every row equal bit for bit whatever the batch, its offset in it, and the thread count.
//  - the reference itself against sums in double over decoded rows.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/common/decode.h"
#include "lib/ops_rig.h"

enum { MAX_ROWS = 100 };

struct shape {
    uint32_t n, k;
};

// No multiples of panels, of blocks, one more than a panel; the lengths that models have.
static const struct shape shapes[] = {{16, 256}, {37, 1024}, {5, 3072}, {33, 512}, {17, 768}};
static const struct shape short_shapes[] = {{19, 96}, {40, 288}, {1, 32}, {131, 1056}};

static void run_rows(struct ops_rig *r, struct dbuf *w, struct dbuf *bias, const float *x,
                     uint32_t rows, uint32_t k, uint32_t n, float *out)
{
    struct dbuf *in = ops_act(r, BUF_ACT, x, rows, k), *to = ops_act(r, BUF_ACT, NULL, rows, n);
    const struct op op = {.kind = OP_LINEAR,
                          .linear = {.x = in, .w = {w}, .bias = {bias}, .out = {to}, .n = 1}};
    const struct batch batch = {.n_rows = rows};
    ops_run(r, &op, 1, &batch);
    ops_read(r, to, 0, rows, out);
    ops_free(r, in);
    ops_free(r, to);
}

// The largest of the `size` columns around column j.
static double block_max(const float *x, uint32_t k, uint32_t j, uint32_t size)
{
    double m = 0;
    const uint32_t first = j / size * size, end = first + size < k ? first + size : k;
    for (uint32_t i = first; i < end; i++) m = fmax(m, fabs((double)x[i]));
    return m;
}

// The minimums of Q4_1 and Q5_1, floats in each 32 weights, are rounded to 1 / 4095 of a block's largest,
// which is about its largest weight.
static double minimum_variance(enum fmt f, const float *x, const float *w, uint32_t k,
                               uint32_t first)
{
    const double step = 1.2 * block_max(w, k, first, 256) / 4095;
    double variance = 0;
    if (f != FMT_Q4_1 && f != FMT_Q5_1) return 0;
    for (uint32_t i = first; i < first + 256 && i < k; i += 32) {
        double sum = 0;
        for (uint32_t j = i; j < i + 32; j++) sum += (double)x[j];
        variance += step * step * sum * sum / 12;
    }
    return variance;
}

// What the CPU's rounding may change in x . w, see above.
static double rounding_bound(enum fmt f, bool packed, const float *x, const float *w, uint32_t k)
{
    double variance = 0, magnitude = 0, step_x = 0, step_w = 0;
    for (uint32_t j = 0; j < k; j++) {
        const double xw = (double)x[j] * (double)w[j];
        if (j % 256 == 0) variance += minimum_variance(f, x, w, k, j);
        if (j % 32 == 0) {
            step_x = packed ? block_max(x, k, j, 32) / 127 : block_max(x, k, j, 256) / 2047;
            step_w = fmt_info[f].block == 1 ? block_max(w, k, j, 256) / 4095 : 0;
        }
        variance += step_x * step_x * (double)w[j] * (double)w[j] / 12;
        variance += step_w * step_w * (double)x[j] * (double)x[j] / 12;
        magnitude += fabs(xw);
    }
    return 6 * sqrt(variance) + 1e-5 * magnitude;
}

struct problem {
    enum fmt f;
    uint32_t n, k;
    uint8_t *w;
    float *x, *bias, *expected; // [MAX_ROWS][k], [n], [MAX_ROWS][n]
};

static void problem_open(struct problem *p, enum fmt f, struct shape s)
{
    random_seed(s.n * 1000u + s.k + (uint32_t)f);
    *p = (struct problem){.f = f, .n = s.n, .k = s.k, .w = random_weight(f, s.n, s.k)};
    p->x = test_alloc(MAX_ROWS * s.k * sizeof(float));
    p->bias = test_alloc(s.n * sizeof(float));
    p->expected = test_alloc(MAX_ROWS * s.n * sizeof(float));
    random_floats(p->x, MAX_ROWS * s.k, 1);
    random_floats(p->bias, s.n, 1);
    for (uint32_t i = 0; i < MAX_ROWS; i += 7) p->x[i * s.k + i % s.k] = 40; // outliers
    memset(p->x + 3 * s.k, 0, s.k * sizeof(float));                          // a row of zeros
}

static void problem_close(struct problem *p)
{
    free(p->w);
    free(p->x);
    free(p->bias);
    free(p->expected);
}

static void check_reference(const struct problem *p)
{
    float *w = test_alloc(p->k * sizeof *w);
    for (uint32_t c = 0; c < p->n; c++) {
        decode_row(p->f, p->w + c * fmt_row_bytes(p->f, p->k), w, p->k);
        for (uint32_t r = 0; r < 5; r++) {
            double sum = (double)p->bias[c], magnitude = fabs(sum);
            for (uint32_t j = 0; j < p->k; j++) {
                sum += (double)w[j] * (double)p->x[r * p->k + j];
                magnitude += fabs((double)w[j] * (double)p->x[r * p->k + j]);
            }
            assert_true(fabs((double)p->expected[r * p->n + c] - sum) <= 2e-6 * magnitude);
        }
    }
    free(w);
}

static void check_close(const struct problem *p, bool packed, const float *got)
{
    float *w = test_alloc(p->k * sizeof *w);
    for (uint32_t c = 0; c < p->n; c++) {
        decode_row(p->f, p->w + c * fmt_row_bytes(p->f, p->k), w, p->k);
        for (uint32_t r = 0; r < MAX_ROWS; r++) {
            const double bound = rounding_bound(p->f, packed, p->x + r * p->k, w, p->k);
            const double error = fabs((double)(got[r * p->n + c] - p->expected[r * p->n + c]));
            if (!(error <= bound + 1e-6))
                fail_msg("%s %u x %u: row %u, column %u is off by %g, bound %g",
                         fmt_info[p->f].name, p->n, p->k, r, c, error, bound);
        }
    }
    free(w);
}

// Batches of many sizes, starting at different rows, against the rows of the batch of all.
static void check_batches(struct ops_rig *r, const struct problem *p, const float *all)
{
    static const uint32_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 17, 33, 64, 99, 100};
    struct dbuf *w = ops_weight(r, p->f, p->w, p->n, p->k), *bias = ops_vector(r, p->bias, p->n);
    float *got = test_alloc(MAX_ROWS * p->n * sizeof *got);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const uint32_t rows = sizes[i], row0 = (uint32_t)i * 7 % (MAX_ROWS - rows + 1);
        run_rows(r, w, bias, p->x + row0 * p->k, rows, p->k, p->n, got);
        if (memcmp(got, all + row0 * p->n, rows * p->n * sizeof *got))
            fail_msg("%s %u x %u: a batch of %u rows gives other bits", fmt_info[p->f].name, p->n,
                     p->k, rows);
    }
    free(got);
    ops_free(r, w);
    ops_free(r, bias);
}

static void solve(const char *device, uint32_t n_threads, const struct problem *p, float *out)
{
    struct ops_rig r;
    ops_open(&r, device, n_threads, MAX_ROWS);
    struct dbuf *w = ops_weight(&r, p->f, p->w, p->n, p->k), *b = ops_vector(&r, p->bias, p->n);
    run_rows(&r, w, b, p->x, MAX_ROWS, p->k, p->n, out);
    ops_free(&r, w);
    ops_free(&r, b);
    ops_close(&r);
}

// Whether device keeps such weights in a form of its own.
static bool is_packed(const char *device, const struct problem *p)
{
    struct ops_rig r;
    const struct buf_desc d = {.kind = BUF_WEIGHT, .fmt = p->f, .n_rows = p->n, .n_cols = p->k};
    ops_open(&r, device, 1, 1);
    const bool packed = r.b->class->size(r.b, &d) > 0;
    ops_close(&r);
    return packed;
}

static void check_device(const char *device, const struct problem *p)
{
    if (!ops_can(device)) return;
    float *all = test_alloc(MAX_ROWS * p->n * sizeof *all);
    solve(device, 1, p, all);
    check_close(p, is_packed(device, p), all);
    for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) {
        struct ops_rig r;
        ops_open(&r, device, n_threads, MAX_ROWS);
        check_batches(&r, p, all);
        ops_close(&r);
    }
    free(all);
}

static void check_shape(enum fmt f, struct shape s)
{
    struct problem p;
    problem_open(&p, f, s);
    solve("ref", 2, &p, p.expected);
    check_reference(&p);
    for (int i = 0; i < OPS_CPU_DEVICES; i++) check_device(ops_cpu_devices[i], &p);
    problem_close(&p);
}

static void check_format(enum fmt f)
{
    // Formats without code of their own differ in unpacking only: two shapes each show it.
    const size_t n = f > FMT_Q6_K ? 2 : sizeof shapes / sizeof *shapes;
    const size_t n_short = f > FMT_Q6_K ? 2 : sizeof short_shapes / sizeof *short_shapes;
    for (size_t i = 0; i < n; i++) check_shape(f, shapes[i]);
    for (size_t i = 0; i < n_short && fmt_info[f].block <= 32; i++) check_shape(f, short_shapes[i]);
}

#define FMT(id, name, gguf, block, bytes) \
    static void linear_##id(void **state) \
    {                                     \
        (void)state;                      \
        check_format(FMT_##id);           \
    }
#include "kernels/common/formats.def"
#undef FMT

// Three weights on one input, n_rows below the batch's.
struct together {
    struct problem p[3];
    struct dbuf *w[3], *out[3], *x;
    struct op op;
};

enum { TOGETHER_COLS = 512, TOGETHER_ROWS = 9 };

static void together_open(struct ops_rig *r, const enum fmt f[3], struct together *t)
{
    const uint32_t n[3] = {48, 21, 16};
    ops_open(r, "cpu", 2, MAX_ROWS);
    for (int i = 0; i < 3; i++) {
        problem_open(&t->p[i], f[i], (struct shape){n[i], TOGETHER_COLS});
        t->w[i] = ops_weight(r, f[i], t->p[i].w, n[i], TOGETHER_COLS);
        t->out[i] = ops_act(r, BUF_ACT, NULL, 2 * TOGETHER_ROWS, n[i]);
    }
    t->x = ops_act(r, BUF_ACT, t->p[0].x, 2 * TOGETHER_ROWS, TOGETHER_COLS);
    t->op = (struct op){.kind = OP_LINEAR, .linear = {.x = t->x, .n = 3, .n_rows = TOGETHER_ROWS}};
    memcpy(t->op.linear.w, t->w, sizeof t->w);
    memcpy(t->op.linear.out, t->out, sizeof t->out);
    ops_run(r, &t->op, 1, &(struct batch){.n_rows = 2 * TOGETHER_ROWS});
}

static void together_close(struct ops_rig *r, struct together *t)
{
    for (int i = 0; i < 3; i++) {
        ops_free(r, t->w[i]);
        ops_free(r, t->out[i]);
        problem_close(&t->p[i]);
    }
    ops_free(r, t->x);
    ops_close(r);
}

// Weights of one op have the bits of each alone, unless one alone is of Q8_0 (repack.h).
static void linear_together(void **state)
{
    (void)state;
    const enum fmt sets[][3] = {{FMT_Q4_K, FMT_Q6_K, FMT_Q5_K}, {FMT_Q8_0, FMT_Q8_0, FMT_Q8_0}};
    for (int set = 0; set < 2; set++) {
        struct ops_rig r;
        struct together t;
        together_open(&r, sets[set], &t);
        for (int i = 0; i < 3; i++) {
            float alone[TOGETHER_ROWS * 48], all[2 * TOGETHER_ROWS * 48];
            const uint32_t n = t.p[i].n;
            run_rows(&r, t.w[i], NULL, t.p[0].x, TOGETHER_ROWS, TOGETHER_COLS, n, alone);
            ops_read(&r, t.out[i], 0, 2 * TOGETHER_ROWS, all);
            assert_memory_equal(alone, all, TOGETHER_ROWS * n * sizeof *alone);
            for (uint32_t j = TOGETHER_ROWS * n; j < 2 * TOGETHER_ROWS * n; j++)
                assert_true(isnan(all[j]));
        }
        together_close(&r, &t);
    }
}

// A mixture with Q8_0: a row has the same bits whichever rows are with it.
static void linear_mixed(void **state)
{
    (void)state;
    const enum fmt f[3] = {FMT_Q4_K, FMT_Q6_K, FMT_Q8_0};
    struct ops_rig r;
    struct together t;
    together_open(&r, f, &t);
    float many[3][TOGETHER_ROWS * 48], one[2 * TOGETHER_ROWS * 48];
    for (int i = 0; i < 3; i++) {
        ops_read(&r, t.out[i], 0, 2 * TOGETHER_ROWS, one);
        memcpy(many[i], one, TOGETHER_ROWS * t.p[i].n * sizeof *one);
    }
    t.op.linear.n_rows = 1;
    ops_run(&r, &t.op, 1, &(struct batch){.n_rows = 1});
    for (int i = 0; i < 3; i++) {
        ops_read(&r, t.out[i], 0, 2 * TOGETHER_ROWS, one);
        assert_memory_equal(many[i], one, t.p[i].n * sizeof *one);
    }
    together_close(&r, &t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define FMT(id, name, gguf, block, bytes) cmocka_unit_test(linear_##id),
#include "kernels/common/formats.def"
#undef FMT
        cmocka_unit_test(linear_together),
        cmocka_unit_test(linear_mixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
