// base/str: search, trimming, the growing buffer and JSON strings.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"

static void find_reports_first_and_last(void **state)
{
    (void)state;
    assert_int_equal(str_find(STR("abcabc"), STR("bc"), 0), 1);
    assert_int_equal(str_find(STR("abcabc"), STR("bc"), 2), 4);
    assert_int_equal(str_rfind(STR("abcabc"), STR("bc")), 4);
    assert_true(str_find(STR("abc"), STR("x"), 0) == SIZE_MAX);
    assert_true(str_find(STR("abc"), STR("abcd"), 0) == SIZE_MAX);
    assert_int_equal(str_find(STR("abc"), STR(""), 3), 3);
    assert_true(str_find(STR("abc"), STR(""), 4) == SIZE_MAX);
    assert_true(str_rfind(STR(""), STR("a")) == SIZE_MAX);
}

static void sub_and_trim_clamp(void **state)
{
    (void)state;
    assert_true(str_eq(str_sub(STR("hello"), 3, 100), STR("lo")));
    assert_true(str_eq(str_sub(STR("hello"), 100, 1), STR("")));
    assert_true(str_eq(str_trim(STR(" \t\n a b \r\n")), STR("a b")));
    assert_true(str_eq(str_trim(STR(" \n ")), STR("")));
    assert_true(str_ends(STR("abc"), STR("bc")) && !str_ends(STR("c"), STR("bc")));
    assert_true(str_cmp(STR("a"), STR("ab")) < 0 && str_cmp(STR("b"), STR("ab")) > 0);
}

static void buffer_grows_and_keeps_content(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 1000; i++) buf_printf(&b, "%d,", i);
    assert_false(b.failed);
    assert_int_equal(b.n, 10 * 2 + 90 * 3 + 900 * 4);
    assert_memory_equal(b.p + b.n - 8, "998,999,", 8);
    assert_string_equal(buf_cstr(&b) + b.n - 4, "999,");
    buf_free(&b);
    assert_null(b.p);
}

static void counts_are_in_groups_of_three(void **state)
{
    (void)state;
    struct buf b = {0};
    const uint64_t numbers[] = {0, 999, 1000, 12404, 1000007, UINT64_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        buf_count(&b, numbers[i]);
        buf_c(&b, ' ');
    }
    assert_string_equal(buf_cstr(&b), "0 999 1,000 12,404 1,000,007 18,446,744,073,709,551,615 ");
    buf_free(&b);
}

static void json_strings_are_valid_json(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_json(&b, STR("a\"\\\n\x01\x7f\xc3\xa9\xff\xe2\x82z"));
    assert_string_equal(buf_cstr(&b), "\"a\\\"\\\\\\n\\u0001\\u007f\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd"
                                      "\xef\xbf\xbdz\"");
    buf_clear(&b);
    buf_json(&b, (struct str){"a\0b", 3});
    assert_string_equal(buf_cstr(&b), "\"a\\u0000b\"");
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(find_reports_first_and_last),
        cmocka_unit_test(sub_and_trim_clamp),
        cmocka_unit_test(buffer_grows_and_keeps_content),
        cmocka_unit_test(counts_are_in_groups_of_three),
        cmocka_unit_test(json_strings_are_valid_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
