// submind bench: the table of benchmarks. The workload that matters stands in bench_seed.c (what is measured:
// agent/workload.c), single kernels in bench_ops.c.
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cmd/bench_cache.h"
#include "cmd/bench_ops.h"
#include "cmd/bench_seed.h"
#include "cmd/cmd.h"

static atomic_int cancelled;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&cancelled, 1);
}

static bool run_seed(const struct settings *s, struct err *e)
{
    return bench_seed(s, &cancelled, e);
}

static bool run_ops(const struct settings *s, struct err *e)
{
    return bench_ops(s, &cancelled, e);
}

static bool run_cache(const struct settings *s, struct err *e)
{
    return bench_cache(s, &cancelled, e);
}

static const struct {
    const char *name;
    bool (*run)(const struct settings *s, struct err *e);
    const char *help;
} benchmarks[] = {
    {"seed", run_seed,
     "a long prompt cold and cached, eight agents at once, a short prompt and\n"
     "        generation, from the client's side, of each server that is named: a device of ours\n"
     "        (cpu, cuda:0), an address, or \"llama-server -m FILE --port {port}\" to start one;\n"
     "        NAME=... names it: [--model FILE] [--workspace DIR] [--html FILE] [--baseline FILE]"},
    {"cache", run_cache,
     "what a restart costs: a long prompt cold, cached, after kill -9 and after a reboot,\n"
     "        and what saving pages costs the decode rate: [--model FILE] [--prompt-tokens N]"},
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
    options_help(C_BENCH, "bench");
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
    for (size_t i = 0; i < N_BENCHMARKS; i++) {
        if (strcmp(s.args[0], benchmarks[i].name) != 0) continue;
        if (benchmarks[i].run != run_seed && s.n_args > 1) break;
        return benchmarks[i].run(&s, &e) ? 0 : cmd_fail("bench", &e);
    }
    err_set(&e, ERR_INPUT, "there is no benchmark \"%s\"; --help lists them", s.args[0]);
    return cmd_fail("bench", &e);
}
