// Keeps the record of one run while it goes on: stands between the loop and whoever shows the run.
// A store that cannot be written never ends a run: it is said once in the log, and the run goes on.
#pragma once

#include "agent/run_store.h"

struct run_redact { // takes secrets out of a text before it is kept; text may be NULL
    void (*text)(const void *arg, struct buf *inout);
    const void *arg;
};

struct run_record {
    struct run_store *store; // borrowed; NULL: nothing is kept
    const char *id;          // borrowed
    struct run_redact redact;
    struct run_view shown; // whom everything is handed on to
    struct buf stage;      // its text, as it was written last
    uint64_t stage_ns;     // when the stage's text was written last
    int stage_key;
    uint32_t n_stages, n_calls, n_turns, n_pieces;
    bool broken; // a write failed
};

void run_record_init(struct run_record *r, struct run_store *store, const char *id,
                     struct run_view shown);
// Writes the first row. Its texts are left out: what is secret is not known yet (the tools know).
void run_record_start(struct run_record *r, const struct run_start *start);
// The same row's texts, without the secrets that redact takes out from here on.
void run_record_describe(struct run_record *r, struct run_redact redact,
                         const struct run_start *start, struct str bootstrap);
// What the run tells while it goes on; borrows r.
struct run_view run_record_view(struct run_record *r);
// Before the first request: "server: loading the model: 40 %".
void run_record_wait(struct run_record *r, struct str what);
void run_record_end(struct run_record *r, const struct run_result *result, int exit_code);
