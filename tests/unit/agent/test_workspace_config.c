// submind.yaml: what is read, and what each mistake is told as.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/workspace_config.h"
#include "lib/fail_malloc.h"

static void everything_is_read(void **state)
{
    (void)state;
    struct workspace_config c;
    struct err e = {0};
    struct str yaml = STR("server:\n"
                          "  url: http://127.0.0.1:9000/v1\n"
                          "  model: qwen3-32b\n"
                          "  key_file: keys/local\n"
                          "model: /models/x.gguf\n"
                          "timeout: 90\n"
                          "max_turns: 4\n"
                          "max_tokens: 100\n"
                          "temperature: 0.25\n"
                          "thinking: off\n"
                          "bootstrap: {file_bytes: 1000, total_bytes: 5000}\n"
                          "exec:\n"
                          "  dir: work\n"
                          "  path: [bin, /opt/x]\n"
                          "  env: [TRACK_HOME]\n"
                          "  timeout: 7\n"
                          "  output_bytes: 999\n"
                          "  allow:\n"
                          "    - run: [systemctl, status, \"*\"]\n"
                          "    - run: uptime -p\n"
                          "    - [df, -h, \"**\"]\n");
    if (!workspace_config_parse(&c, yaml, "/w", "f", &e)) fail_msg("%s", e.msg);
    assert_string_equal(c.server_url, "http://127.0.0.1:9000/v1");
    assert_string_equal(c.server_model, "qwen3-32b");
    assert_string_equal(c.key_file, "/w/keys/local");
    assert_string_equal(c.model_file, "/models/x.gguf");
    assert_int_equal(c.timeout_s, 90);
    assert_int_equal(c.max_turns, 4);
    assert_int_equal(c.max_tokens, 100);
    assert_true(c.has_temperature && c.temperature == 0.25f);
    assert_int_equal(c.thinking, 0);
    assert_int_equal(c.file_bytes, 1000);
    assert_int_equal(c.total_bytes, 5000);
    assert_string_equal(c.exec.dir, "/w/work");
    assert_string_equal(c.exec.path.p[0], "/w/bin");
    assert_string_equal(c.exec.path.p[1], "/opt/x");
    assert_string_equal(c.exec.env.p[0], "TRACK_HOME");
    assert_int_equal(c.exec.timeout_s, 7);
    assert_int_equal(c.exec.output_bytes, 999);
    assert_int_equal(c.exec.allow.n, 3);
    assert_int_equal(c.exec.allow.rules[0].line, 19);
    assert_string_equal(c.exec.allow.rules[1].patterns.p[1], "-p");
    assert_string_equal(c.exec.allow.rules[2].patterns.p[2], "**");
    workspace_config_close(&c);
}

static void an_empty_file_gives_the_defaults(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "# nothing\n", "---\n", "server:\nexec:\n"};
    for (size_t i = 0; i < 4; i++) {
        struct workspace_config c;
        struct err e = {0};
        if (!workspace_config_parse(&c, str_from(texts[i]), "/w", "f", &e)) fail_msg("%s", e.msg);
        assert_null(c.server_url);
        assert_int_equal(c.timeout_s, 600);
        assert_int_equal(c.thinking, -1);
        assert_false(c.has_temperature);
        assert_int_equal(c.exec.allow.n, 0);
        assert_string_equal(c.exec.dir, "/w");
        workspace_config_close(&c);
    }
}

static void mistakes_name_line_field_and_what_is_allowed(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *message;
    } cases[] = {
        {"timeout: abc\n", "f:1: timeout must be a whole number from 1 to 604800, not \"abc\""},
        {"\n\ntimeout: 0\n", "f:3: timeout must be a whole number from 1 to 604800, not \"0\""},
        {"timeout: 1.5\n", "f:1: timeout must be a whole number"},
        {"timeout: -1\n", "f:1: timeout must be a whole number"},
        {"timeout: 99999999999999999999\n", "f:1: timeout must be a whole number"},
        {"timeout: [1]\n", "f:1: timeout must be a whole number from 1 to 604800, not a list"},
        {"timeout: 1\ntimeout: 2\n", "f:2: timeout must be given once"},
        {"timeuot: 1\n",
         "f:1: there is no setting \"timeuot\"; allowed: server, model, timeout, "
         "max_turns, max_tokens, temperature, thinking, bootstrap, exec, mcp, tools, files, http, "
         "secrets, sandbox"},
        {"server:\n  ulr: x\n",
         "f:2: there is no setting \"ulr\" in server; allowed: url, model, key_file"},
        {"server: http://x\n", "f:1: server must be a mapping of settings"},
        {"- a\n", "f:1: the file must be a mapping of settings"},
        {"temperature: hot\n", "f:1: temperature must be a number from 0 to 5, not \"hot\""},
        {"temperature: nan\n", "f:1: temperature must be a number"},
        {"thinking: maybe\n", "f:1: thinking must be on, off or auto, not \"maybe\""},
        {"exec:\n  path: bin\n", "f:2: exec.path must be a list of folders, not \"bin\""},
        {"exec:\n  path: [a:b]\n", "f:2: exec.path must be a list of folders without a colon"},
        {"exec:\n  allow: ls\n", "f:2: exec.allow must be a list of rules"},
        {"exec:\n  allow:\n    - run: []\n", "f:3: exec.allow must be a list of rules"},
        {"exec:\n  allow:\n    - rn: [ls]\n",
         "f:3: exec.allow must be rules with the keys run or shell, secrets, write, network, "
         "sandbox, repeat, not \"rn\""},
        {"exec:\n  allow:\n    - run: [ls]\n      cwd: x\n",
         "f:4: exec.allow must be rules with the keys"},
        {"exec:\n  allow:\n    - network: yes\n",
         "f:3: exec.allow: a rule has either \"run\" or \"shell\""},
        {"exec:\n  allow:\n    - {run: [ls], shell: ls}\n",
         "f:3: exec.allow: a rule has either \"run\" or \"shell\""},
        {"exec:\n  allow:\n    - {run: [ls], network: maybe}\n",
         "f:3: exec.allow must be yes or no, not \"maybe\""},
        {"sandbox: maybe\n", "f:1: sandbox must be on, auto or off, not \"maybe\""},
        {"sandbox: {memory: 2X}\n", "f:1: sandbox.memory must be a size such as 512M or 2G"},
        {"sandbox: {read: []}\n", "f:1: there is no setting \"read\" in sandbox; allowed: mode"},
        {"secrets: [a]\n", "f:1: secrets must be a mapping from names to files, not a list"},
        {"secrets: {A-B: c}\n", "f:1: secrets must be a mapping from names (letters"},
        {"secrets: {A: \"credential:\"}\n", "f:1: secrets must be a file, or credential:NAME"},
        {"exec:\n  allow:\n    - run: a | b\n", "f:3: exec.allow: there is no shell here"},
        {"exec:\n  allow:\n    - run: [a, [b]]\n",
         "f:3: exec.allow must be a list of rules whose arguments are texts"},
        {"exec:\n  allow:\n    - run: [\"**\"]\n", "f:3: exec.allow: \"**\" stands for the rest"},
        {"exec:\n  allow:\n    - run: [a, \"**\", b]\n",
         "f:3: exec.allow: \"**\" stands for the rest"},
        {"exec:\n  allow:\n    - run: [\"\"]\n", "f:3: exec.allow: the program is empty"},
        {"a: [1\n", "f:2: "},
        {"\t- x", "f:1: "},
        {"a: *nobody\n", "f:1: found undefined alias"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct workspace_config c;
        struct err e = {0};
        assert_false(workspace_config_parse(&c, str_from(cases[i].yaml), "/w", "f", &e));
        assert_int_equal(e.code, ERR_INPUT);
        if (strncmp(e.msg, cases[i].message, strlen(cases[i].message)) != 0)
            fail_msg("case %zu: %s", i, e.msg);
    }
}

// Each allocation fails once; the outcome is a clean error or the whole result. (libyaml's own
// allocations fail too, so any error is an ERR_MEMORY or libyaml's.)
static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct str yaml = STR("timeout: 9\nexec:\n  path: [a, b]\n  allow:\n    - run: ls -l **\n"
                          "    - [df, x]\n");
    if (!fail_malloc_works()) return;
    for (long i = 0; i < 2000; i++) {
        struct workspace_config c = {.timeout_s = 12345};
        struct err e = {0};
        fail_malloc_after(i);
        bool ok = workspace_config_parse(&c, yaml, "/w", "f", &e);
        bool failed = fail_malloc_done();
        fail_malloc_after(-1);
        if (ok) {
            assert_int_equal(c.exec.allow.n, 2);
            workspace_config_close(&c);
        } else {
            assert_true(e.msg[0] != '\0');
            assert_int_equal(c.timeout_s, 12345); // the output is untouched
        }
        if (!failed) return;
    }
    fail_msg("it never ran out of allocations");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),
        cmocka_unit_test(an_empty_file_gives_the_defaults),
        cmocka_unit_test(mistakes_name_line_field_and_what_is_allowed),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
