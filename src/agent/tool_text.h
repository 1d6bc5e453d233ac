// Text from outside as the model may see it: valid UTF-8, without terminal codes, bounded, and
// without anything that a chat template or a tokenizer could take for structure.
#pragma once

#include <stdbool.h>

#include "base/str.h"

// A NUL byte, or more than a tenth of the bytes are no text.
bool tool_text_is_binary(struct str s);
// Appends s: what is no UTF-8 becomes U+FFFD; escape sequences and control characters other than
// tab and line feed go.
void tool_text_put(struct buf *out, struct str s);
void tool_text_trim_end(struct buf *b);
// In place. "<|im_start|>", "</tool_response>", "[INST]" and their like get a space behind their
// first character: a person still reads them, no tokenizer takes them for its own. Our server keeps
// such text apart anyway; others do not.
void tool_text_defuse(struct buf *b);
// In place: at most limit bytes, the last quarter of them from the end, with a line that says what
// was left out.
void tool_text_cut(struct buf *b, size_t limit);
// Of what a program wrote on its standard error, the line that says why it ended: the first that
// names an error, else the last. At most max_bytes, in whole words.
struct str tool_text_reason(struct str log, size_t max_bytes);
