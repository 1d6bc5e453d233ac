// mcpServers JSON: what is read, what other clients' members are left alone, what each mistake is
// told as.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/mcp_config.h"
#include "lib/fail_malloc.h"

static const char good[] =
    "{\"mcpServers\":{"
    "\"files\":{\"command\":\"npx\",\"args\":[\"-y\",\"x\"],\"env\":{\"K\":\"${secret:K}\"},"
    "\"cwd\":\"data\",\"autoApprove\":[\"a\"],\"sandbox\":{\"network\":true,\"write\":[\"out\"]}},"
    "\"off\":{\"command\":\"x\",\"disabled\":true},"
    "\"far\":{\"type\":\"http\",\"url\":\"https://h/mcp\",\"headers\":{\"Authorization\":\"Bearer "
    "x\"},"
    "\"timeout\":5,\"tools\":[\"get-*\"]},"
    "\"free\":{\"command\":\"y\",\"sandbox\":\"off\"}},\"other\":1}";

static void everything_is_read(void **state)
{
    (void)state;
    struct mcp_specs s;
    struct err e = {0};
    if (!mcp_config_parse(&s, str_from(good), "/w", "f", &e)) fail_msg("%s", e.msg);
    assert_int_equal(s.n, 3);
    assert_string_equal(s.list[0].name, "files");
    assert_string_equal(s.list[0].args.p[1], "x");
    assert_string_equal(s.list[0].env.p[0], "K=${secret:K}");
    assert_string_equal(s.list[0].cwd, "/w/data");
    assert_true(s.list[0].network && !s.list[0].no_sandbox);
    assert_string_equal(s.list[0].write.p[0], "/w/out");
    assert_int_equal(s.list[0].timeout_s, 60);
    assert_null(s.list[1].command);
    assert_string_equal(s.list[1].headers.p[0], "Authorization: Bearer x");
    assert_int_equal(s.list[1].timeout_s, 5);
    assert_string_equal(s.list[1].tools.p[0], "get-*");
    assert_true(s.list[2].no_sandbox);
    mcp_specs_free(&s);
}

static void mistakes_name_server_and_member(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{", "f:1: "},
        {"{}", "f: there must be an object \"mcpServers\""},
        {"{\"mcpServers\":[]}", "f: there must be an object \"mcpServers\""},
        {"{\"mcpServers\":{\"a\":1}}", "f: mcpServers.a must be an object with a command or a url"},
        {"{\"mcpServers\":{\"a\":{}}}", "f: mcpServers.a must be an object with either a command"},
        {"{\"mcpServers\":{\"a\":{\"command\":\"x\",\"url\":\"y\"}}}",
         "f: mcpServers.a must be an object with either"},
        {"{\"mcpServers\":{\"a\":{\"command\":7}}}", "f: mcpServers.a.command must be a text"},
        {"{\"mcpServers\":{\"a\":{\"command\":\"x\",\"args\":\"y\"}}}",
         "f: mcpServers.a.args must be a list of texts"},
        {"{\"mcpServers\":{\"a\":{\"command\":\"x\",\"env\":{\"A=B\":\"c\"}}}}",
         "f: mcpServers.a.env must be an object"},
        {"{\"mcpServers\":{\"a\":{\"url\":\"x\",\"headers\":{\"A\":\"b\\nC: d\"}}}}",
         "f: mcpServers.a.headers must be"},
        {"{\"mcpServers\":{\"a\":{\"command\":\"x\",\"timeout\":0}}}",
         "f: mcpServers.a.timeout must be a whole number"},
        {"{\"mcpServers\":{\"a\":{\"command\":\"x\",\"sandbox\":{\"net\":1}}}}",
         "f: mcpServers.a.sandbox must be an object with"},
        {"{\"mcpServers\":{\"a\":{\"type\":\"sse\",\"url\":\"x\"}}}",
         "f: mcpServers.a.type must be stdio or http; the older"},
        {"{\"mcpServers\":{\"a/b\":{\"command\":\"x\"}}}", "f: mcpServers.a/b must be named with"},
        {"{\"mcpServers\":{\"a\":{\"command\":\"x\"},\"a\":{\"command\":\"y\"}}}",
         "f:1: duplicate object key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mcp_specs s;
        struct err e = {0};
        assert_false(mcp_config_parse(&s, str_from(cases[i][0]), "/w", "f", &e));
        if (strncmp(e.msg, cases[i][1], strlen(cases[i][1])) != 0) fail_msg("%zu: %s", i, e.msg);
    }
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    if (!fail_malloc_works()) skip();
    for (long n = 0; n < 2000; n++) {
        struct mcp_specs s;
        struct err e = {0};
        fail_malloc_after(n);
        bool ok = mcp_config_parse(&s, str_from(good), "/w", "f", &e);
        bool failed = fail_malloc_done();
        fail_malloc_after(-1);
        if (ok) mcp_specs_free(&s);
        if (!failed) return; // all of them were tried
        assert_true(ok || e.code != ERR_NONE);
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),
        cmocka_unit_test(mistakes_name_server_and_member),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
