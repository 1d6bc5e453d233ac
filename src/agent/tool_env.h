// The environment of a tool's process: a fixed list of names, never ours as a whole.
#pragma once

#include "agent/allow.h"

// The value of a variable in a list "NAME=value"; NULL when it is not there.
const char *tool_env_find(const char *const *environment, const char *name);
// Sets a variable, in place of one of that name; a NULL value puts nothing.
bool tool_env_put(struct words *env, const char *name, const char *value, struct err *e);
// PATH with the given folders in front.
void tool_env_path(const char *const *environment, const struct words *front, struct buf *out);
// Appends path as PATH, the usual variables (HOME, LANG ...) and the named ones out of ours.
bool tool_env_make(const char *const *environment, const struct words *names, const char *path,
                   struct words *out, struct err *e);
