// engine/sched: the choice of a step's rows.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/sched.h"

static const struct sched_limits usual = {.max_rows = 512,
                                          .prefill_rows = 256,
                                          .page_tokens = 64,
                                          .prefill_tps = 1000,
                                          .step_ms = 100,
                                          .alone_ms = 1000};

static struct sched_entry prefill(uint32_t n_todo, uint32_t n_done)
{
    return (struct sched_entry){.n_todo = n_todo, .n_done = n_done};
}

static void prefill_alone_takes_a_full_step(void **state)
{
    (void)state;
    const struct sched_entry e[1] = {prefill(1000, 0)};
    uint32_t rows[1];
    assert_int_equal(sched_plan(e, 1, &usual, rows), 256);
    const struct sched_entry last[1] = {prefill(40, 960)};
    assert_int_equal(sched_plan(last, 1, &usual, rows), 40);
}

static void decodes_all_go_and_prefill_shrinks_to_its_time(void **state)
{
    (void)state;
    struct sched_entry e[3] = {prefill(1000, 0), prefill(1, 10), prefill(1, 20)};
    e[1].decode = e[2].decode = true;
    uint32_t rows[3];
    // 100 ms at 1,000 tokens/s are 100 rows: the last page's end before that is 64
    assert_int_equal(sched_plan(e, 3, &usual, rows), 66);
    assert_int_equal(rows[0], 64);
    assert_int_equal(rows[1], 1);
    assert_int_equal(rows[2], 1);
}

static void an_unknown_speed_starts_small_and_a_slow_one_stays_small(void **state)
{
    (void)state;
    const struct sched_entry e[1] = {prefill(1000, 0)};
    struct sched_limits l = usual;
    uint32_t rows[1];
    l.prefill_tps = 0;
    assert_int_equal(sched_plan(e, 1, &l, rows), 32);
    l.prefill_tps = 1;
    assert_int_equal(sched_plan(e, 1, &l, rows), 16);
}

static void chunks_end_at_pages(void **state)
{
    (void)state;
    const struct sched_entry e[1] = {prefill(1000, 70)};
    uint32_t rows[1];
    sched_plan(e, 1, &usual, rows); // 70 + 256 = 326: the page before ends at 320
    assert_int_equal(70 + rows[0], 320);
}

static void shorter_goes_first_until_the_longer_has_waited(void **state)
{
    (void)state;
    struct sched_entry e[2] = {prefill(5000, 0), prefill(300, 0)};
    uint32_t rows[2];
    sched_plan(e, 2, &usual, rows);
    assert_int_equal(rows[0], 0);
    assert_int_equal(rows[1], 256);
    e[0].waited_s = 6; // 5 s of work, 6 s waited; the other 0.3 s and 0 s
    sched_plan(e, 2, &usual, rows);
    assert_int_equal(rows[0], 256);
    assert_int_equal(rows[1], 0);
}

static void priority_goes_before_length(void **state)
{
    (void)state;
    struct sched_entry e[2] = {prefill(5000, 0), prefill(300, 0)};
    e[0].priority = -1;
    uint32_t rows[2];
    sched_plan(e, 2, &usual, rows);
    assert_int_equal(rows[0], 256);
    assert_int_equal(rows[1], 0);
}

static void what_is_left_of_a_budget_goes_to_the_next(void **state)
{
    (void)state;
    const struct sched_entry e[3] = {prefill(200, 0), prefill(10, 0), prefill(400, 0)};
    uint32_t rows[3];
    sched_plan(e, 3, &usual, rows);
    assert_int_equal(rows[1], 10);
    assert_int_equal(rows[0], 200);
    assert_int_equal(rows[2], 46); // no page ends within 46 rows
}

static void held_ones_are_left_out(void **state)
{
    (void)state;
    struct sched_entry e[2] = {prefill(100, 0), prefill(1, 10)};
    e[1].decode = true;
    e[0].held = e[1].held = true;
    uint32_t rows[2];
    assert_int_equal(sched_plan(e, 2, &usual, rows), 0);
    e[1].held = false;
    assert_int_equal(sched_plan(e, 2, &usual, rows), 1);
}

static void never_more_rows_than_the_step_has(void **state)
{
    (void)state;
    enum { N = 300 };
    static struct sched_entry e[N];
    static uint32_t rows[N];
    struct sched_limits l = usual;
    l.max_rows = 310;
    for (int i = 0; i < N; i++) e[i] = prefill(1, 10);
    for (int i = 0; i < N; i++) e[i].decode = i > 0;
    e[0] = prefill(1000, 0);
    assert_int_equal(sched_plan(e, N, &l, rows), 310);
    assert_int_equal(rows[0], 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefill_alone_takes_a_full_step),
        cmocka_unit_test(decodes_all_go_and_prefill_shrinks_to_its_time),
        cmocka_unit_test(an_unknown_speed_starts_small_and_a_slow_one_stays_small),
        cmocka_unit_test(chunks_end_at_pages),
        cmocka_unit_test(shorter_goes_first_until_the_longer_has_waited),
        cmocka_unit_test(priority_goes_before_length),
        cmocka_unit_test(what_is_left_of_a_budget_goes_to_the_next),
        cmocka_unit_test(held_ones_are_left_out),
        cmocka_unit_test(never_more_rows_than_the_step_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
