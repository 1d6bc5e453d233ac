// The vocabulary's bytes: token id -> bytes and, for tokens that text may turn into by merging,
// bytes -> token id. Immutable after open.
// Source: GPT-2's byte-to-unicode spelling, in which tokenizer.ggml.tokens and .merges are written.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "text/tokenizer.h"

struct piece_slot {
    uint32_t tag; // upper half of the hash: most strangers are told apart without their bytes
    int32_t id;   // -1 = empty
};

struct pieces {
    uint32_t n;
    char *bytes;              // all tokens, one after the other
    uint32_t *offsets;        // [n + 1] into bytes
    uint8_t *kinds;           // [n] enum token_kind
    struct piece_slot *slots; // [mask + 1] mergeable tokens by hash of their bytes
    uint32_t mask;
};

bool pieces_open(struct pieces *out, const struct tokenizer_data *d, struct err *e);
void pieces_close(struct pieces *p);
// The mergeable token with exactly these bytes; -1 when there is none. Never a control token.
int32_t pieces_find(const struct pieces *p, struct str bytes);

static inline struct str pieces_at(const struct pieces *p, uint32_t id)
{
    return (struct str){p->bytes + p->offsets[id], p->offsets[id + 1] - p->offsets[id]};
}

// Decodes the spelling into out[at most text.n bytes]; returns the length, SIZE_MAX when a
// character is not of the spelling.
size_t piece_unspell(char *out, struct str text);
