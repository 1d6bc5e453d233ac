// One answer of the model on its way to a client, as an event stream or as a whole.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "serve/exchange.h"
#include "serve/openai_request.h"
#include "text/answer.h"
#include "text/tokenizer.h"

struct reply;

struct reply_options {
    bool chat;
    bool thinking;                // which sampling defaults apply
    struct answer_options answer; // chat; its strings are borrowed from the exchange's arena
};

// Submits the prompt and answers: what fails before acceptance is an error with its status, then
// headers go out at once (stream) or the whole answer is awaited. p lies in x->arena or lives as
// long. false: the connection must be closed.
bool reply_start(struct exchange *x, const struct request_params *p, const struct reply_options *o,
                 const struct ids *prompt);
// The next bytes of the event stream; blocks. 0 < n <= max, or one of:
enum { REPLY_END = -1, REPLY_GONE = -2 };
ssize_t reply_read(struct reply *r, char *out, size_t max);
// Notes the figures for the log line; the job is cancelled if it still runs. NULL is fine.
void reply_close(struct reply *r);
