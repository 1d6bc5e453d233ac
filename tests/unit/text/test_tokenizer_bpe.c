// bpe.c against a literal reading of the definition: look at every pair, merge the one of lowest
// rank and of those the leftmost, until none has a rank. Random merges over an alphabet of three.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/tiny_vocab.h"
#include "text/bpe.h"
#include "text/pieces.h"

enum { MAX_MERGES = 24, MAX_PIECE = 40, MAX_WORD = 300 };

// A vocabulary in the making: tokens beyond the bytes, and the merges that made them.
struct vocab {
    char piece_room[MAX_MERGES][MAX_PIECE], merge_room[MAX_MERGES][MAX_PIECE + 1];
    struct str tokens[256 + MAX_MERGES], merges[MAX_MERGES];
    int left[MAX_MERGES], right[MAX_MERGES];
    int n;
};

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static size_t random_below(size_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)(random_state % n);
}

// A letter or a merge made before.
static int random_token(const struct vocab *v)
{
    size_t i = random_below((size_t)v->n + 3);
    return i < 3 ? (int)('a' + i) : 256 + (int)(i - 3);
}

static bool add_random_merge(struct vocab *v)
{
    int left = random_token(v), right = random_token(v);
    struct str l = v->tokens[left], r = v->tokens[right];
    if (l.n + r.n > MAX_PIECE) return false;
    char *piece = v->piece_room[v->n], *merge = v->merge_room[v->n];
    memcpy(piece, l.p, l.n);
    memcpy(piece + l.n, r.p, r.n);
    for (int i = 0; i < v->n; i++)
        if (str_eq(v->tokens[256 + i], (struct str){piece, l.n + r.n})) return false;
    memcpy(merge, l.p, l.n);
    merge[l.n] = ' ';
    memcpy(merge + l.n + 1, r.p, r.n);
    v->tokens[256 + v->n] = (struct str){piece, l.n + r.n};
    v->merges[v->n] = (struct str){merge, l.n + r.n + 1};
    v->left[v->n] = left;
    v->right[v->n] = right;
    v->n++;
    return true;
}

static size_t merge_literally(const struct vocab *v, struct str word, int32_t *ids)
{
    size_t n = word.n;
    for (size_t i = 0; i < n; i++) ids[i] = (unsigned char)word.p[i];
    for (int rank = 0; rank < v->n;) {
        size_t i = 0;
        while (i + 1 < n && (ids[i] != v->left[rank] || ids[i + 1] != v->right[rank])) i++;
        if (i + 1 >= n) {
            rank++;
            continue;
        }
        ids[i] = 256 + rank;
        memmove(ids + i + 1, ids + i + 2, (n - i - 2) * sizeof *ids);
        n--;
        rank = 0; // the new pairs may have a lower rank
    }
    return n;
}

static void check_word(const struct bpe *b, struct bpe_work *w, const struct vocab *v,
                       struct str word)
{
    int32_t want[MAX_WORD];
    size_t n = merge_literally(v, word, want);
    struct ids got = {0};
    assert_true(bpe_word(b, w, word, &got));
    if (got.n != n || memcmp(got.p, want, n * sizeof *want) != 0)
        fail_msg("'%.*s' gives other ids", (int)word.n, word.p);
    ids_free(&got);
}

static void check_vocabulary(void)
{
    struct vocab v = {0};
    struct tokenizer_data d = tiny_vocab_data(); // for the spelling of the bytes
    memcpy(v.tokens, d.tokens, 256 * sizeof *v.tokens);
    size_t wanted = 1 + random_below(MAX_MERGES);
    for (int tries = 0; tries < 1000 && (size_t)v.n < wanted; tries++) add_random_merge(&v);
    d.tokens = v.tokens;
    d.types = NULL;
    d.n_tokens = 256 + (uint32_t)v.n;
    struct pieces p = {0};
    struct bpe b = {0};
    struct bpe_work w = {0};
    struct err e = {0};
    assert_true(pieces_open(&p, &d, &e));
    assert_true(bpe_open(&b, &p, v.merges, (uint32_t)v.n, &e));
    for (int i = 0; i < 40; i++) {
        char word[MAX_WORD];
        size_t n = 1 + random_below(i % 2 == 0 ? 60 : MAX_WORD);
        for (size_t j = 0; j < n; j++) word[j] = (char)('a' + random_below(i % 4 < 2 ? 3 : 2));
        check_word(&b, &w, &v, (struct str){word, n});
    }
    bpe_work_free(&w);
    bpe_close(&b);
    pieces_close(&p);
}

static void test_definition(void **state)
{
    (void)state;
    for (int i = 0; i < 150; i++) check_vocabulary();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_definition)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
