// The subcommands. Each gets its own argv (argv[0] is its name) and returns the exit code.
#pragma once

#include "base/err.h"

#define COMMAND(name, function, settings, help) int function(int argc, char **argv);
#include "cmd/commands.def"

// Prints "submind COMMAND: message" to standard error and returns the error's exit code.
int cmd_fail(const char *command, const struct err *e);
