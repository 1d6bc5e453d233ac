// The small parts of base/: errors, arena, files, hash, events.
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/event.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/size.h"

static void first_error_wins_and_can_be_prefixed(void **state)
{
    (void)state;
    struct err e = {0};
    assert_false(err_set(&e, ERR_FORMAT, "value %d", 7));
    assert_false(err_set(&e, ERR_IO, "later"));
    err_prefix(&e, "file %s: ", "a.gguf");
    assert_int_equal(e.code, ERR_FORMAT);
    assert_string_equal(e.msg, "file a.gguf: value 7");
    assert_int_equal(err_http_status(ERR_FULL), 429);
    assert_int_equal(err_exit_code(ERR_TIMEOUT), 124);
    assert_string_equal(err_name(ERR_AUTH), "authentication_error");
    assert_false(err_set(NULL, ERR_IO, "nobody listens"));
}

static void long_messages_are_cut_not_overrun(void **state)
{
    (void)state;
    struct err e = {0};
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    err_set(&e, ERR_IO, "%s", text);
    err_prefix(&e, "%s", text);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
}

static void arena_zeroes_aligns_and_limits(void **state)
{
    (void)state;
    struct arena a = {.limit_bytes = 100000};
    size_t got = 0;
    for (unsigned char *p; (p = arena_alloc(&a, 1000)) != NULL; got += 1000) {
        assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
        for (int i = 0; i < 1000; i++) assert_int_equal(p[i], 0);
        memset(p, 0xff, 1000);
    }
    assert_true(got >= 50000 && got <= 100000);
    assert_null(arena_array(&a, SIZE_MAX / 2, 4));
    arena_free(&a);
    assert_int_equal(a.used_bytes, 0);
    struct str s = arena_str(&a, STR("copy"));
    assert_string_equal(s.p, "copy");
    arena_free(&a);
}

static void sizes_do_not_overflow(void **state)
{
    (void)state;
    size_t n = 5;
    assert_false(size_mul(&n, SIZE_MAX, 2));
    assert_false(size_add(&n, SIZE_MAX, 1));
    assert_true(size_mul(&n, 6, 7) && n == 42);
}

static void files_are_mapped_and_read_with_bounds(void **state)
{
    (void)state;
    char path[] = "/tmp/submind-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, "hello", 5) == 5);
    close(fd);
    struct err e = {0};
    struct file_map m;
    assert_true(file_map(&m, path, &e) && m.n == 5 && memcmp(m.p, "hello", 5) == 0);
    file_unmap(&m);
    assert_null(m.p);
    struct buf b = {0};
    assert_true(file_read(&b, path, 5, &e) && b.n == 5);
    assert_false(file_read(&b, path, 4, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    buf_free(&b);
    unlink(path);
    e = (struct err){0};
    assert_false(file_map(&m, path, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, path));
    e = (struct err){0};
    assert_false(file_map(&m, "/tmp", &e));
    assert_non_null(strstr(e.msg, "/tmp is a folder; name a file in it"));
    e = (struct err){0};
    assert_false(file_map(&m, "/dev/null", &e));
    assert_non_null(strstr(e.msg, "/dev/null is not a regular file"));
}

// Expected values: XXH3 of the empty input, as the xxHash specification prints them.
static void hash_is_xxh3(void **state)
{
    (void)state;
    assert_true(hash64("", 0, 0) == 0x2d06800538d394c2u);
    struct hash128 h = hash128("", 0, 0);
    assert_true(h.lo == 0x6001c324468d497fu && h.hi == 0x99aa06d3014798d8u);
}

// However the bytes are cut, and at every alignment.
static void a_stream_hashes_as_the_whole(void **state)
{
    (void)state;
    enum { N = 5000 };
    unsigned char bytes[N];
    for (size_t i = 0; i < N; i++) bytes[i] = (unsigned char)(i * i * 31 + i);
    for (size_t n = 0; n < N; n += 1 + n / 3) {
        for (size_t cut = 0; cut <= n; cut += 1 + cut) {
            struct hash_stream s;
            hash_stream_begin(&s);
            hash_stream_add(&s, bytes, cut);
            hash_stream_add(&s, bytes + cut, n - cut);
            const struct hash128 a = hash_stream_end(&s), b = hash128(bytes, n, 0);
            assert_true(a.lo == b.lo && a.hi == b.hi);
        }
    }
}

static void events_wake_a_poll_once(void **state)
{
    (void)state;
    struct err e = {0};
    struct event ev;
    assert_true(event_open(&ev, &e));
    struct pollfd p = {.fd = ev.fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    event_signal(&ev);
    event_signal(&ev);
    assert_int_equal(poll(&p, 1, 0), 1);
    event_clear(&ev);
    assert_int_equal(poll(&p, 1, 0), 0);
    event_close(&ev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_error_wins_and_can_be_prefixed),
        cmocka_unit_test(long_messages_are_cut_not_overrun),
        cmocka_unit_test(arena_zeroes_aligns_and_limits),
        cmocka_unit_test(sizes_do_not_overflow),
        cmocka_unit_test(files_are_mapped_and_read_with_bounds),
        cmocka_unit_test(hash_is_xxh3),
        cmocka_unit_test(a_stream_hashes_as_the_whole),
        cmocka_unit_test(events_wake_a_poll_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
