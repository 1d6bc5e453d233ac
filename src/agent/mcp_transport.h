// How messages travel to an MCP server and back: a child's pipes, or HTTP.
#pragma once

#include <stdatomic.h>

#include "agent/mcp_config.h"
#include "agent/sandbox.h"
#include "agent/secrets.h"

// Takes one message; false: no more is wanted now.
typedef bool mcp_sink(void *arg, struct str message);

struct mcp_exchange { // borrowed
    struct str message;
    bool wants_answer; // else it is over when the message has gone
    uint64_t deadline_ns;
    const atomic_int *cancel; // may be NULL
    mcp_sink *sink;
    void *sink_arg;
};

struct mcp_transport {
    // Sends, then hands over what comes until the sink wants no more. ERR_TIMEOUT, ERR_CANCELLED,
    // ERR_SHUTDOWN (the server is gone), ERR_NOT_FOUND (it does not know the session; nothing was
    // done) or ERR_IO.
    bool (*exchange)(struct mcp_transport *t, const struct mcp_exchange *x, struct err *e);
    void (*reply)(struct mcp_transport *t, struct str message); // also from within a sink
    bool (*is_alive)(struct mcp_transport *t); // false: it has ended since the last exchange
    void (*agreed)(struct mcp_transport *t, const char *version); // after initialize
    void (*take_log)(struct mcp_transport *t, struct buf *out);   // what it said on standard error
    void (*close)(struct mcp_transport *t);
};

struct mcp_place { // what a server gets of ours; borrowed
    const struct sandbox_settings *sandbox;
    const struct secrets *secrets;
    const struct words *hide;
    const char *const *environment;
    const char *dir;       // the workspace
    const char *lists_dir; // where lists of tools are kept; NULL: nowhere
    uint32_t output_bytes; // of one answer that the model sees
};

// Starts the child; does not wait for it to speak.
bool mcp_stdio_open(struct mcp_transport **out, const struct mcp_spec *spec,
                    const struct mcp_place *place, struct err *e);
bool mcp_http_open(struct mcp_transport **out, const struct mcp_spec *spec,
                   const struct mcp_place *place, struct err *e);
