// A Jinja interpreter: what chat templates of real models use, as Hugging Face's transformers sets
// it up (trim_blocks, lstrip_blocks, tojson without escaping, raise_exception, strftime_now).
// Bounded: nesting, steps and output, so that no template can hang or fill the machine.
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "text/value.h"

struct jinja; // a parsed template; immutable, may be rendered by several threads at once

// Parses source (copied). Errors are "template line 12 column 7: ...".
bool jinja_open(struct jinja **out, struct str source, struct err *e);
void jinja_close(struct jinja *j);
// Renders with the variables of dict `vars`; scratch is where all values live during the call.
bool jinja_render(const struct jinja *j, struct value vars, struct arena *scratch, struct buf *out,
                  struct err *e);
