// The form that a request wants of its answer, as the engine holds it: response_format, tools whose
// arguments are strict, calls that are forced by tool_choice.
#pragma once

#include <stdbool.h>

#include "serve/openai_request.h"
#include "serve/reply.h"

// Sets what job says about it; of job->grammar, NULL where any answer will do, the caller holds a
// reference. The rest borrows from p and o.
bool answer_form_set(const struct request_params *p, const struct reply_options *o,
                     const struct tokenizer *tok, struct job *job, struct err *e);
