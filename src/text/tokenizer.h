// Byte-level BPE as data (GPT-2 family): text -> token ids and back. Thread safe after open.
// Source: Hugging Face tokenizers' ByteLevel + BPE; GGUF tokenizer.ggml.* keys.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum token_kind { // the numbers of tokenizer.ggml.token_type
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER,
    TOKEN_UNUSED,
    TOKEN_BYTE
};

// What a tokenizer is made of. Borrowed during tokenizer_open only.
struct tokenizer_data {
    struct str model; // tokenizer.ggml.model, "gpt2"
    struct str pre;   // tokenizer.ggml.pre, "qwen2"
    uint32_t n_tokens;
    const struct str *tokens; // [n_tokens], in GPT-2's byte-to-unicode spelling
    const int32_t *types;     // [n_tokens] enum token_kind; NULL = all normal
    uint32_t n_merges;
    const struct str *merges;   // [n_merges] "left right", by rank
    int32_t bos, eos, eot, pad; // -1 = none
    bool add_bos;
};

struct tokenizer;

struct ids {
    int32_t *p;
    size_t n, cap;
};                                                       // a growing list, owned; starts as {0}
bool ids_put(struct ids *l, const int32_t *p, size_t n); // false: no memory, list unchanged
void ids_free(struct ids *l);

bool tokenizer_open(struct tokenizer **out, const struct tokenizer_data *d, struct err *e);
void tokenizer_close(struct tokenizer *t);

enum tokenize_flags {
    TOKENIZE_CONTROL = 1, // control tokens' text becomes the token (user-defined tokens always do)
    TOKENIZE_BOS = 2,     // put BOS first where the model wants it
};
// Byte that guards text from becoming a control token: it is never part of valid UTF-8, it is
// dropped before tokenising, and a control token's text with a guard inside is plain text.
// text/chat.c puts one into every control token's text that a request brings.
#define TOKENIZE_GUARD '\xff'

// Appends the ids of text to out. text need not be valid UTF-8 (bad bytes become U+FFFD).
// Repeated pieces between special tokens are memoised, so a repeated prompt costs a hash.
bool tokenizer_encode(const struct tokenizer *t, struct str text, unsigned flags, struct ids *out,
                      struct err *e);
// May know the ids of a piece of text between two special tokens, behind the ids in out: then it appends
// them and says so (splice.h).
typedef bool tokenizer_known(void *arg, struct str piece, struct ids *out);
struct tokenizer_help {
    tokenizer_known *known; // NULL: nobody knows
    void *arg;
    uint64_t space; // pieces are memoised apart for each; 0: that of tokenizer_encode
};
bool tokenizer_encode_with(const struct tokenizer *t, struct str text, unsigned flags,
                           const struct tokenizer_help *help, struct ids *out, struct err *e);
// The space of a tenant's texts; that of the empty salt is 0.
uint64_t tokenizer_space(struct str salt);
// The bytes of a token (may be part of a character); empty for ids out of range.
struct str tokenizer_piece(const struct tokenizer *t, int32_t id);
enum token_kind tokenizer_kind(const struct tokenizer *t, int32_t id);
// The id of the special (control or user-defined) token with exactly this text; -1 when there is
// none.
int32_t tokenizer_special(const struct tokenizer *t, struct str text);
// Does generation end at this token (eos, eot, and the usual end-of-turn names)?
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);
uint32_t tokenizer_n_vocab(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t); // -1 = none
int32_t tokenizer_eos(const struct tokenizer *t);
// Where the first control token's text begins in s at or after from, and its length in *n; SIZE_MAX
// if none.
size_t tokenizer_find_control(const struct tokenizer *t, struct str s, size_t from, size_t *n);
