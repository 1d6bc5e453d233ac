// Sampling against a slow second implementation that sorts everything (naive_*), against published
// random numbers, and by statistics with fixed seeds.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compute/topk.h"
#include "engine/sample.h"

enum { N_MAX = 2000 };

static const struct sampling neutral = {.temperature = 1, .top_p = 1, .repeat_penalty = 1};

// ---- the slow way ----------------------------------------------------------------------------

struct entry {
    int32_t id;
    double logit, p;
};

static int by_rank(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static void normalise(struct entry *t, uint32_t n, double temperature)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += t[i].p = exp((t[i].logit - t[0].logit) / temperature);
    for (uint32_t i = 0; i < n; i++) t[i].p /= sum;
}

// Kept tokens with their probabilities, by the words of sample.c; returns how many.
static uint32_t naive_keep(struct entry *t, const float *logits, uint32_t n, struct sampling s)
{
    for (uint32_t i = 0; i < n; i++) t[i] = (struct entry){(int32_t)i, (double)logits[i], 0};
    qsort(t, n, sizeof *t, by_rank);
    if (s.top_k > 0 && s.top_k < n) n = s.top_k;
    normalise(t, n, 1);
    uint32_t kept = n, n_min_p = 0;
    double sum = 0;
    for (uint32_t i = 0; s.top_p < 1 && i < n; i++) {
        sum += t[i].p;
        if (sum < (double)s.top_p) continue;
        kept = i + 1;
        break;
    }
    while (n_min_p < kept && t[n_min_p].p >= (double)s.min_p * t[0].p * (1 - 1e-12)) n_min_p++;
    if (s.min_p > 0) kept = n_min_p;
    normalise(t, kept, (double)s.temperature);
    return kept;
}

static uint64_t noise_state = 7;

static uint32_t noise(uint32_t below) // 64-bit LCG, Knuth's constants; not the code under test
{
    noise_state = noise_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(noise_state >> 33) % below;
}

static void random_logits(float *out, uint32_t n, float spread)
{
    for (uint32_t i = 0; i < n; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) sum += (float)noise(1000) / 1000 - 0.5f;
        out[i] = sum * spread;
    }
}

static struct topk_row row_of(const float *logits, uint32_t n, uint32_t k)
{
    static const struct topk_scan plain = {topk_find_above, topk_sum_exp};
    struct topk_row row = {0};
    topk_select(&plain, logits, n, k, &row);
    return row;
}

// ---- tests -----------------------------------------------------------------------------------

// The first outputs of splitmix64 from 1234567 (its authors' code), which are the state.
static void seeds_by_splitmix(void **state)
{
    struct sample_rng r;
    (void)state;
    sample_seed(&r, 1234567);
    assert_int_equal(r.state[0], 6457827717110365317u);
    assert_int_equal(r.state[1], 3203168211198807973u);
}

// xoroshiro128++ from the state {1, 2}: outputs of its authors' code. Among 128 equal logits a draw
// is the upper 7 bits.
static void draws_by_xoroshiro(void **state)
{
    static const uint64_t published[] = {393217u,
                                         669327710093319u,
                                         1732421326133921491u,
                                         11394790081659126983u,
                                         9555452776773192676u,
                                         3586421180005889563u,
                                         1691397964866707553u,
                                         10735626796753111697u,
                                         15216282715349408991u,
                                         14247243556711267923u};
    struct sample_rng r = {{1, 2}};
    struct topk_row row = {.n = 128, .lse = 128};
    struct sampling s = neutral;
    (void)state;
    s.top_k = 128;
    for (int32_t i = 0; i < 128; i++) row.ids[i] = i;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        int32_t id = -1;
        assert_true(sample_pick(&row, &s, &r, &id));
        assert_int_equal(id, published[i] >> 57);
    }
}

static void greedy_takes_the_first(void **state)
{
    float logits[] = {1, 5, -2, 5, NAN};
    struct sample_rng r = {{1, 2}}, before = r;
    struct topk_row row = row_of(logits, 5, 3), scratch;
    struct sampling s = neutral;
    int32_t id = -1;
    (void)state;
    s.temperature = 0;
    assert_true(sample_pick(&row, &s, &r, &id));
    assert_int_equal(id, 1);
    assert_int_equal(sample_pick_full(logits, 5, &s, &r, &scratch), 1);
    assert_memory_equal(&r, &before, sizeof r); // no random number was taken
}

static struct sampling random_sampling(void)
{
    static const float top_ps[] = {1, 0.99f, 0.95f, 0.8f, 0.3f, 0.01f, 0};
    static const float min_ps[] = {0, 0, 0.001f, 0.05f, 0.5f, 1};
    static const uint32_t top_ks[] = {0, 0, 1, 20, 100, 128, 129, 300, 5000};
    static const float temperatures[] = {0.01f, 0.6f, 1, 2, 50};
    struct sampling s = neutral;
    s.top_p = top_ps[noise(7)];
    s.min_p = min_ps[noise(6)];
    s.top_k = top_ks[noise(9)];
    s.temperature = temperatures[noise(5)];
    return s;
}

// What sample_pick answers is what sample_pick_full answers, in the same random state; and it answers
// where the slow way keeps no more than the row has and nothing hangs on what lies beyond it.
static void pick_agrees_with_full(void **state)
{
    static float logits[N_MAX];
    static struct entry t[N_MAX];
    int n_answered = 0, n_refused = 0;
    (void)state;
    for (int i = 0; i < 3000; i++) {
        uint32_t n = 2 + noise(i % 10 == 0 ? N_MAX - 2 : 300), k = 1 + noise(TOPK_MAX);
        struct sampling s = random_sampling();
        random_logits(logits, n, 0.5f + (float)noise(20));
        struct sample_rng a, b;
        struct topk_row row = row_of(logits, n, k), scratch;
        int32_t id = -1;
        sample_seed(&a, (uint64_t)i);
        sample_seed(&b, (uint64_t)i);
        bool answered = sample_pick(&row, &s, &a, &id);
        int32_t full = sample_pick_full(logits, n, &s, &b, &scratch);
        uint32_t kept = naive_keep(t, logits, n, s);
        bool among = false;
        for (uint32_t j = 0; j < kept; j++) among |= t[j].id == full;
        if (!among) fail_msg("case %d: token %d is not among the %u kept", i, full, kept);
        if (answered) {
            assert_int_equal(id, full);
            assert_memory_equal(&a, &b, sizeof a);
            assert_true(kept <= row.n);
        } else if (s.top_k > 0 && s.top_k <= row.n) {
            fail_msg("case %d: top_k %u of %u candidates was not answered", i, s.top_k, row.n);
        }
        answered ? n_answered++ : n_refused++;
    }
    assert_true(n_answered > 1000 && n_refused > 300); // both happen
}

// A row that holds the whole vocabulary: then among its tokens and among all is the same.
static void pick_among_agrees_with_full(void **state)
{
    static float logits[TOPK_MAX];
    (void)state;
    for (int i = 0; i < 2000; i++) {
        uint32_t n = 1 + noise(TOPK_MAX);
        struct sampling s = random_sampling();
        random_logits(logits, n, 0.5f + (float)noise(20));
        struct sample_rng a, b;
        struct topk_row row = row_of(logits, n, n), scratch;
        row.lse = NAN; // of no account
        sample_seed(&a, (uint64_t)i);
        sample_seed(&b, (uint64_t)i);
        assert_int_equal(sample_pick_among(&row, &s, &a),
                         sample_pick_full(logits, n, &s, &b, &scratch));
    }
}

// With a huge temperature every kept token is as likely: many draws meet all of them, and no other.
static void full_keeps_the_right_set(void **state)
{
    static float logits[N_MAX];
    static struct entry t[N_MAX];
    static bool met[N_MAX];
    static const struct {
        uint32_t n, top_k;
        float top_p, min_p, spread;
    } cases[] = {
        {700, 0, 0.5f, 0, 1}, {700, 300, 1, 0, 1},     {700, 400, 0.7f, 0, 0.5f},
        {700, 0, 1, 0.4f, 1}, {700, 0, 0.6f, 0.3f, 1}, {300, 0, 1, 0, 3},
        {500, 0, 0.4f, 0, 0}, // all equal: first ids
        {500, 333, 1, 0, 0},  {100, 0, 1, 0, 2},       {700, 200, 0.9f, 0, 40},
    };
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct sampling s = neutral;
        struct sample_rng r;
        struct topk_row scratch;
        s.top_k = cases[c].top_k;
        s.top_p = cases[c].top_p;
        s.min_p = cases[c].min_p;
        random_logits(logits, cases[c].n, cases[c].spread);
        uint32_t kept = naive_keep(t, logits, cases[c].n, s), n_met = 0;
        memset(met, 0, sizeof met);
        s.temperature = 1e9f;
        sample_seed(&r, c);
        for (uint32_t i = 0; i < kept * 16; i++) // misses one with probability kept * exp(-16)
            met[sample_pick_full(logits, cases[c].n, &s, &r, &scratch)] = true;
        for (uint32_t i = 0; i < cases[c].n; i++) n_met += met[i];
        for (uint32_t i = 0; i < kept; i++)
            if (!met[t[i].id]) fail_msg("case %zu: rank %u of %u was never drawn", c, i, kept);
        if (n_met != kept) fail_msg("case %zu: %u tokens drawn, %u are kept", c, n_met, kept);
    }
}

// Chi-square of the draws against the slow way's probabilities, by both functions.
static void draws_follow_the_distribution(void **state)
{
    enum { DRAWS = 40000, N = 60 };
    static struct entry t[N];
    float logits[N];
    (void)state;
    for (int c = 0; c < 8; c++) {
        struct sampling s = neutral;
        s.top_k = c % 2 == 0 ? 0 : 12;
        s.top_p = c % 4 < 2 ? 0.9f : 1;
        s.min_p = c > 5 ? 0.02f : 0;
        s.temperature = c < 4 ? 0.7f : 1.5f;
        random_logits(logits, N, 3);
        uint32_t kept = naive_keep(t, logits, N, s), counts[N] = {0};
        struct topk_row row = row_of(logits, N, TOPK_MAX), scratch;
        struct sample_rng r;
        sample_seed(&r, 42 + (uint64_t)c);
        for (int i = 0; i < DRAWS; i++) {
            int32_t id;
            if (i % 2 == 0 || !sample_pick(&row, &s, &r, &id))
                id = sample_pick_full(logits, N, &s, &r, &scratch);
            counts[id]++;
        }
        double chi = 0;
        uint32_t n_cells = 0;
        for (uint32_t i = 0; i < kept; i++) {
            double want = t[i].p * DRAWS;
            if (want < 5) continue; // too rare for the test to mean anything
            chi += ((double)counts[t[i].id] - want) * ((double)counts[t[i].id] - want) / want;
            n_cells++;
        }
        // Above mean + 5 standard deviations: less than one in a million by chance.
        double limit = n_cells + 5 * sqrt(2.0 * n_cells);
        if (chi > limit) fail_msg("case %d: chi-square %g over %u cells", c, chi, n_cells);
    }
}

static void same_seed_same_tokens(void **state)
{
    float logits[300];
    struct sample_rng a, b, c;
    struct topk_row scratch;
    struct sampling s = neutral;
    int n_other = 0;
    (void)state;
    random_logits(logits, 300, 2);
    sample_seed(&a, 5);
    sample_seed(&b, 5);
    sample_seed(&c, 6);
    for (int i = 0; i < 200; i++) {
        int32_t x = sample_pick_full(logits, 300, &s, &a, &scratch);
        assert_int_equal(x, sample_pick_full(logits, 300, &s, &b, &scratch));
        n_other += x != sample_pick_full(logits, 300, &s, &c, &scratch);
    }
    assert_true(n_other > 100);
}

static void excluded_tokens_never_come(void **state)
{
    float logits[400];
    struct sample_rng r;
    struct topk_row scratch;
    struct sampling s = neutral;
    (void)state;
    for (int i = 0; i < 400; i++) logits[i] = i % 2 == 0 ? -INFINITY : i % 3 == 0 ? NAN : 1;
    sample_seed(&r, 3);
    for (int i = 0; i < 1000; i++) {
        int32_t id = sample_pick_full(logits, 400, &s, &r, &scratch);
        assert_true(id % 2 == 1 && id % 3 != 0);
    }
}

static void adjusts_by_penalties_and_biases(void **state)
{
    const struct token_count counts[] = {{3, 2, 2}, {4, 0, 1}, {5, 1, 0}, {6, 0, 0}};
    const struct logit_bias bias[] = {{5, -1.5f}, {7, 100}, {3, 0.25f}};
    const float before[] = {1, 1, 1, 2, -3, 0.5f, 4, -8};
    float logits[8];
    struct logit_adjust out[16];
    struct sampling s = neutral;
    (void)state;
    s.repeat_penalty = 2;
    s.presence_penalty = 0.5f;
    s.frequency_penalty = 0.125f;
    size_t n = sample_adjust(&s, counts, 4, bias, 3, 9, out, 16);
    struct batch batch = {.n_adjust = (uint32_t)n, .adjust = out};
    memcpy(logits, before, sizeof logits);
    topk_adjust(logits, 9, &batch);
    // By hand: seen: 2/2, -3*2; generated: -0.5 - 0.125 * times; then the biases.
    const float want[] = {1, 1, 1, 2 / 2.0f - 0.5f - 0.25f + 0.25f, -6, 0.5f - 0.5f - 0.125f - 1.5f,
                          4, 92};
    for (int i = 0; i < 8; i++) assert_float_equal(logits[i], want[i], 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(out[i].out_row, 9);
        for (size_t j = 0; j < i; j++) assert_int_not_equal(out[i].token, out[j].token);
    }
    assert_int_equal(sample_adjust(&s, counts, 4, bias, 3, 9, out, 2), 2); // never more than max
    assert_int_equal(sample_adjust(&neutral, counts, 4, NULL, 0, 0, out, 16), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_by_splitmix),
        cmocka_unit_test(draws_by_xoroshiro),
        cmocka_unit_test(greedy_takes_the_first),
        cmocka_unit_test(pick_agrees_with_full),
        cmocka_unit_test(pick_among_agrees_with_full),
        cmocka_unit_test(full_keeps_the_right_set),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(same_seed_same_tokens),
        cmocka_unit_test(excluded_tokens_never_come),
        cmocka_unit_test(adjusts_by_penalties_and_biases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
