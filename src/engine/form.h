// An answer that must have a form, or calls in it that must: which tokens may come next, and following
// those that came. What a model thinks before its answer is free.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "compute/backend.h"
#include "engine/engine.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

enum form_phase {
    FORM_FREE,  // any answer will do
    FORM_FIRST, // nothing has come yet: it may think, call, or begin
    FORM_THINKS,
    FORM_BLANK,   // nothing but blanks has come, or thoughts: it may call or begin
    FORM_HOLDS,   // a text of the answer's grammar
    FORM_BETWEEN, // free until a call is opened
    FORM_CALLS,   // within a call
};

struct form {
    enum form_phase phase;
    struct grammar_match *answer, *call; // NULL: any
    bool may_call;
    int32_t think_open, think_close, call_open, call_close;
};

bool form_open(struct form *f, const struct job_form *want, struct err *e);
void form_close(struct form *f);
// What follows allocates nothing.
bool form_allows(const struct form *f, const struct tokenizer *tok, int32_t id);
// The tokens of a row that may come, in its order; false where none may.
bool form_filter(const struct form *f, const struct tokenizer *tok, const struct topk_row *row,
                 struct topk_row *out);
// Sets the logits of all tokens that may not come to -INFINITY; false where none is left.
bool form_mask(const struct form *f, const struct tokenizer *tok, float *logits, uint32_t n_vocab);
void form_take(struct form *f, const struct tokenizer *tok, int32_t id); // one that it allows
bool form_is_whole(const struct form *f); // nothing can come any more
