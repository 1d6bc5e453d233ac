// Any bytes as text: decoding gives the normalised text back, control tokens come only where they
// are asked for, guards keep text plain, and the caches change nothing.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"
#include "lib/tiny_vocab.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(bool ok)
{
    if (!ok) abort();
}

static void encode(const struct tokenizer *t, struct str text, unsigned flags, struct ids *out)
{
    struct err e = {0};
    out->n = 0;
    require(tokenizer_encode(t, text, flags, out, &e));
    for (size_t i = 0; i < out->n; i++) {
        require(out->p[i] >= 0 && (uint32_t)out->p[i] < tokenizer_n_vocab(t));
        if ((flags & TOKENIZE_CONTROL) == 0) require(tokenizer_kind(t, out->p[i]) != TOKEN_CONTROL);
    }
}

static void require_same(const struct ids *a, const struct ids *b)
{
    require(a->n == b->n && (a->n == 0 || memcmp(a->p, b->p, a->n * sizeof *a->p) == 0));
}

// A text without special tokens (they all begin with '<') comes back in NFC.
static void check_round_trip(const struct tokenizer *t, struct str text, struct ids *ids)
{
    struct buf plain = {0}, decoded = {0};
    for (size_t i = 0; i < text.n; i++) buf_c(&plain, text.p[i] == '<' ? '(' : text.p[i]);
    encode(t, buf_view(&plain), TOKENIZE_CONTROL, ids);
    for (size_t i = 0; i < ids->n; i++) buf_str(&decoded, tokenizer_piece(t, ids->p[i]));
    require(utf8_valid(buf_view(&decoded)));
    if (utf8_valid(text) && plain.n > 0) {
        utf8proc_uint8_t *nfc = NULL;
        utf8proc_ssize_t len =
            utf8proc_map((const utf8proc_uint8_t *)plain.p, (utf8proc_ssize_t)plain.n, &nfc,
                         UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        require(len >= 0 && str_eq(buf_view(&decoded), (struct str){(char *)nfc, (size_t)len}));
        free(nfc);
    }
    buf_free(&plain);
    buf_free(&decoded);
}

// With a guard in each control token's text, asking for control tokens changes nothing.
static void check_guards(const struct tokenizer *t, struct str text, struct ids *plain,
                         struct ids *guarded)
{
    struct buf room = {0};
    size_t pos = 0, len = 0;
    for (size_t at; (at = tokenizer_find_control(t, text, pos, &len)) != SIZE_MAX; pos = at + 1) {
        require(at >= pos && len > 0 && len <= text.n - at);
        buf_str(&room, str_sub(text, pos, at + 1 - pos));
        buf_c(&room, TOKENIZE_GUARD);
    }
    buf_str(&room, str_sub(text, pos, SIZE_MAX));
    encode(t, text, 0, plain);
    encode(t, buf_view(&room), TOKENIZE_CONTROL, guarded);
    require_same(plain, guarded);
    buf_free(&room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct tokenizer *t;
    if (t == NULL) t = tiny_vocab_open(); // kept for all inputs, so that its caches are met too
    struct str text = {(const char *)data, n};
    struct ids a = {0}, b = {0};
    encode(t, text, TOKENIZE_CONTROL, &a);
    encode(t, text, TOKENIZE_CONTROL, &b);
    require_same(&a, &b);
    struct tokenizer *fresh = n % 16 == 0 ? tiny_vocab_open() : NULL;
    if (fresh != NULL) {
        encode(fresh, text, TOKENIZE_CONTROL, &b);
        require_same(&a, &b);
    }
    tokenizer_close(fresh);
    check_round_trip(t, text, &a);
    check_guards(t, text, &a, &b);
    ids_free(&a);
    ids_free(&b);
    return 0;
}
