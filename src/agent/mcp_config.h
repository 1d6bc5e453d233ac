// MCP servers from the JSON that other clients use:
//
//   {"mcpServers": {
//     "files":   {"command": "npx", "args": ["-y", "..."], "env": {"KEY": "${secret:KEY}"},
//                 "cwd": "data"},
//     "tracker": {"url": "https://host/mcp", "headers": {"Authorization": "Bearer ${secret:T}"}}
//   }}
//
// Of ours, ignored by others: "tools": ["read_*"] (of the server's tools, which are offered),
// "timeout": 60 (seconds of one call), "sandbox": "off" or {"network": true, "write": ["data"]}.
// "disabled": true leaves a server out. ${NAME} is a variable of our environment.
#pragma once

#include "agent/allow.h"

enum { MCP_NAME_MAX = 32, MCP_SERVERS_MAX = 32 };

struct mcp_spec { // text is owned; ${...} not yet replaced
    char *name;
    char *command; // NULL: over HTTP
    struct words args;
    struct words env; // "NAME=value"
    char *cwd;        // absolute; NULL = the workspace
    char *url;
    struct words headers; // "Name: value"
    struct words tools;   // n 0: all
    uint32_t timeout_s;
    bool network, no_sandbox;
    struct words write; // absolute
};

struct mcp_specs {
    struct mcp_spec *list;
    size_t n;
};

// dir is where relative paths start. Errors are "FILE: mcpServers.NAME.FIELD must be ...".
bool mcp_config_read(struct mcp_specs *out, const char *file, const char *dir, struct err *e);
bool mcp_config_parse(struct mcp_specs *out, struct str json, const char *dir, const char *file,
                      struct err *e);
void mcp_specs_free(struct mcp_specs *s);
