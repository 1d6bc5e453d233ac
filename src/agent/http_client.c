// libcurl's multi interface with one transfer, so that a cancellation, a deadline and the display
// are looked at every 200 ms however silent the peer is. No redirects, no proxies for this machine.
#include "agent/http_client.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"

enum { TICK_MS = 200, MAX_BODY_BYTES = 1 << 20, CONNECT_MS = 10000 };

struct http_client {
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
    char *url;  // as given
    char *base; // scheme, host and port
    bool (*may_connect)(void *arg, const struct sockaddr *to);
    void *guard_arg;
};

struct transfer {
    const struct http_call *call;
    struct http_answer *answer;
    CURL *easy;
    bool stopped; // on_data wanted no more
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static void curl_start(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

// ---- opening --------------------------------------------------------------------------------

// "http://host:1/v1/" -> "http://host:1"; a unix: address gets a host name that servers accept.
static char *base_of(const char *url)
{
    if (strncmp(url, "unix:", 5) == 0) return strdup("http://localhost");
    size_t n = strlen(url);
    while (n > 0 && url[n - 1] == '/') n--;
    if (n > 3 && memcmp(url + n - 3, "/v1", 3) == 0) n -= 3;
    return strndup(url, n);
}

static bool is_loopback(const char *base)
{
    static const char *const names[] = {"localhost", "127.", "[::1]"};
    const char *host = strstr(base, "://");
    if (host == NULL) return false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strncmp(host + 3, names[i], strlen(names[i])) == 0) return true;
    return false;
}

bool http_client_check_url(const char *url, struct err *e)
{
    if (strncmp(url, "unix:/", 6) == 0 && strlen(url) > 6) return true;
    CURLU *u = curl_url();
    bool web = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
    bool ok = u != NULL && web && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK;
    curl_url_cleanup(u);
    return ok || err_set(e, ERR_INPUT,
                         "\"%.200s\" is no server address; use http://host:port, https://host or "
                         "unix:/path/to/socket",
                         url);
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    long status = 0;
    (void)size;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status == 200 && t->call->on_data != NULL) {
        if (t->call->on_data(t->call->arg, (struct str){p, n})) return n;
        t->stopped = true;
        return 0;
    }
    size_t limit = t->call->limit_bytes != 0 ? t->call->limit_bytes : MAX_BODY_BYTES;
    size_t room = limit - t->answer->body.n;
    buf_put(&t->answer->body, p, n < room ? n : room);
    if (n <= room) return n;
    t->answer->cut = t->stopped = true; // the rest need not come
    return 0;
}

// Header lines; an empty one ends the head.
static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    long status = 0;
    (void)size;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (t->call->on_head != NULL) t->call->on_head(t->call->arg, str_trim((struct str){p, n}));
    if (status == 200 && n == 2 && p[0] == '\r' && t->call->on_accept != NULL)
        t->call->on_accept(t->call->arg);
    return n;
}

// Options that all requests share. libcurl copies strings.
static bool set_options(struct http_client *c, const char *key)
{
    struct buf header = {0};
    CURL *h = c->easy;
    c->headers = curl_slist_append(NULL, "Expect:");
    bool ok = c->headers != NULL;
    if (ok && key != NULL && *key != '\0') {
        buf_printf(&header, "Authorization: Bearer %s", key);
        ok = curl_slist_append(c->headers, buf_cstr(&header)) != NULL && !header.failed;
    }
    buf_free(&header);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h, CURLOPT_USERAGENT, "submind/" SUBMIND_VERSION);
    curl_easy_setopt(h, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
    if (strncmp(c->url, "unix:", 5) == 0) curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, c->url + 5);
    if (is_loopback(c->base)) curl_easy_setopt(h, CURLOPT_PROXY, "");
    return ok;
}

bool http_client_open(struct http_client **out, const char *url, const char *key, struct err *e)
{
    pthread_once(&curl_once, curl_start);
    if (!http_client_check_url(url, e)) return false;
    struct http_client *c = calloc(1, sizeof *c);
    if (c == NULL) return err_set(e, ERR_MEMORY, "no memory for a connection");
    c->url = strdup(url);
    c->base = base_of(url);
    c->easy = curl_easy_init();
    c->multi = curl_multi_init();
    if (c->url == NULL || c->base == NULL || c->easy == NULL || c->multi == NULL ||
        !set_options(c, key)) {
        http_client_close(c);
        return err_set(e, ERR_MEMORY, "no memory for a connection to %.200s", url);
    }
    *out = c;
    return true;
}

void http_client_close(struct http_client *c)
{
    if (c == NULL) return;
    curl_easy_cleanup(c->easy);
    curl_multi_cleanup(c->multi);
    curl_slist_free_all(c->headers);
    free(c->url);
    free(c->base);
    free(c);
}

static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct http_client *c = arg;
    (void)purpose;
    if (!c->may_connect(c->guard_arg, &to->addr)) return CURL_SOCKET_BAD;
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

void http_client_guard(struct http_client *c,
                       bool (*may_connect)(void *arg, const struct sockaddr *to), void *arg)
{
    c->may_connect = may_connect;
    c->guard_arg = arg;
    curl_easy_setopt(c->easy, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_easy_setopt(c->easy, CURLOPT_OPENSOCKETDATA, c);
    curl_easy_setopt(c->easy, CURLOPT_PROXY, "");
}

const char *http_client_url(const struct http_client *c)
{
    return c->url;
}

// ---- one request ----------------------------------------------------------------------------

static enum http_fail failure_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK: return HTTP_OK;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT: // only the connection has one of libcurl's
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION: return HTTP_NO_CONNECTION;
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2_STREAM: return HTTP_HANG_UP;
    default: return HTTP_BROKEN;
    }
}

// Drives the transfer to its end, or to a reason to give up.
static enum http_fail drive(struct http_client *c, const struct http_call *call, CURLcode *code)
{
    for (;;) {
        int running = 0, n = 0;
        CURLMcode m = curl_multi_perform(c->multi, &running);
        if (m != CURLM_OK) return HTTP_BROKEN;
        for (CURLMsg *msg; (msg = curl_multi_info_read(c->multi, &n)) != NULL;)
            if (msg->msg == CURLMSG_DONE) {
                *code = msg->data.result;
                return failure_of(msg->data.result);
            }
        if (running == 0) return HTTP_BROKEN;
        if (call->cancel != NULL && atomic_load(call->cancel) != 0) return HTTP_CANCELLED;
        uint64_t now = clock_ns();
        if (call->deadline_ns != 0 && now >= call->deadline_ns) return HTTP_DEADLINE;
        uint64_t left_ms =
            call->deadline_ns != 0 ? (call->deadline_ns - now) / 1000000 + 1 : TICK_MS;
        curl_multi_poll(c->multi, NULL, 0, left_ms < TICK_MS ? (int)left_ms : TICK_MS, NULL);
        if (call->on_tick != NULL && !call->on_tick(call->arg)) return HTTP_OK;
    }
}

// The headers of one call; NULL when there is no memory. libcurl wants them alive until its end.
static struct curl_slist *make_headers(const struct http_client *c, const struct http_call *call)
{
    struct curl_slist *list = NULL, *more;
    bool ok = true;
    for (const struct curl_slist *h = c->headers; ok && h != NULL; h = h->next) {
        ok = (more = curl_slist_append(list, h->data)) != NULL;
        if (ok) list = more;
    }
    if (ok && call->body.n > 0) {
        ok = (more = curl_slist_append(list, "Content-Type: application/json")) != NULL;
        if (ok) list = more;
    }
    for (size_t i = 0; ok && call->headers != NULL && call->headers[i] != NULL; i++) {
        ok = (more = curl_slist_append(list, call->headers[i])) != NULL;
        if (ok) list = more;
    }
    if (ok) return list;
    curl_slist_free_all(list);
    return NULL;
}

static void prepare(struct http_client *c, const struct http_call *call, struct transfer *t,
                    const char *url)
{
    CURL *h = c->easy;
    uint32_t connect_ms = call->connect_ms != 0 ? call->connect_ms : CONNECT_MS;
    curl_easy_setopt(h, CURLOPT_URL, url);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(h, CURLOPT_ERRORBUFFER, t->answer->why);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    if (call->body.n > 0) {
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, call->body.p);
        curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.n);
    } else {
        curl_easy_setopt(h, CURLOPT_HTTPGET, 1L);
    }
    curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, call->method);
}

static void finish(struct http_client *c, struct transfer *t, enum http_fail fail, CURLcode code)
{
    struct http_answer *a = t->answer;
    curl_off_t after_s = 0;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &a->status);
    curl_easy_getinfo(c->easy, CURLINFO_RETRY_AFTER, &after_s);
    const char *type = NULL, *location = NULL;
    curl_easy_getinfo(c->easy, CURLINFO_CONTENT_TYPE, &type);
    curl_easy_getinfo(c->easy, CURLINFO_REDIRECT_URL, &location);
    snprintf(a->content_type, sizeof a->content_type, "%s", type != NULL ? type : "");
    if (location != NULL) buf_z(&a->location, location);
    a->retry_after_ms = after_s > 0 && after_s < 86400 ? (uint32_t)after_s * 1000 : 0;
    a->fail = t->stopped ? HTTP_OK : fail;
    if (a->fail != HTTP_OK && a->why[0] == '\0')
        snprintf(a->why, sizeof a->why, "%s",
                 fail == HTTP_BROKEN || code != CURLE_OK ? curl_easy_strerror(code) : "stopped");
    curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, NULL);
}

bool http_client_call(struct http_client *c, const struct http_call *call, struct http_answer *out)
{
    struct buf url = {0};
    CURLcode code = CURLE_OK;
    enum http_fail fail = HTTP_BROKEN;
    *out = (struct http_answer){0};
    struct transfer t = {.call = call, .answer = out, .easy = c->easy};
    buf_printf(&url, "%s%s", c->base, call->path);
    _Static_assert(sizeof out->why >= CURL_ERROR_SIZE,
                   "libcurl writes up to CURL_ERROR_SIZE bytes");
    struct curl_slist *headers = make_headers(c, call);
    prepare(c, call, &t, buf_cstr(&url));
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, headers);
    if (!url.failed && headers != NULL && curl_multi_add_handle(c->multi, c->easy) == CURLM_OK) {
        fail = drive(c, call, &code);
        finish(c, &t, fail, code);
        curl_multi_remove_handle(c->multi, c->easy);
    } else {
        out->fail = HTTP_BROKEN;
        snprintf(out->why, sizeof out->why, "cannot start a request");
    }
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    buf_free(&url);
    return out->fail == HTTP_OK && out->status != 0;
}

void http_answer_free(struct http_answer *a)
{
    buf_free(&a->body);
    buf_free(&a->location);
    *a = (struct http_answer){0};
}
