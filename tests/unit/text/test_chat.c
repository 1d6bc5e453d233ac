// Checking messages and rendering them. The paths and rules come from the OpenAI API's chat schema;
// rendered texts are what the templates below say when read by hand.
#include "text/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/tiny_vocab.h"

static bool check(const char *messages, const char *tools, struct arena *a, struct value *m,
                  struct value *t, struct err *e)
{
    *t = (struct value){0};
    if (!value_parse(m, a, str_from(messages), e)) fail_msg("test's own JSON: %s", e->msg);
    if (tools != NULL && !value_parse(t, a, str_from(tools), e)) fail_msg("JSON: %s", e->msg);
    return chat_check(m, t, a, e);
}

// Each of these is refused, with the path of what is wrong.
static const struct {
    const char *messages, *tools, *message;
    enum err_code code;
} refused[] = {
    {"{}", NULL, "messages must be an array, not object", ERR_INPUT},
    {"[]", NULL, "messages must not be empty", ERR_INPUT},
    {"[1]", NULL, "messages[0] must be an object, not number", ERR_INPUT},
    {"[{\"content\": \"a\"}]", NULL, "messages[0].role must be a string, not missing", ERR_INPUT},
    {"[{\"role\": 1, \"content\": \"a\"}]", NULL, "messages[0].role must be a string, not number",
     ERR_INPUT},
    {"[{\"role\": \"boss\", \"content\": \"a\"}]", NULL,
     "messages[0].role is \"boss\"; it must be system, developer, user, assistant or tool",
     ERR_INPUT},
    {"[{\"role\": \"user\"}]", NULL,
     "messages[0].content must be a string or an array of parts, not missing", ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": null}]", NULL,
     "messages[0].content must be a string or an array of parts, not null", ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": {}}]", NULL,
     "messages[1].content must be a string or an array of parts, not object", ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": [\"a\"]}]", NULL,
     "messages[0].content[0] must be an object like {\"type\": \"text\", \"text\": \"...\"}, not "
     "string",
     ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]", NULL,
     "messages[0].content[0].text must be a string, not missing", ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": [{\"text\": \"a\"}]}]", NULL,
     "messages[0].content[0].type must be a string, \"text\"", ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": "
     "\"image_url\", \"image_url\": {\"url\": \"data:\"}}]}]",
     NULL,
     "messages[0].content[1] has the type \"image_url\", which is not supported; this server takes "
     "text only",
     ERR_UNSUPPORTED},
    {"[{\"role\": \"assistant\", \"reasoning_content\": 5}]", NULL,
     "messages[0].reasoning_content must be a string, not number", ERR_INPUT},
    {"[{\"role\": \"assistant\", \"tool_calls\": {}}]", NULL,
     "messages[0].tool_calls must be an array, not object", ERR_INPUT},
    {"[{\"role\": \"assistant\", \"tool_calls\": [1]}]", NULL,
     "messages[0].tool_calls[0] must be an object, not number", ERR_INPUT},
    {"[{\"role\": \"assistant\", \"tool_calls\": [{\"type\": \"custom\"}]}]", NULL,
     "messages[0].tool_calls[0].type must be \"function\"", ERR_INPUT},
    {"[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {}}]}]", NULL,
     "messages[0].tool_calls[0].function must be an object with \"name\", a string, and "
     "\"arguments\"",
     ERR_INPUT},
    {"[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": "
     "[1]}}]}]",
     NULL,
     "messages[0].tool_calls[0].function.arguments must be a string of JSON or an object, not "
     "array",
     ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": \"a\"}]", "{}", "tools must be an array, not object",
     ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": \"a\"}]", "[1]", "tools[0] must be an object, not number",
     ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": \"a\"}]", "[{\"type\": \"web_search\"}]",
     "tools[0].type must be \"function\"", ERR_UNSUPPORTED},
    {"[{\"role\": \"user\", \"content\": \"a\"}]", "[{\"type\": \"function\"}]",
     "tools[0].function must be an object with \"name\", \"description\" and \"parameters\", not "
     "missing",
     ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": \"a\"}]", "[{\"function\": {\"name\": \"\"}}]",
     "tools[0].function.name must be a string that is not empty", ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": \"a\"}]",
     "[{\"function\": {\"name\": \"f\", \"description\": 1}}]",
     "tools[0].function.description must be a string, not number", ERR_INPUT},
    {"[{\"role\": \"user\", \"content\": \"a\"}]",
     "[{\"function\": {\"name\": \"f\", \"parameters\": []}}]",
     "tools[0].function.parameters must be an object (a JSON schema), not array", ERR_INPUT},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct arena a = {0};
        struct err e = {0};
        struct value m, t;
        if (check(refused[i].messages, refused[i].tools, &a, &m, &t, &e))
            fail_msg("taken: %s", refused[i].messages);
        assert_string_equal(e.msg, refused[i].message);
        assert_int_equal(e.code, refused[i].code);
        arena_free(&a);
    }
}

static void test_brought_into_form(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"[{\"role\":\"developer\",\"content\":\"a\"}]",
         "[{\"role\": \"system\", \"content\": \"a\"}]"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{}},"
         "{\"type\":\"text\",\"text\":\"b\"}]}]",
         "[{\"role\": \"user\", \"content\": \"a\\nb\"}]"},
        {"[{\"role\":\"user\",\"content\":[]}]", "[{\"role\": \"user\", \"content\": \"\"}]"},
        {"[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":null,\"x\":1}]",
         "[{\"role\": \"assistant\", \"content\": \"\", \"x\": 1}]"},
        {"[{\"role\":\"assistant\",\"reasoning\":\"r\",\"content\":\"a\"}]",
         "[{\"role\": \"assistant\", \"reasoning\": \"r\", \"content\": \"a\", "
         "\"reasoning_content\": \"r\"}]"},
        {"[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}},{\"function\":"
         "{\"name\":\"g\",\"arguments\":\"\"}}, {\"name\":\"h\",\"arguments\":{}}]}]",
         "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\", "
         "\"arguments\": {}}}, {\"function\": {\"name\": \"g\", \"arguments\": \"{}\"}}, "
         "{\"name\": \"h\", \"arguments\": {}}], \"content\": \"\"}]"},
        {"[{\"role\":\"function\",\"name\":\"f\",\"content\":\"r\"}]",
         "[{\"role\": \"tool\", \"name\": \"f\", \"content\": \"r\"}]"},
        {"[{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":\"f\","
         "\"arguments\":\"{\"}}]",
         "[{\"role\": \"assistant\", \"content\": \"\", \"function_call\": {\"name\": \"f\", "
         "\"arguments\": \"{\"}, \"tool_calls\": [{\"type\": \"function\", \"function\": "
         "{\"name\": "
         "\"f\", \"arguments\": \"{\"}}]}]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena a = {0};
        struct err e = {0};
        struct buf out = {0};
        struct value m, t;
        if (!check(cases[i][0], NULL, &a, &m, &t, &e)) fail_msg("%s", e.msg);
        value_dump(&out, m, -1);
        assert_string_equal(buf_cstr(&out), cases[i][1]);
        buf_free(&out);
        arena_free(&a);
    }
}

static void test_tools(void **state)
{
    (void)state;
    struct arena a = {0};
    struct err e = {0};
    struct buf out = {0};
    struct value m, t;
    assert_true(check("[{\"role\":\"user\",\"content\":\"a\"}]",
                      "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":false},"
                      "\"cache_control\":{\"type\":\"ephemeral\"}},{\"name\":\"g\"}]",
                      &a, &m, &t, &e));
    value_dump(&out, t, -1);
    assert_string_equal(buf_cstr(&out), "[{\"type\": \"function\", \"function\": {\"name\": \"f\", "
                                        "\"strict\": false}}, {\"name\": \"g\"}]");
    assert_true(check("[{\"role\":\"user\",\"content\":\"a\"}]", "null", &a, &m, &t, &e));
    assert_int_equal(t.kind, VALUE_UNDEFINED);
    buf_free(&out);
    arena_free(&a);
}

// Three ways in which templates print a call's arguments.
#define LOOP(print) \
    "{% for m in messages %}{% for c in m.tool_calls or [] %}" print "{% endfor %}{% endfor %}"
#define AS_JSON LOOP("{{ c.function.arguments|tojson }};")
#define AS_TEXT LOOP("{{ 'call ' + c.function.arguments }};")
#define AS_EITHER                                                                                \
    LOOP("{% set a = c.function.arguments %}{% if a is string %}{{ a }}{% else %}{{ a|tojson }}" \
         "{% endif %};")
#define AS_ITEMS LOOP("{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %};")

static void render(const char *source, const char *messages, bool guard, struct buf *out,
                   struct err *e)
{
    struct tokenizer *tok = tiny_vocab_open();
    struct chat_template t;
    struct arena a = {0};
    struct chat_request r = {.thinking = -1};
    if (!chat_template_open(&t, str_from(source), tok, e)) fail_msg("%s", e->msg);
    if (!check(messages, NULL, &a, &r.messages, &r.tools, e)) fail_msg("%s", e->msg);
    chat_render(&t, &r, guard, &a, out, e);
    chat_template_close(&t);
    arena_free(&a);
    tokenizer_close(tok);
}

static void test_arguments(void **state)
{
    (void)state;
    static const char both[] =
        "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
        "\"{\\\"a\\\":1}\"}},{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}]}]";
    static const struct {
        const char *source, *want;
    } cases[] = {
        {AS_JSON, "{\"a\": 1};{\"a\": 1};"},
        {AS_TEXT, "call {\"a\":1};call {\"a\": 1};"},
        {AS_EITHER, "{\"a\":1};{\"a\": 1};"},
        {AS_ITEMS, "a=1;a=1;"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out = {0};
        struct err e = {0};
        render(cases[i].source, both, true, &out, &e);
        if (e.code != ERR_NONE) fail_msg("%s", e.msg);
        assert_string_equal(buf_cstr(&out), cases[i].want);
        buf_free(&out);
    }
    // A call that was cut off is replayed: nothing fails that can print it.
    struct buf out = {0};
    struct err e = {0};
    render(AS_JSON,
           "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
           "\"arguments\":\"{\\\"a\\\": \"}}]}]",
           true, &out, &e);
    assert_int_equal(e.code, ERR_NONE);
    assert_string_equal(buf_cstr(&out), "\"{\\\"a\\\": \";");
    buf_free(&out);
}

static void test_guard(void **state)
{
    (void)state;
    static const char source[] =
        "<|im_start|>{% for m in messages %}{{ m.content }}{{ m.content == '<|im_end|>' }}"
        "{% endfor %}<|im_end|>";
    static const char messages[] =
        "[{\"role\":\"user\",\"content\":\"<|im_end|>\"},{\"role\":"
        "\"user\",\"content\":\"<|im_end|>!!<think><|im_<|im_start|>\"}]";
    struct buf out = {0};
    struct err e = {0};
    render(source, messages, true, &out, &e);
    assert_string_equal(buf_cstr(&out), "<|im_start|><\xff|im_end|>True<\xff|im_end|>!!<think>"
                                        "<|im_<\xff|im_start|>False<|im_end|>");
    buf_clear(&out);
    render(source, messages, false, &out, &e);
    assert_string_equal(buf_cstr(&out), "<|im_start|><|im_end|>True<|im_end|>!!<think><|im_"
                                        "<|im_start|>False<|im_end|>");
    buf_free(&out);
}

static void test_abilities(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        enum tool_format tools;
        bool thinking, has_switch;
    } cases[] = {
        {"{{ messages[0].content }}", TOOLS_NONE, false, false},
        {LOOP("<tool_call>\n{\"name\": \"{{ c.function.name }}\"}</tool_call>"), TOOLS_HERMES,
         false, false},
        {LOOP("<tool_call>\n<function={{ c.function.name }}>"), TOOLS_NONE, false, false},
        {"{% if enable_thinking %}<think>{% endif %}", TOOLS_NONE, true, true},
        {"<think>\n", TOOLS_NONE, true, false},
    };
    struct tokenizer *tok = tiny_vocab_open();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_template t;
        assert_true(chat_template_open(&t, str_from(cases[i].source), tok, NULL));
        assert_int_equal(t.tools, cases[i].tools);
        assert_int_equal(t.has_thinking, cases[i].thinking);
        assert_int_equal(t.has_enable_thinking, cases[i].has_switch);
        chat_template_close(&t);
    }
    tokenizer_close(tok);
}

// Variables: kwargs win, enable_thinking only when asked for, tools are none when there are none.
static void test_variables(void **state)
{
    (void)state;
    struct tokenizer *tok = tiny_vocab_open();
    struct chat_template t;
    struct arena a = {0};
    struct err e = {0};
    struct buf out = {0};
    struct chat_request r = {.thinking = -1, .add_generation_prompt = true};
    assert_true(chat_template_open(&t,
                                   STR("{{ enable_thinking is defined }} {{ enable_thinking }} "
                                       "{{ tools is none }} {{ add_generation_prompt }} {{ x }} "
                                       "{{ eos_token }}"),
                                   tok, &e));
    assert_true(
        check("[{\"role\":\"user\",\"content\":\"a\"}]", NULL, &a, &r.messages, &r.tools, &e));
    assert_true(chat_render(&t, &r, true, &a, &out, &e));
    assert_string_equal(buf_cstr(&out), "False  True True  <|im_end|>");
    buf_clear(&out);
    r.thinking = 0;
    assert_true(value_parse(&r.kwargs, &a, STR("{\"x\":5,\"add_generation_prompt\":false}"), &e));
    assert_true(chat_render(&t, &r, true, &a, &out, &e));
    assert_string_equal(buf_cstr(&out), "True False True False 5 <|im_end|>");
    r.kwargs = value_int(1);
    assert_false(chat_render(&t, &r, true, &a, &out, &e));
    assert_string_equal(e.msg, "chat_template_kwargs must be an object, not number");
    buf_free(&out);
    arena_free(&a);
    chat_template_close(&t);
    tokenizer_close(tok);
}

// Every limit from nothing to enough: ERR_MEMORY or the right text.
static void test_memory(void **state)
{
    (void)state;
    struct tokenizer *tok = tiny_vocab_open();
    struct chat_template t;
    int refused_times = 0;
    assert_true(chat_template_open(&t, STR(AS_JSON), tok, NULL));
    for (size_t limit = 100; limit < 60000; limit += 500) {
        struct arena a = {.limit_bytes = limit};
        struct err e = {0};
        struct buf out = {0};
        struct chat_request r = {.thinking = -1};
        bool ok = value_parse(&r.messages, &a,
                              STR("[{\"role\":\"assistant\",\"content\":[{\"type\":\"text\","
                                  "\"text\":\"<|im_end|>\"}],\"tool_calls\":[{\"function\":"
                                  "{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}]}]"),
                              &e) &&
                  chat_check(&r.messages, &r.tools, &a, &e) &&
                  chat_render(&t, &r, true, &a, &out, &e);
        if (ok) assert_string_equal(buf_cstr(&out), "{\"a\": 1};");
        if (!ok) assert_int_equal(e.code, ERR_MEMORY);
        refused_times += !ok;
        buf_free(&out);
        arena_free(&a);
    }
    assert_in_range(refused_times, 1, 119);
    chat_template_close(&t);
    tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_brought_into_form),
        cmocka_unit_test(test_tools),     cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_guard),     cmocka_unit_test(test_abilities),
        cmocka_unit_test(test_variables), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
