// Generated text -> what a chat client gets: reasoning, content, tool calls, as deltas while it
// streams. Nothing is ever lost: what cannot be parsed as a tool call comes out as content.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "text/chat.h"

enum answer_part {
    ANSWER_REASONING,  // text
    ANSWER_CONTENT,    // text
    ANSWER_CALL_BEGIN, // a tool call starts: text is the function's name
    ANSWER_CALL_ARGS,  // a piece of its arguments: JSON text; all pieces together are valid JSON
    ANSWER_CALL_END,
};

// Called for each delta in order; text is borrowed during the call. call is the tool call's index.
typedef void answer_sink(void *arg, enum answer_part part, int call, struct str text);

struct answer; // one answer in the making

struct answer_options {
    enum tool_format tools;  // TOOLS_NONE: everything is content
    bool split_thinking;     // <think>...</think> goes to reasoning
    bool starts_in_thinking; // the prompt ends with an open <think>
    struct str forced; // text that the prompt already holds of the answer ('<tool_call>\n{"name":
                       // "x", ...')
};

struct answer *answer_open(const struct answer_options *o, answer_sink *sink,
                           void *arg); // NULL: no memory
void answer_close(struct answer *a);
// The next piece of generated text (whole UTF-8 characters).
void answer_feed(struct answer *a, struct str text);
// The end: what was held back comes out. cut: generation stopped for length, so that an open tool
// call is returned as far as it can be valid (a complete JSON) or as text.
void answer_finish(struct answer *a, bool cut);
int answer_n_calls(const struct answer *a);
