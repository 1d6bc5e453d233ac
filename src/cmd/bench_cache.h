// submind bench cache: what a cache that outlives the process is worth, and what it costs.
#pragma once

#include <stdatomic.h>

#include "base/err.h"
#include "cmd/options.h"

bool bench_cache(const struct settings *s, const atomic_int *cancel, struct err *e);
