// The scheduler's choice: which sequences take part in the next step, and with how many rows. Pure
// functions of what is given; the engine loop (loop.c) carries them out.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// A running or waiting sequence, as far as the choice depends on it.
struct sched_entry {
    uint32_t n_todo; // known tokens whose keys and values are missing, at least 1
    uint32_t n_done; // tokens before those
    bool decode;     // n_todo is 1 and the prompt is behind it
    bool held; // takes no part in this step (its reader is behind, or another computes its page)
    int32_t priority; // lower first
    double waited_s;  // since it was submitted
};

struct sched_limits {
    uint32_t max_rows;     // of a step
    uint32_t prefill_rows; // that a step should have when only prefill runs
    uint32_t page_tokens;
    double prefill_tps; // measured, rows per second; 0 = not known yet
    uint32_t step_ms;   // prefill's time beside decodes ...
    uint32_t alone_ms;  // ... and without: bounds how long a cancel or a newcomer waits
};

// Does a go before b? Priority, then shortest remaining prefill, each second of waiting being worth a
// second of prefill: so a long prompt is passed by short ones, but not for ever.
bool sched_before(const struct sched_entry *a, const struct sched_entry *b, double prefill_tps);
// Rows for each of n entries in rows[n], 0 for those that wait: all decodes, then prefill in order as
// far as the time budget goes. Returns the sum.
uint32_t sched_plan(const struct sched_entry *entries, uint32_t n, const struct sched_limits *l,
                    uint32_t *rows);
