// How the model itself spelled its answers, for the next turn: text that was sampled token by token may
// be tokenized otherwise when it comes back in the history, and then nothing cached behind it would
// be found. Remembers answers' pieces whose tokens are not the tokenizer's own, by the tokens before
// them, and puts them back where the same text stands in the same place. Thread safe.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "text/tokenizer.h"

struct splice;

struct splice *splice_open(size_t max_bytes); // NULL: no memory. The oldest go first.
void splice_close(struct splice *s);
size_t splice_count(struct splice *s);

// As tokenizer_encode, with remembered pieces put back. salt separates tenants. s may be NULL.
bool splice_encode(struct splice *s, const struct tokenizer *t, struct str salt, struct str text,
                   unsigned flags, struct ids *out, struct err *e);

// Where an answer begins: a digest of the prompt up to its last special token, and what stands behind.
struct splice_place {
    uint64_t before, space; // space: of the tokenizer's memory
    struct ids tail;        // owned
};
// False: no memory, the place is empty.
bool splice_place_of(struct splice_place *out, const struct tokenizer *t, struct str salt,
                     const struct ids *prompt);
void splice_place_free(struct splice_place *p);
// An answer that was sampled there. What cannot be kept for want of memory is forgotten.
void splice_learn(struct splice *s, const struct tokenizer *t, const struct splice_place *p,
                  const struct ids *sampled);
