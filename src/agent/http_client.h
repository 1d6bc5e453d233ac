// One HTTP request at a time over libcurl, to a host or a Unix socket, with a deadline and a way to
// stop it from a signal handler. Knows nothing of what is asked.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct http_client; // keeps its connection between requests; for one thread at a time

enum http_fail {
    HTTP_OK,
    HTTP_NO_CONNECTION,
    HTTP_HANG_UP,
    HTTP_DEADLINE,
    HTTP_CANCELLED,
    HTTP_BROKEN
};

struct http_call {
    const char *path;             // "/v1/chat/completions"
    struct str body;              // POST when not empty, else GET
    const char *method;           // instead of those two; NULL = those
    const char *const *headers;   // more of them, "Name: value", ended by NULL; may be NULL
    size_t limit_bytes;           // of answer.body; 0 = 1 MiB. What is longer is cut (answer.cut)
    uint64_t deadline_ns;         // clock_ns; 0 = none
    const atomic_int *cancel;     // non-zero: stop; may be NULL
    uint32_t connect_ms;          // 0 = 10 s
    void (*on_accept)(void *arg); // the head of a 200 is there; may be NULL
    // Each line of an answer's head, without its line end; may be NULL.
    void (*on_head)(void *arg, struct str line);
    // Pieces of a 200's body as they come. False stops the transfer (HTTP_OK then). NULL: into
    // body.
    bool (*on_data)(void *arg, struct str piece);
    // Called at least every 200 ms while nothing comes; may be NULL. False stops as well.
    bool (*on_tick)(void *arg);
    void *arg;
};

struct http_answer {
    enum http_fail fail;
    long status;             // 0 when no answer came
    uint32_t retry_after_ms; // of a Retry-After header; 0 = none
    struct buf body;         // of answers without on_data and of all but 200; owned
    bool cut;                // the body was longer than the limit
    char content_type[80];   // "" when none was given
    struct buf location;     // where a redirect points, absolute; owned
    char why[256];           // libcurl's words when fail is set
};

// Is url one of the forms below?
bool http_client_check_url(const char *url, struct err *e);
// url: "http://host:8080", with or without "/v1" behind it, https too, or "unix:/path/to/socket".
// key may be NULL (no Authorization header). Both copied.
bool http_client_open(struct http_client **out, const char *url, const char *key, struct err *e);
void http_client_close(struct http_client *c);
// Asked before each connection is made, with the address that was resolved; false lets it fail.
// From then on no proxy is used, because it would connect in our place.
struct sockaddr;
void http_client_guard(struct http_client *c,
                       bool (*may_connect)(void *arg, const struct sockaddr *to), void *arg);
// Fills *out always (free it with http_answer_free); true when an answer with a status came whole.
bool http_client_call(struct http_client *c, const struct http_call *call, struct http_answer *out);
void http_answer_free(struct http_answer *a);
const char *http_client_url(const struct http_client *c); // as given, for messages
