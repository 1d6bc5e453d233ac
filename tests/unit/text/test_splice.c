// text/splice: a vocabulary small enough to spell by hand. "hello" is one token to the tokenizer; the
// model of these tests spells it letter by letter.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/tiny_vocab.h"
#include "text/splice.h"

static const char prompt[] = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n";
static const char rest[] = "<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n";

struct fixture {
    struct tokenizer *t;
    struct splice *s;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->t = tiny_vocab_open();
    f->s = splice_open(1 << 20);
    assert_non_null(f->s);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    splice_close(f->s);
    tokenizer_close(f->t);
    free(f);
    return 0;
}

static struct ids encode(struct fixture *f, struct splice *s, const char *salt, const char *text)
{
    struct ids ids = {0};
    struct err e = {0};
    assert_true(splice_encode(s, f->t, str_from(salt), str_from(text), TOKENIZE_CONTROL, &ids, &e));
    return ids;
}

// Every letter its own token; <think> and the like as they are.
static struct ids spell(struct fixture *f, const char *text)
{
    static const char *const specials[] = {"<think>", "</think>", "<tool_call>", "</tool_call>"};
    struct ids ids = {0};
    while (*text != '\0') {
        int32_t id = (unsigned char)*text;
        size_t n = 1;
        for (size_t i = 0; i < 4; i++)
            if (strncmp(text, specials[i], strlen(specials[i])) == 0) {
                id = tokenizer_special(f->t, str_from(specials[i]));
                n = strlen(specials[i]);
            }
        assert_true(ids_put(&ids, &id, 1));
        text += n;
    }
    return ids;
}

// A turn under a salt: the prompt as it is tokenized then, and the answer as the model spells it.
static struct ids turn(struct fixture *f, const char *salt, const char *text, const char *answer)
{
    struct ids ids = encode(f, f->s, salt, text), sampled = spell(f, answer);
    struct splice_place place;
    assert_true(splice_place_of(&place, f->t, str_from(salt), &ids));
    splice_learn(f->s, f->t, &place, &sampled);
    splice_place_free(&place);
    assert_true(ids_put(&ids, sampled.p, sampled.n));
    ids_free(&sampled);
    return ids; // what the cache holds now
}

static bool begins_with(const struct ids *a, const struct ids *b)
{
    return a->n >= b->n && memcmp(a->p, b->p, b->n * sizeof *b->p) == 0;
}

static char *join(const char *a, const char *b, const char *c)
{
    const size_t n = strlen(a) + strlen(b) + strlen(c) + 1;
    char *s = calloc(n, 1);
    assert_non_null(s);
    snprintf(s, n, "%s%s%s", a, b, c);
    return s;
}

// After the answer, the history holds `again` in its place: does it continue what is cached?
static bool continues(struct fixture *f, const char *salt, const char *answer, const char *again,
                      const char *reader)
{
    char *next = join(prompt, again, rest);
    struct ids cached = turn(f, salt, prompt, answer), ids = encode(f, f->s, reader, next);
    struct ids own = encode(f, NULL, "", next);
    assert_false(begins_with(&own, &cached)); // otherwise the test shows nothing
    const bool good = begins_with(&ids, &cached);
    // Behind the answer the text is tokenized as ever: the user's own "hello" is one token.
    if (good) assert_int_equal(ids.p[ids.n - strlen("assistant\n") - 4], TINY_HELLO);
    ids_free(&cached);
    ids_free(&ids);
    ids_free(&own);
    free(next);
    return good;
}

static void an_answer_comes_back_as_it_was_spelled(void **state)
{
    struct fixture *f = *state;
    assert_true(continues(f, "", "hello", "hello", ""));
    assert_true(continues(f, "", "<think>\nhello\n</think>\n\nhello!",
                          "<think>\nhello\n</think>\n\nhello!", ""));
    assert_true(continues(f, "", "hello\n<tool_call>\n{\"name\": \"hello\"}\n</tool_call>",
                          "hello\n<tool_call>\n{\"name\": \"hello\"}\n</tool_call>", ""));
}

static void only_the_same_text_in_the_same_place(void **state)
{
    struct fixture *f = *state;
    assert_false(continues(f, "", "hello", "hello!", ""));
    struct ids own = encode(f, NULL, "", "<|im_start|>user\nhello<|im_end|>"),
               ids = encode(f, f->s, "", "<|im_start|>user\nhello<|im_end|>");
    assert_true(own.n == ids.n && begins_with(&own, &ids)); // the same word, nobody's answer
    ids_free(&own);
    ids_free(&ids);
}

static void salts_do_not_see_each_other(void **state)
{
    struct fixture *f = *state;
    assert_true(continues(f, "a", "hello", "hello", "a"));
    assert_false(continues(f, "b", "hello", "hello", "c"));
}

// Clients write the arguments anew: other spaces, other order, the same call.
static void a_call_is_known_by_its_value(void **state)
{
    struct fixture *f = *state;
    const char call[] =
        "<tool_call>\n{\"name\": \"hello\", \"arguments\": {\"a\": 1, \"b\": [2]}}\n</tool_call>";
    assert_true(continues(
        f, "", call,
        "<tool_call>\n{\"arguments\":{\"b\":[2],\"a\":1},\"name\":\"hello\"}\n</tool_call>", ""));
    assert_false(continues(
        f, "x", call,
        "<tool_call>\n{\"name\": \"hello\", \"arguments\": {\"a\": 1, \"b\": [3]}}\n</tool_call>",
        "x"));
}

// Three turns: each one's answer stands behind tokens that were themselves put back.
static void turns_build_on_each_other(void **state)
{
    struct fixture *f = *state;
    char *text = join(prompt, "", "");
    for (int i = 0; i < 3; i++) {
        struct ids cached = turn(f, "", text, "<think>\nhello\n</think>\n\nhello hello");
        char *next = join(text, "<think>\nhello\n</think>\n\nhello hello", rest);
        struct ids ids = encode(f, f->s, "", next);
        assert_true(begins_with(&ids, &cached));
        ids_free(&ids);
        ids_free(&cached);
        free(text);
        text = next;
    }
    free(text);
}

static void what_the_tokenizer_would_say_is_not_kept(void **state)
{
    struct fixture *f = *state;
    struct ids ids = encode(f, f->s, "", prompt), sampled = encode(f, NULL, "", "hello");
    struct splice_place place;
    assert_true(splice_place_of(&place, f->t, STR(""), &ids));
    splice_learn(f->s, f->t, &place, &sampled);
    assert_int_equal(splice_count(f->s), 0);
    splice_place_free(&place);
    ids_free(&ids);
    ids_free(&sampled);
}

static void the_oldest_make_room(void **state)
{
    struct fixture *f = *state;
    struct splice *small = splice_open(1000), *big = f->s;
    f->s = small;
    for (int i = 0; i < 100; i++) {
        char salt[8];
        snprintf(salt, sizeof salt, "%d", i);
        struct ids ids = turn(f, salt, prompt, "hello");
        ids_free(&ids);
    }
    assert_in_range(splice_count(small), 5, 40);
    char *next = join(prompt, "hello", rest);
    struct ids old = encode(f, small, "0", next), own = encode(f, NULL, "", next),
               young = encode(f, small, "99", next);
    assert_true(begins_with(&old, &own));
    assert_false(begins_with(&young, &own));
    ids_free(&old);
    ids_free(&own);
    ids_free(&young);
    free(next);
    splice_close(small);
    f->s = big;
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(an_answer_comes_back_as_it_was_spelled),
        CASE(only_the_same_text_in_the_same_place),
        CASE(salts_do_not_see_each_other),
        CASE(a_call_is_known_by_its_value),
        CASE(turns_build_on_each_other),
        CASE(what_the_tokenizer_would_say_is_not_kept),
        CASE(the_oldest_make_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
