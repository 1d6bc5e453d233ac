// Products in e4m3 on the GPU (--prefill-type fp8) against their definition in double precision, against exact
// products, and against themselves in other chunks. Skips where there is no GPU, or none that has them.
#include "ops/gpu_twins.h"

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

// An argument names the device.
int main(int argc, char **argv)
{
    const char *const name = argc > 1 ? argv[1] : "cuda";
    struct err e = {0};
    struct backend_info info = {0};
    if (!open_one(&exact, name, false, &e) || !open_one(&both[REF], "ref", false, &e) ||
        !open_one(&eights, name, true, &e)) {
        print_message("skipped: %s\n", e.msg);
        return e.code == ERR_NOT_FOUND && !exact ? 77 : 1;
    }
    both[GPU] = exact;
    eights->class->info(eights, &info);
    struct backend *const second = eights;
    if (!info.prefill_fp8) eights = NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp8_definition),
        cmocka_unit_test(test_fp8_chain),
        cmocka_unit_test(test_fp8_cuts),
        cmocka_unit_test(test_fp8_raw),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    exact->class->close(exact);
    both[REF]->class->close(both[REF]);
    second->class->close(second);
    return failed != 0;
}
