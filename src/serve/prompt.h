// Request -> prompt: the chat template and the tokenizer, for the routes that need either.
#pragma once

#include <stdbool.h>

#include "serve/exchange.h"
#include "serve/openai_request.h"
#include "serve/reply.h"
#include "text/tokenizer.h"

struct prompt {
    struct buf text;            // rendered, the opening of a forced tool call included
    struct reply_options reply; // how the answer is to be read
};

// Checks messages and tools and renders them. guard: as chat_render; for text that is tokenised.
bool prompt_render(struct exchange *x, struct request_params *p, bool guard, struct prompt *out,
                   struct err *e);
void prompt_free(struct prompt *p);
