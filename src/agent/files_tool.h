// The tools `read_file` and `list_files`: text files and folders below the listed paths, and no
// others, whatever links and ".." stand in a path.
#pragma once

#include "agent/allow.h"
#include "agent/tool.h"

struct files_settings {
    struct words read;     // files and folders, absolute
    uint32_t output_bytes; // of one answer
};

struct files_tool { // borrowed
    const struct files_settings *settings;
    const struct words *hide; // files that are never read: secrets
    const char *dir;          // where relative paths start: the workspace
};

// The rows of both; they live as long as x.
struct tool files_tool_read(struct files_tool *x);
struct tool files_tool_list(struct files_tool *x);
