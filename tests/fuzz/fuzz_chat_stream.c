// What a server may send: bytes as server-sent events, their data as chunks of an answer. No crash,
// no growth beyond what came; and the pieces in which the bytes arrive change nothing. The first
// byte says how they are cut.
#include <stdint.h>
#include <stdlib.h>

#include "agent/chat_reply.h"
#include "agent/sse_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool on_event(void *arg, struct str text)
{
    struct err e = {0};
    return chat_reply_chunk(arg, text, &e) || e.msg[0] == '\0';
}

static void run(struct str bytes, size_t step, struct chat_reply *reply)
{
    struct sse_reader r = {.limit_bytes = 1 << 20};
    for (size_t at = 0; at < bytes.n; at += step)
        if (!sse_feed(&r, str_sub(bytes, at, step), on_event, reply)) break;
    sse_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0) return 0;
    struct str bytes = {(const char *)data + 1, n - 1};
    struct chat_reply whole = {0}, pieces = {0};
    struct err e = {0};
    run(bytes, n, &whole);
    run(bytes, 1 + data[0] % 17, &pieces);
    if (!str_eq(buf_view(&whole.content), buf_view(&pieces.content)) ||
        !str_eq(buf_view(&whole.finish), buf_view(&pieces.finish)) ||
        whole.n_calls != pieces.n_calls || whole.n_deltas != pieces.n_deltas)
        abort();
    if (whole.content.n > n * 3 || whole.n_calls > CHAT_CALLS_MAX) abort();
    chat_error_from(500, bytes, &e);
    if (e.code == ERR_NONE) abort();
    chat_reply_free(&whole);
    chat_reply_free(&pieces);
    return 0;
}
