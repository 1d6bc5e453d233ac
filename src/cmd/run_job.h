// One run of one sub-mind from settings to record: tries, retries, notice, and what follows a
// failure. Each job has its own connection, record store and tools, so that jobs run side by side.
#pragma once

#include "agent/turns.h"
#include "cmd/run_session.h"

struct run_job {
    const struct run_session *session; // borrowed
    struct definition definition;      // name NULL: a task given by hand
    const char *values[DEFINITION_INPUTS];
    struct buf task, inputs, notes_file; // notes_file: what the tool `remember` appends to
    const char *cause;                   // "hand", "schedule", "after NAME"
    struct run_view shown;               // borrowed by the run
    uint32_t depth;                      // 1: this one follows another's failure
    char id[40], first_id[40];
    uint32_t attempt;
    bool skipped;             // it was due but did not start; the result's error says why
    struct run_result result; // of the last try
    int exit_code;
};

const char *run_job_name(const struct run_job *j); // "" for a task given by hand
// A named sub-mind with "key=value" words. Errors are bad use: nothing has run.
bool run_job_open(struct run_job *j, const struct run_session *s, const char *name,
                  const char *const *words, size_t n_words, struct err *e);
bool run_job_open_task(struct run_job *j, const struct run_session *s, struct str task,
                       struct err *e);
// Always comes to an end; result and exit_code are filled.
void run_job_do(struct run_job *j);
void run_job_close(struct run_job *j);
