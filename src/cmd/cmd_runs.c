// submind runs: what sub-minds did. Reads the records; writes nothing but the mark of runs whose
// process is gone.
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "agent/definition.h"
#include "agent/run_history.h"
#include "base/clock.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/places.h"

enum { LIMIT = 20, POLL_MS = 200, SWEEP_MS = 2000, SHORT_ID = 8, LINE_BYTES = 100 };

static atomic_int stopped;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stopped, 1);
}

static void time_text(int64_t ms, char *out, size_t size)
{
    time_t at = (time_t)(ms / 1000);
    struct tm tm;
    localtime_r(&at, &tm);
    strftime(out, size, "%m-%d %H:%M:%S", &tm);
}

static struct str short_id(struct str id)
{
    return id.n > SHORT_ID ? str_sub(id, id.n - SHORT_ID, SHORT_ID) : id;
}

// The first line, and no more than fits; control characters would move the cursor.
static void print_line(struct str text, size_t max)
{
    text = str_trim(text);
    size_t n = str_find(text, STR("\n"), 0);
    if (n == SIZE_MAX) n = text.n;
    bool cut = n < text.n;
    if (n > max) {
        for (n = max; n > 0 && ((unsigned char)text.p[n] & 0xc0) == 0x80;) n--;
        cut = true;
    }
    for (size_t i = 0; i < n; i++) putchar((unsigned char)text.p[i] < 32 ? ' ' : text.p[i]);
    if (cut) fputs(" ...", stdout);
}

// ---- the list -------------------------------------------------------------------------------

struct listing {
    bool json;
    size_t n;
};

// What is left of a terminal's line for the report; where that is little it may wrap.
static size_t report_width(void)
{
    enum { IN_FRONT = 96, LEAST = 24, MARK = 4 };
    struct winsize w;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col < IN_FRONT + LEAST) return LINE_BYTES;
    return (size_t)w.ws_col - IN_FRONT - MARK;
}

static void print_count(int64_t n, int width)
{
    if (n >= 0)
        printf("  %*lld", width, (long long)n);
    else
        printf("  %*s", width, "-");
}

static bool print_row(void *arg, const struct run_row *r)
{
    struct listing *l = arg;
    if (l->json) {
        struct buf b = {0};
        run_row_json(r, &b);
        printf("%s%s", l->n > 0 ? ",\n " : "", buf_cstr(&b));
        buf_free(&b);
        l->n++;
        return true;
    }
    if (l->n++ == 0)
        printf("%-8s  %-20s  %-14s  %-11s  %8s  %6s  %6s  %7s  %s\n", "RUN", "SUB-MIND", "STARTED",
               "OUTCOME", "TIME", "PROMPT", "CACHED", "TTFT", "REPORT");
    char when[32];
    struct str id = short_id(r->id), name = r->name.n > 0 ? r->name : STR("(task)");
    bool attention = str_eq(r->outcome, STR("done")) && r->status.n > 0;
    struct str outcome = attention ? r->status : r->outcome;
    double ms = r->ended_ms > 0 ? r->total_ms : (double)(clock_unix_ms() - r->started_ms);
    if (ms < 0) ms = (double)(r->ended_ms - r->started_ms);
    time_text(r->started_ms, when, sizeof when);
    printf("%-8.*s  %-20.*s  %-14s  %-11.*s  %6.1f s", (int)id.n, id.p, (int)name.n, name.p, when,
           (int)outcome.n, outcome.p, ms / 1000);
    print_count(r->prompt_tokens, 6);
    print_count(r->cached_tokens, 6);
    if (r->ttft_ms >= 0)
        printf("  %5.2f s  ", r->ttft_ms / 1000);
    else
        printf("  %7s  ", "-");
    bool running = str_eq(r->outcome, STR(RUN_RUNNING));
    print_line(running ? r->stage : r->reason.n > 0 ? r->reason : r->report, report_width());
    putchar('\n');
    return true;
}

static bool list(struct run_store *store, const struct settings *s, struct err *e)
{
    struct listing l = {.json = s->json};
    struct run_filter f = {.name = s->n_args > 0 ? s->args[0] : NULL,
                           .limit = s->given.limit ? s->limit : LIMIT};
    if (s->n_args > 1) return err_set(e, ERR_INPUT, "one name is taken; or: show ID, follow [ID]");
    if (s->json) putchar('[');
    if (!run_history_list(store, &f, print_row, &l, e)) return false;
    if (s->json)
        puts("]");
    else if (l.n == 0)
        printf("no runs yet%s%s\n", f.name != NULL ? " of " : "", f.name != NULL ? f.name : "");
    return true;
}

// ---- one run --------------------------------------------------------------------------------

static void print_block(const char *title, struct str text, const char *indent)
{
    text = str_trim(text);
    if (text.n == 0) return;
    if (title != NULL) puts(title);
    for (size_t at = 0; at < text.n;) {
        size_t end = str_find(text, STR("\n"), at);
        if (end == SIZE_MAX) end = text.n;
        printf("%s", indent);
        for (size_t i = at; i < end; i++)
            putchar((unsigned char)text.p[i] < 32 && text.p[i] != '\t' ? '?' : text.p[i]);
        putchar('\n');
        at = end + 1;
    }
}

static void print_field(const char *name, struct str text)
{
    if (text.n > 0) printf("%-11s %.*s\n", name, (int)text.n, text.p);
}

static bool print_head(void *arg, const struct run_row *r)
{
    char started[32], ended[32] = "";
    (void)arg;
    time_text(r->started_ms, started, sizeof started);
    if (r->ended_ms > 0) time_text(r->ended_ms, ended, sizeof ended);
    print_field("run", r->id);
    print_field("sub-mind", r->name);
    print_field("workspace", r->workspace);
    print_field("started by", r->cause);
    printf("%-11s %s%s%s", "time", started, ended[0] != '\0' ? " to " : "", ended);
    if (r->total_ms >= 0) printf(" (%.2f s)", r->total_ms / 1000);
    putchar('\n');
    if (r->attempt > 1) printf("%-11s %lld\n", "try", (long long)r->attempt);
    print_field("outcome", r->outcome);
    print_field("status", r->status);
    print_field("stage", r->stage);
    print_field("reason", r->reason);
    print_field("notified", r->notified);
    print_field("inputs", str_eq(r->inputs, STR("{}")) ? (struct str){"", 0} : r->inputs);
    if (r->prompt_tokens >= 0) {
        printf("%-11s prompt %lld (%lld cached), computed %lld, generated %lld", "tokens",
               (long long)r->prompt_tokens, (long long)r->cached_tokens,
               (long long)r->prefilled_tokens, (long long)r->completion_tokens);
        if (r->ttft_ms >= 0) printf("; first after %.2f s", r->ttft_ms / 1000);
        if (r->gen_tps > 0) printf("; %.0f tokens/s", r->gen_tps);
        putchar('\n');
    }
    print_block("task", r->task, "  ");
    return true;
}

static bool print_stage(void *arg, const struct stage_row *r)
{
    int64_t *start_ms = arg;
    if (*start_ms == 0) *start_ms = r->at_ms;
    printf("  %8.2f s  ", (double)(r->at_ms - *start_ms) / 1000);
    print_line(r->text, LINE_BYTES);
    putchar('\n');
    return true;
}

static bool print_call(void *arg, const struct call_row *r)
{
    (void)arg;
    struct str what = r->detail.n > 0 ? r->detail : r->arguments;
    printf("tool %.*s: ", (int)r->name.n, r->name.p);
    print_line(what, 200);
    printf(" -> %.*s", (int)r->outcome.n, r->outcome.p);
    if (r->exit_code >= 0) printf(", exit code %lld", (long long)r->exit_code);
    if (r->ms >= 0) printf(", %.0f ms", r->ms);
    putchar('\n');
    print_block(NULL, r->output, "  | ");
    if (r->log.n > 0) print_block("  log:", r->log, "  ! ");
    return true;
}

static bool print_report(void *arg, const struct run_row *r)
{
    (void)arg;
    print_block("report", r->report, "  ");
    if (!str_eq(r->data, STR("null"))) print_block("data", r->data, "  ");
    return true;
}

static bool show(struct run_store *store, const struct settings *s, struct err *e)
{
    struct buf id = {0}, json = {0};
    int64_t start_ms = 0;
    if (s->n_args != 2) return err_set(e, ERR_INPUT, "show takes one run: submind runs show ID");
    if (!run_history_find(store, s->args[1], &id, e)) return false;
    struct run_filter f = {.id = buf_cstr(&id), .limit = 1};
    bool ok = true;
    if (s->json) {
        ok = run_history_json(store, f.id, s->bootstrap, &json, e);
        if (ok) puts(buf_cstr(&json));
    } else {
        ok = run_history_list(store, &f, print_head, NULL, e);
        puts("stages");
        ok = ok && run_history_stages(store, f.id, print_stage, &start_ms, e) &&
             run_history_calls(store, f.id, print_call, NULL, e) &&
             run_history_list(store, &f, print_report, NULL, e);
    }
    buf_free(&id);
    buf_free(&json);
    return ok;
}

// ---- following ------------------------------------------------------------------------------

struct following {
    const struct settings *s;
    struct run_store *store;
    struct buf stage, id; // what was printed last
    bool over;
    int exit_code;
};

static bool follow_row(void *arg, const struct run_row *r)
{
    struct following *f = arg;
    char when[32];
    time_text(clock_unix_ms(), when, sizeof when);
    struct str id = short_id(r->id);
    bool running = str_eq(r->outcome, STR(RUN_RUNNING));
    if (running && !str_eq(r->stage, buf_view(&f->stage))) {
        buf_clear(&f->stage);
        buf_str(&f->stage, r->stage);
        if (f->s->json) {
            struct buf b = {0};
            run_row_json(r, &b);
            puts(buf_cstr(&b));
            buf_free(&b);
        } else {
            printf("%s  %.*s  %.*s  ", when, (int)id.n, id.p, (int)r->name.n, r->name.p);
            print_line(r->stage, LINE_BYTES);
            putchar('\n');
        }
    }
    if (running) return true;
    f->over = true;
    f->exit_code = str_eq(r->outcome, STR("done")) || str_eq(r->outcome, STR(RUN_SKIPPED)) ? 0
                   : r->exit_code > 0 ? (int)r->exit_code
                                      : 1;
    if (f->s->json) {
        struct buf b = {0};
        run_row_json(r, &b);
        puts(buf_cstr(&b));
        buf_free(&b);
        return true;
    }
    printf("%s  %.*s  %.*s  %.*s: ", when, (int)id.n, id.p, (int)r->name.n, r->name.p,
           (int)r->outcome.n, r->outcome.p);
    print_line(r->reason.n > 0 ? r->reason : r->report, 200);
    putchar('\n');
    return true;
}

static bool take_id(void *arg, const struct run_row *r)
{
    buf_clear(arg);
    buf_str(arg, r->id);
    return false;
}

// A given run, else the newest that runs; with none running, the next that starts.
static bool pick(struct following *f, struct err *e)
{
    if (f->s->n_args > 1) {
        struct err problem = {0};
        if (run_history_find(f->store, f->s->args[1], &f->id, &problem)) return true;
        if (!definition_name_is_valid(str_from(f->s->args[1])))
            return err_set(e, problem.code, "%s", problem.msg);
    }
    struct run_filter any = {
        .running = true, .limit = 1, .name = f->s->n_args > 1 ? f->s->args[1] : NULL};
    if (!f->s->json)
        fprintf(stderr, "waiting for a run%s%s to start; Ctrl-C ends this\n",
                any.name != NULL ? " of " : "", any.name != NULL ? any.name : "");
    while (f->id.n == 0 && atomic_load(&stopped) == 0) {
        if (!run_history_list(f->store, &any, take_id, &f->id, e)) return false;
        if (f->id.n == 0) clock_sleep_ms(POLL_MS);
    }
    return true;
}

static bool follow(struct run_store *store, const struct settings *s, int *exit_code, struct err *e)
{
    struct following f = {.s = s, .store = store};
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    bool ok = s->n_args <= 2 || err_set(e, ERR_INPUT, "follow takes one run or name");
    ok = ok && pick(&f, e);
    uint64_t swept_ns = clock_ns();
    while (ok && !f.over && f.id.n > 0 && atomic_load(&stopped) == 0) {
        struct run_filter one = {.id = buf_cstr(&f.id), .limit = 1};
        ok = run_history_list(store, &one, follow_row, &f, e);
        fflush(stdout);
        if (!f.over) clock_sleep_ms(POLL_MS);
        if (clock_ms_since(swept_ns) > SWEEP_MS) {
            ok = ok && run_store_sweep(store, e);
            swept_ns = clock_ns();
        }
    }
    *exit_code = f.over ? f.exit_code : atomic_load(&stopped) != 0 ? 130 : 0;
    buf_free(&f.stage);
    buf_free(&f.id);
    return ok;
}

static int help(void)
{
    printf("usage: submind runs [flags] [NAME]          what sub-minds did, newest first\n"
           "       submind runs show ID|last            one run: stages, tool calls, report\n"
           "       submind runs follow [ID|NAME]        a run while it goes on; its exit code\n\n");
    options_help(C_RUNS, "runs");
    return 0;
}

int cmd_runs(int argc, char **argv)
{
    struct err e = {0};
    struct settings s;
    struct buf dir = {0};
    struct run_store store = {0};
    int code = 0;
    if (!options_parse(&s, C_RUNS, argc, argv, &e)) return cmd_fail("runs", &e);
    if (s.help) return help();
    const char *what = s.n_args > 0 ? s.args[0] : "";
    bool ok = place_state_dir(&s, &dir) ||
              err_set(&e, ERR_INPUT, "no records are kept (--state-dir off, or no home)");
    ok = ok && run_store_open(&store, buf_cstr(&dir), &e);
    if (ok && strcmp(what, "show") == 0)
        ok = show(&store, &s, &e);
    else if (ok && strcmp(what, "follow") == 0)
        ok = follow(&store, &s, &code, &e);
    else if (ok)
        ok = list(&store, &s, &e);
    run_store_close(&store);
    buf_free(&dir);
    return ok ? code : cmd_fail("runs", &e);
}
