// The records of runs, in SQLite: what a run was asked, how far it came, every request and tool
// call, and how it ended. A row is written before anything happens and kept up to date, so that a
// run that is killed at any point is still there and shows where it was.
//
// One store belongs to one thread; several threads and processes may each open one on the same
// file. Text is stored as it is given: the caller takes secrets out.
// run_history.h reads them.
#pragma once

#include "agent/database.h"
#include "agent/turns.h"

struct run_store {
    struct database db;
};

// Outcomes beyond those of a result: "running"; "interrupted", its process went away; "skipped", it
// was due but did not start.
#define RUN_RUNNING     "running"
#define RUN_INTERRUPTED "interrupted"
#define RUN_SKIPPED     "skipped"

// dir/runs.db; dir is made when missing. Runs whose process is gone become interrupted here.
bool run_store_open(struct run_store *out, const char *dir, struct err *e);
void run_store_close(struct run_store *s);
bool run_store_sweep(struct run_store *s, struct err *e);

// ---- writing --------------------------------------------------------------------------------

struct run_start {         // what is known before a run
    const char *id, *name; // name: the sub-mind, "" for a task given by hand
    const char *workspace, *definition_hash, *cause; // cause: "hand", "schedule", "after NAME"
    struct str task, inputs;                         // inputs: a JSON object
    uint32_t attempt;                                // 1 is the first try
    const char *first_id;                            // of the first try; NULL when this is it
};

bool run_store_start(struct run_store *s, const struct run_start *r, struct err *e);
// What was asked, where the first row did not say so yet.
bool run_store_describe(struct run_store *s, const char *id, struct str task, struct str inputs,
                        struct err *e);
// The system message; kept once for all runs that share it.
bool run_store_bootstrap(struct run_store *s, const char *id, struct str text, struct err *e);
// Stage number n (from 0): made, or its text brought up to date.
bool run_store_stage(struct run_store *s, const char *id, uint32_t n, struct str text,
                     struct err *e);
bool run_store_turn(struct run_store *s, const char *id, uint32_t n, const struct run_turn *t,
                    struct err *e);
bool run_store_call_begin(struct run_store *s, const char *id, uint32_t n, struct str name,
                          struct str arguments, struct err *e);
bool run_store_call_end(struct run_store *s, const char *id, uint32_t n, const struct run_call *c,
                        struct err *e);
// A piece of the transcript, as it grew.
bool run_store_transcript(struct run_store *s, const char *id, uint32_t n, struct str piece,
                          struct err *e);

struct run_end {
    const char *outcome;
    struct str stage, reason, report, status, data; // status and data: of the tool `report`
    int exit_code;
    double total_ms;
};
bool run_store_end(struct run_store *s, const char *id, const struct run_end *r, struct err *e);
// What is on record until now survives a power cut.
bool run_store_sync(struct run_store *s, struct err *e);
bool run_store_set_notified(struct run_store *s, const char *id, struct str what, struct err *e);

// Removes the oldest ended runs: of the sub-mind `name` all but the newest `keep`, and of all of
// them what is older than `days`. 0 = no limit.
bool run_store_prune(struct run_store *s, const char *name, uint32_t keep, uint32_t days,
                     struct err *e);
