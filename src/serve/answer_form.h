// The form that a request wants of its answer, as the engine holds it: response_format, tools whose
// arguments are strict, calls that are forced by tool_choice.
#pragma once

#include <stdbool.h>

#include "serve/openai_request.h"
#include "serve/reply.h"

// *out borrows from p and o, but for the grammars, which answer_form_free gives back. After a failure there is nothing
// to free.
bool answer_form_make(const struct request_params *p, const struct reply_options *o,
                      const struct tokenizer *tok, struct job_form *out, struct err *e);
void answer_form_free(struct job_form *f);
