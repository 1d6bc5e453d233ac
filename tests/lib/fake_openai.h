// A scripted HTTP server for tests of the client: each connection gets the next response, byte for
// byte.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct fake_response {
    const char *bytes; // the whole response with its head; NULL = close at once
    size_t piece;      // bytes per write; 0 = all at once
    unsigned piece_ms; // between writes
    bool stall;        // keep the connection open afterwards until the client goes
};

struct fake_openai;

struct fake_openai *fake_openai_open(const struct fake_response *list,
                                     size_t n);           // list is borrowed
const char *fake_openai_url(const struct fake_openai *f); // "http://127.0.0.1:PORT"
size_t fake_openai_count(struct fake_openai *f);          // requests so far
// The i-th request, head and body; valid until close.
const char *fake_openai_request(struct fake_openai *f, size_t i);
void fake_openai_close(struct fake_openai *f);

#define FAKE_SSE "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
