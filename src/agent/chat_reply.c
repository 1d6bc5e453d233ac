// Lenient where servers differ (content as string or parts, three names of reasoning, calls without
// an index), strict about bounds: what a chunk may make us allocate is what it brought.
#include "agent/chat_reply.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static struct str text_of(const json_t *v)
{
    if (!json_is_string(v)) return (struct str){"", 0};
    return (struct str){json_string_value(v), json_string_length(v)};
}

// A count from 0 to 2^53; anything else is 0.
static uint64_t count_of(const json_t *v)
{
    double d = json_number_value(v);
    return d >= 0 && d < 9e15 ? (uint64_t)d : 0;
}

// ---- errors ---------------------------------------------------------------------------------

static enum err_code code_of_status(long status)
{
    switch (status) {
    case 400: return ERR_INPUT;
    case 401: return ERR_AUTH;
    case 403: return ERR_DENIED;
    case 404: return ERR_NOT_FOUND;
    case 408:
    case 504: return ERR_TIMEOUT;
    case 413: return ERR_TOO_LARGE;
    case 429: return ERR_FULL;
    case 503: return ERR_LOADING;
    default: return ERR_INTERNAL;
    }
}

static enum err_code code_of_error(const json_t *error, long status)
{
    struct str type = text_of(json_object_get(error, "type"));
    for (int code = 1; code < ERR_COUNT; code++)
        if (str_eq(type, str_from(err_name((enum err_code)code)))) return (enum err_code)code;
    json_t *number = json_object_get(error, "code");
    if (status < 400 && json_is_integer(number)) status = (long)json_integer_value(number);
    return code_of_status(status);
}

static void set_error(const json_t *error, long status, struct err *e)
{
    struct str words =
        json_is_string(error) ? text_of(error) : text_of(json_object_get(error, "message"));
    enum err_code code = code_of_error(error, status);
    if (words.n == 0) words = STR("an error without a message");
    err_set(e, code, "the server says: %.*s", (int)(words.n < 400 ? words.n : 400), words.p);
}

void chat_error_from(long status, struct str body, struct err *e)
{
    json_t *root = json_loadb(body.p, body.n, JSON_ALLOW_NUL, NULL);
    json_t *error = json_object_get(root, "error");
    body = str_trim(body);
    if (error != NULL)
        set_error(error, status, e);
    else if (body.n == 0)
        err_set(e, code_of_status(status), "the server answered with status %ld", status);
    else
        err_set(e, code_of_status(status), "the server answered with status %ld: %.*s", status,
                (int)(body.n < 200 ? body.n : 200), body.p);
    json_decref(root);
}

// ---- pieces ---------------------------------------------------------------------------------

static bool put_text(struct buf *out, const json_t *v)
{
    size_t before = out->n, i;
    json_t *part;
    buf_str(out, text_of(v));
    if (json_is_array(v))
        json_array_foreach((json_t *)(uintptr_t)v, i, part)
            buf_str(out, text_of(json_object_get(part, "text")));
    return out->n > before;
}

// Where a delta's piece belongs: by index; without one, a new id opens a new call.
static bool find_call(struct chat_reply *r, const json_t *piece, size_t *out, struct err *e)
{
    json_t *index = json_object_get(piece, "index");
    struct str id = text_of(json_object_get(piece, "id"));
    size_t at = r->n_calls > 0 ? r->n_calls - 1 : 0;
    if (json_is_integer(index)) {
        json_int_t i = json_integer_value(index);
        if (i < 0 || i >= CHAT_CALLS_MAX)
            return err_set(e, ERR_INTERNAL, "the server sent tool call %lld; there may be %d",
                           (long long)i, CHAT_CALLS_MAX);
        at = (size_t)i;
    } else if (r->n_calls > 0 && id.n > 0 && r->calls[at].id.n > 0 &&
               !str_eq(id, buf_view(&r->calls[at].id))) {
        at++;
    }
    if (at >= CHAT_CALLS_MAX)
        return err_set(e, ERR_INTERNAL, "the server sent more than %d tool calls", CHAT_CALLS_MAX);
    if (at >= r->n_calls) {
        struct chat_call *p = realloc(r->calls, (at + 1) * sizeof *p);
        if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for a tool call");
        memset(p + r->n_calls, 0, (at + 1 - r->n_calls) * sizeof *p);
        r->calls = p;
        r->n_calls = at + 1;
    }
    *out = at;
    return true;
}

static bool put_call(struct chat_reply *r, const json_t *piece, struct err *e)
{
    size_t at = 0;
    if (!json_is_object(piece) || !find_call(r, piece, &at, e))
        return err_set(e, ERR_INTERNAL, "the server sent a tool call that is no object");
    struct chat_call *call = &r->calls[at];
    json_t *function = json_object_get(piece, "function");
    json_t *arguments = json_object_get(function, "arguments");
    if (call->id.n == 0) put_text(&call->id, json_object_get(piece, "id"));
    if (call->name.n == 0) put_text(&call->name, json_object_get(function, "name"));
    if (json_is_object(arguments)) { // some servers send them parsed
        char *text = json_dumps(arguments, JSON_COMPACT);
        if (text == NULL) return err_set(e, ERR_MEMORY, "no memory for a tool call");
        buf_z(&call->arguments, text);
        free(text);
    } else {
        put_text(&call->arguments, arguments);
    }
    return true;
}

static bool put_delta(struct chat_reply *r, const json_t *delta, struct err *e)
{
    static const char *const reasoning_names[] = {"reasoning_content", "reasoning",
                                                  "reasoning_text"};
    json_t *calls = json_object_get(delta, "tool_calls"), *piece;
    bool any = put_text(&r->content, json_object_get(delta, "content"));
    size_t i;
    for (i = 0; i < 3; i++) {
        if (!put_text(&r->reasoning, json_object_get(delta, reasoning_names[i]))) continue;
        any = true;
        break;
    }
    json_array_foreach(calls, i, piece)
    {
        if (!put_call(r, piece, e)) return false;
        any = true;
    }
    r->n_deltas += any;
    return true;
}

static void put_usage(struct chat_usage *u, const json_t *v)
{
    if (!json_is_object(v)) return;
    json_t *details = json_object_get(v, "prompt_tokens_details");
    u->known = true;
    u->prompt_tokens = count_of(json_object_get(v, "prompt_tokens"));
    u->completion_tokens = count_of(json_object_get(v, "completion_tokens"));
    u->cached_tokens = count_of(json_object_get(details, "cached_tokens"));
}

static void put_progress(struct chat_progress *p, const json_t *v)
{
    if (!json_is_object(v)) return;
    json_t *cached = json_object_get(v, "cached"), *eta = json_object_get(v, "eta_ms");
    p->known = true;
    p->total = count_of(json_object_get(v, "total"));
    p->cached = count_of(cached != NULL ? cached : json_object_get(v, "cache"));
    p->processed = count_of(json_object_get(v, "processed"));
    p->queue_position = count_of(json_object_get(v, "queue_position"));
    p->time_ms = json_number_value(json_object_get(v, "time_ms"));
    p->eta_ms = json_is_number(eta) ? json_number_value(eta) : -1;
}

static bool put_chunk(struct chat_reply *r, const json_t *root, struct err *e)
{
    json_t *error = json_object_get(root, "error");
    json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    json_t *delta = json_object_get(choice, "delta");
    json_t *finish = json_object_get(choice, "finish_reason");
    if (!json_is_object(root))
        return err_set(e, ERR_INTERNAL, "the server sent a chunk that is no JSON object");
    if (error != NULL && !json_is_null(error)) {
        set_error(error, 500, e);
        return false;
    }
    if (delta == NULL) delta = json_object_get(choice, "message");
    if (!put_delta(r, delta, e)) return false;
    if (json_is_string(finish)) {
        buf_clear(&r->finish);
        buf_str(&r->finish, text_of(finish));
    }
    put_usage(&r->usage, json_object_get(root, "usage"));
    put_progress(&r->progress, json_object_get(root, "prompt_progress"));
    json_t *tps = json_object_get(json_object_get(root, "timings"), "predicted_per_second");
    if (json_is_number(tps)) r->server_tps = json_number_value(tps);
    return true;
}

static bool out_of_memory(const struct chat_reply *r)
{
    bool failed = r->content.failed || r->reasoning.failed || r->finish.failed;
    for (size_t i = 0; i < r->n_calls; i++)
        failed = failed || r->calls[i].id.failed || r->calls[i].name.failed ||
                 r->calls[i].arguments.failed;
    return failed;
}

bool chat_reply_chunk(struct chat_reply *r, struct str json, struct err *e)
{
    json_error_t where;
    json = str_trim(json);
    if (str_eq(json, STR("[DONE]"))) {
        r->done = true;
        return true;
    }
    json_t *root = json_loadb(json.p, json.n, JSON_ALLOW_NUL, &where);
    if (root == NULL)
        return err_set(e, ERR_INTERNAL, "the server sent a chunk that is no JSON (%.100s): %.*s",
                       where.text, (int)(json.n < 100 ? json.n : 100), json.p);
    bool ok = put_chunk(r, root, e);
    json_decref(root);
    if (ok && out_of_memory(r)) ok = err_set(e, ERR_MEMORY, "no memory for the answer");
    return ok;
}

void chat_reply_free(struct chat_reply *r)
{
    for (size_t i = 0; i < r->n_calls; i++) {
        buf_free(&r->calls[i].id);
        buf_free(&r->calls[i].name);
        buf_free(&r->calls[i].arguments);
    }
    free(r->calls);
    buf_free(&r->content);
    buf_free(&r->reasoning);
    buf_free(&r->finish);
    *r = (struct chat_reply){0};
}
