// Messages of the protocol: which kind each is, what we write, content as text.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/mcp_frame.h"

static void kinds_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum mcp_kind kind;
    } cases[] = {
        {"{\"id\":1,\"result\":{}}", MCP_RESPONSE},
        {"{\"id\":\"a\",\"error\":{\"code\":1,\"message\":\"m\"}}", MCP_RESPONSE},
        {"{\"id\":1,\"method\":\"ping\"}", MCP_REQUEST},
        {"{\"method\":\"notifications/x\"}", MCP_NOTICE},
        {"{\"id\":null,\"result\":{}}", MCP_NONSENSE},
        {"{\"id\":1}", MCP_NONSENSE},
        {"{\"id\":1.5,\"result\":{}}", MCP_NONSENSE},
        {"{\"id\":1,\"error\":\"x\"}", MCP_NONSENSE},
        {"[]", MCP_NONSENSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *v = json_loads(cases[i].text, 0, NULL);
        assert_int_equal(mcp_frame_read(v).kind, cases[i].kind);
        json_decref(v);
    }
}

static void what_we_write_is_the_protocol(void **state)
{
    (void)state;
    struct buf b = {0};
    json_t *params = json_pack("{s:s}", "cursor", "a\"b"), *id = json_string("p");
    mcp_frame_request(&b, 7, "tools/list", params);
    assert_string_equal(buf_cstr(&b), "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/"
                                      "list\",\"params\":{\"cursor\":\"a\\\"b\"}}");
    buf_clear(&b);
    mcp_frame_notice(&b, "notifications/initialized", NULL);
    assert_string_equal(buf_cstr(&b),
                        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    buf_clear(&b);
    mcp_frame_reply(&b, id);
    assert_string_equal(buf_cstr(&b), "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"result\":{}}");
    buf_clear(&b);
    mcp_frame_refuse(&b, id, "roots/list");
    assert_string_equal(buf_cstr(&b), "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"error\":{\"code\":-"
                                      "32601,\"message\":\"this client has no roots/list\"}}");
    json_decref(params);
    json_decref(id);
    buf_free(&b);
}

static void content_becomes_text(void **state)
{
    (void)state;
    static const struct {
        const char *result, *text;
        bool failed;
    } cases[] = {
        {"{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}",
         "a\nb", false},
        {"{\"content\":[{\"type\":\"image\",\"mimeType\":\"image/"
         "png\",\"data\":\"AAAAAA==\"}],\"isError\":true}",
         "[image: image/png, 4 bytes, not shown]", true},
        {"{\"content\":[],\"structuredContent\":{\"t\":21}}", "{\"t\":21}", false},
        {"{\"content\":[{\"type\":\"text\",\"text\":\"t: 21\"}],\"structuredContent\":{\"t\":21}}",
         "t: 21", false},
        {"{\"content\":[{\"type\":\"resource\",\"resource\":{\"uri\":\"x:1\",\"text\":\"in\"}}]}",
         "[resource x:1]\nin", false},
        {"{\"content\":[{\"type\":\"resource_link\",\"uri\":\"x:2\",\"name\":\"n\"}]}",
         "[link x:2: n]", false},
        {"{\"content\":[{\"type\":\"hologram\"},5]}",
         "[content of the unknown kind \"hologram\"]\n[content of the unknown kind \"\"]", false},
        {"{}", "", false},
        {"{\"content\":\"x\",\"isError\":\"yes\"}", "", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = {0};
        json_t *v = json_loads(cases[i].result, 0, NULL);
        assert_non_null(v);
        assert_int_equal(mcp_content_print(v, &b), cases[i].failed);
        assert_string_equal(buf_cstr(&b), cases[i].text);
        json_decref(v);
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_are_told_apart),
        cmocka_unit_test(what_we_write_is_the_protocol),
        cmocka_unit_test(content_becomes_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
