// The tokenizer against Hugging Face's: every text of golden/tokenizer-*.jsonl gives the same ids,
// the ids give the text back (or `decoded`, where normalising changed it), and rendered chats too.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/file.h"
#include "base/str.h"
#include "engine/vocab.h"
#include "model/gguf.h"
#include "text/tokenizer.h"

enum { SKIPPED = 77 };

static const char *shared_dir(void)
{
    const char *dir = getenv("SUBMIND_SHARED");
    return dir == NULL ? "../shared" : dir;
}

// Opens SHARED/models/name; NULL when the file is not there.
static struct tokenizer *open_model(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/models/%s", shared_dir(), name);
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    fclose(f);
    struct err e = {0};
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    if (!gguf_open(&g, path, &e) || !vocab_open(&t, g, &e)) fail_msg("%s: %s", path, e.msg);
    gguf_close(g);
    return t;
}

static bool read_fixture(struct buf *out, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/golden/%s", shared_dir(), name);
    return file_read(out, path, 64 << 20, NULL);
}

static struct str get_text(const json_t *line, const char *key)
{
    const json_t *s = json_object_get(line, key);
    return s == NULL ? (struct str){0} : (struct str){json_string_value(s), json_string_length(s)};
}

static void check_ids(const struct ids *got, const json_t *want, int id, unsigned flags)
{
    size_t n = json_array_size(want);
    for (size_t i = 0; i < n && i < got->n; i++) {
        int id_wanted = (int)json_number_value(json_array_get(want, i));
        if (got->p[i] != id_wanted)
            fail_msg("case %d flags %u: token %zu is %d, expected %d", id, flags, i, got->p[i],
                     id_wanted);
    }
    if (got->n != n) fail_msg("case %d: %zu tokens, expected %zu", id, got->n, n);
}

static void check_decoded(const struct tokenizer *t, const struct ids *ids, struct str want, int id)
{
    struct buf text = {0};
    for (size_t i = 0; i < ids->n; i++) buf_str(&text, tokenizer_piece(t, ids->p[i]));
    if (!str_eq(buf_view(&text), want)) fail_msg("case %d does not decode to its text", id);
    buf_free(&text);
}

// Returns how many lines were checked.
static int check_lines(const struct tokenizer *t, struct str file, const char *ids_key)
{
    int n = 0;
    for (size_t at = 0; at < file.n; n++) {
        size_t end = str_find(file, STR("\n"), at);
        if (end == SIZE_MAX) end = file.n;
        // Conversations hold integers beyond 64 bits; ids are exact as doubles.
        const size_t how = JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL;
        json_error_t why;
        json_t *line = json_loadb(file.p + at, end - at, how, &why);
        if (line == NULL) fail_msg("line %d: %s", n + 1, why.text);
        int id = (int)json_number_value(json_object_get(line, "id"));
        struct ids ids = {0};
        struct err e = {0};
        struct str text = get_text(line, "text"), decoded = get_text(line, "decoded");
        for (int again = 0; again < 2; again++) { // the second time from the caches
            ids.n = 0;
            if (!tokenizer_encode(t, text, TOKENIZE_CONTROL, &ids, &e)) fail_msg("%s", e.msg);
            check_ids(&ids, json_object_get(line, ids_key), id, TOKENIZE_CONTROL);
        }
        check_decoded(t, &ids, decoded.p == NULL ? text : decoded, id);
        ids_free(&ids);
        json_decref(line);
        at = end + 1;
    }
    return n;
}

static bool check_fixture(const char *model, const char *fixture, const char *ids_key)
{
    struct buf file = {0};
    struct tokenizer *t = open_model(model);
    bool present = t != NULL && read_fixture(&file, fixture);
    if (present) {
        int n = check_lines(t, buf_view(&file), ids_key);
        printf("%s: %d cases of %s\n", model, n, fixture);
        assert_true(n > 0);
    } else {
        printf("skipped: %s/models/%s or golden/%s is absent\n", shared_dir(), model, fixture);
    }
    buf_free(&file);
    tokenizer_close(t);
    return present;
}

static void test_demo_texts(void **state)
{
    (void)state;
    if (!check_fixture("submind-demo-Q8_0.gguf", "tokenizer-demo.jsonl", "ids")) skip();
}

static void test_qwen3_texts(void **state)
{
    (void)state;
    if (!check_fixture("qwen3-vocab.gguf", "tokenizer-qwen3.jsonl", "ids")) skip();
}

static void test_chats(void **state)
{
    (void)state;
    if (!check_fixture("submind-demo-Q8_0.gguf", "chat.jsonl", "demo_ids")) skip();
}

static void test_specials_of_qwen3(void **state)
{
    (void)state;
    struct tokenizer *t = open_model("qwen3-vocab.gguf");
    if (t == NULL) skip();
    // Numbers and kinds as Qwen3's tokenizer_config.json has them.
    assert_int_equal(tokenizer_special(t, STR("<|im_end|>")), 151645);
    assert_int_equal(tokenizer_special(t, STR("<think>")), 151667);
    assert_int_equal(tokenizer_special(t, STR("<|im_en")), -1);
    assert_int_equal(tokenizer_kind(t, 151645), TOKEN_CONTROL);
    assert_int_equal(tokenizer_kind(t, 151667), TOKEN_USER);
    assert_true(tokenizer_is_end(t, 151645) && tokenizer_is_end(t, 151643));
    assert_false(tokenizer_is_end(t, 151644));
    assert_int_equal(tokenizer_eos(t), 151645);
    tokenizer_close(t);
}

int main(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/golden", shared_dir());
    struct buf probe = {0};
    bool present = read_fixture(&probe, "tokenizer-demo.jsonl");
    buf_free(&probe);
    if (!present) {
        printf("skipped: no fixtures in %s\n", path);
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo_texts),
        cmocka_unit_test(test_qwen3_texts),
        cmocka_unit_test(test_chats),
        cmocka_unit_test(test_specials_of_qwen3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
