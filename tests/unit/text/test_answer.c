// The answer parser. Expected results follow the rules at the head of answer.c; each case is also
// fed cut in two at every place, and byte by byte, with the same result.
#include "text/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/value.h"

// What came out, pieces of a kind put together: "R|reasoning" "C|content" "N|name" "A|arguments"
// "E".
struct log {
    struct buf text, arguments;
    char last;
    int calls, parts;
};

static void put_part(struct log *l, char kind, struct str text)
{
    if (l->last != kind || kind == 'N' || kind == 'E') {
        if (l->text.n > 0) buf_c(&l->text, ' ');
        buf_c(&l->text, kind);
        if (kind != 'E') buf_c(&l->text, '|');
    }
    buf_str(&l->text, text);
    l->last = kind;
}

static void on_part(void *arg, enum answer_part part, int call, struct str text)
{
    struct log *l = arg;
    l->parts++;
    put_part(l, "RCNAE"[part], text);
    if (part == ANSWER_CALL_BEGIN) {
        assert_int_equal(call, l->calls);
        l->calls++;
        buf_clear(&l->arguments);
    }
    if (part == ANSWER_CALL_ARGS) {
        assert_int_equal(call, l->calls - 1);
        buf_str(&l->arguments, text);
    }
    if (part == ANSWER_CALL_END) {
        struct arena a = {0};
        struct value v;
        struct err e = {0};
        if (!value_parse(&v, &a, buf_view(&l->arguments), &e))
            fail_msg("arguments are no JSON: %s", buf_cstr(&l->arguments));
        arena_free(&a);
    }
    if (part == ANSWER_REASONING || part == ANSWER_CONTENT) assert_true(text.n > 0);
}

// Feeds text in pieces of `step` bytes behind a first one of `first`.
static void run(const struct answer_options *o, struct str text, size_t first, size_t step,
                struct log *l)
{
    struct answer *a = answer_open(o, on_part, l);
    assert_non_null(a);
    for (size_t at = 0; at < text.n;) {
        size_t n = at == 0 && first > 0 ? first : step;
        struct str piece = str_sub(text, at, n);
        answer_feed(a, piece);
        at += piece.n;
    }
    answer_finish(a, false);
    assert_int_equal(answer_n_calls(a), l->calls);
    answer_close(a);
}

static void check(const struct answer_options *o, const char *z, const char *want)
{
    struct str text = str_from(z);
    for (size_t cut = 0; cut <= text.n; cut++) { // 0: byte by byte
        struct log l = {0};
        run(o, text, cut, cut == 0 ? 1 : text.n, &l);
        if (strcmp(buf_cstr(&l.text), want) != 0)
            fail_msg("%s\ncut at %zu\nwant: %s\ngot:  %s", z, cut, want, buf_cstr(&l.text));
        buf_free(&l.text);
        buf_free(&l.arguments);
    }
}

static const struct answer_options all = {.tools = TOOLS_HERMES, .split_thinking = true};

static void test_text(void **state)
{
    (void)state;
    check(&all, "", "");
    check(&all, "Hello.", "C|Hello.");
    check(&all, " Hello,\n\n world\n", "C| Hello,\n\n world\n");
    check(&all, "a < b <think a> <tool_cal> </tool_call> <",
          "C|a < b <think a> <tool_cal> "
          "</tool_call> <");
    check(&all, "a <tool_c", "C|a <tool_c");
    check(&all, "gr\xc3\xbc\xc3\x9f <\xf0\x9f\x98\x80>", "C|gr\xc3\xbc\xc3\x9f <\xf0\x9f\x98\x80>");
}

static void test_thinking(void **state)
{
    (void)state;
    check(&all, "<think>\nWell.\n</think>\n\nYes.", "R|Well. C|Yes.");
    check(&all, "<think>\n\n</think>\n\nYes.", "C|Yes.");
    check(&all, "\n<think>a\n\nb\n\n</think>\n\n  indented\n", "R|a\n\nb C|  indented\n");
    check(&all, "<think>a</think>", "R|a");
    check(&all, "<think>a</think>\n\n", "R|a");
    check(&all, "<think>never closed </thin", "R|never closed </thin");
    check(&all, "No <think>tag</think> here", "C|No <think>tag</think> here");
    check(&all, "<think>a <tool_call> b</think>c", "R|a <tool_call> b C|c");
    struct answer_options o = all;
    o.starts_in_thinking = true;
    check(&o, "Well.\n</think>\n\nYes.", "R|Well. C|Yes.");
    check(&o, "\nonly thoughts\n", "R|only thoughts");
    o = (struct answer_options){.tools = TOOLS_HERMES};
    check(&o, "<think>a</think>b", "C|<think>a</think>b");
    o = (struct answer_options){0};
    check(&o, "\n<think>a</think>\n<tool_call>{}</tool_call>\n",
          "C|\n<think>a</think>\n<tool_call>{}</tool_call>\n");
}

static void test_calls(void **state)
{
    (void)state;
    check(&all,
          "<tool_call>\n{\"name\": \"exec\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>",
          "N|exec A|{\"command\": \"ls\"} E");
    check(&all,
          "<think>\nx\n</think>\n\nLet me see.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n"
          "</tool_call>\n<tool_call>\n{\"name\": \"b\", \"arguments\": {\"n\": [1, -2.5e3, true, "
          "null, \"<tool_call></tool_call>\\u00e9\\\"\"]}}\n</tool_call>\n",
          "R|x C|Let me see. N|a A|{} E N|b A|{\"n\": [1, -2.5e3, true, null, "
          "\"<tool_call></tool_call>\\u00e9\\\"\"]} E");
    check(&all, "<tool_call>{\"name\": \"f\"}</tool_call> done", "N|f A|{} E C| done");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": null}</tool_call>", "N|f A|{} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": \"\"}</tool_call>", "N|f A|{} E");
    check(&all, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>",
          "N|f A|{\"a\": 1} E");
    check(&all,
          "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": \\\"b\\\"}\"}</tool_call>",
          "N|f A|{\"a\": \"b\"} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": \"words\"}</tool_call>",
          "N|f A|\"words\" E");
    check(&all, "<tool_call>{\"id\": [1, {}], \"name\": \"f\", \"parameters\": {}}</tool_call>",
          "N|f A|{} E");
    check(&all,
          "<tool_call>{\"name\":\"f\",\"arguments\":{}}\n{\"name\":\"g\",\"arguments\":{}}"
          "</tool_call>",
          "N|f A|{} E N|g A|{} E");
    check(&all, "<tool_call>{\"name\": \"\\u0066\\n\", \"arguments\": {}}</tool_call>",
          "N|f\n A|{} E");
}

// Broken and cut calls: never lost, never half of a JSON text.
static void test_broken(void **state)
{
    (void)state;
    check(&all, "a\n\n<tool_call>\nnot json\n</tool_call>\n",
          "C|a\n\n<tool_call>\nnot json\n</tool_call>\n");
    check(&all, "<tool_call>{\"nome\": \"f\"}</tool_call>",
          "C|<tool_call>{\"nome\": \"f\"}</tool_call>");
    check(&all, "<tool_call>{\"name\": 5}</tool_call>", "C|<tool_call>{\"name\": 5}</tool_call>");
    check(&all, "<tool_call>{\"name\": \"f", "C|<tool_call>{\"name\": \"f");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": ",
          "C|<tool_call>{\"name\": \"f\", \"arguments\": ");
    check(&all, "<tool_call>", "C|<tool_call>");
    check(&all, "<tool_call><tool_call>{\"name\": \"f\"}</tool_call>", "C|<tool_call> N|f A|{} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b",
          "N|f A|{\"a\": \"b\"} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b\\u00",
          "N|f A|{\"a\": \"b\"} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [1, {\"c",
          "N|f A|{\"a\": [1, {\"c\":null}]} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 12", "N|f A|{\"a\":null} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1, ", "N|f A|{\"a\": 1} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1,}}</tool_call>next",
          "N|f A|{\"a\": 1} E C|next");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}</tool_call>",
          "N|f A|{\"a\": 1} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}}</tool_call>",
          "N|f A|{\"a\": 1} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": True}}</tool_call>",
          "N|f A|{\"a\":null} E C|True}}");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": [null(1]}</tool_call>",
          "N|f A|[null] E C|(1]}");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {}}\n</tool_c", "N|f A|{} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {}} hm <tool_call>{\"name\": \"g\"}",
          "N|f A|{} E C|hm N|g A|{} E");
    check(&all, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"1\n2\\d\"}}</tool_call>",
          "N|f A|{\"a\": \"1\\n2\\\\d\"} E");
}

static void test_forced(void **state)
{
    (void)state;
    struct answer_options o = all;
    o.forced = STR("<tool_call>\n{\"name\": \"f\", \"arguments\":");
    check(&o, " {\"a\": 1}}\n</tool_call>", "N|f A|{\"a\": 1} E");
    check(&o, "", "C|<tool_call>\n{\"name\": \"f\", \"arguments\":");
    o.forced = STR("<tool_call>\n{\"name\": \"");
    check(&o, "g\", \"arguments\": {}}\n</tool_call>", "N|g A|{} E");
}

// Arguments do stream: what is certain comes before the call is whole.
static void test_streams(void **state)
{
    (void)state;
    struct log l = {0};
    struct answer *a = answer_open(&all, on_part, &l);
    answer_feed(a, STR("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"text\": \"some"));
    assert_string_equal(buf_cstr(&l.text), "N|f A|{\"text\": \"some");
    answer_feed(a, STR(" words\", \"n\": 1"));
    assert_string_equal(buf_cstr(&l.text), "N|f A|{\"text\": \"some words\", \"n\":");
    answer_finish(a, true);
    assert_string_equal(buf_cstr(&l.text), "N|f A|{\"text\": \"some words\", \"n\":null} E");
    answer_close(a);
    buf_free(&l.text);
    buf_free(&l.arguments);
}

// A token with a space in front, as most are, is one part: each part becomes an event on the wire.
static void test_parts(void **state)
{
    (void)state;
    static const char *const tokens[] = {"<think>",  "\n",   "So", " it", " is", ".\n",
                                         "</think>", "\n\n", "It", " is", " \n", " so"};
    struct log l = {0};
    struct answer *a = answer_open(&all, on_part, &l);
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) answer_feed(a, str_from(tokens[i]));
    answer_finish(a, false);
    assert_string_equal(buf_cstr(&l.text), "R|So it is. C|It is \n so");
    assert_int_equal(l.parts, 7); // So, it, is, the full stop; It, is, so
    answer_close(a);
    buf_free(&l.text);
    buf_free(&l.arguments);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),   cmocka_unit_test(test_thinking),
        cmocka_unit_test(test_calls),  cmocka_unit_test(test_broken),
        cmocka_unit_test(test_forced), cmocka_unit_test(test_streams),
        cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
