// A pool of workers that run one function together, and a barrier inside it. The caller is worker 0.
// Idle workers spin for some microseconds, then sleep on a futex: no endless spinning.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct threads;

enum { THREADS_MAX = 64 };

// Physical cores that this process may run on, at least 1.
uint32_t threads_core_count(void);

// n workers in all, the caller included; 0 = one per physical core; clamped to THREADS_MAX. Workers
// other than the caller are pinned to a core each where there are as many cores as workers.
bool threads_open(struct threads **out, uint32_t n, struct err *e);
void threads_close(struct threads *t); // NULL is fine
uint32_t threads_count(const struct threads *t);

// Asks the system for the tile registers (AMX) on behalf of all threads of the process, present and
// future; false where there are none, or none to be had. Asking again is free.
bool threads_may_use_tiles(void);

typedef void (*threads_fn)(void *arg, uint32_t i_thread, uint32_t n_threads);
// Runs fn on every worker and returns when all are done. From one thread at a time only.
void threads_run(struct threads *t, threads_fn fn, void *arg);
// Inside fn: returns when every worker has called it. What was written before is seen after.
void threads_barrier(struct threads *t);

// The part [*first, *end) of n items, in units of `unit`, that worker i of count does.
static inline void threads_share(uint32_t n, uint32_t unit, uint32_t i, uint32_t count,
                                 uint32_t *first, uint32_t *end)
{
    const uint64_t n_units = (n + unit - 1) / unit;
    const uint64_t a = n_units * i / count * unit, b = n_units * (i + 1) / count * unit;
    *first = a < n ? (uint32_t)a : n;
    *end = b < n ? (uint32_t)b : n;
}
