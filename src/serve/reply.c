// Both forms share the reading of the job; they differ in what the sink does with a part: a chunk
// at once, or text kept for the end. Invariant: after the accepting 200 every stream ends with
// [DONE] or with an error event, never in silence.
#include "serve/reply.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "serve/answer_form.h"
#include "serve/generation.h"
#include "serve/next_turn.h"
#include "serve/openai_response.h"
#include "text/splice.h"

enum {
    PROGRESS_MS = 1000,    // while nothing is generated yet
    KEEP_ALIVE_MS = 10000, // silence allowed later, when a parser holds text back
};

struct reply {
    struct exchange *x;
    struct request_params p;
    struct generation g;
    struct response_head head;
    struct splice_place place; // chat: where the answer begins
    struct ids have;           // the prompt, then the answer; where a next turn may come
    bool may_go_on;            // ... and content is kept for it
    bool failed;               // no memory for output
    bool begun;                // event stream: something generated went out
    struct buf out;            // event stream: bytes not yet taken, from `sent` on
    size_t sent;
    bool over;                                  // nothing comes after `out`
    uint64_t last_ns;                           // when something was last sent
    struct buf content, reasoning, calls, args; // whole answers
};

// ---- event stream ------------------------------------------------------------------------------

static void chunk_open(struct reply *r)
{
    buf_z(&r->out, "data: ");
    response_open(&r->out, &r->head, true);
}

static void chunk_close(struct reply *r)
{
    buf_z(&r->out, "}\n\n");
}

// One choice with its delta (chat) or text, as JSON text; finish NULL = still going.
static void put_choice(struct reply *r, struct str delta, const char *finish)
{
    buf_printf(&r->out, ",\"choices\":[{\"index\":0,\"%s\":", r->head.chat ? "delta" : "text");
    buf_str(&r->out, delta);
    logprobs_put(&r->g.logprobs, &r->out);
    if (finish != NULL)
        buf_printf(&r->out, ",\"finish_reason\":\"%s\"}]", finish);
    else
        buf_z(&r->out, ",\"finish_reason\":null}]");
}

static void put_call_id(struct reply *r, struct buf *b, int call)
{
    char hex[25];
    exchange_hex_id(r->x, 1 + (unsigned)call, hex);
    buf_printf(b, "\"id\":\"call_%s\",\"type\":\"function\"", hex);
}

static void put_delta(struct reply *r, struct buf *b, enum answer_part part, int call,
                      struct str text)
{
    if (!r->head.chat) {
        buf_json(b, text);
        return;
    }
    switch (part) {
    case ANSWER_REASONING:
    case ANSWER_CONTENT:
        buf_printf(b, "{\"%s\":", part == ANSWER_CONTENT ? "content" : "reasoning_content");
        buf_json(b, text);
        buf_c(b, '}');
        break;
    case ANSWER_CALL_BEGIN:
        buf_printf(b, "{\"tool_calls\":[{\"index\":%d,", call);
        put_call_id(r, b, call);
        buf_z(b, ",\"function\":{\"name\":");
        buf_json(b, text);
        buf_z(b, ",\"arguments\":\"\"}}]}");
        break;
    case ANSWER_CALL_ARGS:
        buf_printf(b, "{\"tool_calls\":[{\"index\":%d,\"function\":{\"arguments\":", call);
        buf_json(b, text);
        buf_z(b, "}}]}");
        break;
    case ANSWER_CALL_END: break;
    }
}

static void put_progress(struct reply *r)
{
    struct stream_status st;
    stream_status(r->g.stream, &st);
    buf_c(&r->out, ',');
    response_progress(&r->out, &st);
}

static void stream_part(void *arg, enum answer_part part, int call, struct str text)
{
    struct reply *r = arg;
    struct buf delta = {0};
    if (r->may_go_on && part == ANSWER_CONTENT) buf_str(&r->content, text);
    if (part == ANSWER_CALL_END || (text.n == 0 && part != ANSWER_CALL_BEGIN)) return;
    put_delta(r, &delta, part, call, text);
    chunk_open(r);
    put_choice(r, buf_view(&delta), NULL);
    if (!r->begun)
        put_progress(r); // also where the prompt took less than a second: all of it is read
    r->begun = true;
    chunk_close(r);
    if (delta.failed) r->failed = true;
    buf_free(&delta);
}

static struct str empty_delta(const struct reply *r)
{
    return r->head.chat ? STR("{}") : STR("\"\"");
}

static void stream_error(struct reply *r, const struct err *e)
{
    buf_z(&r->out, "data: ");
    response_error(&r->out, e, 0, 0);
    buf_z(&r->out, "\n\n");
    r->over = true;
}

static void put_timings(struct reply *r, struct buf *b)
{
    struct response_times t = {.queue_in_ms = r->x->queue_in_ms};
    response_timings(b, &r->g.status, &t);
    if (!r->x->explain) return;
    buf_c(b, ',');
    response_cache(b, &r->g.status, engine_info(r->x->sv->engine)->cache_type);
}

// Before the client can come back with the answer in its history.
static void learn(struct reply *r)
{
    if (r->g.ids.n == 0) return;
    splice_learn(r->x->sv->splice, engine_tokenizer(r->x->sv->engine), &r->place, &r->g.ids);
    if (r->may_go_on) r->may_go_on = ids_put(&r->have, r->g.ids.p, r->g.ids.n);
    r->g.ids.n = 0;
}

static void stream_end(struct reply *r)
{
    learn(r);
    chunk_open(r);
    put_choice(r, empty_delta(r), generation_finish_reason(&r->g));
    if (r->p.include_usage) {
        chunk_close(r);
        chunk_open(r);
        buf_z(&r->out, ",\"choices\":[],");
        response_usage(&r->out, &r->g.status, r->g.n_reasoning, r->head.chat);
    }
    buf_c(&r->out, ',');
    put_timings(r, &r->out);
    chunk_close(r);
    buf_z(&r->out, "data: [DONE]\n\n");
    r->over = true;
}

static void stream_progress(struct reply *r)
{
    chunk_open(r);
    put_choice(r, empty_delta(r), NULL);
    put_progress(r);
    chunk_close(r);
}

// Milliseconds until the client should hear something again.
static int ms_to_progress(const struct reply *r)
{
    int limit = r->g.last_part < 0 ? PROGRESS_MS : KEEP_ALIVE_MS;
    double left = limit - clock_ms_since(r->last_ns);
    return left > 0 ? (int)ceil(left) : 0;
}

static void fail_memory(struct reply *r)
{
    struct err e = {0};
    err_set(&e, ERR_MEMORY, "no memory for the answer");
    buf_free(&r->out);
    r->sent = 0;
    stream_error(r, &e);
    if (r->out.failed) r->over = true;
}

// Fills r->out; false when the client is gone.
static bool fill(struct reply *r)
{
    struct err e = {0};
    bool ended = generation_pump(&r->g);
    if (ended && r->g.finish == FINISH_ERROR)
        stream_error(r, &r->g.error);
    else if (ended)
        stream_end(r);
    if (r->out.failed || r->failed) fail_memory(r);
    if (r->over || r->out.n > 0) return true;
    switch (exchange_wait(r->x, stream_fd(r->g.stream), ms_to_progress(r))) {
    case WAKE_EVENT: break;
    case WAKE_TIME: stream_progress(r); break;
    case WAKE_GONE: stream_cancel(r->g.stream); return false;
    case WAKE_CLOSING:
        err_set(&e, ERR_SHUTDOWN, "the server is shutting down; try again later");
        stream_error(r, &e);
        break;
    }
    return true;
}

ssize_t reply_read(struct reply *r, char *out, size_t max)
{
    connection_set(r->x->connection, WAIT_ENGINE);
    while (r->sent == r->out.n && !r->over) {
        buf_clear(&r->out);
        r->sent = 0;
        if (!fill(r)) return REPLY_GONE;
    }
    connection_set(r->x->connection, WAIT_CLIENT);
    size_t n = r->out.n - r->sent;
    if (n == 0) return REPLY_END;
    if (n > max) n = max;
    memcpy(out, r->out.p + r->sent, n);
    r->sent += n;
    r->last_ns = clock_ns();
    return (ssize_t)n;
}

// ---- whole answer ------------------------------------------------------------------------------

static void whole_part(void *arg, enum answer_part part, int call, struct str text)
{
    struct reply *r = arg;
    switch (part) {
    case ANSWER_REASONING: buf_str(&r->reasoning, text); break;
    case ANSWER_CONTENT: buf_str(&r->content, text); break;
    case ANSWER_CALL_BEGIN:
        if (call > 0) buf_c(&r->calls, ',');
        buf_c(&r->calls, '{');
        put_call_id(r, &r->calls, call);
        buf_z(&r->calls, ",\"function\":{\"name\":");
        buf_json(&r->calls, text);
        buf_z(&r->calls, ",\"arguments\":");
        break;
    case ANSWER_CALL_ARGS: buf_str(&r->args, text); break;
    case ANSWER_CALL_END:
        buf_json(&r->calls, buf_view(&r->args));
        buf_z(&r->calls, "}}");
        buf_clear(&r->args);
        break;
    }
}

static void put_message(struct reply *r, struct buf *b)
{
    buf_z(b, "\"message\":{\"role\":\"assistant\",\"content\":");
    if (r->content.n == 0 && r->calls.n > 0)
        buf_z(b, "null");
    else
        buf_json(b, buf_view(&r->content));
    if (r->reasoning.n > 0) {
        buf_z(b, ",\"reasoning_content\":");
        buf_json(b, buf_view(&r->reasoning));
    }
    if (r->calls.n > 0) {
        buf_z(b, ",\"tool_calls\":[");
        buf_str(b, buf_view(&r->calls));
        buf_c(b, ']');
    }
    buf_c(b, '}');
}

static bool send_whole(struct reply *r)
{
    struct buf b = {0};
    struct err e = {0};
    learn(r);
    response_open(&b, &r->head, false);
    buf_z(&b, ",\"choices\":[{\"index\":0,");
    if (r->head.chat) {
        put_message(r, &b);
    } else {
        buf_z(&b, "\"text\":");
        buf_json(&b, buf_view(&r->content));
    }
    if (r->g.logprobs.n > 0)
        logprobs_put(&r->g.logprobs, &b);
    else
        buf_z(&b, ",\"logprobs\":null");
    buf_printf(&b, ",\"finish_reason\":\"%s\"}],", generation_finish_reason(&r->g));
    response_usage(&b, &r->g.status, r->g.n_reasoning, r->head.chat);
    buf_c(&b, ',');
    put_timings(r, &b);
    buf_c(&b, '}');
    bool failed =
        b.failed || r->content.failed || r->reasoning.failed || r->calls.failed || r->args.failed;
    if (!failed) return exchange_send_json(r->x, &b);
    buf_free(&b);
    err_set(&e, ERR_MEMORY, "no memory for the answer");
    return exchange_send_error(r->x, &e);
}

static bool await_whole(struct reply *r)
{
    struct err e = {0};
    while (!generation_pump(&r->g)) {
        enum exchange_wake wake = exchange_wait(r->x, stream_fd(r->g.stream), -1);
        if (wake == WAKE_GONE) {
            stream_cancel(r->g.stream);
            return false;
        }
        if (wake == WAKE_CLOSING) {
            err_set(&e, ERR_SHUTDOWN, "the server is shutting down; try again later");
            return exchange_send_error(r->x, &e);
        }
    }
    if (r->g.finish == FINISH_ERROR) return exchange_send_error(r->x, &r->g.error);
    return send_whole(r);
}

// ---- both --------------------------------------------------------------------------------------

static bool submit(struct exchange *x, const struct request_params *p,
                   const struct reply_options *o, const struct ids *prompt, struct stream **out,
                   struct err *e)
{
    const struct server *sv = x->sv;
    const struct tokenizer *tok = engine_tokenizer(sv->engine);
    struct job job = {
        .ids = prompt->p,
        .n_ids = prompt->n,
        .sampling = p->sampling,
        .max_tokens = p->max_tokens,
        .stops = p->stops,
        .n_stops = p->n_stops,
        .bias = p->bias,
        .n_bias = p->n_bias,
        .ignore_eos = p->ignore_eos,
        .logprobs = p->logprobs,
        .n_top_logprobs = p->n_top_logprobs,
        .priority = p->priority,
        .timeout_ms = p->timeout_ms > 0 ? p->timeout_ms : sv->s.timeout_ms,
        .cache_salt = p->cache_salt,
        .has_cache_priority = p->has_cache_priority,
        .has_cache_ttl = p->has_cache_ttl,
        .cache_priority = p->cache_priority,
        .cache_ttl_s = p->cache_ttl_s,
    };
    engine_sampling(sv->engine, o->thinking, &job.sampling);
    const bool ok =
        answer_form_make(p, o, tok, &job.form, e) && engine_submit(sv->engine, &job, out, e);
    answer_form_free(&job.form);
    return ok;
}

static struct reply *reply_new(struct exchange *x, const struct request_params *p,
                               const struct reply_options *o, const struct ids *prompt,
                               struct stream *stream, struct err *e)
{
    struct reply *r = calloc(1, sizeof *r);
    if (r == NULL) {
        stream_close(stream);
        err_set(e, ERR_MEMORY, "no memory for the request");
        return NULL;
    }
    r->x = x;
    r->p = *p;
    r->last_ns = clock_ns();
    r->head = (struct response_head){
        .id = x->id, .chat = o->chat, .created_unix = clock_unix(), .model = x->sv->model_name};
    struct generation_options go = {.chat = o->chat,
                                    .answer = o->answer,
                                    .stops = r->p.stops,
                                    .n_stops = r->p.n_stops,
                                    .logprobs = p->logprobs,
                                    .one_call = !p->parallel_tool_calls,
                                    .keep_ids = o->chat && x->sv->splice != NULL};
    if (go.keep_ids &&
        !splice_place_of(&r->place, engine_tokenizer(x->sv->engine), p->cache_salt, prompt))
        go.keep_ids = false; // the next turn may miss; this one need not fail
    r->may_go_on =
        go.keep_ids && next_turn_may_come(x, p) && ids_put(&r->have, prompt->p, prompt->n);
    if (generation_open(&r->g, stream, engine_tokenizer(x->sv->engine), &go,
                        p->stream ? stream_part : whole_part, r, e))
        return r;
    splice_place_free(&r->place);
    ids_free(&r->have);
    free(r);
    return NULL;
}

bool reply_start(struct exchange *x, const struct request_params *p, const struct reply_options *o,
                 const struct ids *prompt)
{
    struct err e = {0};
    struct stream *stream = NULL;
    x->n_prompt = (uint32_t)prompt->n;
    if (!submit(x, p, o, prompt, &stream, &e)) return exchange_send_error(x, &e);
    x->queue_in_ms = clock_ms_since(x->body_ns);
    x->reply = reply_new(x, p, o, prompt, stream, &e);
    if (x->reply == NULL) return exchange_send_error(x, &e);
    if (!p->stream) return await_whole(x->reply);
    if (o->chat) { // the role, once and first
        chunk_open(x->reply);
        put_choice(x->reply, STR("{\"role\":\"assistant\",\"content\":null}"), NULL);
        chunk_close(x->reply);
    }
    return exchange_send_stream(x);
}

static enum finished_reason done_reason(const struct generation *g)
{
    if (!g->ended) return DONE_ABORT;
    if (g->finish == FINISH_ERROR) return DONE_ERROR;
    if (g->finish == FINISH_LENGTH) return DONE_LENGTH;
    return g->n_calls > 0 ? DONE_TOOL_CALLS : DONE_STOP;
}

void reply_close(struct reply *r)
{
    if (r == NULL) return;
    struct exchange *x = r->x;
    if (!r->g.ended) stream_status(r->g.stream, &r->g.status);
    x->n_cached = r->g.status.n_cached;
    x->cache = r->g.status.cache;
    x->n_generated = r->g.status.n_generated;
    x->ttft_ms = r->g.status.ttft_ms > 0 ? x->queue_in_ms + r->g.status.ttft_ms : 0;
    x->done = done_reason(&r->g);
    x->has_done = true;
    const bool goes_on =
        r->may_go_on && (x->done == DONE_STOP || x->done == DONE_LENGTH) && r->g.n_calls == 0;
    if (goes_on && !r->content.failed) next_turn_expect(x, &r->p, buf_view(&r->content), &r->have);
    ids_free(&r->have);
    splice_place_free(&r->place);
    generation_close(&r->g);
    struct buf *all[] = {&r->out, &r->content, &r->reasoning, &r->calls, &r->args};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) buf_free(all[i]);
    free(r);
}
