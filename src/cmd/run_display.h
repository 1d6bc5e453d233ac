// What `submind run` shows on a terminal while a run goes on: one line of progress on standard
// error that is rewritten, the answer as it comes on standard output.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/turns.h"

struct run_display {
    bool line;   // standard error is a terminal: show the progress line
    bool stream; // standard output is a terminal: print the answer as it comes
    bool shown;  // a progress line stands there
    bool streamed, at_line_start;
    uint64_t last_ns;
};

void run_display_init(struct run_display *d, bool quiet, bool json);
struct run_view run_display_view(struct run_display *d);
void run_display_wait(void *arg, struct str what); // for server_find
// The end: clears the line, prints the report (unless it was streamed) and one line that sums up.
void run_display_end(struct run_display *d, const struct run_result *r, bool quiet);

// Of several runs side by side: one line that says how many of them are where.
enum runs_at { RUNS_WAITING, RUNS_READING, RUNS_ANSWERING, RUNS_AT_TOOLS, RUNS_AT };

struct runs_display {
    pthread_mutex_t lock; // guards all of it and what stands on the terminal
    bool line;            // standard error is a terminal
    bool shown;
    uint64_t last_ns;
    size_t n_runs, n_ended, n_at[RUNS_AT];
    struct chat_progress furthest; // of the prompts that are being read
};

struct runs_place { // one of the runs
    struct runs_display *all;
    bool inside; // counted in n_at[at]
    enum runs_at at;
};

void runs_display_init(struct runs_display *d, size_t n_runs, bool quiet);
struct run_view runs_place_view(struct runs_place *p);
// The run has ended: takes the lock and clears the line, for the caller to write; leave draws again.
void runs_place_end(struct runs_place *p);
void runs_display_leave(struct runs_display *d);
