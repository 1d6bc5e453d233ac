// The user's own prompts for a measurement: a workspace's bootstrap and the tasks of its definitions.
#pragma once

#include "agent/workload.h"
#include "agent/workspace.h"
#include "base/err.h"

enum { BENCH_MAX_TASKS = 64 };

// Starts as {0}, which means prompts made up by the workload.
struct bench_prompt {
    bool there;
    struct workspace workspace;
    char *tasks[BENCH_MAX_TASKS];
    size_t n_tasks;
};

// dir NULL: none. ERR_NOT_FOUND for a folder without a bootstrap.
bool bench_prompt_open(struct bench_prompt *out, const char *dir, struct err *e);
void bench_prompt_close(struct bench_prompt *p);
// What it has, borrowed, into the settings of a workload.
void bench_prompt_use(struct bench_prompt *p, struct workload_settings *w);
