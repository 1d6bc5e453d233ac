// Chat: messages and tools -> prompt text, by the model's own template; and what the template tells
// about the model (thinking, tool calls). Text that a request brings can never become a control
// token.
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "text/jinja.h"
#include "text/tokenizer.h"
#include "text/value.h"

enum tool_format {
    TOOLS_NONE,
    TOOLS_HERMES
}; // Hermes: <tool_call>{"name", "arguments"}</tool_call>

// How the template takes the arguments of calls in the history; found by rendering a probe.
enum call_arguments {
    ARGUMENTS_AS_GIVEN,
    ARGUMENTS_OBJECT, // it cannot print a string of JSON as it stands
    ARGUMENTS_STRING, // it cannot print an object
};

struct chat_template {
    struct jinja *jinja;
    enum tool_format tools;
    enum call_arguments arguments;
    bool has_thinking;               // writes or knows <think>
    bool has_enable_thinking;        // has the switch
    const struct tokenizer *tok;     // borrowed
    struct str bos_token, eos_token; // texts that the template may print
};

bool chat_template_open(struct chat_template *out, struct str source, const struct tokenizer *tok,
                        struct err *e);
void chat_template_close(struct chat_template *t);

struct chat_request {
    struct value messages; // list of dicts, already checked by chat_check
    struct value tools;    // list or undefined
    struct value kwargs;   // chat_template_kwargs: dict or undefined; wins over the rest
    bool add_generation_prompt;
    int thinking; // -1: do not pass enable_thinking; 0, 1
};

// Checks messages and tools (types, roles, fields; names what is wrong, e.g. "messages[2].content
// must be a string or an array of parts") and brings them into the form that templates expect:
// developer -> system, function -> tool, parts joined to one string (by newlines), null content ->
// "", missing arguments -> {}. Arguments keep their form: which one is wanted is the template's
// affair (chat_render). Client's marks for caches (cache_control) go. In place, in the arena.
bool chat_check(struct value *messages, struct value *tools, struct arena *a, struct err *e);

// Renders the prompt. guard: put TOKENIZE_GUARD into control tokens' text inside the request's
// strings (servers always do; `inspect prompt` prints without).
bool chat_render(const struct chat_template *t, const struct chat_request *r, bool guard,
                 struct arena *scratch, struct buf *out, struct err *e);
