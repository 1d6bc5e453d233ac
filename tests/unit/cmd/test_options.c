// cmd/options: flags, their order, the environment, sizes, and what bad input is told.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cmd/options.h"

#define ARGV(...) ((char *[]){(char[]){"serve"}, __VA_ARGS__, NULL})
#define WORD(s)   ((char[]){s})

static void flags_and_positions_mix(void **state)
{
    (void)state;
    struct settings s;
    struct err e = {0};
    char **argv = ARGV(WORD("one"), WORD("--port"), WORD("0"), WORD("two"), WORD("--host=::1"),
                       WORD("--kv-memory=1.5G"), WORD("--"), WORD("--three"));
    assert_true(options_parse(&s, C_SERVE, 9, argv, &e));
    assert_int_equal(s.n_args, 3);
    assert_string_equal(s.args[2], "--three");
    assert_true(s.given.port && s.port == 0);
    assert_string_equal(s.host, "::1");
    assert_true(s.kv_memory == (size_t)3 << 29);
    assert_false(s.given.ctx);
}

static void bad_input_is_named(void **state)
{
    (void)state;
    const struct {
        char *word, *value;
        const char *says;
    } bad[] = {
        {WORD("--port"), WORD("eighty"), "--port takes a whole number"},
        {WORD("--port"), WORD("-1"), "--port takes a whole number"},
        {WORD("--nonsense"), WORD("1"), "unknown flag --nonsense; --help lists"},
        {WORD("--paralel=4"), WORD("1"), "unknown flag --paralel=4; did you mean --parallel?"},
        {WORD("--cache-dri"), WORD("x"), "did you mean --cache-dir?"},
        {WORD("--model-file"), WORD("x"), "did you mean --model?"},
        {WORD("-c"), WORD("4096"), "-c is a flag of llama-server; here it is --ctx (each"},
        {WORD("--ctx-size=4096"), WORD("x"), "Put submind llama-server in place"},
        {WORD("--mlock"), WORD("x"), "of llama-server (give the unit LimitMEMLOCK="},
        {WORD("--port"), WORD("65536"),
         "--port takes a whole number from 0 to 65535, not \"65536\""},
        {WORD("--temperature"), WORD("-1"), "--temperature takes a number from 0 to 2, not \"-1\""},
        {WORD("--top-p"), WORD("7"), "--top-p takes a number from 0 to 1, not \"7\""},
        {WORD("--repeat-penalty"), WORD("0"), "a number from 0.01 to 10, not \"0\""},
        {WORD("--kv-memory"), WORD("8Q"), "--kv-memory takes a size"},
        {WORD("--temperature"), WORD("nan"), "--temperature takes a number"},
        {WORD("--max-turns"), WORD("1"), "unknown flag --max-turns (other commands have it)"},
        {WORD("--verbose=1"), WORD("x"), "--verbose takes no value"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct settings s;
        struct err e = {0};
        assert_false(options_parse(&s, C_SERVE, 3, ARGV(bad[i].word, bad[i].value), &e));
        assert_int_equal(e.code, ERR_INPUT);
        assert_non_null(strstr(e.msg, bad[i].says));
    }
    struct settings s;
    struct err e = {0};
    assert_false(options_parse(&s, C_SERVE, 2, ARGV(WORD("--port")), &e));
    assert_non_null(strstr(e.msg, "--port needs a value"));
}

static void environment_yields_to_flags(void **state)
{
    (void)state;
    struct settings s;
    struct err e = {0};
    setenv("SUBMIND_PORT", "1234", 1);
    setenv("SUBMIND_KV_MEMORY", "2k", 1);
    assert_true(options_parse(&s, C_SERVE, 3, ARGV(WORD("--port"), WORD("99")), &e));
    assert_int_equal(s.port, 99);
    assert_int_equal(s.kv_memory, 2048);
    setenv("SUBMIND_PORT", "x", 1);
    assert_false(options_parse(&s, C_SERVE, 1, ARGV(NULL), &e));
    assert_non_null(strstr(e.msg, "SUBMIND_PORT"));
    unsetenv("SUBMIND_PORT");
    unsetenv("SUBMIND_KV_MEMORY");
}

static void sizes_have_units(void **state)
{
    (void)state;
    size_t n = 0;
    assert_true(options_size("512M", &n) && n == 512u << 20);
    assert_true(options_size("8GiB", &n) && n == (size_t)8 << 30);
    assert_true(options_size("123", &n) && n == 123);
    assert_false(options_size("", &n) || options_size("M", &n) || options_size("-1", &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_and_positions_mix),
        cmocka_unit_test(bad_input_is_named),
        cmocka_unit_test(environment_yields_to_flags),
        cmocka_unit_test(sizes_have_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
