// See store_speed.h. Invariant: the system's memory is as before, for reading goes past it.
#include "base/store_speed.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/store_files.h"

#define PIECE_BYTES ((size_t)1 << 20)
#define ALIGN       ((size_t)4096)

bool store_is_near(int fd, uint64_t off)
{
    char byte;
    const struct iovec to = {&byte, 1};
    return preadv2(fd, &to, 1, (off_t)off, RWF_NOWAIT) >= 0 || errno != EAGAIN;
}

struct trial {
    int dir_fd;
    uint32_t id, ms;
    uint64_t start_ns, n_read;
    double seconds;
};

static void read_past_memory(struct trial *t, int fd, int direct, unsigned char *to)
{
    for (uint64_t at = 0; clock_ms_since(t->start_ns) < t->ms; at += PIECE_BYTES) {
        if (store_is_near(fd, at)) { // or the end
            if (lseek(fd, 0, SEEK_END) <= (off_t)at) return;
            continue;
        }
        const ssize_t n = pread(direct, to, PIECE_BYTES, (off_t)at);
        if (n <= 0) return;
        t->n_read += (uint64_t)n;
        t->seconds = clock_ms_since(t->start_ns) / 1e3;
    }
}

static void *try_one(void *arg)
{
    struct trial *t = arg;
    char name[SEGMENT_NAME_MAX];
    segment_name(name, t->id);
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW;
    const int fd = openat(t->dir_fd, name, flags),
              direct = openat(t->dir_fd, name, flags | O_DIRECT);
    unsigned char *to = aligned_alloc(ALIGN, PIECE_BYTES);
    if (fd >= 0 && direct >= 0 && to != NULL) read_past_memory(t, fd, direct, to);
    free(to);
    if (fd >= 0) close(fd);
    if (direct >= 0) close(direct);
    return NULL;
}

double store_speed_of(int dir_fd, const uint32_t *ids, uint32_t n, uint32_t ms)
{
    struct trial trials[STORE_SPEED_FILES];
    pthread_t threads[STORE_SPEED_FILES];
    uint32_t n_threads = 0;
    const uint64_t start = clock_ns();
    for (; n_threads < n; n_threads++) {
        trials[n_threads] =
            (struct trial){.dir_fd = dir_fd, .id = ids[n_threads], .ms = ms, .start_ns = start};
        if (pthread_create(&threads[n_threads], NULL, try_one, &trials[n_threads]) != 0) break;
    }
    uint64_t n_read = 0;
    double seconds = 0;
    for (uint32_t i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        n_read += trials[i].n_read;
        if (trials[i].seconds > seconds) seconds = trials[i].seconds;
    }
    return seconds > 0 ? (double)n_read / seconds : 0;
}
