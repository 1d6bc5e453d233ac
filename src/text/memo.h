// Segments of text already tokenised: text -> ids, for repeated prompts. Thread safe. Each space has its
// own: who asks in one cannot learn by the time it takes what was asked in another.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "text/tokenizer.h"

enum { MEMO_MIN_BYTES = 256 }; // shorter segments are quicker tokenised than looked up and kept

struct memo;

struct memo *memo_open(
    size_t max_bytes); // NULL: no memory. Texts and ids together stay below max_bytes.
void memo_close(struct memo *m);
// Appends the ids of text to out when they are known. False: not known; or, with *no_memory set,
// not appended.
bool memo_get(struct memo *m, uint64_t space, struct str text, struct ids *out, bool *no_memory);
// Remembers (copies) ids for text; drops what was not used for longest. Too large or no memory:
// nothing.
void memo_put(struct memo *m, uint64_t space, struct str text, const int32_t *ids, size_t n);
