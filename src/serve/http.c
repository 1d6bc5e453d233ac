// One thread per connection: it reads the request, runs the route and writes the answer, blocking
// as it likes. A request that is refused by its headers is answered only after its body was read
// and dropped, because closing a socket with unread data would destroy the answer on its way; a
// client that asks first (Expect: 100-continue) hears it at once.
#include "serve/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/guard.h"
#include "serve/openai_response.h"
#include "serve/reply.h"
#include "serve/routes.h"

enum {
    URI_BYTES_MAX = 8 << 10,
    HEADER_BYTES_MAX = 32 << 10, // request line and headers
    // What the library has for them and for a record of each. Where even this is not enough it answers
    // in HTML of its own, hence the distance to our limits. Also the piece in which a body arrives.
    CONNECTION_BYTES = 128 << 10,
    STREAM_BLOCK = 16 << 10,
    STACK_BYTES = 2 << 20, // templates and JSON recurse, bounded
    ARENA_FACTOR = 64, // "1," is a value of 16 bytes in a doubling list; then the template's work
    ARENA_SPARE = 32 << 20,
    BODIES_AT_ONCE = 16, // so many of the largest bodies may be in memory
};

// ---- answers -----------------------------------------------------------------------------------

static void add_header(struct MHD_Response *r, const char *name, const char *value)
{
    MHD_add_response_header(r, name, value);
}

static void add_common_headers(const struct exchange *x, struct MHD_Response *r)
{
    add_header(r, "Server", "submind/" SUBMIND_VERSION);
    add_header(r, "X-Content-Type-Options", "nosniff");
    if (x->id[0] != '\0') add_header(r, "X-Request-Id", x->id);
    if (x->last || atomic_load_explicit(&x->sv->draining, memory_order_relaxed))
        add_header(r, "Connection", "close");
    if (x->sv->s.cors_origin == NULL) return;
    add_header(r, "Access-Control-Allow-Origin", x->sv->s.cors_origin);
    add_header(r, "Vary", "Origin");
    if (x->route == NULL || strcmp(x->route->method, "OPTIONS") != 0) return;
    add_header(r, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    add_header(r, "Access-Control-Allow-Headers",
               "Authorization, Content-Type, X-Api-Key, X-Submind-Explain, X-Submind-Ahead");
    add_header(r, "Access-Control-Max-Age", "600");
}

static bool queue(struct exchange *x, int status, struct MHD_Response *r)
{
    if (r == NULL) return false;
    add_common_headers(x, r);
    x->status = status;
    connection_set(x->connection, WAIT_CLIENT);
    bool ok = MHD_queue_response(x->http, (unsigned)status, r) == MHD_YES;
    MHD_destroy_response(r);
    return ok;
}

static struct MHD_Response *whole_response(struct buf *body)
{
    struct MHD_Response *r;
    if (body->n == 0)
        r = MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);
    else
        r = MHD_create_response_from_buffer(body->n, body->p, MHD_RESPMEM_MUST_FREE);
    if (r == NULL || body->n == 0)
        buf_free(body);
    else
        *body = (struct buf){0};
    return r;
}

bool exchange_send(struct exchange *x, int status, const char *content_type, struct buf *body)
{
    if (body->failed) {
        buf_free(body);
        return false;
    }
    struct MHD_Response *r = whole_response(body);
    if (r == NULL) return false;
    if (content_type != NULL) add_header(r, "Content-Type", content_type);
    if (x->allow[0] != '\0') add_header(r, "Allow", x->allow);
    return queue(x, status, r);
}

bool exchange_send_json(struct exchange *x, struct buf *body)
{
    return exchange_send(x, 200, "application/json", body);
}

bool exchange_send_error(struct exchange *x, const struct err *e)
{
    struct buf b = {0};
    int status = err_http_status(e->code);
    const struct engine *en = server_state(x->sv) == SERVER_READY ? x->sv->engine : NULL;
    response_error(&b, e, x->n_prompt, en != NULL ? engine_info(en)->n_ctx : 0);
    if (b.failed) {
        buf_free(&b);
        return false;
    }
    struct MHD_Response *r = whole_response(&b);
    if (r == NULL) return false;
    add_header(r, "Content-Type", "application/json");
    if (x->allow[0] != '\0') add_header(r, "Allow", x->allow);
    if (e->code == ERR_AUTH) add_header(r, "WWW-Authenticate", "Bearer");
    if (e->retry_after_ms > 0) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", e->retry_after_ms / 1000 + 1);
        add_header(r, "Retry-After", seconds);
    }
    if (status >= 500)
        log_warn("serve", "request %s: %s", x->id, e->msg);
    else
        log_debug("serve", "request %s: %s", x->id, e->msg);
    return queue(x, status, r);
}

static ssize_t read_stream(void *cls, uint64_t pos, char *out, size_t max)
{
    (void)pos;
    ssize_t n = reply_read(cls, out, max);
    if (n == REPLY_END) return MHD_CONTENT_READER_END_OF_STREAM;
    return n == REPLY_GONE ? MHD_CONTENT_READER_END_WITH_ERROR : n;
}

bool exchange_send_stream(struct exchange *x)
{
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK,
                                                               read_stream, x->reply, NULL);
    if (r == NULL) return false;
    add_header(r, "Content-Type", "text/event-stream; charset=utf-8");
    add_header(r, "Cache-Control", "no-cache");
    add_header(r, "X-Accel-Buffering", "no"); // proxies must not hold chunks back
    return queue(x, 200, r);
}

static int client_fd(struct MHD_Connection *http)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(http, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info == NULL ? -1 : info->connect_fd;
}

enum exchange_wake exchange_wait(struct exchange *x, int fd, int ms)
{
    struct pollfd p[] = {
        {.fd = fd, .events = POLLIN},
        {.fd = client_fd(x->http), .events = POLLRDHUP},
        {.fd = x->sv->stop.fd, .events = POLLIN},
    };
    int n;
    do {
        n = poll(p, 3, ms);
    } while (n < 0 && errno == EINTR);
    if (n == 0) return WAKE_TIME;
    if (p[1].revents != 0) return WAKE_GONE;
    if (p[2].revents != 0) return WAKE_CLOSING;
    return WAKE_EVENT;
}

// ---- requests ----------------------------------------------------------------------------------

static struct str header(struct exchange *x, const char *name)
{
    return str_from(MHD_lookup_connection_value(x->http, MHD_HEADER_KIND, name));
}

static enum MHD_Result add_length(void *cls, enum MHD_ValueKind kind, const char *name,
                                  const char *value)
{
    (void)kind;
    size_t *n = cls;
    *n += strlen(name) + (value == NULL ? 0 : 1 + strlen(value));
    return MHD_YES;
}

static bool check_size(struct exchange *x, const char *path)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->http, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    size_t uri_bytes = strlen(path);
    MHD_get_connection_values(x->http, MHD_GET_ARGUMENT_KIND, add_length, &uri_bytes);
    if (uri_bytes > URI_BYTES_MAX)
        return err_set(&x->refused, ERR_URI_TOO_LONG,
                       "the request's address has %zu bytes, above the limit of %d", uri_bytes,
                       URI_BYTES_MAX);
    if (info == NULL || info->header_size <= HEADER_BYTES_MAX) return true;
    return err_set(&x->refused, ERR_HEADERS_TOO_LARGE,
                   "the request's headers have %zu bytes, above the limit of %d", info->header_size,
                   HEADER_BYTES_MAX);
}

struct occurrences {
    const char *name;
    unsigned n;
};

static enum MHD_Result count_name(void *cls, enum MHD_ValueKind kind, const char *name,
                                  const char *value)
{
    (void)kind, (void)value;
    struct occurrences *o = cls;
    if (strcasecmp(name, o->name) == 0) o->n++;
    return MHD_YES;
}

static unsigned count_headers(struct exchange *x, const char *name)
{
    struct occurrences o = {.name = name};
    MHD_get_connection_values(x->http, MHD_HEADER_KIND, count_name, &o);
    return o.n;
}

// RFC 9112: of two, whoever stands between may have read the other one.
static bool check_framing(struct exchange *x, const char *version)
{
    const unsigned n_hosts = count_headers(x, "Host");
    if (n_hosts == 0 && strcmp(version, MHD_HTTP_VERSION_1_0) != 0)
        return err_set(&x->refused, ERR_INPUT, "an HTTP/1.1 request must have a Host header");
    if (n_hosts > 1)
        return err_set(&x->refused, ERR_INPUT, "the header Host came %u times", n_hosts);
    const unsigned n_lengths = count_headers(x, "Content-Length");
    const bool chunked = header(x, "Transfer-Encoding").n > 0;
    if (n_lengths + chunked <= 1) return true;
    x->last = true;
    return err_set(&x->refused, ERR_INPUT,
                   "the length of the body is given more than once (Content-Length, "
                   "Transfer-Encoding)");
}

static bool check_host(struct exchange *x)
{
    const struct server *sv = x->sv;
    if (!sv->listener.loopback || sv->listener.is_unix) return true;
    struct str host = header(x, "Host");
    if (host.n == 0 || guard_host_ok(host, str_from(sv->s.allow_host))) return true;
    return err_set(&x->refused, ERR_DENIED,
                   "host \"%.*s\" is not served on a loopback address; call it localhost, or start "
                   "the server with --allow-host",
                   (int)(host.n < 80 ? host.n : 80), host.p);
}

static bool check_key(struct exchange *x)
{
    const struct serve_settings *s = &x->sv->s;
    if (s->n_keys == 0 || x->route->public) return true;
    struct str key = guard_bearer(header(x, "Authorization"));
    if (key.n == 0) key = header(x, "X-Api-Key");
    if (guard_key_ok(s->keys, s->n_keys, key)) return true;
    return err_set(&x->refused, ERR_AUTH, "%s API key; send \"Authorization: Bearer KEY\"",
                   key.n == 0 ? "missing" : "invalid");
}

static bool is_local(const struct exchange *x)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->http, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (x->sv->listener.is_unix || x->sv->listener.loopback) return true;
    return info != NULL && info->client_addr != NULL && guard_address_local(info->client_addr);
}

// Other people's prompts show through the cache: only this machine and holders of a key may look.
static bool check_private(struct exchange *x)
{
    if (!x->route->private || x->sv->s.n_keys > 0) return true;
    const struct str host = header(x, "Host"); // a page in this machine's browser, by another name?
    const bool by_name = host.n > 0 && !x->sv->listener.is_unix &&
                         !guard_host_ok(host, str_from(x->sv->s.allow_host));
    if (is_local(x) && !by_name) return true;
    return err_set(&x->refused, ERR_DENIED,
                   "%s answers the server's own machine only (at 127.0.0.1 or localhost), as long "
                   "as the server has no --api-key-file",
                   x->route->path);
}

struct str exchange_query(struct exchange *x, const char *name)
{
    return str_from(MHD_lookup_connection_value(x->http, MHD_GET_ARGUMENT_KIND, name));
}

// All bodies together are bounded, whatever number of connections sends them.
static bool take_room(struct exchange *x, size_t n)
{
    struct server *sv = x->sv;
    size_t before = atomic_fetch_add_explicit(&sv->body_bytes, n, memory_order_relaxed);
    x->room_bytes += n;
    if (before + n <= sv->s.max_body_bytes * BODIES_AT_ONCE) {
        buf_reserve(&x->body, n);
        return true;
    }
    err_set(&x->refused, ERR_FULL, "too many large requests at once; try again");
    x->refused.retry_after_ms = 1000;
    return false;
}

// Web pages can send other types across origins without asking, hence the insistence.
static bool check_body_headers(struct exchange *x)
{
    if (strcmp(x->route->method, "POST") != 0) return true;
    if (!guard_is_json(header(x, "Content-Type")))
        return err_set(&x->refused, ERR_MEDIA_TYPE,
                       "the body must be JSON: send \"Content-Type: application/json\"");
    struct str length = header(x, "Content-Length");
    if (length.n == 0) return true;
    unsigned long long n = strtoull(length.p, NULL, 10);
    if (n > x->sv->s.max_body_bytes)
        return err_set(&x->refused, ERR_TOO_LARGE,
                       "the body has %llu bytes, above the limit of %zu (--max-body)", n,
                       x->sv->s.max_body_bytes);
    return take_room(x, (size_t)n);
}

static void check_headers(struct exchange *x, const char *method, const char *path,
                          const char *version)
{
    if (!check_size(x, path) || !check_framing(x, version) || !check_host(x)) return;
    x->path = path;
    x->route = route_find(method, path, x->allow, &x->refused);
    if (x->route == NULL || !check_key(x) || !check_private(x)) return;
    x->explain = str_eq(str_trim(header(x, "X-Submind-Explain")), STR("1"));
    x->no_ahead = str_eq(str_trim(header(x, "X-Submind-Ahead")), STR("0"));
    if (x->route->needs_engine && !server_check_ready(x->sv, &x->refused)) return;
    check_body_headers(x);
}

static enum MHD_Result begin(struct server *sv, struct MHD_Connection *http, const char *method,
                             const char *path, const char *version, void **slot)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(http, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    if (info != NULL && connection_ended(info->socket_context)) return MHD_NO;
    struct exchange *x = calloc(1, sizeof *x);
    if (x == NULL) return MHD_NO;
    *slot = x;
    x->sv = sv;
    x->http = http;
    x->connection = info == NULL ? NULL : info->socket_context;
    x->start_ns = x->body_ns = clock_ns();
    char hex[25];
    atomic_fetch_add_explicit(&sv->active, 1, memory_order_relaxed);
    uint64_t number = atomic_fetch_add_explicit(&sv->next_id, 1, memory_order_relaxed);
    snprintf(x->id, sizeof x->id, "%llu", (unsigned long long)number);
    exchange_hex_id(x, 0, hex);
    snprintf(x->id, sizeof x->id, "req-%s", hex);
    connection_set(x->connection, WAIT_BODY);
    check_headers(x, method, path, version);
    bool asks_first = header(x, "Expect").n > 0;
    if (x->refused.code != ERR_NONE && asks_first)
        return exchange_send_error(x, &x->refused) ? MHD_YES : MHD_NO;
    return MHD_YES;
}

static void take_body(struct exchange *x, const char *p, size_t n)
{
    x->body_ns = clock_ns();
    if (x->refused.code != ERR_NONE) return;
    if (n <= x->sv->s.max_body_bytes - x->body.n) {
        size_t used = x->body.n + n;
        if (used > x->room_bytes && !take_room(x, used - x->room_bytes)) return; // no length given
        buf_put(&x->body, p, n);
        return;
    }
    err_set(&x->refused, ERR_TOO_LARGE, "the body has more than %zu bytes (--max-body)",
            x->sv->s.max_body_bytes);
    buf_free(&x->body);
}

static enum MHD_Result answer(struct exchange *x)
{
    bool ok;
    connection_set(x->connection, WAIT_ENGINE);
    if (x->body.failed) err_set(&x->refused, ERR_MEMORY, "no memory for the body");
    x->arena.limit_bytes = x->body.n * ARENA_FACTOR + ARENA_SPARE;
    if (x->refused.code != ERR_NONE)
        ok = exchange_send_error(x, &x->refused);
    else
        ok = x->route->handle(x);
    return ok ? MHD_YES : MHD_NO;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *http, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **slot)
{
    struct exchange *x = *slot;
    if (x == NULL) return begin(cls, http, method, path, version, slot);
    if (*upload_bytes == 0) return answer(x);
    take_body(x, upload, *upload_bytes);
    *upload_bytes = 0;
    return MHD_YES;
}

// One line per request; never its text.
static void log_request(const struct exchange *x, bool complete)
{
    static const char *const done[DONE_COUNT] = {"stop", "length", "tool_calls", "abort", "error"};
    const char *path = x->route != NULL ? x->route->path : "-";
    int status = x->status == 0 ? 499 : x->status; // 499: the client left before an answer
    double total_ms = clock_ms_since(x->start_ns);
    if (x->has_done)
        log_info(
            "serve",
            "request id=%s path=%s status=%d prompt=%u cached=%u generated=%u queue_in_ms=%.1f "
            "ttft_ms=%.1f total_ms=%.1f finish=%s cache=\"%s\" diverged_at=%u ram=%u disk=%u "
            "restored_ms=%.1f",
            x->id, path, status, x->n_prompt, x->n_cached, x->n_generated, x->queue_in_ms,
            x->ttft_ms, total_ms, done[x->done], engine_cache_reason(x->cache.reason),
            x->cache.diverged_at, x->cache.n_ram, x->cache.n_disk, x->cache.restored_ms);
    else
        log_line(x->route != NULL && x->route->probe ? LOG_DEBUG : LOG_INFO, "serve",
                 "request id=%s path=%s status=%d total_ms=%.1f finish=%s", x->id, path, status,
                 total_ms, complete ? "done" : "abort");
    if (x->has_done)
        log_debug("serve",
                  "request id=%s parse_ms=%.2f render_ms=%.2f tokenize_ms=%.2f body_kb=%zu "
                  "arena_kb=%zu",
                  x->id, x->parse_ms, x->render_ms, x->tokenize_ms, x->body.n >> 10,
                  x->arena.used_bytes >> 10);
}

static void on_completed(void *cls, struct MHD_Connection *http, void **slot,
                         enum MHD_RequestTerminationCode code)
{
    (void)http;
    struct server *sv = cls;
    struct exchange *x = *slot;
    if (x == NULL) return;
    reply_close(x->reply);
    if (x->has_done) atomic_fetch_add_explicit(&sv->done[x->done], 1, memory_order_relaxed);
    log_request(x, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    connection_set(x->connection, WAIT_REQUEST);
    buf_free(&x->body);
    arena_free(&x->arena);
    atomic_fetch_sub_explicit(&sv->body_bytes, x->room_bytes, memory_order_relaxed);
    atomic_store_explicit(&sv->last_ns, clock_ns(), memory_order_relaxed);
    atomic_fetch_sub_explicit(&sv->active, 1, memory_order_relaxed);
    free(x);
    *slot = NULL;
}

static void on_connection(void *cls, struct MHD_Connection *http, void **slot,
                          enum MHD_ConnectionNotificationCode code)
{
    struct server *sv = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *slot = connections_add(&sv->connections, client_fd(http));
    } else {
        connections_remove(&sv->connections, *slot);
        *slot = NULL;
    }
}

static void on_log(void *cls, const char *fmt, va_list ap)
{
    (void)cls;
    char line[300];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" // the library's own format
    vsnprintf(line, sizeof line, fmt, ap);
#pragma GCC diagnostic pop
    line[strcspn(line, "\r\n")] = '\0';
    log_debug("http", "%s", line);
}

// ---- daemon ------------------------------------------------------------------------------------

bool http_open(struct server *sv, struct err *e)
{
    const unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                           MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    sv->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, sv, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, sv->listener.fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, sv,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, sv, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)sv->s.max_connections, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)STACK_BYTES, MHD_OPTION_END);
    if (sv->daemon == NULL) return err_errno(e, ERR_IO, "cannot start the HTTP server");
    return true;
}

void http_quiesce(struct server *sv)
{
    // The listening socket is the listener's again; who comes now is refused by the kernel.
    if (sv->daemon != NULL && sv->listener.fd > 0) MHD_quiesce_daemon(sv->daemon);
    if (sv->listener.fd > 0) listener_close(&sv->listener);
}

void http_close(struct server *sv)
{
    if (sv->daemon != NULL) MHD_stop_daemon(sv->daemon);
    sv->daemon = NULL;
}
