// One thread, one connection after the other. Requests are kept whole for the test to look at.
#include "lib/fake_openai.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"

enum { MAX_REQUESTS = 64 };

struct fake_openai {
    const struct fake_response *list;
    size_t n;
    int fd;
    char url[64];
    pthread_t thread;
    atomic_bool stop;
    atomic_size_t n_requests; // stored after the request's bytes (release)
    struct buf requests[MAX_REQUESTS];
};

static size_t body_bytes(struct buf *request)
{
    const char *head = buf_cstr(request), *at = strcasestr(head, "\r\ncontent-length:");
    const char *end = strstr(head, "\r\n\r\n");
    return at != NULL && at < end ? strtoul(at + 17, NULL, 10) : 0;
}

static void read_request(int fd, struct buf *out)
{
    char chunk[4096];
    for (;;) {
        const char *end = strstr(buf_cstr(out), "\r\n\r\n");
        if (end != NULL && out->n >= (size_t)(end + 4 - out->p) + body_bytes(out)) return;
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n <= 0) return;
        buf_put(out, chunk, (size_t)n);
    }
}

static void write_response(struct fake_openai *f, int fd, const struct fake_response *r)
{
    if (r->bytes == NULL) return;
    size_t n = strlen(r->bytes), piece = r->piece != 0 ? r->piece : n;
    for (size_t at = 0; at < n && !atomic_load(&f->stop); at += piece) {
        size_t len = n - at < piece ? n - at : piece;
        if (send(fd, r->bytes + at, len, MSG_NOSIGNAL) < 0) return;
        if (r->piece_ms > 0) usleep(r->piece_ms * 1000);
    }
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (r->stall && !atomic_load(&f->stop) && poll(&p, 1, 20) == 0) {
    }
}

static void *serve(void *arg)
{
    struct fake_openai *f = arg;
    while (!atomic_load(&f->stop)) {
        struct pollfd p = {.fd = f->fd, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) continue;
        int fd = accept(f->fd, NULL, NULL);
        size_t i = atomic_load(&f->n_requests);
        if (fd < 0 || i >= MAX_REQUESTS) continue;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
        read_request(fd, &f->requests[i]);
        atomic_store(&f->n_requests, i + 1);
        if (i < f->n) write_response(f, fd, &f->list[i]);
        shutdown(fd, SHUT_WR);
        close(fd);
    }
    return NULL;
}

struct fake_openai *fake_openai_open(const struct fake_response *list, size_t n)
{
    struct fake_openai *f = calloc(1, sizeof *f);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    f->list = list;
    f->n = n;
    f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(f->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(f->fd, 16) != 0) abort();
    getsockname(f->fd, (struct sockaddr *)&a, &len);
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%d", ntohs(a.sin_port));
    if (pthread_create(&f->thread, NULL, serve, f) != 0) abort();
    return f;
}

const char *fake_openai_url(const struct fake_openai *f)
{
    return f->url;
}

size_t fake_openai_count(struct fake_openai *f)
{
    return atomic_load(&f->n_requests);
}

const char *fake_openai_request(struct fake_openai *f, size_t i)
{
    return i < fake_openai_count(f) ? buf_cstr(&f->requests[i]) : "";
}

void fake_openai_close(struct fake_openai *f)
{
    atomic_store(&f->stop, true);
    pthread_join(f->thread, NULL);
    close(f->fd);
    for (size_t i = 0; i < MAX_REQUESTS; i++) buf_free(&f->requests[i]);
    free(f);
}
