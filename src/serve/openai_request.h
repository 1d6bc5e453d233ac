// The body of a chat or text completion -> typed, bounded parameters. Errors name the field, say
// what it must be and what it was. null counts as absent; unknown fields are ignored.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "engine/engine.h"
#include "text/value.h"

enum { STOPS_MAX = 16, BIAS_MAX = 1024 };
enum answer_form { FORM_TEXT, FORM_OBJECT, FORM_SCHEMA };
enum tool_choice { CHOICE_AUTO, CHOICE_NONE, CHOICE_REQUIRED, CHOICE_NAMED };

// All memory belongs to the arena or to the parsed body.
struct request_params {
    // both kinds
    bool stream, include_usage;
    struct sampling sampling; // has_* says what was given
    uint32_t max_tokens;      // 0 = up to the context
    struct str stops[STOPS_MAX];
    size_t n_stops;
    struct logit_bias *bias;
    size_t n_bias;
    bool ignore_eos, logprobs;
    enum answer_form form;
    struct value schema; // FORM_SCHEMA
    uint32_t n_top_logprobs;
    int32_t priority;
    uint32_t timeout_ms; // 0 = not given
    struct str cache_salt;
    bool has_cache_priority, has_cache_ttl;
    uint32_t cache_priority, cache_ttl_s;
    // chat
    struct value messages, tools; // as they came; chat_check checks them
    struct value template_kwargs; // dict or undefined
    int thinking;                 // -1 not said, 0, 1
    enum tool_choice tool_choice;
    struct str tool_name; // CHOICE_NAMED
    bool parallel_tool_calls, add_generation_prompt;
    bool split_reasoning; // reasoning_format other than "none"
    // text completion
    struct value prompt; // a string, or a list of token ids
};

// n_vocab bounds token ids. A request for something the server cannot do is ERR_UNSUPPORTED.
bool request_read_chat(struct request_params *out, struct value body, uint32_t n_vocab,
                       struct arena *a, struct err *e);
bool request_read_completion(struct request_params *out, struct value body, uint32_t n_vocab,
                             struct arena *a, struct err *e);
// An integer from 0 to n_vocab - 1; `where` names the place in errors.
bool request_token_id(int32_t *out, struct value v, uint32_t n_vocab, const char *where,
                      struct err *e);
