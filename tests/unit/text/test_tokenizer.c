// tokenizer.c with a vocabulary whose answers can be worked out by hand (lib/tiny_vocab.h).
// Equality with Hugging Face is golden/test_tokens.c's.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/tiny_vocab.h"
#include "text/memo.h"
#include "text/tokenizer.h"

static void check(const struct tokenizer *t, struct str text, unsigned flags, const int32_t *want,
                  size_t n)
{
    struct ids ids = {0};
    struct err e = {0};
    assert_true(tokenizer_encode(t, text, flags, &ids, &e));
    if (ids.n != n) fail_msg("'%.*s': %zu ids, expected %zu", (int)text.n, text.p, ids.n, n);
    for (size_t i = 0; i < n; i++)
        if (ids.p[i] != want[i])
            fail_msg("'%.*s': id %zu is %d, expected %d", (int)text.n, text.p, i, ids.p[i],
                     want[i]);
    ids_free(&ids);
}

#define CHECK(t, text, flags, ...)                             \
    check(t, STR(text), flags, (const int32_t[]){__VA_ARGS__}, \
          sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void test_merges(void **state)
{
    struct tokenizer *t = *state;
    check(t, STR(""), 0, NULL, 0);
    CHECK(t, "hello", 0, TINY_HELLO);
    CHECK(t, "hello hello", 0, TINY_HELLO, TINY_SPACE_HELLO);
    CHECK(t, "help", 0, TINY_HE, 'l', 'p');
    CHECK(t, "lll", 0, TINY_LL, 'l'); // the leftmost of equal pairs
    CHECK(t, "eo", 0, 'e', 'o');      // a token, but no merge makes it
    CHECK(t, "h\n\ne", 0, 'h', TINY_NEWLINES, 'e');
}

static void test_special_tokens(void **state)
{
    struct tokenizer *t = *state;
    CHECK(t, "<think>he", 0, TINY_THINK, TINY_HE);
    CHECK(t, "he<|im_end|>he", TOKENIZE_CONTROL, TINY_HE, TINY_IM_END, TINY_HE);
    CHECK(t, "<|im_end|>", 0, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');
    CHECK(t, "<|im_end|>!!", TOKENIZE_CONTROL, TINY_IM_END_LONG); // the longest
    CHECK(t, "<|im_end|>!", TOKENIZE_CONTROL, TINY_IM_END, '!');
    CHECK(t, "<<think><", 0, '<', TINY_THINK, '<');
    CHECK(t, "<|im_end|><think>", 0, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>', TINY_THINK);
}

static void test_guard_keeps_text_plain(void **state)
{
    struct tokenizer *t = *state;
    CHECK(t, "<\xff|im_end|>", TOKENIZE_CONTROL, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');
    CHECK(t, "<|im_end|\xff>", TOKENIZE_CONTROL, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');
    CHECK(t, "\xff<|im_end|>\xff", TOKENIZE_CONTROL, TINY_IM_END);
    CHECK(t, "hel\xfflo", 0, TINY_HELLO); // a guard is dropped before words are cut
    check(t, STR("\xff\xff"), TOKENIZE_CONTROL, NULL, 0);
}

static void test_broken_utf8_is_replaced(void **state)
{
    struct tokenizer *t = *state;
    CHECK(t,
          "a\x80"
          "b",
          0, 'a', 0xef, 0xbf, 0xbd, 'b');
    CHECK(t, "\xe2\x82", 0, 0xef, 0xbf, 0xbd); // a cut character is one
    CHECK(t, "\xed\xa0\x80", 0, 0xef, 0xbf, 0xbd, 0xef, 0xbf, 0xbd, 0xef, 0xbf, 0xbd);
}

static void test_normalises_between_specials(void **state)
{
    struct tokenizer *t = *state;
    CHECK(t, "e\xcc\x81", 0, TINY_E_ACUTE);
    CHECK(t, "\xc3\xa9", 0, TINY_E_ACUTE);
    // The mark must not compose with what stands before the special token.
    CHECK(t, "e<think>\xcc\x81", 0, 'e', TINY_THINK, 0xcc, 0x81);
}

static void test_bos(void **state)
{
    (void)state;
    struct tokenizer_data d = tiny_vocab_data();
    struct err e = {0};
    struct tokenizer *t = NULL;
    d.add_bos = true;
    assert_true(tokenizer_open(&t, &d, &e));
    CHECK(t, "he", TOKENIZE_BOS, TINY_ENDOFTEXT, TINY_HE);
    CHECK(t, "he", 0, TINY_HE);
    tokenizer_close(t);
    CHECK(*state, "he", TOKENIZE_BOS, TINY_HE); // a model that wants none
}

static void test_whole_words(void **state)
{
    (void)state;
    struct tokenizer_data d = tiny_vocab_data();
    struct err e = {0};
    struct tokenizer *t = NULL;
    d.pre = STR("llama-bpe");
    assert_true(tokenizer_open(&t, &d, &e));
    CHECK(t, "eo", 0, TINY_EO);
    CHECK(t, "hello", 0, TINY_HELLO);
    CHECK(t, "e\xcc\x81", 0, 'e', 0xcc, 0x81); // does not normalise
    tokenizer_close(t);
}

static void test_look_ups(void **state)
{
    struct tokenizer *t = *state;
    assert_true(str_eq(tokenizer_piece(t, TINY_SPACE_HELLO), STR(" hello")));
    assert_true(str_eq(tokenizer_piece(t, 0), STR("\0")));
    assert_true(str_eq(tokenizer_piece(t, 0xad), STR("\xad")));
    assert_int_equal(tokenizer_piece(t, -1).n, 0);
    assert_int_equal(tokenizer_piece(t, TINY_N).n, 0);
    assert_int_equal(tokenizer_special(t, STR("<|im_start|>")), TINY_IM_START);
    assert_int_equal(tokenizer_special(t, STR("<|im_start|")), -1);
    assert_int_equal(tokenizer_special(t, STR("he")), -1);
    assert_int_equal(tokenizer_special(t, STR("")), -1);
    assert_true(tokenizer_is_end(t, TINY_IM_END) && tokenizer_is_end(t, TINY_ENDOFTEXT));
    assert_false(tokenizer_is_end(t, TINY_IM_START) || tokenizer_is_end(t, -1));
    assert_int_equal(tokenizer_n_vocab(t), TINY_N);
    assert_int_equal(tokenizer_bos(t), TINY_ENDOFTEXT);
    assert_int_equal(tokenizer_eos(t), TINY_IM_END);
    assert_int_equal(tokenizer_kind(t, TINY_THINK), TOKEN_USER);
}

static void test_find_control(void **state)
{
    struct tokenizer *t = *state;
    size_t n = 0;
    struct str s = STR("<think> <|im_ <|im_end|>!!<|im_start|>");
    assert_int_equal(tokenizer_find_control(t, s, 0, &n), 14);
    assert_int_equal(n, 12);
    assert_int_equal(tokenizer_find_control(t, s, 15, &n), 26);
    assert_int_equal(n, 12);
    assert_true(tokenizer_find_control(t, s, 27, &n) == SIZE_MAX);
    assert_true(tokenizer_find_control(t, STR(""), 0, &n) == SIZE_MAX);
}

static void refuse(const struct tokenizer_data *d, enum err_code code, const char *words)
{
    struct err e = {0};
    struct tokenizer *t = NULL;
    assert_false(tokenizer_open(&t, d, &e));
    assert_null(t);
    assert_int_equal(e.code, code);
    if (strstr(e.msg, words) == NULL) fail_msg("'%s' does not say '%s'", e.msg, words);
}

static void test_refuses_bad_data(void **state)
{
    (void)state;
    struct tokenizer_data d = tiny_vocab_data();
    d.pre = STR("klingon");
    refuse(&d, ERR_UNSUPPORTED, "'klingon'; known pre-tokenizers: qwen2, ");
    d = tiny_vocab_data();
    d.model = STR("llama");
    refuse(&d, ERR_UNSUPPORTED, "'llama'");
    d = tiny_vocab_data();
    d.eos = TINY_N;
    refuse(&d, ERR_FORMAT, "tokenizer.ggml.eos_token_id is 272");
    d = tiny_vocab_data();
    d.n_tokens = 0;
    refuse(&d, ERR_FORMAT, "0 tokens");
    d = tiny_vocab_data();
    const struct str gaps[] = {{"he", 2}, {" he", 3}, {"he ", 3}, {"hello", 5}};
    for (size_t i = 0; i < 4; i++) {
        d.merges = gaps + i;
        d.n_merges = 1;
        refuse(&d, ERR_FORMAT, "merge 0");
    }
}

// Merging must never make a control token, whatever the merges say.
static void test_never_merges_into_control(void **state)
{
    (void)state;
    struct tokenizer_data d = tiny_vocab_data();
    int32_t types[TINY_N];
    memcpy(types, d.types, sizeof types);
    types[TINY_HE] = TOKEN_CONTROL;
    d.types = types;
    const int32_t apart[] = {'h', 'e'};
    struct tokenizer *t = NULL;
    struct ids ids = {0};
    struct err e = {0};
    assert_true(tokenizer_open(&t, &d, &e)); // the merge is left out, and so are those behind it
    assert_true(tokenizer_encode(t, STR("he"), 0, &ids, &e));
    assert_int_equal(ids.n, 2);
    assert_memory_equal(ids.p, apart, sizeof apart);
    ids_free(&ids);
    tokenizer_close(t);
    types[TINY_HE] = 99;
    refuse(&d, ERR_FORMAT, "token 256 has type 99");
    struct str tokens[TINY_N];
    memcpy(tokens, d.tokens, sizeof tokens);
    types[TINY_HE] = TOKEN_NORMAL;
    tokens['x'] = STR("xx");
    d.tokens = tokens;
    refuse(&d, ERR_FORMAT, "byte 0x78");
}

enum { LONG_TEXT = 20000 };

// A text with a few words in a pattern of the seed's own, and a special token now and then.
static struct str long_text(char *room, unsigned seed)
{
    static const char *const words[] = {"hello",     " hello",  "he", "\n\n",
                                        "e\xcc\x81", "<think>", "l"};
    size_t n = 0;
    for (unsigned i = seed; n + 16 < LONG_TEXT; i = i * 1103515245u + 12345u) {
        unsigned pick = i >> 16;
        const char *word = words[pick % 257 == 0 ? 5 : pick % 5];
        memcpy(room + n, word, strlen(word));
        n += strlen(word);
    }
    return (struct str){room, n};
}

static void test_repetition_gives_the_same(void **state)
{
    struct tokenizer *t = *state, *fresh = tiny_vocab_open();
    char *room = malloc(LONG_TEXT);
    for (unsigned seed = 1; seed < 30; seed++) {
        struct str text = long_text(room, seed);
        struct ids want = {0};
        struct err e = {0};
        assert_true(tokenizer_encode(fresh, text, 0, &want, &e));
        check(t, text, 0, want.p, want.n);
        char middle = room[text.n / 2];
        room[text.n / 2] = 'Z'; // nearly the same text must not be taken for it
        struct ids other = {0};
        assert_true(tokenizer_encode(t, text, 0, &other, &e));
        assert_true(other.n != want.n || memcmp(other.p, want.p, want.n * sizeof *want.p) != 0);
        room[text.n / 2] = middle;
        check(t, text, 0, want.p, want.n);
        ids_free(&want);
        ids_free(&other);
    }
    free(room);
    tokenizer_close(fresh);
}

struct worker {
    const struct tokenizer *t;
    unsigned seed;
    bool same;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    char *room = malloc(LONG_TEXT);
    struct ids first = {0}, again = {0};
    struct err e = {0};
    w->same = true;
    for (unsigned i = 0; i < 40 && w->same; i++) {
        struct str text = long_text(room, w->seed + i % 7);
        first.n = again.n = 0;
        w->same = tokenizer_encode(w->t, text, 0, &first, &e) &&
                  tokenizer_encode(w->t, text, 0, &again, &e) && first.n == again.n &&
                  memcmp(first.p, again.p, first.n * sizeof *first.p) == 0;
    }
    ids_free(&first);
    ids_free(&again);
    free(room);
    return NULL;
}

static void test_threads(void **state)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.t = *state, .seed = 100 + i % 2};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(workers[i].same);
    }
}

static void test_memo_is_bounded(void **state)
{
    (void)state;
    enum { SEGMENT = 1000, SEGMENTS = 100, MEMO_LIMIT = 20 * SEGMENT };
    static char texts[SEGMENTS][SEGMENT];
    struct memo *m = memo_open(MEMO_LIMIT);
    struct ids out = {0};
    bool no_memory = false;
    const int32_t id = 7;
    for (int i = 0; i < SEGMENTS; i++) {
        memset(texts[i], 'a', SEGMENT);
        texts[i][0] = (char)i;
        memo_put(m, 0, (struct str){texts[i], SEGMENT}, &id, 1);
        assert_true(
            memo_get(m, 0, (struct str){texts[0], SEGMENT}, &out, &no_memory)); // stays: in use
    }
    int known = 0;
    for (int i = 0; i < SEGMENTS; i++)
        known += memo_get(m, 0, (struct str){texts[i], SEGMENT}, &out, &no_memory);
    assert_in_range(known, 10, MEMO_LIMIT / SEGMENT);
    assert_true(memo_get(m, 0, (struct str){texts[SEGMENTS - 1], SEGMENT}, &out, &no_memory));
    assert_false(memo_get(m, 0, (struct str){texts[1], SEGMENT}, &out, &no_memory));
    assert_false(memo_get(m, 0, (struct str){texts[0], SEGMENT - 1}, &out, &no_memory));
    ids_free(&out);
    memo_close(m);
}

// What one tenant sent must not be quicker for another, whatever they share.
static void test_memo_keeps_spaces_apart(void **state)
{
    (void)state;
    enum { SEGMENT = 1000 };
    static char text[SEGMENT];
    struct memo *m = memo_open(20 * SEGMENT);
    struct ids out = {0};
    bool no_memory = false;
    const struct str t = {text, SEGMENT};
    const uint64_t a = tokenizer_space(STR("a")), b = tokenizer_space(STR("b"));
    assert_int_equal(tokenizer_space(STR("")), 0);
    assert_true(a != b && a != 0 && b != 0);
    for (int32_t id = 1; id <= 2; id++) memo_put(m, id == 1 ? 0 : a, t, &id, 1);
    assert_true(memo_get(m, a, t, &out, &no_memory) && memo_get(m, 0, t, &out, &no_memory));
    assert_int_equal(out.p[0], 2);
    assert_int_equal(out.p[1], 1);
    assert_false(memo_get(m, b, t, &out, &no_memory));
    ids_free(&out);
    memo_close(m);
}

static int setup(void **state)
{
    *state = tiny_vocab_open();
    return 0;
}

static int teardown(void **state)
{
    tokenizer_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_guard_keeps_text_plain),
        cmocka_unit_test(test_broken_utf8_is_replaced),
        cmocka_unit_test(test_normalises_between_specials),
        cmocka_unit_test(test_bos),
        cmocka_unit_test(test_whole_words),
        cmocka_unit_test(test_look_ups),
        cmocka_unit_test(test_find_control),
        cmocka_unit_test(test_refuses_bad_data),
        cmocka_unit_test(test_never_merges_into_control),
        cmocka_unit_test(test_repetition_gives_the_same),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_memo_is_bounded),
        cmocka_unit_test(test_memo_keeps_spaces_apart),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
