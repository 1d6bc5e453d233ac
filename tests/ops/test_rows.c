// The row-wise ops and TOPK on the host's backends: the reference against arithmetic in double, the
// CPU within 2e-6 relative of the reference (f32 sums of some thousand terms, its own exp), and equal
// bits for every batch and thread count.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/common/decode.h"
#include "lib/ops_rig.h"

enum { ROWS = 23, COLS = 1027 };

static const char *const devices[] = {"ref",      "cpu:amx",  "cpu:avx512",  "cpu:avxvnni",
                                      "cpu:avx2", "cpu:i8mm", "cpu:dotprod", "cpu:portable"};
enum { N_DEVICES = sizeof devices / sizeof *devices };

static void near(double got, double expected, double bound)
{
    if (!(fabs(got - expected) <= bound)) fail_msg("%.9g, expected %.9g", got, expected);
}

// Runs op, made by the caller for buffers of `rows` rows, and reads out.
static void run_rows(struct ops_rig *r, const struct op *op, uint32_t rows, const int32_t *tokens,
                     const uint32_t *out_rows, struct dbuf *out, float *to)
{
    const struct batch b = {.n_rows = rows, .n_out = rows, .tokens = tokens, .out_rows = out_rows};
    ops_run(r, op, 1, &b);
    ops_read(r, out, 0, rows, to);
}

static void norm_on(const char *device, uint32_t n_threads, uint32_t rows, const float *x,
                    const float *w, float *out)
{
    struct ops_rig r;
    ops_open(&r, device, n_threads, ROWS);
    struct dbuf *in = ops_act(&r, BUF_STREAM, x, rows, COLS), *v = ops_vector(&r, w, COLS);
    struct dbuf *to = ops_act(&r, BUF_ACT, NULL, rows, COLS);
    const struct op op = {.kind = OP_RMS_NORM, .rms_norm = {in, v, to, 1e-6f, 0}};
    run_rows(&r, &op, rows, NULL, NULL, to, out);
    ops_free(&r, in);
    ops_free(&r, v);
    ops_free(&r, to);
    ops_close(&r);
}

static void rms_norm(void **state)
{
    (void)state;
    static float x[ROWS * COLS], w[COLS], out[ROWS * COLS], few[ROWS * COLS];
    random_seed(1);
    random_floats(x, ROWS * COLS, 3);
    random_floats(w, COLS, 1);
    for (size_t d = 0; d < N_DEVICES; d++) {
        if (!ops_can(devices[d])) continue;
        norm_on(devices[d], 2, ROWS, x, w, out);
        for (uint32_t i = 0; i < ROWS; i++) {
            double sum = 0;
            for (uint32_t j = 0; j < COLS; j++) sum += pow((double)x[i * COLS + j], 2);
            for (uint32_t j = 0; j < COLS; j++) {
                const double e = (double)x[i * COLS + j] * (double)w[j] / sqrt(sum / COLS + 1e-6);
                near((double)out[i * COLS + j], e, 2e-6 * fabs(e));
            }
        }
        for (uint32_t rows = 1; rows <= 5; rows += 2) {
            norm_on(devices[d], rows, rows, x, w, few);
            assert_memory_equal(few, out, rows * COLS * sizeof *out);
        }
    }
}

static void swiglu_and_add(void **state)
{
    (void)state;
    static float g[ROWS * COLS], u[ROWS * COLS], out[ROWS * COLS], sum[ROWS * COLS];
    random_seed(2);
    random_floats(g, ROWS * COLS, 8);
    random_floats(u, ROWS * COLS, 1);
    g[0] = 200;
    g[1] = -200;
    g[2] = 0;
    for (size_t d = 0; d < N_DEVICES; d++) {
        if (!ops_can(devices[d])) continue;
        struct ops_rig r;
        ops_open(&r, devices[d], 2, ROWS);
        struct dbuf *gate = ops_act(&r, BUF_ACT, g, ROWS, COLS);
        struct dbuf *up = ops_act(&r, BUF_ACT, u, ROWS, COLS);
        struct dbuf *x = ops_act(&r, BUF_STREAM, g, ROWS, COLS);
        const struct op glu = {.kind = OP_SWIGLU, .swiglu = {gate, up, gate, 0}};
        const struct op add = {.kind = OP_ADD, .add = {x, up, 0}};
        run_rows(&r, &glu, ROWS, NULL, NULL, gate, out);
        run_rows(&r, &add, ROWS, NULL, NULL, x, sum);
        for (uint32_t i = 0; i < ROWS * COLS; i++) {
            const double e = (double)g[i] / (1 + exp(-(double)g[i])) * (double)u[i];
            near((double)out[i], e, 2e-6 * fabs(e) + 1e-30);
            assert_true(sum[i] == g[i] + u[i]);
        }
        ops_free(&r, gate);
        ops_free(&r, up);
        ops_free(&r, x);
        ops_close(&r);
    }
}

static void embed_and_gather(void **state)
{
    (void)state;
    enum { VOCAB = 301, WIDE = 512, N = 9 };
    static float expected[WIDE], out[N * WIDE], picked[N * WIDE];
    const int32_t tokens[N] = {0, 300, 7, 7, 299, 1, 150, 64, 300};
    const uint32_t rows[N] = {8, 0, 0, 3, 5, 1, 2, 7, 6};
    for (enum fmt f = 0; f < FMT_COUNT; f++) {
        random_seed(f + 5u);
        void *w = random_weight(f, VOCAB, WIDE);
        for (size_t d = 0; d < N_DEVICES; d++) {
            if (!ops_can(devices[d])) continue;
            struct ops_rig r;
            ops_open(&r, devices[d], 2, N);
            struct dbuf *table = ops_weight(&r, f, w, VOCAB, WIDE);
            struct dbuf *x = ops_act(&r, BUF_STREAM, NULL, N, WIDE);
            struct dbuf *some = ops_act(&r, BUF_STREAM, NULL, N, WIDE);
            const struct op embed = {.kind = OP_EMBED, .embed = {table, x}};
            const struct op gather = {.kind = OP_GATHER, .gather = {x, some}};
            run_rows(&r, &embed, N, tokens, NULL, x, out);
            run_rows(&r, &gather, N, tokens, rows, some, picked);
            for (int i = 0; i < N; i++) {
                const uint8_t *row =
                    (const uint8_t *)w + (size_t)tokens[i] * fmt_row_bytes(f, WIDE);
                decode_row(f, row, expected, WIDE);
                assert_memory_equal(out + i * WIDE, expected, sizeof expected);
                assert_memory_equal(picked + i * WIDE, out + rows[i] * WIDE, sizeof expected);
            }
            ops_free(&r, table);
            ops_free(&r, x);
            ops_free(&r, some);
            ops_close(&r);
        }
        free(w);
    }
}

// ---- top k ----------------------------------------------------------------------------------

enum { VOCAB = 15193, OUT = 3, TOP = 40 };

static int compare(const void *a, const void *b, void *logits)
{
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const float x = ((float *)logits)[i], y = ((float *)logits)[j];
    if (x != y) return x > y ? -1 : 1;
    return i < j ? -1 : i > j;
}

// By sorting everything, and summing in double.
static void check_top(float *adjusted, const struct topk_row *got)
{
    static int32_t order[VOCAB];
    double sum = 0;
    for (int32_t i = 0; i < VOCAB; i++) {
        order[i] = i;
        sum += exp((double)adjusted[i]);
    }
    qsort_r(order, VOCAB, sizeof *order, compare, adjusted);
    assert_int_equal(got->n, TOP);
    for (int i = 0; i < TOP; i++) {
        assert_int_equal(got->ids[i], order[i]);
        assert_true(got->logits[i] == adjusted[order[i]]);
    }
    near((double)got->lse, log(sum), 3e-6);
}

static void topk(void **state)
{
    (void)state;
    static float logits[OUT * VOCAB];
    random_seed(9);
    random_floats(logits, OUT * VOCAB, 4);
    for (int i = 0; i < 200; i++) logits[VOCAB + (i * 71) % VOCAB] = 12.5f; // many equal ones
    const int32_t best = 2 * VOCAB + 77;
    logits[best] = 30;
    const struct logit_adjust adjust[] = {{0, 5, 1, 100, false},
                                          {0, 6, 2, 0, true},
                                          {0, 7, 2, 0, true},
                                          {2, 77, 1, -INFINITY, false},
                                          {2, 78, 0, 9, false}};
    logits[6] = 8;
    logits[7] = -8;
    for (size_t d = 0; d < N_DEVICES; d++) {
        if (!ops_can(devices[d])) continue;
        struct ops_rig r;
        static float after[OUT * VOCAB];
        struct topk_row rows[OUT];
        ops_open(&r, devices[d], 2, OUT);
        struct dbuf *in = ops_act(&r, BUF_LOGITS, logits, OUT, VOCAB);
        struct dbuf *out = ops_act(&r, BUF_TOPK, NULL, OUT, TOP);
        const struct op op = {.kind = OP_TOPK, .topk = {in, out}};
        const struct batch b = {.n_rows = 1, .n_out = OUT, .n_adjust = 5, .adjust = adjust};
        ops_run(&r, &op, 1, &b);
        ops_read(&r, out, 0, OUT, rows);
        ops_read(&r, in, 0, OUT, after);
        assert_true(after[5] == logits[5] + 100 && after[6] == 4 && after[7] == -16);
        assert_true(after[best] == -INFINITY && after[best + 1] == 9 &&
                    after[5 + VOCAB] == logits[5 + VOCAB]);
        for (int i = 0; i < OUT; i++) check_top(after + i * VOCAB, &rows[i]);
        ops_free(&r, in);
        ops_free(&r, out);
        ops_close(&r);
    }
}

static void unknown_device_is_named(void **state)
{
    (void)state;
    struct backend *b = NULL;
    struct err e = {0};
    const struct backend_settings s = {.device = "abacus", .max_rows = 1, .max_out = 1};
    assert_false(backend_open(&b, &s, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "abacus"));
    assert_non_null(strstr(e.msg, "cpu"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rms_norm),
        cmocka_unit_test(swiglu_and_add),
        cmocka_unit_test(embed_and_gather),
        cmocka_unit_test(topk),
        cmocka_unit_test(unknown_device_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
