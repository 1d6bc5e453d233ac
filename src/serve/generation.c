// The engine stops at a stop string too; here the same strings decide what text may leave.
#include "serve/generation.h"

// Then text goes out: a client that reads slowly must not make the server collect without end.
enum { EVENTS_MAX = 64 };

static void on_part(void *arg, enum answer_part part, int call, struct str text)
{
    struct generation *g = arg;
    g->last_part = (int)part;
    if (part == ANSWER_REASONING) g->saw_reasoning = true;
    if (part == ANSWER_CALL_BEGIN) g->n_calls++;
    if (part == ANSWER_CALL_END) g->call_ended = true;
    g->sink(g->sink_arg, part, call, text);
}

bool generation_open(struct generation *g, struct stream *stream, const struct tokenizer *tok,
                     const struct generation_options *o, answer_sink *sink, void *arg,
                     struct err *e)
{
    *g = (struct generation){
        .stream = stream,
        .tok = tok,
        .stop = {.strings = o->stops, .n_strings = o->n_stops},
        .sink = sink,
        .sink_arg = arg,
        .one_call = o->one_call,
        .want_logprobs = o->logprobs,
        .keep_ids = o->keep_ids,
        .logprobs = {.chat = o->chat},
        .last_part = -1,
    };
    if (!o->chat) return true;
    g->answer = answer_open(&o->answer, on_part, g);
    if (g->answer != NULL) return true;
    stream_close(stream);
    g->stream = NULL;
    return err_set(e, ERR_MEMORY, "no memory for the answer");
}

void generation_close(struct generation *g)
{
    stream_close(g->stream);
    answer_close(g->answer);
    stop_free(&g->stop);
    buf_free(&g->text);
    logprobs_free(&g->logprobs);
    ids_free(&g->ids);
    *g = (struct generation){0};
}

static void feed(struct generation *g)
{
    struct str text = buf_view(&g->text);
    if (text.n == 0) return;
    if (g->answer != NULL)
        answer_feed(g->answer, text);
    else
        on_part(g, ANSWER_CONTENT, 0, text);
    buf_clear(&g->text);
}

static void take_token(struct generation *g, const struct stream_event *ev)
{
    if (g->keep_ids && !ids_put(&g->ids, &ev->id, 1)) { // a part would be put in the wrong place
        g->keep_ids = false;
        g->ids.n = 0;
    }
    if (g->stop.hit) return;
    if (g->want_logprobs) logprobs_add(&g->logprobs, g->tok, ev);
    // Control tokens are structure, not text; those that the parser needs are user-defined ones.
    if (tokenizer_kind(g->tok, ev->id) == TOKEN_CONTROL) return;
    bool thinking_before = g->last_part == ANSWER_REASONING;
    g->saw_reasoning = false;
    int before = g->last_part;
    stop_feed(&g->stop, tokenizer_piece(g->tok, ev->id), &g->text);
    feed(g);
    bool quiet = g->last_part == before;
    if (g->saw_reasoning || (thinking_before && quiet)) g->n_reasoning++;
}

static void end(struct generation *g, enum finish finish)
{
    g->ended = true;
    g->finish = finish;
    stream_status(g->stream, &g->status);
    if (finish == FINISH_ERROR) return;
    if (!g->stop.hit && finish != FINISH_STOP_STRING) stop_finish(&g->stop, &g->text);
    feed(g);
    if (g->answer != NULL) answer_finish(g->answer, finish == FINISH_LENGTH);
}

bool generation_pump(struct generation *g)
{
    struct stream_event ev;
    for (int n = 0; n < EVENTS_MAX && !g->ended && stream_next(g->stream, &ev); n++) {
        if (ev.kind == EVENT_TOKEN) {
            take_token(g, &ev);
            if (!g->one_call || !g->call_ended) continue;
            stream_cancel(g->stream);
            end(g, FINISH_STOP);
        } else {
            g->error = ev.error;
            end(g, ev.finish);
        }
    }
    return g->ended;
}

const char *generation_finish_reason(const struct generation *g)
{
    if (g->finish == FINISH_LENGTH) return "length";
    return g->n_calls > 0 ? "tool_calls" : "stop";
}
