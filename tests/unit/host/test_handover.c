// host/handover and host/listener on real sockets of this process: the "old server" is a socket that was bound
// without any thought of sharing, as llama-server's is.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/handover.h"

static int listen_on(uint16_t *port, bool shared)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    const int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (shared) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&a, n) != 0 || listen(fd, 16) != 0) {
        close(fd);
        return -1;
    }
    getsockname(fd, (struct sockaddr *)&a, &n);
    *port = ntohs(a.sin_port);
    return fd;
}

static int connect_to(uint16_t port)
{
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

// Does a new connection come out of this socket? The two ends are left in pair.
static bool arrives(int listener, uint16_t port, int pair[2])
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    pair[0] = connect_to(port);
    pair[1] = -1;
    if (poll(&p, 1, 2000) != 1) return false;
    pair[1] = accept(listener, NULL, NULL);
    return pair[1] >= 0;
}

static void drop(int pair[2])
{
    close(pair[0]);
    if (pair[1] >= 0) close(pair[1]);
}

static void a_listener_is_found(void **state)
{
    (void)state;
    struct root r;
    struct err e = {0};
    struct listener l;
    uint16_t port = 0;
    const int fd = listen_on(&port, false);
    assert_true(root_open(&r, "/", &e));
    listener_find(&l, &r, port);
    assert_true(l.there);
    assert_int_equal(l.pid, getpid());
    assert_int_equal(l.fd, fd);
    assert_int_equal(l.uid, geteuid());
    assert_string_equal(l.program, "test_handover");
    assert_int_equal(listener_connections(&l, &r, port), 0);
    int pair[2];
    assert_true(arrives(fd, port, pair));
    assert_int_equal(listener_connections(&l, &r, port), 1);
    drop(pair);
    close(fd);
    listener_find(&l, &r, port);
    assert_false(l.there);
    root_close(&r);
}

static void a_port_changes_hands(void **state)
{
    (void)state;
    struct handover h = {0};
    struct err e = {0};
    uint16_t port = 0;
    int kept[2], pair[2];
    const int old = listen_on(&port, false);
    assert_int_equal(listen_on(&port, true), -1); // nobody can listen beside it by himself
    assert_true(arrives(old, port, kept));
    if (!handover_open(&h, "127.0.0.1", port, (uint32_t)geteuid(), &e)) {
        print_message("skipped: %s\n", e.msg);
        skip();
    }
    const int ours = listen_on(&port, true);
    assert_true(ours >= 0);
    for (int i = 0; i < 20; i++) { // by hash about half of them would come out at ours
        assert_true(arrives(old, port, pair));
        drop(pair);
    }
    assert_true(handover_point(&h, true, &e));
    for (int i = 0; i < 20; i++) {
        assert_true(arrives(ours, port, pair));
        drop(pair);
    }
    assert_true(handover_point(&h, false, &e)); // and back
    assert_true(arrives(old, port, pair));
    drop(pair);
    assert_true(handover_point(&h, true, &e));
    assert_int_equal(handover_left(&h), 1); // the first connection goes on
    handover_retire(&h);
    assert_int_equal(write(kept[1], "x", 1), 1);
    char c = 0;
    assert_int_equal(read(kept[0], &c, 1), 1);
    assert_int_equal(accept(old, NULL, NULL), -1); // which tells the old server to stop listening
    assert_int_equal(errno, EINVAL);
    drop(kept);
    assert_int_equal(handover_left(&h), 0);
    handover_close(&h);
    close(old);
    assert_true(arrives(ours, port, pair)); // alone now
    drop(pair);
    close(ours);
}

// The old server gets everything again.
static void an_attempt_that_is_given_up(void **state)
{
    (void)state;
    struct handover h = {0};
    struct err e = {0};
    uint16_t port = 0;
    int pair[2];
    const int old = listen_on(&port, false);
    if (!handover_open(&h, "127.0.0.1", port, (uint32_t)geteuid(), &e)) skip();
    const int ours = listen_on(&port, true);
    assert_true(handover_point(&h, true, &e));
    close(ours);
    assert_true(arrives(old, port, pair));
    drop(pair);
    handover_close(&h);
    assert_true(arrives(old, port, pair));
    drop(pair);
    close(old);
}

static void it_says_why_not(void **state)
{
    (void)state;
    struct handover h = {0};
    struct err e = {0};
    uint16_t port = 0;
    const int old = listen_on(&port, false);
    assert_false(handover_open(&h, "0.0.0.0", port, (uint32_t)geteuid(), &e));
    assert_non_null(strstr(e.msg, "listens on 127.0.0.1, ours will on 0.0.0.0"));
    e = (struct err){0};
    assert_false(handover_open(&h, "127.0.0.1", port, (uint32_t)geteuid() + 1, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    close(old);
    e = (struct err){0};
    assert_false(handover_open(&h, "127.0.0.1", port, (uint32_t)geteuid(), &e));
    assert_non_null(strstr(e.msg, "nobody listens"));
    assert_int_equal(h.fd, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listener_is_found),
        cmocka_unit_test(a_port_changes_hands),
        cmocka_unit_test(an_attempt_that_is_given_up),
        cmocka_unit_test(it_says_why_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
