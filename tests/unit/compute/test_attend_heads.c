// Heads rotated and rounded (compute/cpu/attend_heads.h): the rotation against its matrix in double, written
// another way; what makes it one (products stay, it goes back) and what it is for (no column stands out);
// integers within their limits, half a step from what they stand for.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "compute/cpu/attend_heads.h"
#include "lib/ops_rig.h"

static const uint32_t dims[] = {32, 64, 96, 128, 160, 256, 480, 512};

enum { N_DIMS = sizeof dims / sizeof *dims };

static void rotate(const float *x, uint32_t n, float *out)
{
    head_lanes v[MAX_HEAD_DIM / HEAD_LANES];
    head_rotate(x, n, v);
    memcpy(out, v, n * sizeof *out);
}

static double product(const float *x, const float *y, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

static void is_the_matrix(void **state)
{
    (void)state;
    float x[MAX_HEAD_DIM], y[MAX_HEAD_DIM];
    for (int c = 0; c < N_DIMS; c++) {
        const uint32_t n = dims[c];
        uint32_t cols = 1;
        while (n % (2 * cols) == 0) cols *= 2;
        random_seed(n);
        random_floats(x, n, 1);
        rotate(x, n, y);
        for (uint32_t i = 0; i < n; i++) {
            double sum = 0;
            for (uint32_t j = i / cols * cols; j < i / cols * cols + cols; j++) {
                const bool turned = 0x9e3779b9u >> j % 32 & 1;
                const bool minus = __builtin_popcount(i & j & (cols - 1)) & 1;
                sum += turned != minus ? -(double)x[j] : (double)x[j];
            }
            assert_true(fabs(sum / sqrt(cols) - (double)y[i]) < 2e-6);
        }
    }
}

static void products_stay(void **state)
{
    (void)state;
    float x[MAX_HEAD_DIM], y[MAX_HEAD_DIM], rx[MAX_HEAD_DIM], ry[MAX_HEAD_DIM];
    for (int c = 0; c < N_DIMS; c++)
        for (int again = 0; again < 20; again++) {
            const uint32_t n = dims[c];
            random_seed(n + (uint32_t)again);
            random_floats(x, n, 1);
            random_floats(y, n, 3);
            rotate(x, n, rx);
            rotate(y, n, ry);
            const double size = sqrt(product(x, x, n) * product(y, y, n));
            assert_true(fabs(product(x, y, n) - product(rx, ry, n)) < 1e-6 * size);
            assert_true(fabs(product(x, x, n) / product(rx, rx, n) - 1) < 1e-6);
        }
}

static void goes_back(void **state)
{
    (void)state;
    float x[MAX_HEAD_DIM], y[MAX_HEAD_DIM];
    for (int c = 0; c < N_DIMS; c++) {
        const uint32_t n = dims[c];
        random_seed(n);
        random_floats(x, n, 1);
        rotate(x, n, y);
        head_rotate_back(y, n, 0.5f, y);
        for (uint32_t i = 0; i < n; i++) assert_true(fabsf(y[i] - 0.5f * x[i]) < 2e-6f);
    }
}

static float top_of(const float *x, uint32_t n)
{
    float top = 0;
    for (uint32_t i = 0; i < n; i++) top = fmaxf(top, fabsf(x[i]));
    return top;
}

// One column becomes as many of one size as the matrix has; columns that are all alike, or in turn, do not become
// one.
static void spreads_columns(void **state)
{
    (void)state;
    float x[MAX_HEAD_DIM], y[MAX_HEAD_DIM];
    for (int c = 0; c < N_DIMS; c++) {
        const uint32_t n = dims[c], cols = n & -n;
        for (uint32_t col = 0; col < n; col += 13) {
            memset(x, 0, sizeof x);
            x[col] = 10;
            rotate(x, n, y);
            const uint32_t from = col / cols * cols;
            for (uint32_t i = 0; i < n; i++) {
                const float expected = i - from < cols ? 10 / sqrtf((float)cols) : 0;
                assert_true(fabsf(fabsf(y[i]) - expected) < 1e-5f);
            }
        }
        for (uint32_t period = 1; period < 32; period *= 2) {
            for (uint32_t i = 0; i < n; i++) x[i] = i / period % 2 ? -1 : 1;
            rotate(x, n, y);
            assert_true(top_of(y, n) < 0.75f * sqrtf((float)cols)); // all in one: the whole root
        }
    }
}

static void integers_are_near(void **state)
{
    (void)state;
    float x[MAX_HEAD_DIM], y[MAX_HEAD_DIM];
    int8_t q[MAX_HEAD_DIM];
    for (int c = 0; c < N_DIMS; c++) {
        const uint32_t n = dims[c];
        random_seed(n);
        random_floats(x, n, 2);
        rotate(x, n, y);
        const float scale = head_quantize(x, n, q), top = top_of(y, n);
        assert_true(fabsf(scale * HEAD_MAX - top) <= 1e-6f * top);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(abs(q[i]) <= HEAD_MAX);
            assert_true(fabsf((float)q[i] * scale - y[i]) <= 0.5001f * scale);
        }
    }
    memset(x, 0, sizeof x);
    memset(q, 1, sizeof q);
    assert_true(head_quantize(x, 64, q) == 0);
    for (int i = 0; i < 64; i++) assert_int_equal(q[i], 0);
}

// Of q besides: sums of columns that a table names, and what a key's bias makes of it.
static void queries_keep_their_limits(void **state)
{
    (void)state;
    float x[MAX_HEAD_DIM], y[MAX_HEAD_DIM];
    int8_t q[MAX_HEAD_DIM];
    for (int c = 0; c < N_DIMS; c++)
        for (uint32_t sum_cols = 1; sum_cols <= 2; sum_cols++) {
            const uint32_t n = dims[c];
            int32_t bias, sum = 0, most = 0;
            random_seed(n);
            random_floats(x, n, 2);
            rotate(x, n, y);
            const float scale = head_quantize_query(x, n, sum_cols, 126, q, &bias);
            for (uint32_t i = 0; i < n; i++) {
                sum += q[i];
                assert_true(fabsf((float)q[i] * scale - y[i]) <= 0.5001f * scale);
                if (sum_cols == 1) most = abs(q[i]) > most ? abs(q[i]) : most;
            }
            for (uint32_t i = 0; i < n && sum_cols == 2; i += 2) {
                const int s = abs(q[i]) + abs(q[i + 1]);
                most = s > most ? s : most;
            }
            assert_int_equal(bias, -KEY_BIAS * sum);
            assert_in_range(most, 125, sum_cols == 1 ? 126 : 127); // each rounds by half at most
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_the_matrix),     cmocka_unit_test(products_stay),
        cmocka_unit_test(goes_back),         cmocka_unit_test(spreads_columns),
        cmocka_unit_test(integers_are_near), cmocka_unit_test(queries_keep_their_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
