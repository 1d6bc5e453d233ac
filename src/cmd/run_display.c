// The progress line is drawn at most ten times a second and always cleared before anything else is
// written, so that it never mixes with the answer.
#include "cmd/run_display.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR_CELLS = 24, DRAW_EVERY_MS = 100, LINE_BYTES = 200 };

void run_display_init(struct run_display *d, bool quiet, bool json)
{
    *d = (struct run_display){.line = !quiet && isatty(STDERR_FILENO) != 0,
                              .stream = !quiet && !json && isatty(STDOUT_FILENO) != 0,
                              .at_line_start = true};
}

static void clear_line(struct run_display *d)
{
    if (!d->shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    d->shown = false;
}

static void draw(struct run_display *d, const char *text, bool at_once)
{
    if (!d->line || (!at_once && d->shown && clock_ms_since(d->last_ns) < DRAW_EVERY_MS)) return;
    fprintf(stderr, "\r\033[K%s", text);
    fflush(stderr);
    d->shown = true;
    d->last_ns = clock_ns();
}

void run_display_wait(void *arg, struct str what)
{
    char text[LINE_BYTES];
    snprintf(text, sizeof text, "server: %.*s", (int)(what.n < 150 ? what.n : 150), what.p);
    draw(arg, text, false);
}

// "prefill [######..................] 4096/15120  210 tokens/s  52 s left"
static void prefill_text(const struct chat_progress *p, char *out, size_t size)
{
    char bar[BAR_CELLS + 1];
    uint64_t done = p->processed < p->total ? p->processed : p->total;
    size_t cells = p->total > 0 ? (size_t)(done * BAR_CELLS / p->total) : 0;
    for (size_t i = 0; i < BAR_CELLS; i++) bar[i] = i < cells ? '#' : '.';
    bar[BAR_CELLS] = '\0';
    int n = snprintf(out, size, "prefill [%s] %llu/%llu", bar, (unsigned long long)p->processed,
                     (unsigned long long)p->total);
    double rate = p->time_ms > 0 ? (double)(p->processed - p->cached) * 1000.0 / p->time_ms : 0;
    if (p->processed <= p->cached || rate <= 0 || n < 0 || (size_t)n >= size) return;
    double left_s = p->eta_ms >= 0 ? p->eta_ms / 1000 : (double)(p->total - done) / rate;
    snprintf(out + n, size - (size_t)n, "  %.0f tokens/s  %.0f s left", rate, left_s);
}

static void on_status(void *arg, const struct chat_status *s)
{
    struct run_display *d = arg;
    char text[LINE_BYTES];
    if (s->retry_in_ms > 0)
        snprintf(text, sizeof text, "the server is busy; again in %u s",
                 (s->retry_in_ms + 999) / 1000);
    else if (s->stage == CHAT_PREFILL)
        prefill_text(&s->progress, text, sizeof text);
    else if (s->stage == CHAT_GENERATE)
        snprintf(text, sizeof text, "generating: %llu tokens", (unsigned long long)s->n_deltas);
    else if (s->progress.queue_position > 0)
        snprintf(text, sizeof text, "in the queue: %llu before it, %.0f s",
                 (unsigned long long)s->progress.queue_position, s->elapsed_ms / 1000);
    else
        snprintf(text, sizeof text, "waiting: %.0f s", s->elapsed_ms / 1000);
    bool streaming = s->stage >= CHAT_GENERATE && d->streamed && !d->at_line_start;
    if (!streaming && s->elapsed_ms >= DRAW_EVERY_MS) draw(d, text, false);
}

static void on_content(void *arg, struct str text)
{
    struct run_display *d = arg;
    if (!d->stream || text.n == 0) return;
    clear_line(d);
    fwrite(text.p, 1, text.n, stdout);
    fflush(stdout);
    d->streamed = true;
    d->at_line_start = text.p[text.n - 1] == '\n';
}

static void new_line(struct run_display *d)
{
    clear_line(d);
    if (!d->at_line_start) fputc('\n', stdout);
    fflush(stdout);
    d->at_line_start = true;
}

static void on_call(void *arg, struct str name, struct str arguments)
{
    struct run_display *d = arg;
    char text[LINE_BYTES];
    new_line(d);
    d->streamed = false; // what was said before a call is not the report
    snprintf(text, sizeof text, "%.*s %.*s", (int)(name.n < 40 ? name.n : 40), name.p,
             (int)(arguments.n < 120 ? arguments.n : 120), arguments.p);
    draw(d, text, true);
}

static void on_result(void *arg, const struct run_call *c)
{
    struct run_display *d = arg;
    if (!d->line) return;
    clear_line(d);
    struct str what = buf_view(c->detail.n > 0 ? &c->detail : &c->arguments);
    struct str name = buf_view(&c->name);
    fprintf(stderr, "%.*s: %.*s -> ", (int)(name.n < 40 ? name.n : 40), name.p,
            (int)(what.n < 120 ? what.n : 120), what.p);
    if (c->has_exit_code)
        fprintf(stderr, "exit code %d, %.0f ms\n", c->exit_code, c->ms);
    else
        fprintf(stderr, "%.*s\n", (int)(c->output.n < 200 ? c->output.n : 200),
                buf_view(&c->output).p);
}

struct run_view run_display_view(struct run_display *d)
{
    return (struct run_view){.arg = d,
                             .on_status = on_status,
                             .on_wait = run_display_wait,
                             .on_content = on_content,
                             .on_call = on_call,
                             .on_result = on_result};
}

static void sum_up(const struct run_result *r)
{
    fprintf(stderr, "%s after %.1f s in %.*s", run_outcome_name(r->outcome), r->total_ms / 1000,
            (int)(r->stage.n < 200 ? r->stage.n : 200), buf_view(&r->stage).p);
    if (r->n_turns > 0) {
        const struct run_turn *t = &r->turns[0];
        fprintf(stderr, ": %llu prompt tokens (%llu cached)", (unsigned long long)t->prompt_tokens,
                (unsigned long long)t->cached_tokens);
        if (t->ttft_ms >= 0) fprintf(stderr, ", first token after %.2f s", t->ttft_ms / 1000);
        if (r->turns[r->n_turns - 1].gen_tps > 0)
            fprintf(stderr, ", %.0f tokens/s", r->turns[r->n_turns - 1].gen_tps);
    }
    if (r->n_calls > 0)
        fprintf(stderr, ", %zu tool call%s", r->n_calls, r->n_calls == 1 ? "" : "s");
    fputc('\n', stderr);
}

void run_display_end(struct run_display *d, const struct run_result *r, bool quiet)
{
    new_line(d);
    if (!d->streamed && r->report.n > 0) {
        fwrite(r->report.p, 1, r->report.n, stdout);
        fputc('\n', stdout);
    }
    fflush(stdout);
    if (r->error.code != ERR_NONE) fprintf(stderr, "submind run: %s\n", r->error.msg);
    if (!quiet) sum_up(r);
}

// ---- several runs ---------------------------------------------------------------------------

void runs_display_init(struct runs_display *d, size_t n_runs, bool quiet)
{
    *d = (struct runs_display){.lock = PTHREAD_MUTEX_INITIALIZER,
                               .line = !quiet && isatty(STDERR_FILENO) != 0,
                               .n_runs = n_runs};
}

// "3 of 8 ended; 1 reading 4096/14777, 2 waiting, 2 answering"
static void runs_draw(struct runs_display *d)
{
    static const char *const words[RUNS_AT] = {"waiting", "reading", "answering", "at tools"};
    char text[LINE_BYTES];
    if (!d->line || (d->shown && clock_ms_since(d->last_ns) < DRAW_EVERY_MS)) return;
    int n = snprintf(text, sizeof text, "%zu of %zu ended", d->n_ended, d->n_runs);
    const char *between = "; ";
    for (int i = 0; i < RUNS_AT && n > 0 && (size_t)n < sizeof text; i++) {
        if (d->n_at[i] == 0) continue;
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%zu %s", between, d->n_at[i], words[i]);
        if (i == RUNS_READING && d->furthest.total > 0 && (size_t)n < sizeof text)
            n += snprintf(text + n, sizeof text - (size_t)n, " %llu/%llu",
                          (unsigned long long)d->furthest.processed,
                          (unsigned long long)d->furthest.total);
        between = ", ";
    }
    fprintf(stderr, "\r\033[K%s", text);
    fflush(stderr);
    d->shown = true;
    d->last_ns = clock_ns();
}

static void move_to(struct runs_place *p, enum runs_at at, const struct chat_progress *progress)
{
    struct runs_display *d = p->all;
    pthread_mutex_lock(&d->lock);
    if (p->inside) d->n_at[p->at]--;
    d->n_at[at]++;
    p->inside = true;
    p->at = at;
    if (d->n_at[RUNS_READING] == 0) d->furthest = (struct chat_progress){0};
    if (at == RUNS_READING && progress->processed >= d->furthest.processed) d->furthest = *progress;
    runs_draw(d);
    pthread_mutex_unlock(&d->lock);
}

static void place_status(void *arg, const struct chat_status *s)
{
    enum runs_at at = s->stage == CHAT_PREFILL    ? RUNS_READING
                      : s->stage >= CHAT_GENERATE ? RUNS_ANSWERING
                                                  : RUNS_WAITING;
    move_to(arg, at, &s->progress);
}

static void place_wait(void *arg, struct str what)
{
    (void)what;
    move_to(arg, RUNS_WAITING, NULL);
}

static void place_call(void *arg, struct str name, struct str arguments)
{
    (void)name;
    (void)arguments;
    move_to(arg, RUNS_AT_TOOLS, NULL);
}

struct run_view runs_place_view(struct runs_place *p)
{
    return (struct run_view){
        .arg = p, .on_status = place_status, .on_wait = place_wait, .on_call = place_call};
}

void runs_place_end(struct runs_place *p)
{
    struct runs_display *d = p->all;
    pthread_mutex_lock(&d->lock);
    if (p->inside) d->n_at[p->at]--;
    p->inside = false;
    d->n_ended++;
    if (d->shown) fputs("\r\033[K", stderr);
    d->shown = false;
}

void runs_display_leave(struct runs_display *d)
{
    if (d->n_ended < d->n_runs) runs_draw(d);
    pthread_mutex_unlock(&d->lock);
}
