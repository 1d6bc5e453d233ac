// Chunks of OpenAI-compatible streams, in the shapes that real servers send them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/chat_reply.h"
#include "lib/fail_malloc.h"

static void feed(struct chat_reply *r, const char *const *chunks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct err e = {0};
        if (!chat_reply_chunk(r, str_from(chunks[i]), &e)) fail_msg("%s", e.msg);
    }
}

static void content_reasoning_and_usage_add_up(void **state)
{
    (void)state;
    static const char *const chunks[] = {
        "{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":\" so\"}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\u0000\"}}]}",
        "{\"choices\":[{\"index\":0,\"delta\":{\"content\":[{\"type\":\"text\",\"text\":\"b\"}]}}]"
        "}",
        "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}",
        "{\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":7,"
        "\"prompt_tokens_details\":{\"cached_tokens\":64}},\"timings\":{\"predicted_per_second\":"
        "50.5}}",
        "[DONE]",
    };
    struct chat_reply r = {0};
    feed(&r, chunks, 8);
    assert_int_equal(r.content.n, 3);
    assert_memory_equal(r.content.p, "a\0b", 3);
    assert_string_equal(buf_cstr(&r.reasoning), "hm so");
    assert_string_equal(buf_cstr(&r.finish), "stop");
    assert_int_equal(r.usage.prompt_tokens, 100);
    assert_int_equal(r.usage.cached_tokens, 64);
    assert_int_equal(r.usage.completion_tokens, 7);
    assert_int_equal(r.n_deltas, 4);
    assert_true(r.server_tps > 50.4 && r.server_tps < 50.6);
    assert_true(r.done);
    chat_reply_free(&r);
}

static void tool_calls_are_put_together_by_index(void **state)
{
    (void)state;
    static const char *const chunks[] = {
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"type\":"
        "\"function\","
        "\"function\":{\"name\":\"exec\",\"arguments\":\"\"}}]}}]}",
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{"
        "\\\"a\\\"\"}}]}}]}",
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"c2\",\"function\":{"
        "\"name\":"
        "\"read\",\"arguments\":\"{}\"}}]}}]}",
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}"
        "\"}}]}}]}",
        "{\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}",
    };
    struct chat_reply r = {0};
    feed(&r, chunks, 5);
    assert_int_equal(r.n_calls, 2);
    assert_string_equal(buf_cstr(&r.calls[0].id), "c1");
    assert_string_equal(buf_cstr(&r.calls[0].name), "exec");
    assert_string_equal(buf_cstr(&r.calls[0].arguments), "{\"a\":1}");
    assert_string_equal(buf_cstr(&r.calls[1].name), "read");
    assert_string_equal(buf_cstr(&r.calls[1].arguments), "{}");
    chat_reply_free(&r);
}

// Some servers send whole calls without an index, and arguments as an object.
static void calls_without_an_index_are_told_apart_by_id(void **state)
{
    (void)state;
    static const char *const chunks[] = {
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"x\","
        "\"arguments\":"
        "{\"k\":[1,2]}}},{\"id\":\"b\",\"function\":{\"name\":\"y\",\"arguments\":\"{}\"}}]}}]}",
    };
    struct chat_reply r = {0};
    feed(&r, chunks, 1);
    assert_int_equal(r.n_calls, 2);
    assert_string_equal(buf_cstr(&r.calls[0].arguments), "{\"k\":[1,2]}");
    assert_string_equal(buf_cstr(&r.calls[1].name), "y");
    chat_reply_free(&r);
}

static void progress_is_read_in_both_spellings(void **state)
{
    (void)state;
    static const char *const ours[] = {
        "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":null}],\"prompt_progress\":{"
        "\"total\":15000,"
        "\"cached\":64,\"processed\":2048,\"time_ms\":900.5,\"eta_ms\":5000}}"};
    static const char *const peer[] = {
        "{\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}],"
        "\"prompt_progress\":{\"total\":10,\"cache\":3,\"processed\":5,\"time_ms\":1}}"};
    struct chat_reply r = {0};
    feed(&r, ours, 1);
    assert_true(r.progress.known);
    assert_int_equal(r.progress.total, 15000);
    assert_int_equal(r.progress.cached, 64);
    assert_int_equal(r.progress.processed, 2048);
    assert_true(r.progress.eta_ms == 5000.0);
    assert_int_equal(r.n_deltas, 0);
    feed(&r, peer, 1);
    assert_int_equal(r.progress.cached, 3);
    assert_true(r.progress.eta_ms < 0);
    chat_reply_free(&r);
}

static void bad_chunks_are_errors_that_say_what_came(void **state)
{
    (void)state;
    static const struct {
        const char *chunk, *words;
        enum err_code code;
    } cases[] = {
        {"{\"error\":{\"message\":\"KV is full\",\"type\":\"queue_full_error\",\"code\":429}}",
         "KV is full", ERR_FULL},
        {"{\"error\":{\"message\":\"late\",\"type\":\"timeout_error\"}}", "late", ERR_TIMEOUT},
        {"{\"error\":\"just words\"}", "just words", ERR_INTERNAL},
        {"{\"error\":{}}", "without a message", ERR_INTERNAL},
        {"{\"choices\":", "no JSON", ERR_INTERNAL},
        {"[1]", "no JSON object", ERR_INTERNAL},
        {"\xff\xfe", "no JSON", ERR_INTERNAL},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1000000}]}}]}", "1000000",
         ERR_INTERNAL},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":-1}]}}]}", "-1", ERR_INTERNAL},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[7]}}]}", "no object", ERR_INTERNAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct chat_reply r = {0};
        struct err e = {0};
        assert_false(chat_reply_chunk(&r, str_from(cases[i].chunk), &e));
        if (e.code != cases[i].code || strstr(e.msg, cases[i].words) == NULL)
            fail_msg("case %zu: code %d: %s", i, e.code, e.msg);
        chat_reply_free(&r);
    }
}

// What is of an unexpected type is skipped, whatever it is.
static void strange_types_do_no_harm(void **state)
{
    (void)state;
    static const char *const chunks[] = {
        "{}",
        "{\"choices\":null}",
        "{\"choices\":[1]}",
        "{\"choices\":[{\"delta\":7}]}",
        "{\"choices\":[{\"delta\":{\"content\":{\"a\":1},\"tool_calls\":{}}}]}",
        "{\"choices\":[{\"delta\":{\"content\":[1,null,{\"text\":5}]}}]}",
        "{\"usage\":[],\"prompt_progress\":5,\"timings\":{\"predicted_per_second\":\"x\"}}",
        "{\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":1e300},\"error\":null}",
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}",
    };
    struct chat_reply r = {0};
    feed(&r, chunks, sizeof chunks / sizeof chunks[0]);
    assert_int_equal(r.content.n, 0);
    assert_int_equal(r.usage.prompt_tokens, 0);
    assert_int_equal(r.usage.completion_tokens, 0);
    assert_int_equal(r.n_calls, 1);
    chat_reply_free(&r);
}

static void http_errors_keep_the_servers_words(void **state)
{
    (void)state;
    static const struct {
        long status;
        const char *body, *words;
        enum err_code code;
    } cases[] = {
        {400,
         "{\"error\":{\"message\":\"exceeds the available context size\",\"type\":"
         "\"exceed_context_size_error\"}}",
         "exceeds the available", ERR_TOO_LONG},
        {401, "{\"error\":{\"message\":\"bad key\"}}", "bad key", ERR_AUTH},
        {429, "", "429", ERR_FULL},
        {503, "<html>busy</html>", "<html>busy", ERR_LOADING},
        {500, "null", "500", ERR_INTERNAL},
        {418, "{\"error\":\"teapot\"}", "teapot", ERR_INTERNAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = {0};
        chat_error_from(cases[i].status, str_from(cases[i].body), &e);
        if (e.code != cases[i].code || strstr(e.msg, cases[i].words) == NULL)
            fail_msg("case %zu: code %d: %s", i, e.code, e.msg);
    }
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct str chunk = STR(
        "{\"choices\":[{\"delta\":{\"content\":\"text\",\"reasoning\":\"why\",\"tool_calls\":"
        "[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"x\",\"arguments\":{\"k\":1}}}]}}]}");
    if (!fail_malloc_works()) return;
    for (long i = 0; i < 500; i++) {
        struct chat_reply r = {0};
        struct err e = {0};
        fail_malloc_after(i);
        bool ok = chat_reply_chunk(&r, chunk, &e);
        bool failed = fail_malloc_done();
        fail_malloc_after(-1);
        assert_true(ok || e.msg[0] != '\0');
        if (!failed) assert_true(ok);
        if (ok) { // then nothing of it was lost
            assert_string_equal(buf_cstr(&r.content), "text");
            assert_string_equal(buf_cstr(&r.calls[0].arguments), "{\"k\":1}");
        }
        chat_reply_free(&r);
        if (!failed) return;
    }
    fail_msg("it never ran out of allocations");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_reasoning_and_usage_add_up),
        cmocka_unit_test(tool_calls_are_put_together_by_index),
        cmocka_unit_test(calls_without_an_index_are_told_apart_by_id),
        cmocka_unit_test(progress_is_read_in_both_spellings),
        cmocka_unit_test(bad_chunks_are_errors_that_say_what_came),
        cmocka_unit_test(strange_types_do_no_harm),
        cmocka_unit_test(http_errors_keep_the_servers_words),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
