// The tool `exec`: one allow-listed command, without a shell, under limits.
#pragma once

#include "agent/allow.h"
#include "agent/tool.h"

struct exec_settings {
    struct allow_list allow;
    struct words path;     // folders put in front of PATH, absolute
    struct words env;      // names of variables that a command gets beside the usual ones
    char *dir;             // working directory, absolute, owned
    uint32_t timeout_s;    // of one command
    uint32_t output_bytes; // of one command's output that the model sees
};

struct exec_tool {
    const struct exec_settings *settings; // borrowed
    const struct allow_list *allow;       // settings->allow or a definition's own
    const char *const *environment;       // ours: NULL-terminated "NAME=value", borrowed
    const char *run_id;                   // borrowed
    struct buf description;
};

// Fills *tool with the row of this exec; both live as long as x. allow replaces the settings' rules
// where it is not NULL, but not in the description: that is one for all. False: no memory.
bool exec_tool_open(struct exec_tool *x, const struct exec_settings *s,
                    const struct allow_list *allow, const char *const *environment,
                    const char *run_id, struct tool *tool, struct err *e);
void exec_tool_close(struct exec_tool *x);
void exec_settings_free(struct exec_settings *s);
