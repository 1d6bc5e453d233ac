// Help of a setting that several commands take, as one of them is to show it.
#pragma once

#include "base/str.h"

// A help is clauses between "; ". One that begins with names of commands or of their actions ("run: default 900",
// "warm, pin: what ls calls it") holds for those: appended to out where `command` or an action of its own is
// among them, without the names where the command itself is, and left out where none is, unless nothing would be
// left. All others are appended. takers: bits of the commands that take the setting; a name that is a command's and
// an action's ("cache") is the command's where that takes it. Who takes all flags of another command (service those
// of serve) is meant by its name too.
void help_text(struct buf *out, const char *help, unsigned takers, const char *command);
// Prints "  name   text" to standard output, the text in lines of its own column.
void help_print(const char *name, const char *text);
