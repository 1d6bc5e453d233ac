// Folders of this user, where no setting names them: the system's variables, not ours.
#pragma once

#include "base/str.h"
#include "cmd/options.h"

// A variable of the environment that is handed on to children anyway; NULL when not set or empty.
const char *place_variable(const char *name);
// Sockets, locks and logs of private servers.
void place_runtime_dir(const struct settings *s, struct buf *out);
// Records of runs: --state-dir, else XDG_STATE_HOME/submind, else ~/.local/state/submind.
// False: nothing is to be kept ("off", or no home).
bool place_state_dir(const struct settings *s, struct buf *out);
// What MCP servers listed (mcp_lists.h), below it. NULL: nothing is to be kept; else the text of out.
const char *place_lists_dir(const struct settings *s, struct buf *out);
