// What the next turn of a conversation will begin with, computed before it is asked for, where the pages of this turn will
// not serve it: templates drop what was thought once a new question follows, so the answer stands behind other tokens.
#pragma once

#include "serve/exchange.h"
#include "serve/openai_request.h"
#include "text/tokenizer.h"

// Is it worth keeping what next_turn_expect wants to know?
bool next_turn_may_come(const struct exchange *x, const struct request_params *p);
// An answer without calls that has ended: its content as the client has it, and the tokens that have pages, prompt and answer.
// Hands the rest to the engine (engine_ahead), under the request's salt and hints. What fails is left.
void next_turn_expect(struct exchange *x, const struct request_params *p, struct str content,
                      const struct ids *have);
