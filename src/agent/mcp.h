// A client of one MCP server: start, initialize, list its tools, call them, start it again when it
// died. What the server asks of us is answered (ping) or declined; what it notifies is left alone,
// in particular that its list of tools changed: the list is frozen for a run, because it stands in
// the bootstrap. Where the list is known from an earlier run (mcp_lists.h) the server starts at the
// first call.
#pragma once

#include "agent/mcp_transport.h"
#include "agent/tool.h"

struct mcp_tool { // owned
    char *name;   // "server__tool", as the model sees it
    char *remote; // as the server knows it
    char *description;
    char *parameters; // a JSON schema with sorted members: the same bytes each time
    bool repeatable;
};

struct mcp_server {
    const struct mcp_spec *spec;   // borrowed
    const struct mcp_place *place; // borrowed
    struct mcp_transport *link;    // NULL: not running
    bool ready;                    // it is initialized
    json_t *listed;                // its tools as it gave them, owned
    int64_t last_id;
    struct mcp_tool *tools; // sorted by name
    size_t n_tools;
};

enum { MCP_START_MS = 30000 };

void mcp_server_init(struct mcp_server *s, const struct mcp_spec *spec,
                     const struct mcp_place *place);
// Its tools as an earlier run learned them from it; then it need not start before a call.
bool mcp_server_take_list(struct mcp_server *s, json_t *listed, struct err *e);
// Starts it, without waiting.
bool mcp_server_start(struct mcp_server *s, struct err *e);
// Initializes it and lists its tools.
bool mcp_server_ready(struct mcp_server *s, uint64_t deadline_ns, const atomic_int *cancel,
                      struct err *e);
// One call; failures are told in out. What it wrote on standard error goes to out->log.
void mcp_server_call(struct mcp_server *s, const struct mcp_tool *tool, json_t *args,
                     const struct tool_limits *limits, struct tool_result *out);
void mcp_server_close(struct mcp_server *s);
