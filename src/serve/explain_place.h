// Which message, tool or line of a request a byte of its prompt belongs to.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "serve/openai_request.h"

struct place {
    // "message" (its content), "reasoning", "call" (a tool call), "tool", "template", "prompt"
    const char *what;
    size_t index;      // of the message or tool; of the message before (template)
    size_t call;       // of tool_calls ("call")
    struct str role;   // of a message, or a tool's name; borrowed from the request
    uint32_t line;     // in the message's text, or in the prompt, from 1
    bool last_message; // nothing comes after it
    bool before_all;   // template text in front of the first message
};

// p: messages and tools in the form of chat_check, or a text. text: the prompt that was made of it.
struct place place_find(const struct request_params *p, struct str text, size_t at);
// "line 12 of messages[0] (system)"
void place_name(struct buf *b, const struct place *p);
// The fields of a JSON object.
void place_put(struct buf *b, const struct place *p);
