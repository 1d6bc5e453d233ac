// The HTTP server: an OpenAI-compatible API in front of one engine. It listens before the model is
// loaded, so that clients see progress instead of a refused connection.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "engine/engine.h"

enum reasoning_mode { REASONING_AUTO, REASONING_OFF, REASONING_ON };

// Zero means the default in brackets. Strings are borrowed while the server lives.
struct serve_settings {
    const char *host;        // address to bind ["127.0.0.1"]
    uint32_t port;           // 0 takes a free one
    const char *unix_socket; // listen here instead, for this user only
    const char *alias;       // model name in answers [the model's own]
    const struct str *keys;  // accepted API keys; none: no key is asked for
    size_t n_keys;
    bool allow_public;          // bind beyond loopback although there is no key
    const char *cors_origin;    // Access-Control-Allow-Origin [none]
    const char *allow_host;     // Host names besides loopback's, comma separated
    struct str template_kwargs; // JSON object: template variables that requests may override
    enum reasoning_mode reasoning;
    size_t max_body_bytes;    // [32 MiB]
    uint32_t max_connections; // [1024]
    uint32_t idle_exit_s;     // stop after so long without a request [never]
    uint32_t timeout_ms;      // deadline of requests that name none [none]
    bool no_ahead;            // compute no next turns ahead
    // Called once, when the model is loaded and requests are answered; NULL is fine.
    void (*on_ready)(void *arg, const char *url);
    void *on_ready_arg;
    const char *kv_events;        // ZeroMQ address to publish cache events at [nowhere]
    const char *kv_events_replay; // ... and to answer replays at [nowhere]
    const char *kv_events_topic;  // [kv@HOST:PORT@MODEL]
    struct sampling sampling;     // defaults given at start (engine_set_sampling)
    // Under a service manager.
    uint32_t listen_fds;    // sockets it passed, from descriptor 3 on; one is used instead of host
    bool accept_when_ready; // until the model is loaded connections wait in the kernel's queue
    uint32_t drain_s;       // at a stop running answers may finish for so long [they may not]
    const char *notify_socket; // where readiness and liveness are told (NOTIFY_SOCKET)
    uint64_t watchdog_us;      // a sign of life is wanted that often
    // Called from the loading thread with done of total bytes; NULL is fine.
    void (*progress)(void *arg, const char *stage, uint64_t done, uint64_t total);
    void *progress_arg;
};

struct server;

// Binds, starts to answer and begins loading the model in a thread of its own. Both settings are
// copied (the strings in them are borrowed). ERR_INPUT for settings, ERR_IO for the address.
bool server_open(struct server **out, const struct serve_settings *s,
                 const struct engine_settings *es, struct err *e);
uint16_t server_port(const struct server *sv);
// Housekeeping, to be called about once a second: time limits of connections. false when the
// server should be closed: the model could not be loaded (e is filled) or it was idle for too
// long (e is not).
bool server_tick(struct server *sv, struct err *e);
// Readable when the model is loaded or could not be.
int server_fd(const struct server *sv);
// No new connection is accepted any more; what runs goes on, kept connections end with their next answer or
// after two seconds without one. Waits until none is left, for drain_s at most, or until a signal can be read
// from signal_fd that does not come together with the first.
void server_drain(struct server *sv, int signal_fd);
// Ends running answers with an error event, within 5 s, and frees everything; NULL is fine.
void server_close(struct server *sv);

// server_open, then serves until SIGTERM or SIGINT (blocked in all threads meanwhile), then
// server_close.
bool serve_run(const struct serve_settings *s, const struct engine_settings *es, struct err *e);
