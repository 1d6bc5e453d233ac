// stop.c: whole characters and stop strings. The property test compares with a search over the
// whole text, byte by byte.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "text/stop.h"

// Feeds text in pieces of the given lengths (the last one repeats); returns what came out.
static struct str run(struct stop *s, const char *text, const size_t *lengths, size_t n_lengths,
                      struct buf *out)
{
    struct str rest = str_from(text);
    for (size_t i = 0; rest.n > 0; i++) {
        size_t n = lengths[i < n_lengths ? i : n_lengths - 1];
        if (stop_feed(s, str_sub(rest, 0, n), out)) break;
        assert_true(utf8_valid(buf_view(out)));
        rest = str_sub(rest, n, SIZE_MAX);
    }
    stop_finish(s, out);
    return buf_view(out);
}

static void check(const char *text, const char *const *stops, size_t n_stops, const char *want,
                  bool want_hit)
{
    struct str strings[4];
    for (size_t i = 0; i < n_stops; i++) strings[i] = str_from(stops[i]);
    for (size_t len = 1; len <= strlen(text) + 1; len++) {
        struct stop s = {.strings = strings, .n_strings = n_stops};
        struct buf out = {0};
        struct str got = run(&s, text, &len, 1, &out);
        if (!str_eq(got, str_from(want)) || s.hit != want_hit)
            fail_msg("'%s' in pieces of %zu: '%.*s' hit %d, expected '%s'", text, len, (int)got.n,
                     got.p, s.hit, want);
        buf_free(&out);
        stop_free(&s);
    }
}

static void test_one_stop(void **state)
{
    (void)state;
    const char *stop[] = {"STOP"};
    check("", stop, 1, "", false);
    check("no such thing", stop, 1, "no such thing", false);
    check("before STOP after", stop, 1, "before ", true);
    check("STOP", stop, 1, "", true);
    check("SSTSTOSTOP.", stop, 1, "SSTSTO", true);
    check("ends in STO", stop, 1, "ends in STO", false);
    check("text", NULL, 0, "text", false);
}

static void test_several_stops(void **state)
{
    (void)state;
    const char *stops[] = {"abcde", "cd", ""};
    check("xabcde", stops, 3, "xab", true); // "cd" is complete before "abcde"
    check("xabce", stops, 3, "xabce", false);
    const char *nested[] = {"b", "ab"}; // both end at once: the longer one counts
    check("xab", nested, 2, "x", true);
    const char *lines[] = {"\n\n", "User:"};
    check("hello\nUser: x", lines, 2, "hello\n", true);
    check("hello\n\nUser: x", lines, 2, "hello", true);
}

static void test_overlapping_starts(void **state)
{
    (void)state;
    const char *stop[] = {"aab"};
    check("aaab", stop, 1, "a", true);
    check("aaaaaaac", stop, 1, "aaaaaaac", false);
    const char *tags[] = {"</tool_call>", "</think>"};
    check("x</</t</th</think>y", tags, 2, "x</</t</th", true);
}

static void test_characters_are_whole(void **state)
{
    (void)state;
    const char *stop[] = {"\xe2\x82\xac"}; // the euro sign
    check("5 \xe2\x82\xac", stop, 1, "5 ", true);
    check("\xf0\x9f\x98\x80 \xe2\x82\xad", stop, 1, "\xf0\x9f\x98\x80 \xe2\x82\xad", false);
}

static void test_holds_partial_character(void **state)
{
    (void)state;
    struct stop s = {0};
    struct buf out = {0};
    assert_false(stop_feed(&s, STR("a\xf0\x9f"), &out));
    assert_true(str_eq(buf_view(&out), STR("a")));
    assert_false(stop_feed(&s, STR("\x98"), &out));
    assert_true(str_eq(buf_view(&out), STR("a")));
    assert_false(stop_feed(&s, STR("\x80"), &out));
    assert_true(str_eq(buf_view(&out), STR("a\xf0\x9f\x98\x80")));
    buf_free(&out);
    stop_free(&s);
}

// Bytes that never become a character: one U+FFFD for a cut one, one for any other byte (the counts
// that Python's bytes.decode("utf-8", "replace") gives).
static void test_broken_bytes(void **state)
{
    (void)state;
    check("a\xf0\x9f\x98", NULL, 0, "a\xef\xbf\xbd", false);
    check("a\xf0\x9f\x98z", NULL, 0, "a\xef\xbf\xbdz", false);
    check("\x80\x80", NULL, 0, "\xef\xbf\xbd\xef\xbf\xbd", false);
    check("\xe2\x28\xa1", NULL, 0, "\xef\xbf\xbd(\xef\xbf\xbd", false);
    check("\xed\xa0\x80", NULL, 0, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", false);
    const char *stop[] = {"\xef\xbf\xbd"}; // even where the replacement itself is a stop string
    check("ab\xff"
          "c",
          stop, 1, "ab", true);
}

static uint64_t random_state = 0x2545f4914f6cdd1du;

static size_t random_below(size_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)(random_state % n);
}

// Over an alphabet of three, so that overlaps are common.
static struct str random_text(char *room, size_t n)
{
    static const char *const letters[] = {"a", "b", "\xc3\xa9"};
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        struct str letter = str_from(letters[random_below(3)]);
        memcpy(room + at, letter.p, letter.n);
        at += letter.n;
    }
    return (struct str){room, at};
}

// The text before the stop string that is complete first, found by growing the text byte by byte.
static size_t expected_end(struct str text, const struct str *stops, size_t n_stops)
{
    for (size_t n = 1; n <= text.n; n++) {
        size_t longest = 0;
        for (size_t i = 0; i < n_stops; i++)
            if (str_ends(str_sub(text, 0, n), stops[i]) && stops[i].n > longest)
                longest = stops[i].n;
        if (longest > 0) return n - longest;
    }
    return text.n;
}

static void test_property(void **state)
{
    (void)state;
    for (int round = 0; round < 20000; round++) {
        char room[64], stop_room[3][16];
        struct str text = random_text(room, random_below(24));
        struct str stops[3];
        size_t n_stops = random_below(4);
        for (size_t i = 0; i < n_stops; i++)
            stops[i] = random_text(stop_room[i], 1 + random_below(6));
        struct stop s = {.strings = stops, .n_strings = n_stops};
        struct buf out = {0};
        bool hit = false;
        for (size_t at = 0; at < text.n && !hit;) {
            size_t n = 1 + random_below(5);
            hit = stop_feed(&s, str_sub(text, at, n), &out);
            at += n;
        }
        stop_finish(&s, &out);
        size_t end = expected_end(text, stops, n_stops);
        assert_true(str_eq(buf_view(&out), str_sub(text, 0, end)));
        assert_int_equal(hit, end < text.n);
        for (size_t i = 0; i < n_stops; i++)
            assert_true(str_find(buf_view(&out), stops[i], 0) == SIZE_MAX);
        buf_free(&out);
        stop_free(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_stop),
        cmocka_unit_test(test_several_stops),
        cmocka_unit_test(test_overlapping_starts),
        cmocka_unit_test(test_characters_are_whole),
        cmocka_unit_test(test_holds_partial_character),
        cmocka_unit_test(test_broken_bytes),
        cmocka_unit_test(test_property),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
