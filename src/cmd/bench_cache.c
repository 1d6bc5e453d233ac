// Servers of our own, one after the other, on a cache folder that is made for this and removed: the
// long prompt cold and cached; kill -9, and the first request of the next server; the same with the
// files pushed out of the system's memory first, as after a reboot; and generation with and without
// pages being saved meanwhile, in turns.
#include "cmd/bench_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/http_client.h"
#include "agent/workload.h"
#include "base/clock.h"
#include "base/threads.h"
#include "cmd/bench_server.h"

enum { SAVED_WAIT_MS = 120000, POLL_MS = 100, QUIET_POLLS = 10, DEPTH = 3 };
enum { READ_FILES_MAX = 512, READ_PIECE = 256 << 10, READ_THREADS = 8 };

enum row { COLD, CACHED, RESTART, REBOOT, RESTORED, NEAR_GBPS, FAR_GBPS, TPS_OFF, TPS_ON, ROWS };

struct bench {
    const struct settings *s;
    const atomic_int *cancel;
    struct workload_figure rows[ROWS];
    char dir[64]; // of the cache
    uint32_t n_words, seed;
    uint64_t prompt_tokens, disk_bytes;
};

static const struct workload_figure row_table[ROWS] = {
    [COLD] = {.name = "cold TTFT", .unit = "s", .key = "cold_ttft_s"},
    [CACHED] = {.name = "cached TTFT", .unit = "s", .key = "cached_ttft_s"},
    [RESTART] = {.name = "TTFT after kill -9", .unit = "s", .key = "restart_ttft_s"},
    [REBOOT] = {.name = "TTFT, files not in memory", .unit = "s", .key = "reboot_ttft_s"},
    [RESTORED] = {.name = "tokens brought back", .unit = "tokens", .key = "restored_tokens"},
    [NEAR_GBPS] = {.name = "files read, from memory", .unit = "GB/s", .key = "near_gbps"},
    [FAR_GBPS] = {.name = "files read, from disk", .unit = "GB/s", .key = "far_gbps"},
    [TPS_OFF] = {.name = "generation, saving nothing", .unit = "t/s", .key = "gen_tps_off"},
    [TPS_ON] = {.name = "generation, saving", .unit = "t/s", .key = "gen_tps_on"},
};

static void put(struct bench *b, enum row row, double v)
{
    struct workload_figure *f = &b->rows[row];
    if (f->n < WORKLOAD_RUNS_MAX) f->samples[f->n++] = v;
}

static void say(const char *what)
{
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%s", what);
}

// ---- the folder ---------------------------------------------------------------------------------

typedef void file_fn(int dir, const char *name, void *arg);

// Calls fn for every file below path.
static void walk(const char *path, int depth, file_fn *fn, void *arg)
{
    DIR *d = depth > 0 ? opendir(path) : NULL;
    if (d == NULL) return;
    for (struct dirent *f = readdir(d); f != NULL; f = readdir(d)) {
        char below[512];
        if (f->d_name[0] == '.') continue;
        snprintf(below, sizeof below, "%s/%s", path, f->d_name);
        walk(below, depth - 1, fn, arg);
        fn(dirfd(d), f->d_name, arg);
    }
    closedir(d);
}

// Written out and pushed out of memory, so that the next read is the disk's. Adds up the bytes.
static void push_out(int dir, const char *name, void *arg)
{
    uint64_t *bytes = arg;
    const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || strncmp(name, "seg-", 4) != 0) {
        if (fd >= 0) close(fd);
        return;
    }
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    const off_t n = lseek(fd, 0, SEEK_END);
    if (n > 0) *bytes += (uint64_t)n;
    close(fd);
}

// What the files are read at by threads that do nothing else: the measure of what restoring takes.
struct read_all {
    int fds[READ_FILES_MAX];
    uint32_t n_files;
    atomic_uint next;          // relaxed: only divides the files
    atomic_uint_fast64_t read; // bytes
};

static void open_it(int dir, const char *name, void *arg)
{
    struct read_all *r = arg;
    if (strncmp(name, "seg-", 4) != 0 || r->n_files == READ_FILES_MAX) return;
    const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) r->fds[r->n_files++] = fd;
}

static void read_some(void *arg, uint32_t i_thread, uint32_t n_threads)
{
    struct read_all *r = arg;
    unsigned char *to = malloc(READ_PIECE);
    (void)i_thread;
    (void)n_threads;
    for (uint32_t i = 0; to != NULL && i < r->n_files;) {
        i = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (i >= r->n_files) break;
        ssize_t n = 0;
        for (off_t at = 0; (n = pread(r->fds[i], to, READ_PIECE, at)) > 0; at += n)
            atomic_fetch_add_explicit(&r->read, (uint64_t)n, memory_order_relaxed);
    }
    free(to);
}

static double read_gbps(const char *dir)
{
    struct threads *threads = NULL;
    struct err e = {0};
    struct read_all r = {.n_files = 0};
    if (!threads_open(&threads, READ_THREADS, &e)) return 0;
    walk(dir, DEPTH, open_it, &r);
    const uint64_t start = clock_ns();
    threads_run(threads, read_some, &r);
    const double seconds = clock_ms_since(start) / 1e3;
    for (uint32_t i = 0; i < r.n_files; i++) close(r.fds[i]);
    threads_close(threads);
    return seconds > 0 ? (double)r.read / seconds / 1e9 : 0;
}

static void remove_it(int dir, const char *name, void *arg)
{
    (void)arg;
    if (unlinkat(dir, name, 0) != 0) unlinkat(dir, name, AT_REMOVEDIR);
}

// ---- servers ------------------------------------------------------------------------------------

static bool start(struct bench *b, struct bench_server *out, bool with_cache, struct err *e)
{
    struct settings s = *b->s;
    s.cache_dir = with_cache ? b->dir : "off";
    s.given.cache_dir = true;
    const struct bench_start how = {.settings = &s, .on_wait = say, .cancel = b->cancel};
    return bench_server_start(out, &how, e);
}

static void kill_hard(struct bench_server *server)
{
    if (server->pid > 0) kill(server->pid, SIGKILL);
    bench_server_stop(server);
}

static struct workload_settings settings_for(const struct bench *b, const char *url)
{
    return (struct workload_settings){.url = url,
                                      .prompt_tokens =
                                          b->s->prompt_tokens > 0 ? b->s->prompt_tokens : 14000,
                                      .seed = b->seed,
                                      .cancel = b->cancel};
}

static bool ask(struct bench *b, struct bench_server *server, uint32_t seed, const char *task,
                uint32_t max_tokens, struct workload_sample *out, struct err *e)
{
    const struct workload_settings w = settings_for(b, buf_cstr(&server->url));
    say(task);
    return workload_ask(&w, seed, b->n_words, task, max_tokens, out, e);
}

// The counter of saved pages; -1 when the server does not answer.
static double saved_pages(const char *url)
{
    static const char name[] = "\nsubmind:cache_saved_pages_total{";
    struct http_client *http = NULL;
    struct http_answer answer = {0};
    const struct http_call call = {.path = "/metrics", .deadline_ns = clock_ns() + 2000000000u};
    double v = -1;
    if (!http_client_open(&http, url, NULL, &(struct err){0})) return -1;
    if (http_client_call(http, &call, &answer) && answer.status == 200) {
        const char *line = strstr(buf_cstr(&answer.body), name);
        const char *value = line == NULL ? NULL : strstr(line, "} ");
        if (value != NULL) v = strtod(value + 2, NULL);
    }
    http_answer_free(&answer);
    http_client_close(http);
    return v;
}

// Until nothing more is saved for a second.
static bool wait_saved(const struct bench *b, struct bench_server *server, struct err *e)
{
    double last = -1;
    uint64_t start_ns = clock_ns();
    say("waiting until all is saved");
    for (int quiet = 0; quiet < QUIET_POLLS;) {
        const double now = saved_pages(buf_cstr(&server->url));
        quiet = now > 0 && now == last ? quiet + 1 : 0;
        last = now;
        if (atomic_load(b->cancel) != 0) return err_set(e, ERR_CANCELLED, "stopped");
        if (clock_ms_since(start_ns) > SAVED_WAIT_MS)
            return err_set(e, ERR_TIMEOUT, "the server did not end saving pages");
        clock_sleep_ms(POLL_MS);
    }
    return true;
}

// ---- measurements -------------------------------------------------------------------------------

// How many words the prompt's tokens are; asked of a server of its own, so that the cold prompt is a process's first request,
// as the first one after a restart is.
static bool count_words(struct bench *b, struct err *e)
{
    struct bench_server server = {0};
    bool ok = start(b, &server, false, e);
    const struct workload_settings w = settings_for(b, ok ? buf_cstr(&server.url) : NULL);
    ok = ok && workload_words(&w, &b->n_words, e);
    kill_hard(&server);
    return ok;
}

static bool first_server(struct bench *b, uint32_t seed, struct err *e)
{
    struct bench_server server = {0};
    struct workload_sample cold, cached;
    bool ok = start(b, &server, true, e);
    ok = ok && ask(b, &server, seed, "long prompt, cold", 4, &cold, e) &&
         ask(b, &server, seed, "long prompt, cached", 4, &cached, e) && wait_saved(b, &server, e);
    kill_hard(&server);
    if (!ok) return false;
    put(b, COLD, cold.ttft_s);
    put(b, CACHED, cached.ttft_s);
    b->prompt_tokens = cold.prompt_tokens;
    return true;
}

static bool next_server(struct bench *b, uint32_t seed, enum row row, struct err *e)
{
    struct bench_server server = {0};
    struct workload_sample o;
    uint64_t ignored = 0;
    if (row == REBOOT) walk(b->dir, DEPTH, push_out, &ignored);
    put(b, row == REBOOT ? FAR_GBPS : NEAR_GBPS, read_gbps(b->dir));
    b->disk_bytes = 0;
    if (row == REBOOT) walk(b->dir, DEPTH, push_out, &b->disk_bytes);
    bool ok = start(b, &server, true, e) &&
              ask(b, &server, seed, "long prompt, first after a start", 4, &o, e);
    kill_hard(&server);
    if (!ok) return false;
    put(b, row, o.ttft_s);
    put(b, RESTORED, (double)o.cached_tokens);
    return true;
}

// A short prompt, so that what is generated is most of what is saved.
static bool generate(struct bench *b, bool with_cache, uint32_t run, struct err *e)
{
    struct bench_server server = {0};
    struct workload_sample o;
    const uint32_t n = b->s->gen_tokens > 0 ? b->s->gen_tokens : 256;
    bool ok = start(b, &server, with_cache, e);
    const struct workload_settings w = settings_for(b, ok ? buf_cstr(&server.url) : NULL);
    ok = ok && workload_ask(&w, b->seed + 900 + run, 40, "warm-up", 16, &o, e) &&
         workload_ask(&w, b->seed + 900 + run, 40, "write", n, &o, e);
    kill_hard(&server);
    if (ok) put(b, with_cache ? TPS_ON : TPS_OFF, o.gen_tps);
    return ok;
}

static bool measure(struct bench *b, struct err *e)
{
    const uint32_t runs = b->s->runs > 0 ? b->s->runs : 3;
    if (!count_words(b, e)) return false;
    for (uint32_t i = 0; i < runs; i++) {
        const uint32_t seed = b->seed * 1000 + i;
        walk(b->dir, DEPTH, remove_it, NULL); // every run begins without
        if (!first_server(b, seed, e) || !next_server(b, seed, RESTART, e) ||
            !next_server(b, seed, REBOOT, e))
            return false;
    }
    for (uint32_t i = 0; i < runs; i++)
        if (!generate(b, i % 2 == 0, i, e) || !generate(b, i % 2 != 0, i, e)) return false;
    return true;
}

// ---- results ------------------------------------------------------------------------------------

static void print_table(const struct bench *b)
{
    const double cold = workload_median(&b->rows[COLD]);
    printf("%llu tokens of prompt, %.1f MB on disk\n", (unsigned long long)b->prompt_tokens,
           (double)b->disk_bytes / 1e6);
    printf("%-30s %-6s  median [lowest .. highest]\n", "", "unit");
    for (int i = 0; i < ROWS; i++) {
        const struct workload_figure *f = &b->rows[i];
        double lo, hi;
        workload_range(f, &lo, &hi);
        printf("%-30s %-6s  %10.3f  [%.3f .. %.3f]", f->name, f->unit, workload_median(f), lo, hi);
        if (i > COLD && i <= REBOOT && cold > 0)
            printf("  %.2f %% of cold", 100 * workload_median(f) / cold);
        const double gbps = workload_median(&b->rows[i == REBOOT ? FAR_GBPS : NEAR_GBPS]);
        if ((i == RESTART || i == REBOOT) && gbps > 0)
            printf("; 1.3 x (bytes / read rate) + cached: %.3f",
                   1.3 * (double)b->disk_bytes / gbps / 1e9 + workload_median(&b->rows[CACHED]));
        printf("\n");
    }
}

static void print_json(const struct bench *b)
{
    printf("{\"prompt_tokens\":%llu,\"disk_bytes\":%llu", (unsigned long long)b->prompt_tokens,
           (unsigned long long)b->disk_bytes);
    for (int i = 0; i < ROWS; i++) {
        const struct workload_figure *f = &b->rows[i];
        printf(",\"%s\":{\"median\":%.6g,\"samples\":[", f->key, workload_median(f));
        for (uint32_t k = 0; k < f->n; k++) printf(k == 0 ? "%.6g" : ",%.6g", f->samples[k]);
        printf("]}");
    }
    printf("}\n");
}

bool bench_cache(const struct settings *s, const atomic_int *cancel, struct err *e)
{
    struct bench b = {.s = s, .cancel = cancel, .seed = (uint32_t)clock_unix() % 1000000};
    const char *tmp = options_env("TMPDIR");
    memcpy(b.rows, row_table, sizeof row_table);
    snprintf(b.dir, sizeof b.dir, "%.32s/submind-bench-XXXXXX", tmp == NULL ? "/var/tmp" : tmp);
    if (s->server != NULL)
        return err_set(e, ERR_INPUT,
                       "bench cache starts and kills servers of its own; leave "
                       "--server out");
    if (mkdtemp(b.dir) == NULL) return err_errno(e, ERR_IO, "cannot make a folder like %s", b.dir);
    const bool ok = measure(&b, e);
    say("");
    walk(b.dir, DEPTH, remove_it, NULL);
    rmdir(b.dir);
    if (ok) s->json ? print_json(&b) : print_table(&b);
    return ok;
}
