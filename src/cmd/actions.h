// What stands behind a command's name: service install, cache ls. From actions.def.
#pragma once

#include <stddef.h>

struct action {
    const char *command, *name, *argument, *help; // argument: "" when it takes none
};

// The command's actions in turn: i starts at 0 and is moved on; NULL behind the last.
const struct action *actions_next(const char *command, size_t *i);
// NULL when the command has none of that name.
const struct action *actions_find(const char *command, const char *name);
// Prints them as a command's help shows them.
void actions_help(const char *command);
