// What the socket tests share: a raw HTTP client, and a server over the engine that follows a script.
// Included by its tests, as fake_engine.c is.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "serve/serve.h"

#include "fake_engine.c" // the engine of this test program

static struct server *server;
static char model_path[4096];

// ---- a client -----------------------------------------------------------------------------------

struct client {
    int fd;
    struct buf in; // everything received
    bool closed;
};

static void client_open(struct client *c)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(server_port(server))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *c = (struct client){.fd = socket(AF_INET, SOCK_STREAM, 0)};
    assert_int_equal(connect(c->fd, (struct sockaddr *)&a, sizeof a), 0);
}

static void client_close(struct client *c)
{
    if (c->fd >= 0) close(c->fd);
    buf_free(&c->in);
    c->fd = -1;
}

static void client_send(struct client *c, const char *text)
{
    size_t n = strlen(text);
    assert_int_equal(send(c->fd, text, n, MSG_NOSIGNAL), (ssize_t)n);
}

static bool has(const struct client *c, const char *needle)
{
    return str_find(buf_view(&c->in), str_from(needle), 0) != SIZE_MAX;
}

static size_t count(const struct client *c, const char *needle)
{
    size_t n = 0, at = 0;
    while ((at = str_find(buf_view(&c->in), str_from(needle), at)) != SIZE_MAX) {
        n++;
        at++;
    }
    return n;
}

// Reads until the needle was received or the peer closed; fails after ms.
static void read_until(struct client *c, const char *needle, int ms)
{
    uint64_t start = clock_ns();
    while (!has(c, needle) && !c->closed) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int left = ms - (int)clock_ms_since(start);
        if (left <= 0 || poll(&p, 1, left) <= 0)
            fail_msg("no \"%s\" within %d ms in: %s", needle, ms, buf_cstr(&c->in));
        char piece[4096];
        ssize_t n = recv(c->fd, piece, sizeof piece, 0);
        if (n <= 0)
            c->closed = true;
        else
            buf_put(&c->in, piece, (size_t)n);
    }
}

static void read_all(struct client *c)
{
    read_until(c, "\001 never sent", 8000);
}

static void client_post(struct client *c, const char *path, const char *headers, const char *body)
{
    struct buf b = {0};
    buf_printf(&b,
               "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
               "Connection: close\r\n%sContent-Length: %zu\r\n\r\n%s",
               path, headers, strlen(body), body);
    client_send(c, buf_cstr(&b));
    buf_free(&b);
}

static void expect(struct client *c, const char *needle)
{
    if (!has(c, needle)) fail_msg("no \"%s\" in: %s", needle, buf_cstr(&c->in));
}

static void expect_not(struct client *c, const char *needle)
{
    if (has(c, needle)) fail_msg("\"%s\" in: %s", needle, buf_cstr(&c->in));
}

static void post(struct client *c, const char *path, const char *body)
{
    client_open(c);
    client_post(c, path, "", body);
    read_all(c);
}

// ---- the server -------------------------------------------------------------------------------

static const struct engine_settings engine_settings = {.model_path = model_path};

static void open_with(const struct serve_settings *s)
{
    struct err e = {0};
    if (!server_open(&server, s, &engine_settings, &e)) fail_msg("%s", e.msg);
}

static void wait_ready(void)
{
    struct pollfd p = {.fd = server_fd(server), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 20000), 1);
}

static int setup(void **state)
{
    (void)state;
    memset(&fake_script, 0, sizeof fake_script);
    fake_script.text = "Hello there, friend.";
    atomic_store(&fake_script.load_gate, 1);
    open_with(&(struct serve_settings){.alias = "tester", .max_body_bytes = 100000});
    wait_ready();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_close(server);
    server = NULL;
    assert_int_equal(atomic_load(&fake_seen.n_open), 0); // no stream leaks
    return 0;
}

// The shipped model's vocabulary is what the fake engine speaks.
static void rig_init(void)
{
    const char *source = getenv("SUBMIND_SOURCE");
    snprintf(model_path, sizeof model_path, "%s/models/submind-demo-Q8_0.gguf",
             source != NULL ? source : ".");
    log_set_level(LOG_ERROR);
}

static void rig_deinit(void)
{
    ids_free(&fake_seen.prompt);
    buf_free(&fake_seen.stops);
}

#define CASE(f)  cmocka_unit_test_setup_teardown(f, setup, teardown)
#define ALONE(f) cmocka_unit_test_teardown(f, teardown)
