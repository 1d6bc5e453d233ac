// The JSON parser and printer. Expected texts are what CPython 3's json.loads and json.dumps give.
#include "text/value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// clang-format off
static const char *const round_trips[][2] = {
    {"null",
     "null"},
    {"true",
     "true"},
    {" false ",
     "false"},
    {"0",
     "0"},
    {"-0",
     "0"},
    {"-12",
     "-12"},
    {"9223372036854775807",
     "9223372036854775807"},
    {"-9223372036854775808",
     "-9223372036854775808"},
    {"9223372036854775808",
     "9223372036854775808"},
    {"-9223372036854775809",
     "-9223372036854775809"},
    {"123456789012345678901234567890",
     "123456789012345678901234567890"},
    {"1.0",
     "1.0"},
    {"-0.0",
     "-0.0"},
    {"1e5",
     "100000.0"},
    {"1E+2",
     "100.0"},
    {"2.5e-3",
     "0.0025"},
    {"1e16",
     "1e+16"},
    {"1e15",
     "1000000000000000.0"},
    {"123456789012345680.0",
     "1.2345678901234568e+17"},
    {"0.0001",
     "0.0001"},
    {"0.00001",
     "1e-05"},
    {"1e400",
     "Infinity"},
    {"-1e400",
     "-Infinity"},
    {"5e-324",
     "5e-324"},
    {"1.7976931348623157e308",
     "1.7976931348623157e+308"},
    {"0.1",
     "0.1"},
    {"0.30000000000000004",
     "0.30000000000000004"},
    {"2.2250738585072014e-308",
     "2.2250738585072014e-308"},
    {"100.0",
     "100.0"},
    {"1234567.891",
     "1234567.891"},
    {"9007199254740993.0",
     "9007199254740992.0"},
    {"6.0221e23",
     "6.0221e+23"},
    {"\"a\"",
     "\"a\""},
    {"\"\"",
     "\"\""},
    {"\"\\u00e9\\n\\t\\b\\f\\r\\/\\\"\\\\\\u0001\\u007f\"",
     "\"\303\251\\n\\t\\b\\f\\r/\\\"\\\\\\u0001\177\""},
    {"\"\\ud83d\\ude00 \303\251 \360\237\230\200\"",
     "\"\360\237\230\200 \303\251 \360\237\230\200\""},
    {"[]",
     "[]"},
    {"{}",
     "{}"},
    {"[1, 2,3]",
     "[1, 2, 3]"},
    {"{\"b\":1,\"a\":[{\"c\":null}],\"b\":2}",
     "{\"b\": 2, \"a\": [{\"c\": null}]}"},
    {"[[[]],{}]",
     "[[[]], {}]"},
    {"{\"k\":\"v\",\"x\":{\"y\":[1.50,\"z\"]}}",
     "{\"k\": \"v\", \"x\": {\"y\": [1.5, \"z\"]}}"},
    {"[1.0,10,1e2,true]",
     "[1.0, 10, 100.0, true]"},
    {"{\"\":\"\"}",
     "{\"\": \"\"}"},
    {"\"\\u0000\"",
     "\"\\u0000\""},
    {"{\"k0\":0,\"k1\":1,\"k2\":2,\"k3\":3,\"k4\":4,\"k5\":5,\"k6\":6,\"k7\":7,\"k8\":8,\"k9\":9,\"k10\":10,\"k11\":11,\"k12\":12,\"k13\":13,\"k14\":14,\"k15\":15,\"k16\":16,\"k17\":17,\"k18\":18,\"k19\":19,\"k0\":20,\"k1\":21,\"k2\":22,\"k3\":23,\"k4\":24,\"k5\":25,\"k6\":26,\"k7\":27,\"k8\":28,\"k9\":29,\"k10\":30,\"k11\":31,\"k12\":32,\"k13\":33,\"k14\":34,\"k15\":35,\"k16\":36,\"k17\":37,\"k18\":38,\"k19\":39,\"k0\":40,\"k1\":41,\"k2\":42,\"k3\":43,\"k4\":44,\"k5\":45,\"k6\":46,\"k7\":47,\"k8\":48,\"k9\":49}",
     "{\"k0\": 40, \"k1\": 41, \"k2\": 42, \"k3\": 43, \"k4\": 44, \"k5\": 45, \"k6\": 46, \"k7\": 47, \"k8\": 48, \"k9\": 49, \"k10\": 30, \"k11\": 31, \"k12\": 32, \"k13\": 33, \"k14\": 34, \"k15\": 35, \"k16\": 36, \"k17\": 37, \"k18\": 38, \"k19\": 39}"},
};
// clang-format on

static void test_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof round_trips / sizeof *round_trips; i++) {
        struct arena a = {0};
        struct err e = {0};
        struct value v;
        struct buf out = {0};
        if (!value_parse(&v, &a, str_from(round_trips[i][0]), &e)) fail_msg("%s", e.msg);
        value_dump(&out, v, -1);
        assert_string_equal(buf_cstr(&out), round_trips[i][1]);
        buf_free(&out);
        arena_free(&a);
    }
}

static void test_dump_styles(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buf out = {0};
    struct value v;
    assert_true(value_parse(&v, &a,
                            STR("{\"b\":[1,{\"x\":\"\xc3\xa9\xf0\x9f\x98\x80\"}],\"a\":{},"
                                "\"c\":[]}"),
                            NULL));
    value_dump(&out, v, 2);
    assert_string_equal(buf_cstr(&out), "{\n  \"b\": [\n    1,\n    {\n      \"x\": "
                                        "\"\xc3\xa9\xf0\x9f\x98\x80\"\n    }\n  ],\n  "
                                        "\"a\": {},\n  \"c\": []\n}");
    buf_clear(&out);
    struct value_dump_style style = {.indent = -1, .ensure_ascii = true, .sort_keys = true};
    assert_true(value_dump_with(&out, v, &style));
    assert_string_equal(buf_cstr(&out), "{\"a\": {}, \"b\": [1, {\"x\": "
                                        "\"\\u00e9\\ud83d\\ude00\"}], \"c\": []}");
    buf_clear(&out);
    style = (struct value_dump_style){
        .indent = -1, .item_separator = STR(","), .key_separator = STR(":")};
    assert_true(value_dump_with(&out, v, &style));
    assert_string_equal(buf_cstr(&out), "{\"b\":[1,{\"x\":\"\xc3\xa9\xf0\x9f\x98\x80\"}],"
                                        "\"a\":{},\"c\":[]}");
    buf_free(&out);
    arena_free(&a);
}

// RFC 8259 forbids each of these; the message must point at the place (line and column by hand).
static const struct {
    const char *text, *message;
} bad[] = {
    {"", "line 1 column 1: expected a value, found the end"},
    {"{\"a\": 1 \"b\"}", "line 1 column 9: expected ',' or '}'"},
    {"{\n \"a\": \"\xc3\xa9\" x}", "line 2 column 11: expected ',' or '}'"},
    {"[1,]", "line 1 column 4: expected a value"},
    {"[1 2]", "line 1 column 4: expected ',' or ']'"},
    {"{\"a\"}", "line 1 column 5: expected ':'"},
    {"{a: 1}", "line 1 column 2: expected a key in double quotes"},
    {"{\"a\": 1,}", "line 1 column 9: expected a key in double quotes"},
    {"01", "line 1 column 1: a number must not begin with 0"},
    {"-", "line 1 column 2: expected a digit"},
    {"1.", "line 1 column 3: expected a digit behind the point"},
    {".5", "line 1 column 1: expected a value"},
    {"1e", "line 1 column 3: expected a digit in the exponent"},
    {"+1", "line 1 column 1: expected a value"},
    {"NaN", "line 1 column 1: expected a value"},
    {"'a'", "line 1 column 1: expected a value"},
    {"1 2", "line 1 column 3: nothing may follow the JSON value"},
    {"\"a", "line 1 column 1: this string has no end"},
    {"\"a\nb\"", "line 1 column 3: control character in a string: write it as \\u00XX"},
    {"\"\\u12g4\"", "line 1 column 2: \\u needs four hexadecimal digits"},
    {"\"\\u12", "line 1 column 2: \\u needs four hexadecimal digits"},
    {"\"\xff\"", "line 1 column 2: this is not valid UTF-8"},
    {"\"\xed\xa0\x80\"", "line 1 column 2: this is not valid UTF-8"},
    {"\xef\xbb\xbf{}", "line 1 column 1: expected a value"},
};

static void test_errors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct arena a = {0};
        struct err e = {0};
        struct value v = value_int(7);
        assert_false(value_parse(&v, &a, str_from(bad[i].text), &e));
        assert_int_equal(e.code, ERR_INPUT);
        assert_string_equal(e.msg, bad[i].message);
        assert_int_equal(v.i, 7);
        arena_free(&a);
    }
    struct err e = {0};
    struct arena a = {0};
    struct value v;
    assert_false(value_parse(&v, &a, STR("\"\\q\""), &e));
    assert_non_null(strstr(e.msg, "line 1 column 2: unknown escape"));
    arena_free(&a);
}

static void test_depth(void **state)
{
    (void)state;
    char text[400];
    struct arena a = {0};
    struct err e = {0};
    struct value v;
    memset(text, '[', 128);
    memset(text + 128, ']', 128);
    assert_true(value_parse(&v, &a, (struct str){text, 256}, &e));
    memset(text, '[', 129);
    memset(text + 129, ']', 129);
    assert_false(value_parse(&v, &a, (struct str){text, 258}, &e));
    assert_string_equal(e.msg, "line 1 column 129: nested deeper than 128 levels");
    arena_free(&a);
}

static void test_details(void **state)
{
    (void)state;
    static const char text[] = "[\"plain\", \"\\ud800x\", \"\\udc00\\ud800\", \"\\u0000\"]";
    struct arena a = {0};
    struct value v;
    assert_true(value_parse(&v, &a, str_from(text), NULL));
    assert_ptr_equal(v.list->items[0].s.p, text + 2); // a view, not a copy
    assert_true(str_eq(v.list->items[1].s, STR("\xef\xbf\xbdx")));
    assert_true(str_eq(v.list->items[2].s, STR("\xef\xbf\xbd\xef\xbf\xbd")));
    assert_true(str_eq(v.list->items[3].s, STR("\0")));
    assert_int_equal(value_get(v, "x").kind, VALUE_UNDEFINED);
    arena_free(&a);
}

static void test_truth(void **state)
{
    (void)state;
    static const char *const truthy[] = {
        "true", "1", "-1", "0.1", "1e400", "\"0\"", "[0]", "{\"a\":0}", "99999999999999999999"};
    static const char *const falsy[] = {"false", "0", "0.0", "-0.0", "\"\"", "[]", "{}", "null"};
    struct arena a = {0};
    struct value v;
    for (size_t i = 0; i < sizeof truthy / sizeof *truthy; i++) {
        assert_true(value_parse(&v, &a, str_from(truthy[i]), NULL));
        assert_true(value_is_true(v));
    }
    for (size_t i = 0; i < sizeof falsy / sizeof *falsy; i++) {
        assert_true(value_parse(&v, &a, str_from(falsy[i]), NULL));
        assert_false(value_is_true(v));
    }
    arena_free(&a);
}

// Every limit from nothing to enough: false with ERR_MEMORY, or the right value.
static void test_memory(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":[1,2,3,4,5,6],\"b\\n\":{\"c\":\"x\\ty\"},\"d\":1.5}";
    size_t refused = 0;
    for (size_t limit = 1; limit < 12000; limit += 100) {
        struct arena a = {.limit_bytes = limit};
        struct err e = {0};
        struct value v = {0};
        if (value_parse(&v, &a, str_from(text), &e)) {
            assert_int_equal(v.dict->n, 3);
        } else {
            assert_int_equal(e.code, ERR_MEMORY);
            refused++;
        }
        assert_true(a.used_bytes <= limit);
        arena_free(&a);
    }
    assert_in_range(refused, 1, 119);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_dump_styles),
        cmocka_unit_test(test_errors),     cmocka_unit_test(test_depth),
        cmocka_unit_test(test_details),    cmocka_unit_test(test_truth),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
