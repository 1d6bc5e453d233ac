// The workload that matters, measured from a client's side against any OpenAI-compatible server: a long
// bootstrap cold, the same one cached, eight agents at once on a bootstrap nobody has seen, a short
// prompt, and generation, short and behind the long prompt. The bootstrap is words drawn with a seed, or the
// user's own text behind a first line that differs for each cold run.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { WORKLOAD_RUNS_MAX = 32, WORKLOAD_TOGETHER = 8 };

struct workload_settings { // zero means the default in brackets; strings are borrowed
    const char *url, *key, *model;
    uint32_t prompt_tokens;   // of the long bootstrap, about [14000]
    uint32_t runs;            // of each measurement [3]
    uint32_t gen_tokens;      // [128]
    uint32_t seed;            // another seed is another bootstrap [1]
    const char *bootstrap;    // instead of drawn words; prompt_tokens does not count then
    const char *const *tasks; // with it: what the user turns say, in turn [our own]
    size_t n_tasks;
    const atomic_int *cancel;
    // One step begins: what is measured, and how many of all steps are done. May be NULL.
    void (*on_step)(void *arg, const char *what, uint32_t done, uint32_t total);
    void *arg;
};

// The samples of one figure, in order of measurement.
struct workload_figure {
    const char *name; // "cold TTFT"
    const char *unit; // "s"
    const char *key;  // "cold_ttft_s"
    bool more_is_better;
    uint32_t n;
    double samples[WORKLOAD_RUNS_MAX];
};

enum workload_row {
    WORKLOAD_PROMPT_TOKENS,
    WORKLOAD_COLD_TTFT,
    WORKLOAD_CACHED_TTFT,
    WORKLOAD_CACHED_TOKENS,
    WORKLOAD_TOGETHER_TTFT,   // eight cold at once: until the last one has its first token
    WORKLOAD_TOGETHER_TOKENS, // prompt tokens computed for them in all
    WORKLOAD_TOGETHER_TPS,    // their generation in all
    WORKLOAD_SHORT_TTFT,
    WORKLOAD_SHORT_TPS,
    WORKLOAD_DEPTH_TPS,
    WORKLOAD_ROWS
};

struct workload_result {
    struct workload_figure rows[WORKLOAD_ROWS];
};

// Runs the whole workload. Fails with what the server said at the first request that fails.
bool workload_run(const struct workload_settings *s, struct workload_result *out, struct err *e);
double workload_median(const struct workload_figure *f); // 0 without samples
void workload_range(const struct workload_figure *f, double *lo, double *hi);

// Single requests of it, for benchmarks that do something else in between.
struct workload_sample {
    double ttft_s, gen_tps;
    uint64_t prompt_tokens, cached_tokens;
};
// How many words of a bootstrap make s->prompt_tokens; asks the server, which is warm afterwards.
bool workload_words(const struct workload_settings *s, uint32_t *n_words, struct err *e);
// The bootstrap of a seed, n_words long, and a task behind it.
bool workload_ask(const struct workload_settings *s, uint32_t seed, uint32_t n_words,
                  const char *task, uint32_t max_tokens, struct workload_sample *out,
                  struct err *e);
