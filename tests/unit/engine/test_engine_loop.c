// The engine loop over the fake network: every answer must equal what the network gives when nothing
// else runs, whatever was shared, waited for, preempted or cancelled.
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/fail_malloc.h"
#include "lib/rig.h"
#include "lib/tiny_vocab.h"

enum { PAGE = 4 };

static void answers_are_the_networks(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    static const uint32_t lengths[] = {1, 2, 3, 4, 5, 8, 63, 64, 65, 200};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int32_t ids[200];
        fill_tokens(ids, lengths[i], i);
        const struct job job = greedy_job(ids, lengths[i], 20);
        expect_alone(rig_run(&r, &job), ids, lengths[i], 20);
    }
    rig_close(&r);
}

static void a_known_prefix_is_not_computed_again(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[104];
    fill_tokens(ids, 104, 1);
    const struct job first = greedy_job(ids, 101, 3), again = greedy_job(ids, 104, 3);
    expect_alone(rig_run(&r, &first), ids, 101, 3);
    const uint64_t computed = rig_stats(&r).prefill_tokens;
    assert_int_equal(computed, 101);
    struct outcome o = rig_run(&r, &first);
    assert_int_equal(o.status.n_cached, 100);
    assert_int_equal(o.status.n_processed, 101);
    expect_alone(o, ids, 101, 3);
    assert_int_equal(rig_stats(&r).prefill_tokens, computed + 1);
    o = rig_run(&r, &again);
    assert_int_equal(o.status.n_cached, 100); // of 104 too: one token is always computed
    expect_alone(o, ids, 104, 3);
    assert_int_equal(rig_stats(&r).cached_tokens, 200);
    rig_close(&r);
}

static void the_next_turn_continues_from_generated_pages(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[200];
    fill_tokens(ids, 30, 2);
    struct job job = greedy_job(ids, 30, 40);
    struct outcome o = rig_run(&r, &job);
    memcpy(ids + 30, o.ids, 40 * sizeof *ids);
    expect_alone(o, ids, 30, 40);
    fill_tokens(ids + 70, 10, 3);
    job = greedy_job(ids, 80, 5);
    o = rig_run(&r, &job);
    assert_int_equal(o.status.n_cached, 68); // 69 have keys and values: the last was only sampled
    expect_alone(o, ids, 80, 5);
    rig_close(&r);
}

static void salts_keep_apart(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[40];
    fill_tokens(ids, 40, 4);
    struct job job = greedy_job(ids, 40, 2);
    expect_alone(rig_run(&r, &job), ids, 40, 2);
    job.cache_salt = STR("tenant b");
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.status.n_cached, 0);
    expect_alone(o, ids, 40, 2);
    o = rig_run(&r, &job);
    assert_int_equal(o.status.n_cached, 39); // its own, but for the last token
    expect_alone(o, ids, 40, 2);
    rig_close(&r);
}

// The beginning of a page is copied, of whole ones and of those that an answer did not fill; what cannot be copied is
// computed.
static void the_beginning_of_a_page_is_copied(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.page_tokens = 16});
    int32_t ids[120];
    fill_tokens(ids, 100, 21);
    struct job job = greedy_job(ids, 70, 20); // 89 have keys: 5 pages and 9 tokens
    struct outcome o = rig_run(&r, &job);
    memcpy(ids + 70, o.ids, 20 * sizeof *ids);
    expect_alone(o, ids, 70, 20);
    fill_tokens(ids + 90, 30, 22);
    job = greedy_job(ids, 120, 3); // the next turn
    o = rig_run(&r, &job);
    assert_int_equal(o.status.n_cached, 89);
    assert_int_equal(o.status.cache.diverged_at, 89);
    assert_int_equal(o.status.cache.reason, CACHE_ENDS);
    expect_alone(o, ids, 120, 3);
    assert_int_equal(rig_stats(&r).evictions, 0);
    assert_int_equal(r.loop->tree.evicted[EVICT_REPLACED], 1); // by the page that went on from it
    for (uint32_t n = 100; n > 80; n -= 3) {
        fill_tokens(ids + n, 120 - n, 23 + n); // parts from the last one at n
        job = greedy_job(ids, 120, 3);
        if (n == 91) atomic_store(&r.n_copy_failures, 1);
        o = rig_run(&r, &job);
        assert_int_equal(o.status.n_cached, n == 91 || n % 16 < 4 ? n / 16 * 16 : n);
        assert_int_equal(o.status.cache.diverged_at, n);
        assert_int_equal(o.status.cache.reason, CACHE_DIFFERS);
        expect_alone(o, ids, 120, 3);
    }
    rig_close(&r);
}

enum { EIGHT = 8, TRUNK = 300, TAIL = 7 };

static void eight_at_once_compute_the_trunk_once(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_parallel = 4}); // fewer places than requests
    int32_t ids[EIGHT][TRUNK + TAIL];
    struct stream *streams[EIGHT];
    atomic_store(&r.net->hold, true);
    for (int i = 0; i < EIGHT; i++) {
        fill_tokens(ids[i], TRUNK, 5);
        fill_tokens(ids[i] + TRUNK, TAIL, 100 + (uint64_t)i);
        const struct job job = greedy_job(ids[i], TRUNK + TAIL, 10);
        streams[i] = rig_submit(&r, &job);
    }
    wait_held(r.net);
    atomic_store(&r.net->hold, false);
    uint32_t cached = 0;
    for (int i = 0; i < EIGHT; i++) {
        struct outcome o = outcome_wait(streams[i]);
        cached += o.status.n_cached;
        expect_alone(o, ids[i], TRUNK + TAIL, 10);
    }
    assert_int_equal(rig_stats(&r).prefill_tokens, TRUNK + EIGHT * TAIL);
    assert_int_equal(cached, (EIGHT - 1) * TRUNK); // joined from the running one
    rig_close(&r);
}

static void a_waiter_takes_over_from_a_cancelled_leader(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.prefill_rows = 16});
    int32_t ids[TRUNK];
    fill_tokens(ids, TRUNK, 6);
    const struct job job = greedy_job(ids, TRUNK, 4);
    atomic_store(&r.net->delay_us, 2000);
    struct stream *leader = rig_submit(&r, &job);
    wait_steps(r.net, 1);
    struct stream *waiter = rig_submit(&r, &job);
    wait_stage(waiter, STAGE_WAITING_PREFIX);
    stream_close(leader);
    struct outcome o = outcome_wait(waiter);
    assert_true(o.status.n_cached >= 16);
    expect_alone(o, ids, TRUNK, 4);
    // What the leader did is not done again, but for a part of a page and a step.
    assert_true(rig_stats(&r).prefill_tokens <= TRUNK + PAGE);
    assert_int_equal(rig_stats(&r).requests_cancelled, 1);
    rig_close(&r);
}

static void a_shorter_prompt_does_not_wait_for_what_it_cannot_use(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.prefill_rows = 16});
    int32_t ids[TRUNK], other[20];
    fill_tokens(ids, TRUNK, 7);
    fill_tokens(other, 20, 8);
    atomic_store(&r.net->delay_us, 2000);
    const struct job longer = greedy_job(ids, TRUNK, 2), shorter = greedy_job(other, 20, 2);
    struct stream *a = rig_submit(&r, &longer);
    wait_steps(r.net, 1);
    struct stream *b = rig_submit(&r, &shorter);
    expect_alone(outcome_wait(b), other, 20, 2);
    struct stream_status st;
    stream_status(a, &st);
    assert_int_equal(st.stage, STAGE_PREFILL); // the short one passed it
    expect_alone(outcome_wait(a), ids, TRUNK, 2);
    rig_close(&r);
}

static void a_pool_too_small_for_all_serves_all(void **state)
{
    (void)state;
    enum { N = 12, LEN = 40, NEW = 40 };
    struct rig r;
    rig_open(&r,
             &(struct rig_settings){.n_pages = 50, .n_parallel = 8}); // 200 tokens; all need 960
    int32_t ids[N][LEN];
    struct stream *streams[N];
    for (int i = 0; i < N; i++) {
        fill_tokens(ids[i], LEN, 20 + (uint64_t)i);
        const struct job job = greedy_job(ids[i], LEN, NEW);
        streams[i] = rig_submit(&r, &job);
    }
    for (int i = 0; i < N; i++) expect_alone(outcome_wait(streams[i]), ids[i], LEN, NEW);
    assert_true(rig_stats(&r).preemptions > 0);
    assert_true(rig_stats(&r).evictions > 0);
    rig_close(&r);
}

static void what_can_never_fit_fails_clearly(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_pages = 10});
    int32_t ids[41];
    fill_tokens(ids, 41, 9);
    struct job job = greedy_job(ids, 40, 1);
    struct stream *s;
    struct err e = {0};
    assert_false(loop_submit(r.loop, &job, NULL, &s, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    job = greedy_job(ids, 30, 100); // grows beyond 40 tokens
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.error.code, ERR_MEMORY);
    assert_non_null(strstr(o.error.msg, "--kv-memory"));
    assert_int_equal(o.n, 11); // 40 tokens have room, the one after them was sampled too
    assert_true(outcome_is_alone(&o, ids, 30));
    outcome_free(&o);
    job = greedy_job(ids, 20, 3);
    expect_alone(rig_run(&r, &job), ids, 20, 3); // and the next one is served
    rig_close(&r);
}

static void bad_jobs_are_refused(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_ctx = 64});
    int32_t ids[64];
    fill_tokens(ids, 64, 10);
    struct stream *s;
    struct err e = {0};
    struct job job = greedy_job(ids, 64, 1);
    assert_false(loop_submit(r.loop, &job, NULL, &s, &e));
    assert_int_equal(e.code, ERR_TOO_LONG);
    assert_non_null(strstr(e.msg, "exceeds the available context size"));
    assert_non_null(strstr(e.msg, "64 prompt tokens"));
    e = (struct err){0};
    job = greedy_job(ids, 0, 1);
    assert_false(loop_submit(r.loop, &job, NULL, &s, &e));
    assert_int_equal(e.code, ERR_INPUT);
    e = (struct err){0};
    ids[3] = FAKE_VOCAB;
    job = greedy_job(ids, 10, 1);
    assert_false(loop_submit(r.loop, &job, NULL, &s, &e));
    assert_int_equal(e.code, ERR_INPUT);
    ids[3] = 0;
    job = greedy_job(ids, 60, 0); // no limit: up to the context
    struct outcome o = rig_run(&r, &job);
    expect_alone(o, ids, 60, 4);
    rig_close(&r);
}

static void a_full_queue_says_when_to_come_again(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_parallel = 1, .n_queue = 2});
    int32_t ids[3][8];
    struct stream *streams[3], *s;
    atomic_store(&r.net->hold, true);
    for (int i = 0; i < 3; i++) {
        fill_tokens(ids[i], 8, 30 + (uint64_t)i);
        const struct job job = greedy_job(ids[i], 8, 2);
        streams[i] = rig_submit(&r, &job);
    }
    const struct job job = greedy_job(ids[0], 8, 2);
    struct err e = {0};
    assert_false(loop_submit(r.loop, &job, NULL, &s, &e));
    assert_int_equal(e.code, ERR_FULL);
    assert_true(e.retry_after_ms >= 1000);
    struct engine_slot slots[8];
    assert_int_equal(loop_slots(r.loop, slots, 8), 3);
    atomic_store(&r.net->hold, false);
    for (int i = 0; i < 3; i++) expect_alone(outcome_wait(streams[i]), ids[i], 8, 2);
    assert_int_equal(rig_stats(&r).requests_refused, 1);
    assert_int_equal(rig_stats(&r).requests_done, 3);
    rig_close(&r);
}

static void a_timeout_says_how_far_it_came(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.prefill_rows = 16});
    int32_t ids[800];
    fill_tokens(ids, 800, 11);
    struct job job = greedy_job(ids, 800, 5);
    job.timeout_ms = 150;
    atomic_store(&r.net->delay_us, 20000); // 800 tokens per second at most: a second in all
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.finish, FINISH_ERROR);
    assert_int_equal(o.error.code, ERR_TIMEOUT);
    assert_non_null(strstr(o.error.msg, "in prefill: "));
    assert_non_null(strstr(o.error.msg, " of 800 tokens at "));
    assert_non_null(strstr(o.error.msg, "would have needed "));
    assert_true(o.status.n_processed > 0 && o.status.n_processed < 800);
    outcome_free(&o);
    rig_close(&r);
}

static void a_timeout_in_the_queue_needs_no_step(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_parallel = 1});
    int32_t ids[600];
    fill_tokens(ids, 600, 12);
    struct job job = greedy_job(ids, 10, 600);
    atomic_store(&r.net->delay_us, 1000);
    struct stream *busy = rig_submit(&r, &job);
    wait_steps(r.net, 1);
    job = greedy_job(ids + 100, 100, 5);
    job.timeout_ms = 50;
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.error.code, ERR_TIMEOUT);
    assert_non_null(strstr(o.error.msg, "in the queue: 0 of 100 tokens"));
    outcome_free(&o);
    stream_close(busy);
    rig_close(&r);
}

static void a_reader_that_is_behind_stops_only_itself(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_parallel = 1}); // it even gives up its only place
    int32_t slow[20], quick[20];
    fill_tokens(slow, 20, 13);
    fill_tokens(quick, 20, 14);
    const struct job a = greedy_job(slow, 20, 900), b = greedy_job(quick, 20, 30);
    struct stream *s = rig_submit(&r, &a);
    wait_stage(s, STAGE_GENERATE);
    expect_alone(rig_run(&r, &b), quick, 20, 30);
    expect_alone(outcome_wait(s), slow, 20, 900); // nothing was dropped
    rig_close(&r);
}

static void a_reader_that_is_behind_and_alone_is_waited_for(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_parallel = 2});
    int32_t ids[20];
    fill_tokens(ids, 20, 15);
    const struct job job = greedy_job(ids, 20, 900);
    struct stream *s = rig_submit(&r, &job);
    wait_steps(r.net, 250);
    uint32_t n_before;
    do { // until it stands still
        n_before = atomic_load(&r.net->n_steps);
        poll(NULL, 0, 30);
    } while (atomic_load(&r.net->n_steps) != n_before);
    assert_true(n_before < 900);
    expect_alone(outcome_wait(s), ids, 20, 900);
    rig_close(&r);
}

static void the_urgent_go_first(void **state)
{
    (void)state;
    enum { N = 4 };
    static const int32_t priorities[N] = {0, 5, -5, 1};
    static const int order[N] = {0, 2, 3, 1}; // the first runs already
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_parallel = 1});
    int32_t ids[N][12];
    struct stream *streams[N];
    atomic_store(&r.net->hold, true);
    for (int i = 0; i < N; i++) {
        fill_tokens(ids[i], 12, 40 + (uint64_t)i);
        struct job job = greedy_job(ids[i], 12, 3);
        job.priority = priorities[i];
        streams[i] = rig_submit(&r, &job);
        if (i == 0) wait_held(r.net);
    }
    atomic_store(&r.net->delay_us, 3000); // far more than the jobs' arrivals are apart
    atomic_store(&r.net->hold, false);
    double last_ms = -1;
    struct outcome o[N];
    for (int i = 0; i < N; i++) o[i] = outcome_wait(streams[i]);
    for (int i = 0; i < N; i++) { // all came at about the same time: who waited less went earlier
        assert_true(o[order[i]].status.queued_ms > last_ms);
        last_ms = o[order[i]].status.queued_ms;
        expect_alone(o[order[i]], ids[order[i]], 12, 3);
    }
    rig_close(&r);
}

// The trunk is computed for a job of low priority; an urgent one that needs it lends it its own.
static void who_is_waited_for_becomes_urgent(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.prefill_rows = 16, .n_ctx = 2048, .n_pages = 1024});
    static int32_t trunk[400], middle[1000];
    fill_tokens(trunk, 400, 50);
    fill_tokens(middle, 1000, 51);
    struct job low = greedy_job(trunk, 400, 2), mid = greedy_job(middle, 1000, 2), high = low;
    low.priority = 5;
    high.priority = -5;
    atomic_store(&r.net->delay_us, 500);
    struct stream *a = rig_submit(&r, &low);
    wait_steps(r.net, 2);
    struct stream *b = rig_submit(&r, &mid);
    wait_stage(b, STAGE_PREFILL);
    struct stream *c = rig_submit(&r, &high);
    expect_alone(outcome_wait(c), trunk, 400, 2);
    struct stream_status st;
    stream_status(b, &st);
    assert_int_equal(st.stage, STAGE_PREFILL); // the middle one still computes
    expect_alone(outcome_wait(b), middle, 1000, 2);
    expect_alone(outcome_wait(a), trunk, 400, 2);
    rig_close(&r);
}

static void a_device_error_ends_its_step_and_the_engine_goes_on(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[50];
    fill_tokens(ids, 50, 16);
    const struct job job = greedy_job(ids, 50, 4);
    atomic_store(&r.net->n_failing, 1);
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.error.code, ERR_DEVICE);
    assert_non_null(strstr(o.error.msg, "fake failure"));
    outcome_free(&o);
    assert_false(loop_lost(r.loop, NULL));
    expect_alone(rig_run(&r, &job), ids, 50, 4);
    atomic_store(&r.net->n_failing, 100); // for good: three in a row, then jobs are refused
    for (int i = 0; i < 3; i++) {
        o = rig_run(&r, &job);
        assert_int_equal(o.error.code, ERR_DEVICE);
        outcome_free(&o);
    }
    struct stream *s = NULL;
    struct err e = {0};
    if (loop_submit(r.loop, &job, NULL, &s, &e)) { // came before the engine knew
        o = outcome_wait(s);
        e = o.error;
        outcome_free(&o);
    }
    assert_int_equal(e.code, ERR_DEVICE);
    assert_int_equal(atomic_load(&r.net->n_failing), 97);
    struct err why = {0};
    assert_true(loop_lost(r.loop, &why));
    assert_int_equal(why.code, ERR_DEVICE);
    assert_non_null(strstr(why.msg, "fake failure"));
    rig_close(&r);
}

static void logits_that_are_no_numbers_end_the_request(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[50];
    rig_open(&r, &(struct rig_settings){.n_parallel = 2});
    fill_tokens(ids, 50, 41);
    const struct job job = greedy_job(ids, 50, 4);
    atomic_store(&r.net->n_spoilt, 1);
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.error.code, ERR_DEVICE);
    assert_non_null(strstr(o.error.msg, "no numbers"));
    outcome_free(&o);
    expect_alone(rig_run(&r, &job), ids, 50, 4);
    rig_close(&r);
}

static void stopping_ends_everything(void **state)
{
    (void)state;
    enum { N = 6 };
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_parallel = 2});
    int32_t ids[N][30];
    struct stream *streams[N];
    atomic_store(&r.net->delay_us, 1000);
    for (int i = 0; i < N; i++) {
        fill_tokens(ids[i], 30, 60 + (uint64_t)i);
        const struct job job = greedy_job(ids[i], 30, 900);
        streams[i] = rig_submit(&r, &job);
    }
    wait_steps(r.net, 5);
    loop_stop(r.loop);
    for (int i = 0; i < N; i++) {
        struct outcome o = outcome_wait(streams[i]);
        assert_int_equal(o.error.code, ERR_SHUTDOWN);
        outcome_free(&o);
    }
    struct stream *s;
    struct err e = {0};
    const struct job job = greedy_job(ids[0], 30, 1);
    assert_false(loop_submit(r.loop, &job, NULL, &s, &e));
    assert_int_equal(e.code, ERR_SHUTDOWN);
    rig_close(&r);
}

static void a_vanished_client_stops_within_a_step(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){.prefill_rows = 16});
    int32_t ids[400];
    fill_tokens(ids, 400, 17);
    const struct job job = greedy_job(ids, 400, 5);
    atomic_store(&r.net->delay_us, 2000);
    struct stream *s = rig_submit(&r, &job);
    wait_steps(r.net, 3);
    atomic_store(&r.net->hold, true);
    wait_held(r.net);
    const uint32_t n_steps = atomic_load(&r.net->n_steps);
    stream_close(s);
    atomic_store(&r.net->hold, false);
    poll(NULL, 0, 30);
    assert_int_equal(atomic_load(&r.net->n_steps), n_steps + 1); // the one that was under way
    struct outcome o = rig_run(&r, &job);
    assert_true(o.status.n_cached >= 48); // its pages stayed
    expect_alone(o, ids, 400, 5);
    rig_close(&r);
}

static void full_logits_come_through_the_same_steps(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[70];
    fill_tokens(ids, 70, 18);
    float want[FAKE_VOCAB], got[FAKE_VOCAB];
    for (size_t n = 1; n <= 70; n += 3) {
        const struct job job = greedy_job(ids, n, 0);
        struct stream *s;
        struct err e = {0};
        assert_true(loop_submit(r.loop, &job, got, &s, &e));
        struct outcome o = outcome_wait(s);
        assert_int_equal(o.finish, FINISH_STOP);
        outcome_free(&o);
        fake_logits(ids, n, want);
        assert_memory_equal(got, want, sizeof want);
    }
    rig_close(&r);
}

static void a_bias_and_logprobs_reach_the_stream(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[10];
    fill_tokens(ids, 10, 19);
    const struct logit_bias bias = {.token = 123, .bias = 100};
    struct job job = greedy_job(ids, 10, 1);
    job.bias = &bias;
    job.n_bias = 1;
    job.logprobs = true;
    job.n_top_logprobs = 2;
    struct stream *s = rig_submit(&r, &job);
    struct stream_event event;
    struct pollfd p = {.fd = stream_fd(s), .events = POLLIN};
    while (!stream_next(s, &event)) poll(&p, 1, 1000);
    assert_int_equal(event.kind, EVENT_TOKEN);
    assert_int_equal(event.id, 123);
    assert_true(event.logprob > -1e-3f && event.logprob <= 0); // e^-92 of the mass is elsewhere
    assert_int_equal(event.n_top, 2);
    assert_int_equal(event.top[0].id, 123);
    assert_true(event.top[1].logprob < -80);
    stream_close(s);
    rig_close(&r);
}

static void a_stop_string_over_tokens_ends_the_answer(void **state)
{
    (void)state;
    struct tokenizer *tok = tiny_vocab_open();
    struct rig r;
    rig_open(&r, &(struct rig_settings){.tok = tok});
    int32_t ids[10];
    fill_tokens(ids, 10, 70);
    const struct logit_bias bias = {.token = 'a', .bias = 100}; // every token is an a
    const struct str stops[2] = {STR("xyz"), STR("aaaa")};
    struct job job = greedy_job(ids, 10, 50);
    job.bias = &bias;
    job.n_bias = 1;
    job.stops = stops;
    job.n_stops = 2;
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.finish, FINISH_STOP_STRING);
    assert_int_equal(o.n, 4);
    outcome_free(&o);
    job.n_stops = 1;
    o = rig_run(&r, &job);
    assert_int_equal(o.finish, FINISH_LENGTH);
    assert_int_equal(o.n, 50);
    outcome_free(&o);
    rig_close(&r);
    tokenizer_close(tok);
}

static void an_end_token_ends_unless_it_is_ignored(void **state)
{
    (void)state;
    struct tokenizer *tok = tiny_vocab_open();
    struct rig r;
    rig_open(&r, &(struct rig_settings){.tok = tok});
    int32_t ids[10];
    fill_tokens(ids, 10, 71);
    const struct logit_bias bias = {.token = TINY_IM_END, .bias = 100};
    struct job job = greedy_job(ids, 10, 5);
    job.bias = &bias;
    job.n_bias = 1;
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.finish, FINISH_STOP);
    assert_int_equal(o.n, 0);
    outcome_free(&o);
    job.ignore_eos = true;
    o = rig_run(&r, &job);
    assert_int_equal(o.finish, FINISH_LENGTH);
    assert_int_equal(o.n, 5);
    assert_int_equal(o.ids[4], TINY_IM_END);
    outcome_free(&o);
    rig_close(&r);
    tokenizer_close(tok);
}

// One greedy token with penalties over the whole text, counted anew each time.
static int32_t penalised_token(const int32_t *ids, uint32_t n_prompt, uint32_t n,
                               const struct sampling *s)
{
    static float logits[FAKE_VOCAB];
    fake_logits(ids, n, logits);
    int32_t best = 0;
    for (int32_t t = 0; t < FAKE_VOCAB; t++) {
        bool seen = false;
        uint32_t n_generated = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (ids[i] != t) continue;
            if (i + 64 >= n) seen = true;
            if (i >= n_prompt) n_generated++;
        }
        float *x = &logits[t];
        if (seen) *x = *x > 0 ? *x / s->repeat_penalty : *x * s->repeat_penalty;
        if (n_generated > 0) *x -= s->presence_penalty;
        *x -= s->frequency_penalty * (float)n_generated;
        if (*x > logits[best]) best = t;
    }
    return best;
}

static void penalties_count_what_they_should(void **state)
{
    (void)state;
    enum { PROMPT = 40, NEW = 300 };
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[PROMPT + NEW];
    fill_tokens(ids, PROMPT, 72);
    struct job job = greedy_job(ids, PROMPT, NEW);
    job.sampling.repeat_penalty = 1.25f; // the three are exact in binary, so both ways agree
    job.sampling.presence_penalty = 0.125f;
    job.sampling.frequency_penalty = 0.5f;
    struct outcome o = rig_run(&r, &job);
    assert_int_equal(o.n, NEW);
    for (uint32_t i = 0; i < NEW; i++) {
        ids[PROMPT + i] = penalised_token(ids, PROMPT, PROMPT + i, &job.sampling);
        assert_int_equal(o.ids[i], ids[PROMPT + i]);
    }
    assert_false(outcome_is_alone(&o, ids, PROMPT)); // they did change something
    outcome_free(&o);
    rig_close(&r);
}

static void a_seed_gives_the_same_answer_in_any_company(void **state)
{
    (void)state;
    enum { N = 6 };
    struct rig r;
    rig_open(&r, &(struct rig_settings){.n_pages = 60, .prefill_rows = 20}); // preempts, too
    int32_t ids[N][50];
    struct outcome alone[N], o;
    struct stream *streams[N];
    struct job jobs[N];
    for (int i = 0; i < N; i++) {
        fill_tokens(ids[i], 50, 80 + (uint64_t)i);
        jobs[i] = greedy_job(ids[i], 50, 60);
        jobs[i].sampling.temperature = 1.5f;
        jobs[i].sampling.top_k = i % 2 == 0 ? 40 : 0; // all: read beyond the candidates
        jobs[i].sampling.seed = (uint64_t)i;
        alone[i] = rig_run(&r, &jobs[i]);
        assert_int_equal(alone[i].n, 60);
    }
    for (int i = 0; i < N; i++) streams[i] = rig_submit(&r, &jobs[i]);
    for (int i = 0; i < N; i++) {
        o = outcome_wait(streams[i]);
        assert_int_equal(o.n, 60);
        assert_memory_equal(o.ids, alone[i].ids, 60 * sizeof *o.ids);
        outcome_free(&o);
        outcome_free(&alone[i]);
    }
    rig_close(&r);
}

static void the_token_loop_allocates_nothing(void **state)
{
    (void)state;
    if (!fail_malloc_works()) skip();
    enum { N = 4 };
    struct tokenizer *tok = tiny_vocab_open();
    struct rig r;
    rig_open(&r, &(struct rig_settings){.tok = tok, .n_ctx = 256});
    int32_t ids[N][20];
    struct stream *streams[N];
    const struct str stops[1] = {STR("a stop string that never comes, of some length")};
    struct logit_bias bias[128]; // no bytes that are no text: repairing them allocates
    for (int32_t i = 0; i < 128; i++) bias[i] = (struct logit_bias){.token = 128 + i, .bias = -99};
    for (int i = 0; i < N; i++) {
        fill_tokens(ids[i], 20, 90 + (uint64_t)i);
        struct job job = greedy_job(ids[i], 20, 200);
        job.ignore_eos = job.logprobs = true;
        job.bias = bias;
        job.n_bias = 128;
        job.n_top_logprobs = 5;
        job.stops = stops;
        job.n_stops = 1;
        if (i % 2 == 0) job.sampling.frequency_penalty = 0.5f;
        atomic_store(&r.net->delay_us, 200);
        streams[i] = rig_submit(&r, &job);
    }
    for (int i = 0; i < N; i++) wait_stage(streams[i], STAGE_GENERATE);
    const uint32_t before = atomic_load(&r.net->n_steps);
    atomic_store(&r.net->watch, true);
    wait_steps(r.net, before + 100);
    atomic_store(&r.net->watch, false);
    wait_steps(r.net, before + 102);
    assert_int_equal(atomic_load(&r.net->n_allocating), 0);
    for (int i = 0; i < N; i++) {
        struct outcome o = outcome_wait(streams[i]);
        assert_int_equal(o.n, 200);
        outcome_free(&o);
    }
    rig_close(&r);
    tokenizer_close(tok);
}

// A job that finds no memory, at any of its allocations, is refused whole.
static void submitting_survives_every_failed_allocation(void **state)
{
    (void)state;
    if (!fail_malloc_works()) skip();
    struct rig r;
    rig_open(&r, &(struct rig_settings){0});
    int32_t ids[30];
    fill_tokens(ids, 30, 95);
    const struct logit_bias bias = {.token = 5, .bias = -1};
    const struct str stops[1] = {STR("stop")};
    struct job job = greedy_job(ids, 30, 5);
    job.bias = &bias;
    job.n_bias = 1;
    job.stops = stops;
    job.n_stops = 1;
    job.sampling.presence_penalty = 1;
    long n = 0;
    for (struct stream *s = NULL; s == NULL; n++) {
        struct err e = {0};
        fail_malloc_after(n);
        const bool ok = loop_submit(r.loop, &job, NULL, &s, &e);
        const bool failed = fail_malloc_done();
        fail_malloc_after(-1);
        assert_true(ok != failed);
        if (!ok) assert_int_equal(e.code, ERR_MEMORY);
        struct outcome o = {0};
        if (ok) o = outcome_wait(s);
        if (ok) assert_int_equal(o.n, 5);
        outcome_free(&o);
    }
    assert_true(n > 5);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_networks),
        cmocka_unit_test(a_known_prefix_is_not_computed_again),
        cmocka_unit_test(the_next_turn_continues_from_generated_pages),
        cmocka_unit_test(salts_keep_apart),
        cmocka_unit_test(the_beginning_of_a_page_is_copied),
        cmocka_unit_test(eight_at_once_compute_the_trunk_once),
        cmocka_unit_test(a_waiter_takes_over_from_a_cancelled_leader),
        cmocka_unit_test(a_shorter_prompt_does_not_wait_for_what_it_cannot_use),
        cmocka_unit_test(a_pool_too_small_for_all_serves_all),
        cmocka_unit_test(what_can_never_fit_fails_clearly),
        cmocka_unit_test(bad_jobs_are_refused),
        cmocka_unit_test(a_full_queue_says_when_to_come_again),
        cmocka_unit_test(a_timeout_says_how_far_it_came),
        cmocka_unit_test(a_timeout_in_the_queue_needs_no_step),
        cmocka_unit_test(a_reader_that_is_behind_stops_only_itself),
        cmocka_unit_test(a_reader_that_is_behind_and_alone_is_waited_for),
        cmocka_unit_test(the_urgent_go_first),
        cmocka_unit_test(who_is_waited_for_becomes_urgent),
        cmocka_unit_test(a_device_error_ends_its_step_and_the_engine_goes_on),
        cmocka_unit_test(logits_that_are_no_numbers_end_the_request),
        cmocka_unit_test(stopping_ends_everything),
        cmocka_unit_test(a_vanished_client_stops_within_a_step),
        cmocka_unit_test(full_logits_come_through_the_same_steps),
        cmocka_unit_test(a_bias_and_logprobs_reach_the_stream),
        cmocka_unit_test(a_stop_string_over_tokens_ends_the_answer),
        cmocka_unit_test(an_end_token_ends_unless_it_is_ignored),
        cmocka_unit_test(penalties_count_what_they_should),
        cmocka_unit_test(a_seed_gives_the_same_answer_in_any_company),
        cmocka_unit_test(the_token_loop_allocates_nothing),
        cmocka_unit_test(submitting_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
