// Cutting text into words before merging: the model's regular expression, through PCRE2 with JIT.
// The rules are data: tokenizer.ggml.pre names a row of a table in pretok.c.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct pretok_rule {
    const char *name;    // tokenizer.ggml.pre
    const char *pattern; // PCRE2 syntax, UTF and UCP
    bool nfc;            // the tokenizer normalises to NFC first
    bool whole_words;    // a word that is a token as it stands is not merged ("ignore_merges")
};

// The row called name; NULL with an error that lists the known ones.
const struct pretok_rule *pretok_find(struct str name, struct err *e);

struct pretok; // the compiled expression; immutable, for any number of threads

bool pretok_open(struct pretok **out, const struct pretok_rule *rule, struct err *e);
void pretok_close(struct pretok *p);

struct pretok_work; // what one caller needs for matching

struct pretok_work *pretok_work_open(const struct pretok *p); // NULL: no memory
void pretok_work_close(struct pretok_work *w);
// The end of the word that begins at pos < text.n; > pos. text must be valid UTF-8. What the
// expression does not match is a word of its own. SIZE_MAX when the expression failed (memory).
size_t pretok_next(const struct pretok *p, struct pretok_work *w, struct str text, size_t pos);
