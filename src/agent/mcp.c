// Every request gets a number of its own; whatever else comes meanwhile is answered or dropped. A
// request that runs out of time is cancelled at the server too, and its late answer, having an old
// number, is dropped then.
#include "agent/mcp.h"

#include <stdlib.h>
#include <string.h>

#include "agent/mcp_frame.h"
#include "agent/mcp_lists.h"
#include "agent/tool_text.h"
#include "base/clock.h"
#include "base/log.h"

enum { MAX_PAGES = 50, MAX_TOOLS = 256, TOOL_NAME_MAX = 64, REASON_BYTES = 200 };

// The newest first: that is the one we offer.
static const char *const versions[] = {"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"};

// ---- requests -------------------------------------------------------------------------------

struct wait {
    struct mcp_server *s;
    int64_t id;
    json_t *answer; // the response's message, owned
};

static void answer_server(struct mcp_server *s, const struct mcp_frame *f)
{
    struct buf text = {0};
    if (strcmp(f->method, "ping") == 0)
        mcp_frame_reply(&text, f->id);
    else
        mcp_frame_refuse(&text, f->id, f->method);
    s->link->reply(s->link, buf_view(&text));
    buf_free(&text);
}

static bool take_one(struct wait *w, json_t *message)
{
    struct mcp_frame f = mcp_frame_read(message);
    if (f.kind == MCP_REQUEST) answer_server(w->s, &f);
    if (f.kind != MCP_RESPONSE || json_integer_value(f.id) != w->id || w->answer != NULL)
        return w->answer == NULL;
    w->answer = json_incref(message);
    return false;
}

// A message, or a list of them as an older version of the protocol had it.
static bool take(void *arg, struct str text)
{
    struct wait *w = arg;
    json_error_t where;
    json_t *v = json_loadb(text.p, text.n, 0, &where), *one;
    size_t i;
    bool more = true;
    if (v == NULL) log_debug("mcp", "%s: no JSON: %s", w->s->spec->name, where.text);
    if (json_is_array(v))
        json_array_foreach(v, i, one) more = take_one(w, one) && more;
    else if (v != NULL)
        more = take_one(w, v);
    json_decref(v);
    return more;
}

static void cancel_request(struct mcp_server *s, int64_t id, const char *reason)
{
    struct buf text = {0};
    struct err ignored = {0};
    json_t *params = json_pack("{s:I, s:s}", "requestId", (json_int_t)id, "reason", reason);
    mcp_frame_notice(&text, "notifications/cancelled", params);
    struct mcp_exchange x = {.message = buf_view(&text),
                             .deadline_ns = clock_ns() + 500 * 1000000ull};
    s->link->exchange(s->link, &x, &ignored);
    json_decref(params);
    buf_free(&text);
}

static bool tell_error(const json_t *error, struct err *e)
{
    struct buf text = {0};
    mcp_frame_error(error, &text);
    err_set(e, ERR_INTERNAL, "%s", buf_cstr(&text));
    buf_free(&text);
    return false;
}

// *result is owned by the caller. params may be NULL.
static bool request(struct mcp_server *s, const char *method, const json_t *params,
                    uint64_t deadline_ns, const atomic_int *cancel, json_t **result, struct err *e)
{
    struct buf text = {0};
    struct wait w = {.s = s, .id = ++s->last_id};
    mcp_frame_request(&text, w.id, method, params);
    struct mcp_exchange x = {.message = buf_view(&text),
                             .wants_answer = true,
                             .deadline_ns = deadline_ns,
                             .cancel = cancel,
                             .sink = take,
                             .sink_arg = &w};
    struct err problem = {0};
    bool ok = !text.failed || err_set(&problem, ERR_MEMORY, "no memory for a message");
    ok = ok && s->link->exchange(s->link, &x, &problem);
    if (!ok && (problem.code == ERR_TIMEOUT || problem.code == ERR_CANCELLED) &&
        strcmp(method, "initialize") != 0)
        cancel_request(s, w.id, problem.code == ERR_TIMEOUT ? "timeout" : "cancelled");
    if (ok) {
        struct mcp_frame f = mcp_frame_read(w.answer);
        ok = f.error == NULL || tell_error(f.error, &problem);
        if (ok) *result = json_incref((json_t *)(uintptr_t)f.result);
    }
    if (!ok) err_set(e, problem.code, "%s", problem.msg);
    json_decref(w.answer);
    buf_free(&text);
    return ok;
}

// ---- starting -------------------------------------------------------------------------------

static bool is_known(const char *version)
{
    for (size_t i = 0; version != NULL && i < sizeof versions / sizeof versions[0]; i++)
        if (strcmp(version, versions[i]) == 0) return true;
    return false;
}

static bool initialize(struct mcp_server *s, uint64_t deadline_ns, const atomic_int *cancel,
                       struct err *e)
{
    json_t *result = NULL;
    struct buf text = {0};
    json_t *params =
        json_pack("{s:s, s:{}, s:{s:s, s:s}}", "protocolVersion", versions[0], "capabilities",
                  "clientInfo", "name", "submind", "version", SUBMIND_VERSION);
    bool ok = params != NULL || err_set(e, ERR_MEMORY, "no memory for a message");
    ok = ok && request(s, "initialize", params, deadline_ns, cancel, &result, e);
    const char *version = json_string_value(json_object_get(result, "protocolVersion"));
    if (ok && !is_known(version))
        ok = err_set(e, ERR_UNSUPPORTED, "it speaks the protocol of %.40s; known: %s to %s",
                     version != NULL ? version : "no version", versions[3], versions[0]);
    if (ok) {
        s->link->agreed(s->link, version);
        mcp_frame_notice(&text, "notifications/initialized", NULL);
        struct mcp_exchange x = {
            .message = buf_view(&text), .deadline_ns = deadline_ns, .cancel = cancel};
        ok = s->link->exchange(s->link, &x, e);
        s->ready = ok;
    }
    json_decref(params);
    json_decref(result);
    buf_free(&text);
    return ok;
}

void mcp_server_init(struct mcp_server *s, const struct mcp_spec *spec,
                     const struct mcp_place *place)
{
    *s = (struct mcp_server){.spec = spec, .place = place};
}

bool mcp_server_start(struct mcp_server *s, struct err *e)
{
    struct err problem = {0};
    bool ok = s->spec->command != NULL ? mcp_stdio_open(&s->link, s->spec, s->place, &problem)
                                       : mcp_http_open(&s->link, s->spec, s->place, &problem);
    return ok || err_set(e, problem.code, "MCP server %s: %s", s->spec->name, problem.msg);
}

static void stop(struct mcp_server *s)
{
    if (s->link != NULL) s->link->close(s->link);
    s->link = NULL;
    s->ready = false;
}

// ---- its tools ------------------------------------------------------------------------------

static void drop_tool(struct mcp_tool *t)
{
    free(t->name);
    free(t->remote);
    free(t->description);
    free(t->parameters);
}

// A name for the model: letters, digits, "_" and "-", at most 64, whatever the server calls it.
static char *make_name(const char *server, const char *tool)
{
    struct buf name = {0};
    buf_printf(&name, "%s__%s", server, tool);
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && c != '_' && c != '-') name.p[i] = '_';
    }
    if (name.n > TOOL_NAME_MAX) name.n = TOOL_NAME_MAX;
    char *copy = strdup(buf_cstr(&name));
    buf_free(&name);
    return copy;
}

// A description comes from outside and goes into every prompt: text, without markers and secrets,
// bounded.
static char *make_description(const struct redactor *r, const char *text)
{
    struct buf clean = {0};
    tool_text_put(&clean, str_trim(str_from(text)));
    redact_text(r, &clean);
    tool_text_defuse(&clean);
    tool_text_cut(&clean, 4000);
    char *copy = strdup(buf_cstr(&clean));
    buf_free(&clean);
    return copy;
}

// Control markers could also stand in the schema's own descriptions.
static char *make_parameters(const struct redactor *r, const json_t *schema)
{
    struct buf clean = {0};
    char *text = json_is_object(schema) ? json_dumps(schema, JSON_COMPACT | JSON_SORT_KEYS)
                                        : strdup("{\"properties\":{},\"type\":\"object\"}");
    buf_z(&clean, text);
    redact_text(r, &clean);
    tool_text_defuse(&clean);
    free(text);
    char *copy = clean.failed ? NULL : strdup(buf_cstr(&clean));
    buf_free(&clean);
    return copy;
}

static bool is_wanted(const struct mcp_spec *spec, const char *name)
{
    if (spec->tools.n == 0) return true;
    for (size_t i = 0; i < spec->tools.n; i++)
        if (allow_glob(spec->tools.p[i], name)) return true;
    return false;
}

// What the server itself says of its tool. A hint: it decides about tries only, never about what is
// allowed.
static bool is_repeatable(const json_t *tool)
{
    const json_t *hints = json_object_get(tool, "annotations");
    return json_is_true(json_object_get(hints, "readOnlyHint")) ||
           json_is_true(json_object_get(hints, "idempotentHint"));
}

static bool put_tool(struct mcp_server *s, const json_t *v, struct err *e)
{
    const char *name = json_string_value(json_object_get(v, "name"));
    const char *text = json_string_value(json_object_get(v, "description"));
    const struct redactor *r = &s->place->secrets->redactor;
    if (text == NULL) text = json_string_value(json_object_get(v, "title"));
    if (name == NULL || *name == '\0' || !is_wanted(s->spec, name)) return true;
    if (s->n_tools == MAX_TOOLS)
        return err_set(e, ERR_INPUT, "it has more than %d tools; choose some with \"tools\"",
                       MAX_TOOLS);
    struct mcp_tool *list = realloc(s->tools, (s->n_tools + 1) * sizeof *list);
    if (list == NULL) return err_set(e, ERR_MEMORY, "no memory for a tool");
    s->tools = list;
    struct mcp_tool t = {.name = make_name(s->spec->name, name),
                         .remote = strdup(name),
                         .description = make_description(r, text != NULL ? text : ""),
                         .parameters = make_parameters(r, json_object_get(v, "inputSchema")),
                         .repeatable = is_repeatable(v)};
    list[s->n_tools++] = t;
    return (t.name != NULL && t.remote != NULL && t.description != NULL && t.parameters != NULL) ||
           err_set(e, ERR_MEMORY, "no memory for a tool");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct mcp_tool *)a)->name, ((const struct mcp_tool *)b)->name);
}

bool mcp_server_take_list(struct mcp_server *s, json_t *listed, struct err *e)
{
    json_t *one;
    size_t i;
    bool ok = true;
    json_array_foreach(listed, i, one) ok = ok && put_tool(s, one, e);
    if (ok && s->n_tools > 0) qsort(s->tools, s->n_tools, sizeof *s->tools, by_name);
    json_incref(listed);
    json_decref(s->listed);
    s->listed = listed;
    return ok;
}

// All pages in one list; *out is owned by the caller.
static bool ask_list(struct mcp_server *s, uint64_t deadline_ns, const atomic_int *cancel,
                     json_t **out, struct err *e)
{
    json_t *params = NULL, *list = json_array();
    bool ok = list != NULL || err_set(e, ERR_MEMORY, "no memory for a list"), more = true;
    for (int page = 0; ok && more && page < MAX_PAGES; page++) {
        json_t *result = NULL;
        ok = request(s, "tools/list", params, deadline_ns, cancel, &result, e);
        json_t *tools = json_object_get(result, "tools");
        if (ok && json_is_array(tools)) json_array_extend(list, tools);
        const char *cursor = json_string_value(json_object_get(result, "nextCursor"));
        json_decref(params);
        params = cursor != NULL ? json_pack("{s:s}", "cursor", cursor) : NULL;
        more = params != NULL;
        json_decref(result);
    }
    json_decref(params);
    if (ok)
        *out = list;
    else
        json_decref(list);
    return ok;
}

static uint64_t start_limit(uint64_t deadline_ns)
{
    uint64_t latest = clock_ns() + MCP_START_MS * 1000000ull;
    return deadline_ns == 0 || deadline_ns > latest ? latest : deadline_ns;
}

// Servers that fetch themselves first (npx, uvx) fail in a sandbox that nobody opened for them, and
// what they then say seldom names the cause.
static const char *sandbox_hint(const struct mcp_server *s, const struct err *problem)
{
    const struct sandbox_settings *all = s->place->sandbox;
    struct err why = {0};
    bool stopped = problem->code == ERR_TIMEOUT || problem->code == ERR_SHUTDOWN;
    bool wanted = s->spec->command != NULL && !s->spec->no_sandbox && all->mode != SANDBOX_OFF;
    if (!stopped || !wanted || !sandbox_works(s->place->environment, &why)) return "";
    if (!s->spec->network && !all->network)
        return "; its sandbox has no network: \"sandbox\": {\"network\": true, \"write\": "
               "[\"/home/me/.npm\"]} gives it one, and a folder to keep what it fetches";
    return s->spec->write.n > 0 ? ""
                                : "; in its sandbox it can write to nothing but /tmp and what "
                                  "\"sandbox\": {\"write\": [...]} names";
}

// Why it did not get ready: at what, what it said, and what it lacks.
static bool tell_start(struct mcp_server *s, const struct err *problem, struct err *e)
{
    struct buf log = {0};
    bool late = problem->code == ERR_TIMEOUT;
    if (late && s->link != NULL) s->link->take_log(s->link, &log);
    struct str said = tool_text_reason(buf_view(&log), REASON_BYTES);
    err_set(e, problem->code, "MCP server %s: %s%s%s%.*s%s", s->spec->name, problem->msg,
            !late      ? ""
            : s->ready ? " waiting for its list of tools"
                       : " waiting for it to initialize",
            said.n > 0 ? "; it said: " : "", (int)said.n, said.p, sandbox_hint(s, problem));
    buf_free(&log);
    return false;
}

bool mcp_server_ready(struct mcp_server *s, uint64_t deadline_ns, const atomic_int *cancel,
                      struct err *e)
{
    struct err problem = {0};
    json_t *listed = NULL;
    deadline_ns = start_limit(deadline_ns);
    bool ok = initialize(s, deadline_ns, cancel, &problem) &&
              ask_list(s, deadline_ns, cancel, &listed, &problem) &&
              mcp_server_take_list(s, listed, &problem);
    if (ok) mcp_list_save(listed, s->place->lists_dir, s->spec, s->place);
    json_decref(listed);
    return ok || tell_start(s, &problem, e);
}

// ---- calls ----------------------------------------------------------------------------------

// This run goes on with the list that its prompt was made of; the next ones get this.
static void refresh_list(struct mcp_server *s, uint64_t deadline_ns, const atomic_int *cancel)
{
    struct err e = {0};
    json_t *now = NULL;
    if (s->place->lists_dir == NULL) return;
    if (!ask_list(s, deadline_ns, cancel, &now, &e)) {
        log_debug("mcp", "server=%s lists nothing: %s", s->spec->name, e.msg);
        return;
    }
    if (!json_equal(now, s->listed))
        log_info("mcp", "server=%s lists other tools than before; the next run has them",
                 s->spec->name);
    mcp_list_save(now, s->place->lists_dir, s->spec, s->place);
    json_decref(now);
}

static bool start_again(struct mcp_server *s, uint64_t deadline_ns, const atomic_int *cancel,
                        struct err *e)
{
    bool runs = s->link != NULL && s->link->is_alive(s->link);
    if (runs && s->ready) return true;
    bool first = s->link == NULL && s->last_id == 0;
    deadline_ns = start_limit(deadline_ns);
    if (!runs) stop(s);
    log_info("mcp", "server=%s starts%s", s->spec->name, first ? "" : " again");
    if (!runs && !mcp_server_start(s, e)) return false;
    if (!initialize(s, deadline_ns, cancel, e)) return false;
    if (first) refresh_list(s, deadline_ns, cancel);
    return true;
}

// When a call must be over: its own time counts from when the server is there.
static uint64_t call_limit(const struct mcp_server *s, uint64_t run_ns)
{
    uint64_t own_ns = clock_ns() + (uint64_t)s->spec->timeout_s * 1000000000ull;
    return run_ns != 0 && run_ns < own_ns ? run_ns : own_ns;
}

// A session that the server has forgotten did nothing with the call: once more, in a new one.
// run_ns: when the run is over; 0: never.
static bool call_once_or_twice(struct mcp_server *s, const json_t *params, uint64_t run_ns,
                               const atomic_int *cancel, json_t **result, struct err *e)
{
    struct err problem = {0};
    if (!start_again(s, run_ns, cancel, e)) return false;
    if (request(s, "tools/call", params, call_limit(s, run_ns), cancel, result, &problem))
        return true;
    if (problem.code != ERR_NOT_FOUND) return err_set(e, problem.code, "%s", problem.msg);
    stop(s);
    return start_again(s, run_ns, cancel, e) &&
           request(s, "tools/call", params, call_limit(s, run_ns), cancel, result, e);
}

static void tell_result(const struct mcp_place *place, const json_t *result,
                        struct tool_result *out)
{
    struct buf text = {0};
    bool failed = mcp_content_print(result, &text);
    if (failed) buf_z(&out->text, "Error: ");
    if (tool_text_is_binary(buf_view(&text)))
        buf_printf(&out->text, "[%zu bytes that are no text]", text.n);
    else
        tool_text_put(&out->text, buf_view(&text));
    tool_text_trim_end(&out->text);
    redact_text(&place->secrets->redactor, &out->text); // before a cut could hide half of one
    tool_text_cut(&out->text, place->output_bytes);
    if (out->text.n == 0) buf_z(&out->text, "[empty]");
    out->failed = failed;
    out->text.failed |= text.failed;
    buf_free(&text);
}

void mcp_server_call(struct mcp_server *s, const struct mcp_tool *tool, json_t *args,
                     const struct tool_limits *limits, struct tool_result *out)
{
    json_t *result = NULL;
    struct err e = {0};
    double limit_s = s->spec->timeout_s;
    uint64_t run_ns =
        limits->timeout_ms != 0 ? clock_ns() + (uint64_t)limits->timeout_ms * 1000000 : 0;
    if (run_ns != 0 && limits->timeout_ms < limit_s * 1000) limit_s = limits->timeout_ms / 1000.0;
    json_t *params = json_pack("{s:s, s:O}", "name", tool->remote, "arguments", args);
    buf_printf(&out->detail, "%s %s", s->spec->name, tool->remote);
    bool ok = params != NULL || err_set(&e, ERR_MEMORY, "no memory for a call");
    ok = ok && call_once_or_twice(s, params, run_ns, limits->cancel, &result, &e);
    if (ok)
        tell_result(s->place, result, out);
    else if (e.code == ERR_TIMEOUT)
        tool_fail(out, "%s timed out after %g s", tool->name, limit_s);
    else
        tool_fail(out, "%s: %s", tool->name, e.msg);
    if (s->link != NULL) s->link->take_log(s->link, &out->log);
    if (!ok && e.code == ERR_SHUTDOWN) stop(s); // the next call starts it again
    json_decref(params);
    json_decref(result);
}

void mcp_server_close(struct mcp_server *s)
{
    stop(s);
    for (size_t i = 0; i < s->n_tools; i++) drop_tool(&s->tools[i]);
    free(s->tools);
    json_decref(s->listed);
    *s = (struct mcp_server){0};
}
