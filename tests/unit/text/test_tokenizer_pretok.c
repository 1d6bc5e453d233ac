// pretok.c: words as the expressions in the models' tokenizer.json cut them, worked out by hand.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "text/pretok.h"

static struct pretok *open_rule(const char *name)
{
    struct err e = {0};
    const struct pretok_rule *rule = pretok_find(str_from(name), &e);
    struct pretok *p = NULL;
    assert_non_null(rule);
    assert_true(pretok_open(&p, rule, &e));
    return p;
}

// The words of text with a bar between them.
static void cut(const struct pretok *p, struct str text, struct buf *out)
{
    struct pretok_work *w = pretok_work_open(p);
    assert_non_null(w);
    for (size_t pos = 0, end; pos < text.n; pos = end) {
        end = pretok_next(p, w, text, pos);
        assert_true(end > pos && end <= text.n);
        if (pos > 0) buf_c(out, '|');
        buf_str(out, str_sub(text, pos, end - pos));
    }
    pretok_work_close(w);
}

static void check(const struct pretok *p, const char *text, const char *want)
{
    struct buf got = {0};
    cut(p, str_from(text), &got);
    if (!str_eq(buf_view(&got), str_from(want)))
        fail_msg("'%s' is cut '%s', expected '%s'", text, buf_cstr(&got), want);
    buf_free(&got);
}

static void test_qwen2(void **state)
{
    (void)state;
    struct pretok *p = open_rule("qwen2");
    check(p, "Hello, world!", "Hello|,| world|!");
    check(p, "it's we'LL 'tis", "it|'s| we|'LL| '|tis"); // "'t" needs the quote at a word's start
    check(p, "in 2024 x1", "in| |2|0|2|4| x|1");
    check(p, "a\n\n  b", "a|\n\n| | b");
    check(p, "a  \n \n b", "a|  \n \n| b");
    check(p, "end   ", "end|   ");
    check(p, "x := y;\r\n", "x| :=| y|;\r\n");
    check(p, "(foo)", "(foo|)");
    check(p, "\tif", "\tif");
    check(p,
          "a\xc2\xa0"
          "b",
          "a|\xc2\xa0"
          "b");                                    // no-break space before a letter
    check(p, "a\xe2\x80\x83 ", "a|\xe2\x80\x83 "); // em space is white space
    check(p, "!\xe1\xa0\x8e", "!\xe1\xa0\x8e");    // U+180E is not, since Unicode 6.3
    check(p, "e\xcc\x81t", "e|\xcc\x81t");         // a mark is no letter
    check(p, "\xe4\xbd\xa0\xe5\xa5\xbd\xe3\x80\x82", "\xe4\xbd\xa0\xe5\xa5\xbd|\xe3\x80\x82");
    pretok_close(p);
}

static void test_other_rules(void **state)
{
    (void)state;
    struct pretok *p = open_rule("qwen35");
    check(p, "e\xcc\x81t 12", "e\xcc\x81t| |1|2"); // marks belong to letters
    pretok_close(p);
    p = open_rule("llama-bpe");
    check(p, "in 20245", "in| |202|45");
    pretok_close(p);
    p = open_rule("gpt-2");
    check(p, "in 20245!\n\nWe'll", "in| 20245|!|\n|\n|We|'ll");
    pretok_close(p);
}

// A megabyte of one class is one or two words, quickly, and no stack runs out.
static void test_long_runs(void **state)
{
    (void)state;
    enum { RUN = 1 << 20 };
    static char text[RUN + 1];
    static const char fills[] = "a \n-";
    struct pretok *p = open_rule("qwen2");
    struct pretok_work *w = pretok_work_open(p);
    clock_t start = clock();
    for (size_t i = 0; i < strlen(fills); i++) {
        memset(text, fills[i], RUN);
        text[RUN] = 'x';
        size_t end = pretok_next(p, w, (struct str){text, RUN + 1}, 0);
        size_t want = fills[i] == 'a' ? RUN + 1 : fills[i] == ' ' ? RUN - 1 : RUN;
        assert_int_equal(end, want);
    }
    assert_true(clock() - start < 2 * CLOCKS_PER_SEC);
    pretok_work_close(w);
    pretok_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_other_rules),
        cmocka_unit_test(test_long_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
