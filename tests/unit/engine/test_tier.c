// The tiers below the device, over the fake network: a page that came back wrong, in the wrong place or
// too early would change an answer, and every answer must equal what the network gives when nothing
// else runs.
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/store_files.h"
#include "engine/tier_choice.h"
#include "lib/rig.h"

enum { PAGE = 4, LEN = 401, TRUNK = 400 }; // 100 pages and a token

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/submind-tier-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

// Until so many pages are on disk.
static void wait_saved(const struct rig *r, uint64_t n)
{
    const uint64_t start = clock_ns();
    while (rig_stats(r).tiers.disk_pages < n) {
        if (clock_ms_since(start) > 20000) fail_msg("fewer than %llu pages saved", (long long)n);
        clock_sleep_ms(1);
    }
}

// Fails the test where the answer is not the network's; gives out what was said about the cache.
static struct outcome expect(struct rig *r, const struct job *job)
{
    struct outcome o = rig_run(r, job);
    assert_int_equal(o.error.code, ERR_NONE);
    assert_int_equal(o.n, job->max_tokens);
    assert_true(outcome_is_alone(&o, job->ids, job->n_ids));
    const struct outcome bare = {.status = o.status};
    outcome_free(&o);
    return bare;
}

// Computing takes its time, so that loading is the quicker way on the busiest machine too.
static const struct rig_settings on_disk = {.cache_dir = dir, .n_pages = 256, .delay_us = 30000};

static void what_was_computed_comes_back_after_a_restart(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 1);
    const struct job job = greedy_job(ids, LEN, 12);
    rig_open(&r, &on_disk);
    struct outcome o = expect(&r, &job);
    assert_int_equal(o.status.n_cached, 0);
    rig_close(&r); // what is not saved yet is saved now
    rig_open(&r, &on_disk);
    o = expect(&r, &job);
    assert_int_equal(o.status.n_cached, TRUNK);
    assert_int_equal(o.status.cache.n_disk, TRUNK);
    assert_int_equal(o.status.cache.n_ram, 0);
    assert_true(o.status.cache.restored_ms > 0);
    assert_int_equal(rig_stats(&r).prefill_tokens, 1);
    assert_int_equal(rig_stats(&r).tiers.disk_tokens, TRUNK);
    o = expect(&r, &job); // now from the device
    assert_int_equal(o.status.n_cached, TRUNK);
    assert_int_equal(o.status.cache.n_disk, 0);
    rig_close(&r);
}

// What comes back from disk goes to host memory as well, but not before the step that waited for it.
static void nothing_goes_down_before_the_first_token(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    struct rig_settings s = on_disk;
    s.ram_bytes = 1 << 20;
    fill_tokens(ids, LEN, 19);
    const struct job job = greedy_job(ids, LEN, 1);
    rig_open(&r, &s);
    expect(&r, &job);
    rig_close(&r);
    rig_open(&r, &s);
    atomic_store(&r.net->hold, true);
    struct stream *stream = rig_submit(&r, &job);
    wait_held(r.net);
    assert_int_equal(atomic_load(&r.n_page_reads), 0);
    atomic_store(&r.net->hold, false);
    struct outcome o = outcome_wait(stream);
    assert_int_equal(o.status.cache.n_disk, TRUNK);
    outcome_free(&o);
    rig_close(&r);
    assert_true(atomic_load(&r.n_page_reads) > 0);
}

// Somebody always waits, for a long prompt or one after the other: saving goes on all the same after a while.
static void first_tokens_hold_saving_back_for_a_while(void **state)
{
    enum { STEPS = 20 };
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    struct rig_settings s = on_disk;
    s.prefill_rows = 4;
    s.delay_us = 10000;
    s.patience_ms = 50; // fewer than STEPS take
    fill_tokens(ids, LEN, 20);
    const struct job job = greedy_job(ids, LEN, 1);
    rig_open(&r, &s);
    struct stream *stream = rig_submit(&r, &job);
    wait_steps(r.net, STEPS);
    atomic_store(&r.net->hold, true);
    wait_held(r.net);
    struct stream_status status;
    stream_status(stream, &status);
    assert_int_equal(status.stage, STAGE_PREFILL);
    assert_true(atomic_load(&r.n_page_reads) > 0);
    atomic_store(&r.net->delay_us, 0);
    atomic_store(&r.net->hold, false);
    struct outcome o = outcome_wait(stream);
    outcome_free(&o);
    rig_close(&r);
}

// The last page of a text is not full, or the texts part within it: its beginning comes back all the same.
static void the_beginning_of_a_page_comes_back(void **state)
{
    enum { MORE = LEN + 2 }; // 100 pages and three tokens
    (void)state;
    struct rig r;
    int32_t ids[MORE + 8];
    fill_tokens(ids, MORE + 8, 18);
    struct job job = greedy_job(ids, MORE, 1);
    rig_open(&r, &on_disk);
    expect(&r, &job);
    rig_close(&r);
    rig_open(&r, &on_disk);
    struct outcome o = expect(&r, &job);
    assert_int_equal(o.status.n_cached, MORE - 1);
    assert_int_equal(o.status.cache.n_disk, MORE - 1);
    assert_int_equal(rig_stats(&r).prefill_tokens, 1);
    rig_close(&r);
    ids[MORE - 1]++; // another text
    job = greedy_job(ids, MORE + 8, 1);
    rig_open(&r, &on_disk);
    assert_int_equal(expect(&r, &job).status.n_cached, MORE - 1);
    rig_close(&r);
    job.cache_salt = STR("somebody else");
    rig_open(&r, &on_disk);
    assert_int_equal(expect(&r, &job).status.n_cached, 0);
    rig_close(&r);
    job = greedy_job(ids, MORE + 4,
                     1); // a whole page was saved by then: its beginning, from disk alone
    ids[MORE + 3]++;
    rig_open(&r, &on_disk);
    assert_int_equal(expect(&r, &job).status.n_cached, MORE + 3);
    rig_close(&r);
}

static void wait_prepared(struct rig *r, uint32_t n)
{
    const uint64_t start = clock_ns();
    while (atomic_load(&r->n_prepared) < n) {
        if (clock_ms_since(start) > 20000) fail_msg("memory of fewer than %u pages is taken", n);
        clock_sleep_ms(1);
    }
    clock_sleep_ms(5);
    assert_int_equal(atomic_load(&r->n_prepared), n);
}

// Of as many pages as one request can bring back, and not of all the device has.
static void memory_is_taken_before_pages_come_back(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 15);
    const struct job job = greedy_job(ids, LEN, 1);
    struct rig_settings s = on_disk;
    rig_open(&r, &s);
    expect(&r, &job);
    wait_saved(&r, 100);
    assert_int_equal(atomic_load(&r.n_prepared), 0); // nothing was on disk
    rig_close(&r);
    rig_open(&r, &s);
    wait_prepared(&r, 100);
    expect(&r, &job);
    rig_close(&r);
    s.n_ctx = 200;
    rig_open(&r, &s);
    wait_prepared(&r, 50);
    rig_close(&r);
}

// Through the threads that encode: the same answers from host memory and from disk; neither kind of page is found
// where the other is looked for.
static void encoded_pages_come_back(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 16);
    const struct job job = greedy_job(ids, LEN, 5);
    struct rig_settings s = on_disk;
    s.encoded = true;
    for (int mapped = 0; mapped < 2; mapped++) {
        s.mapped = mapped;
        for (int start = mapped; start < 2; start++) {
            rig_open(&r, &s);
            const struct outcome o = expect(&r, &job);
            assert_int_equal(o.status.cache.n_disk, start == 0 ? 0 : TRUNK);
            rig_close(&r);
        }
    }
    s.encoded = false;
    rig_open(&r,
             &s); // the rig has one family for both, so it is the records that say what they are
    assert_int_equal(expect(&r, &job).status.cache.n_disk, 0);
    rig_close(&r);
}

// A fork of a process under ThreadSanitizer cannot start threads.
#if defined(__SANITIZE_THREAD__)
#define FORK_HAS_NO_THREADS 1
#else
#define FORK_HAS_NO_THREADS 0
#endif

static int compute_and_die(void)
{
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 2);
    const struct job job = greedy_job(ids, LEN, 1);
    rig_open(&r, &on_disk);
    struct outcome o = rig_run(&r, &job);
    if (!outcome_is_alone(&o, ids, LEN)) return 1;
    wait_saved(&r, 100);
    return 0; // and nothing is closed
}

static void what_was_saved_before_a_crash_comes_back(void **state)
{
    (void)state;
    if (FORK_HAS_NO_THREADS) skip();
    int status;
    const pid_t pid = fork();
    if (pid == 0) _exit(compute_and_die());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 2);
    const struct job job = greedy_job(ids, LEN, 5);
    rig_open(&r, &on_disk);
    assert_int_equal(expect(&r, &job).status.cache.n_disk, TRUNK);
    rig_close(&r);
}

// The tree's pages from before the fingerprint was known.
static void pages_wait_for_a_late_store(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 3);
    const struct job job = greedy_job(ids, LEN, 1);
    struct rig_settings s = on_disk;
    s.late = true;
    rig_open(&r, &s);
    expect(&r, &job);
    assert_false(rig_stats(&r).tiers.disk_open);
    rig_attach(&r);
    wait_saved(&r, 100);
    rig_close(&r);
    rig_open(&r, &on_disk);
    assert_int_equal(expect(&r, &job).status.cache.n_disk, TRUNK);
    rig_close(&r);
}

static void salts_keep_apart_on_disk_too(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 4);
    struct job job = greedy_job(ids, LEN, 1);
    job.cache_salt = STR("a");
    rig_open(&r, &on_disk);
    expect(&r, &job);
    rig_close(&r);
    rig_open(&r, &on_disk);
    job.cache_salt = STR("b");
    assert_int_equal(expect(&r, &job).status.n_cached, 0);
    job.cache_salt = STR("a");
    assert_int_equal(expect(&r, &job).status.cache.n_disk, TRUNK);
    rig_close(&r);
}

// Eight that come together after a restart: one loads, the others join.
static void a_trunk_is_loaded_once(void **state)
{
    (void)state;
    enum { N = 8 };
    struct rig r;
    int32_t ids[N][LEN + 20];
    struct stream *streams[N];
    struct job jobs[N];
    for (int i = 0; i < N; i++) {
        fill_tokens(ids[i], TRUNK, 5);
        fill_tokens(ids[i] + TRUNK, 21, (uint64_t)100 + (uint64_t)i);
        jobs[i] = greedy_job(ids[i], LEN + 20, 6);
    }
    rig_open(&r, &on_disk);
    expect(&r, &jobs[0]);
    rig_close(&r);
    rig_open(&r, &on_disk);
    for (int i = 0; i < N; i++) streams[i] = rig_submit(&r, &jobs[i]);
    for (int i = 0; i < N; i++) {
        struct outcome o = outcome_wait(streams[i]);
        assert_true(outcome_is_alone(&o, ids[i], LEN + 20));
        assert_true(o.status.n_cached >= TRUNK);
        outcome_free(&o);
    }
    assert_true(rig_stats(&r).tiers.disk_tokens <= TRUNK + 20);
    assert_true(rig_stats(&r).prefill_tokens <= N * 21);
    rig_close(&r);
}

static void flip_bits(uint64_t seed)
{
    struct buf path = {0};
    store_family_path(&path, dir, (struct hash128){3, 4});
    buf_z(&path, "/seg-00000001");
    FILE *f = fopen(buf_cstr(&path), "r+b");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    const uint64_t n = (uint64_t)ftell(f);
    for (uint64_t k = 0; k < 5; k++) {
        const uint64_t h = hash64(&k, sizeof k, seed);
        fseek(f, (long)(h % n), SEEK_SET);
        const int c = fgetc(f);
        fseek(f, (long)(h % n), SEEK_SET);
        fputc(c ^ 1 << (h >> 40) % 8, f);
    }
    fclose(f);
    buf_free(&path);
}

// Five bits anywhere: what verifies is used, the rest computed again, saved again, and in the end all is
// well: each start meets one damage at least.
static void damaged_pages_are_computed_again(void **state)
{
    (void)state;
    uint64_t bad = 0, restored = 0;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 6);
    const struct job job = greedy_job(ids, LEN, 4);
    rig_open(&r, &on_disk);
    expect(&r, &job);
    rig_close(&r);
    for (uint64_t round = 0; round < 12; round++) {
        flip_bits(round);
        uint32_t n_disk = 0;
        for (int start = 0; start < 6 && n_disk < TRUNK;
             start++) { // a damage is met when it is read
            rig_open(&r, &on_disk);
            n_disk = expect(&r, &job).status.cache.n_disk;
            restored += n_disk;
            bad += rig_stats(&r).tiers.bad;
            rig_close(&r);
        }
        assert_int_equal(n_disk, TRUNK);
    }
    assert_true(bad >= 5 && restored > 0);
}

// More text than the device holds: what it gives up is in host memory.
static void overflow_to_host_memory(bool encoded)
{
    enum { N = 6, N_PAGES = 60, EACH = 161 }; // 40 pages each
    struct rig r;
    int32_t ids[N][EACH];
    rig_open(&r,
             &(struct rig_settings){
                 .n_pages = N_PAGES, .ram_bytes = 1 << 20, .encoded = encoded, .delay_us = 20000});
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < N; i++) {
            fill_tokens(ids[i], EACH, (uint64_t)50 + (uint64_t)i);
            const struct job job = greedy_job(ids[i], EACH, 3);
            const struct outcome o = expect(&r, &job);
            if (round == 0) continue;
            assert_int_equal(o.status.n_cached, EACH - 1);
            assert_true(o.status.cache.n_ram > 0);
            assert_int_equal(o.status.cache.n_disk, 0);
        }
    assert_int_equal(rig_stats(&r).prefill_tokens, N * EACH + 2 * N);
    assert_true(rig_stats(&r).tiers.ram_pages >= N * 40);
    rig_close(&r);
}

static void host_memory_takes_what_the_device_gives_up(void **state)
{
    (void)state;
    overflow_to_host_memory(false);
    overflow_to_host_memory(true);
}

static void set_rate(struct loop *l, void *arg)
{
    for (int i = 0; i < TIER_SOURCES; i++) l->tier->bps[i] = *(const double *)arg;
}

// Loading that is slower than computing is left alone.
static void a_slow_disk_is_not_waited_for(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN], other[64];
    double bps = 1;
    struct err e = {0};
    fill_tokens(ids, LEN, 7);
    fill_tokens(other, 64, 8);
    const struct job job = greedy_job(ids, LEN, 1), first = greedy_job(other, 64, 1);
    rig_open(&r, &on_disk);
    expect(&r, &job);
    rig_close(&r);
    rig_open(&r, &on_disk);
    expect(&r, &first); // now a speed is known
    assert_true(loop_call(r.loop, set_rate, &bps, &e));
    assert_int_equal(expect(&r, &job).status.cache.n_disk, 0);
    rig_close(&r);
}

// A disk about as quick as computing: each does its part at once, and both together are one prompt.
static void pages_come_while_those_before_are_computed(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN], other[LEN];
    struct err e = {0};
    fill_tokens(ids, LEN, 16);
    fill_tokens(other, LEN, 17);
    const struct job job = greedy_job(ids, LEN, 3), first = greedy_job(other, LEN, 1);
    struct rig_settings s = on_disk; // 64 tokens in 30 ms
    rig_open(&r, &s);
    expect(&r, &job);
    rig_close(&r);
    s.page_delay_us = 5000;
    rig_open(&r, &s);
    expect(&r, &first);
    const uint64_t before = rig_stats(&r).prefill_tokens;
    double bps = (double)r.loop->tier->record_stride / (PAGE * 0.030 / 64);
    assert_true(loop_call(r.loop, set_rate, &bps, &e));
    const struct outcome o = expect(&r, &job);
    assert_in_range(o.status.cache.n_disk, TRUNK / 5, TRUNK * 4 / 5);
    assert_int_equal(o.status.n_cached, o.status.cache.n_disk);
    assert_int_equal(rig_stats(&r).prefill_tokens - before, LEN - o.status.n_cached);
    rig_close(&r);
    s.page_delay_us = 50000;
    rig_open(&r, &s); // and one that ends while they come
    struct stream *gone = rig_submit(&r, &job);
    wait_steps(r.net, 1);
    stream_close(gone);
    rig_close(&r);
}

static bool push_out_of_memory(void)
{
    struct buf path = {0};
    store_family_path(&path, dir, (struct hash128){3, 4});
    buf_z(&path, "/seg-00000001");
    const int fd = open(buf_cstr(&path), O_RDONLY);
    assert_true(fd >= 0 && fdatasync(fd) == 0);
    const size_t n = (size_t)lseek(fd, 0, SEEK_END);
    void *map = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char there[64];
    uint32_t n_out = 0; // looks in a row: what is being read ahead comes in meanwhile
    assert_true(map != MAP_FAILED && n <= sizeof there * 4096);
    for (int k = 0; k < 40 && n_out < 4; k++) {
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        clock_sleep_ms(10);
        assert_int_equal(mincore(map, n, there), 0);
        bool any = false;
        for (size_t i = 0; i < (n + 4095) / 4096; i++) any |= (there[i] & 1) != 0;
        n_out = any ? 0 : n_out + 1;
    }
    munmap(map, n);
    close(fd);
    buf_free(&path);
    return n_out == 4;
}

// A disk that is busy with some pages gives each of more at once later, and it is the first ones that are of use. Pages that
// the system has in memory are brought by all threads.
static void a_disk_is_asked_for_a_few_pages_at_once(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 21);
    const struct job job = greedy_job(ids, LEN, 1);
    struct rig_settings s = on_disk;
    s.mapped = true; // no page comes at start then
    s.far_at_once = 2;
    rig_open(&r, &s);
    expect(&r, &job);
    rig_close(&r);
    s.page_delay_us = 1000;
    bool out = true;
    uint32_t far_most = UINT32_MAX;
    // What the system reads ahead of the first pages may be in memory before the others are looked at, so that these
    // are near: not each time.
    for (int k = 0; k < 6 && out && far_most > 2; k++) {
        rig_open(&r, &s);           // reads all headers
        out = push_out_of_memory(); // or the file system is in memory
        assert_int_equal(expect(&r, &job).status.cache.n_disk, TRUNK);
        far_most = atomic_load(&r.n_coming_most);
        rig_close(&r);
    }
    if (out) assert_in_range(far_most, 1, 2);
    rig_open(&r, &s);
    assert_int_equal(expect(&r, &job).status.cache.n_disk, TRUNK);
    assert_true(atomic_load(&r.n_coming_most) > 2);
    rig_close(&r);
}

// What was never measured is tried; when it is seen to be slower, the rest is computed, and the next
// process knows.
static void a_disk_that_turns_out_slow_is_given_up(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 14);
    const struct job job = greedy_job(ids, LEN, 3);
    struct rig_settings s = on_disk;
    s.judge_ms = 50;
    rig_open(&r, &s);
    expect(&r, &job);
    rig_close(&r);
    s.page_delay_us = 200000; // 100 pages, 4 to 8 at once: seconds; computing them takes 0.2 s
    rig_open(&r, &s);
    assert_true(expect(&r, &job).status.cache.n_disk < TRUNK / 2);
    rig_close(&r);
    rig_open(&r, &s);
    assert_int_equal(expect(&r, &job).status.cache.n_disk, 0);
    rig_close(&r);
}

enum { LOOK_MS = 40, TURN_MS = 5, STEP_MS = 10 }; // of the tests with a clock of their own

// A restore of n pages, a page each load_ms once the first has begun to come, against computing each in compute_ms:
// when it is given up, in ms; 0 = never. No clock but this one.
static uint32_t given_up_at(uint32_t n, double first_ms, double load_ms, double compute_ms)
{
    for (uint32_t ms = 1; ms < 1000000; ms++) {
        const double came = ms < first_ms ? 0 : (ms - first_ms) / load_ms;
        if (came >= n) return 0;
        const struct restore_pace p = {.spent_s = ms / 1e3,
                                       .first_s = came > 0 ? first_ms / 1e3 : 0,
                                       .look_s = LOOK_MS / 1e3,
                                       .page_s = compute_ms / 1e3,
                                       .came = came,
                                       .n = n,
                                       .left = n - (uint32_t)came};
        if (tier_restore_loses(&p)) return ms;
    }
    return UINT32_MAX;
}

static void a_restore_is_judged_by_its_own_pace(void **state)
{
    (void)state;
    assert_int_equal(given_up_at(218, 5, 0.3, 2), 0);  // files in memory
    assert_int_equal(given_up_at(218, 30, 0.5, 2), 0); // a late first page
    assert_int_equal(given_up_at(204, 100, 1.2, 9),
                     0);                              // later still, of what takes 1.8 s to compute
    assert_int_equal(given_up_at(218, 5, 1.7, 2), 0); // just worth it
    assert_in_range(given_up_at(218, 6, 5.9, 2), 40, 60); // a disk of a third of the speed
    assert_in_range(given_up_at(218, 60, 100, 2), 60, 90);
    assert_in_range(given_up_at(218, 1e9, 1, 2), 60, 70);       // nothing comes
    for (double load_ms = 0.1; load_ms < 300; load_ms *= 1.3) { // never much slower than computing
        const uint32_t ms = given_up_at(218, load_ms, load_ms, 2);
        const double came = ms == 0 ? 218 : ms / load_ms;
        const double total = ms == 0 ? 218 * load_ms : ms + (218 - came) * 2;
        assert_true(total < 218 * 2 * 1.05 + 41);
    }
}

// A prompt of n pages on a disk that was taken to need believed_ms a page and needs true_ms: when all of it is there, in
// ms, by the choice and the judgement of the engine. A thread a page, all on one disk, so that pages come in bursts;
// computing goes 3 % slower while they come, and a step more costs STEP_MS. No clock but this one.
static double there_after_ms(uint32_t n, double compute_ms, double believed_ms, double true_ms)
{
    enum { N_MAX = 256, THREADS = 16 };
    double load_s[N_MAX] = {0};
    for (uint32_t i = 0; i < n; i++) load_s[i] = believed_ms / 1e3 * TIER_FAR_DOUBT;
    const struct tier_choice c = tier_choose(load_s, n, compute_ms / 1e3, TIER_FAR_COST_S);
    const uint32_t n_load = c.end - c.first;
    const double rest_ms = (n - c.end) * compute_ms + (c.end < n ? STEP_MS : 0);
    if (n_load == 0) return n * compute_ms;
    for (double ms = c.first * compute_ms * 1.03;; ms += TURN_MS) {
        const double moved = ms / true_ms;
        const uint32_t came = (uint32_t)(moved / THREADS) * THREADS;
        if (moved >= n_load) {
            const double end_ms = n_load * true_ms, begun_ms = c.first * compute_ms * 1.03;
            return (end_ms > begun_ms ? end_ms : begun_ms) + rest_ms;
        }
        const struct restore_pace p = {.spent_s = ms / 1e3,
                                       .first_s = came > 0 ? true_ms / 1e3 : 0,
                                       .look_s = LOOK_MS / 1e3,
                                       .page_s = compute_ms / 1e3,
                                       .came = moved,
                                       .first = came > 0 ? 1 : 0,
                                       .n = n_load,
                                       .left = n_load - came};
        if (tier_restore_loses(&p)) return ms + STEP_MS + (n - c.first - came) * compute_ms;
    }
}

// A disk is not as fast as it was: half as fast, and the prompt is there a step later at most than if it had been computed;
// a hundredth, and a look is lost besides. Where it is as fast as it was, all that is worth having of it is had.
static void a_disk_is_never_slower_than_computing(void **state)
{
    static const double computes_ms[] = {0.5, 1.85, 8.4, 300}, sizes[] = {20, 100, 203};
    (void)state;
    for (size_t k = 0; k < 12; k++) {
        const double page_ms = computes_ms[k / 3], n = sizes[k % 3], all_ms = n * page_ms;
        for (double load_ms = page_ms / 20; load_ms < page_ms * 20; load_ms *= 1.1)
            for (double slower = 0.5; slower < 100; slower *= 1.1) {
                const double ms = there_after_ms((uint32_t)n, page_ms, load_ms, load_ms * slower);
                assert_true(ms <= all_ms * (slower <= 1 ? 1.001 : 1.035) +
                                      (slower <= 1   ? 0
                                       : slower <= 2 ? STEP_MS
                                                     : STEP_MS + LOOK_MS + TURN_MS));
                if (slower > 0.95 && slower <= 1 && all_ms > 100)
                    assert_true(ms <= (load_ms < page_ms / 4   ? all_ms / 2
                                       : load_ms < page_ms / 2 ? all_ms * 0.75
                                                               : all_ms * 1.001));
            }
    }
}

static void a_device_that_takes_no_page_gets_it_computed(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 9);
    const struct job job = greedy_job(ids, LEN, 3);
    rig_open(&r, &on_disk);
    expect(&r, &job);
    rig_close(&r);
    rig_open(&r, &on_disk);
    atomic_store(&r.n_page_failures, LEN); // which page comes to be first is chance
    assert_int_equal(expect(&r, &job).status.n_cached, 0);
    rig_close(&r);
}

static int answer_on_a_full_disk(void)
{
    struct rig r;
    int32_t ids[LEN];
    const struct rlimit limit = {5000, RLIM_INFINITY};
    fill_tokens(ids, LEN, 12);
    const struct job job = greedy_job(ids, LEN, 5);
    signal(SIGXFSZ, SIG_IGN);
    rig_open(&r, &on_disk);
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int i = 0; i < 3; i++) expect(&r, &job);
    rig_close(&r);
    rig_open(&r, &on_disk); // what fitted is there
    const uint32_t n = expect(&r, &job).status.cache.n_disk;
    rig_close(&r);
    if (n == 0 || n >= TRUNK) return 1;
    struct rig_settings s =
        on_disk; // and when there is room again, the rest goes down without being computed again
    const struct rlimit room = {RLIM_INFINITY, RLIM_INFINITY};
    s.retry_s = 1;
    rig_open(&r, &s);
    expect(&r, &job);
    clock_sleep_ms(50);
    if (setrlimit(RLIMIT_FSIZE, &room) != 0) return 2;
    clock_sleep_ms(2100);
    expect(&r, &job);
    wait_saved(&r, 100);
    rig_close(&r);
    return 0;
}

static void a_full_disk_stops_nothing(void **state)
{
    (void)state;
    if (FORK_HAS_NO_THREADS) skip();
    int status;
    const pid_t pid = fork();
    if (pid == 0) _exit(answer_on_a_full_disk());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void wait_warmed(const struct rig *r, uint64_t n)
{
    const uint64_t start = clock_ns();
    while (rig_stats(r).tiers.warmed < n) {
        if (clock_ms_since(start) > 20000) fail_msg("fewer than %llu pages warmed", (long long)n);
        clock_sleep_ms(1);
    }
}

// Hot pages are on the device before anybody asks, also those of a salt.
static void a_warm_start_needs_no_waiting(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 11);
    struct job job = greedy_job(ids, LEN, 1), salted = greedy_job(ids, 201, 1);
    salted.cache_salt = STR("somebody");
    struct rig_settings s = on_disk;
    s.n_pages = 400;
    rig_open(&r, &s);
    expect(&r, &job);
    expect(&r, &salted);
    rig_close(&r);
    s.warm = true;
    rig_open(&r, &s);
    wait_warmed(&r, 150);
    struct outcome o = expect(&r, &job);
    assert_int_equal(o.status.n_cached, TRUNK);
    assert_int_equal(o.status.cache.n_disk, 0);
    o = expect(&r, &salted);
    assert_int_equal(o.status.n_cached, 200);
    assert_int_equal(o.status.cache.n_disk, 0);
    assert_int_equal(rig_stats(&r).prefill_tokens, 2);
    rig_close(&r);
    s.n_pages = 120; // half of it at most; the rest comes when it is asked for
    rig_open(&r, &s);
    expect(&r, &job);
    assert_true(rig_stats(&r).tiers.warmed <= 60);
    assert_int_equal(rig_stats(&r).prefill_tokens, 1);
    rig_close(&r);
}

static void forget_texts(struct loop *l, void *arg)
{
    (void)arg;
    while (l->tree.first_root != KV_NONE) tree_drop(&l->tree, l->tree.first_root);
}

// What an operator drops is gone from all tiers, also where it is more than the threads take at once, and what they are
// writing just then.
static void drop_all(uint64_t ram_bytes, bool encoded, bool at_once)
{
    struct rig r;
    int32_t ids[LEN];
    struct err e = {0};
    fill_tokens(ids, LEN, 10);
    const struct job job = greedy_job(ids, LEN, 1);
    struct rig_settings s = on_disk;
    s.ram_bytes = ram_bytes;
    s.encoded = encoded;
    rig_open(&r, &s);
    expect(&r, &job);
    if (!at_once) wait_saved(&r, 100);
    assert_true(loop_call(r.loop, forget_texts, NULL, &e));
    if (ram_bytes > 0) assert_int_equal(expect(&r, &job).status.n_cached, 0);
    if (ram_bytes > 0) assert_true(loop_call(r.loop, forget_texts, NULL, &e));
    rig_close(&r);
    rig_open(&r, &s);
    assert_int_equal(expect(&r, &job).status.n_cached, 0);
    assert_true(loop_call(r.loop, forget_texts, NULL, &e));
    rig_close(&r);
}

static void dropped_pages_do_not_come_back(void **state)
{
    (void)state;
    drop_all(1 << 20, false, false);
    drop_all(0, false, false);
    drop_all(1 << 20, true, false);
    drop_all(1 << 20, false, true);
    drop_all(0, true, true);
}

struct traffic {
    uint64_t random;
    uint32_t n_texts;
};

static uint64_t draw(struct traffic *t, uint64_t n)
{
    t->random = t->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (t->random >> 33) % n;
}

// A prompt from a small grammar: one of three trunks, cut anywhere, with a tail of its own.
static uint32_t make_prompt(struct traffic *t, int32_t *ids)
{
    const uint64_t trunk = draw(t, 3), length = 20 + draw(t, 120), tail = 1 + draw(t, 30);
    fill_tokens(ids, length, 1000 + trunk);
    fill_tokens(ids + length, tail, 2000 + draw(t, 10));
    return (uint32_t)(length + tail);
}

enum { AT_ONCE = 6, PROMPT_MAX = 200 };

static void run_some(struct rig *r, struct traffic *t)
{
    static int32_t ids[AT_ONCE][PROMPT_MAX];
    uint32_t n[AT_ONCE], n_new[AT_ONCE];
    struct stream *streams[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) {
        n[i] = make_prompt(t, ids[i]);
        n_new[i] = 1 + (uint32_t)draw(t, 12);
        const struct job job = greedy_job(ids[i], n[i], n_new[i]);
        streams[i] = rig_submit(r, &job);
    }
    if (draw(t, 4) == 0) atomic_store(&r->n_page_failures, 1);
    for (int i = 0; i < AT_ONCE; i++) {
        if (draw(t, 8) == 0) stream_cancel(streams[i]);
        struct outcome o = outcome_wait(streams[i]);
        assert_true(o.error.code == ERR_NONE || o.error.code == ERR_CANCELLED);
        assert_true(o.error.code != ERR_NONE || o.n == n_new[i]);
        assert_true(outcome_is_alone(&o, ids[i], n[i]));
        outcome_free(&o);
    }
}

// All tiers small, so that everything is evicted from everywhere, with cancels, restarts and damage.
static void random_traffic_over_all_tiers_is_answered_right(void **state)
{
    (void)state;
    struct traffic t = {.random = 99};
    uint64_t ram = 0, disk = 0;
    for (int round = 0; round < 12; round++) {
        struct rig r;
        const struct rig_settings s = {.n_pages = 70 + (uint32_t)draw(&t, 100),
                                       .n_parallel = 4,
                                       .cache_dir = dir,
                                       .cap_bytes = 60000,
                                       .ram_bytes = draw(&t, 3) * 10000,
                                       .warm = draw(&t, 2) == 0,
                                       .encoded = round % 4 >= 2,
                                       .mapped = draw(&t, 2) == 0};
        rig_open(&r, &s);
        for (int i = 0; i < 25; i++) run_some(&r, &t);
        ram += rig_stats(&r).tiers.ram_tokens;
        disk += rig_stats(&r).tiers.disk_tokens;
        rig_close(&r);
    }
    assert_true(ram > 0 && disk > 0);
}

static void the_token_loop_allocates_nothing_with_tiers(void **state)
{
    (void)state;
    struct rig r;
    struct traffic t = {.random = 7};
    rig_open(&r, &(struct rig_settings){.n_pages = 80, .cache_dir = dir, .ram_bytes = 8000});
    run_some(&r, &t);
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 77);
    const struct job job = greedy_job(ids, 40, 150);
    struct stream *s = rig_submit(&r, &job);
    wait_stage(s, STAGE_GENERATE);
    atomic_store(&r.net->n_allocating, 0);
    atomic_store(&r.net->watch, true);
    struct outcome o = outcome_wait(s);
    atomic_store(&r.net->watch, false);
    assert_true(outcome_is_alone(&o, ids, 40));
    outcome_free(&o);
    assert_int_equal(atomic_load(&r.net->n_allocating), 0);
    rig_close(&r);
}

// The same, read straight into the device's memory.
static void pages_come_back_in_place(void **state)
{
    (void)state;
    struct rig r;
    int32_t ids[LEN];
    fill_tokens(ids, LEN, 13);
    const struct job job = greedy_job(ids, LEN, 12);
    struct rig_settings s = on_disk;
    s.mapped = true;
    rig_open(&r, &s);
    expect(&r, &job);
    rig_close(&r);
    for (uint64_t round = 0; round < 4; round++) {
        uint32_t n_disk = 0;
        for (int start = 0; start < 6 && n_disk < TRUNK; start++) {
            rig_open(&r, &s);
            n_disk = expect(&r, &job).status.cache.n_disk;
            rig_close(&r); // every page has one owner: none is left with a read
        }
        assert_int_equal(n_disk, TRUNK);
        flip_bits(round);
    }
    rig_open(&r, &s); // gone before the pages are there
    struct stream *gone = rig_submit(&r, &job);
    stream_close(gone);
    rig_close(&r);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(what_was_computed_comes_back_after_a_restart),
        TEST(the_beginning_of_a_page_comes_back),
        TEST(nothing_goes_down_before_the_first_token),
        TEST(first_tokens_hold_saving_back_for_a_while),
        TEST(memory_is_taken_before_pages_come_back),
        TEST(encoded_pages_come_back),
        TEST(what_was_saved_before_a_crash_comes_back),
        TEST(pages_wait_for_a_late_store),
        TEST(salts_keep_apart_on_disk_too),
        TEST(a_trunk_is_loaded_once),
        TEST(damaged_pages_are_computed_again),
        TEST(host_memory_takes_what_the_device_gives_up),
        TEST(a_slow_disk_is_not_waited_for),
        TEST(pages_come_while_those_before_are_computed),
        TEST(a_disk_is_asked_for_a_few_pages_at_once),
        TEST(a_disk_that_turns_out_slow_is_given_up),
        TEST(a_restore_is_judged_by_its_own_pace),
        TEST(a_disk_is_never_slower_than_computing),
        TEST(a_device_that_takes_no_page_gets_it_computed),
        TEST(pages_come_back_in_place),
        TEST(a_full_disk_stops_nothing),
        TEST(a_warm_start_needs_no_waiting),
        TEST(dropped_pages_do_not_come_back),
        TEST(random_traffic_over_all_tiers_is_answered_right),
        TEST(the_token_loop_allocates_nothing_with_tiers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
