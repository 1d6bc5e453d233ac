// See fake_engine.h. A stream computes what is due from the clock when it is asked; a timerfd wakes
// the server, so no thread is needed.
#include "fake_engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/vocab.h"
#include "model/gguf.h"

enum { FAKE_CTX = 4096, FAKE_TOP = 2 };

struct fake_script fake_script;
struct fake_seen fake_seen;

const double engine_hist_bounds[HIST_BUCKETS - 1] = {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,  2,
                                                     5,    10,   20,   50,  100, 200, 500};

struct engine {
    struct gguf *gguf;
    struct tokenizer *tok;
    struct chat_template chat;
    struct engine_info info;
};

struct stream {
    struct fake_script script;
    struct ids answer;
    uint64_t start_ns;
    uint32_t n_prompt, n_given, timeout_ms, max_tokens, n_top;
    int fd;
    bool cancelled, ended;
};

bool engine_open(struct engine **out, const struct engine_settings *s, struct err *e)
{
    s->progress(s->progress_arg, "weights", 250, 1000);
    while (atomic_load(&fake_script.load_gate) == 0) usleep(1000);
    if (fake_script.load_error != NULL) return err_set(e, ERR_FORMAT, "%s", fake_script.load_error);
    struct engine *en = calloc(1, sizeof *en);
    struct str source = {0};
    if (!gguf_open(&en->gguf, s->model_path, e) || !vocab_open(&en->tok, en->gguf, e) ||
        !gguf_get_str(en->gguf, "tokenizer.chat_template", &source, e) ||
        !chat_template_open(&en->chat, source, en->tok, e)) {
        gguf_close(en->gguf);
        tokenizer_close(en->tok);
        free(en);
        return false;
    }
    en->info = (struct engine_info){.model_name = STR("fake"),
                                    .arch = STR("fake"),
                                    .file_type = STR("Q8_0"),
                                    .device = STR("none"),
                                    .model_path = str_from(s->model_path),
                                    .chat_template = source,
                                    .n_vocab = tokenizer_n_vocab(en->tok),
                                    .n_ctx = FAKE_CTX,
                                    .n_ctx_train = FAKE_CTX,
                                    .n_parallel = 4,
                                    .page_tokens = 64,
                                    .n_pages = 100,
                                    .rope_factor = 1};
    *out = en;
    return true;
}

void engine_stop(struct engine *en)
{
    (void)en;
}

void engine_close(struct engine *en)
{
    if (en == NULL) return;
    chat_template_close(&en->chat);
    tokenizer_close(en->tok);
    gguf_close(en->gguf);
    free(en);
}

const struct engine_info *engine_info(const struct engine *en)
{
    return &en->info;
}
const struct tokenizer *engine_tokenizer(const struct engine *en)
{
    return en->tok;
}
const struct chat_template *engine_chat(const struct engine *en)
{
    return &en->chat;
}

void engine_sampling(const struct engine *en, bool thinking, struct sampling *s)
{
    (void)en;
    if (!s->has_temperature) s->temperature = thinking ? 0.6f : 0.7f;
}

void engine_set_sampling(struct engine *en, const struct sampling *flags)
{
    (void)en;
    (void)flags;
}

static void note_job(const struct job *job)
{
    ids_free(&fake_seen.prompt);
    ids_put(&fake_seen.prompt, job->ids, job->n_ids);
    buf_clear(&fake_seen.stops);
    for (size_t i = 0; i < job->n_stops; i++) {
        buf_str(&fake_seen.stops, job->stops[i]);
        buf_c(&fake_seen.stops, '|');
    }
    fake_seen.max_tokens = job->max_tokens;
    fake_seen.timeout_ms = job->timeout_ms;
    fake_seen.priority = job->priority;
    fake_seen.temperature = job->sampling.temperature;
}

bool engine_ahead(struct engine *en, const struct job *job, struct err *e)
{
    (void)en;
    (void)job;
    (void)e;
    return true;
}

bool engine_submit(struct engine *en, const struct job *job, struct stream **out, struct err *e)
{
    if (fake_script.full) {
        err_set(e, ERR_FULL, "the queue is full");
        e->retry_after_ms = 2500;
        return false;
    }
    if (job->n_ids >= FAKE_CTX)
        return err_set(e, ERR_TOO_LONG,
                       "the request (%zu tokens) exceeds the available context size (%d tokens)",
                       job->n_ids, FAKE_CTX);
    note_job(job);
    struct stream *s = calloc(1, sizeof *s);
    memcpy(&s->script, &fake_script, sizeof s->script);
    tokenizer_encode(en->tok, str_from(fake_script.text), TOKENIZE_CONTROL, &s->answer, e);
    s->start_ns = clock_ns();
    s->n_prompt = (uint32_t)job->n_ids;
    s->timeout_ms = job->timeout_ms;
    s->max_tokens = job->max_tokens;
    s->n_top = job->logprobs ? job->n_top_logprobs : 0;
    s->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    const struct itimerspec tick = {{0, 1000000}, {0, 1000000}};
    timerfd_settime(s->fd, 0, &tick, NULL);
    atomic_fetch_add(&fake_seen.n_open, 1);
    *out = s;
    return true;
}

static uint32_t due(const struct stream *s)
{
    double ms = clock_ms_since(s->start_ns) - s->script.prefill_ms;
    if (ms < 0) return 0;
    if (s->script.token_ms == 0) return UINT32_MAX;
    return (uint32_t)(ms / s->script.token_ms) + 1;
}

static bool give_end(struct stream *s, struct stream_event *out, enum finish finish)
{
    s->ended = true;
    out->kind = EVENT_END;
    out->finish = finish;
    return true;
}

static bool give_token(struct stream *s, struct stream_event *out)
{
    out->id = s->answer.p[s->n_given++ % s->answer.n];
    out->logprob = -0.25f;
    out->n_top = s->n_top;
    for (uint32_t i = 0; i < s->n_top && i < FAKE_TOP; i++) {
        out->top[i].id = out->id + (int32_t)i;
        out->top[i].logprob = i == 0 ? -0.25f : -INFINITY;
    }
    return true;
}

bool stream_next(struct stream *s, struct stream_event *out)
{
    uint64_t ticks;
    ssize_t ignored = read(s->fd, &ticks, sizeof ticks);
    (void)ignored;
    *out = (struct stream_event){.kind = EVENT_TOKEN};
    if (s->ended) return false;
    if (s->timeout_ms > 0 && clock_ms_since(s->start_ns) >= s->timeout_ms) {
        err_set(&out->error, ERR_TIMEOUT, "timeout after %u ms: prefill, 7 of %u tokens",
                s->timeout_ms, s->n_prompt);
        return give_end(s, out, FINISH_ERROR);
    }
    if (s->n_given >= due(s)) return false;
    if (s->max_tokens > 0 && s->n_given == s->max_tokens) return give_end(s, out, FINISH_LENGTH);
    if (s->n_given < s->answer.n || (s->script.endless && s->answer.n > 0))
        return give_token(s, out);
    if (s->script.device_error == NULL)
        return give_end(s, out, s->script.cut ? FINISH_LENGTH : FINISH_STOP);
    err_set(&out->error, ERR_DEVICE, "%s", s->script.device_error);
    return give_end(s, out, FINISH_ERROR);
}

int stream_fd(const struct stream *s)
{
    return s->fd;
}

void stream_status(const struct stream *s, struct stream_status *out)
{
    double ms = clock_ms_since(s->start_ns), prefill = s->script.prefill_ms;
    double part = prefill > 0 && ms < prefill ? ms / prefill : 1;
    *out = (struct stream_status){.stage = s->n_given > 0 ? STAGE_GENERATE : STAGE_PREFILL,
                                  .n_prompt = s->n_prompt,
                                  .n_cached = s->script.n_cached,
                                  .n_processed = (uint32_t)(part * s->n_prompt),
                                  .n_generated = s->n_given,
                                  .prefill_ms = prefill,
                                  .generate_ms = 10,
                                  .total_ms = ms,
                                  .ttft_ms = s->n_given > 0 ? prefill + 1 : 0,
                                  .eta_ms = prefill - ms};
}

void stream_cancel(struct stream *s)
{
    if (!s->cancelled && !s->ended) atomic_fetch_add(&fake_seen.n_cancelled, 1);
    s->cancelled = true;
}

void stream_close(struct stream *s)
{
    if (s == NULL) return;
    stream_cancel(s);
    close(s->fd);
    ids_free(&s->answer);
    free(s);
    atomic_fetch_sub(&fake_seen.n_open, 1);
}

void engine_stats(const struct engine *en, struct engine_stats *out)
{
    (void)en;
    *out = (struct engine_stats){.prompt_tokens = 1000,
                                 .cached_tokens = 900,
                                 .prefill_tokens = 100,
                                 .generated_tokens = 50,
                                 .running = 2,
                                 .waiting = 3,
                                 .pages_total = 100,
                                 .pages_used = 25,
                                 .pages_cached = 50,
                                 .ttft = {.counts = {1, 2, 0, 3}, .sum = 0.5, .n = 6}};
}

size_t engine_slots(const struct engine *en, struct engine_slot *out, size_t max)
{
    (void)en;
    if (max < 1) return 0;
    out[0] = (struct engine_slot){.job_id = 7, .status = {.stage = STAGE_PREFILL, .eta_ms = -1}};
    return 1;
}

bool engine_logits(struct engine *en, const int32_t *ids, size_t n_ids, float *logits,
                   struct err *e)
{
    (void)en;
    (void)ids;
    (void)n_ids;
    (void)logits;
    return err_set(e, ERR_UNSUPPORTED, "the fake engine has no logits");
}

// ---- the prefix cache: there is none ------------------------------------------------------------

const char *engine_cache_reason(enum cache_reason r)
{
    return r == CACHE_COLD ? "cold" : "other";
}

static bool no_cache(struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "the fake engine has no cache");
}

bool engine_cache_list(struct engine *en, struct cache_trunk **out, size_t *n, struct err *e)
{
    (void)en;
    (void)e;
    *out = NULL;
    *n = 0;
    return true;
}

bool engine_cache_probe(struct engine *en, const int32_t *ids, size_t n_ids, struct str salt,
                        struct cache_probe *out, struct err *e)
{
    (void)en;
    (void)ids;
    (void)n_ids;
    (void)salt;
    (void)e;
    *out = (struct cache_probe){.reason = CACHE_COLD};
    return true;
}

void cache_probe_free(struct cache_probe *p)
{
    *p = (struct cache_probe){0};
}

bool engine_cache_pin_text(struct engine *en, const int32_t *ids, size_t n_ids, bool public,
                           const char *name, uint64_t *id, uint32_t *n_tokens, struct err *e)
{
    (void)en;
    (void)ids;
    (void)n_ids;
    (void)public;
    (void)name;
    (void)id;
    (void)n_tokens;
    return no_cache(e);
}

bool engine_cache_pin(struct engine *en, uint64_t id, bool public, const char *name,
                      uint32_t *n_tokens, struct err *e)
{
    (void)en;
    (void)id;
    (void)public;
    (void)name;
    (void)n_tokens;
    return no_cache(e);
}

bool engine_cache_unpin(struct engine *en, uint64_t id, uint32_t *n_tokens, struct err *e)
{
    (void)en;
    (void)id;
    (void)n_tokens;
    return no_cache(e);
}

bool engine_cache_drop(struct engine *en, uint64_t id, uint32_t *n_tokens, struct err *e)
{
    (void)en;
    (void)id;
    *n_tokens = 0;
    (void)e;
    return true;
}

bool engine_cache_listen(struct engine *en, cache_listener *listener, void *arg, struct err *e)
{
    (void)en;
    (void)listener;
    (void)arg;
    return no_cache(e);
}

bool engine_cache_announce(struct engine *en, cache_listener *listener, void *arg, struct err *e)
{
    return engine_cache_listen(en, listener, arg, e);
}

bool engine_cache_told_open(struct cache_told **out, struct engine *en, struct err *e)
{
    (void)en;
    (void)e;
    *out = NULL; // nothing is kept on disk
    return true;
}

void cache_told_close(struct cache_told *c)
{
    (void)c;
}

void cache_told_name(struct cache_told *c, struct str salt)
{
    (void)c;
    (void)salt;
}

bool cache_told_turn(struct cache_told *c, size_t most, cache_listener *listener, void *arg)
{
    (void)c;
    (void)most;
    (void)listener;
    (void)arg;
    return false;
}

void cache_told_again(struct cache_told *c, cache_listener *listener, void *arg)
{
    (void)c;
    (void)listener;
    (void)arg;
}

void cache_told_forget(struct cache_told *c)
{
    (void)c;
}

bool engine_cache_verify(struct engine *en, struct cache_check *out, struct err *e)
{
    (void)en, (void)e;
    *out = (struct cache_check){.pages = 3, .bytes = 300, .bad = 1, .seconds = 0.5};
    return true;
}

bool engine_lost(const struct engine *en, struct err *e)
{
    (void)en, (void)e;
    return false;
}
