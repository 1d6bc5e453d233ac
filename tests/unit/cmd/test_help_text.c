// cmd/help_text: one help for several commands, as each shows it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cmd/actions.h"
#include "cmd/help_text.h"
#include "cmd/options.h"

static void expect(const char *help, const char *command, const char *wanted)
{
    struct buf out = {0};
    help_text(&out, help, C_SERVE | C_RUN | C_SERVICE, command);
    assert_string_equal(buf_cstr(&out), wanted);
    buf_free(&out);
}

static void clauses_of_others_are_left_out(void **state)
{
    (void)state;
    const char *help = "a folder; off for none; serve: default ~/x; run, bench: default off";
    expect(help, "serve", "a folder; off for none; default ~/x");
    expect(help, "run", "a folder; off for none; default off");
    expect(help, "doctor", "a folder; off for none");
    expect("server; service gateway: instead of the service", "service",
           "server; instead of the service");
    expect("server; service gateway: instead of the service", "run", "server");
    expect("a folder; serve: kept", "service", "a folder; kept"); // it takes serve's flags
}

static void actions_keep_their_names(void **state)
{
    (void)state;
    const char *help = "warm, pin: what ls calls it; service: the unit's name";
    expect(help, "cache", "warm, pin: what ls calls it");
    expect(help, "service", "the unit's name");
}

// "cache" is a command and what bench may be told to do.
static void a_command_that_takes_it_is_meant(void **state)
{
    (void)state;
    struct buf out = {0};
    help_text(&out, "server; cache: 8080", C_BENCH | C_CACHE, "bench");
    assert_string_equal(buf_cstr(&out), "server");
    buf_clear(&out);
    help_text(&out, "server; cache: 8080", C_BENCH, "bench");
    assert_string_equal(buf_cstr(&out), "server; cache: 8080");
    buf_free(&out);
}

static void colons_of_a_sentence_are_no_names(void **state)
{
    (void)state;
    expect("of keys: q8_0 (a CPU: 8 bits), run: x; y", "bench",
           "of keys: q8_0 (a CPU: 8 bits), run: x; y");
    expect("fix: do not ask", "doctor", "fix: do not ask");
    expect("", "run", "");
    expect("ops: rows", "run", "ops: rows"); // better than nothing
}

// Whatever settings.def says: no command is left without a word, and none reads another's name in front.
static void every_flag_of_every_command_has_help(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned bits;
    } commands[] = {
#define COMMAND(name, function, settings, help) {name, settings},
#include "cmd/commands.def"
    };
    enum { N = sizeof commands / sizeof commands[0] };
    struct option_row row;
    for (size_t i = 0; options_row(i, &row); i++) {
        for (int c = 0; c < N; c++) {
            if ((row.commands & commands[c].bits) == 0) continue;
            struct buf out = {0};
            help_text(&out, row.help, row.commands, commands[c].name);
            assert_true(out.n > 0);
            for (int other = 0; other < N; other++) {
                const size_t n = strlen(commands[other].name);
                if (other == c || actions_find(commands[c].name, commands[other].name) != NULL)
                    continue;
                assert_false(out.n > n && memcmp(out.p, commands[other].name, n) == 0 &&
                             out.p[n] == ':');
            }
            buf_free(&out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clauses_of_others_are_left_out),
        cmocka_unit_test(actions_keep_their_names),
        cmocka_unit_test(a_command_that_takes_it_is_meant),
        cmocka_unit_test(colons_of_a_sentence_are_no_names),
        cmocka_unit_test(every_flag_of_every_command_has_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
