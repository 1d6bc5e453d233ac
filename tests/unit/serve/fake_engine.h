// An engine that does as it is told: a script instead of a model, so that a server test can have a
// full queue, a slow prefill or a broken device at will. Implements all of engine/engine.h over the
// shipped model's vocabulary; the file is included by its test, so that these definitions win over
// the real library's.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "text/tokenizer.h"

struct fake_script {     // set before a request, read when it is submitted
    const char *text;    // the answer; encoded with control tokens
    uint32_t prefill_ms; // silence before the first token
    uint32_t token_ms;   // between tokens
    uint32_t n_cached;
    bool endless;             // repeats the text until it is cancelled
    bool full;                // ERR_FULL with 2,500 ms to wait
    const char *device_error; // fails after the text
    bool cut;                 // FINISH_LENGTH after the text
    const char *load_error;   // engine_open fails
    _Atomic int load_gate;    // engine_open waits until this is not 0
};
extern struct fake_script fake_script;

struct fake_seen {     // what the server did
    struct ids prompt; // of the last job
    struct buf stops;  // joined with '|'
    uint32_t max_tokens, timeout_ms;
    int32_t priority;
    float temperature;
    _Atomic int n_open, n_cancelled; // streams
};
extern struct fake_seen fake_seen;
