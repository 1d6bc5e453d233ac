// The tools `remember` (one line to the sub-mind's own notes) and `report` (how the task went; ends
// the run).
#pragma once

#include "agent/tool.h"

struct notes_tool {
    const char *file; // borrowed; made when it is not there, with the folder it lies in
};

struct tool notes_tool_row(struct notes_tool *x); // lives as long as x
struct tool report_tool_row(void);
