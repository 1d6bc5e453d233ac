// Events from pieces. The cases are those of the WHATWG text, section 9.2.6, and the forms servers
// send.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/sse_reader.h"

static bool join(void *arg, struct str data)
{
    struct buf *b = arg;
    buf_str(b, data);
    buf_c(b, '|');
    return !str_eq(data, STR("stop"));
}

static const struct {
    const char *stream, *events;
} cases[] = {
    {"data: a\n\ndata: b\n\n", "a|b|"},
    {"data:a\n\ndata:  b\n\n", "a| b|"},
    {"data: a\r\n\r\ndata: b\r\n\r\n", "a|b|"},
    {"data: a\r\rdata: b\r\r", "a|b|"},
    {"data: a\ndata: b\n\n", "a\nb|"},
    {": comment\n\ndata: a\n\n", "a|"},
    {"event: x\nid: 1\nretry: 5\ndata: a\n\n", "a|"},
    {"data\n\n", "|"},
    {"database: x\n\ndata: a\n\n", "a|"},
    {"\n\n\ndata: a\n\n", "a|"},
    {"data: never ended\n", ""},
    {"data: {\"x\":\"\xc3\xa9\xf0\x9f\x98\x80\"}\n\n", "{\"x\":\"\xc3\xa9\xf0\x9f\x98\x80\"}|"},
};

// Every stream is cut at every byte, and also fed byte by byte.
static void events_do_not_depend_on_the_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = strlen(cases[i].stream);
        for (size_t cut = 0; cut <= n + 1; cut++) {
            struct sse_reader r = {0};
            struct buf got = {0};
            if (cut <= n) {
                assert_true(sse_feed(&r, (struct str){cases[i].stream, cut}, join, &got));
                assert_true(sse_feed(&r, (struct str){cases[i].stream + cut, n - cut}, join, &got));
            } else {
                for (size_t k = 0; k < n; k++)
                    assert_true(sse_feed(&r, (struct str){cases[i].stream + k, 1}, join, &got));
            }
            assert_string_equal(buf_cstr(&got), cases[i].events);
            buf_free(&got);
            sse_free(&r);
        }
    }
}

static void the_sink_can_stop_it(void **state)
{
    (void)state;
    struct sse_reader r = {0};
    struct buf got = {0};
    assert_false(sse_feed(&r, STR("data: a\n\ndata: stop\n\ndata: b\n\n"), join, &got));
    assert_string_equal(buf_cstr(&got), "a|stop|");
    assert_false(r.too_long);
    buf_free(&got);
    sse_free(&r);
}

static void an_event_has_a_bound(void **state)
{
    (void)state;
    struct sse_reader r = {.limit_bytes = 100};
    struct buf got = {0};
    bool go_on = true;
    for (int i = 0; go_on && i < 50; i++) go_on = sse_feed(&r, STR("data: 0123\n"), join, &got);
    assert_false(go_on);
    assert_true(r.too_long);
    assert_int_equal(got.n, 0);
    sse_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_do_not_depend_on_the_pieces),
        cmocka_unit_test(the_sink_can_stop_it),
        cmocka_unit_test(an_event_has_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
