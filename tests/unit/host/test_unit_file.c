// host/unit_file: systemd's syntax, after the examples of systemd.syntax(7) and systemd.service(5).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "host/unit_file.h"

static bool command(const struct unit_file *u, struct cmdline *out, struct err *e)
{
    struct unit_env env = {.arena = out->arena};
    struct unit_scope scope = {.env = &env};
    unit_scope_names(&scope, "llama@a\\x2db-c.service", false, "/home/me", "/run/user/1",
                     out->arena);
    return unit_env_read(&env, u, &scope, e) &&
           unit_command(unit_value(u, "Service", "ExecStart"), &scope, out, e);
}

static void check_words(const char *unit, const char *const *want, size_t n)
{
    struct arena a = {0};
    struct cmdline words = {.arena = &a};
    struct unit_file u;
    struct err e = {0};
    assert_true(unit_parse(&u, str_from(unit), &a, &e));
    assert_true(command(&u, &words, &e));
    assert_int_equal(words.n, n);
    for (size_t i = 0; i < n; i++) assert_string_equal(words.v[i], want[i]);
    arena_free(&a);
}
#define WORDS(unit, ...)                                                  \
    check_words("[Service]\n" unit, ((const char *const[]){__VA_ARGS__}), \
                sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static void command_lines(void **state)
{
    (void)state;
    WORDS("ExecStart=/bin/echo one \"two two\" 'three \"3\"'", "/bin/echo", "one", "two two",
          "three \"3\"");
    WORDS("ExecStart=-/bin/a \\\n  --b \\\n# a comment between\n  c", "/bin/a", "--b", "c");
    WORDS("ExecStart=/old\nExecStart=\nExecStart=@/new x", "/new", "x");
    WORDS("ExecStart=/bin/a %h/x %t %% a\\x20b \\\"q", "/bin/a", "/home/me/x", "/run/user/1", "%",
          "a b", "\"q");
    WORDS("Environment=\"A=one two\" B=3\nExecStart=/bin/a ${A} $B $$C", "/bin/a", "one two", "3",
          "$C");
    WORDS("ExecStart=/bin/a b ; /bin/c d", "/bin/a", "b");
    // $NAME alone is as many words as its value, ${NAME} one, and inside a word only the latter counts
    WORDS("Environment=\"A=one 'two three'\"\nExecStart=/bin/a $A ${A} x$A x${A} $NONE ${NONE}",
          "/bin/a", "one", "two three", "one 'two three'", "x$A", "xone 'two three'", "");
    WORDS("Environment=A=1\nEnvironment=\nEnvironment=B=%h\nExecStart=/bin/a $A ${B}", "/bin/a",
          "/home/me");
    WORDS("ExecStart=/bin/a %n %N %p %i %I", "/bin/a", "llama@a\\x2db-c.service", "llama@a\\x2db-c",
          "llama", "a\\x2db-c", "a-b/c");
}

static void what_is_quoted_comes_back(void **state)
{
    (void)state;
    static const char *const words[] = {
        "plain",     "with space", "100%", "$HOME",      "a\"b'c\\d", "tab\there",
        "new\nline", "",           ";",    "\xc3\xa4 u", "#x",        "--flag=%n $x",
    };
    struct buf b = {0};
    struct arena a = {0};
    struct cmdline out = {.arena = &a};
    struct unit_file u;
    struct err e = {0};
    buf_z(&b, "[Service]\nExecStart=/bin/x");
    for (size_t i = 0; i < 12; i++) {
        buf_c(&b, ' ');
        unit_quote(&b, words[i]);
    }
    assert_true(unit_parse(&u, buf_view(&b), &a, &e));
    assert_true(command(&u, &out, &e));
    assert_int_equal(out.n, 13);
    for (size_t i = 0; i < 12; i++) assert_string_equal(out.v[i + 1], words[i]);
    buf_free(&b);
    arena_free(&a);
}

static void what_is_not_understood_is_said(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "[Service]\nExecStart=/bin/a \"x", "[Service]\nExecStart=/bin/a %b",
        "[Service]\nExecStart=/bin/a \\q", "[Service]\nno value here", "Key=before any section"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct arena a = {0};
        struct cmdline out = {.arena = &a};
        struct unit_file u;
        struct err e = {0};
        assert_false(unit_parse(&u, str_from(bad[i]), &a, &e) && command(&u, &out, &e));
        assert_true(e.code == ERR_FORMAT || e.code == ERR_UNSUPPORTED);
        arena_free(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(command_lines),
        cmocka_unit_test(what_is_quoted_comes_back),
        cmocka_unit_test(what_is_not_understood_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
