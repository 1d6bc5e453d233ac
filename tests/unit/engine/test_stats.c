// Speeds as the scheduler and the cache ask for them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/stats.h"

// A process's first step has few rows, so that a slow machine is not kept busy by it: what it says about speed must not
// be what long prompts are judged by.
static void steps_of_many_rows_say_how_fast_prompts_are(void **state)
{
    (void)state;
    struct stats st;
    stats_init(&st);
    stats_step(&st, 32, 0, 32 / 2000.0);
    assert_float_equal(stats_speed(&st).bulk_tps, 2000, 1);
    stats_step(&st, 2016, 0, 2016 / 8000.0);
    assert_float_equal(stats_speed(&st).bulk_tps, 8000, 1);
    stats_step(&st, 3000, 0, 3000 / 7000.0); // of one kind: an average
    assert_float_equal(stats_speed(&st).bulk_tps, 7700, 1);
    assert_float_equal(stats_speed(&st).bulk_rows, 3000, 0);
    stats_step(&st, 100, 0, 100 / 500.0); // the rest of a prompt
    assert_float_equal(stats_speed(&st).bulk_tps, 7700, 1);
    stats_deinit(&st);
}

// The next process begins with what the last one knew, so that its first step has as many rows as it is worth; what it
// measures itself counts at once.
static void what_was_measured_before_holds_until_something_is(void **state)
{
    (void)state;
    struct stats st;
    stats_init(&st);
    stats_expect(&st, 8000, 4096);
    assert_float_equal(stats_speed(&st).prefill_tps, 8000, 1);
    assert_float_equal(stats_speed(&st).bulk_tps, 8000, 1);
    stats_step(&st, 3000, 0, 1);
    assert_in_range((uint64_t)stats_speed(&st).prefill_tps, 2990, 3010);
    stats_expect(&st, 100, 4096); // too late
    assert_in_range((uint64_t)stats_speed(&st).prefill_tps, 2990, 3010);
    stats_deinit(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_of_many_rows_say_how_fast_prompts_are),
        cmocka_unit_test(what_was_measured_before_holds_until_something_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
