// What `submind run` shows on a terminal while a run goes on: one line of progress on standard
// error that is rewritten, the answer as it comes on standard output.
#pragma once

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
