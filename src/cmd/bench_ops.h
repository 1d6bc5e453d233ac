// submind bench ops: a table or JSON of what engine_bench_ops measures.
#pragma once

#include <stdatomic.h>

#include "cmd/options.h"

// Prints as it goes; *cancel becoming nonzero stops it.
bool bench_ops(const struct settings *s, const atomic_int *cancel, struct err *e);
