// Two points wait for the disk: before a tool runs, so that nothing is done that a power cut could
// make undone on record, and at the end, before anybody is told. The rest may lag behind.
//
// A stage gets a row when its kind changes; within it the text is brought up to date once a second,
// so that a prefill of an hour costs one row.
#include "agent/run_record.h"

#include "base/clock.h"
#include "base/log.h"

enum { UPDATE_MS = 1000 };
// Kinds of stages; those of a request are numbered behind these, by request.
enum { STAGE_NONE, STAGE_TOOLS, STAGE_SERVER, STAGE_TOOL, STAGE_END, STAGE_REQUEST };

void run_record_init(struct run_record *r, struct run_store *store, const char *id,
                     struct run_view shown)
{
    *r = (struct run_record){.store = store, .id = id, .shown = shown};
}

static void check(struct run_record *r, bool ok, const struct err *e)
{
    if (ok || r->broken) return;
    r->broken = true;
    log_warn("agent", "the record of run %s is incomplete: %s", r->id, e->msg);
}

// A text without its secrets; the caller frees it.
static struct buf clean(const struct run_record *r, struct str text)
{
    struct buf b = {0};
    buf_str(&b, text);
    if (r->redact.text != NULL) r->redact.text(r->redact.arg, &b);
    return b;
}

static void put_stage(struct run_record *r, int key, struct str text)
{
    struct err e = {0};
    bool is_new = key != r->stage_key;
    if (r->store == NULL || (!is_new && clock_ms_since(r->stage_ns) < UPDATE_MS)) return;
    struct buf safe = clean(r, text);
    if (str_eq(buf_view(&safe), buf_view(&r->stage))) { // "answer" of a request and of the run
        buf_free(&safe);
        return;
    }
    r->n_stages += is_new;
    r->stage_key = key;
    r->stage_ns = clock_ns();
    check(r, run_store_stage(r->store, r->id, r->n_stages - 1, buf_view(&safe), &e), &e);
    buf_free(&r->stage);
    r->stage = safe;
}

void run_record_start(struct run_record *r, const struct run_start *start)
{
    struct err e = {0};
    struct run_start bare = *start;
    if (r->store == NULL) return;
    bare.task = STR("");
    bare.inputs = STR("{}");
    check(r, run_store_start(r->store, &bare, &e), &e);
    put_stage(r, STAGE_TOOLS, STR("tools"));
}

void run_record_describe(struct run_record *r, struct run_redact redact,
                         const struct run_start *start, struct str bootstrap)
{
    struct err e = {0};
    r->redact = redact;
    if (r->store == NULL) return;
    struct buf task = clean(r, start->task), inputs = clean(r, start->inputs);
    struct buf boot = clean(r, bootstrap);
    check(r,
          run_store_describe(r->store, r->id, buf_view(&task), buf_view(&inputs), &e) &&
              run_store_bootstrap(r->store, r->id, buf_view(&boot), &e),
          &e);
    buf_free(&task);
    buf_free(&inputs);
    buf_free(&boot);
}

void run_record_wait(struct run_record *r, struct str what)
{
    struct buf text = {0};
    buf_z(&text, "server: ");
    buf_str(&text, what);
    put_stage(r, STAGE_SERVER, buf_view(&text));
    buf_free(&text);
}

// ---- what the loop tells --------------------------------------------------------------------

static void on_status(void *arg, const struct chat_status *s)
{
    struct run_record *r = arg;
    struct buf text = {0};
    int key = STAGE_REQUEST + (int)r->n_turns * (CHAT_DONE + 1) + (int)s->stage;
    chat_status_print(s, &text);
    if (s->retry_in_ms > 0) buf_printf(&text, ", the server is busy (try %u)", s->n_retries + 1);
    put_stage(r, key, buf_view(&text));
    buf_free(&text);
    if (r->shown.on_status != NULL) r->shown.on_status(r->shown.arg, s);
}

static void on_wait(void *arg, struct str what)
{
    struct run_record *r = arg;
    run_record_wait(r, what);
    if (r->shown.on_wait != NULL) r->shown.on_wait(r->shown.arg, what);
}

static void on_content(void *arg, struct str text)
{
    struct run_record *r = arg;
    if (r->shown.on_content != NULL) r->shown.on_content(r->shown.arg, text);
}

static void on_turn(void *arg, const struct run_turn *t)
{
    struct run_record *r = arg;
    struct err e = {0};
    if (r->store != NULL) check(r, run_store_turn(r->store, r->id, r->n_turns, t, &e), &e);
    r->n_turns++;
    if (r->shown.on_turn != NULL) r->shown.on_turn(r->shown.arg, t);
}

static void on_call(void *arg, struct str name, struct str arguments)
{
    struct run_record *r = arg;
    struct err e = {0};
    if (r->store != NULL) {
        struct buf stage = {0}, safe_name = clean(r, name), safe = clean(r, arguments);
        buf_z(&stage, "tool ");
        buf_str(&stage, buf_view(&safe_name));
        buf_z(&stage, ": ");
        buf_str(&stage, str_sub(buf_view(&safe), 0, 200));
        r->stage_key = STAGE_NONE; // each call is a stage of its own
        put_stage(r, STAGE_TOOL, buf_view(&stage));
        check(r,
              run_store_call_begin(r->store, r->id, r->n_calls, buf_view(&safe_name),
                                   buf_view(&safe), &e) &&
                  run_store_sync(r->store, &e),
              &e);
        buf_free(&stage);
        buf_free(&safe_name);
        buf_free(&safe);
    }
    if (r->shown.on_call != NULL) r->shown.on_call(r->shown.arg, name, arguments);
}

static void on_result(void *arg, const struct run_call *call)
{
    struct run_record *r = arg;
    struct err e = {0};
    if (r->store != NULL) {
        struct run_call safe = *call;
        safe.detail = clean(r, buf_view(&call->detail));
        safe.output = clean(r, buf_view(&call->output));
        safe.log = clean(r, buf_view(&call->log));
        check(r, run_store_call_end(r->store, r->id, r->n_calls, &safe, &e), &e);
        buf_free(&safe.detail);
        buf_free(&safe.output);
        buf_free(&safe.log);
    }
    r->n_calls++;
    if (r->shown.on_result != NULL) r->shown.on_result(r->shown.arg, call);
}

static void on_transcript(void *arg, struct str grown)
{
    struct run_record *r = arg;
    struct err e = {0};
    if (r->store == NULL || grown.n == 0) return;
    struct buf safe = clean(r, grown);
    check(r, run_store_transcript(r->store, r->id, r->n_pieces++, buf_view(&safe), &e), &e);
    buf_free(&safe);
}

struct run_view run_record_view(struct run_record *r)
{
    return (struct run_view){.arg = r,
                             .on_status = on_status,
                             .on_wait = on_wait,
                             .on_content = on_content,
                             .on_turn = on_turn,
                             .on_call = on_call,
                             .on_result = on_result,
                             .on_transcript = on_transcript};
}

// ---- the end --------------------------------------------------------------------------------

static struct str status_of(const struct run_result *result)
{
    if (result->report_status == REPORT_NONE) return (struct str){"", 0};
    return str_from(report_status_name(result->report_status));
}

void run_record_end(struct run_record *r, const struct run_result *result, int exit_code)
{
    struct err e = {0};
    if (r->store == NULL) return;
    struct buf stage = clean(r, buf_view(&result->stage));
    struct buf reason = clean(r, str_from(result->error.msg));
    struct buf report = clean(r, buf_view(&result->report));
    struct buf data = clean(r, buf_view(&result->report_data));
    put_stage(r, STAGE_END, buf_view(&stage));
    struct run_end end = {.outcome = run_outcome_name(result->outcome),
                          .stage = buf_view(&stage),
                          .reason = buf_view(&reason),
                          .report = buf_view(&report),
                          .status = status_of(result),
                          .data = buf_view(&data),
                          .exit_code = exit_code,
                          .total_ms = result->total_ms};
    check(r, run_store_end(r->store, r->id, &end, &e) && run_store_sync(r->store, &e), &e);
    buf_free(&stage);
    buf_free(&reason);
    buf_free(&report);
    buf_free(&data);
    buf_free(&r->stage);
}
