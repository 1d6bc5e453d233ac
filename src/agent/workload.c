// Each "cold" run has a bootstrap of its own (the first words differ), so that nothing of it can be
// cached; "cached" repeats it with another task at the end. A word is one token for a large vocabulary
// and several for a small one, so a first request finds out how many words make the wanted tokens.
#include "agent/workload.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/client.h"
#include "base/clock.h"

static const char *const words[] = {
    "service", "port",    "credential", "shipment", "identity", "workspace", "memory", "tool",
    "check",   "refresh", "status",     "token",    "session",  "schedule",  "agent",  "config",
    "gateway", "kernel",  "cache",      "prompt",   "backend",  "driver",    "system", "report",
    "queue",   "worker",  "file",       "path",     "user",     "group",     "policy", "secret",
    "order",   "parcel",  "carrier",    "depot",    "route",    "window",    "retry",  "limit",
    "metric",  "backup",  "alert",      "log",
};
enum { N_WORDS = sizeof words / sizeof words[0], PROBE_WORDS = 400 };

static const struct workload_figure row_table[WORKLOAD_ROWS] = {
    [WORKLOAD_PROMPT_TOKENS] = {.name = "prompt", .unit = "tokens", .key = "prompt_tokens"},
    [WORKLOAD_COLD_TTFT] = {.name = "cold TTFT", .unit = "s", .key = "cold_ttft_s"},
    [WORKLOAD_CACHED_TTFT] = {.name = "cached TTFT", .unit = "s", .key = "cached_ttft_s"},
    [WORKLOAD_CACHED_TOKENS] = {.name = "of it cached",
                                .unit = "tokens",
                                .key = "cached_tokens",
                                .more_is_better = true},
    [WORKLOAD_TOGETHER_TTFT] = {.name = "8 cold at once, last TTFT",
                                .unit = "s",
                                .key = "together_ttft_s"},
    [WORKLOAD_TOGETHER_TOKENS] = {.name = "8 at once, computed",
                                  .unit = "tokens",
                                  .key = "together_computed_tokens"},
    [WORKLOAD_TOGETHER_TPS] = {.name = "8 at once, generation",
                               .unit = "t/s",
                               .key = "together_gen_tps",
                               .more_is_better = true},
    [WORKLOAD_SHORT_TTFT] = {.name = "short prompt TTFT", .unit = "s", .key = "short_ttft_s"},
    [WORKLOAD_SHORT_TPS] = {.name = "generation, short",
                            .unit = "t/s",
                            .key = "short_gen_tps",
                            .more_is_better = true},
    [WORKLOAD_DEPTH_TPS] = {.name = "generation, behind the prompt",
                            .unit = "t/s",
                            .key = "depth_gen_tps",
                            .more_is_better = true},
};

struct sample {
    double ttft_s, gen_tps;
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
    double first_at_s, end_at_s; // on one clock for all, for what runs at once
};

struct ask {
    const struct workload_settings *settings;
    const char *system, *user;
    uint32_t max_tokens;
    struct sample out;
    struct err error;
    bool ok;
};

static void put_words(struct buf *b, uint32_t seed, uint32_t n_words)
{
    uint64_t x = 0x9e3779b97f4a7c15u * (seed + 1u);
    buf_printf(b, "Run %u.", seed);
    for (uint32_t i = 0; i < n_words; i++) {
        x ^= x << 13; // xorshift64
        x ^= x >> 7;
        x ^= x << 17;
        buf_printf(b, " %s", words[x % N_WORDS]);
    }
}

// The user's own text, where there is one; the first line keeps cold runs apart.
static void put_bootstrap(struct buf *b, const struct workload_settings *s, uint32_t seed,
                          uint32_t n_words)
{
    if (s->bootstrap == NULL)
        put_words(b, seed, n_words);
    else
        buf_printf(b, "Run %u.\n%s", seed, s->bootstrap);
}

// The i-th task, or `own` where the user gave none.
static const char *task(const struct workload_settings *s, size_t i, const char *own)
{
    return s->n_tasks == 0 ? own : s->tasks[i % s->n_tasks];
}

static void put_body(struct buf *b, const struct ask *a)
{
    const char *model = a->settings->model == NULL ? "default" : a->settings->model;
    buf_z(b, "{\"model\":");
    buf_json(b, str_from(model));
    buf_printf(
        b,
        ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"temperature\":0,"
        "\"max_tokens\":%u,\"ignore_eos\":true,\"messages\":[{\"role\":\"system\",\"content\":",
        a->max_tokens);
    buf_json(b, str_from(a->system));
    buf_z(b, "},{\"role\":\"user\",\"content\":");
    buf_json(b, str_from(a->user));
    buf_z(b, "}]}");
}

// One request on a connection of its own.
static bool ask_once(struct ask *a)
{
    struct http_client *http = NULL;
    struct buf body = {0};
    struct chat_reply reply = {0};
    struct chat_status status = {0};
    struct chat_times times = {0};
    put_body(&body, a);
    struct chat_ask ask = {.body = buf_view(&body), .cancel = a->settings->cancel};
    const double start_s = (double)clock_ns() / 1e9;
    bool ok = http_client_open(&http, a->settings->url, a->settings->key, &a->error) &&
              chat_client_ask(http, &ask, &reply, &status, &times, &a->error);
    if (ok && times.ttft_ms < 0)
        ok = err_set(&a->error, ERR_IO, "the server at %s answered without a token",
                     a->settings->url);
    if (ok) {
        a->out = (struct sample){.ttft_s = times.ttft_ms / 1e3,
                                 .gen_tps = times.gen_tps,
                                 .prompt_tokens = reply.usage.prompt_tokens,
                                 .cached_tokens = reply.usage.cached_tokens,
                                 .completion_tokens = reply.usage.completion_tokens,
                                 .first_at_s = start_s + times.ttft_ms / 1e3,
                                 .end_at_s = start_s + times.total_ms / 1e3};
    }
    chat_reply_free(&reply);
    buf_free(&body);
    http_client_close(http);
    a->ok = ok;
    return ok;
}

static void *ask_thread(void *arg)
{
    ask_once(arg);
    return NULL;
}

static void put_sample(struct workload_result *r, enum workload_row row, double v)
{
    struct workload_figure *f = &r->rows[row];
    if (f->n < WORKLOAD_RUNS_MAX) f->samples[f->n++] = v;
}

struct bench {
    const struct workload_settings *s;
    struct workload_result *out;
    uint32_t n_words, step, n_steps;
};

static void step(struct bench *b, const char *what)
{
    if (b->s->on_step != NULL) b->s->on_step(b->s->arg, what, b->step, b->n_steps);
    b->step++;
}

static bool measure(struct bench *b, const char *what, const char *system, const char *user,
                    uint32_t max_tokens, struct sample *out, struct err *e)
{
    struct ask a = {.settings = b->s, .system = system, .user = user, .max_tokens = max_tokens};
    step(b, what);
    if (!ask_once(&a)) return err_set(e, a.error.code, "%s: %s", what, a.error.msg);
    *out = a.out;
    return true;
}

// The long prompt cold, cached with another task, and generation behind it.
static bool run_long(struct bench *b, uint32_t seed, struct err *e)
{
    struct buf system = {0};
    struct sample cold, cached, depth;
    put_bootstrap(&system, b->s, seed, b->n_words);
    const char *text = buf_cstr(&system);
    bool ok =
        measure(b, "long prompt, cold", text, task(b->s, 0, "Task A: say hello."), 4, &cold, e) &&
        measure(b, "long prompt, cached", text, task(b->s, 1, "Task B: report the status."), 4,
                &cached, e) &&
        measure(b, "generation behind the long prompt", text, task(b->s, 2, "Task C: write."),
                b->s->gen_tokens, &depth, e);
    buf_free(&system);
    if (!ok) return false;
    put_sample(b->out, WORKLOAD_PROMPT_TOKENS, (double)cold.prompt_tokens);
    put_sample(b->out, WORKLOAD_COLD_TTFT, cold.ttft_s);
    put_sample(b->out, WORKLOAD_CACHED_TTFT, cached.ttft_s);
    put_sample(b->out, WORKLOAD_CACHED_TOKENS, (double)cached.cached_tokens);
    put_sample(b->out, WORKLOAD_DEPTH_TPS, depth.gen_tps);
    return true;
}

static void sum_up(struct bench *b, const struct ask *asks, double start_s)
{
    double last_first_s = 0, last_end_s = 0, first_s = 1e300;
    uint64_t computed = 0, generated = 0;
    for (int i = 0; i < WORKLOAD_TOGETHER; i++) {
        const struct sample *o = &asks[i].out;
        computed += o->prompt_tokens - o->cached_tokens;
        generated += o->completion_tokens;
        if (o->first_at_s > last_first_s) last_first_s = o->first_at_s;
        if (o->end_at_s > last_end_s) last_end_s = o->end_at_s;
        if (o->first_at_s < first_s) first_s = o->first_at_s;
    }
    put_sample(b->out, WORKLOAD_TOGETHER_TTFT, last_first_s - start_s);
    put_sample(b->out, WORKLOAD_TOGETHER_TOKENS, (double)computed);
    if (last_end_s > first_s)
        put_sample(b->out, WORKLOAD_TOGETHER_TPS,
                   (double)(generated - WORKLOAD_TOGETHER) / (last_end_s - first_s));
}

// Eight agents at once on a bootstrap that nobody has seen.
static bool run_together(struct bench *b, uint32_t seed, struct err *e)
{
    struct buf system = {0};
    char users[WORKLOAD_TOGETHER][32];
    struct ask asks[WORKLOAD_TOGETHER];
    pthread_t threads[WORKLOAD_TOGETHER];
    int started = 0;
    bool ok = true;
    put_bootstrap(&system, b->s, seed, b->n_words);
    step(b, "eight cold at once");
    const double start_s = (double)clock_ns() / 1e9;
    for (; started < WORKLOAD_TOGETHER; started++) {
        snprintf(users[started], sizeof users[started], "Task %d: write.", started);
        asks[started] = (struct ask){.settings = b->s,
                                     .system = buf_cstr(&system),
                                     .user = task(b->s, (size_t)started, users[started]),
                                     .max_tokens = b->s->gen_tokens};
        if (pthread_create(&threads[started], NULL, ask_thread, &asks[started]) != 0) {
            ok = err_set(e, ERR_MEMORY, "cannot start eight threads");
            break;
        }
    }
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        if (!asks[i].ok)
            ok = err_set(e, asks[i].error.code, "eight at once: %s", asks[i].error.msg);
    }
    if (ok) sum_up(b, asks, start_s);
    buf_free(&system);
    return ok;
}

static bool run_short(struct bench *b, uint32_t run, struct err *e)
{
    struct sample o;
    char user[32];
    snprintf(user, sizeof user, "Say hello %u.", run);
    if (!measure(b, "short prompt", "You are brief.", user, b->s->gen_tokens, &o, e)) return false;
    put_sample(b->out, WORKLOAD_SHORT_TTFT, o.ttft_s);
    put_sample(b->out, WORKLOAD_SHORT_TPS, o.gen_tps);
    return true;
}

// Also warms the server up.
static bool find_words(struct bench *b, struct err *e)
{
    struct buf system = {0};
    struct sample o;
    put_words(&system, b->s->seed * 1000, PROBE_WORDS);
    bool ok = measure(b, "warm-up", buf_cstr(&system), "Say hello.", 4, &o, e);
    buf_free(&system);
    if (!ok) return false;
    if (o.prompt_tokens < PROBE_WORDS / 2)
        return err_set(e, ERR_UNSUPPORTED,
                       "the server at %s does not say how many tokens a prompt has "
                       "(usage.prompt_tokens)",
                       b->s->url);
    b->n_words = (uint32_t)((double)b->s->prompt_tokens * PROBE_WORDS / (double)o.prompt_tokens);
    return true;
}

bool workload_run(const struct workload_settings *s, struct workload_result *out, struct err *e)
{
    struct workload_settings full = *s;
    struct workload_result result;
    if (full.prompt_tokens == 0) full.prompt_tokens = 14000;
    if (full.runs == 0) full.runs = 3;
    if (full.runs > WORKLOAD_RUNS_MAX) full.runs = WORKLOAD_RUNS_MAX;
    if (full.gen_tokens == 0) full.gen_tokens = 128;
    if (full.seed == 0) full.seed = 1;
    memcpy(result.rows, row_table, sizeof result.rows);
    struct bench b = {.s = &full, .out = &result, .n_steps = 1 + full.runs * 5};
    if (!find_words(&b, e)) return false;
    for (uint32_t i = 0; i < full.runs; i++) {
        const uint32_t seed = full.seed * 1000 + 1 + i;
        if (!run_long(&b, seed, e) || !run_together(&b, seed + 500, e) || !run_short(&b, i, e))
            return false;
    }
    *out = result;
    return true;
}

static int by_value(const void *pa, const void *pb)
{
    const double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

double workload_median(const struct workload_figure *f)
{
    double sorted[WORKLOAD_RUNS_MAX];
    if (f->n == 0) return 0;
    memcpy(sorted, f->samples, f->n * sizeof *sorted);
    qsort(sorted, f->n, sizeof *sorted, by_value);
    return f->n % 2 == 1 ? sorted[f->n / 2] : (sorted[f->n / 2 - 1] + sorted[f->n / 2]) / 2;
}

void workload_range(const struct workload_figure *f, double *lo, double *hi)
{
    *lo = *hi = f->n == 0 ? 0 : f->samples[0];
    for (uint32_t i = 1; i < f->n; i++) {
        if (f->samples[i] < *lo) *lo = f->samples[i];
        if (f->samples[i] > *hi) *hi = f->samples[i];
    }
}

// ---- single requests ----------------------------------------------------------------------------

bool workload_words(const struct workload_settings *s, uint32_t *n_words, struct err *e)
{
    struct bench b = {.s = s, .n_steps = 1};
    if (!find_words(&b, e)) return false;
    *n_words = b.n_words;
    return true;
}

bool workload_ask(const struct workload_settings *s, uint32_t seed, uint32_t n_words,
                  const char *task, uint32_t max_tokens, struct workload_sample *out, struct err *e)
{
    struct buf system = {0};
    struct bench b = {.s = s, .n_steps = 1};
    struct sample o;
    put_bootstrap(&system, s, seed, n_words);
    const bool ok = measure(&b, task, buf_cstr(&system), task, max_tokens, &o, e);
    buf_free(&system);
    if (!ok) return false;
    *out = (struct workload_sample){o.ttft_s, o.gen_tps, o.prompt_tokens, o.cached_tokens};
    return true;
}
