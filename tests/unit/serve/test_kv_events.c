// serve/kv_events over real sockets, with an engine that the test plays: numbers that begin again, and a
// cache that is larger than the list of what waits.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <unistd.h>

#include "serve/kv_events.h"
#include "serve/zmq_api.h"

enum { PAGE = 4, WAIT_MS = 5000 };

// ---- the engine ---------------------------------------------------------------------------------

static cache_listener *listener;
static void *listener_arg;
static uint64_t n_cached;       // pages 1 to n, each below the one before
static _Atomic uint64_t n_disk; // the same pages of the disk
static uint64_t n_told;         // of the disk; the thread's of kv_events

static void tell_of(enum cache_tier tier, cache_listener *to, void *arg, uint64_t hash)
{
    const int32_t tokens[PAGE] = {(int32_t)hash, 1, 2, 3};
    const struct cache_event ev = {.tier = tier,
                                   .hash = hash,
                                   .parent = hash - 1,
                                   .tokens = tokens,
                                   .n_tokens = PAGE,
                                   .salt = STR("")};
    to(arg, &ev);
}

static void tell(cache_listener *to, void *arg, uint64_t hash)
{
    tell_of(CACHE_DEVICE, to, arg, hash);
}

bool engine_cache_announce(struct engine *en, cache_listener *to, void *arg, struct err *e)
{
    (void)en;
    (void)e;
    for (uint64_t i = 1; i <= n_cached; i++) tell(to, arg, i);
    return true;
}

bool engine_cache_listen(struct engine *en, cache_listener *to, void *arg, struct err *e)
{
    listener = to;
    listener_arg = arg;
    return to == NULL || engine_cache_announce(en, to, arg, e);
}

bool engine_cache_told_open(struct cache_told **out, struct engine *en, struct err *e)
{
    (void)en;
    (void)e;
    n_told = 0;
    *out = n_disk > 0 ? (struct cache_told *)(void *)&n_told : NULL;
    return true;
}

void cache_told_close(struct cache_told *c)
{
    (void)c;
}

void cache_told_name(struct cache_told *c, struct str salt)
{
    (void)c;
    assert_int_equal(salt.n, 0); // no page of these has one
}

bool cache_told_turn(struct cache_told *c, size_t most, cache_listener *to, void *arg)
{
    if (c == NULL) return false;
    for (; n_told > n_disk; n_told--) {
        const struct cache_event ev = {.removed = true, .tier = CACHE_DISK, .hash = n_told};
        to(arg, &ev);
    }
    for (size_t n = 0; n < most && n_told < n_disk; n++) tell_of(CACHE_DISK, to, arg, ++n_told);
    return n_told < n_disk;
}

void cache_told_again(struct cache_told *c, cache_listener *to, void *arg)
{
    for (uint64_t i = 1; c != NULL && i <= n_told; i++) tell_of(CACHE_DISK, to, arg, i);
}

void cache_told_forget(struct cache_told *c)
{
    (void)c;
    n_told = 0;
}

// ---- a reader -----------------------------------------------------------------------------------

struct reader {
    const struct zmq_api *zmq;
    void *context, *socket;
    uint64_t number, n_blocks, n_cleared;
    uint64_t n_stored; // blocks on disk: the hashes up to it
    bool replays;      // an empty frame comes before each batch
};

static void reader_open(struct reader *r, int type, const char *address)
{
    struct err e = {0};
    const int wait = WAIT_MS, most = 0;
    *r = (struct reader){.zmq = zmq_api_open(&e), .replays = type == ZMQ_DEALER};
    if (r->zmq == NULL) fail_msg("%s", e.msg);
    r->context = r->zmq->ctx_new();
    r->socket = r->zmq->socket(r->context, type);
    r->zmq->setsockopt(r->socket, ZMQ_RCVTIMEO, &wait, sizeof wait);
    r->zmq->setsockopt(r->socket, ZMQ_RCVHWM, &most, sizeof most);
    r->zmq->setsockopt(r->socket, ZMQ_LINGER, &most, sizeof most);
    if (type == ZMQ_SUB) r->zmq->setsockopt(r->socket, ZMQ_SUBSCRIBE, "", 0);
    assert_int_equal(r->zmq->connect(r->socket, address), 0);
}

static void reader_close(struct reader *r)
{
    r->zmq->close(r->socket);
    r->zmq->ctx_term(r->context);
}

static uint64_t big_endian(const char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v = v << 8 | (unsigned char)p[i];
    return v;
}

// The hashes behind one "block_hashes" of a batch: an array of numbers of 64 bits (0xcf). The whole
// format is read by tests/e2e/kv_events.test.mjs.
static void take_hashes(struct reader *r, const char *p, bool removed, bool disk)
{
    const unsigned char head = (unsigned char)*p;
    const bool is_short = (head & 0xf0) == 0x90;
    assert_true(is_short || head == 0xdc);
    const uint64_t n = is_short ? head & 0x0f : big_endian(p + 1, 2);
    p += is_short ? 1 : 3;
    for (uint64_t i = 0; i < n; i++, p += 9) {
        assert_int_equal((unsigned char)*p, 0xcf);
        const uint64_t hash = big_endian(p + 1, 8);
        if (disk) {
            assert_int_equal(hash, removed ? r->n_stored-- : ++r->n_stored);
            continue;
        }
        if (r->n_blocks == 0 && r->n_cleared == 0) // it did not listen from the beginning
            r->n_blocks = hash - 1;
        assert_int_equal(hash, ++r->n_blocks); // parents first
    }
}

static void take_events(struct reader *r, struct str payload)
{
    const struct str name = STR("block_hashes");
    if (str_find(payload, STR("AllBlocksCleared"), 0) != SIZE_MAX) {
        r->n_cleared++;
        r->n_blocks = r->n_stored = 0;
    }
    for (size_t at = 0, before = 0; (at = str_find(payload, name, at)) != SIZE_MAX; before = at) {
        const size_t removed = str_find(payload, STR("BlockRemoved"), before);
        const size_t disk = str_find(payload, STR("STORAGE"), at),
                     gpu = str_find(payload, STR("GPU"), at);
        const bool is_removed = removed < at;
        at += name.n;
        take_hashes(r, payload.p + at, is_removed, disk < gpu);
    }
}

// The next batch; its number is in r. False: the end mark of a replay.
static bool take(struct reader *r)
{
    static char payload[64 << 20];
    char frames[3][256] = {{0}};
    uint64_t number;
    int more = 1, n_frames = r->replays ? -1 : 0, n = 0;
    size_t size = sizeof more;
    while (more) {
        char *room = n_frames == 2 ? payload : frames[n_frames < 0 ? 0 : n_frames];
        const size_t most = n_frames == 2 ? sizeof payload : sizeof frames[0];
        n = r->zmq->recv(r->socket, room, most, 0);
        if (n < 0) fail_msg("nothing came: %s", r->zmq->strerror(errno));
        assert_true((size_t)n <= most);
        r->zmq->getsockopt(r->socket, ZMQ_RCVMORE, &more, &size);
        n_frames++;
    }
    memcpy(&number, frames[1], sizeof number);
    if (number == UINT64_MAX && n == 0) return false;
    r->number = be64toh(number);
    take_events(r, (struct str){payload, (size_t)n});
    return true;
}

// ---- the tests ----------------------------------------------------------------------------------

static struct kv_events *events_open(char pub[80], char replay[80], uint64_t numbers_max)
{
    static int n;
    struct err e = {0};
    struct kv_events *k = NULL;
    snprintf(pub, 80, "ipc:///tmp/submind-kv-%d-%d", (int)getpid(), ++n);
    snprintf(replay, 80, "ipc:///tmp/submind-kv-%d-%d", (int)getpid(), ++n);
    const struct kv_events_settings s = {.address = pub,
                                         .replay = replay,
                                         .endpoint = STR("127.0.0.1:1"),
                                         .model = STR("m"),
                                         .numbers_max = numbers_max};
    if (!kv_events_open(&k, NULL, &s, &e)) fail_msg("%s", e.msg);
    return k;
}

// ZeroMQ takes ipc's files away itself, but not at once.
static void events_close(struct kv_events *k, const char *pub, const char *replay)
{
    kv_events_close(k);
    unlink(pub + strlen("ipc://"));
    unlink(replay + strlen("ipc://"));
}

// Asks for all from a number on; returns the number behind the last one.
static uint64_t replay_from(struct reader *r, uint64_t from)
{
    const uint64_t wire = htobe64(from);
    assert_int_equal(r->zmq->send(r->socket, "", 0, ZMQ_SNDMORE), 0);
    assert_int_equal(r->zmq->send(r->socket, &wire, sizeof wire, 0), sizeof wire);
    while (take(r)) assert_int_equal(r->number, from++);
    return from;
}

// Who has just connected may miss batches: there are more until it sees one.
static void wait_for_reader(struct reader *r)
{
    zmq_pollitem_t item = {.socket = r->socket, .events = ZMQ_POLLIN};
    for (int i = 0; i < WAIT_MS / 20; i++) {
        tell(listener, listener_arg, ++n_cached);
        if (r->zmq->poll(&item, 1, 20) == 1) return;
    }
    fail_msg("the reader sees nothing");
}

static void numbers_begin_again(void **state)
{
    (void)state;
    enum { MOST = 20 };
    char pub[80], replay[80];
    struct reader r, late;
    n_cached = 3;
    struct kv_events *k = events_open(pub, replay, MOST);
    reader_open(&r, ZMQ_SUB, pub);
    wait_for_reader(&r);
    uint64_t last = 0;
    bool again = false;
    assert_true(take(&r));
    r.n_cleared = 0;
    for (int i = 0; i < 3 * MOST && !again; i++) {
        last = r.number;
        tell(listener, listener_arg, ++n_cached);
        assert_true(take(&r));
        again = r.number < last;
        assert_true(again || r.number == last + 1);
    }
    assert_true(again && r.number == 0 && r.n_cleared == 1);
    assert_true(last + 1 >= MOST);
    assert_int_equal(r.n_blocks, n_cached); // all there is
    reader_open(&late, ZMQ_DEALER, replay);
    assert_int_equal(replay_from(&late, 0), 1);
    assert_int_equal(late.n_blocks, n_cached);
    reader_close(&late);
    reader_close(&r);
    events_close(k, pub, replay);
}

// Of batches that are no longer kept the numbers come empty, and all pages with the last one.
static void a_replay_from_long_ago_has_all(void **state)
{
    (void)state;
    enum { KEPT = 1024 };
    char pub[80], replay[80];
    struct reader r, late;
    n_cached = 3;
    struct kv_events *k = events_open(pub, replay, 0);
    reader_open(&r, ZMQ_SUB, pub);
    wait_for_reader(&r);
    assert_true(take(&r));
    while (r.number < KEPT + 100) {
        const uint64_t last = r.number;
        tell(listener, listener_arg, ++n_cached);
        assert_true(take(&r));
        assert_int_equal(r.number, last + 1);
    }
    reader_open(&late, ZMQ_DEALER, replay);
    assert_int_equal(replay_from(&late, 0), r.number + 1);
    assert_int_equal(late.n_blocks, n_cached);
    assert_int_equal(late.n_cleared, 1); // whatever it knew may have gone meanwhile
    reader_close(&late);
    reader_close(&r);
    events_close(k, pub, replay);
}

// More pages than the list of what waits may have: nothing of it is left out.
static void a_large_cache_is_told_whole(void **state)
{
    (void)state;
    enum { PAGES = 70000 };
    char pub[80], replay[80];
    struct reader r;
    n_cached = PAGES;
    struct kv_events *k = events_open(pub, replay, 0);
    reader_open(&r, ZMQ_DEALER, replay);
    uint64_t next = 0;
    for (int i = 0; i < WAIT_MS / 20 && r.n_blocks < PAGES; i++, usleep(20000))
        next = replay_from(&r, next); // it is being told meanwhile
    assert_int_equal(r.n_blocks, PAGES);
    reader_close(&r);
    events_close(k, pub, replay);
}

// What lies on disk follows what is on the device, under its own medium, also when all is told anew and in a replay of
// what is no longer kept; and leaves under it.
static void the_disk_is_told_behind_the_device(void **state)
{
    (void)state;
    enum { DISK = 700, KEPT = 1024 };
    char pub[80], replay[80];
    struct reader r, late;
    n_cached = 3;
    n_disk = DISK;
    struct kv_events *k = events_open(pub, replay, KEPT + 200);
    reader_open(&r, ZMQ_DEALER, replay);
    uint64_t next = 0;
    for (int i = 0; i < WAIT_MS / 20 && r.n_stored < DISK; i++, usleep(20000))
        next = replay_from(&r, next);
    assert_int_equal(r.n_stored, DISK);
    assert_int_equal(r.n_blocks, 3);
    while (next < KEPT + 100) { // the first ones are kept no more
        tell(listener, listener_arg, ++n_cached);
        next = replay_from(&r, next);
    }
    reader_open(&late, ZMQ_DEALER, replay);
    replay_from(&late, 0);
    assert_int_equal(late.n_stored, DISK);
    assert_int_equal(late.n_blocks, n_cached);
    reader_close(&late);
    n_disk = DISK - 2;
    for (int i = 0; i < WAIT_MS / 20 && r.n_stored != DISK - 2; i++, usleep(20000))
        next = replay_from(&r, next);
    assert_int_equal(r.n_stored, DISK - 2);
    reader_close(&r);
    events_close(k, pub, replay);
    n_disk = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_begin_again),
        cmocka_unit_test(a_replay_from_long_ago_has_all),
        cmocka_unit_test(a_large_cache_is_told_whole),
        cmocka_unit_test(the_disk_is_told_behind_the_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
