// The schedule in the foreground, for machines without systemd: starts what is due as processes of
// their own and tells of those that were killed.
#pragma once

#include "agent/schedule_unit.h"

struct schedule_loop { // all borrowed
    struct schedule_place place;
    const char *state_dir; // NULL: no records
    uint32_t jobs;         // at a time
};

// Until SIGINT or SIGTERM, which it hands on to what runs.
bool schedule_loop_run(const struct schedule_loop *l, struct err *e);
