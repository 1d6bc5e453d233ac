// submind bench: the workload that matters on one server or two, as a table or JSON (what is measured
// stands in agent/workload.c), and single kernels (bench_ops.c).
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/workload.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "cmd/bench_ops.h"
#include "cmd/bench_server.h"
#include "cmd/cmd.h"

static atomic_int cancelled;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&cancelled, 1);
}

static void show_wait(const char *what)
{
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%s", what);
}

struct progress {
    const char *server;
    uint64_t start_ns;
};

static void show_step(void *arg, const char *what, uint32_t done, uint32_t total)
{
    const struct progress *p = arg;
    double spent_s = clock_ms_since(p->start_ns) / 1e3;
    if (!isatty(STDERR_FILENO)) return;
    fprintf(stderr, "\r\033[K[%u/%u] %s: %s", done + 1, total, p->server, what);
    if (done > 1) fprintf(stderr, ", about %.0f s left", spent_s / done * (total - done));
}

static bool measure(const struct settings *s, const char *url, const char *key, const char *name,
                    struct workload_result *out, struct err *e)
{
    struct progress p = {name, clock_ns()};
    static uint32_t
        seed; // one for all servers: the same prompts; another for each call of the program
    if (seed == 0) seed = (uint32_t)clock_unix();
    const struct workload_settings w = {.url = url,
                                        .key = key,
                                        .model = s->server_model,
                                        .prompt_tokens = s->prompt_tokens,
                                        .runs = s->runs,
                                        .gen_tokens = s->gen_tokens,
                                        .seed = seed, // no run meets another's cache
                                        .cancel = &cancelled,
                                        .on_step = show_step,
                                        .arg = &p};
    bool ok = workload_run(&w, out, e);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
    return ok || err_prefix(e, "%s: ", name);
}

static void print_cell(const struct workload_figure *f)
{
    double lo, hi;
    workload_range(f, &lo, &hi);
    printf("  %10.3f  [%.3f .. %.3f]", workload_median(f), lo, hi);
}

// How many times better the first server is; 0 when that cannot be said.
static double ratio(const struct workload_figure *a, const struct workload_figure *b)
{
    double x = workload_median(a), y = workload_median(b);
    if (x <= 0 || y <= 0) return 0;
    return a->more_is_better ? x / y : y / x;
}

static void print_table(const struct workload_result *a, const struct workload_result *b)
{
    printf("%-30s %-6s  %10s%s\n", "median [lowest .. highest]", "unit", "submind",
           b == NULL ? "" : "                                the other, times better");
    for (int i = 0; i < WORKLOAD_ROWS; i++) {
        const struct workload_figure *f = &a->rows[i];
        printf("%-30s %-6s", f->name, f->unit);
        print_cell(f);
        if (b != NULL) {
            print_cell(&b->rows[i]);
            printf("  %.2f x", ratio(f, &b->rows[i]));
        }
        printf("\n");
    }
}

static void print_figures(const char *name, const struct workload_result *r)
{
    printf("\"%s\":{", name);
    for (int i = 0; i < WORKLOAD_ROWS; i++) {
        const struct workload_figure *f = &r->rows[i];
        printf("%s\"%s\":{\"median\":%.6g,\"samples\":[", i == 0 ? "" : ",", f->key,
               workload_median(f));
        for (uint32_t k = 0; k < f->n; k++) printf(k == 0 ? "%.6g" : ",%.6g", f->samples[k]);
        printf("]}");
    }
    printf("}");
}

static void print_json(const struct workload_result *a, const struct workload_result *b)
{
    printf("{");
    print_figures("submind", a);
    if (b != NULL) {
        printf(",");
        print_figures("against", b);
    }
    printf("}\n");
}

static bool bench_seed(const struct settings *s, struct err *e)
{
    struct bench_server server = {0};
    const struct bench_start start = {.settings = s, .on_wait = show_wait, .cancel = &cancelled};
    struct buf key = {0};
    struct workload_result ours, theirs;
    bool ok = true;
    if (s->key_file != NULL) ok = file_read(&key, s->key_file, 16384, e);
    while (key.n > 0 && key.p[key.n - 1] <= ' ') key.n--;
    const char *secret = key.n > 0 ? buf_cstr(&key) : NULL;
    if (ok && s->server == NULL) ok = bench_server_start(&server, &start, e);
    const char *url = s->server != NULL ? s->server : buf_cstr(&server.url);
    ok = ok && measure(s, url, secret, "submind", &ours, e);
    if (ok && s->against != NULL) ok = measure(s, s->against, secret, s->against, &theirs, e);
    bench_server_stop(&server);
    buf_free(&key);
    if (!ok) return false;
    const struct workload_result *other = s->against != NULL ? &theirs : NULL;
    s->json ? print_json(&ours, other) : print_table(&ours, other);
    return true;
}

static bool run_ops(const struct settings *s, struct err *e)
{
    return bench_ops(s, &cancelled, e);
}

static const struct {
    const char *name;
    bool (*run)(const struct settings *s, struct err *e);
    const char *help;
} benchmarks[] = {
    {"seed", bench_seed,
     "a long prompt cold and cached, eight agents at once, a short prompt and\n"
     "        generation, from the client's side: [--model FILE | --server URL] [--against URL]"},
    {"ops", run_ops,
     "every kind of kernel on random data: time, GB/s, GFLOP/s and percent of what\n"
     "        the device can do: [--device D] [--format F] [--op TEXT] [--rows N] [--shape SIZE]"},
};

enum { N_BENCHMARKS = sizeof benchmarks / sizeof *benchmarks };

static int help(void)
{
    printf("usage: submind bench WHAT [flags]\n\n");
    for (size_t i = 0; i < N_BENCHMARKS; i++)
        printf("  %-5s %s\n", benchmarks[i].name, benchmarks[i].help);
    printf("\n");
    options_help(C_BENCH);
    return 0;
}

int cmd_bench(int argc, char **argv)
{
    struct err e = {0};
    struct settings s;
    struct sigaction stop = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    if (!options_parse(&s, C_BENCH, argc, argv, &e)) return cmd_fail("bench", &e);
    if (s.help || s.n_args == 0) return help();
    log_set_level(s.verbose ? LOG_DEBUG : LOG_WARN);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    for (size_t i = 0; i < N_BENCHMARKS && s.n_args == 1; i++) {
        if (strcmp(s.args[0], benchmarks[i].name) != 0) continue;
        return benchmarks[i].run(&s, &e) ? 0 : cmd_fail("bench", &e);
    }
    err_set(&e, ERR_INPUT, "there is no benchmark \"%s\"; --help lists them", s.args[0]);
    return cmd_fail("bench", &e);
}
