// The tool `exec`: one allow-listed command, without a shell unless a rule says so, under limits.
#pragma once

#include "agent/allow.h"
#include "agent/sandbox.h"
#include "agent/secrets.h"
#include "agent/tool.h"

struct exec_settings {
    struct allow_list allow;
    struct words path;     // folders put in front of PATH, absolute
    struct words env;      // names of variables that a command gets beside the usual ones
    char *dir;             // working directory, absolute, owned
    uint32_t timeout_s;    // of one command
    uint32_t output_bytes; // of one command's output that the model sees
};

struct exec_setup { // all borrowed
    const struct exec_settings *settings;
    const struct allow_list *allow; // instead of the settings' rules, but not in the description,
                                    // which is one for all; NULL = those
    const struct sandbox_settings *sandbox;
    const struct secrets *secrets;
    const struct words *hide;       // what no command may see, in the sandbox
    const char *const *environment; // ours: NULL-terminated "NAME=value"
    const char *run_id;
};

struct exec_tool {
    struct exec_setup s;
    struct buf description;
};

// Fills *tool with the row of this exec; both live as long as x. False: no memory.
bool exec_tool_open(struct exec_tool *x, const struct exec_setup *s, struct tool *tool,
                    struct err *e);
void exec_tool_close(struct exec_tool *x);
void exec_settings_free(struct exec_settings *s);
