// base/utf8 against RFC 3629 section 4: every code point round trips, every malformed class is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"

static void all_scalar_values_round_trip(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        char s[4];
        size_t n = utf8_encode(cp, s);
        if (cp >= 0xd800 && cp <= 0xdfff) {
            assert_int_equal(n, 0);
            continue;
        }
        uint32_t back = 0;
        assert_int_equal(n, cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4);
        assert_int_equal(utf8_decode(s, n, &back), n);
        assert_int_equal(back, cp);
        assert_int_equal(utf8_valid_len(s, n - 1), 0);
    }
    char s[4];
    assert_int_equal(utf8_encode(0x110000, s), 0);
}

static void malformed_sequences_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xc3(",
                                      "\xe2\x82(",
                                      "\xf0\x9f\x98("};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(utf8_valid_len(bad[i], strlen(bad[i])), 0);
        assert_false(utf8_valid(str_from(bad[i])));
    }
    assert_true(utf8_valid(STR("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")));
}

static void partial_tails_are_counted(void **state)
{
    (void)state;
    assert_int_equal(utf8_partial_tail(STR("abc")), 0);
    assert_int_equal(utf8_partial_tail(STR("a\xc3")), 1);
    assert_int_equal(utf8_partial_tail(STR("a\xe2\x82")), 2);
    assert_int_equal(utf8_partial_tail(STR("a\xf0\x9f\x98")), 3);
    assert_int_equal(utf8_partial_tail(STR("\xf0\x9f\x98\x80")), 0);
    assert_int_equal(utf8_partial_tail(STR("a\x80")), 0);    // a stray continuation is no start
    assert_int_equal(utf8_partial_tail(STR("\xe0\x80")), 0); // cannot be completed any more
    assert_int_equal(utf8_partial_tail(STR("")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_scalar_values_round_trip),
        cmocka_unit_test(malformed_sequences_are_refused),
        cmocka_unit_test(partial_tails_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
