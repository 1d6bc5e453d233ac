// The conversation is kept as the JSON text that is sent, appended to and never rewritten, so that
// each request begins with the bytes of the one before and the server finds its prefix.
#include "agent/turns.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"

enum {
    SAME_FAILURES_MAX = 2, // the same call may fail this often; then the run is cut
    RESENDS_MAX = 3, // of requests that broke off: the prompt itself may be what kills a server
    BACK_FIRST_MS = 250,
    BACK_PAUSE_MS = 2000,
    BACK_MAX_MS = 120000,    // a server that loads 20 GB is back by then
    RESERVE_FROM_MS = 10000, // with so much left a tool leaves time to report
    RESERVE_MAX_MS = 30000,
};

struct loop {
    const struct run_settings *s;
    struct run_result *out;
    struct http_client *server;
    struct buf messages; // "[{...},{...}" without the closing bracket
    size_t n_told;       // bytes of them that view.on_transcript has
    bool refused[8];     // OPTION_*: the server does not take it
    bool met;            // the server has answered in this run
    struct buf model;    // its only one's name, where none is configured and it wants to hear one
    uint32_t n_resent;
};

const char *run_outcome_name(enum run_outcome o)
{
    static const char *const names[RUN_OUTCOMES] = {"done", "failed", "timeout", "cancelled",
                                                    "no_server"};
    return names[o];
}

// 0 done, 1 task failed, 3 no server, 124 timeout. A full or loading server is none that could
// serve.
int run_exit_code(const struct run_result *r)
{
    switch (r->outcome) {
    case RUN_DONE: return 0;
    case RUN_TIMEOUT: return 124;
    case RUN_NO_SERVER: return 3;
    default: return 1;
    }
}

void run_id_make(char *out, size_t size)
{
    struct {
        uint64_t ns;
        int64_t s;
        pid_t pid;
        unsigned count; // of this process: several threads start runs
    } seed;
    static atomic_uint count;
    memset(&seed, 0, sizeof seed);
    seed.ns = clock_ns();
    seed.s = clock_unix();
    seed.pid = getpid();
    seed.count = atomic_fetch_add(&count, 1);
    time_t now = (time_t)seed.s;
    struct tm tm;
    gmtime_r(&now, &tm);
    size_t n = strftime(out, size, "%Y%m%d-%H%M%S-", &tm);
    snprintf(out + n, size - n, "%08x", (unsigned)hash64(&seed, sizeof seed, 0));
}

// ---- messages -------------------------------------------------------------------------------

static void redact(const struct loop *l, struct buf *text)
{
    redact_text(tool_set_redactor(l->s->tools), text);
}

// What the model says goes back to it and into the record; it should not know a secret, but if it
// does (somebody wrote it into a page), it ends here. The call itself was made with its own words.
static void redact_reply(const struct loop *l, struct chat_reply *r)
{
    redact(l, &r->content);
    redact(l, &r->reasoning);
    for (size_t i = 0; i < r->n_calls; i++) redact(l, &r->calls[i].arguments);
}

static void put_message(struct buf *b, const char *role, struct str content)
{
    buf_printf(b, "%s{\"role\":\"%s\",\"content\":", b->n > 1 ? "," : "", role);
    buf_json(b, content);
}

// What changes with every run stands behind the task, at the very end of the prompt's shared part.
static void put_task(struct loop *l)
{
    struct buf text = {0};
    char when[40];
    time_t now = (time_t)clock_unix();
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(when, sizeof when, "%a %Y-%m-%d %H:%M UTC", &tm);
    buf_str(&text, l->s->task);
    buf_printf(&text, "\n\nRuntime: date=%s | run=%s", when, l->out->id);
    redact(l, &text);
    put_message(&l->messages, "user", buf_view(&text));
    buf_c(&l->messages, '}');
    l->messages.failed |= text.failed;
    buf_free(&text);
}

// A secret that stands in a workspace file is none for the model either; the same bytes on each
// run.
static void put_bootstrap(struct loop *l)
{
    struct buf text = {0};
    buf_str(&text, l->s->bootstrap);
    redact(l, &text);
    put_message(&l->messages, "system", buf_view(&text));
    buf_c(&l->messages, '}');
    l->messages.failed |= text.failed;
    buf_free(&text);
}

static void put_answer(struct buf *b, const struct chat_reply *r)
{
    put_message(b, "assistant", buf_view(&r->content));
    if (r->reasoning.n > 0) {
        buf_z(b, ",\"reasoning_content\":");
        buf_json(b, buf_view(&r->reasoning));
    }
    for (size_t i = 0; i < r->n_calls; i++) {
        const struct chat_call *call = &r->calls[i];
        buf_z(b, i == 0 ? ",\"tool_calls\":[{\"id\":" : ",{\"id\":");
        buf_json(b, buf_view(&call->id));
        buf_z(b, ",\"type\":\"function\",\"function\":{\"name\":");
        buf_json(b, buf_view(&call->name));
        buf_z(b, ",\"arguments\":");
        buf_json(b, buf_view(&call->arguments));
        buf_z(b, "}}");
    }
    buf_z(b, r->n_calls > 0 ? "]}" : "}");
}

static void put_result(struct buf *b, const struct chat_call *call, struct str text)
{
    put_message(b, "tool", text);
    buf_z(b, ",\"tool_call_id\":");
    buf_json(b, buf_view(&call->id));
    buf_c(b, '}');
}

// What other servers may refuse with a 400 that names it: then it is left out from there on.
enum { OPTION_USAGE, OPTION_PROGRESS, OPTION_TIMEOUT, OPTION_THINKING, OPTION_MAX_TOKENS, OPTIONS };
static_assert(OPTIONS <= sizeof((struct loop *)0)->refused, "one flag an option");
static const char *const option_names[OPTIONS] = {"stream_options", "return_progress", "timeout_ms",
                                                  "chat_template_kwargs", "max_tokens"};

static uint64_t left_ms(const struct loop *l)
{
    uint64_t now = clock_ns(), end = l->s->deadline_ns;
    return end > now ? (end - now) / 1000000 + 1 : 1;
}

// The server is told how long the answer is waited for, so that it gives up what nobody reads.
static void put_options(const struct loop *l, struct buf *body)
{
    const struct run_settings *s = l->s;
    const bool *refused = l->refused;
    if (!refused[OPTION_USAGE]) buf_z(body, ",\"stream_options\":{\"include_usage\":true}");
    if (!refused[OPTION_PROGRESS]) buf_z(body, ",\"return_progress\":true"); // llama-server asks
    if (!refused[OPTION_TIMEOUT] && s->deadline_ns != 0)
        buf_printf(body, ",\"timeout_ms\":%llu", (unsigned long long)left_ms(l));
    if (!refused[OPTION_THINKING] && s->thinking >= 0)
        buf_printf(body, ",\"chat_template_kwargs\":{\"enable_thinking\":%s}",
                   s->thinking ? "true" : "false");
    buf_printf(body, ",\"%s\":%u",
               refused[OPTION_MAX_TOKENS] ? "max_completion_tokens" : "max_tokens", s->max_tokens);
}

static void put_request(const struct loop *l, struct buf *body)
{
    const struct run_settings *s = l->s;
    buf_z(body, "{\"model\":");
    buf_json(body, s->model != NULL ? str_from(s->model)
                   : l->model.n > 0 ? buf_view(&l->model)
                                    : STR("default"));
    buf_z(body, ",\"messages\":");
    buf_str(body, buf_view(&l->messages));
    buf_z(body, "],\"stream\":true");
    if (tool_set_count(s->tools) > 0) {
        buf_z(body, ",\"tools\":");
        tool_set_json(s->tools, body);
    }
    put_options(l, body);
    if (s->has_temperature) buf_printf(body, ",\"temperature\":%g", (double)s->temperature);
    buf_c(body, '}');
}

// ---- endings --------------------------------------------------------------------------------

static enum run_outcome outcome_of(enum err_code code)
{
    switch (code) {
    case ERR_TIMEOUT: return RUN_TIMEOUT;
    case ERR_CANCELLED: return RUN_CANCELLED;
    case ERR_NO_SERVER:
    case ERR_AUTH:
    case ERR_FULL:
    case ERR_LOADING:
    case ERR_SHUTDOWN: return RUN_NO_SERVER;
    default: return RUN_FAILED;
    }
}

static bool end_with(struct loop *l, const struct err *e)
{
    l->out->error = *e;
    l->out->outcome = outcome_of(e->code);
    return false;
}

static void set_stage(struct loop *l, const char *stage)
{
    buf_clear(&l->out->stage);
    buf_z(&l->out->stage, stage);
}

static bool check_time(struct loop *l)
{
    struct err e = {0};
    if (l->s->cancel != NULL && atomic_load(l->s->cancel) != 0)
        err_set(&e, ERR_CANCELLED, "cancelled (in %s)", buf_cstr(&l->out->stage));
    else if (l->s->deadline_ns != 0 && clock_ns() >= l->s->deadline_ns)
        err_set(&e, ERR_TIMEOUT, "out of time after %g s (in %s)", l->s->timeout_s,
                buf_cstr(&l->out->stage));
    return e.code == ERR_NONE || end_with(l, &e);
}

// ---- one request ----------------------------------------------------------------------------

static bool record_turn(struct loop *l, const struct chat_reply *r, const struct chat_status *st,
                        const struct chat_times *t, struct err *e)
{
    struct run_turn *p = realloc(l->out->turns, (l->out->n_turns + 1) * sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for the record");
    l->out->turns = p;
    // Without usage (broken off) it is what the server said of its progress.
    const struct chat_usage *u = &r->usage;
    uint64_t cached = u->known ? u->cached_tokens : st->progress.cached;
    uint64_t done = u->known ? u->prompt_tokens : st->progress.processed;
    p[l->out->n_turns++] =
        (struct run_turn){.prompt_tokens = u->known ? u->prompt_tokens : st->progress.total,
                          .cached_tokens = cached,
                          .prefilled_tokens = done > cached ? done - cached : 0,
                          .completion_tokens = u->known ? u->completion_tokens : r->n_deltas,
                          .ttft_ms = t->ttft_ms,
                          .gen_tps = t->gen_tps,
                          .total_ms = t->total_ms};
    if (l->s->view.on_turn != NULL)
        l->s->view.on_turn(l->s->view.arg, &l->out->turns[l->out->n_turns - 1]);
    return true;
}

static bool send_once(struct loop *l, struct str body, struct chat_reply *reply, struct err *e)
{
    struct chat_status status;
    struct chat_times times;
    struct chat_ask ask = {.body = body,
                           .deadline_ns = l->s->deadline_ns,
                           .cancel = l->s->cancel,
                           .on_status = l->s->view.on_status,
                           .on_content = l->s->view.on_content,
                           .arg = l->s->view.arg};
    bool ok = chat_client_ask(l->server, &ask, reply, &status, &times, e);
    buf_clear(&l->out->stage);
    chat_status_print(&status, &l->out->stage);
    if (status.stage == CHAT_SENT && !ok && e->code == ERR_NO_SERVER) return false;
    return record_turn(l, reply, &status, &times, e) && ok;
}

static bool send_request(struct loop *l, struct chat_reply *reply, struct err *e)
{
    struct buf body = {0};
    chat_reply_free(reply); // of a try before this one
    put_request(l, &body);
    bool ok = !body.failed && !l->messages.failed;
    if (!ok) err_set(e, ERR_MEMORY, "no memory for the request");
    ok = ok && send_once(l, buf_view(&body), reply, e);
    l->met = l->met || ok || strcmp(buf_cstr(&l->out->stage), "request") != 0;
    buf_free(&body);
    return ok;
}

// True when the server refused a field that it can do without.
static bool drop_refused(struct loop *l, const struct err *e)
{
    if (e->code != ERR_INPUT && e->code != ERR_UNSUPPORTED) return false;
    for (size_t i = 0; i < OPTIONS; i++) {
        if (l->refused[i] || strstr(e->msg, option_names[i]) == NULL) continue;
        l->refused[i] = true;
        return true;
    }
    return false;
}

// Ours and llama-server take any name of a model; others know theirs only. True when the server has
// one, whose name we know now; of several the user has to choose.
static bool learn_model(struct loop *l, struct err *e)
{
    struct err problem = {0};
    struct buf names = {0};
    size_t n = 0;
    if (e->code != ERR_NOT_FOUND || l->s->model != NULL || l->model.n > 0 ||
        !chat_client_models(l->server, l->s->deadline_ns, l->s->cancel, &names, &n, &problem))
        n = 0;
    if (n == 1) buf_str(&l->model, buf_view(&names));
    if (n > 1) {
        *e = (struct err){0}; // what the server said of the name "default" helps nobody
        err_set(e, ERR_NOT_FOUND,
                "the server has several models; say which (--server-model, or model: under server: "
                "in submind.yaml): %.300s",
                buf_cstr(&names));
    }
    buf_free(&names);
    return n == 1;
}

static bool is_gone(const struct err *e)
{
    return e->code == ERR_NO_SERVER || e->code == ERR_IO || e->code == ERR_SHUTDOWN ||
           e->code == ERR_LOADING;
}

static void tell_wait(struct loop *l, uint64_t since_ns, const struct err *why)
{
    struct buf text = {0};
    buf_printf(&text, "waiting for the server to come back, %.0f s: %.200s",
               clock_ms_since(since_ns) / 1000, why->msg);
    set_stage(l, "server, gone in the middle of the run");
    if (l->s->view.on_wait != NULL) l->s->view.on_wait(l->s->view.arg, buf_view(&text));
    buf_free(&text);
}

// A private server is found, or started, anew; a named one has to come back by itself.
static bool connect_again(struct loop *l, struct err *e)
{
    if (l->s->reconnect == NULL) return true;
    struct http_client *server = l->s->reconnect(l->s->reconnect_arg, e);
    if (server != NULL) l->server = server;
    return server != NULL;
}

// The server had answered in this run and is gone, restarting perhaps. Nothing of the transcript is
// lost: the same request goes out again, and again while nobody answers, for a bounded time.
static bool send_until_back(struct loop *l, struct chat_reply *reply, struct err *e)
{
    uint64_t since_ns = clock_ns(), pause_ms = BACK_FIRST_MS;
    bool ok = false;
    while (!ok && is_gone(e) && l->n_resent < RESENDS_MAX) {
        struct err why = *e;
        tell_wait(l, since_ns, &why);
        clock_sleep_ms((uint32_t)pause_ms);
        if (!check_time(l)) {
            *e = l->out->error;
            return false;
        }
        if (clock_ms_since(since_ns) > BACK_MAX_MS) break;
        *e = (struct err){0};
        ok = connect_again(l, e) && send_request(l, reply, e);
        // Not reached is not sent; what broke off once more counts.
        l->n_resent += !ok && e->code != ERR_NO_SERVER && e->code != ERR_LOADING;
        pause_ms = pause_ms * 2 < BACK_PAUSE_MS ? pause_ms * 2 : BACK_PAUSE_MS;
    }
    return ok;
}

static bool ask_model(struct loop *l, struct chat_reply *reply, struct err *e)
{
    bool ok = send_request(l, reply, e);
    while (!ok && (drop_refused(l, e) || learn_model(l, e))) {
        *e = (struct err){0};
        ok = send_request(l, reply, e);
    }
    // A private server may have ended between being found and being asked.
    if (!ok && e->code == ERR_NO_SERVER && !l->met && l->s->reconnect != NULL) {
        *e = (struct err){0};
        ok = connect_again(l, e) && send_request(l, reply, e);
    }
    if (!ok && l->met && is_gone(e)) ok = send_until_back(l, reply, e);
    return ok;
}

// ---- tools ----------------------------------------------------------------------------------

static struct run_call *new_call(struct loop *l, const struct chat_call *call)
{
    struct run_call *p = realloc(l->out->calls, (l->out->n_calls + 1) * sizeof *p);
    if (p == NULL) return NULL;
    l->out->calls = p;
    p += l->out->n_calls++;
    *p = (struct run_call){0};
    buf_str(&p->name, buf_view(&call->name));
    buf_str(&p->arguments, buf_view(&call->arguments));
    redact(l, &p->arguments);
    return p;
}

static size_t count_same_failures(const struct loop *l, const struct chat_call *call)
{
    size_t n = 0;
    for (size_t i = 0; i < l->out->n_calls; i++) {
        const struct run_call *c = &l->out->calls[i];
        n += c->failed && str_eq(buf_view(&c->name), buf_view(&call->name)) &&
             str_eq(buf_view(&c->arguments), buf_view(&call->arguments));
    }
    return n;
}

// A tool that hangs must not take the time in which the model can say so.
static uint32_t tool_ms(uint64_t left)
{
    uint64_t reserve = left < RESERVE_FROM_MS ? 0 : left / 5;
    left -= reserve < RESERVE_MAX_MS ? reserve : RESERVE_MAX_MS;
    return left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
}

static bool run_tool(struct loop *l, const struct chat_call *call, struct tool_result *r,
                     struct err *e)
{
    struct tool_limits limits = {.cancel = l->s->cancel};
    if (l->s->deadline_ns != 0) limits.timeout_ms = tool_ms(left_ms(l));
    return tool_set_call(l->s->tools, buf_view(&call->name), buf_view(&call->arguments), &limits, r,
                         e);
}

static void record_call(struct run_call *record, const struct tool_result *r)
{
    record->refused = r->refused;
    record->could_not_run = r->could_not_run;
    record->failed = r->failed;
    record->repeatable = r->repeatable;
    record->has_exit_code = r->has_exit_code;
    record->exit_code = r->exit_code;
    record->n_strays = r->n_strays;
    record->ms = r->ms;
    buf_str(&record->detail, buf_view(&r->detail));
    buf_str(&record->output, buf_view(&r->text));
    buf_str(&record->log, buf_view(&r->log));
}

static void take_report(struct run_result *out, const struct tool_result *r)
{
    if (r->report == REPORT_NONE) return;
    out->report_status = r->report;
    buf_clear(&out->report);
    buf_str(&out->report, buf_view(&r->text));
    buf_clear(&out->report_data);
    buf_str(&out->report_data, buf_view(&r->data));
}

static bool do_call(struct loop *l, struct chat_call *call, struct err *e)
{
    struct tool_result r = {0};
    if (call->arguments.n == 0) buf_z(&call->arguments, "{}");
    if (call->id.n == 0) buf_printf(&call->id, "call_%zu", l->out->n_calls);
    buf_clear(&l->out->stage);
    buf_printf(&l->out->stage, "tool %.*s: %.*s", (int)(call->name.n < 60 ? call->name.n : 60),
               buf_view(&call->name).p, (int)(call->arguments.n < 120 ? call->arguments.n : 120),
               buf_view(&call->arguments).p);
    if (count_same_failures(l, call) >= SAME_FAILURES_MAX)
        return err_set(e, ERR_INTERNAL, "the same call failed %d times and came again (%.200s)",
                       SAME_FAILURES_MAX, buf_cstr(&l->out->stage));
    if (l->s->view.on_call != NULL)
        l->s->view.on_call(l->s->view.arg, buf_view(&call->name), buf_view(&call->arguments));
    struct run_call *record = new_call(l, call);
    if (record == NULL) return err_set(e, ERR_MEMORY, "no memory for the record");
    bool ok = run_tool(l, call, &r, e);
    record_call(record, &r);
    take_report(l->out, &r);
    if (ok && l->s->view.on_result != NULL) l->s->view.on_result(l->s->view.arg, record);
    tool_result_free(&r);
    return ok;
}

// The assistant's message is put when its calls are done, because they get their ids there; it
// stands before the results, also when the run ends in between.
static bool do_calls(struct loop *l, struct chat_reply *reply, struct err *e)
{
    size_t first = l->out->n_calls;
    bool ok = true;
    for (size_t i = 0; ok && i < reply->n_calls; i++)
        ok = do_call(l, &reply->calls[i], e) && check_time(l);
    redact_reply(l, reply);
    put_answer(&l->messages, reply);
    for (size_t i = first; i < l->out->n_calls; i++)
        put_result(&l->messages, &reply->calls[i - first], buf_view(&l->out->calls[i].output));
    return ok;
}

// ---- the run --------------------------------------------------------------------------------

// A final answer: is the task done with it? A command's exit code is a finding, not a failure of
// the task; but when none of the last calls could run at all, there is nothing that the answer
// rests on.
static void judge_answer(struct loop *l, const struct chat_reply *reply, size_t n_last_calls)
{
    struct err e = {0};
    struct run_result *out = l->out;
    bool any_ran = n_last_calls == 0;
    for (size_t i = out->n_calls - n_last_calls; i < out->n_calls; i++)
        any_ran = any_ran || !out->calls[i].could_not_run;
    if (str_eq(buf_view(&reply->finish), STR("length")))
        err_set(&e, ERR_TOO_LONG, "the answer was cut off at %u tokens", l->s->max_tokens);
    else if (str_trim(buf_view(&reply->content)).n == 0)
        err_set(&e, ERR_INTERNAL, "the model gave no answer (%llu tokens generated)",
                (unsigned long long)reply->usage.completion_tokens);
    else if (!any_ran)
        err_set(&e, ERR_INTERNAL, "the last tool call could not run: %.300s",
                buf_cstr(&out->calls[out->n_calls - 1].output));
    if (e.code != ERR_NONE)
        end_with(l, &e);
    else
        out->outcome = RUN_DONE;
}

// The tool report ends a run; what it says of the task is the run's outcome. Always false.
static bool judge_report(struct loop *l)
{
    struct err e = {0};
    set_stage(l, "report");
    l->out->outcome = RUN_DONE;
    if (l->out->report_status != REPORT_FAILED) return false;
    err_set(&e, ERR_INTERNAL, "the sub-mind reports a failure: %.300s", buf_cstr(&l->out->report));
    return end_with(l, &e);
}

// One answer of the model and what follows from it. False when the run is over.
static bool take_turn(struct loop *l, size_t *n_last_calls)
{
    struct chat_reply reply = {0};
    struct err e = {0};
    bool go_on = false;
    if (!ask_model(l, &reply, &e)) {
        buf_clear(&l->out->report);
        buf_str(&l->out->report, str_trim(buf_view(&reply.content)));
        end_with(l, &e);
    } else if (reply.n_calls > 0 && !str_eq(buf_view(&reply.finish), STR("length"))) {
        *n_last_calls = reply.n_calls;
        go_on = do_calls(l, &reply, &e);
        if (e.code != ERR_NONE) end_with(l, &e);
        if (go_on && l->out->report_status != REPORT_NONE) go_on = judge_report(l);
    } else {
        redact_reply(l, &reply);
        buf_str(&l->out->report, str_trim(buf_view(&reply.content)));
        put_answer(&l->messages, &reply);
        judge_answer(l, &reply, *n_last_calls);
    }
    chat_reply_free(&reply);
    return go_on;
}

static void tell_transcript(struct loop *l)
{
    struct str grown = str_sub(buf_view(&l->messages), l->n_told, SIZE_MAX);
    l->n_told = l->messages.n;
    if (l->s->view.on_transcript != NULL) l->s->view.on_transcript(l->s->view.arg, grown);
}

void run_loop(const struct run_settings *s, struct run_result *out)
{
    struct loop l = {.s = s, .out = out, .server = s->server};
    uint64_t start_ns = clock_ns();
    size_t n_last_calls = 0;
    *out = (struct run_result){.outcome = RUN_FAILED};
    snprintf(out->id, sizeof out->id, "%s", s->id);
    set_stage(&l, "request");
    buf_c(&l.messages, '[');
    put_bootstrap(&l);
    l.n_told = l.messages.n;
    put_task(&l);
    for (uint32_t turn = 0; check_time(&l); turn++) {
        if (turn == s->max_turns) {
            struct err e = {0};
            err_set(&e, ERR_INTERNAL, "no report after %u turns (in %s)", s->max_turns,
                    buf_cstr(&out->stage));
            end_with(&l, &e);
            break;
        }
        tell_transcript(&l);
        if (!take_turn(&l, &n_last_calls)) break;
    }
    tell_transcript(&l);
    buf_c(&l.messages, ']');
    redact(&l, &out->stage);
    redact(&l, &out->report);
    redact_line(tool_set_redactor(s->tools), out->error.msg, sizeof out->error.msg);
    out->messages = l.messages;
    buf_free(&l.model);
    out->total_ms = clock_ms_since(start_ns);
}

void run_result_free(struct run_result *r)
{
    for (size_t i = 0; i < r->n_calls; i++) {
        buf_free(&r->calls[i].name);
        buf_free(&r->calls[i].arguments);
        buf_free(&r->calls[i].detail);
        buf_free(&r->calls[i].output);
        buf_free(&r->calls[i].log);
    }
    free(r->calls);
    free(r->turns);
    buf_free(&r->stage);
    buf_free(&r->report);
    buf_free(&r->report_data);
    buf_free(&r->messages);
    *r = (struct run_result){0};
}
