// A shell's text (sh -c '...', or a script) whose last command is llama-server's: read as far as people write
// such texts. Assignments, cd and one simple command are understood, the rest is listed.
#pragma once

#include "base/err.h"
#include "host/cmdline.h"
#include "host/unit_env.h"

enum { SHELL_MAX_LOST = 16 };

struct shell_text {
    struct unit_env *env;            // borrowed: assignments are added
    const char *folder;              // of the last cd; NULL: none
    struct cmdline words;            // the command
    struct str lost[SHELL_MAX_LOST]; // commands that are not run
    size_t n_lost;
};

// out starts as {.env, .words = {.arena}}. is_wanted says which word makes a command the one that is looked for.
// ERR_FORMAT when no command has it; ERR_UNSUPPORTED when that command needs a real shell.
bool shell_read(struct shell_text *out, struct str text, bool (*is_wanted)(const char *word),
                struct err *e);
