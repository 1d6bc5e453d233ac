// The request that every run of a workspace begins like: bootstrap, tools, thinking. Warming it makes
// the first run as quick as the second.
#pragma once

#include "base/err.h"
#include "base/str.h"

// Appends a chat request's JSON: the workspace in dir, its tools, and a task of one full stop in the
// place of a real one. environment: ours, NULL-terminated "NAME=value", for the tools' servers; lists_dir:
// what they listed for earlier runs, NULL for nowhere.
bool trunk_request(const char *dir, const char *const *environment, const char *lists_dir,
                   struct buf *out, struct err *e);
// What a pinned trunk of this path is called: its end, as much as a name may have.
struct str trunk_name(const char *path);
