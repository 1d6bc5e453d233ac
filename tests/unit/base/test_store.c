// What a store promises: what was saved comes back or is missing, and is never wrong, whatever happens
// to its files, its process, its disk and its neighbours.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/store.h"
#include "base/store_files.h"
#include "lib/fail_malloc.h"

enum { N_IDS = 4, DATA = 100, RECORD = 256 };

static char dir[64];
static _Alignas(16) unsigned char record[RECORD];

static int make_dir(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR);
    strcpy(dir, "/tmp/submind-store-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static struct store_settings settings(uint64_t cap_bytes, uint64_t family)
{
    return (struct store_settings){
        .dir = dir,
        .cap_bytes = cap_bytes,
        .shape = {.family = {family, 7}, .n_ids = N_IDS, .data_bytes = DATA}};
}

static struct store *open_store(uint64_t cap_bytes)
{
    struct store *st = NULL;
    struct err e = {0};
    const struct store_settings s = settings(cap_bytes, 1);
    if (!store_open(&st, &s, NULL, &e)) fail_msg("%s", e.msg);
    return st;
}

// Record i's contents follow from i alone.
static struct hash128 key_of(uint32_t i)
{
    return (struct hash128){i * UINT64_C(0x9e3779b97f4a7c15), i};
}

static void fill(void *r, uint32_t i)
{
    struct store_header *h = r;
    memset(r, 0, RECORD);
    h->key = key_of(i);
    h->parent = i == 0 ? (struct hash128){0} : key_of(i - 1);
    h->salt = (struct hash128){5, 6};
    h->depth = i;
    for (uint32_t k = 0; k < N_IDS; k++) store_ids(r)[k] = (int32_t)(i * 10 + k);
    for (uint32_t k = 0; k < DATA; k++) store_data(r, N_IDS)[k] = (unsigned char)(i * 31 + k * 7);
}

static bool put(struct store *st, uint32_t i)
{
    fill(record, i);
    return store_put(st, record, 1, &(struct err){0});
}

// Asks for record i; where it is given out it must be right.
static enum store_result get(struct store *st, uint32_t i)
{
    static _Alignas(16) unsigned char want[RECORD];
    fill(want, i);
    const struct store_header *h = (const struct store_header *)(const void *)want;
    memset(record, 0xee, sizeof record);
    const enum store_result r = store_get(st, h->key, h->parent, store_ids(want), record);
    if (r != STORE_OK) return r;
    assert_memory_equal(store_ids(record), store_ids(want), N_IDS * sizeof(int32_t));
    assert_memory_equal(store_data(record, N_IDS), store_data(want, N_IDS), DATA);
    const struct store_header *got = (const struct store_header *)(const void *)record;
    assert_int_equal(got->depth, i);
    assert_true(got->salt.lo == 5 && got->salt.hi == 6);
    return r;
}

static struct store_figures figures(struct store *st)
{
    struct store_figures f;
    store_figures(st, &f);
    return f;
}

static void segment_path(char *out, size_t n, uint64_t family, uint32_t id)
{
    snprintf(out, n, "%s/%016llx%016llx/seg-%08x", dir, 7ull, (unsigned long long)family, id);
}

static void saved_records_come_back(void **state)
{
    (void)state;
    struct store *st = open_store(1 << 20);
    for (uint32_t i = 0; i < 200; i++) assert_true(put(st, i));
    for (uint32_t i = 0; i < 200; i++) assert_int_equal(get(st, i), STORE_OK);
    assert_int_equal(get(st, 200), STORE_MISSING);
    assert_int_equal(store_record_bytes(&(struct store_shape){{1, 7}, N_IDS, 0, DATA}), RECORD);
    store_close(st);
    st = open_store(1 << 20);
    assert_int_equal(figures(st).n_records, 200);
    for (uint32_t i = 0; i < 200; i++) assert_int_equal(get(st, i), STORE_OK);
    struct store_entry list[64];
    size_t next = 0, n, sum = 0;
    while ((n = store_list(st, &next, list, NULL, 64)) > 0)
        for (size_t i = 0; i < n; i++) sum += list[i].depth;
    assert_int_equal(sum, 199 * 200 / 2);
    struct store_entry where;
    assert_true(store_forget(st, key_of(3), &where));
    assert_false(store_forget(st, key_of(3), &where));
    assert_int_equal(get(st, 3), STORE_MISSING);
    store_erase(st, &where);
    assert_int_equal(figures(st).n_bad, 0);
    store_close(st);
    st = open_store(1 << 20);
    assert_int_equal(get(st, 3), STORE_MISSING);
    assert_int_equal(figures(st).n_records, 199);
    store_close(st);
}

static void files_are_private(void **state)
{
    (void)state;
    struct stat s;
    char path[128];
    struct store *st = open_store(1 << 20);
    assert_true(put(st, 1));
    segment_path(path, sizeof path, 1, 1);
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 0777, 0600);
    *strrchr(path, '/') = '\0';
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 0777, 0700);
    store_close(st);
}

// A key that another text has, another parent, another family: nothing of it is given out.
static void what_does_not_belong_is_not_given_out(void **state)
{
    (void)state;
    struct store *st = open_store(1 << 20);
    const int32_t other[N_IDS] = {1, 2, 3, 4};
    for (uint32_t i = 1; i < 4; i++) assert_true(put(st, i));
    assert_int_equal(store_get(st, key_of(1), key_of(0), other, record), STORE_BAD);
    fill(record, 2);
    int32_t ids[N_IDS];
    memcpy(ids, store_ids(record), sizeof ids);
    assert_int_equal(store_get(st, key_of(2), key_of(77), ids, record), STORE_BAD);
    assert_int_equal(figures(st).n_bad, 2);
    assert_int_equal(get(st, 3), STORE_OK);
    store_close(st);
    char from[128], to[128], command[300];
    struct err e = {0};
    const struct store_settings s = settings(1 << 20, 2);
    assert_true(store_open(&st, &s, NULL, &e));
    store_close(st);
    segment_path(from, sizeof from, 1, 1);
    segment_path(to, sizeof to, 2, 1);
    snprintf(command, sizeof command, "cp %s %s", from, to);
    assert_int_equal(system(command), 0);
    assert_true(store_open(&st, &s, NULL, &e));
    assert_int_equal(figures(st).n_records, 0);
    assert_int_equal(get(st, 3), STORE_MISSING);
    store_close(st);
}

static void write_three(void)
{
    struct store *st = open_store(1 << 20);
    for (uint32_t i = 0; i < 3; i++) assert_true(put(st, i));
    store_close(st);
}

// Cut at every byte: whole records are there, the rest is not, and the next ones go behind them.
static void every_truncation_is_survived(void **state)
{
    (void)state;
    char path[128];
    write_three();
    segment_path(path, sizeof path, 1, 1);
    for (int length = 3 * RECORD; length >= 0; length--) {
        assert_int_equal(truncate(path, length), 0);
        struct store *st = open_store(1 << 20);
        for (int i = 0; i < 3; i++)
            assert_int_equal(get(st, (uint32_t)i),
                             (i + 1) * RECORD <= length ? STORE_OK : STORE_MISSING);
        for (uint32_t i = 0; i < 3; i++)
            if (get(st, i) == STORE_MISSING) assert_true(put(st, i));
        store_close(st);
        st = open_store(1 << 20);
        for (uint32_t i = 0; i < 3; i++) assert_int_equal(get(st, i), STORE_OK);
        assert_int_equal(figures(st).n_bad, 0);
        store_close(st);
    }
}

static void flip(const char *path, long at, int bit)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    const int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 1 << bit, f);
    fclose(f);
}

// One bit anywhere: that record is missing or bad, the others are right, and no restart finds it again.
static void every_flipped_byte_is_noticed(void **state)
{
    (void)state;
    char path[128];
    write_three();
    segment_path(path, sizeof path, 1, 1);
    for (long at = 0; at < 3 * RECORD; at++) {
        const uint32_t hurt = (uint32_t)(at / RECORD);
        flip(path, at, (int)(at * 5 % 8));
        struct store *st = open_store(1 << 20);
        for (uint32_t i = 0; i < 3; i++) {
            const enum store_result r = get(st, i);
            assert_true(i == hurt ? r != STORE_OK : r == STORE_OK);
        }
        assert_int_equal(get(st, hurt), STORE_MISSING);
        store_close(st);
        st = open_store(1 << 20);
        assert_int_equal(figures(st).n_records, 2);
        store_close(st);
        assert_int_equal(remove(path), 0);
        write_three();
    }
}

// A write that stops in the middle, and the power cut that left zeros where data should be.
static void lost_data_does_not_verify(void **state)
{
    (void)state;
    char path[128], zeros[DATA] = {0};
    write_three();
    segment_path(path, sizeof path, 1, 1);
    int fd = open(path, O_RDWR);
    assert_true(pwrite(fd, zeros, DATA, RECORD + 128 + 16) == DATA);
    close(fd);
    struct store *st = open_store(1 << 20);
    assert_int_equal(figures(st).n_records, 3); // headers only are read at the open
    assert_int_equal(get(st, 1), STORE_BAD);
    assert_int_equal(get(st, 0), STORE_OK);
    assert_int_equal(get(st, 2), STORE_OK);
    assert_true(put(st, 1));
    assert_int_equal(get(st, 1), STORE_OK);
    assert_int_equal(figures(st).n_bad, 1);
    store_close(st);
}

// What a child does with the store; it ends with the number that it returns.
static pid_t in_child(int (*work)(int), int arg)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) _exit(work(arg));
    return pid;
}

static void byte_to(int fd)
{
    if (write(fd, "x", 1) != 1) _exit(99);
}

static void byte_from(int fd)
{
    char c;
    if (read(fd, &c, 1) != 1) _exit(98);
}

static int to_child[2], from_child[2];

static int write_when_told(int arg)
{
    struct store *st = open_store(1 << 20);
    (void)arg;
    put(st, 0);
    byte_to(from_child[1]);
    byte_from(to_child[0]);
    put(st, 1);
    byte_to(from_child[1]);
    byte_from(to_child[0]); // holds the lock until it is killed
    return 0;
}

static void one_process_writes_and_others_read(void **state)
{
    (void)state;
    int status;
    assert_int_equal(pipe(to_child) + pipe(from_child), 0);
    const pid_t pid = in_child(write_when_told, 0);
    byte_from(from_child[0]);
    struct store *st = open_store(1 << 20);
    assert_false(figures(st).writer);
    assert_int_equal(get(st, 0), STORE_OK);
    assert_false(put(st, 5));
    byte_to(to_child[1]);
    byte_from(from_child[0]);
    assert_int_equal(get(st, 1), STORE_MISSING);
    store_tick(st);
    assert_int_equal(get(st, 1), STORE_OK);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    store_tick(st);
    assert_true(figures(st).writer);
    assert_true(put(st, 2));
    assert_int_equal(get(st, 2), STORE_OK);
    store_close(st);
    close(to_child[0]), close(to_child[1]), close(from_child[0]), close(from_child[1]);
}

static int write_until_full(int arg)
{
    (void)arg;
    const struct rlimit limit = {2 * RECORD + 100, 2 * RECORD + 100};
    struct store *st = open_store(1 << 20);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    if (!put(st, 0) || !put(st, 1)) return 1;
    struct err e = {0};
    fill(record, 2);
    if (store_put(st, record, 1, &e) || e.code != ERR_IO) return 2;
    if (store_writable(st)) return 3;
    if (get(st, 0) != STORE_OK || get(st, 1) != STORE_OK || get(st, 2) != STORE_MISSING) return 4;
    if (put(st, 3)) return 5;
    return 0;
}

static void a_full_disk_leaves_what_is_there(void **state)
{
    (void)state;
    int status;
    struct stat s;
    char path[128];
    waitpid(in_child(write_until_full, 0), &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    segment_path(path, sizeof path, 1, 1);
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_size, 2 * RECORD); // the torn record was cut off
}

static int read_without_writing(int arg)
{
    (void)arg;
    if (geteuid() == 0 && (setegid(65534) != 0 || seteuid(65534) != 0)) return 9;
    struct store *st = NULL;
    struct err e = {0}, why = {0};
    const struct store_settings s = settings(1 << 20, 1);
    if (!store_open(&st, &s, &why, &e)) return 3;
    if (why.code != ERR_IO || strstr(why.msg, "Permission denied") == NULL) return 4;
    if (figures(st).writer || store_writable(st)) return 1;
    if (get(st, 0) != STORE_OK || put(st, 7)) return 2;
    store_tick(st);
    store_close(st);
    return 0;
}

static void a_read_only_folder_is_read(void **state)
{
    (void)state;
    int status;
    char command[400];
    write_three();
    snprintf(command, sizeof command,
             "chmod 700 %s && { [ $(id -u) != 0 ] || chown -R 65534 %s; } && chmod 500 %s/*7* && "
             "chmod 400 %s/*7*/*",
             dir, dir, dir, dir);
    assert_int_equal(system(command), 0);
    waitpid(in_child(read_without_writing, 0), &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    snprintf(command, sizeof command, "chmod -R u+rwX %s", dir);
    assert_int_equal(system(command), 0);
}

static uint64_t bytes_on_disk(void)
{
    char command[128], text[32] = "";
    snprintf(command, sizeof command, "cat %s/*/seg-* | wc -c", dir);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    assert_non_null(fgets(text, sizeof text, p));
    pclose(p);
    return strtoull(text, NULL, 10);
}

// Twice as much as may be there: the bound holds, and what is asked for again and again stays.
static void the_cap_holds_and_what_is_used_stays(void **state)
{
    (void)state;
    enum { CAP = 64 * RECORD };
    struct store *st = open_store(CAP);
    for (uint32_t i = 0; i < 128; i++) {
        assert_true(put(st, i));
        for (int k = 0; k < 20; k++) store_use(st, key_of(2), 1);
        assert_true(figures(st).bytes <= CAP);
    }
    assert_true(bytes_on_disk() <= CAP);
    assert_int_equal(get(st, 2), STORE_OK);
    assert_int_equal(get(st, 40), STORE_MISSING);
    assert_int_equal(get(st, 127), STORE_OK);
    assert_true(figures(st).n_dropped >= 64);
    store_close(st);
    st = open_store(CAP);
    assert_int_equal(get(st, 2), STORE_OK);
    store_close(st);
}

// A record that goes on from one of the same folder, whatever it holds.
static bool put_after(struct store *st, uint32_t i, struct hash128 parent, double worth)
{
    fill(record, i);
    ((struct store_header *)(void *)record)->parent = parent;
    return store_put(st, record, worth, &(struct err){0});
}

// A text of two segments, one of a segment, and a third that needs the room of one more than there is. What is left: the
// first one's beginning 1, its end 2, the second one 4.
static uint32_t left_of_texts(double first_worth, double second_worth)
{
    enum { CAP = 96 * RECORD, FULL = 24 }; // of a segment
    struct store *st = open_store(CAP);
    uint32_t left = 0;
    for (uint32_t i = 0; i < 2 * FULL; i++)
        assert_true(put_after(st, i, i == 0 ? (struct hash128){0} : key_of(i - 1), first_worth));
    for (uint32_t i = 100; i < 100 + FULL; i++)
        assert_true(put_after(st, i, i == 100 ? (struct hash128){0} : key_of(i - 1), second_worth));
    for (uint32_t i = 200; i < 200 + 2 * FULL; i++)
        assert_true(put_after(st, i, i == 200 ? (struct hash128){0} : key_of(i - 1), 1));
    left |= store_has(st, key_of(0)) ? 1 : 0;
    left |= store_has(st, key_of(2 * FULL - 1)) ? 2 : 0;
    left |= store_has(st, key_of(100)) ? 4 : 0;
    store_close(st);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/*", dir);
    assert_int_equal(system(command), 0);
    return left;
}

// Without its beginning a text's end is never found: so ends go first, and what was worth least.
static void ends_go_before_beginnings_and_what_is_worth_least(void **state)
{
    (void)state;
    assert_int_equal(left_of_texts(1, 1.5),
                     1 | 4); // the first one's end, though its uses are as many as its beginning's
    assert_int_equal(left_of_texts(2, 1), 1 | 2); // the second one
    assert_int_equal(left_of_texts(1, 30), 1 | 4);
}

// Other models' records give way first, oldest first; not those of a family that is open.
static void other_families_give_way(void **state)
{
    (void)state;
    enum { CAP = 64 * RECORD };
    struct store *st = NULL, *held = NULL;
    struct err e = {0};
    for (uint64_t family = 2; family < 4; family++) {
        const struct store_settings s = settings(CAP, family);
        assert_true(store_open(&st, &s, NULL, &e));
        for (uint32_t i = 0; i < 16; i++) assert_true(put(st, i));
        if (family == 2)
            store_close(st);
        else
            held = st;
    }
    st = open_store(CAP);
    assert_int_equal(figures(st).other_bytes, 32 * RECORD);
    for (uint32_t i = 0; i < 64; i++) assert_true(put(st, i));
    assert_int_equal(figures(st).other_bytes, 16 * RECORD);
    assert_true(bytes_on_disk() <= CAP);
    for (uint32_t i = 0; i < 16; i++) assert_int_equal(get(held, i), STORE_OK);
    store_close(st);
    store_close(held);
}

// A cap below one record: an error, not a loop.
static void no_room_at_all_is_an_error(void **state)
{
    (void)state;
    struct store *st = open_store(RECORD - 1);
    assert_false(put(st, 1));
    assert_int_equal(get(st, 1), STORE_MISSING);
    store_close(st);
}

static int write_for_ever(int first)
{
    struct store *st = open_store(256 * RECORD);
    for (uint32_t i = (uint32_t)first;; i++)
        if (!put(st, i)) return 1;
    return 0;
}

// Killed at random points while it grows (and, at the cap, drops): every restart comes up, with records
// that verify and nothing else. SUBMIND_KILLS sets how often.
static void killed_at_random_it_comes_back(void **state)
{
    (void)state;
    const char *wish = getenv("SUBMIND_KILLS");
    const int n_kills = wish == NULL ? 60 : atoi(wish);
    uint64_t seen = 0, random = 12345;
    for (int k = 0; k < n_kills; k++) {
        int status;
        const pid_t pid = in_child(write_for_ever, k * 100000);
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        const struct timespec t = {.tv_nsec = (long)(500000 + (random >> 33) % 8000000)};
        nanosleep(&t, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        struct store *st = open_store(256 * RECORD);
        struct store_entry list[16];
        size_t next = 0, n;
        while ((n = store_list(st, &next, list, NULL, 16)) > 0)
            for (size_t i = 0; i < n; i++, seen++)
                assert_int_equal(get(st, list[i].depth), STORE_OK);
        assert_true(figures(st).bytes <= 256 * RECORD);
        store_close(st);
    }
    assert_true(seen > 100);
}

static void every_failing_allocation_is_an_error(void **state)
{
    (void)state;
    if (!fail_malloc_works()) skip();
    write_three();
    for (long n = 0;; n++) {
        struct store *st = NULL;
        struct err e = {0};
        const struct store_settings s = settings(1 << 20, 1);
        fail_malloc_after(n);
        const bool ok = store_open(&st, &s, NULL, &e);
        const bool failed = fail_malloc_done();
        fail_malloc_after(-1);
        if (ok) {
            for (uint32_t i = 0; i < 3; i++) assert_int_equal(get(st, i), STORE_OK);
            store_close(st);
        } else {
            assert_int_equal(e.code == ERR_MEMORY || e.code == ERR_IO, true);
        }
        if (!failed) break;
    }
}

// Long records are read in pieces: every one of them is verified, also where the data go elsewhere.
// A row of bytes with room for so many.
struct place {
    unsigned char *at;
    size_t room;
};

static void *next_place(void *arg, size_t n)
{
    struct place *p = arg;
    unsigned char *at = p->at;
    if (n > p->room) return NULL;
    assert_true(n <= STORE_PIECE_BYTES);
    p->at += n;
    p->room -= n;
    return at;
}

static enum store_result get_into(struct store *st, uint32_t i, void *r, unsigned char *data,
                                  size_t room)
{
    struct place place = {data, room};
    const struct store_sink sink = {next_place, &place};
    const enum store_result got = store_get_to(st, key_of(i), (struct hash128){0}, NULL, r, &sink);
    if (got == STORE_OK) assert_int_equal(place.room, 0);
    return got;
}

static void long_records_are_verified_in_all_pieces(void **state)
{
    (void)state;
    enum { LONG = 700001, SPOTS = 9 };
    struct store *st = NULL;
    struct err e = {0};
    struct store_settings s = settings(1 << 26, 1);
    s.shape.data_bytes = LONG;
    const size_t n = store_record_bytes(&s.shape);
    unsigned char *r = aligned_alloc(64, (n + 63) / 64 * 64), *data = malloc(LONG);
    assert_true(r != NULL && data != NULL);
    for (uint32_t i = 0; i < SPOTS; i++) {
        if (!store_open(&st, &s, NULL, &e)) fail_msg("%s", e.msg);
        memset(r, 0, n);
        struct store_header *h = (struct store_header *)(void *)r;
        h->key = key_of(i);
        for (uint32_t k = 0; k < LONG; k++) store_data(r, N_IDS)[k] = (unsigned char)(k * 31 + i);
        assert_true(store_put(st, r, 1, &e));
        assert_int_equal(get_into(st, i, r, data, LONG - 1), STORE_MISSING); // no place for the end
        assert_int_equal(get_into(st, i, r, data, LONG), STORE_OK);
        for (uint32_t k = 0; k < LONG; k++) assert_int_equal(data[k], (unsigned char)(k * 31 + i));
        assert_int_equal(store_get(st, key_of(i), (struct hash128){0}, NULL, r), STORE_OK);
        assert_memory_equal(store_data(r, N_IDS), data, LONG);
        bool near = false;
        const struct hash128 key = key_of(i);
        store_near(st, &key, 1, &near);
        assert_true(near); // just written
        struct buf path = {0};
        store_family_path(&path, dir, s.shape.family);
        buf_z(&path, "/seg-00000001");
        const int fd = open(buf_cstr(&path), O_RDWR);
        unsigned char byte = 0;
        const off_t at = (off_t)(n * i + 64 + (n - 128) * i / (SPOTS - 1));
        assert_true(fd >= 0);
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        close(fd);
        buf_free(&path);
        assert_int_equal(get_into(st, i, r, data, LONG), STORE_BAD);
        assert_int_equal(store_get(st, key_of(i), (struct hash128){0}, NULL, r), STORE_MISSING);
        store_close(st);
    }
    free(r);
    free(data);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(saved_records_come_back),
        TEST(files_are_private),
        TEST(what_does_not_belong_is_not_given_out),
        TEST(every_truncation_is_survived),
        TEST(every_flipped_byte_is_noticed),
        TEST(lost_data_does_not_verify),
        TEST(one_process_writes_and_others_read),
        TEST(a_full_disk_leaves_what_is_there),
        TEST(a_read_only_folder_is_read),
        TEST(the_cap_holds_and_what_is_used_stays),
        TEST(ends_go_before_beginnings_and_what_is_worth_least),
        TEST(other_families_give_way),
        TEST(no_room_at_all_is_an_error),
        TEST(killed_at_random_it_comes_back),
        TEST(every_failing_allocation_is_an_error),
        TEST(long_records_are_verified_in_all_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
