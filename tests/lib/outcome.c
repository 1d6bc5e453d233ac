// See outcome.h.
#include "lib/outcome.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

struct job greedy_job(const int32_t *ids, size_t n_ids, uint32_t max_tokens)
{
    return (struct job){.ids = ids,
                        .n_ids = n_ids,
                        .max_tokens = max_tokens,
                        .sampling = {.temperature = 0, .top_p = 1, .repeat_penalty = 1}};
}

struct outcome outcome_wait(struct stream *s)
{
    struct outcome o = {0};
    struct stream_event event = {.kind = EVENT_TOKEN};
    const uint64_t start = clock_ns();
    uint32_t cap = 0;
    while (event.kind != EVENT_END) {
        struct pollfd p = {.fd = stream_fd(s), .events = POLLIN};
        poll(&p, 1, 1000);
        while (stream_next(s, &event)) {
            if (event.kind == EVENT_END) break;
            if (o.n == cap) {
                cap = cap == 0 ? 64 : cap * 2;
                o.ids = realloc(o.ids, cap * sizeof *o.ids);
                assert_non_null(o.ids);
            }
            o.ids[o.n++] = event.id;
        }
        if (clock_ms_since(start) > 200000) fail_msg("a stream has no end after 200 s");
    }
    o.finish = event.finish;
    o.error = event.error;
    stream_status(s, &o.status);
    stream_close(s);
    return o;
}

void outcome_free(struct outcome *o)
{
    free(o->ids);
    *o = (struct outcome){0};
}

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 200000};
    nanosleep(&t, NULL);
}

void wait_stage(const struct stream *s, enum stream_stage stage)
{
    const uint64_t start = clock_ns();
    for (;;) {
        struct stream_status status;
        stream_status(s, &status);
        if (status.stage == stage) return;
        if (clock_ms_since(start) > 60000)
            fail_msg("stage is %d, not %d after 60 s", status.stage, stage);
        nap();
    }
}
