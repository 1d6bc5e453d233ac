// engine/stream: two threads and a ring; nothing is lost, nothing blocks, the end comes last.
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/stream.h"

static struct stream *open_stream(struct doorbell **bell)
{
    struct err e = {0};
    struct stream *s;
    *bell = doorbell_open(&e);
    assert_non_null(*bell);
    assert_true(stream_open(&s, *bell, 10, &e));
    return s;
}

static bool is_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void the_end_comes_after_all_tokens_and_once(void **state)
{
    (void)state;
    struct doorbell *bell;
    struct stream *s = open_stream(&bell);
    struct stream_event event;
    assert_false(is_readable(stream_fd(s)));
    assert_false(stream_next(s, &event));
    const struct stream_event token = {
        .kind = EVENT_TOKEN, .id = 7, .logprob = -1.5f, .n_top = 1, .top = {{3, -0.5f}}};
    stream_put(s, &token);
    struct err error = {0};
    err_set(&error, ERR_TIMEOUT, "late");
    stream_end(s, FINISH_ERROR, &error);
    assert_true(is_readable(stream_fd(s)));
    assert_true(stream_next(s, &event));
    assert_int_equal(event.kind, EVENT_TOKEN);
    assert_int_equal(event.id, 7);
    assert_true(event.logprob == -1.5f && event.n_top == 1 && event.top[0].id == 3);
    assert_true(is_readable(stream_fd(s)));
    assert_true(stream_next(s, &event));
    assert_int_equal(event.kind, EVENT_END);
    assert_int_equal(event.finish, FINISH_ERROR);
    assert_int_equal(event.error.code, ERR_TIMEOUT);
    assert_string_equal(event.error.msg, "late");
    assert_false(stream_next(s, &event));
    assert_false(is_readable(stream_fd(s)));
    stream_unref(s);
    stream_close(s);
    doorbell_unref(bell);
}

static void a_full_ring_parks_and_reading_wakes(void **state)
{
    (void)state;
    struct doorbell *bell;
    struct stream *s = open_stream(&bell);
    struct stream_event event = {.kind = EVENT_TOKEN};
    int32_t n = 0;
    for (; stream_has_room(s); n++) {
        event.id = n;
        stream_put(s, &event);
    }
    assert_true(n >= 16);
    assert_true(stream_park(s));
    assert_false(is_readable(bell->event.fd));
    for (int32_t i = 0; i < n; i++) {
        assert_true(stream_next(s, &event));
        assert_int_equal(event.id, i);
        assert_true(is_readable(bell->event.fd));
    }
    assert_true(stream_has_room(s));
    assert_false(stream_park(s));
    stream_unref(s);
    stream_close(s);
    doorbell_unref(bell);
}

static void closing_cancels_and_outlives_the_engine(void **state)
{
    (void)state;
    struct doorbell *bell;
    struct stream *s = open_stream(&bell);
    assert_false(stream_is_cancelled(s));
    stream_cancel(s);
    assert_true(stream_is_cancelled(s));
    assert_true(is_readable(bell->event.fd));
    stream_end(s, FINISH_LENGTH, NULL);
    stream_unref(s);
    doorbell_unref(bell); // the engine is gone, the consumer reads on
    struct stream_event event;
    assert_true(stream_next(s, &event));
    assert_int_equal(event.finish, FINISH_LENGTH);
    stream_close(s);
}

static void status_adds_up_times_by_stage(void **state)
{
    (void)state;
    struct doorbell *bell;
    struct stream *s = open_stream(&bell);
    struct stream_status st;
    stream_status(s, &st);
    assert_int_equal(st.stage, STAGE_QUEUED);
    assert_int_equal(st.n_prompt, 10);
    assert_true(st.eta_ms < 0);
    stream_set_stage(s, STAGE_PREFILL);
    const struct stream_progress p = {
        .n_prompt = 10, .n_cached = 4, .n_processed = 8, .eta_ms = 100000};
    stream_set_progress(s, &p);
    struct pollfd none = {.fd = -1};
    poll(&none, 1, 20);
    stream_status(s, &st);
    assert_true(st.prefill_ms >= 19 && st.prefill_ms < 10000);
    assert_true(st.eta_ms < 100000 - 18 && st.eta_ms > 80000);
    assert_int_equal(st.n_processed, 8);
    stream_end(s, FINISH_STOP, NULL);
    stream_status(s, &st);
    const double total = st.total_ms;
    poll(&none, 1, 5);
    stream_status(s, &st);
    assert_int_equal(st.stage, STAGE_DONE);
    assert_true(st.total_ms == total); // the clock stands
    stream_unref(s);
    stream_close(s);
    doorbell_unref(bell);
}

enum { MANY = 200000 };

static void *produce(void *arg)
{
    struct stream *s = arg;
    for (int32_t i = 0; i < MANY;) {
        if (!stream_has_room(s)) {
            struct pollfd none = {.fd = -1};
            if (stream_park(s)) poll(&none, 1, 1);
            continue;
        }
        const struct stream_event token = {.kind = EVENT_TOKEN, .id = i++};
        stream_put(s, &token);
    }
    stream_end(s, FINISH_LENGTH, NULL);
    stream_unref(s);
    return NULL;
}

static void two_threads_lose_nothing(void **state)
{
    (void)state;
    struct doorbell *bell;
    struct stream *s = open_stream(&bell);
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, produce, s), 0);
    struct stream_event event = {.kind = EVENT_TOKEN};
    int32_t n = 0;
    while (event.kind != EVENT_END) {
        struct pollfd p = {.fd = stream_fd(s), .events = POLLIN};
        assert_int_equal(poll(&p, 1, 10000), 1); // no wake-up is lost
        while (stream_next(s, &event) && event.kind == EVENT_TOKEN) assert_int_equal(event.id, n++);
    }
    assert_int_equal(n, MANY);
    pthread_join(producer, NULL);
    stream_close(s);
    doorbell_unref(bell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_comes_after_all_tokens_and_once),
        cmocka_unit_test(a_full_ring_parks_and_reading_wakes),
        cmocka_unit_test(closing_cancels_and_outlives_the_engine),
        cmocka_unit_test(status_adds_up_times_by_stage),
        cmocka_unit_test(two_threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
