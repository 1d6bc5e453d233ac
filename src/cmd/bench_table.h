// Results of several servers side by side: as a table for people and as JSON.
#pragma once

#include "agent/workload.h"
#include "base/str.h"

struct bench_column {
    const char *name; // borrowed
    struct workload_result result;
};

// Medians with their spread; from the second column on how many times better the first one is.
void bench_table_print(const struct bench_column *columns, size_t n, struct buf *out);
// "NAME":{"KEY":{"median":..,"lo":..,"hi":..,"unit":"s","samples":[..]},...},... without outer braces.
void bench_table_json(const struct bench_column *columns, size_t n, struct buf *out);
// What one round of a workspace's day takes, in seconds: the policy that decides between two setups.
double bench_total_s(const struct workload_result *r, uint32_t gen_tokens);
