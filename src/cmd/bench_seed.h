// submind bench seed: the contenders one after the other on the same prompts.
#pragma once

#include <stdatomic.h>

#include "cmd/options.h"

bool bench_seed(const struct settings *s, const atomic_int *cancel, struct err *e);
