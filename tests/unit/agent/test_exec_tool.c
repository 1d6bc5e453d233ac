// The tool exec as the model uses it: what runs, what is refused, and what the model is told.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/exec_tool.h"

static const char *const environment[] = {"PATH=/usr/bin:/bin", "HOME=/tmp", "API_KEY=secret",
                                          "GREETING=hello", NULL};

struct fixture {
    struct exec_settings settings;
    struct sandbox_settings sandbox;
    struct secrets secrets;
    struct exec_tool exec;
    struct tool tool;
    struct allow_rule rules[8];
};

static void open_fixture(struct fixture *f)
{
    static const char *const rules[] = {
        "echo **",   "printenv *",         "sh -c *", "no-such-program", "sleep *",
        "printf **", "head -c * /dev/zero"};
    struct err e = {0};
    *f = (struct fixture){.settings = {.dir = strdup("/tmp"), .timeout_s = 1, .output_bytes = 400}};
    for (size_t i = 0; i < 7; i++)
        assert_true(words_split(&f->rules[i].patterns, str_from(rules[i]), &e));
    f->settings.allow = (struct allow_list){.rules = f->rules, .n = 7};
    assert_true(words_put(&f->settings.env, STR("GREETING"), &e));
    f->sandbox.mode = SANDBOX_OFF;
    struct exec_setup setup = {.settings = &f->settings,
                               .sandbox = &f->sandbox,
                               .secrets = &f->secrets,
                               .environment = environment,
                               .run_id = "run-1"};
    assert_true(exec_tool_open(&f->exec, &setup, &f->tool, &e));
}

static void close_fixture(struct fixture *f)
{
    for (size_t i = 0; i < 7; i++) words_free(&f->rules[i].patterns);
    f->settings.allow = (struct allow_list){0};
    exec_tool_close(&f->exec);
    exec_settings_free(&f->settings);
}

static struct tool_result call(struct fixture *f, const char *args)
{
    struct tool_result r = {0};
    struct tool_limits limits = {0};
    struct err e = {0};
    json_t *v = json_loads(args, 0, NULL);
    assert_non_null(v);
    assert_true(f->tool.run(f->tool.arg, v, &limits, &r, &e));
    json_decref(v);
    buf_cstr(&r.text);
    buf_cstr(&r.detail);
    return r;
}

static void commands_run_and_their_output_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *args, *text, *detail;
        int exit_code;
    } cases[] = {
        {"{\"command\":\"echo a 'b  c'\"}", "exit code: 0\na b  c", "echo a 'b  c'", 0},
        {"{\"command\":[\"echo\",\"x | y\"]}", "exit code: 0\nx | y", "echo 'x | y'", 0},
        {"{\"command\":\"sh -c 'echo bad >&2; exit 3'\"}", "exit code: 3\nbad",
         "sh -c 'echo bad >&2; exit 3'", 3},
        {"{\"command\":\"printenv GREETING\"}", "exit code: 0\nhello", "printenv GREETING", 0},
        {"{\"command\":\"printenv API_KEY\"}", "exit code: 1", "printenv API_KEY", 1},
        {"{\"command\":\"printf '\\\\033[31mred\\\\033[0m\\\\a x\\\\n'\"}", "exit code: 0\nred x",
         NULL, 0},
        {"{\"command\":\"printf 'a\\\\377b\\\\n'\"}",
         "exit code: 0\na\xef\xbf\xbd"
         "b",
         NULL, 0},
    };
    struct fixture f;
    open_fixture(&f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tool_result r = call(&f, cases[i].args);
        assert_string_equal(r.text.p, cases[i].text);
        if (cases[i].detail != NULL) assert_string_equal(r.detail.p, cases[i].detail);
        assert_true(r.has_exit_code);
        assert_int_equal(r.exit_code, cases[i].exit_code);
        assert_false(r.refused);
        assert_false(r.could_not_run);
        assert_int_equal(r.failed, cases[i].exit_code != 0);
        tool_result_free(&r);
    }
    close_fixture(&f);
}

static void refusals_are_precise_and_nothing_runs(void **state)
{
    (void)state;
    static const struct {
        const char *args, *words;
    } cases[] = {
        {"{\"command\":\"rm -rf /\"}", "Error: not allowed: rm -rf /"},
        {"{\"command\":\"echo a | sh\"}", "there is no shell here: \"|\""},
        {"{\"command\":\"echo --version\"}", "with this program: echo **"},
        {"{\"command\":\"\"}", "empty"},
        {"{\"command\":[]}", "empty"},
        {"{\"command\":[\"echo\",1]}", "command[1] must be a string"},
        {"{\"command\":7}", "exec needs \"command\""},
        {"{}", "exec needs \"command\""},
        {"{\"cmd\":\"echo\"}", "exec needs \"command\""},
    };
    struct fixture f;
    open_fixture(&f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tool_result r = call(&f, cases[i].args);
        if (strstr(r.text.p, cases[i].words) == NULL) fail_msg("%s: %s", cases[i].args, r.text.p);
        assert_true(r.refused && r.failed && r.could_not_run && !r.has_exit_code);
        tool_result_free(&r);
    }
    close_fixture(&f);
}

static void what_goes_wrong_while_running_is_told(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f);
    struct tool_result r = call(&f, "{\"command\":\"no-such-program\"}");
    assert_string_equal(r.text.p, "Error: no-such-program: command not found");
    assert_true(r.could_not_run && !r.refused);
    tool_result_free(&r);
    r = call(&f, "{\"command\":\"sleep 30\"}");
    assert_string_equal(r.text.p, "Error: timed out after 1 s");
    assert_true(r.could_not_run && r.ms < 5000);
    tool_result_free(&r);
    r = call(&f, "{\"command\":\"sh -c 'echo before; kill -9 $$'\"}");
    assert_non_null(strstr(r.text.p, "Error: killed by signal 9 (Killed)\nbefore"));
    tool_result_free(&r);
    r = call(&f, "{\"command\":\"head -c 5000 /dev/zero\"}");
    assert_string_equal(r.text.p, "exit code: 0\n[5000 bytes of binary output]");
    tool_result_free(&r);
    r = call(&f, "{\"command\":\"sh -c 'yes abc | head -n 1000'\"}");
    assert_non_null(strstr(r.text.p, "[... 3600 of 4000 bytes left out ...]\nabc\n"));
    assert_true(r.text.n < 500);
    tool_result_free(&r);
    close_fixture(&f);
}

static void the_description_names_the_rules(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f);
    assert_non_null(strstr(f.tool.description, "printenv *; "));
    json_t *v = json_loads(f.tool.parameters, 0, NULL);
    assert_true(json_is_object(json_object_get(v, "properties")));
    json_decref(v);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_run_and_their_output_is_told),
        cmocka_unit_test(refusals_are_precise_and_nothing_runs),
        cmocka_unit_test(what_goes_wrong_while_running_is_told),
        cmocka_unit_test(the_description_names_the_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
