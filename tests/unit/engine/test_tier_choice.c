// Loading or computing, against all there is to choose from, and run on a clock of its own.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/hash.h"
#include "engine/tier_choice.h"

enum { N_MAX = 64 };

static double draw(uint64_t seed, uint64_t i)
{
    return (double)(hash64(&i, sizeof i, seed) >> 11) / (double)(UINT64_C(1) << 53);
}

// What a choice takes: two hands, one that loads pages in their order and one that computes them, page by page.
static double takes(const double *load_s, uint32_t n, double page_s, uint32_t first, uint32_t end)
{
    double loaded_s = 0, computed_s = 0;
    for (uint32_t i = first; i < end; i++) loaded_s += load_s[i];
    for (uint32_t i = 0; i < first; i++) computed_s += page_s;
    double s = first == end ? 0 : loaded_s > computed_s ? loaded_s : computed_s;
    for (uint32_t i = first == end ? 0 : end; i < n; i++) s += page_s;
    return s;
}

static double best_of_all(const double *load_s, uint32_t n, double page_s)
{
    double best = n * page_s;
    for (uint32_t end = 1; end <= n; end++)
        for (uint32_t first = 0; first < end; first++) {
            const double s = takes(load_s, n, page_s, first, end);
            if (s < best) best = s;
        }
    return best;
}

static void check(const double *load_s, uint32_t n, double page_s)
{
    const struct tier_choice c = tier_choose(load_s, n, page_s, 0);
    assert_true(c.first <= c.end && c.end <= n);
    const double s = takes(load_s, n, page_s, c.first, c.end),
                 best = best_of_all(load_s, n, page_s);
    assert_true(s <= n * page_s * (1 + 1e-9)); // never slower than computing all
    assert_true(s <=
                1.32 * best + 2 * page_s); // and as good as there is, but for what is not worth it
}

static void every_mixture_of_speeds_is_chosen_well(void **state)
{
    double load_s[N_MAX];
    (void)state;
    for (uint64_t round = 0; round < 2000; round++) {
        const uint32_t n = 1 + (uint32_t)(draw(round, 0) * (N_MAX - 1));
        const double near_s = draw(round, 1) * 0.4, far_s = draw(round, 2) * 4,
                     share = draw(round, 3);
        for (uint32_t i = 0; i < n; i++)
            load_s[i] =
                (draw(round, 10 + i) < share ? near_s : far_s) * (0.5 + draw(round, 99 + i));
        check(load_s, n, 1);
    }
}

static struct tier_choice even(uint32_t n, double load_s, double page_s)
{
    double all[N_MAX];
    for (uint32_t i = 0; i < n; i++) all[i] = load_s;
    return tier_choose(all, n, page_s, 0);
}

static void what_is_plain_is_chosen_plainly(void **state)
{
    (void)state;
    struct tier_choice c = even(60, 0.1, 1); // from memory
    assert_int_equal(c.first, 0);
    assert_int_equal(c.end, 60);
    c = even(60, 1, 1); // a disk as quick as computing: half of it, in half the time
    assert_int_equal(c.end, 60);
    assert_in_range(c.first, 28, 31);
    assert_true(c.seconds < 32);
    c = even(60, 3, 1); // a third of the speed
    assert_int_equal(c.end, 60);
    assert_in_range(c.first, 43, 46);
    c = even(60, 200, 1); // nothing is gained
    assert_int_equal(c.first, c.end);
    c = even(1, 0.97, 1);
    assert_int_equal(c.first, c.end);
    assert_int_equal(even(0, 1, 1).end, 0);
    double load_s[60]; // the first half is in memory, the rest on a slow disk
    for (int i = 0; i < 60; i++) load_s[i] = i < 30 ? 0.1 : 50;
    c = tier_choose(load_s, 60, 1, 0);
    assert_int_equal(c.first, 0);
    assert_int_equal(c.end, 30);
    for (int i = 0; i < 60; i++) load_s[i] = i < 59 ? 0.1 : 1.5;
    assert_int_equal(tier_choose(load_s, 60, 1, 0).end, 59);
    assert_int_equal(tier_choose(load_s, 60, 1, 2).end, 60); // a step more costs more than that
    for (int i = 0; i < 60; i++) load_s[i] = 0.5;
    assert_int_equal(tier_choose(load_s, 2, 1, 0).end, 2);
    assert_int_equal(tier_choose(load_s, 2, 1, 1).end, 0); // not worth what it costs besides
    assert_int_equal(tier_choose(load_s, 60, 1, 1).end, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mixture_of_speeds_is_chosen_well),
        cmocka_unit_test(what_is_plain_is_chosen_plainly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
