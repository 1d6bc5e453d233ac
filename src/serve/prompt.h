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

// A body with "messages" or with "prompt" -> parameters and tokens. *prompt is zero for a text
// completion. For routes that take either; guard as below.
bool prompt_read(struct exchange *x, struct value body, struct request_params *p,
                 struct prompt *prompt, struct ids *ids, struct err *e);
// Tokens of a rendered prompt, answers in it as the model spelled them under this salt; of a text completion's prompt (text or ids).
bool prompt_encode(struct exchange *x, const struct prompt *prompt, struct str salt,
                   struct ids *out, struct err *e);
bool prompt_encode_text(struct exchange *x, struct value prompt, struct str salt, struct ids *out,
                        struct err *e);
// Checks messages and tools and renders them. guard: as chat_render; for text that is tokenised.
bool prompt_render(struct exchange *x, struct request_params *p, bool guard, struct prompt *out,
                   struct err *e);
void prompt_free(struct prompt *p);
