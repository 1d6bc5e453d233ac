// What bringing pages back to a GPU costs at least: threads that read files, add them up and copy them to the device, and
// do nothing else. The measure of src/engine/tier_restore.c with src/compute/gpu_pages.c, in the same run on the same files:
//
//     bench_pages PAGE_BYTES REPEATS FILE...      (the store's seg-* files; a core for each thread)
//
// Rows: reading alone; and adding up; and copying: a page at once, waited for at its end; in boxes of H bytes, B of them a
// thread, of which one is filled while the others go, waited for at a page's end or rolling on into the next page.
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/threads.h"
#include "compute/gpu_api.h"

enum { PIECE = 256 << 10, FILES_MAX = 512, LANES = 64, BOXES_MAX = 4 };
#define ROOM_BYTES ((size_t)1 << 30)

struct way {
    const char *name;
    bool adds, copies, rolls;
    size_t box_bytes; // 0: a page
    uint32_t n_boxes;
};

static const struct way ways[] = {
    {"read", .box_bytes = 1 << 20, .n_boxes = 1},
    {"read, add up", .adds = true, .box_bytes = 1 << 20, .n_boxes = 1},
    {"a page at once", true, true, false, 0, 1},
    {"2 x 2 MiB, waits at a page's end", true, true, false, 2 << 20, 2},
    {"2 x 1 MiB, rolls on", true, true, true, 1 << 20, 2},
    {"2 x 2 MiB, rolls on", true, true, true, 2 << 20, 2},
    {"3 x 2 MiB, rolls on", true, true, true, 2 << 20, 3},
    {"2 x 4 MiB, rolls on", true, true, true, 4 << 20, 2},
    {"2 pages, rolls on", true, true, true, 0, 2},
    {"2 x 2 MiB, rolls on, adds nothing up", false, true, true, 2 << 20, 2},
    {"copies alone, 2 x 2 MiB", false, true, true, 2 << 20, 2},
};

struct lane {
    gpu_stream stream;
    gpu_event gone[BOXES_MAX];
    char *box;
};

static struct gpu_api api;
static gpu_ctx ctx;
static gpu_ptr room;
static struct lane lanes[LANES];
static struct {
    int fd;
    uint64_t n_pages;
} files[FILES_MAX];
static uint32_t n_files;
static uint64_t n_pages;
static size_t page_bytes;
static atomic_uint_fast64_t next_page; // relaxed: only divides the pages
static const struct way *now;
static bool reads;

static void must(gpu_result r)
{
    struct err e = {0};
    if (gpu_ok(&api, r, "bench_pages", &e)) return;
    fprintf(stderr, "%s\n", e.msg);
    exit(1);
}

static void page_read(uint64_t page, size_t at, char *to, size_t n)
{
    uint32_t f = 0;
    for (; page >= files[f].n_pages; f++) page -= files[f].n_pages;
    if (pread(files[f].fd, to, n, (off_t)(page * page_bytes + at)) != (ssize_t)n) exit(1);
}

// One page through the lane's boxes; *turn counts them over all pages.
static void bring(struct lane *l, uint64_t page, uint64_t *turn)
{
    const struct way *w = now;
    const size_t box_bytes = w->box_bytes == 0 ? page_bytes : w->box_bytes;
    struct hash_stream sum;
    hash_stream_begin(&sum);
    for (size_t at = 0; at < page_bytes; at += box_bytes) {
        const size_t n = page_bytes - at < box_bytes ? page_bytes - at : box_bytes;
        const uint64_t k = w->copies ? (*turn)++ : 0;
        char *box = l->box + k % w->n_boxes * box_bytes;
        if (w->copies && k >= w->n_boxes) must(api.event_sync(l->gone[k % w->n_boxes]));
        for (size_t i = 0; i < n && reads; i += PIECE) {
            const size_t some = n - i < PIECE ? n - i : PIECE;
            page_read(page, at + i, box + i, some);
            if (w->adds) hash_stream_add(&sum, box + i, some);
        }
        if (!w->copies) continue;
        must(api.to_device(room + page * page_bytes % (ROOM_BYTES - page_bytes) + at, box, n,
                           l->stream));
        must(api.event_record(l->gone[k % w->n_boxes], l->stream));
    }
    if (w->copies && !w->rolls) must(api.stream_sync(l->stream));
}

static void work(void *arg, uint32_t i_thread, uint32_t n_threads)
{
    uint64_t turn = 0;
    (void)arg;
    (void)n_threads;
    must(api.ctx_set(ctx));
    for (;;) {
        const uint64_t page = atomic_fetch_add_explicit(&next_page, 1, memory_order_relaxed);
        if (page >= n_pages) break;
        bring(&lanes[i_thread], page, &turn);
    }
    must(api.stream_sync(lanes[i_thread].stream));
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void open_device(uint32_t n_threads)
{
    struct err e = {0};
    int device;
    if (!gpu_api_open(&api, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        exit(77);
    }
    must(api.device_get(&device, 0));
    must(api.ctx_retain(&ctx, device));
    must(api.ctx_set(ctx));
    must(api.mem_alloc(&room, ROOM_BYTES));
    size_t box = 2 * page_bytes;
    if (box < (size_t)8 << 20) box = (size_t)8 << 20;
    for (uint32_t i = 0; i < n_threads; i++) {
        void *p;
        must(api.host_alloc(&p, box));
        memset(p, 1, box);
        lanes[i].box = p;
        must(api.stream_create(&lanes[i].stream, GPU_STREAM_NON_BLOCKING));
        for (int k = 0; k < BOXES_MAX; k++)
            must(api.event_create(&lanes[i].gone[k], GPU_EVENT_NO_TIMING));
    }
}

static void open_files(int n, char **paths)
{
    for (int i = 0; i < n && n_files < FILES_MAX; i++) {
        struct stat st;
        const int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) != 0 || (size_t)st.st_size < page_bytes) continue;
        files[n_files].fd = fd;
        files[n_files].n_pages = (uint64_t)st.st_size / page_bytes;
        n_pages += files[n_files++].n_pages;
    }
}

int main(int argc, char **argv)
{
    enum { REPEATS_MAX = 32 };
    struct threads *threads;
    struct err e = {0};
    uint32_t n_threads = threads_core_count();
    if (argc < 4) {
        fprintf(stderr, "usage: bench_pages PAGE_BYTES REPEATS FILE...\n");
        return 2;
    }
    page_bytes = strtoul(argv[1], NULL, 10);
    const uint32_t repeats = (uint32_t)strtoul(argv[2], NULL, 10) % REPEATS_MAX;
    if (n_threads > LANES) n_threads = LANES;
    if (page_bytes == 0 || repeats == 0) return 2;
    open_files(argc - 3, argv + 3);
    open_device(n_threads);
    if (!threads_open(&threads, n_threads, &e)) return 1;
    printf("%u threads, %llu pages of %zu bytes\n", n_threads, (unsigned long long)n_pages,
           page_bytes);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        double s[REPEATS_MAX];
        now = &ways[i];
        reads = i + 1 < sizeof ways / sizeof ways[0];
        for (uint32_t k = 0; k < repeats; k++) {
            atomic_store(&next_page, 0);
            const uint64_t start = clock_ns();
            threads_run(threads, work, NULL);
            s[k] = clock_ms_since(start);
        }
        qsort(s, repeats, sizeof *s, by_size);
        const double bytes = (double)n_pages * (double)page_bytes;
        printf("%-40s %7.1f ms, %5.1f GB/s (best %5.1f)\n", now->name, s[repeats / 2],
               bytes / s[repeats / 2] / 1e6, bytes / s[0] / 1e6);
        fflush(stdout);
    }
    threads_close(threads);
    return 0;
}
