// Which tokens may come, over a vocabulary that can be worked out by hand.
#include "engine/form.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "lib/tiny_vocab.h"
#include "text/json_schema.h"

static struct tokenizer *tok;
static struct err e;

static int open_vocab(void **state)
{
    (void)state;
    tok = tiny_vocab_open();
    return 0;
}

static int close_vocab(void **state)
{
    (void)state;
    tokenizer_close(tok);
    return 0;
}

static struct form open_form(const char *json, int32_t think_open, int32_t think_close, bool thinks)
{
    struct arena a = {0};
    struct value schema;
    struct form f;
    struct job_form want = {
        .think_open = think_open, .think_close = think_close, .in_thinking = thinks};
    assert_true(value_parse(&schema, &a, str_from(json), &e));
    assert_true(json_schema_compile(&want.answer, schema, &e));
    assert_true(form_open(&f, &want, &e));
    grammar_unref(want.answer); // the form has its own reference
    arena_free(&a);
    return f;
}

static const char hello[] = "{\"enum\":[\"hello\",\"he\"]}";

static void tokens_go_by_their_bytes(void **state)
{
    (void)state;
    struct form f = open_form(hello, -1, -1, false);
    static const int32_t wrong[] = {'h',           TINY_HELLO, TINY_IM_END, TINY_THINK,
                                    TINY_IM_START, -1,         TINY_N};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(form_allows(&f, tok, wrong[i]));
    form_take(&f, tok, '"');
    assert_true(form_allows(&f, tok, TINY_HELLO));
    assert_true(form_allows(&f, tok, TINY_HE));
    assert_true(form_allows(&f, tok, 'h'));
    assert_false(form_allows(&f, tok, TINY_EO));
    assert_false(form_allows(&f, tok, TINY_SPACE_HELLO));
    form_take(&f, tok, TINY_HE);
    assert_true(form_allows(&f, tok, TINY_LL));
    assert_true(form_allows(&f, tok, '"'));
    assert_false(form_allows(&f, tok, TINY_IM_END)); // not whole yet
    form_take(&f, tok, '"');
    assert_true(form_is_whole(&f));
    assert_true(form_allows(&f, tok, TINY_IM_END));
    form_close(&f);
    assert_true(form_allows(&f, tok, 'x')); // the free form
}

static struct form open_calls(const char *begun, const char *answer)
{
    const struct json_call call = {.name = STR("he")};
    struct arena a = {0};
    struct value schema;
    struct form f;
    struct job_form want = {.may_call = true,
                            .call_open = TINY_TOOL_CALL,
                            .call_close = TINY_END_TOOL_CALL,
                            .begun = str_from(begun),
                            .think_open = TINY_THINK,
                            .think_close = TINY_END_THINK};
    assert_true(json_calls_grammar(&want.call, &call, 1, &e));
    if (answer != NULL) {
        assert_true(value_parse(&schema, &a, str_from(answer), &e));
        assert_true(json_schema_compile(&want.answer, schema, &e));
    }
    assert_true(form_open(&f, &want, &e));
    grammar_unref(want.call);
    grammar_unref(want.answer);
    arena_free(&a);
    return f;
}

static void take_text(struct form *f, const char *text)
{
    for (; *text != '\0'; text++) {
        assert_true(form_allows(f, tok, *text));
        form_take(f, tok, *text);
    }
}

static void calls_have_a_form_and_nothing_else_has(void **state)
{
    (void)state;
    struct form f = open_calls("", NULL);
    for (int i = 0; i < 2; i++) { // a second call is held as the first one
        take_text(&f, "any }{ text");
        assert_true(form_allows(&f, tok, TINY_IM_END));
        form_take(&f, tok, TINY_TOOL_CALL);
        assert_false(form_allows(&f, tok, 'x'));
        assert_false(form_allows(&f, tok, TINY_IM_END));
        assert_false(form_allows(&f, tok, TINY_END_TOOL_CALL));
        take_text(&f, "\n{\"name\": \"");
        assert_true(form_allows(&f, tok, TINY_HE));
        assert_false(form_allows(&f, tok, TINY_HELLO)); // no such function
        take_text(&f, "he\", \"arguments\": {\"a\": [1]}}");
        assert_false(form_allows(&f, tok, TINY_IM_END)); // the call must be closed
        assert_true(form_allows(&f, tok, '\n') && form_allows(&f, tok, TINY_END_TOOL_CALL));
        form_take(&f, tok, TINY_END_TOOL_CALL);
        assert_false(form_is_whole(&f));
    }
    form_close(&f);
}

static void a_call_that_the_prompt_begins_goes_on(void **state)
{
    (void)state;
    struct form f = open_calls("\n{\"name\": \"he\", \"arguments\":", NULL);
    assert_false(form_allows(&f, tok, '}') || form_allows(&f, tok, '['));
    take_text(&f, " {}}");
    assert_true(form_allows(&f, tok, TINY_END_TOOL_CALL));
    form_close(&f);
}

static void an_answer_is_a_call_or_has_the_form(void **state)
{
    (void)state;
    struct form f = open_calls("", hello);
    form_take(&f, tok, TINY_THINK);
    take_text(&f, "hm");
    form_take(&f, tok, TINY_END_THINK);
    form_take(&f, tok, TINY_NEWLINES);
    assert_true(form_allows(&f, tok, TINY_TOOL_CALL) && form_allows(&f, tok, '"'));
    assert_false(form_allows(&f, tok, 'x') || form_allows(&f, tok, TINY_IM_END));
    struct form other = open_calls("", hello);
    form_take(&f, tok, TINY_TOOL_CALL);
    take_text(&f, "{\"name\": \"he\", \"arguments\": {}}");
    form_take(&f, tok, TINY_END_TOOL_CALL);
    assert_true(form_allows(&f, tok, TINY_IM_END) && form_allows(&f, tok, TINY_TOOL_CALL));
    take_text(&other, "\"he");
    assert_false(form_allows(&other, tok, TINY_TOOL_CALL));
    take_text(&other, "\"");
    assert_true(form_is_whole(&other));
    form_close(&f);
    form_close(&other);
}

static void an_end_may_come_where_the_answer_may_go_on(void **state)
{
    (void)state;
    struct form f = open_form("{\"type\":\"integer\"}", -1, -1, false);
    form_take(&f, tok, '4');
    assert_false(form_is_whole(&f));
    assert_true(form_allows(&f, tok, TINY_IM_END) && form_allows(&f, tok, '2'));
    form_take(&f, tok, TINY_IM_END);
    form_close(&f);
}

static void thinking_is_free_and_comes_first(void **state)
{
    (void)state;
    struct form f = open_form(hello, TINY_THINK, TINY_END_THINK, false);
    assert_true(form_allows(&f, tok, TINY_THINK) && form_allows(&f, tok, '"'));
    assert_false(form_allows(&f, tok, 'x') || form_allows(&f, tok, TINY_END_THINK));
    form_take(&f, tok, TINY_THINK);
    assert_true(form_allows(&f, tok, 'x') && form_allows(&f, tok, TINY_END_THINK));
    assert_false(form_allows(&f, tok, TINY_IM_END)); // no answer yet
    form_take(&f, tok, 'x');
    form_take(&f, tok, TINY_END_THINK);
    assert_false(form_allows(&f, tok, 'x') || form_allows(&f, tok, TINY_THINK));
    form_take(&f, tok, TINY_NEWLINES);
    form_take(&f, tok, '"');
    assert_false(form_allows(&f, tok, TINY_THINK));
    form_close(&f);
    f = open_form(hello, TINY_THINK, TINY_END_THINK, true); // the prompt opened it
    assert_true(form_allows(&f, tok, 'x'));
    form_close(&f);
}

static void a_row_is_filtered_in_its_order(void **state)
{
    (void)state;
    struct topk_row row = {.n = 4, .ids = {'x', 'f', TINY_IM_END, 't'}, .logits = {9, 8, 7, 6}},
                    out;
    struct form f = open_form("{\"type\":\"boolean\"}", -1, -1, false);
    assert_true(form_filter(&f, tok, &row, &out));
    assert_int_equal(out.n, 2);
    assert_true(out.ids[0] == 'f' && out.ids[1] == 't' && out.logits[1] == 6);
    row.n = 1;
    assert_false(form_filter(&f, tok, &row, &out));
    form_close(&f);
}

static void the_mask_leaves_what_is_allowed(void **state)
{
    (void)state;
    float logits[TINY_N];
    struct form f = open_form("{\"type\":\"boolean\"}", -1, -1, false);
    for (int i = 0; i < TINY_N; i++) logits[i] = (float)i;
    assert_true(form_mask(&f, tok, logits, TINY_N));
    for (int i = 0; i < TINY_N; i++) {
        const bool may = i == 't' || i == 'f' || i == '\n' || i == ' ' || i == TINY_NEWLINES;
        assert_true(may ? logits[i] == (float)i : logits[i] == -INFINITY);
    }
    logits['t'] = logits['f'] = logits['\n'] = logits[' '] = logits[TINY_NEWLINES] = -INFINITY;
    assert_false(form_mask(&f, tok, logits, TINY_N));
    form_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_go_by_their_bytes),
        cmocka_unit_test(calls_have_a_form_and_nothing_else_has),
        cmocka_unit_test(a_call_that_the_prompt_begins_goes_on),
        cmocka_unit_test(an_answer_is_a_call_or_has_the_form),
        cmocka_unit_test(an_end_may_come_where_the_answer_may_go_on),
        cmocka_unit_test(thinking_is_free_and_comes_first),
        cmocka_unit_test(a_row_is_filtered_in_its_order),
        cmocka_unit_test(the_mask_leaves_what_is_allowed),
    };
    return cmocka_run_group_tests(tests, open_vocab, close_vocab);
}
