// What an answer may look like, byte by byte: a small machine with calls, made by json_schema.c, and the
// matcher that follows one answer through it. A grammar does not change once it is shared.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct grammar;

// Places in a grammar; GRAMMAR_NONE: no memory or no room, which the builder remembers.
#define GRAMMAR_NONE UINT32_MAX
enum { GRAMMAR_STATES_MAX = 400000 }; // 5 MB; a longest string of 65,536 characters takes half

bool grammar_new(struct grammar **out, struct err *e); // one reference, held by the caller
struct grammar *grammar_ref(struct grammar *g);
void grammar_unref(struct grammar *g); // NULL is fine

// ---- making one, from its end to its beginning: each returns the place where what it made begins
uint32_t grammar_return(struct grammar *g); // the end of a rule, and of the whole
// One byte of [lo, hi] or [lo2, hi2] (lo2 > hi2: no second range), then next.
uint32_t grammar_range(struct grammar *g, uint8_t lo, uint8_t hi, uint8_t lo2, uint8_t hi2,
                       uint32_t next);
uint32_t grammar_text(struct grammar *g, struct str text, uint32_t next);
uint32_t grammar_either(struct grammar *g, uint32_t a, uint32_t b);
uint32_t grammar_call(struct grammar *g, uint32_t rule, uint32_t next);
uint32_t grammar_later(struct grammar *g); // a place that is still to be set:
void grammar_set(struct grammar *g, uint32_t at, uint32_t where); // at goes on there
bool grammar_failed(const struct grammar *g); // memory or GRAMMAR_STATES_MAX ran out
// Nothing is added any more. ERR_FULL: it had failed; ERR_INPUT: it has no text that ends.
bool grammar_finish(struct grammar *g, uint32_t start, struct err *e);

// ---- following an answer. Allocates when opened only.
struct grammar_match;
bool grammar_match_open(struct grammar_match **out, struct grammar *g, struct err *e); // refs g
void grammar_match_close(struct grammar_match *m);   // NULL is fine
void grammar_match_restart(struct grammar_match *m); // another answer begins
// May these bytes come next? At least one byte.
bool grammar_match_test(struct grammar_match *m, struct str bytes);
bool grammar_match_take(struct grammar_match *m,
                        struct str bytes);                  // false: they may not; unchanged
bool grammar_match_complete(const struct grammar_match *m); // the answer may end here
bool grammar_match_over(const struct grammar_match *m);     // no byte may come any more
