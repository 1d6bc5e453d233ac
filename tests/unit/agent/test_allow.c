// Words, patterns and refusals of the allow-list. Expected words are what POSIX sh makes of the
// lines.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/allow.h"

static void words_are_split_as_a_shell_splits_them(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words; // joined by |
    } cases[] = {
        {"systemctl is-active nginx", "systemctl|is-active|nginx"},
        {"  a \t b  ", "a|b"},
        {"a 'b c' d", "a|b c|d"},
        {"a \"b 'c'\" d", "a|b 'c'|d"},
        {"a'b'\"c\"d", "abcd"},
        {"a '' b", "a||b"},
        {"a\\ b c", "a b|c"},
        {"a \"x\\\"y\\\\z\\n\"", "a|x\"y\\z\\n"},
        {"grep -c '|&;<>()$`' f", "grep|-c||&;<>()$`|f"},
        {"grep -c \"a|b;c\" f", "grep|-c|a|b;c|f"},
        {"curl -s https://a.example/t?id=1#x", "curl|-s|https://a.example/t?id=1#x"},
        {"ls ~/x *.md", "ls|~/x|*.md"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct words w = {0};
        struct err e = {0};
        struct buf got = {0};
        assert_true(words_split(&w, str_from(cases[i].line), &e));
        for (size_t k = 0; k < w.n; k++) buf_printf(&got, "%s%s", k > 0 ? "|" : "", w.p[k]);
        assert_string_equal(buf_cstr(&got), cases[i].words);
        assert_null(w.p[w.n]);
        words_free(&w);
        buf_free(&got);
    }
}

static void what_needs_a_shell_is_refused_with_its_character(void **state)
{
    (void)state;
    static const struct {
        const char *line, *named;
    } cases[] = {
        {"a | b", "\"|\""},      {"a && b", "\"&\""},      {"a; b", "\";\""},
        {"a > f", "\">\""},      {"a < f", "\"<\""},       {"a `b`", "\"`\""},
        {"a $(b)", "\"$\""},     {"a \"$HOME\"", "\"$\""}, {"a \"`b`\"", "\"`\""},
        {"(a)", "\"(\""},        {"a\nb", "line breaks"},  {"a 'b", "not closed"},
        {"a \"b", "not closed"}, {"a \\", "behind"},       {"   ", "empty"},
        {"", "empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct words w = {0};
        struct err e = {0};
        assert_false(words_split(&w, str_from(cases[i].line), &e));
        assert_non_null(strstr(e.msg, cases[i].named));
        assert_null(w.p);
    }
    struct words w = {0};
    struct err e = {0};
    assert_false(words_split(&w, (struct str){"a\0b", 3}, &e));
    assert_non_null(strstr(e.msg, "NUL"));
}

static void printing_a_command_can_be_split_again(void **state)
{
    (void)state;
    struct words w = {0}, again = {0};
    struct err e = {0};
    struct buf line = {0};
    const char *const texts[] = {"echo", "", "a b", "it's", "x\"y", "$HOME", "a\\b", "*"};
    for (size_t i = 0; i < 8; i++) assert_true(words_put(&w, str_from(texts[i]), &e));
    words_print(&w, &line);
    assert_true(words_split(&again, buf_view(&line), &e));
    assert_int_equal(again.n, 8);
    for (size_t i = 0; i < 8; i++) assert_string_equal(again.p[i], texts[i]);
    words_free(&w);
    words_free(&again);
    buf_free(&line);
}

static void globs_match_within_a_component(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool match;
    } cases[] = {
        {"abc", "abc", true},
        {"abc", "abd", false},
        {"abc", "ab", false},
        {"ab", "abc", false},
        {"", "", true},
        {"*", "", true},
        {"*", "x/y", false},
        {"**", "x/y", true},
        {"a*c", "abbc", true},
        {"a*c", "ab/c", false},
        {"a**c", "ab/c", true},
        {"a?c", "abc", true},
        {"a?c", "a/c", false},
        {"a?c", "ac", false},
        {"\\*", "*", true},
        {"\\*", "x", false},
        {"*.log", "a.b.log", true},
        {"*.log", "a.log.gz", false},
        {"/v/*/x", "/v/a/x", true},
        {"/v/*/x", "/v/a/b/x", false},
        {"/v/**/x", "/v/a/b/x", true},
        {"**/x*y", "a/b/x1/x2y", true},
        {"a*b*c", "a1b2b3c", true},
        {"a*b*c", "a1b2", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (allow_glob(cases[i].pattern, cases[i].text) != cases[i].match)
            fail_msg("pattern \"%s\", text \"%s\"", cases[i].pattern, cases[i].text);
}

// A pattern that takes exponential time in a naive matcher.
static void a_hostile_pattern_ends_soon(void **state)
{
    (void)state;
    char text[2001], pattern[101];
    memset(text, 'a', 2000);
    text[2000] = '\0';
    for (int i = 0; i < 100; i++) pattern[i] = i % 2 == 0 ? '*' : 'a';
    pattern[99] = 'b';
    pattern[100] = '\0';
    assert_false(allow_glob(pattern, text));
}

static bool allowed(const char *rule, const char *command)
{
    struct allow_rule r = {0};
    struct allow_list l = {.rules = &r, .n = 1};
    struct words w = {0};
    struct err e = {0};
    assert_true(words_split(&r.patterns, str_from(rule), &e));
    assert_true(words_split(&w, str_from(command), &e));
    bool yes = allow_find(&l, &w) == 0;
    words_free(&w);
    words_free(&r.patterns);
    return yes;
}

static void rules_match_argument_by_argument(void **state)
{
    (void)state;
    static const struct {
        const char *rule, *command;
        bool yes;
    } cases[] = {
        {"systemctl status *", "systemctl status nginx", true},
        {"systemctl status *", "systemctl status", false},
        {"systemctl status *", "systemctl status a b", false},
        {"systemctl status *", "systemctl stop nginx", false},
        {"systemctl status *", "systemctl status ''", true},
        {"systemctl status *", "systemctl status --now",
         false}, // options only where a rule has them
        {"systemctl status *", "/bin/systemctl status nginx", false},
        {"ls **", "ls", true},
        {"ls **", "ls a b c", true},
        {"ls **", "ls a --color", false},
        {"ls -l **", "ls -l a", true},
        {"tail -n* *", "tail -n5 f", true},
        {"cat /var/log/*", "cat /var/log/syslog", true},
        {"cat /var/log/*", "cat /var/log/a/b", false},
        {"cat /var/log/*", "cat /var/log/..", false},
        {"cat /var/log/**", "cat /var/log/a/b", true},
        {"cat /var/log/**", "cat /var/log/../../etc/shadow", false},
        {"cat /var/log/**", "cat /var/log/a..b", true},
        {"cat *", "cat ../x", true}, // a lone star is any argument: the rule's author chose so
        {"cat *.md", "cat -x.md", false},
        {"curl -s https://*.example/**", "curl -s https://a.example/t/1", true},
        {"curl -s https://*.example/**", "curl -s https://a.example.evil/t", false},
        {"curl -s https://*.example/**", "curl -o f https://a.example/t", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (allowed(cases[i].rule, cases[i].command) != cases[i].yes)
            fail_msg("rule \"%s\", command \"%s\"", cases[i].rule, cases[i].command);
}

static void a_refusal_names_the_rules_of_the_program(void **state)
{
    (void)state;
    struct allow_rule r[2] = {0};
    struct allow_list l = {.rules = r, .n = 2};
    struct words w = {0};
    struct err e = {0};
    words_split(&r[0].patterns, STR("systemctl status *"), &e);
    words_split(&r[1].patterns, STR("uptime"), &e);
    words_split(&w, STR("systemctl stop nginx"), &e);
    assert_false(allow_refuse(&l, &w, &e));
    assert_int_equal(e.code, ERR_DENIED);
    assert_non_null(strstr(e.msg, "systemctl stop nginx"));
    assert_non_null(strstr(e.msg, "systemctl status *"));
    assert_null(strstr(e.msg, "uptime"));
    words_free(&w);
    words_free(&r[0].patterns);
    words_free(&r[1].patterns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_split_as_a_shell_splits_them),
        cmocka_unit_test(what_needs_a_shell_is_refused_with_its_character),
        cmocka_unit_test(printing_a_command_can_be_split_again),
        cmocka_unit_test(globs_match_within_a_component),
        cmocka_unit_test(a_hostile_pattern_ends_soon),
        cmocka_unit_test(rules_match_argument_by_argument),
        cmocka_unit_test(a_refusal_names_the_rules_of_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
