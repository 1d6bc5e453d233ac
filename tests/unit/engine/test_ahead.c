// What is computed while nobody asks: it serves the request that was expected, gives way to every other before the next
// step, takes no memory from what is worth more, and is counted apart.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "lib/rig.h"

enum { PAGE = 4, LONG = 400, ROWS = 64 };

static void ahead(struct rig *r, const struct job *job)
{
    struct err e = {0};
    if (!loop_ahead(r->loop, job, &e)) fail_msg("%s", e.msg);
}

// Until so many have ended that way; fails the test after a minute.
static void wait_end(const struct rig *r, enum ahead_end end, uint64_t n)
{
    for (int i = 0; i < 60000 && rig_stats(r).ahead[end] < n; i++) clock_sleep_ms(1);
    assert_int_equal(rig_stats(r).ahead[end], n);
}

static void who_was_expected_computes_only_what_is_new(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[LONG + 10];
    fill_tokens(ids, LONG + 10, 1);
    const struct job first = greedy_job(ids, 100, 3), all = greedy_job(ids, LONG, 3);
    const struct job next = greedy_job(ids, LONG + 10, 5);
    expect_alone(rig_run(&r, &first), ids, 100, 3);
    ahead(&r, &all);
    wait_end(&r, AHEAD_DONE, 1);
    struct engine_stats st = rig_stats(&r);
    assert_int_equal(st.ahead_tokens, LONG - 100);
    assert_int_equal(st.prefill_tokens, 100); // requests' own
    assert_int_equal(st.requests_done, 1);
    assert_int_equal(st.prompt_tokens, 100);
    assert_int_equal(st.running, 0);
    assert_int_equal(st.pages_used, 0);
    struct outcome o = rig_run(&r, &next);
    assert_int_equal(o.status.n_cached, LONG);
    expect_alone(o, ids, LONG + 10, 5);
    assert_int_equal(rig_stats(&r).prefill_tokens, 110);
    ahead(&r, &all); // is there: nothing is computed
    wait_end(&r, AHEAD_DONE, 2);
    assert_int_equal(rig_stats(&r).ahead_tokens, LONG - 100);
    rig_close(&r);
}

static void tenants_stay_apart(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[104];
    fill_tokens(ids, 104, 2);
    struct job job = greedy_job(ids, 100, 1), next = greedy_job(ids, 104, 2);
    job.cache_salt = STR("tenant a");
    ahead(&r, &job);
    wait_end(&r, AHEAD_DONE, 1);
    struct outcome o = rig_run(&r, &next);
    assert_int_equal(o.status.n_cached, 0);
    outcome_free(&o);
    next.cache_salt = job.cache_salt;
    o = rig_run(&r, &next);
    assert_int_equal(o.status.n_cached, 100);
    outcome_free(&o);
    rig_close(&r);
}

// By the order of the steps: the one that was under way when the request came, then only the request's.
static void a_request_waits_for_one_step_at_most(void **state)
{
    enum { SHORT = 9, NEW = 3 };
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.prefill_rows = ROWS});
    int32_t ids[LONG + 4], other[SHORT];
    fill_tokens(ids, LONG + 4, 3);
    fill_tokens(other, SHORT, 4);
    const struct job expected = greedy_job(ids, LONG, 1), job = greedy_job(other, SHORT, NEW);
    const struct job warm = greedy_job(ids, ROWS, 1);
    expect_alone(rig_run(&r, &warm), ids, ROWS, 1); // how fast it computes is known from then on
    const uint32_t before = atomic_load(&r.net->n_steps);
    atomic_store(&r.net->hold, true);
    ahead(&r, &expected);
    wait_held(r.net);
    struct stream *s = rig_submit(&r, &job);
    atomic_store(&r.net->hold, false);
    expect_alone(outcome_wait(s), other, SHORT, NEW);
    wait_end(&r, AHEAD_DONE, 1);
    assert_int_equal(rig_stats(&r).ahead[AHEAD_YIELDED], 1);
    const struct fake_step *steps = r.net->log + before;
    assert_int_equal(steps[0].first, ids[ROWS]); // was held
    assert_true(steps[0].n_rows <= ROWS);
    assert_int_equal(steps[1].first, other[0]);
    assert_int_equal(steps[1].n_rows, SHORT);
    for (int i = 2; i <= NEW; i++) assert_int_equal(steps[i].n_rows, 1);
    assert_true(steps[NEW + 1].n_rows > 1); // goes on
    assert_int_equal(steps[NEW + 1].first, ids[ROWS + steps[0].n_rows]);
    assert_int_equal(atomic_load(&r.net->max_seqs), 1); // never in one step with a request
    assert_int_equal(rig_stats(&r).ahead_tokens, LONG - ROWS);
    const struct job next = greedy_job(ids, LONG + 4, 2);
    struct outcome o = rig_run(&r, &next);
    assert_int_equal(o.status.n_cached, LONG);
    expect_alone(o, ids, LONG + 4, 2);
    rig_close(&r);
}

// A job that needs what is just being computed goes on from there.
static void what_was_begun_serves_the_request(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.prefill_rows = ROWS});
    int32_t ids[LONG + 4];
    fill_tokens(ids, LONG + 4, 5);
    const struct job expected = greedy_job(ids, LONG, 1), job = greedy_job(ids, LONG + 4, 3);
    atomic_store(&r.net->hold, true);
    ahead(&r, &expected);
    wait_held(r.net);
    struct stream *s = rig_submit(&r, &job);
    atomic_store(&r.net->hold, false);
    struct outcome o = outcome_wait(s);
    assert_true(o.status.n_cached > 0);
    const uint32_t n_cached = o.status.n_cached;
    expect_alone(o, ids, LONG + 4, 3);
    wait_end(&r, AHEAD_DONE, 1);
    const struct engine_stats st = rig_stats(&r);
    assert_int_equal(st.ahead_tokens, n_cached);
    assert_int_equal(st.ahead_tokens + st.prefill_tokens, LONG + 4); // nothing twice
    rig_close(&r);
}

static void nothing_that_is_worth_more_goes(void **state)
{
    enum { TEXT = 200 };
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_pages = TEXT / PAGE + 10});
    int32_t ids[TEXT], other[TEXT];
    fill_tokens(ids, TEXT, 6);
    fill_tokens(other, TEXT, 7);
    struct job job = greedy_job(ids, TEXT, 1), expected = greedy_job(other, TEXT, 1);
    expect_alone(rig_run(&r, &job), ids, TEXT, 1);
    ahead(&r, &expected);
    wait_end(&r, AHEAD_NO_ROOM, 1);
    assert_int_equal(rig_stats(&r).evictions, 0);
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.status.n_cached, TEXT - 1);
    expect_alone(o, ids, TEXT, 1);
    // the same again where nobody needs those pages any more
    struct rig other_rig;
    rig_close(&r);
    rig_open(&other_rig, &(struct rig_settings){.n_pages = TEXT / PAGE + 10});
    job.has_cache_ttl = true;
    expect_alone(rig_run(&other_rig, &job), ids, TEXT, 1);
    ahead(&other_rig, &expected);
    wait_end(&other_rig, AHEAD_DONE, 1);
    assert_true(rig_stats(&other_rig).evictions > 0);
    rig_close(&other_rig);
}

static void the_latest_goes_first(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[2][100], busy[8];
    fill_tokens(ids[0], 100, 8);
    fill_tokens(ids[1], 100, 9);
    fill_tokens(busy, 8, 10);
    const struct job a = greedy_job(ids[0], 100, 1), b = greedy_job(ids[1], 100, 1);
    const struct job job = greedy_job(busy, 8, 2);
    atomic_store(&r.net->hold, true);
    struct stream *s = rig_submit(&r, &job);
    wait_held(r.net);
    ahead(&r, &a);
    ahead(&r, &b); // the engine has not seen the first
    atomic_store(&r.net->hold, false);
    expect_alone(outcome_wait(s), busy, 8, 2);
    wait_end(&r, AHEAD_DONE, 1);
    assert_int_equal(rig_stats(&r).ahead[AHEAD_FORGOTTEN], 1);
    struct outcome o = rig_run(&r, &b);
    assert_int_equal(o.status.n_cached, 99);
    expect_alone(o, ids[1], 100, 1);
    rig_close(&r);
}

static void a_failing_device_ends_it(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[50];
    fill_tokens(ids, 50, 11);
    const struct job job = greedy_job(ids, 50, 2);
    atomic_store(&r.net->n_failing, 1);
    ahead(&r, &job);
    wait_end(&r, AHEAD_FAILED, 1);
    expect_alone(rig_run(&r, &job), ids, 50, 2);
    rig_close(&r);
}

static void stopping_forgets_it(void **state)
{
    (void)state;
    struct rig r;
    struct err e = {0};
    rig_open(&r, &(struct rig_settings){.prefill_rows = ROWS});
    int32_t ids[LONG];
    fill_tokens(ids, LONG, 12);
    const struct job job = greedy_job(ids, LONG, 1), too_long = greedy_job(ids, 1 << 20, 1);
    assert_false(loop_ahead(r.loop, &too_long, &e));
    assert_int_equal(e.code, ERR_TOO_LONG);
    atomic_store(&r.net->hold, true);
    ahead(&r, &job);
    wait_held(r.net);
    ahead(&r, &job);
    atomic_store(&r.net->hold, false);
    loop_stop(r.loop);
    assert_false(loop_ahead(r.loop, &job, &e));
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_was_expected_computes_only_what_is_new),
        cmocka_unit_test(tenants_stay_apart),
        cmocka_unit_test(a_request_waits_for_one_step_at_most),
        cmocka_unit_test(what_was_begun_serves_the_request),
        cmocka_unit_test(nothing_that_is_worth_more_goes),
        cmocka_unit_test(the_latest_goes_first),
        cmocka_unit_test(a_failing_device_ends_it),
        cmocka_unit_test(stopping_forgets_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
