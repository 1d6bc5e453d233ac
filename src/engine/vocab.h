// The tokenizer of a GGUF: tokenizer.ggml.* metadata -> text/tokenizer.h. Text and model do not
// know each other; they meet here. Works on files without tensors.
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "model/gguf.h"
#include "text/tokenizer.h"

// *out is owned by the caller and borrows nothing from g; close with tokenizer_close. A missing or
// mistyped key is ERR_FORMAT, a tokenizer model or pre-tokenizer that we lack is ERR_UNSUPPORTED.
bool vocab_open(struct tokenizer **out, const struct gguf *g, struct err *e);
