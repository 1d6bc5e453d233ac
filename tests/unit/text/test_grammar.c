// The machine itself: calls, choices, what is given up when it is full. Texts are worked out by hand.
#include "text/grammar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct grammar *g;
static struct err e;

static int open_grammar(void **state)
{
    (void)state;
    e = (struct err){0};
    return grammar_new(&g, &e) ? 0 : 1;
}

static int close_grammar(void **state)
{
    (void)state;
    grammar_unref(g);
    return 0;
}

// list ::= "[" list* "]"
static void make_brackets(void)
{
    const uint32_t end = grammar_return(g), rule = grammar_later(g), again = grammar_later(g);
    const uint32_t rest =
        grammar_either(g, grammar_call(g, rule, again), grammar_text(g, STR("]"), end));
    grammar_set(g, again, rest);
    grammar_set(g, rule, grammar_text(g, STR("["), rest));
    assert_true(grammar_finish(g, rule, &e));
}

static void calls_return_to_where_they_came_from(void **state)
{
    (void)state;
    struct grammar_match *m;
    make_brackets();
    assert_true(grammar_match_open(&m, g, &e));
    assert_false(grammar_match_test(m, STR("]")));
    assert_false(grammar_match_test(m, STR("")));
    assert_true(grammar_match_take(m, STR("[[]")));
    assert_false(grammar_match_complete(m));
    assert_true(grammar_match_test(m, STR("][")) == false); // it is over with the first
    assert_false(grammar_match_take(m, STR("x")));          // and nothing has changed
    assert_true(grammar_match_take(m, STR("[][[]]")));
    assert_true(grammar_match_take(m, STR("]")));
    assert_true(grammar_match_complete(m) && grammar_match_over(m));
    assert_false(grammar_match_test(m, STR("[")));
    grammar_match_close(m);
}

// A long answer uses no more frames than its depth; too deep a one is refused, and goes on otherwise.
static void frames_are_used_again(void **state)
{
    (void)state;
    struct grammar_match *m;
    make_brackets();
    assert_true(grammar_match_open(&m, g, &e));
    assert_true(grammar_match_take(m, STR("[")));
    for (int i = 0; i < 20000; i++) assert_true(grammar_match_take(m, STR("[[]]")));
    int depth = 1;
    while (depth < 5000 && grammar_match_take(m, STR("["))) depth++;
    assert_in_range(depth, 100, 1000);
    for (int i = 0; i < depth; i++) assert_true(grammar_match_take(m, STR("]")));
    assert_true(grammar_match_over(m));
    grammar_match_close(m);
}

static void all_ways_are_followed(void **state)
{
    (void)state;
    struct grammar_match *m;
    char text[16];
    const uint32_t end = grammar_return(g);
    uint32_t place = grammar_text(g, STR("n0"), end);
    for (int i = 1; i < 900; i++) {
        snprintf(text, sizeof text, "n%d", i);
        place = grammar_either(g, grammar_text(g, str_from(text), end), place);
    }
    assert_true(grammar_finish(g, place, &e));
    for (int i = 0; i < 900; i += 7) {
        snprintf(text, sizeof text, "n%d", i);
        assert_true(grammar_match_open(&m, g, &e));
        assert_true(grammar_match_take(m, str_from(text)));
        assert_true(grammar_match_complete(m));
        assert_true(grammar_match_over(m) == (i == 0 || i >= 90)); // n7 may go on as n70
        assert_false(grammar_match_test(m, STR("x")));
        grammar_match_close(m);
    }
}

static void what_leads_nowhere_is_not_entered(void **state)
{
    (void)state;
    struct grammar_match *m;
    const uint32_t end = grammar_return(g), loop = grammar_later(g);
    grammar_set(g, loop, grammar_text(g, STR("a"), loop));
    const uint32_t start = grammar_either(g, loop, grammar_text(g, STR("b"), end));
    assert_true(grammar_finish(g, start, &e));
    assert_true(grammar_match_open(&m, g, &e));
    assert_false(grammar_match_test(m, STR("a")));
    assert_true(grammar_match_test(m, STR("b")));
    grammar_match_close(m);
    assert_false(grammar_finish(g, loop, &e));
    assert_int_equal(e.code, ERR_INPUT);
}

static void one_that_is_too_large_says_so(void **state)
{
    (void)state;
    uint32_t place = grammar_return(g);
    for (int i = 0; i < GRAMMAR_STATES_MAX + 300000; i++) place = grammar_text(g, STR("a"), place);
    assert_true(grammar_failed(g));
    assert_int_equal(place, GRAMMAR_NONE);
    assert_false(grammar_finish(g, place, &e));
    assert_int_equal(e.code, ERR_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define EACH(f) cmocka_unit_test_setup_teardown(f, open_grammar, close_grammar)
        EACH(calls_return_to_where_they_came_from),
        EACH(frames_are_used_again),
        EACH(all_ways_are_followed),
        EACH(what_leads_nowhere_is_not_entered),
        EACH(one_that_is_too_large_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
