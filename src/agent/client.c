// One request with its retries. A stream counts as whole only with a finish_reason: a connection
// that ends without one is a failure with the stage it had reached, never an empty success.
#include "agent/client.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "agent/sse_reader.h"
#include "base/clock.h"

enum {
    FIRST_BACKOFF_MS = 1000,
    MAX_BACKOFF_MS = 15000,
    WAIT_SLICE_MS = 100,
    SPAN_MS_MIN = 5, // pieces that came in less time came together: no rate is known
};

struct asking {
    const struct chat_ask *ask;
    struct chat_reply *reply;
    struct chat_status *status;
    struct sse_reader sse;
    struct err error;           // of a chunk
    uint64_t start_ns;          // the first try
    uint64_t sent_ns;           // this try
    uint64_t first_ns, last_ns; // pieces of the answer
};

void chat_status_print(const struct chat_status *s, struct buf *out)
{
    const struct chat_progress *p = &s->progress;
    switch (s->stage) {
    case CHAT_SENT: buf_z(out, "request"); break;
    case CHAT_QUEUE:
        buf_z(out, "queue");
        if (p->queue_position > 0)
            buf_printf(out, ", %llu before it", (unsigned long long)p->queue_position);
        break;
    case CHAT_PREFILL:
        buf_printf(out, "prefill %llu of %llu tokens", (unsigned long long)p->processed,
                   (unsigned long long)p->total);
        if (p->time_ms > 0 && p->processed > p->cached)
            buf_printf(out, " at %.0f tokens/s",
                       (double)(p->processed - p->cached) * 1000.0 / p->time_ms);
        break;
    case CHAT_GENERATE:
        buf_printf(out, "generation, %llu tokens", (unsigned long long)s->n_deltas);
        break;
    case CHAT_DONE: buf_z(out, "answer"); break;
    }
}

// ---- the stream -----------------------------------------------------------------------------

static void show(struct asking *a)
{
    a->status->elapsed_ms = clock_ms_since(a->start_ns);
    if (a->ask->on_status != NULL) a->ask->on_status(a->ask->arg, a->status);
}

// After [DONE] nothing is waited for: not every server ends the response at once.
static bool on_tick(void *arg)
{
    struct asking *a = arg;
    show(a);
    return !a->reply->done;
}

static enum chat_stage stage_now(const struct asking *a)
{
    const struct chat_progress *p = &a->reply->progress;
    if (a->reply->done || a->reply->finish.n > 0) return CHAT_DONE;
    if (a->reply->n_deltas > 0) return CHAT_GENERATE;
    if (p->known && p->processed > 0 && p->queue_position == 0) return CHAT_PREFILL;
    return CHAT_QUEUE;
}

static bool on_event(void *arg, struct str data)
{
    struct asking *a = arg;
    size_t content_before = a->reply->content.n;
    uint64_t deltas_before = a->reply->n_deltas;
    if (!chat_reply_chunk(a->reply, data, &a->error)) return false;
    if (a->reply->n_deltas > deltas_before) {
        a->last_ns = clock_ns();
        if (a->first_ns == 0) a->first_ns = a->last_ns;
    }
    a->status->stage = stage_now(a);
    a->status->progress = a->reply->progress;
    a->status->n_deltas = a->reply->n_deltas;
    if (a->reply->content.n > content_before && a->ask->on_content != NULL)
        a->ask->on_content(a->ask->arg,
                           str_sub(buf_view(&a->reply->content), content_before, SIZE_MAX));
    return true;
}

static void on_accept(void *arg)
{
    struct asking *a = arg;
    a->status->stage = CHAT_QUEUE;
    show(a);
}

static bool on_data(void *arg, struct str piece)
{
    struct asking *a = arg;
    bool go_on = sse_feed(&a->sse, piece, on_event, a);
    if (a->sse.too_long) err_set(&a->error, ERR_TOO_LARGE, "the server sent an event above 16 MiB");
    show(a);
    return go_on;
}

// ---- how it ended ---------------------------------------------------------------------------

static void name_stage(const struct asking *a, struct err *e)
{
    struct buf stage = {0};
    chat_status_print(a->status, &stage);
    size_t n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, " (in %s)", buf_cstr(&stage));
    buf_free(&stage);
}

// "would have needed 52 s more": the server's own estimate, or the rest at the rate so far.
static void name_need(const struct chat_progress *p, struct err *e)
{
    double need_ms = p->eta_ms;
    if (!p->known || p->processed >= p->total) return;
    if (need_ms < 0 && p->processed > p->cached)
        need_ms =
            p->time_ms * (double)(p->total - p->processed) / (double)(p->processed - p->cached);
    if (need_ms <= 0) return;
    size_t n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, "; the prompt needed %.1f s more", need_ms / 1000);
}

static bool judge_failure(struct asking *a, const struct http_client *c,
                          const struct http_answer *h, struct err *e)
{
    const char *url = http_client_url(c);
    switch (h->fail) {
    case HTTP_NO_CONNECTION:
        return err_set(e, ERR_NO_SERVER, "no server at %.200s: %.150s; submind serve starts one",
                       url, h->why);
    case HTTP_HANG_UP: err_set(e, ERR_IO, "the server at %.200s closed the connection", url); break;
    case HTTP_DEADLINE: err_set(e, ERR_TIMEOUT, "out of time"); break;
    case HTTP_CANCELLED: err_set(e, ERR_CANCELLED, "cancelled"); break;
    default: err_set(e, ERR_IO, "the connection to %.200s broke: %.150s", url, h->why); break;
    }
    name_stage(a, e);
    if (h->fail == HTTP_DEADLINE) name_need(&a->status->progress, e);
    return false;
}

static bool judge(struct asking *a, const struct http_client *c, const struct http_answer *h,
                  struct err *e)
{
    if (a->error.code != ERR_NONE) {
        err_set(e, a->error.code, "%s", a->error.msg);
        name_stage(a, e);
        if (e->code == ERR_TIMEOUT) name_need(&a->status->progress, e);
        return false;
    }
    bool whole = a->reply->finish.n > 0; // [DONE] or the connection's end may follow
    if (h->status == 200 && whole && h->fail != HTTP_DEADLINE && h->fail != HTTP_CANCELLED) {
        a->status->stage = CHAT_DONE;
        return true;
    }
    if (h->fail != HTTP_OK) return judge_failure(a, c, h, e);
    if (h->status != 200) {
        chat_error_from(h->status, buf_view(&h->body), e);
        e->retry_after_ms = h->retry_after_ms;
        return false;
    }
    err_set(e, ERR_IO, "the server ended the stream without a finish_reason");
    name_stage(a, e);
    return false;
}

// ---- tries ----------------------------------------------------------------------------------

static bool try_once(struct http_client *c, struct asking *a, long *http_status, struct err *e)
{
    // a run's conversation ends with its last answer: no next turn is to be expected
    static const char *const headers[] = {"X-Submind-Ahead: 0", NULL};
    struct http_answer h;
    struct http_call call = {.path = "/v1/chat/completions",
                             .body = a->ask->body,
                             .headers = headers,
                             .deadline_ns = a->ask->deadline_ns,
                             .cancel = a->ask->cancel,
                             .on_accept = on_accept,
                             .on_data = on_data,
                             .on_tick = on_tick,
                             .arg = a};
    a->sent_ns = clock_ns();
    a->status->stage = CHAT_SENT;
    a->status->retry_in_ms = 0;
    http_client_call(c, &call, &h);
    *http_status = h.status;
    bool ok = judge(a, c, &h, e);
    http_answer_free(&h);
    sse_free(&a->sse);
    return ok;
}

// Waits before the next try; false when the deadline or a cancellation comes first.
static bool wait_to_retry(struct asking *a, uint32_t wait_ms, struct err *e)
{
    uint64_t end_ns = clock_ns() + (uint64_t)wait_ms * 1000000;
    if (a->ask->deadline_ns != 0 && end_ns >= a->ask->deadline_ns) {
        size_t n = strlen(e->msg);
        snprintf(e->msg + n, sizeof e->msg - n,
                 "; trying again in %.0f s would be past the deadline", wait_ms / 1000.0);
        return false;
    }
    a->status->stage = CHAT_QUEUE;
    for (uint64_t now; (now = clock_ns()) < end_ns;) {
        if (a->ask->cancel != NULL && atomic_load(a->ask->cancel) != 0) {
            *e = (struct err){0};
            return err_set(e, ERR_CANCELLED, "cancelled (waiting for the server)");
        }
        a->status->retry_in_ms = (uint32_t)((end_ns - now) / 1000000);
        show(a);
        clock_sleep_ms(WAIT_SLICE_MS);
    }
    return true;
}

static void fill_times(const struct asking *a, struct chat_times *t)
{
    const struct chat_usage *u = &a->reply->usage;
    double span_ms = (double)(a->last_ns - a->first_ns) / 1e6;
    uint64_t n = u->known ? u->completion_tokens : a->reply->n_deltas;
    *t = (struct chat_times){.ttft_ms = -1, .total_ms = clock_ms_since(a->start_ns)};
    if (a->first_ns != 0) t->ttft_ms = (double)(a->first_ns - a->sent_ns) / 1e6;
    if (a->reply->server_tps > 0)
        t->gen_tps = a->reply->server_tps;
    else if (n > 1 && span_ms >= SPAN_MS_MIN)
        t->gen_tps = (double)(n - 1) * 1000.0 / span_ms;
}

bool chat_client_ask(struct http_client *c, const struct chat_ask *ask, struct chat_reply *reply,
                     struct chat_status *status, struct chat_times *times, struct err *e)
{
    struct asking a = {.ask = ask, .reply = reply, .status = status, .start_ns = clock_ns()};
    uint32_t backoff_ms = FIRST_BACKOFF_MS;
    bool ok;
    *status = (struct chat_status){0};
    for (;;) {
        struct err error = {0};
        long http_status = 0;
        ok = try_once(c, &a, &http_status, &error);
        bool again = !ok && (http_status == 429 || http_status == 503);
        uint32_t wait_ms = error.retry_after_ms != 0 ? error.retry_after_ms : backoff_ms;
        if (again && wait_to_retry(&a, wait_ms, &error)) {
            backoff_ms = backoff_ms * 2 < MAX_BACKOFF_MS ? backoff_ms * 2 : MAX_BACKOFF_MS;
            status->n_retries++;
            continue;
        }
        if (!ok) err_set(e, error.code, "%s", error.msg);
        break;
    }
    fill_times(&a, times);
    return ok;
}

bool chat_client_models(struct http_client *c, uint64_t deadline_ns, const atomic_int *cancel,
                        struct buf *names, size_t *n, struct err *e)
{
    struct http_answer a;
    struct http_call call = {.path = "/v1/models", .deadline_ns = deadline_ns, .cancel = cancel};
    *n = 0;
    http_client_call(c, &call, &a);
    json_t *root = json_loadb(buf_view(&a.body).p, a.body.n, 0, NULL), *one;
    json_t *list = json_object_get(root, "data");
    bool ok = (a.status == 200 && json_is_array(list)) ||
              err_set(e, ERR_NOT_FOUND, "%.200s lists no models (status %ld)", http_client_url(c),
                      a.status);
    size_t i;
    json_array_foreach(list, i, one)
    {
        const char *id = json_string_value(json_object_get(one, "id"));
        if (!ok || id == NULL) continue;
        buf_printf(names, "%s%s", ++*n > 1 ? ", " : "", id);
    }
    json_decref(root);
    http_answer_free(&a);
    return ok;
}
