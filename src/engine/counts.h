// How often tokens came: what penalties are computed from. One per sequence that has penalties;
// sized when the job comes in, so that the token loop allocates nothing. Engine thread only.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/sample.h"

// The repetition penalty looks at this many last tokens of prompt and answer.
enum { REPEAT_WINDOW = 64 };

struct counts {
    struct token_count *entries; // [n] distinct tokens, at most cap
    uint32_t n, cap;
    uint32_t *slots; // [n_slots] index + 1 into entries, 0 = empty; a power of two
    uint32_t n_slots;
};

// Room for max_tokens generated ones and the window before them. False: no memory.
bool counts_init(struct counts *c, uint32_t max_tokens, uint32_t n_vocab);
void counts_deinit(struct counts *c);
// tokens[0, n) is the whole text, its last token is new. generated: it was sampled.
void counts_add(struct counts *c, const int32_t *tokens, uint32_t n, bool generated);
// The window at the end of a prompt of n tokens.
void counts_start(struct counts *c, const int32_t *tokens, uint32_t n);
