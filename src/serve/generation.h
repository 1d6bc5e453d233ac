// One running job read as text: tokens -> stop strings -> reasoning, content and tool calls. Knows
// nothing of HTTP or JSON.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/engine.h"
#include "serve/logprobs.h"
#include "text/answer.h"
#include "text/stop.h"

struct generation {
    struct stream *stream;
    const struct tokenizer *tok;
    struct stop stop;
    struct answer *answer; // NULL: all text is content
    answer_sink *sink;
    void *sink_arg;
    struct buf text; // what the stop strings let pass, of one token
    bool one_call;   // end after the first tool call
    bool want_logprobs;
    bool keep_ids;
    struct ids ids; // all sampled tokens, when they are kept
    struct logprobs logprobs;
    // state of the answer
    int last_part; // enum answer_part, -1 before the first
    bool saw_reasoning, call_ended;
    uint32_t n_reasoning; // tokens of thinking
    int n_calls;
    // the end
    bool ended;
    enum finish finish;
    struct err error;
    struct stream_status status; // as of the end
};

struct generation_options {
    bool chat;                    // otherwise plain text
    struct answer_options answer; // chat
    const struct str *stops;      // borrowed while it runs
    size_t n_stops;
    bool logprobs, one_call, keep_ids;
};

// Takes the stream, also when it fails (no memory).
bool generation_open(struct generation *g, struct stream *stream, const struct tokenizer *tok,
                     const struct generation_options *o, answer_sink *sink, void *arg,
                     struct err *e);
void generation_close(struct generation *g);
// Handles events that wait (a bounded number), calling the sink; true when the job has ended.
bool generation_pump(struct generation *g);
// "stop", "length" or "tool_calls"
const char *generation_finish_reason(const struct generation *g);
