// Every field with right values, wrong types and values outside its bounds; expectations follow
// OpenAI's API reference and the server's documented extensions.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "serve/openai_request.h"

enum { N_VOCAB = 1000 };

static struct arena arena;
static struct request_params p;
static struct err e;

// Puts `fields` into a minimal body of the kind and reads it. The text stays alive in the arena.
static bool read(bool chat, const char *fields)
{
    struct buf b = {0};
    struct value body = {0};
    memset(&e, 0, sizeof e);
    memset(&p, 0, sizeof p);
    arena_free(&arena);
    buf_printf(&b, "{%s%s}", chat ? "\"messages\":[]," : "\"prompt\":\"x\",", fields);
    struct str text = arena_str(&arena, buf_view(&b));
    buf_free(&b);
    assert_true(value_parse(&body, &arena, text, &e));
    return chat ? request_read_chat(&p, body, N_VOCAB, &arena, &e)
                : request_read_completion(&p, body, N_VOCAB, &arena, &e);
}

static bool read_chat(const char *fields)
{
    return read(true, fields);
}

static void refuses(bool chat, const char *fields, const char *named, enum err_code code)
{
    if (read(chat, fields)) fail_msg("accepted: %s", fields);
    if (strstr(e.msg, named) == NULL)
        fail_msg("%s: error does not name %s: %s", fields, named, e.msg);
    assert_int_equal(e.code, code);
}

// name, a value of each JSON type that must be refused
static void wrong_types_name_the_field(void **state)
{
    (void)state;
    static const char *const values[] = {"true", "\"x\"", "5", "0.5", "[]", "{}"};
    static const struct {
        const char *name;
        const char *good; // characters at the index of a good value: 1
    } fields[] = {
        {"stream", "100000"},
        {"temperature", "000100"},
        {"top_p", "000100"},
        {"min_p", "000100"},
        {"top_k", "001000"},
        {"repeat_penalty", "001100"},
        {"repetition_penalty", "001100"},
        {"presence_penalty", "000100"},
        {"frequency_penalty", "000100"},
        {"max_tokens", "001000"},
        {"max_completion_tokens", "001000"},
        {"n_predict", "001000"},
        {"ignore_eos", "100000"},
        {"priority", "001000"},
        {"timeout_ms", "001000"},
        {"seed", "001000"},
        {"logit_bias", "000001"},
        {"stop", "010010"},
        {"stream_options", "000001"},
        {"cache_salt", "010000"},
        {"logprobs", "100000"},
        {"parallel_tool_calls", "100000"},
        {"add_generation_prompt", "100000"},
        {"enable_thinking", "100000"},
        {"reasoning_effort", "010000"},
        {"chat_template_kwargs", "000001"},
        {"tools", "000010"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        for (size_t v = 0; v < 6; v++) {
            char text[200], quoted[60];
            snprintf(text, sizeof text, "\"%s\":%s", fields[i].name, values[v]);
            snprintf(quoted, sizeof quoted, "\"%s\"", fields[i].name);
            if (fields[i].good[v] == '0') {
                refuses(true, text, quoted, ERR_INPUT);
            } else if (!read_chat(text)) {
                fail_msg("refused %s: %s", text, e.msg);
            }
        }
}

static void null_and_unknown_are_absent(void **state)
{
    (void)state;
    assert_true(read_chat("\"temperature\":null,\"stop\":null,\"max_tokens\":null,\"tools\":null,"
                          "\"tool_choice\":null,\"seed\":null,\"logit_bias\":null,"
                          "\"stream_options\":null,\"response_format\":null,\"logprobs\":null,"
                          "\"reasoning_effort\":null,\"chat_template_kwargs\":null,"
                          "\"nonsense\":[1,{}],\"user\":\"u\",\"store\":true"));
    assert_false(p.sampling.has_temperature);
    assert_false(p.sampling.has_seed);
    assert_int_equal(p.max_tokens, 0);
    assert_int_equal(p.n_stops, 0);
    assert_int_equal(p.tools.kind, VALUE_UNDEFINED);
    assert_int_equal(p.thinking, -1);
    assert_true(p.parallel_tool_calls && p.add_generation_prompt && p.split_reasoning);
    assert_false(p.stream || p.logprobs || p.include_usage || p.ignore_eos);
}

static void numbers_keep_their_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *text, *name;
    } bad[] = {
        {"\"temperature\":-0.1", "temperature"},
        {"\"temperature\":2.01", "temperature"},
        {"\"temperature\":1e999",
         "\"temperature\" must be from 0 to 2; this number is far outside"},
        {"\"top_p\":1.5", "top_p"},
        {"\"top_p\":-1", "top_p"},
        {"\"min_p\":2", "min_p"},
        {"\"top_k\":-2", "top_k"},
        {"\"top_k\":1.5", "top_k"},
        {"\"presence_penalty\":2.5", "presence_penalty"},
        {"\"frequency_penalty\":-3", "frequency_penalty"},
        {"\"repeat_penalty\":0", "repeat_penalty"},
        {"\"max_tokens\":0", "max_tokens"},
        {"\"max_tokens\":-5", "max_tokens"},
        {"\"max_tokens\":99999999999999999999", "max_tokens"},
        {"\"max_completion_tokens\":2147483648", "max_completion_tokens"},
        {"\"timeout_ms\":0", "timeout_ms"},
        {"\"priority\":3000000000", "priority"},
        {"\"logprobs\":true,\"top_logprobs\":21", "top_logprobs"},
        {"\"top_logprobs\":3", "top_logprobs"},
        {"\"n\":0", "\"n\""},
        {"\"seed\":99999999999999999999", "2^63"},
        {"\"seed\":0.5", "2^63"},
        {"\"logit_bias\":{\"1000\":1}", "logit_bias"},
        {"\"logit_bias\":{\"-1\":1}", "logit_bias"},
        {"\"logit_bias\":{\"x\":1}", "logit_bias"},
        {"\"logit_bias\":{\"1\":101}", "logit_bias"},
        {"\"logit_bias\":{\"1\":\"2\"}", "logit_bias"},
        {"\"logit_bias\":{\"\":1}", "logit_bias"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refuses(true, bad[i].text, bad[i].name, ERR_INPUT);
}

static void values_arrive(void **state)
{
    (void)state;
    assert_true(read_chat("\"temperature\":0,\"top_p\":1,\"top_k\":-1,\"min_p\":0.05,"
                          "\"presence_penalty\":-2,\"frequency_penalty\":0.5,\"seed\":-7,"
                          "\"max_tokens\":10,\"max_completion_tokens\":20,\"n_predict\":30,"
                          "\"priority\":-3,\"timeout_ms\":1500,\"cache_salt\":\"abc\","
                          "\"logit_bias\":{\"7\":-100,\"999\":2.5},\"stream\":true,"
                          "\"stream_options\":{\"include_usage\":true},\"n\":1"));
    assert_true(p.sampling.has_temperature && p.sampling.temperature <= 0);
    assert_true(p.sampling.has_top_k);
    assert_int_equal(p.sampling.top_k, 0);
    assert_float_equal(p.sampling.min_p, 0.05, 1e-6);
    assert_float_equal(p.sampling.presence_penalty, -2, 0);
    assert_float_equal(p.sampling.frequency_penalty, 0.5, 0);
    assert_true(p.sampling.has_seed && p.sampling.seed == (uint64_t)-7);
    assert_int_equal(p.max_tokens, 20); // the newer name wins
    assert_int_equal(p.priority, -3);
    assert_int_equal(p.timeout_ms, 1500);
    assert_true(str_eq(p.cache_salt, STR("abc")));
    assert_int_equal(p.n_bias, 2);
    assert_int_equal(p.bias[1].token, 999);
    assert_float_equal(p.bias[0].bias, -100, 0);
    assert_true(p.stream && p.include_usage);
    assert_true(read_chat("\"max_tokens\":-1,\"seed\":-1"));
    assert_int_equal(p.max_tokens, 0);
    assert_false(p.sampling.has_seed);
}

static void stops_in_both_forms(void **state)
{
    (void)state;
    assert_true(read_chat("\"stop\":\"END\""));
    assert_int_equal(p.n_stops, 1);
    assert_true(read_chat("\"stop\":[\"a\",\"\",\"b\\n\"]"));
    assert_int_equal(p.n_stops, 2);
    assert_true(str_eq(p.stops[1], STR("b\n")));
    refuses(true, "\"stop\":[\"a\",1]", "\"stop\"", ERR_INPUT);
    refuses(true,
            "\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\","
            "\"13\",\"14\",\"15\",\"16\",\"17\"]",
            "\"stop\"", ERR_INPUT);
}

#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"exec\"}}]"

static void tool_choices(void **state)
{
    (void)state;
    assert_true(read_chat(TOOLS ",\"tool_choice\":\"auto\""));
    assert_int_equal(p.tool_choice, CHOICE_AUTO);
    assert_true(read_chat(TOOLS ",\"tool_choice\":\"none\""));
    assert_int_equal(p.tool_choice, CHOICE_NONE);
    assert_true(read_chat(TOOLS ",\"tool_choice\":\"required\""));
    assert_int_equal(p.tool_choice, CHOICE_REQUIRED);
    assert_true(read_chat(TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"
                                "\"exec\"}}"));
    assert_int_equal(p.tool_choice, CHOICE_NAMED);
    assert_true(str_eq(p.tool_name, STR("exec")));
    refuses(true, TOOLS ",\"tool_choice\":\"any\"", "tool_choice", ERR_INPUT);
    refuses(true, TOOLS ",\"tool_choice\":1", "tool_choice", ERR_INPUT);
    refuses(true, TOOLS ",\"tool_choice\":{\"type\":\"function\"}", "tool_choice", ERR_INPUT);
    refuses(true, TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"rm\"}}",
            "rm", ERR_INPUT);
    refuses(true, "\"tool_choice\":\"required\"", "tool_choice", ERR_INPUT);
}

static void thinking_has_an_order(void **state)
{
    (void)state;
    assert_true(read_chat("\"reasoning_effort\":\"none\""));
    assert_int_equal(p.thinking, 0);
    assert_true(read_chat("\"reasoning_effort\":\"medium\""));
    assert_int_equal(p.thinking, 1);
    assert_true(read_chat("\"reasoning_effort\":\"high\",\"enable_thinking\":false"));
    assert_int_equal(p.thinking, 0);
    assert_true(read_chat("\"enable_thinking\":false,"
                          "\"chat_template_kwargs\":{\"enable_thinking\":true}"));
    assert_int_equal(p.thinking, 1);
    refuses(true, "\"chat_template_kwargs\":{\"enable_thinking\":\"yes\"}", "enable_thinking",
            ERR_INPUT);
}

static void what_is_missing_is_said(void **state)
{
    (void)state;
    refuses(true, "\"response_format\":{\"type\":\"xml\"}", "\"json_object\" and \"json_schema\"",
            ERR_UNSUPPORTED);
    assert_int_equal(err_http_status(e.code), 400);
    assert_true(read_chat("\"response_format\":{\"type\":\"text\"}"));
    refuses(true, "\"response_format\":\"json\"", "response_format", ERR_INPUT);
    refuses(true, "\"response_format\":{}", "response_format.type", ERR_INPUT);
    refuses(true, "\"grammar\":\"root ::= x\"", "send \"response_format\"", ERR_UNSUPPORTED);
    refuses(true, "\"guided_json\":{}", "guided_json", ERR_UNSUPPORTED);
    refuses(false, "\"structured_outputs\":{}", "structured_outputs", ERR_UNSUPPORTED);
    refuses(true, "\"functions\":[{\"name\":\"f\"}]", "send \"tools\"", ERR_UNSUPPORTED);
    refuses(true, "\"function_call\":\"auto\"", "send \"tools\"", ERR_UNSUPPORTED);
    refuses(true, "\"n\":2", "\"n\"", ERR_UNSUPPORTED);
    refuses(false, "\"echo\":true", "echo", ERR_UNSUPPORTED);
    refuses(false, "\"best_of\":2", "best_of", ERR_UNSUPPORTED);
    refuses(false, "\"suffix\":\"x\"", "suffix", ERR_UNSUPPORTED);
    assert_true(read(false, "\"echo\":false,\"best_of\":1,\"suffix\":\"\""));
}

static void forms_of_an_answer(void **state)
{
    (void)state;
    static const char schema[] = "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\","
                                 "\"strict\":true,\"schema\":{\"type\":\"null\"}}}";
    static const char tool[] = "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]";
    char text[400];
    assert_true(read_chat("\"n\":1"));
    assert_int_equal(p.form, FORM_TEXT);
    assert_true(read_chat("\"response_format\":{\"type\":\"json_object\"}"));
    assert_int_equal(p.form, FORM_OBJECT);
    snprintf(text, sizeof text, "\"response_format\":%s", schema);
    assert_true(read_chat(text));
    assert_int_equal(p.form, FORM_SCHEMA);
    assert_int_equal(value_get(p.schema, "type").kind, VALUE_STRING);
    assert_true(read(false, "\"prompt\":\"y\",\"json_schema\":{}")); // llama-server's
    assert_int_equal(p.form, FORM_SCHEMA);
    assert_true(read_chat("\"response_format\":{\"type\":\"json_object\",\"schema\":{}}"));
    assert_int_equal(p.form, FORM_SCHEMA);
    refuses(true, "\"response_format\":{\"type\":\"json_schema\"}",
            "response_format.json_schema.schema\" is missing", ERR_INPUT);
    refuses(true, "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":1}}",
            "must be an object", ERR_INPUT);
    snprintf(text, sizeof text, "\"response_format\":%s,%s", schema, tool);
    assert_true(read_chat(text)); // an answer is a call or has the form
}

static void prompts_in_four_forms(void **state)
{
    (void)state;
    assert_true(read(false, "\"prompt\":\"y\""));
    assert_int_equal(p.prompt.kind, VALUE_STRING);
    assert_true(read(false, "\"prompt\":[\"y\"]"));
    assert_int_equal(p.prompt.kind, VALUE_STRING);
    assert_true(read(false, "\"prompt\":[1,2,999]"));
    assert_int_equal(p.prompt.list->n, 3);
    assert_true(read(false, "\"prompt\":[[1,2]]"));
    assert_int_equal(p.prompt.list->n, 2);
    refuses(false, "\"prompt\":[\"a\",\"b\"]", "prompt", ERR_UNSUPPORTED);
    refuses(false, "\"prompt\":[1000]", "prompt", ERR_INPUT);
    refuses(false, "\"prompt\":[-1]", "prompt", ERR_INPUT);
    refuses(false, "\"prompt\":[1,\"a\"]", "prompt", ERR_INPUT);
    refuses(false, "\"prompt\":5", "prompt", ERR_INPUT);
    refuses(false, "\"prompt\":null", "prompt", ERR_INPUT);
    assert_true(read(false, "\"logprobs\":3"));
    assert_true(p.logprobs && p.n_top_logprobs == 3);
    refuses(false, "\"logprobs\":21", "logprobs", ERR_INPUT);
}

static void bodies_that_are_no_request(void **state)
{
    (void)state;
    static const char *const texts[] = {"[]", "1", "\"x\"", "null", "{}", "{\"messages\":{}}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct value body;
        memset(&e, 0, sizeof e);
        assert_true(value_parse(&body, &arena, str_from(texts[i]), &e));
        assert_false(request_read_chat(&p, body, N_VOCAB, &arena, &e));
        assert_int_equal(e.code, ERR_INPUT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_types_name_the_field), cmocka_unit_test(null_and_unknown_are_absent),
        cmocka_unit_test(numbers_keep_their_bounds),  cmocka_unit_test(values_arrive),
        cmocka_unit_test(stops_in_both_forms),        cmocka_unit_test(tool_choices),
        cmocka_unit_test(thinking_has_an_order),      cmocka_unit_test(what_is_missing_is_said),
        cmocka_unit_test(forms_of_an_answer),         cmocka_unit_test(prompts_in_four_forms),
        cmocka_unit_test(bodies_that_are_no_request),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(&arena);
    return rc;
}
