// The server over real sockets, with an engine that follows a script (fake_engine.h): loading,
// refusals, progress, errors before and after acceptance, hang-ups, clean stop.
#include <ifaddrs.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "text/value.h"

#include "serve_rig.c"

// The body of an answer that came whole.
static struct str body_of(const struct client *c)
{
    struct str all = buf_view(&c->in);
    size_t at = str_find(all, STR("\r\n\r\n"), 0);
    assert_true(at != SIZE_MAX);
    return str_sub(all, at + 4, all.n);
}

// One raw request, answered to the end of the connection.
static void raw(struct client *c, const char *text)
{
    client_open(c);
    client_send(c, text);
    read_all(c);
}

static void get(struct client *c, const char *path)
{
    char text[300];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
             path);
    raw(c, text);
}

// ---- loading ----------------------------------------------------------------------------------

static void loading_is_answered(void **state)
{
    (void)state;
    struct client c;
    memset(&fake_script, 0, sizeof fake_script);
    open_with(&(struct serve_settings){0});
    get(&c, "/v1/models");
    expect(&c, "HTTP/1.1 503");
    expect(&c, "Retry-After: ");
    expect(&c, "loading");
    client_close(&c);
    struct arena a = {0};
    struct err e = {0};
    double progress = 0;
    for (int i = 0; i < 500 && progress == 0; i++) { // the fake has a thread of its own
        struct value v;                              // of the client's bytes
        get(&c, "/health");
        expect(&c, "HTTP/1.1 503");
        if (!value_parse(&v, &a, body_of(&c), &e)) fail_msg("%s", e.msg);
        assert_true(str_eq(value_get(v, "status").s, STR("loading")));
        assert_int_equal(value_get(value_get(v, "error"), "code").i, 503);
        progress = value_get(v, "progress").f;
        client_close(&c);
        usleep(10000);
    }
    assert_float_equal(progress, 0.25, 1e-9); // 250 of 1000
    atomic_store(&fake_script.load_gate, 1);
    wait_ready();
    get(&c, "/health");
    expect(&c, "HTTP/1.1 200");
    expect(&c, "{\"status\":\"ok\"}");
    client_close(&c);
    arena_free(&a);
}

static void failed_load_is_told(void **state)
{
    (void)state;
    struct err e = {0};
    memset(&fake_script, 0, sizeof fake_script);
    fake_script.load_error = "model.gguf: tensor x is broken";
    atomic_store(&fake_script.load_gate, 1);
    open_with(&(struct serve_settings){0});
    wait_ready();
    assert_false(server_tick(server, &e));
    assert_int_equal(e.code, ERR_FORMAT);
    assert_non_null(strstr(e.msg, "tensor x is broken"));
}

static void idle_server_ends(void **state)
{
    (void)state;
    struct err e = {0};
    memset(&fake_script, 0, sizeof fake_script);
    atomic_store(&fake_script.load_gate, 1);
    open_with(&(struct serve_settings){.idle_exit_s = 1});
    wait_ready();
    assert_true(server_tick(server, &e));
    usleep(1100000);
    assert_false(server_tick(server, &e));
    assert_int_equal(e.code, ERR_NONE);
}

static void public_needs_a_key(void **state)
{
    (void)state;
    struct err e = {0};
    const struct str key = STR("k");
    struct serve_settings s = {.host = "0.0.0.0"};
    assert_false(server_open(&server, &s, &engine_settings, &e));
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "--api-key-file"));
    memset(&e, 0, sizeof e);
    atomic_store(&fake_script.load_gate, 1);
    s.keys = &key;
    s.n_keys = 1;
    assert_true(server_open(&server, &s, &engine_settings, &e));
    wait_ready();
}

// An IPv4 address of this machine that is not loopback's; 0 where there is none.
static in_addr_t own_address(void)
{
    struct ifaddrs *all = NULL;
    in_addr_t found = 0;
    assert_int_equal(getifaddrs(&all), 0);
    for (const struct ifaddrs *i = all; i != NULL && found == 0; i = i->ifa_next) {
        struct sockaddr_in in;
        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != AF_INET) continue;
        memcpy(&in, i->ifa_addr, sizeof in);
        if (ntohl(in.sin_addr.s_addr) >> 24 != 127) found = in.sin_addr.s_addr;
    }
    freeifaddrs(all);
    return found;
}

static void expect_from(in_addr_t address, const char *path, const char *host, const char *words)
{
    struct client c = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    char text[200];
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(server_port(server)), .sin_addr.s_addr = address};
    assert_int_equal(connect(c.fd, (const struct sockaddr *)&a, sizeof a), 0);
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path,
             host);
    client_send(&c, text);
    read_all(&c);
    expect(&c, words);
    client_close(&c);
}

// Without a key the cache is for the server's own machine, asked by a name that no foreign page in
// its browser can have; everybody else gets answers only.
static void the_cache_is_for_this_machine(void **state)
{
    (void)state;
    const struct serve_settings s = {.host = "0.0.0.0", .allow_public = true};
    const in_addr_t here = htonl(INADDR_LOOPBACK), there = own_address();
    atomic_store(&fake_script.load_gate, 1);
    open_with(&s);
    wait_ready();
    expect_from(here, "/submind/cache", "localhost", "\"trunks\":[");
    expect_from(here, "/submind/cache", "evil.example", "HTTP/1.1 403");
    expect_from(here, "/v1/models", "evil.example", "HTTP/1.1 200");
    if (there == 0) return; // nobody could come from elsewhere
    expect_from(there, "/submind/cache", "localhost", "the server's own machine only");
    expect_from(there, "/submind/cache/stats", "localhost", "HTTP/1.1 403");
    expect_from(there, "/v1/models", "localhost", "HTTP/1.1 200");
}

static void unix_socket_is_private(void **state)
{
    (void)state;
    char path[] = "/tmp/submind-test-XXXXXX", sock[64];
    struct err e = {0};
    struct stat st;
    struct server *second = NULL;
    assert_non_null(mkdtemp(path));
    snprintf(sock, sizeof sock, "%s/s", path);
    atomic_store(&fake_script.load_gate, 1);
    const struct serve_settings s = {.unix_socket = sock};
    open_with(&s);
    wait_ready();
    assert_int_equal(stat(sock, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_false(server_open(&second, &s, &engine_settings, &e)); // somebody listens
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%.60s", sock);
    struct client c = {.fd = socket(AF_UNIX, SOCK_STREAM, 0)};
    assert_int_equal(connect(c.fd, (struct sockaddr *)&a, sizeof a), 0);
    client_send(&c, "GET /health HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n");
    read_all(&c);
    expect(&c, "HTTP/1.1 200");
    client_close(&c);
    server_close(server);
    server = NULL;
    assert_int_not_equal(stat(sock, &st), 0);
    rmdir(path);
}

// ---- refusals ---------------------------------------------------------------------------------

#define HEAD_ "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
#define JSON_ "Content-Type: application/json\r\n"

static void wrong_requests_get_their_status(void **state)
{
    (void)state;
    static const struct {
        const char *request, *answer, *also;
    } cases[] = {
        {"GET /nothing " HEAD_ "\r\n", "HTTP/1.1 404", "not_found_error"},
        {"GET /v1/chat/completions " HEAD_ "\r\n", "HTTP/1.1 405", "Allow: POST, OPTIONS"},
        {"DELETE /health " HEAD_ "\r\n", "HTTP/1.1 405", "Allow: GET, HEAD, OPTIONS"},
        {"OPTIONS /v1/models " HEAD_ "\r\n", "HTTP/1.1 204", "Allow: GET, HEAD, OPTIONS"},
        {"HEAD /health " HEAD_ "\r\n", "HTTP/1.1 200", "Content-Length: 15"},
        {"GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", "HTTP/1.1 403",
         "permission_error"},
        {"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 400", ""},
        {"POST /v1/completions " HEAD_ "Content-Length: 2\r\n\r\n{}", "HTTP/1.1 415",
         "application/json"},
        {"POST /v1/completions " HEAD_ "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
         "HTTP/1.1 415", "unsupported_media_type_error"},
        {"POST /v1/completions " HEAD_ JSON_ "Content-Length: 0\r\n\r\n", "HTTP/1.1 400",
         "no body"},
        {"POST /v1/completions " HEAD_ JSON_ "Content-Length: 5\r\n\r\n{\"a\":", "HTTP/1.1 400",
         "line 1 column"},
        {"POST /v1/completions " HEAD_ JSON_ "Content-Length: 2\r\n\r\n[]", "HTTP/1.1 400",
         "JSON object"},
        {"POST /v1/completions " HEAD_ JSON_
         "Expect: 100-continue\r\nContent-Length: 200000\r\n\r\n",
         "HTTP/1.1 413", "200000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client c;
        raw(&c, cases[i].request);
        expect(&c, cases[i].answer);
        expect(&c, cases[i].also);
        expect_not(&c, "Access-Control"); // no CORS unless asked for
        client_close(&c);
    }
}

static void garbage_harms_nobody(void **state)
{
    (void)state;
    static const char *const garbage[] = {
        "garbage\r\n\r\n",
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "\x16\x03\x01\x02 tls?\r\n\r\n",
        "POST /v1/completions " HEAD_ JSON_ "Content-Length: -5\r\n\r\n",
        "POST /v1/completions " HEAD_ JSON_ "Content-Length: 99999999999999999999\r\n\r\n",
        "POST /v1/completions " HEAD_ JSON_ "Transfer-Encoding: chunked\r\n\r\nzzzz\r\n",
    };
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        struct client c;
        client_open(&c);
        client_send(&c, garbage[i]);
        shutdown(c.fd, SHUT_WR);
        read_all(&c); // an error or a closed connection, but no hanging
        expect_not(&c, "HTTP/1.1 200");
        client_close(&c);
    }
    struct client c;
    get(&c, "/health");
    expect(&c, "HTTP/1.1 200");
    client_close(&c);
}

static void large_bodies_are_refused_after_reading(void **state)
{
    (void)state;
    struct client c;
    struct buf big = {0};
    while (big.n < 150000) buf_z(&big, "{\"prompt\": \"0123456789\"}");
    post(&c, "/v1/completions", buf_cstr(&big));
    expect(&c, "HTTP/1.1 413");
    expect(&c, "request_too_large_error");
    client_close(&c);
    client_open(&c); // without a length
    client_send(&c, "POST /v1/completions " HEAD_ JSON_ "Transfer-Encoding: chunked\r\n\r\n");
    for (size_t i = 0; i < 15; i++) {
        char head[16];
        snprintf(head, sizeof head, "%x\r\n", 10000);
        client_send(&c, head);
        assert_int_equal(send(c.fd, big.p, 10000, MSG_NOSIGNAL), 10000);
        client_send(&c, "\r\n");
    }
    client_send(&c, "0\r\n\r\n");
    read_all(&c);
    expect(&c, "HTTP/1.1 413");
    client_close(&c);
    buf_free(&big);
}

static void all_bodies_together_are_bounded(void **state)
{
    (void)state;
    struct client waiting[16], c; // 16 of the largest may be on their way
    static const char text[] = "POST /v1/completions " HEAD_ JSON_ "Content-Length: 100000\r\n\r\n";
    for (int i = 0; i < 16; i++) {
        client_open(&waiting[i]);
        client_send(&waiting[i], text);
    }
    usleep(300000);
    post(&c, "/v1/completions", "{\"prompt\":\"x\"}");
    expect(&c, "HTTP/1.1 429");
    expect(&c, "Retry-After: ");
    client_close(&c);
    for (int i = 0; i < 16; i++) client_close(&waiting[i]);
    usleep(300000);
    post(&c, "/v1/completions", "{\"prompt\":\"x\"}");
    expect(&c, "HTTP/1.1 200");
    client_close(&c);
}

static void huge_headers_are_refused(void **state)
{
    (void)state;
    struct client c;
    client_open(&c);
    client_send(&c, "GET /health HTTP/1.1\r\nHost: localhost\r\n");
    for (int i = 0; i < 400 && !c.closed; i++) {
        char line[512];
        memset(line, 'x', sizeof line);
        memcpy(line, "X-A: ", 5);
        memcpy(line + sizeof line - 3, "\r\n", 3);
        if (send(c.fd, line, sizeof line - 1, MSG_NOSIGNAL) < 0) break;
    }
    read_all(&c); // an error or a closed connection, but no hanging
    expect_not(&c, "HTTP/1.1 200");
    client_close(&c);
    get(&c, "/health");
    expect(&c, "HTTP/1.1 200");
    client_close(&c);
}

static void keys_open_the_door(void **state)
{
    (void)state;
    const struct str keys[] = {STR("first"), STR("second")};
    struct client c;
    memset(&fake_script, 0, sizeof fake_script);
    atomic_store(&fake_script.load_gate, 1);
    open_with(
        &(struct serve_settings){.keys = keys, .n_keys = 2, .cors_origin = "https://app.example"});
    wait_ready();
    get(&c, "/v1/models");
    expect(&c, "HTTP/1.1 401");
    expect(&c, "WWW-Authenticate: Bearer");
    expect(&c, "authentication_error");
    client_close(&c);
    raw(&c, "GET /v1/models " HEAD_ "Authorization: Bearer firs\r\n\r\n");
    expect(&c, "HTTP/1.1 401");
    client_close(&c);
    raw(&c, "GET /v1/models " HEAD_ "Authorization: Bearer second\r\n\r\n");
    expect(&c, "HTTP/1.1 200");
    expect(&c, "Access-Control-Allow-Origin: https://app.example");
    client_close(&c);
    raw(&c, "GET /v1/models " HEAD_ "X-Api-Key: first\r\n\r\n");
    expect(&c, "HTTP/1.1 200");
    client_close(&c);
    get(&c, "/health");
    expect(&c, "HTTP/1.1 200");
    client_close(&c);
}

static void full_queue_says_when(void **state)
{
    (void)state;
    struct client c;
    fake_script.full = true;
    post(&c, "/v1/completions", "{\"prompt\":\"x\",\"stream\":true}");
    expect(&c, "HTTP/1.1 429");
    expect(&c, "Retry-After: 3");
    expect(&c, "queue_full_error");
    client_close(&c);
}

static void too_long_has_both_numbers(void **state)
{
    (void)state;
    struct client c;
    struct buf b = {0};
    buf_z(&b, "{\"prompt\":[1");
    for (int i = 1; i < 5000; i++) buf_z(&b, ",1");
    buf_z(&b, "]}");
    post(&c, "/v1/completions", buf_cstr(&b));
    expect(&c, "HTTP/1.1 400");
    expect(&c, "exceeds the available context size");
    expect(&c, "\"n_prompt_tokens\":5000,\"n_ctx\":4096");
    client_close(&c);
    buf_free(&b);
}

// ---- answers ----------------------------------------------------------------------------------

static void whole_answer_has_its_fields(void **state)
{
    (void)state;
    struct client c;
    struct arena a = {0};
    struct value v = {0};
    struct err e = {0};
    fake_script.n_cached = 1;
    post(&c, "/v1/completions",
         "{\"prompt\":\"Once upon a time\",\"logprobs\":2,\"priority\":-4,\"stop\":[\"zz\"]}");
    expect(&c, "HTTP/1.1 200");
    if (!value_parse(&v, &a, body_of(&c), &e)) fail_msg("%s", e.msg);
    struct value choice = value_get(v, "choices").list->items[0];
    assert_true(str_eq(value_get(v, "object").s, STR("text_completion")));
    assert_true(str_eq(value_get(v, "model").s, STR("tester")));
    assert_true(str_eq(value_get(choice, "text").s, STR("Hello there, friend.")));
    assert_true(str_eq(value_get(choice, "finish_reason").s, STR("stop")));
    struct value lp = value_get(choice, "logprobs");
    size_t n = value_get(lp, "tokens").list->n;
    assert_true(n > 2);
    assert_int_equal(value_get(lp, "token_logprobs").list->n, n);
    assert_int_equal(value_get(lp, "text_offset").list->n, n);
    assert_int_equal(value_get(lp, "text_offset").list->items[0].i, 0);
    struct value usage = value_get(v, "usage"), timings = value_get(v, "timings");
    assert_int_equal(value_get(usage, "prompt_tokens").i, fake_seen.prompt.n);
    assert_int_equal(value_get(usage, "completion_tokens").i, n);
    assert_int_equal(value_get(value_get(usage, "prompt_tokens_details"), "cached_tokens").i, 1);
    assert_int_equal(value_get(timings, "cache_n").i, 1);
    assert_int_equal(value_get(timings, "predicted_n").i, n);
    assert_int_equal(fake_seen.priority, -4);
    assert_true(str_eq(buf_view(&fake_seen.stops), STR("zz|")));
    arena_free(&a);
    client_close(&c);
}

static void silence_is_filled_with_progress(void **state)
{
    (void)state;
    struct client c;
    fake_script.prefill_ms = 2600;
    uint64_t start = clock_ns();
    client_open(&c);
    client_post(
        &c, "/v1/completions", "",
        "{\"prompt\":\"a b c d\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    read_until(&c, "text/event-stream", 500); // headers go out at once
    assert_true(clock_ms_since(start) < 500);
    read_until(&c, "prompt_progress", 1600);
    double first_ms = clock_ms_since(start);
    assert_true(first_ms > 900 && first_ms < 1600);
    read_all(&c);
    assert_int_equal(count(&c, "\"prompt_progress\":{\"total\":"),
                     3); // at 1 s, at 2 s and with the first text
    expect(&c, ",\"cached\":0,\"processed\":");
    expect(&c, "\"processed\":4"); // all of it
    expect(&c, "\"eta_ms\":");
    assert_int_equal(count(&c, "\"usage\":"), 1);
    assert_int_equal(count(&c, "data: [DONE]"), 1);
    assert_int_equal(count(&c, "\"finish_reason\":\"stop\""), 1);
    client_close(&c);
}

static void stop_strings_never_leak(void **state)
{
    (void)state;
    struct client c;
    fake_script.text = "one two STOP three";
    fake_script.token_ms = 5; // one token a wake
    post(&c, "/v1/completions", "{\"prompt\":\"x\",\"stream\":true,\"stop\":\"STOP\"}");
    expect(&c, "two");
    expect_not(&c, "three");
    expect_not(&c, "ST");
    client_close(&c);
}

static void cut_answers_say_length(void **state)
{
    (void)state;
    struct client c;
    post(&c, "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":2}");
    expect(&c, "\"finish_reason\":\"length\"");
    assert_int_equal(fake_seen.max_tokens, 2);
    client_close(&c);
}

static void deadline_is_504_or_an_event(void **state)
{
    (void)state;
    struct client c;
    fake_script.prefill_ms = 60000;
    post(&c, "/v1/completions", "{\"prompt\":\"x\",\"timeout_ms\":200}");
    expect(&c, "HTTP/1.1 504");
    expect(&c, "7 of 1 tokens");
    client_close(&c);
    post(&c, "/v1/completions", "{\"prompt\":\"x\",\"timeout_ms\":200,\"stream\":true}");
    expect(&c, "HTTP/1.1 200");
    expect(&c, "data: {\"error\":{\"message\":\"timeout after 200 ms");
    expect_not(&c, "[DONE]");
    client_close(&c);
}

static void broken_device_is_an_event(void **state)
{
    (void)state;
    struct client c;
    fake_script.device_error = "the device is gone";
    post(&c, "/v1/completions", "{\"prompt\":\"x\",\"stream\":true}");
    expect(&c, "\"Hel\"");
    expect(&c, "data: {\"error\":{\"message\":\"the device is gone\",\"type\":\"device_error\"");
    expect_not(&c, "[DONE]");
    client_close(&c);
    post(&c, "/v1/completions", "{\"prompt\":\"x\"}");
    expect(&c, "HTTP/1.1 500");
    client_close(&c);
}

static void wait_cancelled(int n)
{
    uint64_t start = clock_ns();
    while (atomic_load(&fake_seen.n_cancelled) < n || atomic_load(&fake_seen.n_open) > 0) {
        if (clock_ms_since(start) > 1500) fail_msg("a hang-up was not noticed within 1,500 ms");
        usleep(2000);
    }
}

static void hang_ups_are_noticed_at_once(void **state)
{
    (void)state;
    static const char *const streams[] = {"true", "false"};
    fake_script.endless = true;
    fake_script.token_ms = 1000;
    for (size_t i = 0; i < 2; i++) {
        struct client c;
        char body[100];
        fake_script.prefill_ms = i == 0 ? 0 : 60000; // while streaming, and in silence
        atomic_store(&fake_seen.n_cancelled, 0);
        snprintf(body, sizeof body, "{\"prompt\":\"x\",\"stream\":%s}", streams[i]);
        client_open(&c);
        client_post(&c, "/v1/completions", "", body);
        if (i == 0) read_until(&c, "\"Hel\"", 2000);
        usleep(50000);
        client_close(&c);
        wait_cancelled(1);
    }
}

static void stop_ends_streams_with_an_error(void **state)
{
    (void)state;
    struct client streaming, waiting, idle;
    fake_script.endless = true;
    fake_script.token_ms = 20;
    client_open(&idle);
    client_open(&streaming);
    client_post(&streaming, "/v1/completions", "", "{\"prompt\":\"x\",\"stream\":true}");
    client_open(&waiting);
    client_post(&waiting, "/v1/completions", "", "{\"prompt\":\"x\"}");
    read_until(&streaming, "\"Hel\"", 2000);
    while (atomic_load(&fake_seen.n_open) < 2) usleep(1000);
    uint64_t start = clock_ns();
    server_close(server);
    server = NULL;
    assert_true(clock_ms_since(start) < 5000);
    read_all(&streaming);
    expect(&streaming, "data: {\"error\":");
    expect(&streaming, "shutdown_error");
    read_all(&waiting);
    expect(&waiting, "HTTP/1.1 503");
    client_close(&streaming);
    client_close(&waiting);
    client_close(&idle);
}

static void stalled_readers_do_not_stop_others(void **state)
{
    (void)state;
    struct client stalled, other;
    fake_script.endless = true;
    client_open(&stalled); // never reads: its socket fills up
    client_post(&stalled, "/v1/completions", "", "{\"prompt\":\"x\",\"stream\":true}");
    while (atomic_load(&fake_seen.n_open) == 0) usleep(1000);
    usleep(200000); // for the socket to fill
    fake_script.endless = false;
    post(&other, "/v1/completions", "{\"prompt\":\"x\"}");
    expect(&other, "HTTP/1.1 200");
    client_close(&other);
    client_close(&stalled);
    wait_cancelled(0);
}

static void several_requests_share_a_connection(void **state)
{
    (void)state;
    struct client c;
    client_open(&c);
    for (int i = 0; i < 3; i++) {
        buf_clear(&c.in);
        client_send(&c, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\n" JSON_
                        "Content-Length: 19\r\n\r\n{\"content\":\"hello\"}");
        read_until(&c, "\"max_model_len\":4096}", 2000);
        expect(&c, "HTTP/1.1 200");
    }
    client_close(&c);
}

#define TOKENIZE_                                          \
    "POST /tokenize HTTP/1.1\r\nHost: localhost\r\n" JSON_ \
    "Content-Length: 19\r\n\r\n{\"content\":\"hello\"}"

static void *stop_thread(void *arg)
{
    server_drain(server, *(int *)arg);
    server_close(server);
    return NULL;
}

// Who kept a connection, or has just made one, sends the next request some time after the stop began: it is
// answered. Who only holds a connection does not keep the server.
static void a_drain_answers_who_is_connected(void **state)
{
    (void)state;
    enum { LATE_US = 700000 };
    struct client kept, fresh, silent;
    int quiet[2];
    pthread_t thread;
    atomic_store(&fake_script.load_gate, 1);
    open_with(&(struct serve_settings){.alias = "tester", .drain_s = 60});
    wait_ready();
    assert_int_equal(pipe(quiet), 0);
    client_open(&silent);
    client_open(&kept);
    client_send(&kept, TOKENIZE_);
    read_until(&kept, "\"max_model_len\":4096}", 2000);
    expect_not(&kept, "Connection: close");
    buf_clear(&kept.in);
    client_open(&fresh);
    usleep(20000); // accepted
    const uint64_t start = clock_ns();
    assert_int_equal(pthread_create(&thread, NULL, stop_thread, &quiet[0]), 0);
    usleep(LATE_US);
    client_send(&kept, TOKENIZE_);
    client_send(&fresh, TOKENIZE_);
    read_all(&kept);
    read_all(&fresh);
    expect(&kept, "HTTP/1.1 200");
    expect(&kept, "Connection: close");
    expect(&fresh, "HTTP/1.1 200");
    read_all(&silent); // is told by the end of the stream, not by a reset
    assert_int_equal(silent.in.n, 0);
    pthread_join(thread, NULL);
    server = NULL;
    assert_true(clock_ms_since(start) < 10000);
    client_close(&kept);
    client_close(&fresh);
    client_close(&silent);
    close(quiet[0]);
    close(quiet[1]);
}

static void metrics_are_prometheus(void **state)
{
    (void)state;
    struct client c;
    get(&c, "/metrics");
    static const char *const lines[] = {
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"tester\"} "
        "2\n",
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"tester\"} "
        "3\n",
        "vllm:kv_cache_usage_perc{model_name=\"tester\"} 0.25\n",
        "vllm:gpu_cache_usage_perc{model_name=\"tester\"} 0.25\n",
        "vllm:cache_config_info{model_name=\"tester\",block_size=\"64\",num_gpu_blocks=\"100\"} "
        "1\n",
        "vllm:lora_requests_info{max_lora=\"0\"",
        "# TYPE submind:prefill_tokens_total counter\n",
        "submind:cached_tokens_total{model_name=\"tester\"} 900\n",
        "submind:pages{model_name=\"tester\",state=\"free\"} 25\n",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"tester\",le=\"0.02\"} 3\n",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"tester\",le=\"+Inf\"} 6\n",
        "vllm:time_to_first_token_seconds_count{model_name=\"tester\"} 6\n",
        "vllm:request_success_total{model_name=\"tester\",finished_reason=\"stop\"} 0\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) expect(&c, lines[i]);
    client_close(&c);
}

static void small_routes_answer(void **state)
{
    (void)state;
    static const struct {
        const char *path, *part;
    } routes[] = {
        {"/version", "\"version\":\""},     {"/v1/models", "\"id\":\"tester\""},
        {"/props", "\"total_slots\":4"},    {"/slots", "\"stage\":\"prefill\""},
        {"/props", "\"chat_template\":\""},
    };
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        struct client c;
        struct arena a = {0};
        struct value v = {0};
        struct err e = {0};
        get(&c, routes[i].path);
        expect(&c, "HTTP/1.1 200");
        expect(&c, routes[i].part);
        if (!value_parse(&v, &a, body_of(&c), &e)) fail_msg("%s: %s", routes[i].path, e.msg);
        arena_free(&a);
        client_close(&c);
    }
}

static void tokens_go_there_and_back(void **state)
{
    (void)state;
    struct client c;
    struct err e = {0};
    post(&c, "/tokenize", "{\"content\":\"<|im_start|>hi\",\"parse_special\":false}");
    struct buf body = {0};
    struct str json = body_of(&c);
    struct arena a = {0};
    struct value v = {0};
    if (!value_parse(&v, &a, json, &e)) fail_msg("%s", e.msg);
    struct value tokens = value_get(v, "tokens");
    assert_true(tokens.list->n > 3); // text, not the control token
    buf_z(&body, "{\"tokens\":");
    value_dump(&body, tokens, -1);
    buf_c(&body, '}');
    struct client back;
    post(&back, "/detokenize", buf_cstr(&body));
    expect(&back, "{\"content\":\"<|im_start|>hi\"}");
    client_close(&back);
    client_close(&c);
    post(&c, "/tokenize", "{\"content\":[\"hi\",7,\"ho\"],\"with_pieces\":true}");
    expect(&c, "{\"id\":7,\"piece\":");
    client_close(&c);
    post(&c, "/detokenize", "{\"tokens\":[99999999]}");
    expect(&c, "HTTP/1.1 400");
    client_close(&c);
    buf_free(&body);
    arena_free(&a);
}

int main(void)
{
    rig_init();
    const struct CMUnitTest tests[] = {
        ALONE(loading_is_answered),
        ALONE(failed_load_is_told),
        ALONE(idle_server_ends),
        ALONE(public_needs_a_key),
        ALONE(the_cache_is_for_this_machine),
        ALONE(unix_socket_is_private),
        ALONE(keys_open_the_door),
        ALONE(a_drain_answers_who_is_connected),
        CASE(wrong_requests_get_their_status),
        CASE(garbage_harms_nobody),
        CASE(large_bodies_are_refused_after_reading),
        CASE(all_bodies_together_are_bounded),
        CASE(huge_headers_are_refused),
        CASE(full_queue_says_when),
        CASE(too_long_has_both_numbers),
        CASE(whole_answer_has_its_fields),
        CASE(silence_is_filled_with_progress),
        CASE(stop_strings_never_leak),
        CASE(cut_answers_say_length),
        CASE(deadline_is_504_or_an_event),
        CASE(broken_device_is_an_event),
        CASE(hang_ups_are_noticed_at_once),
        CASE(stop_ends_streams_with_an_error),
        CASE(stalled_readers_do_not_stop_others),
        CASE(several_requests_share_a_connection),
        CASE(metrics_are_prometheus),
        CASE(small_routes_answer),
        CASE(tokens_go_there_and_back),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    rig_deinit();
    return rc;
}
