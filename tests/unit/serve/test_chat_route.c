// Chat requests over real sockets: the prompt that the engine is given, and how its answer is taken apart.
#include "serve_rig.c"

// ---- chat -------------------------------------------------------------------------------------

#define TOOL(name)                                                                         \
    "{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"parameters\":{\"type\":" \
    "\"object\",\"properties\":{\"cmd\":{\"type\":\"string\"}}}}}"
#define ASK "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

// The text that the engine was given.
static struct str seen_prompt(struct buf *b)
{
    struct err e = {0};
    struct gguf *g = NULL;
    struct tokenizer *tok = NULL;
    buf_clear(b);
    assert_true(gguf_open(&g, model_path, &e) && vocab_open(&tok, g, &e));
    for (size_t i = 0; i < fake_seen.prompt.n; i++)
        buf_str(b, tokenizer_piece(tok, fake_seen.prompt.p[i]));
    tokenizer_close(tok);
    gguf_close(g);
    return buf_view(b);
}

static void prompt_ends_with(const char *end)
{
    struct buf b = {0};
    if (!str_ends(seen_prompt(&b), str_from(end)))
        fail_msg("the prompt does not end with \"%s\": %s", end, buf_cstr(&b));
    buf_free(&b);
}

static void forced_calls_are_opened(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *end, *answer, *call;
    } cases[] = {
        {"\"tools\":[" TOOL("exec") "," TOOL("send") "],\"tool_choice\":{\"type\":\"function\","
                                                     "\"function\":{\"name\":\"send\"}}",
         "</think>\n\n<tool_call>\n{\"name\": \"send\", \"arguments\":",
         " {\"cmd\": \"ls\"}}\n</tool_call>", "\"name\":\"send\""},
        {"\"tools\":[" TOOL("exec") "," TOOL("send") "],\"tool_choice\":\"required\"",
         "</think>\n\n<tool_call>\n{\"name\": \"",
         "exec\", \"arguments\": {\"cmd\": \"ls\"}}\n</tool_call>", "\"name\":\"exec\""},
        {"\"tools\":[" TOOL("exec") "],\"tool_choice\":\"required\",\"enable_thinking\":true",
         "</think>\n\n<tool_call>\n{\"name\": \"exec\", \"arguments\":",
         " {\"cmd\": \"ls\"}}\n</tool_call>", "\"name\":\"exec\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client c;
        struct buf b = {0};
        fake_script.text = cases[i].answer;
        buf_printf(&b, "{" ASK ",%s}", cases[i].fields);
        post(&c, "/v1/chat/completions", buf_cstr(&b));
        expect(&c, "HTTP/1.1 200");
        prompt_ends_with(cases[i].end);
        expect(&c, cases[i].call);
        expect(&c, "\"arguments\":\"{\\\"cmd\\\": \\\"ls\\\"}\"");
        expect(&c, "\"finish_reason\":\"tool_calls\"");
        client_close(&c);
        buf_free(&b);
    }
}

static void choice_none_hides_the_tools(void **state)
{
    (void)state;
    struct client c;
    struct buf b = {0};
    post(&c, "/v1/chat/completions",
         "{" ASK ",\"tools\":[" TOOL("exec") "],\"tool_choice\":\"none\"}");
    expect(&c, "HTTP/1.1 200");
    assert_true(str_find(seen_prompt(&b), STR("exec"), 0) == SIZE_MAX);
    client_close(&c);
    buf_free(&b);
}

// Qwen3's template closes an empty thought when thinking is off.
static void thinking_follows_the_request(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        bool off;
    } cases[] = {
        {"", false},
        {",\"enable_thinking\":false", true},
        {",\"reasoning_effort\":\"none\"", true},
        {",\"reasoning_effort\":\"low\"", false},
        {",\"reasoning_effort\":\"none\",\"enable_thinking\":true", false},
        {",\"chat_template_kwargs\":{\"enable_thinking\":false}", true},
        {",\"enable_thinking\":true,\"chat_template_kwargs\":{\"enable_thinking\":false}", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client c;
        struct buf b = {0};
        buf_printf(&b, "{" ASK "%s}", cases[i].fields);
        post(&c, "/v1/chat/completions", buf_cstr(&b));
        prompt_ends_with(cases[i].off ? "<think>\n\n</think>\n\n" : "<|im_start|>assistant\n");
        assert_float_equal(fake_seen.temperature, cases[i].off ? 0.7 : 0.6, 1e-6);
        client_close(&c);
        buf_free(&b);
    }
}

static void server_settings_decide_where_the_request_is_silent(void **state)
{
    (void)state;
    struct client c;
    memset(&fake_script, 0, sizeof fake_script);
    fake_script.text = "ok";
    atomic_store(&fake_script.load_gate, 1);
    open_with(&(struct serve_settings){.reasoning = REASONING_OFF,
                                       .template_kwargs = STR("{\"enable_thinking\": false}"),
                                       .timeout_ms = 777});
    wait_ready();
    post(&c, "/v1/chat/completions", "{" ASK "}");
    prompt_ends_with("</think>\n\n");
    assert_int_equal(fake_seen.timeout_ms, 777);
    client_close(&c);
    post(&c, "/v1/chat/completions", "{" ASK ",\"reasoning_effort\":\"high\",\"timeout_ms\":888}");
    prompt_ends_with("<|im_start|>assistant\n");
    assert_int_equal(fake_seen.timeout_ms, 888);
    client_close(&c);
}

static void answers_are_taken_apart(void **state)
{
    (void)state;
    struct client c;
    fake_script.text = "<think>\nlet me see\n</think>\n\nDone.\n<tool_call>\n{\"name\": \"exec\", "
                       "\"arguments\": {}}\n</tool_call>";
    fake_script.token_ms = 2;
    post(&c, "/v1/chat/completions", "{" ASK ",\"stream\":true,\"tools\":[" TOOL("exec") "]}");
    expect(&c, "\"delta\":{\"role\":\"assistant\",\"content\":null}");
    assert_int_equal(count(&c, "\"role\":"), 1);
    expect(&c, "\"reasoning_content\":\"");
    expect(&c, "\"content\":\"D");
    expect(&c, "\"tool_calls\":[{\"index\":0,\"id\":\"call_");
    expect(&c, "\"function\":{\"name\":\"exec\"");
    expect(&c, "\"finish_reason\":\"tool_calls\"");
    expect_not(&c, "think>");
    expect_not(&c, "\"content\":\"\"");
    client_close(&c);
}

static void broken_calls_come_back_as_text(void **state)
{
    (void)state;
    struct client c;
    fake_script.text = "<tool_call>\n{\"name\": \"exec\", \"argu";
    fake_script.cut = true;
    post(&c, "/v1/chat/completions", "{" ASK ",\"tools\":[" TOOL("exec") "]}");
    expect(&c, "HTTP/1.1 200");
    expect(&c, "exec");
    expect(&c, "\"finish_reason\":\"length\"");
    client_close(&c);
}

int main(void)
{
    rig_init();
    const struct CMUnitTest tests[] = {
        CASE(forced_calls_are_opened),
        CASE(choice_none_hides_the_tools),
        CASE(thinking_follows_the_request),
        ALONE(server_settings_decide_where_the_request_is_silent),
        CASE(answers_are_taken_apart),
        CASE(broken_calls_come_back_as_text),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    rig_deinit();
    return rc;
}
