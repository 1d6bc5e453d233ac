// Tells of scheduled runs that could not tell of themselves: whose process was killed, or that
// could not even begin.
#pragma once

#include <stdbool.h>

#include "base/err.h"

// After a scheduled run of this name failed: a notice for each that was interrupted and not told of
// yet; where the run could not begin, a record that says why, and its notice.
bool schedule_failure_tell(const char *workspace, const char *state_dir, const char *name,
                           struct err *e);
