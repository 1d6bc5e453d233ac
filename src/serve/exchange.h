// One request and its answer, and the server that they belong to: what the routes work with. Inside
// serve/ only; the door is serve.h.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/event.h"
#include "base/str.h"
#include "serve/connections.h"
#include "serve/listen.h"
#include "serve/serve.h"
#include "text/value.h"

struct MHD_Connection;
struct MHD_Daemon;
struct reply;
struct route;

enum server_state { SERVER_LOADING, SERVER_READY, SERVER_FAILED, SERVER_CLOSING };
enum finished_reason {
    DONE_STOP,
    DONE_LENGTH,
    DONE_TOOL_CALLS,
    DONE_ABORT,
    DONE_ERROR,
    DONE_COUNT
};

struct server {
    // set before the first thread starts
    struct serve_settings s;
    struct engine_settings es;
    struct listener listener;
    struct MHD_Daemon *daemon;
    struct arena arena;
    struct value template_kwargs; // dict or undefined
    struct event stop;            // readable from the moment that the server closes
    struct event loaded;
    uint64_t id_seed;
    uint64_t start_ns;
    uint64_t last_work, moved_ns, pinged_ns; // of the watchdog; main thread only
    pthread_t loader;
    // written by the loader, then published by state (release/acquire)
    struct engine *engine;
    struct err load_error;
    struct str model_name;
    _Atomic int state;           // enum server_state
    struct kv_events *kv_events; // NULL: not asked for
    struct splice *splice;       // how the model spelled its answers; NULL: not kept
    // relaxed counters
    _Atomic uint64_t load_done, load_total;
    _Atomic uint64_t next_id;
    _Atomic bool draining;             // relaxed: answers say Connection: close
    _Atomic uint64_t last_ns;          // when a request last came or went
    _Atomic uint32_t active;           // requests being answered
    _Atomic size_t body_bytes;         // room of all bodies together
    _Atomic uint64_t done[DONE_COUNT]; // generations by how they ended
    struct connections connections;
};

struct exchange {
    struct server *sv;
    struct MHD_Connection *http;
    struct connection *connection;
    const struct route *route;
    const char *path;   // decoded, without the query; the connection's, while the request lasts
    struct err refused; // found before the body was read; answered after it
    char allow[32];     // of a 405
    bool last;          // what follows on this connection may be no request
    struct buf body;
    size_t room_bytes;   // counted in the server's body_bytes
    struct arena arena;  // everything of the request
    struct reply *reply; // a generation, when the route started one
    uint64_t start_ns;   // headers complete
    uint64_t body_ns;    // last byte of the body
    char id[40];
    bool explain;  // X-Submind-Explain: the answer says what the cache did
    bool no_ahead; // X-Submind-Ahead: 0: the conversation ends here
    // for the log line
    int status;
    enum finished_reason done;
    bool has_done;
    uint32_t n_prompt, n_cached, n_generated;
    struct cache_report cache;
    double ttft_ms, parse_ms, render_ms, tokenize_ms, queue_in_ms;
};

// Sends a whole answer; takes the body's memory. false: the connection must be closed.
bool exchange_send(struct exchange *x, int status, const char *content_type, struct buf *body);
// A query parameter's text, empty when it is not there.
struct str exchange_query(struct exchange *x, const char *name);
bool exchange_send_json(struct exchange *x, struct buf *body); // 200
bool exchange_send_error(struct exchange *x, const struct err *e);
// Starts an event stream whose bytes come from reply_read(x->reply).
bool exchange_send_stream(struct exchange *x);

enum exchange_wake { WAKE_EVENT, WAKE_TIME, WAKE_GONE, WAKE_CLOSING };
// Blocks until fd is readable, ms are over, the client hung up, or the server closes.
enum exchange_wake exchange_wait(struct exchange *x, int fd, int ms);

enum server_state server_state(const struct server *sv);
// Why the engine cannot be used yet: ERR_LOADING with progress, or ERR_SHUTDOWN.
bool server_check_ready(const struct server *sv, struct err *e);
// Parses the body into x->arena.
bool exchange_parse(struct exchange *x, struct value *out, struct err *e);
// 24 hexadecimal digits that do not repeat; tag tells several ids of one request apart.
void exchange_hex_id(const struct exchange *x, unsigned tag, char out[25]);
