// Server-sent events from pieces of any size. Source: WHATWG HTML, section 9.2.6.
#pragma once

#include <stdbool.h>

#include "base/str.h"

struct sse_reader {
    struct buf line; // not yet complete
    struct buf data; // of the event in the making
    bool has_data, after_cr;
    size_t limit_bytes; // of one event; 0 = 16 MiB
    bool too_long;
};

// Called with each event's data; false stops the reader.
typedef bool sse_sink(void *arg, struct str data);

// False when the sink said so or an event is longer than the limit (too_long).
bool sse_feed(struct sse_reader *r, struct str piece, sse_sink *sink, void *arg);
void sse_free(struct sse_reader *r);
