// What all runs of one command share and only read: settings, workspace, server, where records go.
#pragma once

#include <stdatomic.h>

#include "agent/definition.h"
#include "agent/private_server.h"
#include "agent/workspace.h"
#include "cmd/options.h"

enum { SESSION_SERVER_ARGS = 20 };

struct run_session {
    const struct settings *s; // borrowed
    const atomic_int *cancel; // borrowed
    struct workspace ws;      // with the flags' settings in its config
    struct buf key, runtime_dir, state_dir, lists, model;
    bool keeps_records;
    const char *lists_dir; // of MCP servers' tools, in lists; NULL: none are kept
    const char *server_args[SESSION_SERVER_ARGS]; // of a private server
    char numbers[4][24];                          // texts of server_args
    bool private_only;
};

bool run_session_open(struct run_session *out, const struct settings *s, const atomic_int *cancel,
                      struct err *e);
void run_session_close(struct run_session *r);
// Once a command, on standard error: a private server answers with the built-in model because nobody named one.
void run_session_tell_model(const struct run_session *r);
// Which server a run of this definition (NULL: a task given by hand) asks.
struct server_wish run_session_wish(const struct run_session *r, const struct definition *d,
                                    uint64_t deadline_ns);
