// submind doctor --model: what of a model fits on this machine, and how fast it can be.
#pragma once

#include "cmd/options.h"
#include "host/doctor.h"

bool doctor_sizing(const struct doctor *d, const struct settings *s, struct buf *out,
                   struct err *e);
