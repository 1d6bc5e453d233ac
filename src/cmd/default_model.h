// The model that the binary carries, so that it does something real without any download.
#pragma once

#include <stdbool.h>

#include "base/err.h"

// A path that gguf_open can map; *out is valid until the process ends. Thread safe after the first call.
bool default_model_path(const char **out, struct err *e);
// Is this path the built-in model's?
bool default_model_is(const char *path);
