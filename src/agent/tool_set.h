// The tools of one run: which there are, what of them this sub-mind may call, and everything that
// happens around a call (lookup, arguments against the schema, refusal, cleaning, redaction).
//
// The list that the model sees is the workspace's, in a fixed order and the same bytes on every
// run, so that all sub-minds share one bootstrap. What a single definition narrows is refused at
// the call and recorded; it never changes the list.
#pragma once

#include "agent/tool.h"
#include "agent/workspace_config.h"
#include "base/redact.h"

struct tool_set_spec { // all borrowed, as long as the set lives
    const struct workspace_config *config;
    const char *const *environment; // ours: NULL-terminated "NAME=value"
    const char *run_id;
    uint64_t deadline_ns;           // for servers that take long to start; 0 = their own limit
    const atomic_int *cancel;       // NULL: never
    const char *lists_dir;          // of MCP servers' tools (mcp_lists.h); NULL: none are kept
    const char *notes_file;         // what `remember` appends to; NULL = it is not there
    const struct words *tools;      // names, "*" allowed, that this definition may call; NULL: all
    const struct allow_list *allow; // instead of exec.allow; NULL: that
    void (*on_wait)(void *arg,
                    struct str what); // before a server's start is waited for; NULL: none
    void *wait_arg;
};

struct tool_set;

// False: a setting that cannot work (it says which), or no memory.
bool tool_set_open(struct tool_set **out, const struct tool_set_spec *spec, struct err *e);
// What can be told of the settings without starting anything: mcp.json, tools that are named but
// have no rules, secrets that are used but not there.
bool tool_set_check(const struct workspace_config *c, struct err *e);
// The same of what one definition says: its `tools` are offered; its `allow` can have an effect,
// and the secrets that it names are there (*line: the rule's, 0: no rule in particular).
bool tool_set_check_names(const struct workspace_config *c, const struct words *tools,
                          struct err *e);
bool tool_set_check_rules(const struct workspace_config *c, const struct allow_list *allow,
                          int *line, struct err *e);
void tool_set_close(struct tool_set *t);
size_t tool_set_count(const struct tool_set *t); // NULL counts none
// Appends the "tools" array of a chat request.
void tool_set_json(const struct tool_set *t, struct buf *out);
// One call as the model made it; arguments is its JSON text. *out is filled whenever true comes
// back, also with refusals. False only where the run cannot go on (no memory).
bool tool_set_call(struct tool_set *t, struct str name, struct str arguments,
                   const struct tool_limits *limits, struct tool_result *out, struct err *e);
// What must be kept out of prompts, records and logs; NULL for a NULL set.
const struct redactor *tool_set_redactor(const struct tool_set *t);
