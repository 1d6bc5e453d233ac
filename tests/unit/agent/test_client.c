// The streaming client against a scripted server: pieces of any size, retries, and every way to
// break off.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/client.h"
#include "base/clock.h"
#include "lib/fake_openai.h"

#define CHUNK(json) "data: " json "\n\n"
#define DELTA(fields) \
    CHUNK("{\"choices\":[{\"index\":0,\"delta\":{" fields "},\"finish_reason\":null}]}")
#define FINISH(why) \
    CHUNK("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" why "\"}]}")
#define PROGRESS(done)                                                                             \
    CHUNK("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":null}],\"prompt_progress\":{" \
          "\"total\":1000,\"cached\":0,\"processed\":" done ",\"time_ms\":100,\"eta_ms\":4000}}")
#define USAGE                                                                          \
    CHUNK("{\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":3," \
          "\"prompt_tokens_details\":{\"cached_tokens\":960}}}")
#define DONE "data: [DONE]\n\n"
#define GOOD \
    FAKE_SSE DELTA("\"content\":\"It \"") DELTA("\"content\":\"works.\"") FINISH("stop") USAGE DONE

struct outcome {
    bool ok;
    struct chat_reply reply;
    struct chat_status status;
    struct chat_times times;
    struct err e;
    size_t n_requests;
    double ms;
    struct buf heard; // on_content's pieces
};

static void hear(void *arg, struct str text)
{
    buf_str(arg, text);
}

static struct outcome ask(const struct fake_response *list, size_t n, uint32_t deadline_ms,
                          const atomic_int *cancel)
{
    struct outcome o = {0};
    struct fake_openai *f = fake_openai_open(list, n);
    struct http_client *c = NULL;
    uint64_t start = clock_ns();
    assert_true(http_client_open(&c, fake_openai_url(f), "key-7", &o.e));
    struct chat_ask a = {.body = STR("{\"stream\":true}"),
                         .deadline_ns = deadline_ms ? start + deadline_ms * 1000000ull : 0,
                         .cancel = cancel,
                         .on_content = hear,
                         .arg = &o.heard};
    o.ok = chat_client_ask(c, &a, &o.reply, &o.status, &o.times, &o.e);
    o.ms = clock_ms_since(start);
    o.n_requests = fake_openai_count(f);
    if (o.n_requests > 0 && cancel == NULL) { // a cancelled request may not have been sent whole
        const char *request = fake_openai_request(f, 0);
        assert_non_null(strstr(request, "POST /v1/chat/completions HTTP/1.1\r\n"));
        assert_non_null(strstr(request, "Authorization: Bearer key-7\r\n"));
        assert_non_null(strstr(request, "Content-Type: application/json\r\n"));
        assert_non_null(strstr(request, "\r\n\r\n{\"stream\":true}"));
    }
    http_client_close(c);
    fake_openai_close(f);
    return o;
}

static void drop(struct outcome *o)
{
    chat_reply_free(&o->reply);
    buf_free(&o->heard);
}

static void a_stream_in_pieces_of_any_size_is_the_same(void **state)
{
    (void)state;
    static const size_t pieces[] = {0, 1, 2, 7, 64};
    for (size_t i = 0; i < 5; i++) {
        struct fake_response r = {.bytes = GOOD, .piece = pieces[i]};
        struct outcome o = ask(&r, 1, 20000, NULL);
        if (!o.ok) fail_msg("%s", o.e.msg);
        assert_string_equal(buf_cstr(&o.reply.content), "It works.");
        assert_string_equal(buf_cstr(&o.heard), "It works.");
        assert_int_equal(o.reply.usage.cached_tokens, 960);
        assert_int_equal(o.status.stage, CHAT_DONE);
        assert_true(o.times.ttft_ms >= 0 && o.times.ttft_ms <= o.ms);
        drop(&o);
    }
}

static void a_server_that_stays_open_after_done_does_not_hold_us(void **state)
{
    (void)state;
    struct fake_response r = {.bytes = GOOD, .stall = true};
    struct outcome o = ask(&r, 1, 20000, NULL);
    assert_true(o.ok);
    assert_true(o.ms < 3000);
    drop(&o);
}

static void too_many_requests_is_tried_again_when_told(void **state)
{
    (void)state;
    const struct fake_response list[] = {
        {.bytes = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\n"
                  "Content-Length: 40\r\n\r\n{\"error\":{\"message\":\"the queue is full\"}}"},
        {.bytes = "HTTP/1.1 503 Loading\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
        {.bytes = GOOD}};
    struct outcome o = ask(list, 3, 20000, NULL);
    if (!o.ok) fail_msg("%s", o.e.msg);
    assert_int_equal(o.n_requests, 3);
    assert_int_equal(o.status.n_retries, 2);
    assert_true(o.ms >= 2000); // one second as told, then our own first back-off of two
    drop(&o);
}

static void no_retry_would_come_too_late(void **state)
{
    (void)state;
    const struct fake_response list[] = {
        {.bytes = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nConnection: close\r\n"
                  "Content-Length: 41\r\n\r\n{\"error\":{\"message\":\"the queue is full\"}} "},
        {.bytes = GOOD}};
    struct outcome o = ask(list, 2, 2000, NULL);
    assert_false(o.ok);
    assert_int_equal(o.e.code, ERR_FULL);
    assert_non_null(strstr(o.e.msg, "the queue is full"));
    assert_non_null(strstr(o.e.msg, "past the deadline"));
    assert_true(o.ms < 1500);
    drop(&o);
}

static void every_broken_stream_says_how_far_it_came(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *words;
        enum err_code code;
    } cases[] = {
        {NULL, "closed the connection (in request)", ERR_IO},
        {FAKE_SSE, "without a finish_reason (in queue)", ERR_IO},
        {FAKE_SSE CHUNK(
             "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":null}],\"prompt_progress\":"
             "{"
             "\"total\":1000,\"cached\":64,\"processed\":64,\"time_ms\":9,\"eta_ms\":null,"
             "\"queue_position\":3}}"),
         "(in queue, 3 before it)", ERR_IO},
        {FAKE_SSE PROGRESS("500"), "prefill 500 of 1000 tokens at 5000 tokens/s", ERR_IO},
        {FAKE_SSE DELTA("\"content\":\"It \""), "generation, 1 tokens", ERR_IO},
        {FAKE_SSE DELTA("\"content\":\"It \"") DONE, "without a finish_reason", ERR_IO},
        {FAKE_SSE PROGRESS("10") CHUNK("{\"error\":{\"message\":\"the device is lost\",\"type\":"
                                       "\"device_error\"}}"),
         "the device is lost (in prefill 10 of 1000", ERR_DEVICE},
        {FAKE_SSE "data: {\"choices\"\n\n", "no JSON", ERR_INTERNAL},
        {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
         "5\r\ndata:",
         "closed the connection", ERR_IO},
        {"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n{\"error\":{\"message\":\"too "
         "long\","
         "\"type\":\"exceed_context_size_error\"}}",
         "too long", ERR_TOO_LONG},
        {"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n", "401", ERR_AUTH},
        {"rubbish\r\n\r\n", "broke", ERR_IO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fake_response r = {.bytes = cases[i].bytes};
        struct outcome o = ask(&r, 1, 20000, NULL);
        if (o.ok || o.e.code != cases[i].code || strstr(o.e.msg, cases[i].words) == NULL)
            fail_msg("case %zu: ok %d code %d: %s", i, o.ok, o.e.code, o.e.msg);
        drop(&o);
    }
}

static void the_deadline_names_stage_and_need(void **state)
{
    (void)state;
    struct fake_response r = {.bytes = FAKE_SSE PROGRESS("500"), .stall = true};
    struct outcome o = ask(&r, 1, 500, NULL);
    assert_false(o.ok);
    assert_int_equal(o.e.code, ERR_TIMEOUT);
    assert_non_null(strstr(o.e.msg, "prefill 500 of 1000 tokens at 5000 tokens/s"));
    assert_non_null(strstr(o.e.msg, "needed 4.0 s more"));
    assert_int_equal(o.status.progress.processed, 500);
    assert_true(o.ms >= 450 && o.ms < 2000);
    assert_true(o.times.ttft_ms < 0);
    drop(&o);
}

static void a_cancellation_is_seen_soon(void **state)
{
    (void)state;
    atomic_int cancel = 1;
    struct fake_response r = {.bytes = FAKE_SSE, .stall = true};
    struct outcome o = ask(&r, 1, 20000, &cancel);
    assert_false(o.ok);
    assert_int_equal(o.e.code, ERR_CANCELLED);
    assert_true(o.ms < 1500);
    drop(&o);
}

static void nobody_there_is_no_server(void **state)
{
    (void)state;
    struct http_client *c = NULL;
    struct err e = {0};
    struct chat_reply reply = {0};
    struct chat_status status;
    struct chat_times times;
    struct chat_ask a = {.body = STR("{}")};
    assert_true(http_client_open(&c, "http://127.0.0.1:1/v1/", NULL, &e));
    assert_false(chat_client_ask(c, &a, &reply, &status, &times, &e));
    assert_int_equal(e.code, ERR_NO_SERVER);
    assert_non_null(strstr(e.msg, "http://127.0.0.1:1/v1/"));
    http_client_close(c);
    e = (struct err){0};
    assert_true(http_client_open(&c, "unix:/no/such/socket", NULL, &e));
    assert_false(chat_client_ask(c, &a, &reply, &status, &times, &e));
    assert_int_equal(e.code, ERR_NO_SERVER);
    http_client_close(c);
}

static void addresses_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const urls[] = {"",        "localhost:8080", "ftp://x",
                                       "http://", "unix:",          "file:///etc"};
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        struct http_client *c = NULL;
        struct err e = {0};
        assert_false(http_client_open(&c, urls[i], NULL, &e));
        assert_int_equal(e.code, ERR_INPUT);
        assert_null(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_in_pieces_of_any_size_is_the_same),
        cmocka_unit_test(a_server_that_stays_open_after_done_does_not_hold_us),
        cmocka_unit_test(too_many_requests_is_tried_again_when_told),
        cmocka_unit_test(no_retry_would_come_too_late),
        cmocka_unit_test(every_broken_stream_says_how_far_it_came),
        cmocka_unit_test(the_deadline_names_stage_and_need),
        cmocka_unit_test(a_cancellation_is_seen_soon),
        cmocka_unit_test(nobody_there_is_no_server),
        cmocka_unit_test(addresses_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
