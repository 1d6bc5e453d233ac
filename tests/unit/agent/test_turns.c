// Whole runs against a scripted server: tool calls, refusals, loops, limits and every kind of
// ending.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "agent/turns.h"
#include "base/clock.h"
#include "lib/fake_openai.h"

#define CHUNK(json) "data: " json "\n\n"
#define END(why)                                                                      \
    CHUNK("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" why "\"}]}") \
    CHUNK("{\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":9," \
          "\"prompt_tokens_details\":{\"cached_tokens\":60}}}")                       \
    "data: [DONE]\n\n"
#define SAY(text)                                                                                  \
    FAKE_SSE CHUNK("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text "\"}}]}") END("sto" \
                                                                                             "p")
#define CALL_NAMED(name, args)                                                              \
    FAKE_SSE CHUNK(                                                                         \
        "{\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\"," \
        "\"function\":{\"name\":\"" name "\",\"arguments\":\"" args "\"}}]}}]}") END("tool_calls")
#define CALL(command) CALL_NAMED("exec", "{\\\"command\\\":\\\"" command "\\\"}")

static const char *const environment[] = {"PATH=/usr/bin:/bin", NULL};

struct outcome {
    struct run_result r;
    struct buf json;
    json_t *sent[8]; // the requests' bodies
    size_t n_sent;
};

static void keep_requests(struct outcome *o, struct fake_openai *f)
{
    o->n_sent = fake_openai_count(f);
    for (size_t i = 0; i < o->n_sent && i < 8; i++) {
        const char *body = strstr(fake_openai_request(f, i), "\r\n\r\n");
        o->sent[i] = json_loads(body + 4, 0, NULL);
        assert_non_null(o->sent[i]);
    }
}

static struct outcome run(const struct fake_response *list, size_t n, uint32_t timeout_ms)
{
    struct outcome o = {0};
    struct fake_openai *f = fake_openai_open(list, n);
    struct allow_rule rules[2] = {0};
    struct workspace_config config = {.exec = {.timeout_s = 10, .output_bytes = 1000},
                                      .sandbox = {.mode = SANDBOX_OFF}};
    struct tool_set_spec spec = {.config = &config, .environment = environment, .run_id = "id"};
    struct tool_set *tools = NULL;
    struct http_client *c = NULL;
    struct err e = {0};
    assert_true(words_split(&rules[0].patterns, STR("echo **"), &e));
    assert_true(words_split(&rules[1].patterns, STR("sleep *"), &e));
    config.exec.allow = (struct allow_list){.rules = rules, .n = 2};
    assert_true(tool_set_open(&tools, &spec, &e));
    assert_true(http_client_open(&c, fake_openai_url(f), NULL, &e));
    struct run_settings s = {.bootstrap = STR("You help."),
                             .task = STR("greet"),
                             .id = "run-1",
                             .tools = tools,
                             .server = c,
                             .deadline_ns = timeout_ms ? clock_ns() + timeout_ms * 1000000ull : 0,
                             .timeout_s = timeout_ms / 1000.0,
                             .max_turns = 5,
                             .max_tokens = 77,
                             .has_temperature = true,
                             .thinking = 0};
    run_loop(&s, &o.r);
    run_result_json(&o.r, &o.json);
    keep_requests(&o, f);
    http_client_close(c);
    tool_set_close(tools);
    words_free(&rules[0].patterns);
    words_free(&rules[1].patterns);
    fake_openai_close(f);
    return o;
}

static void drop(struct outcome *o)
{
    for (size_t i = 0; i < 8; i++) json_decref(o->sent[i]);
    run_result_free(&o->r);
    buf_free(&o->json);
}

static const char *message(const struct outcome *o, size_t request, size_t i, const char *field)
{
    json_t *messages = json_object_get(o->sent[request], "messages");
    const char *text = json_string_value(json_object_get(json_array_get(messages, i), field));
    return text != NULL ? text : "";
}

static void a_task_with_a_tool_call_is_done(void **state)
{
    (void)state;
    const struct fake_response list[] = {{.bytes = CALL("echo hello")},
                                         {.bytes = SAY(" It said hello.")}};
    struct outcome o = run(list, 2, 20000);
    if (o.r.outcome != RUN_DONE) fail_msg("%s", o.r.error.msg);
    assert_int_equal(run_exit_code(&o.r), 0);
    assert_string_equal(buf_cstr(&o.r.report), "It said hello.");
    assert_string_equal(buf_cstr(&o.r.stage), "answer");
    assert_int_equal(o.n_sent, 2);
    assert_string_equal(message(&o, 0, 0, "role"), "system");
    assert_string_equal(message(&o, 0, 0, "content"), "You help.");
    assert_non_null(strstr(message(&o, 0, 1, "content"), "greet\n\nRuntime: date="));
    assert_non_null(strstr(message(&o, 0, 1, "content"), "run=run-1"));
    assert_string_equal(message(&o, 1, 2, "role"), "assistant");
    assert_string_equal(message(&o, 1, 3, "role"), "tool");
    assert_string_equal(message(&o, 1, 3, "content"), "exit code: 0\nhello");
    assert_string_equal(message(&o, 1, 3, "tool_call_id"), "c1");
    assert_int_equal(json_integer_value(json_object_get(o.sent[0], "max_tokens")), 77);
    assert_true(json_is_true(json_object_get(o.sent[0], "stream")));
    drop(&o);
}

// The second request must begin with the bytes of the first one's messages, or no prefix is found
// again.
static void the_transcript_only_grows(void **state)
{
    (void)state;
    const struct fake_response list[] = {
        {.bytes = CALL("echo a")}, {.bytes = CALL("echo b")}, {.bytes = SAY("ok")}};
    struct outcome o = run(list, 3, 20000);
    assert_int_equal(o.n_sent, 3);
    for (size_t i = 1; i < 3; i++) {
        json_t *before = json_object_get(o.sent[i - 1], "messages");
        json_t *now = json_object_get(o.sent[i], "messages");
        assert_int_equal(json_array_size(now), json_array_size(before) + 2);
        for (size_t k = 0; k < json_array_size(before); k++)
            assert_true(json_equal(json_array_get(before, k), json_array_get(now, k)));
    }
    drop(&o);
}

static void the_json_has_every_promised_key(void **state)
{
    (void)state;
    static const char *const keys[] = {"id",      "outcome",       "stage",
                                       "report",  "prompt_tokens", "cached_tokens",
                                       "ttft_ms", "gen_tps",       "tool_calls"};
    const struct fake_response list[] = {{.bytes = CALL("echo hello")},
                                         {.bytes = SAY("Done \\\"x\\\".")}};
    struct outcome o = run(list, 2, 20000);
    json_t *v = json_loadb(o.json.p, o.json.n, 0, NULL);
    assert_non_null(v);
    for (size_t i = 0; i < 9; i++) assert_non_null(json_object_get(v, keys[i]));
    assert_string_equal(json_string_value(json_object_get(v, "outcome")), "done");
    assert_string_equal(json_string_value(json_object_get(v, "report")), "Done \"x\".");
    assert_int_equal(json_integer_value(json_object_get(v, "prompt_tokens")), 100);
    assert_int_equal(json_integer_value(json_object_get(v, "cached_tokens")), 60);
    assert_int_equal(json_integer_value(json_object_get(v, "prefilled_tokens")), 80);
    json_t *call = json_array_get(json_object_get(v, "tool_calls"), 0);
    assert_string_equal(json_string_value(json_object_get(call, "ran")), "echo hello");
    assert_int_equal(json_integer_value(json_object_get(call, "exit_code")), 0);
    json_decref(v);
    drop(&o);
}

static void failures_are_told_with_their_reason(void **state)
{
    (void)state;
    static const struct {
        struct fake_response list[5];
        size_t n;
        const char *words, *stage;
        enum run_outcome outcome;
        int exit_code;
    } cases[] = {
        {{{.bytes = FAKE_SSE END("stop")}}, 1, "gave no answer (9 tokens", "answer", RUN_FAILED, 1},
        {{{.bytes = SAY("  ")}}, 1, "gave no answer", "answer", RUN_FAILED, 1},
        {{{.bytes =
               FAKE_SSE CHUNK("{\"choices\":[{\"delta\":{\"content\":\"half\"}}]}") END("length")}},
         1,
         "cut off at 77 tokens",
         "answer",
         RUN_FAILED,
         1},
        {{{.bytes = CALL("rm -rf /")}, {.bytes = SAY("It failed.")}},
         2,
         "could not run: Error: not allowed: rm -rf /",
         "answer",
         RUN_FAILED,
         1},
        {{{.bytes = CALL("sleep 30")}},
         1,
         "out of time after 1 s (in tool exec",
         "tool exec: {",
         RUN_TIMEOUT,
         124},
        {{{.bytes = FAKE_SSE, .stall = true}},
         1,
         "out of time (in queue)",
         "queue",
         RUN_TIMEOUT,
         124},
        {{{.bytes = CALL("rm x")}, {.bytes = CALL("rm x")}, {.bytes = CALL("rm x")}},
         3,
         "the same call failed 2 times",
         "tool exec",
         RUN_FAILED,
         1},
        {{{.bytes = CALL("echo 1")},
          {.bytes = CALL("echo 2")},
          {.bytes = CALL("echo 3")},
          {.bytes = CALL("echo 4")},
          {.bytes = CALL("echo 5")}},
         5,
         "no report after 5 turns",
         "tool exec",
         RUN_FAILED,
         1},
        {{{.bytes = "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n"}},
         1,
         "401",
         "request",
         RUN_NO_SERVER,
         3},
        {{{.bytes = "HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n{\"error\":{\"message\":\"too "
                    "long\"}}"}},
         1,
         "too long",
         "request",
         RUN_FAILED,
         1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct outcome o = run(cases[i].list, cases[i].n, 1000);
        if (o.r.outcome != cases[i].outcome || strstr(o.r.error.msg, cases[i].words) == NULL ||
            strncmp(buf_cstr(&o.r.stage), cases[i].stage, strlen(cases[i].stage)) != 0)
            fail_msg("case %zu: %s in %s: %s", i, run_outcome_name(o.r.outcome),
                     buf_cstr(&o.r.stage), o.r.error.msg);
        assert_int_equal(run_exit_code(&o.r), cases[i].exit_code);
        json_t *transcript = json_loadb(o.r.messages.p, o.r.messages.n, 0, NULL);
        assert_true(json_array_size(transcript) >= 2);
        json_decref(transcript);
        drop(&o);
    }
}

static void mistakes_of_the_model_are_told_to_it(void **state)
{
    (void)state;
    const struct fake_response list[] = {{.bytes = CALL_NAMED("read", "{}")},
                                         {.bytes = CALL_NAMED("exec", "{broken")},
                                         {.bytes = CALL_NAMED("exec", "[]")},
                                         {.bytes = CALL("echo mended")},
                                         {.bytes = SAY("mended")}};
    struct outcome o = run(list, 5, 20000);
    if (o.r.outcome != RUN_DONE) fail_msg("%s", o.r.error.msg);
    assert_string_equal(message(&o, 4, 3, "content"),
                        "Error: there is no tool \"read\"; there is: exec");
    assert_non_null(
        strstr(message(&o, 4, 5, "content"), "Error: the arguments are no JSON object: "));
    assert_string_equal(message(&o, 4, 7, "content"), "Error: the arguments are no JSON object");
    assert_int_equal(o.r.n_calls, 4);
    assert_true(o.r.calls[0].refused && !o.r.calls[3].refused);
    drop(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_with_a_tool_call_is_done),
        cmocka_unit_test(the_transcript_only_grows),
        cmocka_unit_test(the_json_has_every_promised_key),
        cmocka_unit_test(failures_are_told_with_their_reason),
        cmocka_unit_test(mistakes_of_the_model_are_told_to_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
