// submind doctor --fix and --undo: does what can be taken back, one by one, after asking.
#pragma once

#include "cmd/options.h"
#include "host/doctor.h"

bool doctor_mend(const struct doctor *d, const struct settings *s, struct err *e);
bool doctor_undo(const struct settings *s, struct err *e);
