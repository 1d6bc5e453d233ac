// Why a prompt would miss the cache, in words: where it parts from what is cached, what stands there
// on both sides, what it costs and what to change.
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "engine/engine.h"
#include "serve/openai_request.h"
#include "text/tokenizer.h"

struct explain_input {
    const struct tokenizer *tok;
    const struct ids *ids;
    const struct request_params *p; // messages and tools in the form of chat_check; or a text
    const struct cache_probe *probe;
    uint32_t page_tokens;
};

// Appends one JSON object.
bool explain_put(const struct explain_input *in, struct buf *out, struct err *e);
