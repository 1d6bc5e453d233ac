// A streaming chat client for any OpenAI-compatible server. It always knows how far a request came.
#pragma once

#include "agent/chat_reply.h"
#include "agent/http_client.h"

enum chat_stage { CHAT_SENT, CHAT_QUEUE, CHAT_PREFILL, CHAT_GENERATE, CHAT_DONE };

struct chat_status {
    enum chat_stage stage;
    struct chat_progress progress;
    uint64_t n_deltas;
    double elapsed_ms;    // since the request was first sent
    uint32_t n_retries;   // after 429 or 503
    uint32_t retry_in_ms; // > 0: waiting before the next try
};

struct chat_times {
    double ttft_ms; // from sending to the first piece of the answer; < 0: none came
    double gen_tps; // tokens a second behind the first; 0: not known
    double total_ms;
};

struct chat_ask {
    struct str body; // the request's JSON, "stream": true
    uint64_t deadline_ns;
    const atomic_int *cancel;
    void (*on_status)(void *arg,
                      const struct chat_status *s); // several times a second; may be NULL
    void (*on_content)(void *arg, struct str text); // pieces of the answer; may be NULL
    void *arg;
};

// Sends the request and reads the stream to its end. 429 and 503 are tried again as long as the
// deadline allows. reply (owned by the caller, also after a failure), status and times tell how far
// it came. Errors: ERR_NO_SERVER nobody answers; ERR_TIMEOUT the deadline; ERR_CANCELLED; ERR_IO
// the stream broke off; else what the server says. Messages end with the stage that was reached.
bool chat_client_ask(struct http_client *c, const struct chat_ask *ask, struct chat_reply *reply,
                     struct chat_status *status, struct chat_times *times, struct err *e);

// The models that the server lists (GET /v1/models), ", " between their names -> names, *n of them.
bool chat_client_models(struct http_client *c, uint64_t deadline_ns, const atomic_int *cancel,
                        struct buf *names, size_t *n, struct err *e);

// "queue", "prefill 1024 of 15000 tokens at 210 tokens/s", "generation, 12 tokens" -> out.
void chat_status_print(const struct chat_status *s, struct buf *out);
