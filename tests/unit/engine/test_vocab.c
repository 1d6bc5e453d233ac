// vocab.c: the tokenizer's metadata in a file made for the test, whole and with one thing wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/vocab.h"
#include "lib/gguf_make.h"
#include "lib/tiny_vocab.h"

enum wrong {
    NOTHING,
    NO_TOKENS,
    NO_MODEL,
    NO_PRE,
    FEW_TYPES,
    MODEL_IS_NUMBER,
    TOKENS_ARE_NUMBERS,
    EOS_TOO_LARGE
};

static void make_texts(struct gguf_make *m, const char *key, const struct str *texts, size_t n)
{
    const char **z = calloc(n, sizeof *z);
    assert_non_null(z);
    for (size_t i = 0; i < n; i++) {
        z[i] = strndup(texts[i].p, texts[i].n);
        assert_non_null(z[i]);
    }
    make_strs(m, key, z, n);
    for (size_t i = 0; i < n; i++) free((void *)(uintptr_t)z[i]);
    free(z);
}

static void make_vocab(struct buf *file, enum wrong wrong)
{
    struct gguf_make m = {0};
    struct tokenizer_data d = tiny_vocab_data();
    if (wrong == MODEL_IS_NUMBER) make_u32(&m, "tokenizer.ggml.model", 2);
    if (wrong != MODEL_IS_NUMBER && wrong != NO_MODEL) make_str(&m, "tokenizer.ggml.model", "gpt2");
    if (wrong != NO_PRE) make_str(&m, "tokenizer.ggml.pre", "qwen2");
    if (wrong == TOKENS_ARE_NUMBERS)
        make_i32s(&m, "tokenizer.ggml.tokens", d.types, d.n_tokens);
    else if (wrong != NO_TOKENS)
        make_texts(&m, "tokenizer.ggml.tokens", d.tokens, d.n_tokens);
    make_texts(&m, "tokenizer.ggml.merges", d.merges, d.n_merges);
    make_i32s(&m, "tokenizer.ggml.token_type", d.types, d.n_tokens - (wrong == FEW_TYPES));
    make_u32(&m, "tokenizer.ggml.bos_token_id", TINY_ENDOFTEXT);
    make_u32(&m, "tokenizer.ggml.eos_token_id", wrong == EOS_TOO_LARGE ? TINY_N : TINY_IM_END);
    make_bool(&m, "tokenizer.ggml.add_bos_token", true);
    make_file(&m, file);
    make_free(&m);
}

static bool open_vocab(struct tokenizer **t, enum wrong wrong, struct err *e)
{
    struct buf file = {0};
    struct gguf *g = NULL;
    make_vocab(&file, wrong);
    struct str part = buf_view(&file);
    if (!gguf_open_memory(&g, &part, 1, "made.gguf", e)) fail_msg("%s", e->msg);
    bool ok = vocab_open(t, g, e);
    gguf_close(g);
    buf_free(&file); // the tokenizer must borrow nothing
    return ok;
}

static void test_whole(void **state)
{
    (void)state;
    struct tokenizer *t = NULL;
    struct err e = {0};
    struct ids ids = {0};
    const int32_t want[] = {TINY_ENDOFTEXT, TINY_HELLO, TINY_SPACE_HELLO, TINY_IM_END};
    assert_true(open_vocab(&t, NOTHING, &e));
    assert_true(tokenizer_encode(t, STR("hello hello<|im_end|>"), TOKENIZE_CONTROL | TOKENIZE_BOS,
                                 &ids, &e));
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.p, want, sizeof want);
    assert_int_equal(tokenizer_eos(t), TINY_IM_END);
    ids_free(&ids);
    tokenizer_close(t);
}

static void test_one_thing_wrong(void **state)
{
    (void)state;
    static const struct {
        enum wrong wrong;
        enum err_code code;
        const char *words;
    } cases[] = {
        {NO_TOKENS, ERR_FORMAT, "'tokenizer.ggml.tokens' is missing"},
        {NO_MODEL, ERR_FORMAT, "'tokenizer.ggml.model' is missing"},
        {NO_PRE, ERR_UNSUPPORTED, "known pre-tokenizers: qwen2"},
        {FEW_TYPES, ERR_FORMAT, "has 271 items, there are 272 tokens"},
        {MODEL_IS_NUMBER, ERR_FORMAT, "'tokenizer.ggml.model' is of type u32"},
        {TOKENS_ARE_NUMBERS, ERR_FORMAT, "expected an array of strings"},
        {EOS_TOO_LARGE, ERR_FORMAT, "eos_token_id is 272"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t = NULL;
        struct err e = {0};
        assert_false(open_vocab(&t, cases[i].wrong, &e));
        assert_null(t);
        assert_int_equal(e.code, cases[i].code);
        if (strstr(e.msg, cases[i].words) == NULL || strstr(e.msg, "made.gguf") == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_one_thing_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
