// A command line in the making: a growing list of words in an arena, NULL-terminated.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/str.h"

// Starts as {.arena = a}. failed is set when there was no memory; later puts do nothing then.
struct cmdline {
    struct arena *arena;
    const char **v; // [n + 1], the last NULL; NULL while empty
    size_t n, cap;
    bool failed;
};

void cmdline_put(struct cmdline *w, struct str word); // copied
void cmdline_z(struct cmdline *w, const char *word);
void cmdline_drop(struct cmdline *w, size_t i, size_t n); // removes n words from the i-th on
// The value behind "--name" ("--name V" or "--name=V"), the last one; NULL when it is not there.
const char *cmdline_flag(const struct cmdline *w, const char *name);
bool cmdline_has(const struct cmdline *w, const char *word);
// Replaces or appends "--name value"; value NULL removes the flag with its value.
void cmdline_set(struct cmdline *w, const char *name, const char *value);
