// ZeroMQ, opened when it is wanted: the library and what it brings along cost every command 5 ms of
// start, and only `serve --kv-events` needs it.
#pragma once

#include <zmq.h>

#include "base/err.h"

#define ZMQ_FUNCTIONS(F) \
    F(ctx_new)           \
    F(ctx_term)          \
    F(socket)            \
    F(close)             \
    F(bind)              \
    F(connect)           \
    F(setsockopt)        \
    F(getsockopt)        \
    F(send)              \
    F(recv)              \
    F(poll)              \
    F(strerror)

struct zmq_api { // zmq_send is called as api->send
#define F(name) __typeof__(zmq_##name) *name;
    ZMQ_FUNCTIONS(F)
#undef F
};

// The same table for everybody, or NULL with e saying what to install. It stays open.
const struct zmq_api *zmq_api_open(struct err *e);
