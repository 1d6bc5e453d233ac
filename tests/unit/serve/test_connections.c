// Total time limits: a connection whose time is over is shut down, others are not.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/connections.h"

enum { SECOND = 1000000000 };

static bool is_shut(int peer)
{
    char c;
    return recv(peer, &c, 1, MSG_DONTWAIT) == 0;
}

static void each_wait_has_its_limit(void **state)
{
    (void)state;
    struct connections t;
    struct connection *c[4];
    int pair[4][2];
    connections_init(&t);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair[i]), 0);
        c[i] = connections_add(&t, pair[i][0]);
        assert_non_null(c[i]);
    }
    connection_set(c[1], WAIT_BODY);
    connection_set(c[2], WAIT_ENGINE); // ours to end, not the clock's
    connection_set(c[3], WAIT_CLIENT);
    uint64_t now = clock_ns();
    assert_int_equal(connections_reap(&t, now + 30ull * SECOND), 0);
    assert_int_equal(connections_reap(&t, now + 100ull * SECOND), 3);
    assert_int_equal(connections_reap(&t, now + 200ull * SECOND), 0); // once is enough
    for (int i = 0; i < 4; i++) {
        assert_int_equal(is_shut(pair[i][1]), i != 2);
        connections_remove(&t, c[i]);
        close(pair[i][0]);
        close(pair[i][1]);
    }
    assert_int_equal(t.n, 0);
    connections_deinit(&t);
}

static void progress_moves_the_limit(void **state)
{
    (void)state;
    struct connections t;
    int pair[2];
    connections_init(&t);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct connection *c = connections_add(&t, pair[0]);
    uint64_t late = clock_ns() + 100ull * SECOND;
    connection_set(c, WAIT_ENGINE);
    assert_int_equal(connections_reap(&t, late), 0);
    connection_set(c, WAIT_REQUEST);
    assert_int_equal(connections_reap(&t, late), 1);
    connections_remove(&t, c);
    connections_remove(&t, NULL);
    connection_set(NULL, WAIT_BODY);
    close(pair[0]);
    close(pair[1]);
    connections_deinit(&t);
}

// At a stop: who waits for long is told to go, who has just been answered or has sent something is not.
static void those_that_rest_are_settled(void **state)
{
    (void)state;
    enum { RESTS, FRESH, SENT, BUSY, N };
    struct connections t;
    struct connection *c[N];
    int pair[N][2];
    connections_init(&t);
    const uint64_t now = clock_ns(), later = now + 3ull * SECOND;
    for (int i = 0; i < N; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair[i]), 0);
        c[i] = connections_add(&t, pair[i][0]);
        assert_non_null(c[i]);
    }
    atomic_store(&c[FRESH]->waiting_ns, later - SECOND);
    assert_int_equal(send(pair[SENT][1], "G", 1, 0), 1);
    connection_set(c[BUSY], WAIT_ENGINE);
    assert_int_equal(connections_settle(&t, now), N);
    assert_false(connection_ended(c[RESTS]));
    assert_int_equal(connections_settle(&t, later), N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(connection_ended(c[i]), i == RESTS);
        assert_int_equal(is_shut(pair[i][1]), i == RESTS);
    }
    assert_int_equal(send(pair[RESTS][1], "G", 1, MSG_NOSIGNAL), 1); // it may still say something
    connections_settle(&t, later + SECOND);
    assert_int_equal(send(pair[RESTS][1], "G", 1, MSG_NOSIGNAL), -1); // and no more
    for (int i = 0; i < N; i++) {
        connections_remove(&t, c[i]);
        close(pair[i][0]);
        close(pair[i][1]);
    }
    assert_int_equal(connections_settle(&t, later), 0);
    connections_deinit(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_wait_has_its_limit),
        cmocka_unit_test(progress_moves_the_limit),
        cmocka_unit_test(those_that_rest_are_settled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
