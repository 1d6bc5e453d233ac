// The attention kernel of every CPU table alone, on integers as kernels.h lays them out; also that of AVX-512 with its
// instructions in C (lib/avx512_in_c.h). Expected is softmax in double over the same integers, so what a kernel
// may err by is its own: weights that become integers. One step of those is 1 / TERM_BOUND of all that a
// vector has weighed, at most; 64 of them, rounded by half a step and independent of values of which all are as
// likely, err by 8 * 0.29 / 1024 * 0.58 = 0.0013 of the largest value. ERROR is four of these deviations
// (seen: 0.0035; 0.0039 with AVX2). And:
//  - heads are rotated and rounded to the same bits by every table;
//  - a vector has the same bits alone as in any company, whatever lies in slots that it does not see, and beside
//    vectors that are no numbers;
//  - integers at their limits do not saturate a sum;
//  - what many keys weigh together is not lost beside one that weighs most.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compute/cpu/attend_heads.h"
#include "compute/cpu/cpu.h"
#include "lib/ops_rig.h"

extern const struct cpu_kernels cpu_kernels_avx512_in_c; // lib/attend_in_c.c

#define ERROR 5e-3

enum { MAX_PAGES = 7, MAX_BLOCKS = (MAX_PAGES + 1) / KEY_PAGES };

struct scene {
    const struct cpu_kernels *k;
    uint32_t dim, n_pages;
    struct attend_tile t;
    struct kv_unit units[MAX_PAGES];
    uint32_t seen[Q_TILE][MAX_BLOCKS]; // keys of each block that a vector sees
};

static void scene_open(struct scene *s, const struct cpu_kernels *k, uint32_t dim, uint32_t n,
                       uint32_t n_pages)
{
    assert_true(n <= Q_TILE && n_pages <= MAX_PAGES);
    *s = (struct scene){.k = k, .dim = dim, .n_pages = n_pages, .t = {.n = n, .head_dim = dim}};
    s->t.q = test_alloc((size_t)Q_TILE * dim);
    s->t.out = test_alloc((size_t)Q_TILE * dim * sizeof *s->t.out);
    s->t.scores = test_alloc(Q_TILE * KEY_BLOCK * sizeof *s->t.scores);
    memset(s->t.scores, 0, Q_TILE * KEY_BLOCK * sizeof *s->t.scores);
    for (uint32_t p = 0; p < n_pages; p++)
        s->units[p] = (struct kv_unit){.k = test_alloc((size_t)PAGE_TOKENS * dim),
                                       .v = test_alloc((size_t)PAGE_TOKENS * dim),
                                       .k_scales = test_alloc(PAGE_TOKENS * sizeof(float)),
                                       .v_scales = test_alloc(PAGE_TOKENS * sizeof(float))};
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t b = 0; b * KEY_PAGES < n_pages; b++)
            s->seen[i][b] = b * KEY_PAGES + 1 < n_pages ? KEY_BLOCK : PAGE_TOKENS;
}

static void scene_close(struct scene *s)
{
    for (uint32_t p = 0; p < s->n_pages; p++) {
        free(s->units[p].k);
        free(s->units[p].v);
        free(s->units[p].k_scales);
        free(s->units[p].v_scales);
    }
    free(s->t.q);
    free(s->t.out);
    free(s->t.scores);
}

static uint8_t *key_at(const struct scene *s, uint32_t key, uint32_t d)
{
    return &s->units[key / PAGE_TOKENS].k[(d / 4 * PAGE_TOKENS + key % PAGE_TOKENS) * 4 + d % 4];
}

static int8_t *value_at(const struct scene *s, uint32_t key, uint32_t d)
{
    return &s->units[key / PAGE_TOKENS].v[(key % PAGE_TOKENS / 4 * s->dim + d) * 4 + key % 4];
}

static float *k_scale_at(const struct scene *s, uint32_t key)
{
    return &s->units[key / PAGE_TOKENS].k_scales[key % PAGE_TOKENS];
}

static float *v_scale_at(const struct scene *s, uint32_t key)
{
    return &s->units[key / PAGE_TOKENS].v_scales[key % PAGE_TOKENS];
}

static int8_t random_int(int most)
{
    return (int8_t)((int)(random_bits() >> 33) % (2 * most + 1) - most);
}

// Heads like a model's, their integers as the table makes them, scores of deviation `spread` in units of log 2.
static void fill_random(struct scene *s, float spread)
{
    float x[MAX_HEAD_DIM];
    for (uint32_t i = 0; i < s->t.n; i++) {
        random_floats(x, s->dim, 1);
        s->t.q_scale[i] = s->k->quantize_query(x, s->dim, s->t.q + i * s->dim, &s->t.q_bias[i]) *
                          spread / sqrtf((float)s->dim);
    }
    for (uint32_t key = 0; key < s->n_pages * PAGE_TOKENS; key++) {
        int8_t q[MAX_HEAD_DIM];
        random_floats(x, s->dim, 1);
        *k_scale_at(s, key) = s->k->quantize_head(x, s->dim, q);
        for (uint32_t d = 0; d < s->dim; d++) *key_at(s, key, d) = (uint8_t)(q[d] + KEY_BIAS);
        for (uint32_t d = 0; d < s->dim; d++) *value_at(s, key, d) = random_int(HEAD_MAX);
        *v_scale_at(s, key) = (float)(3 + key % 5) / 7 / HEAD_MAX;
    }
}

static void attend(struct scene *s, uint32_t first, uint32_t end)
{
    struct attend_tile *t = &s->t;
    for (uint32_t i = first; i < end; i++) {
        t->max[i] = -INFINITY;
        t->mass[i] = 0;
        memset(t->sum[i], 0, sizeof t->sum[i]);
        memset(t->out + i * s->dim, 0, s->dim * sizeof *t->out);
    }
    for (uint32_t b = 0, p = 0; p < s->n_pages; b++, p += KEY_PAGES) {
        const uint32_t left = s->n_pages - p, n = left < KEY_PAGES ? left : KEY_PAGES;
        t->n_ahead = left - n < KEY_PAGES ? left - n : KEY_PAGES;
        for (uint32_t i = 0; i < t->n_ahead; i++) t->ahead[i] = s->units[p + n + i];
        for (uint32_t i = first; i < end; i++) t->n_visible[i] = s->seen[i][b];
        s->k->attend(t, first, end, s->units + p, n);
    }
}

static double result(const struct scene *s, uint32_t i, uint32_t d)
{
    double sum = 0;
    for (int l = 0; l < SUM_LANES; l++) sum += (double)s->t.sum[i][l];
    return (double)s->t.out[i * s->dim + d] / sum;
}

// The definition, of the integers that lie there.
static void define(const struct scene *s, uint32_t i, double *out)
{
    double total = 0, top = (double)-INFINITY, score[MAX_PAGES * PAGE_TOKENS];
    const uint32_t n = s->n_pages * PAGE_TOKENS;
    memset(out, 0, s->dim * sizeof *out);
    for (uint32_t key = 0; key < n; key++) {
        int64_t sum = 0;
        for (uint32_t d = 0; d < s->dim; d++)
            sum += s->t.q[i * s->dim + d] * (*key_at(s, key, d) - KEY_BIAS);
        score[key] = (double)sum * (double)*k_scale_at(s, key) * (double)s->t.q_scale[i];
        if (key % KEY_BLOCK < s->seen[i][key / KEY_BLOCK]) top = fmax(top, score[key]);
    }
    for (uint32_t key = 0; key < n; key++) {
        if (key % KEY_BLOCK >= s->seen[i][key / KEY_BLOCK]) continue;
        const double weight = exp2(score[key] - top);
        for (uint32_t d = 0; d < s->dim; d++)
            out[d] += weight * *value_at(s, key, d) * (double)*v_scale_at(s, key);
        total += weight;
    }
    for (uint32_t d = 0; d < s->dim; d++) out[d] /= total;
}

static void check_vector(const struct scene *s, uint32_t i, double error, const char *what)
{
    double expected[MAX_HEAD_DIM];
    define(s, i, expected);
    for (uint32_t d = 0; d < s->dim; d++)
        if (!(fabs(result(s, i, d) - expected[d]) <= error))
            fail_msg("%s, %s: head_dim %u, vector %u, column %u: %g, expected %g", s->k->isa, what,
                     s->dim, i, d, result(s, i, d), expected[d]);
}

// ---- of all sizes ---------------------------------------------------------------------------------

// Some vectors do not see the end of the second block or of the last, or nothing of it.
static void hide_some(struct scene *s)
{
    const uint32_t last = (s->n_pages - 1) / KEY_PAGES;
    for (uint32_t i = 0; i < s->t.n; i++) {
        if (i % 17 == 16) s->seen[i][1] = 40;
        if (i % 3 == 0) s->seen[i][last] = i % PAGE_TOKENS;
        if (i == 20) s->seen[i][1] = 0;
    }
}

// Garbage in the slots behind what anybody sees.
static void spoil_hidden(struct scene *s, float garbage)
{
    for (uint32_t key = s->n_pages * PAGE_TOKENS - 5; key < s->n_pages * PAGE_TOKENS; key++) {
        *k_scale_at(s, key) = garbage;
        *v_scale_at(s, key) = -garbage;
        for (uint32_t d = 0; d < s->dim; d++) *value_at(s, key, d) = INT8_MIN;
    }
    for (uint32_t i = 0; i < s->t.n; i++) {
        uint32_t *n = &s->seen[i][(s->n_pages - 1) / KEY_PAGES];
        *n = *n > 5 ? *n - 5 : 0;
    }
}

static void check_company(struct scene *s, const uint32_t *cuts, uint32_t n_cuts)
{
    const size_t n = (size_t)s->t.n * s->dim;
    float *together = test_alloc(n * sizeof *together), sum[Q_TILE][SUM_LANES];
    attend(s, 0, s->t.n);
    memcpy(together, s->t.out, n * sizeof *together);
    memcpy(sum, s->t.sum, sizeof sum);
    for (uint32_t i = 0, end; i < s->t.n; i = end) {
        end = n_cuts ? *cuts++ : i + 1;
        attend(s, i, end);
        assert_memory_equal(s->t.out + i * s->dim, together + i * s->dim,
                            (end - i) * s->dim * sizeof *together);
        assert_memory_equal(s->t.sum[i], sum[i], (end - i) * sizeof *sum);
    }
    free(together);
}

// Every third vector from `first` on is made of no numbers: as each table leaves them, and anything.
static void spoil_vectors(struct scene *s, uint32_t first)
{
    static const float garbage[] = {NAN, INFINITY, -INFINITY, 3e38f};
    float x[MAX_HEAD_DIM];
    for (uint32_t i = first; i < s->t.n; i += 3) {
        for (uint32_t d = 0; d < s->dim; d++) x[d] = garbage[(d + i) % (1 + i % 4)];
        s->t.q_scale[i] = s->k->quantize_query(x, s->dim, s->t.q + i * s->dim, &s->t.q_bias[i]);
        if (i % 2) continue;
        memset(s->t.q + i * s->dim, INT8_MIN, s->dim);
        s->t.q_bias[i] = i % 4 ? INT32_MAX : INT32_MIN;
        s->t.q_scale[i] = garbage[i / 2 % 4];
    }
}

// The others have the bits that they have among numbers.
static void check_bad_company(struct scene *s)
{
    const size_t n = (size_t)s->t.n * s->dim;
    float *good = test_alloc(n * sizeof *good);
    attend(s, 0, s->t.n);
    memcpy(good, s->t.out, n * sizeof *good);
    spoil_vectors(s, 1);
    attend(s, 0, s->t.n);
    for (uint32_t i = 0; i < s->t.n; i++)
        if (i % 3 != 1)
            assert_memory_equal(s->t.out + i * s->dim, good + i * s->dim, s->dim * sizeof *good);
    free(good);
}

// Scores near each other, as usual, and so far apart that few keys count.
static void check_sizes(const struct cpu_kernels *k)
{
    static const uint32_t dims[] = {32, 96, 128, 512}, cuts[] = {7, 27, 47}; // 4 2 1, 12 8, 12 8
    static const float spreads[] = {0.3f, 2, 12};
    for (size_t c = 0; c < sizeof dims / sizeof *dims; c++)
        for (size_t p = 0; p < sizeof spreads / sizeof *spreads; p++) {
            struct scene s;
            random_seed(dims[c]);
            scene_open(&s, k, dims[c], 47, MAX_PAGES); // 12 12 12 8 2 1
            fill_random(&s, spreads[p]);
            hide_some(&s);
            spoil_hidden(&s, p == 0 ? INFINITY : p == 1 ? NAN : 1e30f);
            attend(&s, 0, s.t.n);
            for (uint32_t i = 0; i < s.t.n; i++) check_vector(&s, i, ERROR, "random heads");
            check_company(&s, NULL, 0);
            check_company(&s, cuts, 3);
            check_bad_company(&s);
            scene_close(&s);
        }
}

// What may be lost of the largest value beside a key that weighs most: of a block's 63 others as much as the
// second term does not resolve. Of the largest weight, or of what a table has for it, that term goes down to 1 / 255^2;
// with seven bits (aarch64) to 1 / 127^2; with AVX2, whose second term has a scale of its own, to 1 / 246^2.
static double tail_error(const struct cpu_kernels *k)
{
    switch (k->numerics >> 8) {
    case 2: return 63.0 / (246 * 246);
    case 4: return 63.0 / (127 * 127);
    default: return 63.0 / (255 * 255);
    }
}

// ---- integers at their limits -----------------------------------------------------------------------

// q whose integers have one sign, as large as the table makes them; in each eight columns by the pattern.
static void query_at_limit(struct scene *s, const float *pattern, float sign)
{
    float rotated[MAX_HEAD_DIM], x[MAX_HEAD_DIM];
    for (uint32_t d = 0; d < s->dim; d++) rotated[d] = sign * pattern[d % 8];
    s->k->rotate_back(rotated, s->dim, 1, x);
    s->t.q_scale[0] = s->k->quantize_query(x, s->dim, s->t.q, &s->t.q_bias[0]);
}

// Eight keys at and near the limits, equal up to one column where they go down from it; scores lie some
// bits apart, where a sum that saturates moves the weights at once. Each key has a column of the values.
static void check_scores(const struct cpu_kernels *k)
{
    static const float patterns[][8] = {
        {1, 1, 1, 1, 1, 1, 1, 1},
        {1, 0, 0, 0, 0, 0, 0, 0},
        {1, 1, 0, 0, 0, 1, 1, 1},
        {0, 0, 1, 0.01f, 0, 0, 0.6f, 0.1f},
        {0.25f, 0.248f, 0.5f, 0.01f, 0.252f, 0.25f, 0.3f, 0.2f},
        {1, 0.9f, 0.5f, 0.01f, 0.8f, 0.7f, 0.3f, 0.2f},
    };
    for (size_t c = 0; c < sizeof patterns / sizeof *patterns; c++)
        for (int sign = -1; sign <= 1; sign += 2) {
            struct scene s;
            scene_open(&s, k, 128, 1, 1);
            query_at_limit(&s, patterns[c], (float)sign);
            int32_t top = 0;
            for (uint32_t d = 0; d < s.dim; d++) top += abs(s.t.q[d]) * HEAD_MAX;
            s.t.q_scale[0] = 16.0f / (float)top;
            for (uint32_t key = 0; key < PAGE_TOKENS; key++) {
                *k_scale_at(&s, key) = *v_scale_at(&s, key) = 1;
                for (uint32_t d = 0; d < s.dim; d++) {
                    const uint32_t low = key < 8 ? 8 * key : 255;
                    *key_at(&s, key, d) = (uint8_t)(sign > 0 ? 255 - low : low);
                    *value_at(&s, key, d) = key == d % PAGE_TOKENS ? HEAD_MAX : -HEAD_MAX;
                }
            }
            attend(&s, 0, 1);
            check_vector(&s, 0, ERROR * HEAD_MAX, "q at its limit");
            scene_close(&s);
        }
}

// All values at their limits, by column or by key, and weights in patterns that round up where they can.
static void check_values(const struct cpu_kernels *k)
{
    for (uint32_t pattern = 0; pattern < 40; pattern++) {
        struct scene s;
        random_seed(pattern + 1);
        scene_open(&s, k, 64, 13, 2);
        memset(s.t.q, 0, s.t.n * s.dim);
        memset(s.t.q_bias, 0, sizeof s.t.q_bias);
        for (uint32_t key = 0; key < KEY_BLOCK; key++) {
            const float noise = (float)(random_bits() >> 40) / 16777216.0f;
            *k_scale_at(&s, key) = 1;
            *v_scale_at(&s, key) = pattern == 0    ? 1.0f
                                   : pattern < 16  ? key % 16 < pattern ? 1.0f : 0.97f
                                   : pattern == 16 ? (key % 16 == 0 ? 0.5f : 15.5f)
                                   : pattern == 17 ? (float)(key % 4 == 1)
                                                   : 1 + noise * (float)(pattern - 17);
            memset(&s.units[key / PAGE_TOKENS].k[key % PAGE_TOKENS * s.dim], KEY_BIAS, s.dim);
            for (uint32_t d = 0; d < s.dim; d++) {
                const bool up = d < 8    ? d % 2
                                : d < 40 ? key >> (d % 6) & 1
                                         : random_bits() >> 40 & 1;
                *value_at(&s, key, d) = up ? HEAD_MAX : -HEAD_MAX;
            }
        }
        float top = 0;
        for (uint32_t key = 0; key < KEY_BLOCK; key++) top = fmaxf(top, *v_scale_at(&s, key));
        attend(&s, 0, s.t.n);
        check_vector(&s, 0, 2 * ERROR * HEAD_MAX * (double)top, "values at their limit");
        check_vector(&s, 12, 2 * ERROR * HEAD_MAX * (double)top, "values at their limit");
        // column 1 has what the weights add up to, which is kept
        double all[MAX_HEAD_DIM];
        define(&s, 0, all);
        if (pattern < 16 && !(fabs(result(&s, 0, 1) - all[1]) <= 1e-4 * HEAD_MAX))
            fail_msg("%s: weights add up to %g, expected %g", k->isa, result(&s, 0, 1), all[1]);
        scene_close(&s);
    }
}

// ---- one key and many -------------------------------------------------------------------------------

// Key `heavy` weighs 1, every other 1 / `light`: less than a step of a first term. The others alone have values
// that are not 0.
static void check_tail(const struct cpu_kernels *k, uint32_t heavy, double light)
{
    struct scene s;
    scene_open(&s, k, 32, 3, 4);
    memset(s.t.q, 0, s.t.n * s.dim);
    for (uint32_t i = 0; i < s.t.n; i++) {
        s.t.q[i * s.dim] = 100;
        s.t.q_bias[i] = -KEY_BIAS * 100;
        s.t.q_scale[i] = (float)log2(light) / 100;
    }
    for (uint32_t key = 0; key < s.n_pages * PAGE_TOKENS; key++) {
        *k_scale_at(&s, key) = *v_scale_at(&s, key) = 1;
        for (uint32_t d = 0; d < s.dim; d++) {
            *key_at(&s, key, d) = KEY_BIAS + (key == heavy);
            *value_at(&s, key, d) = key == heavy ? 0 : HEAD_MAX;
        }
    }
    attend(&s, 0, s.t.n);
    const double expected = HEAD_MAX * (s.n_pages * PAGE_TOKENS - 1) / light /
                            (1 + (s.n_pages * PAGE_TOKENS - 1) / light);
    for (uint32_t i = 0; i < s.t.n; i++)
        if (!(fabs(result(&s, i, 5) - expected) <= tail_error(k) * HEAD_MAX))
            fail_msg("%s: beside key %u others that weigh 1 / %g give %g, expected %g", k->isa,
                     heavy, light, result(&s, i, 5), expected);
    scene_close(&s);
}

static void check_tails(const struct cpu_kernels *k)
{
    for (double light = 300; light < 20000; light *= 3)
        for (uint32_t heavy = 0; heavy < 4 * PAGE_TOKENS; heavy += 37) check_tail(k, heavy, light);
}

// A block of values that are all 0, and weights too small for any integer beside what was weighed before.
static void check_nothing(const struct cpu_kernels *k)
{
    struct scene s;
    random_seed(3);
    scene_open(&s, k, 64, 17, 4);
    fill_random(&s, 1);
    for (uint32_t key = 0; key < KEY_BLOCK; key++) {
        *v_scale_at(&s, key) = 0;
        for (uint32_t d = 0; d < s.dim; d++) *value_at(&s, key, d) = 0;
    }
    attend(&s, 0, s.t.n);
    for (uint32_t i = 0; i < s.t.n; i++) check_vector(&s, i, ERROR, "values of 0");
    for (uint32_t key = 0; key < KEY_BLOCK; key++) *v_scale_at(&s, key) = 1e-30f;
    for (uint32_t key = KEY_BLOCK; key < 2 * KEY_BLOCK; key++) {
        *v_scale_at(&s, key) = 1e-36f;
        for (uint32_t d = 0; d < s.dim; d++) *key_at(&s, key, d) = KEY_BIAS;
    }
    attend(&s, 0, s.t.n);
    for (uint32_t i = 0; i < s.t.n; i++) check_vector(&s, i, ERROR * 1e-30, "values near 0");
    scene_close(&s);
}

// ---- heads on their way in and out ------------------------------------------------------------------

// As attend_heads.h says it, compiled for no instruction set in particular.
static void check_heads(const struct cpu_kernels *k)
{
    const bool pairs = k->numerics >> 8 == 2; // AVX2's limit
    for (uint32_t n = 32; n <= MAX_HEAD_DIM; n += 32)
        for (int size = 0; size < 4; size++) {
            float x[MAX_HEAD_DIM], back[2][MAX_HEAD_DIM];
            int8_t q[2][MAX_HEAD_DIM];
            int32_t bias[2];
            random_seed(n + (uint32_t)size);
            random_floats(x, n, size == 0 ? 1 : size == 1 ? 1e-20f : size == 2 ? 1e20f : 0);
            x[n / 3] *= 40;
            const float scale = k->quantize_head(x, n, q[0]), same = head_quantize(x, n, q[1]);
            assert_memory_equal(&scale, &same, sizeof scale);
            assert_memory_equal(q[0], q[1], n);
            const float q_scale = k->quantize_query(x, n, q[0], &bias[0]);
            const float q_same = head_quantize_query(x, n, pairs ? 2 : 1, 127, q[1], &bias[1]);
            assert_memory_equal(&q_scale, &q_same, sizeof q_scale);
            assert_memory_equal(q[0], q[1], n);
            assert_int_equal(bias[0], bias[1]);
            k->rotate_back(x, n, 0.3f, back[0]);
            head_rotate_back(x, n, 0.3f, back[1]);
            assert_memory_equal(back[0], back[1], n * sizeof *x);
        }
}

// ---- all tables ---------------------------------------------------------------------------------

static void each_table(void (*check)(const struct cpu_kernels *k))
{
    for (int i = 0; i < OPS_CPU_DEVICES; i++) {
        struct err e = {0};
        const struct cpu_kernels *k;
        if (cpu_isa_choose(&k, ops_cpu_devices[i], &e)) check(k);
    }
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) check(&cpu_kernels_avx512_in_c);
#endif
}

static void heads_have_one_form(void **state)
{
    (void)state;
    each_table(check_heads);
}

static void vectors_attend_as_defined_and_as_alone(void **state)
{
    (void)state;
    each_table(check_sizes);
}

static void scores_do_not_saturate(void **state)
{
    (void)state;
    each_table(check_scores);
}

static void values_do_not_saturate(void **state)
{
    (void)state;
    each_table(check_values);
}

static void tails_are_not_lost(void **state)
{
    (void)state;
    each_table(check_tails);
}

static void nothing_weighs_nothing(void **state)
{
    (void)state;
    each_table(check_nothing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_have_one_form),
        cmocka_unit_test(vectors_attend_as_defined_and_as_alone),
        cmocka_unit_test(scores_do_not_saturate),
        cmocka_unit_test(values_do_not_saturate),
        cmocka_unit_test(tails_are_not_lost),
        cmocka_unit_test(nothing_weighs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
