// Figures of the engine: counters, gauges, histograms and measured speeds. Written by the engine
// thread, read by any, under a mutex that is held for a copy only.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"

struct speed {
    double prefill_tps; // rows per second of prefill alone; 0 = not known yet
    double wall_tps;    // prompt tokens per second as they arrive, decodes beside them included
    double decode_s;    // a step of decodes only; 0 = not known yet
    double mean_new;    // tokens that a finished request generated, decayed mean
    double rows, seconds, wall_seconds; // decayed sums behind the rates
    double bulk_tps, bulk_rows; // of steps of many rows, as a long prompt has them, and how many
};

struct stats {
    pthread_mutex_t lock;
    struct engine_stats s;
    struct speed speed;
    uint64_t backlog; // prompt tokens not yet computed of all live jobs, as of the last step
};

void stats_init(struct stats *st);
void stats_deinit(struct stats *st);
void stats_copy(const struct stats *st, struct engine_stats *out);
// One step that took dt_s, with n_prefill prompt rows beside n_decode decode rows.
void stats_step(struct stats *st, uint32_t n_prefill, uint32_t n_decode, double dt_s);
// What an earlier process measured in steps of so many rows: holds until something is measured here.
void stats_expect(struct stats *st, double tps, double rows);
// n_rows of the step before were nobody's yet.
void stats_ahead(struct stats *st, uint32_t n_rows);
void stats_refused(struct stats *st);
struct speed stats_speed(const struct stats *st);
// When a refused client should come again: the time in which one of n_live jobs ends.
uint32_t stats_retry_ms(const struct stats *st, uint32_t n_live, uint32_t n_parallel);
void histogram_add(struct histogram *h, double seconds);
