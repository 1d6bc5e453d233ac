// A table that a signal handler reads: entries are filled before their start is published, and the
// handler calls nothing but write, pause and _exit.
#include "base/map_guard.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { MAPS_MAX = 256, PATH_KEPT = 256, EXIT_IO = 1 };

static struct map {
    _Atomic uintptr_t start; // 0: free; CLAIMED: being filled
    size_t n;
    char path[PATH_KEPT];
} maps[MAPS_MAX];

enum { CLAIMED = 1 }; // no map starts there

void map_guard_add(const void *p, size_t n, const char *path)
{
    if (p == NULL) return;
    for (int i = 0; i < MAPS_MAX; i++) {
        uintptr_t nobody = 0;
        if (!atomic_compare_exchange_strong(&maps[i].start, &nobody, CLAIMED)) continue;
        maps[i].n = n;
        strncpy(maps[i].path, path, PATH_KEPT - 1);
        // Release: the handler must see n and path of a start that it sees.
        atomic_store_explicit(&maps[i].start, (uintptr_t)p, memory_order_release);
        return;
    }
}

void map_guard_remove(const void *p)
{
    for (int i = 0; i < MAPS_MAX && p != NULL; i++) {
        uintptr_t start = (uintptr_t)p;
        if (atomic_compare_exchange_strong(&maps[i].start, &start, CLAIMED)) {
            memset(maps[i].path, 0, sizeof maps[i].path);
            atomic_store(&maps[i].start, 0);
        }
    }
}

// ---- in the handler -----------------------------------------------------------------------------

static void put(const char *text)
{
    size_t n = strlen(text);
    while (n > 0) {
        const ssize_t done = write(STDERR_FILENO, text, n);
        if (done <= 0) return;
        text += done;
        n -= (size_t)done;
    }
}

static void put_number(size_t v)
{
    char digits[24] = {0};
    size_t i = sizeof digits - 1;
    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    put(digits + i);
}

static atomic_flag speaking = ATOMIC_FLAG_INIT;

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    const uintptr_t at = (uintptr_t)info->si_addr;
    (void)context;
    for (int i = 0; i < MAPS_MAX; i++) {
        const uintptr_t start = atomic_load_explicit(&maps[i].start, memory_order_acquire);
        if (start <= CLAIMED || at < start || at - start >= maps[i].n) continue;
        // Workers meet the same end at once: the first one speaks, the process ends with it.
        if (atomic_flag_test_and_set(&speaking))
            for (;;) pause();
        put("submind: ");
        put(maps[i].path);
        put(" cannot be read any more at byte ");
        put_number(at - start);
        put(" of ");
        put_number(maps[i].n);
        put(": it was cut short or overwritten while in use, or its disk failed. Put the whole "
            "file "
            "back and start again; to replace a file in use, write a new one and rename it over "
            "the old.\n");
        _exit(EXIT_IO);
    }
    signal(number, SIG_DFL); // returning repeats the access, which now kills
}

void map_guard_install(void)
{
    struct sigaction a = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, NULL);
}
