// nfc.c: examples of Unicode's annex 15, and random strings against utf8proc's own whole-text
// normalisation, which nfc.c does not use.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/nfc.h"

static void check(const char *text, const char *want)
{
    struct nfc_work w = {0};
    struct buf out = {0};
    assert_true(nfc_put(&out, str_from(text), &w));
    if (!str_eq(buf_view(&out), str_from(want))) fail_msg("'%s' became '%s'", text, buf_cstr(&out));
    buf_free(&out);
    nfc_work_free(&w);
}

static void test_annex_15(void **state)
{
    (void)state;
    check("", "");
    check("plain", "plain");
    check("\xe2\x84\xab", "\xc3\x85");                     // angstrom sign -> A with ring
    check("A\xcc\x8a", "\xc3\x85");                        // A + ring above
    check("\xe2\x84\xa6", "\xce\xa9");                     // ohm sign -> omega
    check("\xef\xac\x81", "\xef\xac\x81");                 // the ligature fi is kept
    check("\xe1\xba\x9b\xcc\xa3", "\xe1\xba\x9b\xcc\xa3"); // long s with dot above, dot below
    check("q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87");       // marks in order of class
    check("s\xcc\x87\xcc\xa3", "\xe1\xb9\xa9");            // and composed in that order
    check("\xe0\xa4\x95\xe0\xa4\xbc", "\xe0\xa4\x95\xe0\xa4\xbc"); // excluded from composition
    check("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc");             // and decomposed where composed
    check("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); // Hangul L V T
    check("\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81");             // Hangul LV T
    check("\xcc\x81"
          "e",
          "\xcc\x81"
          "e"); // a mark that follows nothing
}

static uint64_t random_state = 0xd1b54a32d192ed03u;

static uint32_t random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state % n);
}

// From the blocks where composing happens, or anywhere.
static uint32_t random_point(void)
{
    static const uint32_t blocks[][2] = {
        {0x20, 0x7f},     {0xc0, 0x250},    {0x300, 0x370},   {0x1e00, 0x2000}, {0x900, 0xa00},
        {0x1100, 0x1200}, {0xac00, 0xac40}, {0x2100, 0x2130}, {0xf900, 0xfb50}, {0x1d15e, 0x1d1c0},
        {0x20, 0x80},     {0x300, 0x340},   {0x80, 0x110000},
    };
    const uint32_t *block = blocks[random_below(sizeof blocks / sizeof *blocks)];
    return block[0] + random_below(block[1] - block[0]);
}

static void test_random_texts(void **state)
{
    (void)state;
    struct nfc_work w = {0};
    struct buf out = {0};
    for (int round = 0; round < 100000; round++) {
        char text[4 * 16 + 1];
        size_t n = 0;
        for (uint32_t i = 1 + random_below(15); i > 0; i--)
            n += utf8_encode(random_point(), text + n);
        text[n] = '\0';
        utf8proc_uint8_t *want = utf8proc_NFC((const utf8proc_uint8_t *)text);
        assert_non_null(want);
        buf_clear(&out);
        assert_true(nfc_put(&out, (struct str){text, n}, &w));
        if (strcmp(buf_cstr(&out), (const char *)want) != 0)
            fail_msg("round %d: '%s'", round, text);
        free(want);
    }
    buf_free(&out);
    nfc_work_free(&w);
}

// A letter with 200,000 marks out of order: seconds where ordering is quadratic, milliseconds here.
static void test_many_marks_take_no_time(void **state)
{
    (void)state;
    enum { MARKS = 200000 };
    struct nfc_work w = {0};
    struct buf text = {0}, out = {0};
    buf_c(&text, 'q');
    for (int i = 0; i < MARKS / 2; i++) buf_z(&text, "\xcc\x81\xcc\xa3"); // above, below
    clock_t start = clock();
    assert_true(nfc_put(&out, buf_view(&text), &w));
    assert_true(clock() - start < CLOCKS_PER_SEC);
    assert_int_equal(out.n, text.n);
    assert_memory_equal(out.p + 1, "\xcc\xa3\xcc\xa3", 4);
    assert_memory_equal(out.p + out.n - 4, "\xcc\x81\xcc\x81", 4);
    buf_free(&text);
    buf_free(&out);
    nfc_work_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_annex_15),
        cmocka_unit_test(test_random_texts),
        cmocka_unit_test(test_many_marks_take_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
