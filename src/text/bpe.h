// Byte pair merging of one word: bytes -> token ids. The table is immutable after open.
// Source: Sennrich et al. 2016, as Hugging Face's tokenizers apply it: of all neighbouring pairs
// the one with the lowest rank is merged, the leftmost of equals, until no pair has a rank.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "text/pieces.h"
#include "text/tokenizer.h"

struct bpe_slot {
    uint64_t pair; // left id << 32 | right id; UINT64_MAX = empty
    uint32_t rank;
    int32_t id; // what the pair becomes
};

struct bpe {
    struct bpe_slot *slots; // [mask + 1]
    uint32_t mask;
    int32_t byte_ids[256]; // -1 where the vocabulary lacks the byte
};

// What merging a long word needs; one per caller, starts as {0}, grows as needed.
struct bpe_work {
    struct bpe_symbol *symbols;
    uint64_t *heap; // rank << 32 | position of the pair's left symbol
    size_t cap;
};

bool bpe_open(struct bpe *out, const struct pieces *p, const struct str *merges, uint32_t n_merges,
              struct err *e);
void bpe_close(struct bpe *b);
// Appends the ids of word (below 2 GiB); false: no memory. Time is O(n log n).
bool bpe_word(const struct bpe *b, struct bpe_work *w, struct str word, struct ids *out);
size_t bpe_work_bytes(const struct bpe_work *w);
void bpe_work_free(struct bpe_work *w);
