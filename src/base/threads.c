// Worker pool. A run is a generation number: workers wait until it changes, run the function, and
// count themselves out. Waiting is a short spin and then a futex on the very word that changes, so a
// wake-up cannot be lost: the kernel sleeps only while the word still has the old value.
//
// Waking costs a call of the system, so it is left out while nobody sleeps. Sleepers count themselves
// before they look at the word for the last time, wakers change the word before they look at the count,
// both sequentially consistent: one of the two sees the other.
//
// Memory order: the caller publishes fn and arg with a release increment of `generation`, workers
// acquire it; workers publish their results with the acq_rel decrement of `busy`, which the caller
// acquires when it reads 0. The barrier does the same with `arrived` and `round`.
#include "base/threads.h"

#include <assert.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

// About 20 us of looking on a 3 GHz core: longer than the gap between the ops of a decode step,
// shorter than a scheduler tick. With fewer cores than workers spinning only delays the others.
enum { SPIN_ROUNDS = 600 };

struct worker {
    struct threads *pool;
    uint32_t index;
    pthread_t thread;
    bool started;
};

struct threads {
    uint32_t n;
    uint32_t n_spin;
    threads_fn fn; // written by the caller before generation changes
    void *arg;
    bool stop;
    _Alignas(64) atomic_uint generation;
    _Alignas(64) atomic_uint busy;
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint round;
    _Alignas(64) atomic_uint n_asleep; // on any of the words
    struct worker workers[THREADS_MAX];
};

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void futex_wait(atomic_uint *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

// After *word has changed.
static void wake_all(struct threads *t, atomic_uint *word)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&t->n_asleep, memory_order_seq_cst) == 0) return;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, THREADS_MAX, NULL, NULL, 0);
}

// Returns when *word differs from value.
static void wait_change(struct threads *t, atomic_uint *word, uint32_t value)
{
    for (uint32_t i = 0; i < t->n_spin; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value) return;
        cpu_relax();
    }
    atomic_fetch_add_explicit(&t->n_asleep, 1, memory_order_seq_cst);
    while (atomic_load_explicit(word, memory_order_seq_cst) == value) futex_wait(word, value);
    atomic_fetch_sub_explicit(&t->n_asleep, 1, memory_order_relaxed);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct threads *t = w->pool;
    for (uint32_t seen = 0;;) {
        wait_change(t, &t->generation, seen);
        seen++;
        if (t->stop) return NULL;
        t->fn(t->arg, w->index, t->n);
        if (atomic_fetch_sub_explicit(&t->busy, 1, memory_order_acq_rel) == 1)
            wake_all(t, &t->busy);
    }
}

// The first CPU of each core among those in set, into cpus; a core whose topology cannot be read
// counts as one of its own.
static uint32_t list_cores(const cpu_set_t *set, int cpus[THREADS_MAX])
{
    uint32_t n = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && n < THREADS_MAX; cpu++) {
        if (!CPU_ISSET(cpu, set)) continue;
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 cpu);
        FILE *f = fopen(path, "r");
        int first = cpu;
        if (f) {
            if (fscanf(f, "%d", &first) != 1) first = cpu;
            fclose(f);
        }
        if (first == cpu || !CPU_ISSET(first, set)) cpus[n++] = cpu;
    }
    return n;
}

uint32_t threads_core_count(void)
{
    cpu_set_t set;
    int cpus[THREADS_MAX];
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    const uint32_t n = list_cores(&set, cpus);
    return n ? n : 1;
}

// Numbers of the Linux interface (asm/prctl.h; state component 18), which older headers lack. Nowhere else
// does such a request succeed.
enum { REQUEST_STATE_PERMISSION = 0x1023, TILE_DATA = 18 };

bool threads_may_use_tiles(void)
{
#if defined(__x86_64__)
    return syscall(SYS_arch_prctl, REQUEST_STATE_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

// A pinned worker keeps its cache; the caller stays free, for it has other work between runs.
static void pin_workers(struct threads *t)
{
    cpu_set_t set;
    int cpus[THREADS_MAX];
    if (sched_getaffinity(0, sizeof set, &set) != 0) return;
    if (list_cores(&set, cpus) < t->n) return;
    for (uint32_t i = 1; i < t->n; i++) {
        CPU_ZERO(&set);
        CPU_SET(cpus[i], &set);
        pthread_setaffinity_np(t->workers[i].thread, sizeof set, &set);
    }
}

bool threads_open(struct threads **out, uint32_t n, struct err *e)
{
    const uint32_t n_cores = threads_core_count();
    if (n == 0) n = n_cores;
    if (n > THREADS_MAX) {
        log_warn("threads", "%u threads wanted, %d are the most", n, THREADS_MAX);
        n = THREADS_MAX;
    }
    struct threads *t = aligned_alloc(64, (sizeof *t + 63) / 64 * 64);
    if (!t) return err_set(e, ERR_MEMORY, "no memory for a pool of %u threads", n);
    *t = (struct threads){.n = n, .n_spin = n <= n_cores ? SPIN_ROUNDS : 0};
    for (uint32_t i = 1; i < n; i++) {
        struct worker *w = &t->workers[i];
        *w = (struct worker){.pool = t, .index = i};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
            threads_close(t);
            return err_set(e, ERR_MEMORY, "cannot start thread %u of %u: lower the thread count", i,
                           n);
        }
        w->started = true;
    }
    pin_workers(t);
    *out = t;
    return true;
}

void threads_close(struct threads *t)
{
    if (!t) return;
    t->stop = true;
    atomic_fetch_add_explicit(&t->generation, 1, memory_order_release);
    wake_all(t, &t->generation);
    for (uint32_t i = 1; i < t->n; i++)
        if (t->workers[i].started) pthread_join(t->workers[i].thread, NULL);
    free(t);
}

uint32_t threads_count(const struct threads *t)
{
    return t->n;
}

void threads_run(struct threads *t, threads_fn fn, void *arg)
{
    if (t->n == 1) {
        fn(arg, 0, 1);
        return;
    }
    t->fn = fn;
    t->arg = arg;
    atomic_store_explicit(&t->busy, t->n - 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->generation, 1, memory_order_release);
    wake_all(t, &t->generation);
    fn(arg, 0, t->n);
    for (;;) {
        const uint32_t busy = atomic_load_explicit(&t->busy, memory_order_acquire);
        if (busy == 0) return;
        wait_change(t, &t->busy, busy);
    }
}

void threads_barrier(struct threads *t)
{
    if (t->n == 1) return;
    const uint32_t round = atomic_load_explicit(&t->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 < t->n) {
        wait_change(t, &t->round, round);
        return;
    }
    atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->round, 1, memory_order_release);
    wake_all(t, &t->round);
}
