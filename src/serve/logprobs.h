// Log probabilities in OpenAI's two shapes: a list of objects (chat), four parallel lists (text).
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "engine/engine.h"

struct logprobs {
    bool chat;
    size_t n;                                 // tokens collected
    size_t text_offset;                       // characters before the next token (text shape)
    struct buf items;                         // chat
    struct buf tokens, values, tops, offsets; // text
};

void logprobs_add(struct logprobs *l, const struct tokenizer *tok, const struct stream_event *ev);
// ,"logprobs":{...} and forgets what was collected; nothing when there is none.
void logprobs_put(struct logprobs *l, struct buf *out);
void logprobs_free(struct logprobs *l);
