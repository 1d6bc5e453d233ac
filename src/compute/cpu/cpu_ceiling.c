// What this machine's cores can do at most, measured by all workers at once: bytes read from memory,
// and the multiply instruction of the table in force with everything in registers.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "compute/cpu/cpu.h"

enum {
    READ_BYTES = 256 << 20, // beyond any cache
    READ_TURNS = 12,
    PEAK_ROUNDS = 1 << 17,
    PEAK_TURNS = 200, // short and many, for busy machines
    WORDS_AT_ONCE = 8,
};

struct probe {
    const struct cpu_kernels *k;
    uint64_t *words;
    uint64_t sums[THREADS_MAX]; // so that nothing is optimised away
    uint64_t macs[THREADS_MAX];
};

// Each worker first writes what it reads later, so that pages lie near it.
static void touch(void *arg, uint32_t i, uint32_t n)
{
    struct probe *p = arg;
    uint32_t first, end;
    threads_share(READ_BYTES / 8, 512, i, n, &first, &end);
    memset(p->words + first, (int)i + 1, (end - first) * sizeof *p->words);
}

static void read_all(void *arg, uint32_t i, uint32_t n)
{
    struct probe *p = arg;
    uint64_t sum[WORDS_AT_ONCE] = {0};
    uint32_t first, end;
    threads_share(READ_BYTES / 8, 512, i, n, &first, &end);
    for (uint32_t w = first; w + WORDS_AT_ONCE <= end; w += WORDS_AT_ONCE)
        for (int j = 0; j < WORDS_AT_ONCE; j++) sum[j] += p->words[w + (uint32_t)j];
    for (int j = 0; j < WORDS_AT_ONCE; j++) p->sums[i] += sum[j];
}

static void multiply(void *arg, uint32_t i, uint32_t n)
{
    (void)n;
    struct probe *p = arg;
    p->macs[i] = p->k->peak(PEAK_ROUNDS);
}

// The quickest of some turns, in seconds.
static double best_of(struct threads *t, threads_fn fn, struct probe *p, int turns)
{
    double best = 1e30;
    for (int i = 0; i < turns; i++) {
        const uint64_t start = clock_ns();
        threads_run(t, fn, p);
        const double s = clock_ms_since(start) / 1e3;
        best = s < best ? s : best;
    }
    return best;
}

bool cpu_ceilings(struct backend *b, struct backend_ceilings *out, struct err *e)
{
    struct cpu *c = (struct cpu *)b;
    struct probe p = {.k = c->k, .words = aligned_alloc(4096, READ_BYTES)};
    if (!p.words) return err_set(e, ERR_MEMORY, "no memory to measure its speed");
    threads_run(c->threads, touch, &p);
    const double read_s = best_of(c->threads, read_all, &p, READ_TURNS);
    const double peak_s = best_of(c->threads, multiply, &p, PEAK_TURNS);
    double macs = 0;
    for (uint32_t i = 0; i < c->n_threads; i++) macs += (double)p.macs[i];
    *out =
        (struct backend_ceilings){.read_bytes_s = READ_BYTES / read_s, .flop_s = 2 * macs / peak_s};
    snprintf(out->how, sizeof out->how, "reading %d MiB; %s", READ_BYTES >> 20, c->k->peak_name);
    free(p.words);
    return true;
}
