// Reads the records that run_store.h writes: lists, one run whole, its stages and calls.
#pragma once

#include "agent/run_store.h"

struct run_row { // text borrowed, valid during the call it is handed to
    struct str id, name, workspace, definition_hash, cause, task, inputs, outcome, stage, reason,
        report, status, data, notified, first_id;
    int64_t started_ms, ended_ms; // Unix; ended_ms 0: not yet
    int64_t attempt, exit_code, n_calls, n_turns;
    int64_t prompt_tokens, cached_tokens, prefilled_tokens, completion_tokens; // -1: not known
    double ttft_ms, gen_tps, total_ms;                                         // < 0: not known
};

typedef bool run_row_function(void *arg, const struct run_row *r);
struct run_filter { // NULL and 0: any
    const char *name, *workspace, *id;
    bool running;
    int64_t limit;
};
// Newest first.
bool run_history_list(struct run_store *s, const struct run_filter *f, run_row_function *row,
                      void *arg, struct err *e);
// The full id of "last", an id, or the beginning or end of one; name narrows "last". ERR_NOT_FOUND,
// ERR_INPUT when several match.
bool run_history_find(struct run_store *s, const char *text, struct buf *id, struct err *e);

// Appends the whole record as one JSON object: the row, "stages", "turns", "calls", "messages" and,
// if asked, "bootstrap".
bool run_history_json(struct run_store *s, const char *id, bool with_bootstrap, struct buf *out,
                      struct err *e);
void run_row_json(const struct run_row *r, struct buf *out); // the row only

struct stage_row {
    int64_t n, at_ms;
    struct str text;
};
struct call_row {
    int64_t n, at_ms;
    struct str name, arguments, detail, output, log,
        outcome;       // outcome: running, ok, failed, refused,
                       // could_not_run
    int64_t exit_code; // -1: none
    double ms;         // < 0: not ended
};
bool run_history_stages(struct run_store *s, const char *id,
                        bool (*row)(void *, const struct stage_row *), void *arg, struct err *e);
bool run_history_calls(struct run_store *s, const char *id,
                       bool (*row)(void *, const struct call_row *), void *arg, struct err *e);
// The newest bootstrap text that a run of this workspace sent before.
bool run_history_bootstrap(struct run_store *s, const char *workspace, struct buf *out,
                           struct err *e);
