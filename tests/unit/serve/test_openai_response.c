// Writers of OpenAI JSON: always valid JSON, numbers that JSON can hold, shapes as the API reference
// has them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "serve/openai_response.h"
#include "text/value.h"

static struct arena arena;

static struct value parse(struct buf *b)
{
    struct value v = {0};
    struct err e = {0};
    struct str text = arena_str(&arena, buf_view(b));
    if (!value_parse(&v, &arena, text, &e)) fail_msg("%s in %s", e.msg, buf_cstr(b));
    buf_free(b);
    return v;
}

static struct value in_braces(struct buf *b)
{
    struct buf whole = {0};
    buf_c(&whole, '{');
    buf_str(&whole, buf_view(b));
    buf_c(&whole, '}');
    buf_free(b);
    return parse(&whole);
}

static double number(struct value v)
{
    return v.kind == VALUE_INT ? (double)v.i : v.f;
}

static void errors_have_openai_shape(void **state)
{
    (void)state;
    struct err e = {0};
    struct buf b = {0};
    err_set(&e, ERR_TOO_LONG, "say \"no\"\n\xff end");
    response_error(&b, &e, 50000, 40960);
    struct value error = value_get(parse(&b), "error");
    assert_true(str_eq(value_get(error, "message").s, STR("say \"no\"\n\xef\xbf\xbd end")));
    assert_true(str_eq(value_get(error, "type").s, STR("exceed_context_size_error")));
    assert_int_equal(value_get(error, "param").kind, VALUE_NULL);
    assert_int_equal(value_get(error, "code").i, 400);
    assert_int_equal(value_get(error, "n_prompt_tokens").i, 50000);
    assert_int_equal(value_get(error, "n_ctx").i, 40960);
}

static void an_error_names_its_field(void **state)
{
    (void)state;
    static const struct {
        enum err_code code;
        const char *msg, *field; // NULL: none
    } cases[] = {
        {ERR_INPUT, "\"top_k\" must be a whole number, not string", "top_k"},
        {ERR_UNSUPPORTED, "\"n\" above 1 is not supported yet", "n"},
        {ERR_INPUT, "messages[2].content[0].text must be a string", "messages[2].content[0].text"},
        {ERR_INPUT, "tools[0] must be an object, not number", "tools[0]"},
        {ERR_INPUT, "the body is not valid JSON", NULL},
        {ERR_INPUT, "\"no end", NULL},
        {ERR_INPUT, "", NULL},
        {ERR_NOT_FOUND, "\"x\" is not here", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = {0};
        struct buf b = {0};
        err_set(&e, cases[i].code, "%s", cases[i].msg);
        response_error(&b, &e, 0, 0);
        struct value param = value_get(value_get(parse(&b), "error"), "param");
        if (cases[i].field == NULL)
            assert_int_equal(param.kind, VALUE_NULL);
        else
            assert_true(param.kind == VALUE_STRING && str_eq(param.s, str_from(cases[i].field)));
    }
}

static void numbers_are_finite(void **state)
{
    (void)state;
    const double inf = (double)INFINITY, nan = (double)NAN;
    const double values[] = {0, -0.25, 1e-9, inf, -inf, nan, 123456789};
    const double wanted[] = {0, -0.25, 1e-9, 9999, -9999, -9999, 123457000};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct buf b = {0};
        response_number(&b, values[i]);
        assert_float_equal(number(parse(&b)), wanted[i], 1e-12);
    }
}

static void heads_name_their_object(void **state)
{
    (void)state;
    static const struct {
        bool chat, chunk;
        const char *object;
    } cases[] = {{true, false, "chat.completion"},
                 {true, true, "chat.completion.chunk"},
                 {false, false, "text_completion"},
                 {false, true, "text_completion"}};
    for (size_t i = 0; i < 4; i++) {
        struct buf b = {0};
        const struct response_head h = {
            .id = "x-1", .chat = cases[i].chat, .created_unix = 1700000000, .model = STR("a\"b")};
        response_open(&b, &h, cases[i].chunk);
        buf_c(&b, '}');
        struct value v = parse(&b);
        assert_true(str_eq(value_get(v, "object").s, str_from(cases[i].object)));
        assert_true(str_eq(value_get(v, "id").s, STR("x-1")));
        assert_true(str_eq(value_get(v, "model").s, STR("a\"b")));
        assert_int_equal(value_get(v, "created").i, 1700000000);
        assert_int_equal(value_get(v, "system_fingerprint").kind, VALUE_STRING);
    }
}

static void usage_adds_up(void **state)
{
    (void)state;
    const struct stream_status st = {.n_prompt = 1000, .n_cached = 960, .n_generated = 30};
    struct buf b = {0};
    response_usage(&b, &st, 12, true);
    struct value u = value_get(in_braces(&b), "usage");
    assert_int_equal(value_get(u, "total_tokens").i, 1030);
    assert_int_equal(value_get(value_get(u, "prompt_tokens_details"), "cached_tokens").i, 960);
    assert_int_equal(value_get(value_get(u, "completion_tokens_details"), "reasoning_tokens").i,
                     12);
}

static void timings_divide_by_nothing(void **state)
{
    (void)state;
    const struct stream_status zero = {0};
    const struct stream_status st = {.n_prompt = 300,
                                     .n_cached = 100,
                                     .n_generated = 50,
                                     .prefill_ms = 400,
                                     .generate_ms = 2000,
                                     .ttft_ms = 410};
    const struct response_times times = {.queue_in_ms = 2};
    struct buf b = {0};
    response_timings(&b, &zero, &times);
    struct value t = value_get(in_braces(&b), "timings");
    assert_float_equal(number(value_get(t, "prompt_per_second")), 0, 0);
    assert_float_equal(number(value_get(t, "predicted_per_token_ms")), 0, 0);
    response_timings(&b, &st, &times);
    t = value_get(in_braces(&b), "timings");
    assert_int_equal(value_get(t, "cache_n").i, 100);
    assert_int_equal(value_get(t, "prompt_n").i, 200);
    assert_float_equal(number(value_get(t, "prompt_per_second")), 500, 1e-6);   // 200 in 0.4 s
    assert_float_equal(number(value_get(t, "predicted_per_second")), 25, 1e-6); // 50 in 2 s
    assert_float_equal(number(value_get(t, "predicted_per_token_ms")), 40, 1e-6);
    assert_float_equal(number(value_get(t, "ttft_ms")), 412, 1e-6);
}

static void progress_may_not_know_the_end(void **state)
{
    (void)state;
    struct stream_status st = {
        .n_prompt = 10, .n_cached = 2, .n_processed = 5, .total_ms = 1234, .eta_ms = -1};
    struct buf b = {0};
    response_progress(&b, &st);
    struct value p = value_get(in_braces(&b), "prompt_progress");
    assert_int_equal(value_get(p, "total").i, 10);
    assert_int_equal(value_get(p, "cached").i, 2);
    assert_int_equal(value_get(p, "processed").i, 5);
    assert_int_equal(value_get(p, "time_ms").i, 1234);
    assert_int_equal(value_get(p, "eta_ms").kind, VALUE_NULL);
    st.eta_ms = 700;
    response_progress(&b, &st);
    assert_int_equal(value_get(value_get(in_braces(&b), "prompt_progress"), "eta_ms").i, 700);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_have_openai_shape),
        cmocka_unit_test(an_error_names_its_field),
        cmocka_unit_test(numbers_are_finite),
        cmocka_unit_test(heads_name_their_object),
        cmocka_unit_test(usage_adds_up),
        cmocka_unit_test(timings_divide_by_nothing),
        cmocka_unit_test(progress_may_not_know_the_end),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(&arena);
    return rc;
}
