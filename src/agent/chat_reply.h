// One answer of a chat model, put together from the chunks of an OpenAI-compatible stream.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct chat_call { // a tool call as the model wrote it
    struct buf id, name, arguments;
};

struct chat_progress { // of the prompt, as the server tells it
    bool known;
    uint64_t total, cached, processed;
    uint64_t queue_position; // requests before it; 0 also when not told
    double time_ms, eta_ms;  // eta_ms < 0: not told
};

struct chat_usage {
    bool known;
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
};

// All text is owned. Starts as {0}.
struct chat_reply {
    struct buf content, reasoning;
    struct chat_call *calls;
    size_t n_calls;
    struct buf finish; // "stop", "length", "tool_calls"; empty as long as none came
    struct chat_usage usage;
    struct chat_progress progress;
    double server_tps; // generation, in tokens per second, where the server tells it; else 0
    uint64_t n_deltas; // chunks that carried something of the answer
    bool done;         // data: [DONE]
};

enum { CHAT_CALLS_MAX = 64 }; // in one answer

// Takes in one chunk (the data of an event). Fails on an error event, with the server's words and
// the code its type or status stands for, and on what is no chunk.
bool chat_reply_chunk(struct chat_reply *r, struct str json, struct err *e);
void chat_reply_free(struct chat_reply *r);

// The error that an OpenAI-shaped body (or any other) of an answer with this HTTP status stands
// for.
void chat_error_from(long status, struct str body, struct err *e);
