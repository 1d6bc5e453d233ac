// Messages of the Model Context Protocol: JSON-RPC 2.0, one JSON text each.
// https://modelcontextprotocol.io/specification/2025-06-18/basic
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum mcp_kind { MCP_RESPONSE, MCP_REQUEST, MCP_NOTICE, MCP_NONSENSE };

struct mcp_frame { // borrowed from the JSON value that it was read from
    enum mcp_kind kind;
    const json_t *id; // of a response and a request
    const char *method;
    const json_t *params;
    const json_t *result; // of a response: one of these two
    const json_t *error;
};

struct mcp_frame mcp_frame_read(const json_t *message);
// Appends one. params may be NULL.
void mcp_frame_request(struct buf *out, int64_t id, const char *method, const json_t *params);
void mcp_frame_notice(struct buf *out, const char *method, const json_t *params);
void mcp_frame_reply(struct buf *out, const json_t *id); // an empty result
void mcp_frame_refuse(struct buf *out, const json_t *id, const char *method);
// The error of a response in one line.
void mcp_frame_error(const json_t *error, struct buf *out);

// A result of tools/call as text for the model: text as it is, anything else named. True: the tool
// itself says that it failed.
bool mcp_content_print(const json_t *result, struct buf *out);
