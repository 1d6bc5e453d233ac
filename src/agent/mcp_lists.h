// What MCP servers listed, kept from one run to the next. With it a run's prompt is known before any
// server has started: a server starts when one of its tools is called, and not at all in a run that
// calls none. The list is what the next runs say too, so it also keeps their prompts alike.
//
// A list is used for a day, and only while the server is configured, and its program is, as it was then;
// whenever the server does start, what it lists then is kept for the runs that follow.
#pragma once

#include <jansson.h>

#include "agent/mcp_transport.h"

// *out is a list of tools as the server gave it, owned by the caller. False: none that may be used.
// dir may be NULL: then nothing is kept.
bool mcp_list_load(json_t **out, const char *dir, const struct mcp_spec *spec,
                   const struct mcp_place *place);
// Without the place's secrets. What cannot be written is only slower the next time.
void mcp_list_save(json_t *tools, const char *dir, const struct mcp_spec *spec,
                   const struct mcp_place *place);
