// Attention by tiles of bytes (compute/cpu/attend_split.h), the instructions written out in C, against sums
// of the whole integers in the order that kernels.h states, bit for bit. The same header compiled for AMX is
// checked by ops.attention where a processor has it.
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compute/cpu/attend_split.h"
#include "lib/ops_rig.h"

enum { N = 37, FIRST = 3 }; // vectors, of which the first do not take part: no multiples of a tile

struct scene {
    struct attend_tile t;
    struct kv_unit units[KEY_PAGES];
    float *old_out;
};

static int16_t random_int(int max)
{
    const int v = (int)(random_bits() % (uint64_t)(2 * max + 1)) - max;
    return (int16_t)(random_bits() % 16 == 0 ? (v < 0 ? -max : max) : v); // the ends often
}

static void *random_ints(size_t n, int max)
{
    int16_t *x = test_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_int(max);
    return x;
}

static void scene_open(struct scene *s, uint32_t dim)
{
    struct attend_tile *t = &s->t;
    *s = (struct scene){.t = {.n = N, .head_dim = dim}};
    random_seed(dim);
    t->split = aligned_alloc(64, sizeof *t->split);
    assert_non_null(t->split);
    memset(t->split, 0x55, sizeof *t->split);
    t->q = random_ints((size_t)N * dim, HEAD_MAX);
    t->probs = random_ints((size_t)N * KEY_BLOCK, PROB_MAX);
    for (int i = 0; i < N * KEY_BLOCK; i++) t->probs[i] = (int16_t)abs(t->probs[i]);
    t->scores = test_alloc(N * KEY_BLOCK * sizeof *t->scores);
    t->out = test_alloc((size_t)N * dim * sizeof *t->out);
    s->old_out = test_alloc((size_t)N * dim * sizeof *t->out);
    random_floats(t->out, (size_t)N * dim, 1);
    memcpy(s->old_out, t->out, (size_t)N * dim * sizeof *t->out);
    random_floats(t->q_scale, N, 1);
    random_floats(t->shrink, N, 1);
    random_floats(t->prob_scale, N, 1e-4f);
    for (int p = 0; p < KEY_PAGES; p++) {
        struct kv_unit *u = &s->units[p];
        *u = (struct kv_unit){.k = random_ints((size_t)PAGE_TOKENS * dim, HEAD_MAX),
                              .v = random_ints((size_t)PAGE_TOKENS * dim, HEAD_MAX),
                              .k_scales = test_alloc(PAGE_TOKENS * sizeof(float))};
        random_floats(u->k_scales, PAGE_TOKENS, 1);
    }
}

static void scene_close(struct scene *s)
{
    for (int p = 0; p < KEY_PAGES; p++) {
        free(s->units[p].k);
        free(s->units[p].v);
        free(s->units[p].k_scales);
    }
    free(s->t.split);
    free(s->t.q);
    free(s->t.probs);
    free(s->t.scores);
    free(s->t.out);
    free(s->old_out);
}

static float stated_score(const struct scene *s, uint32_t i, uint32_t key)
{
    const struct kv_unit *u = &s->units[key / PAGE_TOKENS];
    const uint32_t dim = s->t.head_dim, at = key % PAGE_TOKENS;
    float score = 0;
    for (uint32_t d0 = 0; d0 < dim; d0 += SUM_COLS) {
        int sum = 0;
        for (uint32_t d = d0; d < dim && d < d0 + SUM_COLS; d++)
            sum += s->t.q[i * dim + d] * u->k[(d / 2 * PAGE_TOKENS + at) * 2 + d % 2];
        score = d0 ? score + (float)sum : (float)sum;
    }
    return score * u->k_scales[at] * s->t.q_scale[i];
}

static float stated_value(const struct scene *s, uint32_t i, uint32_t d, uint32_t n_pages)
{
    const uint32_t dim = s->t.head_dim;
    int sum = 0;
    for (uint32_t key = 0; key < n_pages * PAGE_TOKENS; key++) {
        const uint32_t at = key % PAGE_TOKENS;
        sum += s->t.probs[i * KEY_BLOCK + key] *
               s->units[key / PAGE_TOKENS].v[(at / 2 * dim + d) * 2 + at % 2];
    }
    return fmaf((float)sum, s->t.prob_scale[i], s->old_out[i * dim + d] * s->t.shrink[i]);
}

static void check_dim(uint32_t dim, uint32_t n_pages)
{
    struct scene s;
    scene_open(&s, dim);
    split_queries(&s.t);
    for (uint32_t p = 0; p < n_pages; p++)
        score_page_split(&s.t, FIRST, N, &s.units[p], s.t.scores + p * PAGE_TOKENS);
    add_values_split(&s.t, FIRST, N, s.units, n_pages);
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t key = 0; key < n_pages * PAGE_TOKENS && i >= FIRST; key++) {
            const float got = s.t.scores[i * KEY_BLOCK + key], want = stated_score(&s, i, key);
            if (got != want)
                fail_msg("head_dim %u, vector %u, key %u: %.9g, expected %.9g", dim, i, key,
                         (double)got, (double)want);
        }
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t d = 0; d < dim; d++) {
            const float got = s.t.out[i * dim + d];
            const float want = i < FIRST ? s.old_out[i * dim + d] : stated_value(&s, i, d, n_pages);
            if (got != want)
                fail_msg("head_dim %u, vector %u, column %u: %.9g, expected %.9g", dim, i, d,
                         (double)got, (double)want);
        }
    scene_close(&s);
}

static void equals_whole_integers(void **state)
{
    (void)state;
    static const uint32_t dims[] = {32, 64, 96, 128, 160, 256};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (uint32_t n_pages = 1; n_pages <= KEY_PAGES; n_pages++) check_dim(dims[i], n_pages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_whole_integers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
