// Streamable HTTP: each message is a POST, whose answer is 202, one JSON text, or a stream of
// events that ends with the response. Replies to the server's own requests go out between two
// looks at the stream, over a second connection.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/http_client.h"
#include "agent/mcp_transport.h"
#include "agent/sse_reader.h"
#include "base/clock.h"

enum { MAX_BODY_BYTES = 16 << 20, CLOSE_MS = 1000, MAX_REPLIES = 16, MAX_SESSION_BYTES = 500 };

struct http {
    struct mcp_transport base;
    struct http_client *client, *second; // second: for replies and the end
    char *path;
    struct words headers;                              // of every request, besides ours
    const char **list;                                 // [headers.n + 4], of one call
    char session[MAX_SESSION_BYTES + 20], version[60]; // "Name: value", "" when not known
    struct buf replies[MAX_REPLIES];
    size_t n_replies;
};

// One exchange.
struct flight {
    struct http *h;
    const struct mcp_exchange *x;
    struct sse_reader sse;
    struct buf body;
    bool is_sse, done;
};

// ---- requests -------------------------------------------------------------------------------

// The headers of the next call, in h->list.
static void list_headers(struct http *h)
{
    size_t n = 0;
    h->list[n++] = "Accept: application/json, text/event-stream";
    for (size_t i = 0; i < h->headers.n; i++) h->list[n++] = h->headers.p[i];
    if (h->session[0] != '\0') h->list[n++] = h->session;
    if (h->version[0] != '\0') h->list[n++] = h->version;
    h->list[n] = NULL;
}

static void on_head(void *arg, struct str line)
{
    static const char name[] = "Mcp-Session-Id:";
    struct flight *f = arg;
    size_t n = sizeof name - 1;
    if (line.n > n && strncasecmp(line.p, name, n) == 0 && line.n - n < MAX_SESSION_BYTES) {
        struct str id = str_trim(str_sub(line, n, line.n));
        snprintf(f->h->session, sizeof f->h->session, "Mcp-Session-Id: %.*s", (int)id.n, id.p);
    }
    if (line.n > 13 && strncasecmp(line.p, "Content-Type:", 13) == 0) {
        struct str type = str_trim(str_sub(line, 13, line.n));
        f->is_sse = type.n >= 17 && strncasecmp(type.p, "text/event-stream", 17) == 0;
    }
}

static bool on_event(void *arg, struct str data)
{
    struct flight *f = arg;
    if (str_trim(data).n > 0 && !f->x->sink(f->x->sink_arg, data)) f->done = true;
    return !f->done;
}

static bool on_data(void *arg, struct str piece)
{
    struct flight *f = arg;
    if (f->is_sse) return sse_feed(&f->sse, piece, on_event, f);
    buf_str(&f->body, piece);
    return f->body.n <= MAX_BODY_BYTES;
}

static void send_aside(struct http *h, const char *method, struct str message, uint64_t deadline_ns)
{
    struct http_answer answer;
    list_headers(h);
    struct http_call call = {.path = h->path,
                             .body = message,
                             .method = method,
                             .headers = h->list,
                             .deadline_ns = deadline_ns};
    http_client_call(h->second, &call, &answer);
    http_answer_free(&answer);
}

static bool on_tick(void *arg)
{
    struct flight *f = arg;
    struct http *h = f->h;
    for (size_t i = 0; i < h->n_replies; i++) {
        send_aside(h, NULL, buf_view(&h->replies[i]), f->x->deadline_ns);
        buf_free(&h->replies[i]);
    }
    h->n_replies = 0;
    return true;
}

// ---- answers --------------------------------------------------------------------------------

static bool has_word(struct str text, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= text.n; i++)
        if (strncasecmp(text.p + i, word, n) == 0) return true;
    return false;
}

static bool tell(const struct http_answer *a, bool has_session, struct err *e)
{
    static const enum err_code codes[] = {[HTTP_OK] = ERR_IO,
                                          [HTTP_NO_CONNECTION] = ERR_SHUTDOWN,
                                          [HTTP_HANG_UP] = ERR_SHUTDOWN,
                                          [HTTP_DEADLINE] = ERR_TIMEOUT,
                                          [HTTP_CANCELLED] = ERR_CANCELLED,
                                          [HTTP_BROKEN] = ERR_IO};
    struct str body = str_trim(buf_view(&a->body));
    if (a->fail == HTTP_DEADLINE) return err_set(e, ERR_TIMEOUT, "timed out");
    if (a->fail == HTTP_CANCELLED) return err_set(e, ERR_CANCELLED, "cancelled");
    if (a->fail != HTTP_OK) return err_set(e, codes[a->fail], "%.300s", a->why);
    if (a->status == 401 || a->status == 403)
        return err_set(e, ERR_AUTH, "HTTP status %ld: its \"headers\" must carry what it asks for",
                       a->status);
    // Servers that forgot a session should say 404; some say 400 and why.
    if (a->status == 404 || (a->status == 400 && has_session && has_word(body, "session")))
        return err_set(e, ERR_NOT_FOUND, "HTTP status %ld: no such session or path", a->status);
    return err_set(e, ERR_IO, "HTTP status %ld%s%.*s", a->status, body.n > 0 ? ": " : "",
                   (int)(body.n < 200 ? body.n : 200), body.n > 0 ? body.p : "");
}

static bool finish(struct flight *f, const struct http_answer *a, bool ok, struct err *e)
{
    if (f->done) return true;
    if (!ok || a->status < 200 || a->status > 299) return tell(a, f->h->session[0] != '\0', e);
    if (f->sse.too_long || f->body.n > MAX_BODY_BYTES)
        return err_set(e, ERR_IO, "a message of the server is longer than %d bytes",
                       MAX_BODY_BYTES);
    if (!f->x->wants_answer) return true;
    struct str body = str_trim(buf_view(&f->body));
    if (body.n > 0 && !f->x->sink(f->x->sink_arg, body)) return true;
    return err_set(e, ERR_IO, "the server's answer ended without a response");
}

static bool exchange(struct mcp_transport *t, const struct mcp_exchange *x, struct err *e)
{
    struct http *h = (struct http *)t;
    struct flight f = {.h = h, .x = x};
    struct http_answer answer;
    list_headers(h);
    struct http_call call = {.path = h->path,
                             .body = x->message,
                             .deadline_ns = x->deadline_ns,
                             .cancel = x->cancel,
                             .headers = h->list,
                             .on_head = on_head,
                             .on_data = on_data,
                             .on_tick = on_tick,
                             .arg = &f};
    bool ok = http_client_call(h->client, &call, &answer);
    ok = finish(&f, &answer, ok, e);
    on_tick(&f);
    http_answer_free(&answer);
    sse_free(&f.sse);
    buf_free(&f.body);
    return ok;
}

static void reply(struct mcp_transport *t, struct str message)
{
    struct http *h = (struct http *)t;
    if (h->n_replies == MAX_REPLIES) return; // a server that floods us waits in vain
    h->replies[h->n_replies] = (struct buf){0};
    buf_str(&h->replies[h->n_replies++], message);
}

static bool is_alive(struct mcp_transport *t)
{
    (void)t;
    return true;
}

static void agreed(struct mcp_transport *t, const char *version)
{
    struct http *h = (struct http *)t;
    snprintf(h->version, sizeof h->version, "MCP-Protocol-Version: %.30s", version);
}

static void take_log(struct mcp_transport *t, struct buf *out)
{
    (void)t;
    (void)out;
}

// A session is given back, so that the server need not wait for it to time out.
static void close_http(struct mcp_transport *t)
{
    struct http *h = (struct http *)t;
    if (h->session[0] != '\0')
        send_aside(h, "DELETE", (struct str){"", 0}, clock_ns() + CLOSE_MS * 1000000ull);
    for (size_t i = 0; i < h->n_replies; i++) buf_free(&h->replies[i]);
    for (size_t i = 0; i < h->headers.n; i++)
        explicit_bzero(h->headers.p[i], strlen(h->headers.p[i]));
    words_free(&h->headers);
    http_client_close(h->client);
    http_client_close(h->second);
    free(h->list);
    free(h->path);
    free(h);
}

// ---- opening --------------------------------------------------------------------------------

// "https://host:1/mcp?x" -> "https://host:1" and "/mcp?x".
static bool open_clients(struct http *h, const char *url, struct err *e)
{
    const char *host = strstr(url, "://");
    const char *path = host != NULL ? strchr(host + 3, '/') : NULL;
    struct buf base = {0};
    buf_put(&base, url, path != NULL ? (size_t)(path - url) : strlen(url));
    h->path = strdup(path != NULL ? path : "/");
    bool ok = h->path != NULL || err_set(e, ERR_MEMORY, "no memory for an MCP server");
    ok = ok && http_client_open(&h->client, buf_cstr(&base), NULL, e) &&
         http_client_open(&h->second, buf_cstr(&base), NULL, e);
    buf_free(&base);
    return ok;
}

bool mcp_http_open(struct mcp_transport **out, const struct mcp_spec *spec,
                   const struct mcp_place *place, struct err *e)
{
    struct http *h = calloc(1, sizeof *h);
    struct buf url = {0};
    if (h == NULL) return err_set(e, ERR_MEMORY, "no memory for an MCP server");
    h->base = (struct mcp_transport){exchange, reply, is_alive, agreed, take_log, close_http};
    bool ok = secrets_expand(place->secrets, str_from(spec->url), place->environment, &url, e) &&
              open_clients(h, buf_cstr(&url), e);
    for (size_t i = 0; ok && i < spec->headers.n; i++) {
        struct buf line = {0};
        ok = secrets_expand(place->secrets, str_from(spec->headers.p[i]), place->environment, &line,
                            e) &&
             words_put(&h->headers, buf_view(&line), e);
        buf_free(&line);
    }
    buf_free(&url);
    h->list = calloc(h->headers.n + 4, sizeof *h->list);
    if (ok && h->list == NULL) ok = err_set(e, ERR_MEMORY, "no memory for an MCP server");
    if (ok)
        *out = &h->base;
    else
        close_http(&h->base);
    return ok;
}
