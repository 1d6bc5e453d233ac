// Decodes first, then prefill by order under a budget of rows that stands for time.
// Invariant: when any entry is not held, the plan has at least one row, so the engine always advances.
#include "engine/sched.h"

#include <string.h>

enum {
    FIRST_ROWS =
        32, // before any speed is known: a slow machine must not start with a minute's step
    LEAST_ROWS = 16, // fewer rows waste the weights that are read for them
};

static double score(const struct sched_entry *e, double prefill_tps)
{
    const double tps = prefill_tps > 0 ? prefill_tps : 100;
    return e->n_todo / tps - e->waited_s;
}

bool sched_before(const struct sched_entry *a, const struct sched_entry *b, double prefill_tps)
{
    if (a->priority != b->priority) return a->priority < b->priority;
    return score(a, prefill_tps) < score(b, prefill_tps);
}

static uint32_t prefill_budget(const struct sched_limits *l, uint32_t n_decode)
{
    uint32_t budget = l->prefill_rows;
    const uint32_t time_ms = n_decode > 0 ? l->step_ms : l->alone_ms;
    if (l->prefill_tps <= 0) {
        if (budget > FIRST_ROWS) budget = FIRST_ROWS;
    } else {
        const double rows = l->prefill_tps * time_ms / 1000;
        if (rows < budget) budget = (uint32_t)rows;
    }
    if (budget < LEAST_ROWS) budget = LEAST_ROWS;
    const uint32_t room = l->max_rows - n_decode;
    return budget < room ? budget : room;
}

// A chunk that does not reach its prompt's end stops at a page's end where it passes one, so that
// all that was computed is in the tree at once.
static uint32_t chunk_rows(const struct sched_entry *e, uint32_t budget, uint32_t page_tokens)
{
    if (e->n_todo <= budget) return e->n_todo;
    const uint32_t end = (e->n_done + budget) / page_tokens * page_tokens;
    return end > e->n_done ? end - e->n_done : budget;
}

static uint32_t next_prefill(const struct sched_entry *entries, uint32_t n, double tps,
                             const uint32_t *rows)
{
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++) {
        if (entries[i].held || entries[i].decode || rows[i] > 0) continue;
        if (best == n || sched_before(&entries[i], &entries[best], tps)) best = i;
    }
    return best;
}

uint32_t sched_plan(const struct sched_entry *entries, uint32_t n, const struct sched_limits *l,
                    uint32_t *rows)
{
    uint32_t n_decode = 0;
    memset(rows, 0, n * sizeof *rows);
    for (uint32_t i = 0; i < n; i++) {
        if (entries[i].held || !entries[i].decode) continue;
        rows[i] = 1;
        n_decode++;
    }
    uint32_t total = n_decode;
    uint32_t budget = prefill_budget(l, n_decode);
    while (budget > 0) {
        const uint32_t i = next_prefill(entries, n, l->prefill_tps, rows);
        if (i == n) break;
        rows[i] = chunk_rows(&entries[i], budget, l->page_tokens);
        total += rows[i];
        budget -= rows[i];
    }
    return total;
}
