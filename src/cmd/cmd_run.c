// submind run: words of the command line become jobs, jobs run side by side, each is shown when it
// has ended. What one run does stands in run_job.c.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/run_display.h"
#include "cmd/run_job.h"

enum { MAX_TASK_BYTES = 1 << 20, MAX_JOBS = 256, MAX_LIST = 10000 };

struct run_command {
    struct settings s;
    struct run_session session;
    struct run_job *jobs;
    size_t n_jobs;
    struct run_display display; // of a single run
    struct runs_display many;   // of several: its lock guards next and the output
    size_t next;
};

static atomic_int cancelled; // lock-free, so that the handler may set it

static void on_signal(int number)
{
    (void)number;
    atomic_store(&cancelled, 1);
}

// The first Ctrl-C ends the runs cleanly; a second one ends the process.
static void catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGHUP, &a, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

// ---- words ----------------------------------------------------------------------------------

static bool is_defined(const struct run_session *s, const char *name)
{
    struct buf path = {0};
    struct file_map m = {0};
    struct err ignored = {0};
    definition_path(s->ws.dir, name, &path);
    bool yes = definition_name_is_valid(str_from(name)) && file_map(&m, buf_cstr(&path), &ignored);
    if (yes) file_unmap(&m);
    buf_free(&path);
    return yes;
}

// What looks like a name but is none: better to say so than to send "chek-service" to a model.
static bool no_such_name(const struct run_session *s, const char *word, struct err *e)
{
    struct definition_names names;
    struct buf list = {0};
    if (!definition_list(&names, s->ws.dir, e)) return false;
    for (size_t i = 0; i < names.n; i++) buf_printf(&list, "%s%s", i > 0 ? ", " : "", names.p[i]);
    err_set(e, ERR_INPUT,
            "there is no sub-mind \"%.60s\"; there is: %s (a task of one word: echo WORD | submind "
            "run -)",
            word, buf_cstr(&list));
    definition_names_free(&names);
    buf_free(&list);
    return false;
}

static bool has_definitions(const struct run_session *s)
{
    struct definition_names names = {0};
    struct err ignored = {0};
    bool any = definition_list(&names, s->ws.dir, &ignored) && names.n > 0;
    definition_names_free(&names);
    return any;
}

static struct run_job *new_job(struct run_command *r, struct err *e)
{
    if (r->n_jobs == MAX_LIST) {
        err_set(e, ERR_INPUT, "at most %d runs at a time", MAX_LIST);
        return NULL;
    }
    struct run_job *p = realloc(r->jobs, (r->n_jobs + 1) * sizeof *p);
    if (p == NULL) {
        err_set(e, ERR_MEMORY, "no memory for the runs");
        return NULL;
    }
    r->jobs = p;
    p[r->n_jobs] = (struct run_job){0};
    return &p[r->n_jobs++];
}

static bool open_task(struct run_command *r, const char *word, struct err *e)
{
    struct run_job *j = new_job(r, e);
    struct buf text = {0};
    bool ok = j != NULL;
    if (ok && strcmp(word, "-") == 0)
        ok = file_read(&text, "-", MAX_TASK_BYTES, e);
    else if (ok)
        buf_z(&text, word);
    ok = ok && run_job_open_task(j, &r->session, buf_view(&text), e);
    buf_free(&text);
    return ok;
}

// NAME [key=value...] NAME [key=value...] ...
static bool open_named(struct run_command *r, struct err *e)
{
    const char *const *args = r->s.args;
    for (int i = 0, n; i < r->s.n_args; i += n) {
        for (n = 1; i + n < r->s.n_args && strchr(args[i + n], '=') != NULL;) n++;
        if (!is_defined(&r->session, args[i])) return no_such_name(&r->session, args[i], e);
        struct run_job *j = new_job(r, e);
        if (j == NULL || !run_job_open(j, &r->session, args[i], args + i + 1, (size_t)n - 1, e))
            return false;
        if (r->s.scheduled) j->cause = "schedule";
    }
    return true;
}

static bool open_jobs(struct run_command *r, struct err *e)
{
    const char *first = r->s.n_args > 0 ? r->s.args[0] : NULL;
    if (first == NULL)
        return err_set(e, ERR_INPUT,
                       "a task is needed: submind run \"check service nginx\", or a sub-mind's "
                       "name (submind ls)");
    bool named = is_defined(&r->session, first) ||
                 (definition_name_is_valid(str_from(first)) && has_definitions(&r->session));
    if (named) return open_named(r, e);
    if (r->s.n_args > 1)
        return err_set(e, ERR_INPUT,
                       "one task is taken; put it in quotes (or name sub-minds: "
                       "submind ls lists them)");
    return open_task(r, first, e);
}

// ---- output ---------------------------------------------------------------------------------

// The result as JSON, with the sub-mind's name in front where there is one.
static void print_json(const struct run_job *j)
{
    struct buf json = {0}, out = {0};
    run_result_json(&j->result, &json);
    if (j->definition.name != NULL) {
        buf_z(&out, "{\"name\":");
        buf_json(&out, str_from(j->definition.name));
        buf_printf(&out, ",\"attempt\":%u,", j->attempt);
        if (j->skipped) buf_z(&out, "\"skipped\":true,");
        buf_str(&out, str_sub(buf_view(&json), 1, SIZE_MAX));
    } else {
        buf_str(&out, buf_view(&json));
    }
    buf_c(&out, '\n');
    fwrite(out.p, 1, out.n, stdout);
    fflush(stdout);
    buf_free(&json);
    buf_free(&out);
}

static void show_single(struct run_command *r, const struct run_job *j)
{
    if (j->skipped) {
        if (r->s.json) print_json(j);
        fprintf(stderr, "submind run: %s was not started: %s\n", run_job_name(j),
                j->result.error.msg);
    } else if (r->s.json) {
        print_json(j);
        if (r->display.shown) fputs("\r\033[K", stderr);
        if (j->result.error.code != ERR_NONE && !r->s.quiet)
            fprintf(stderr, "submind run: %s\n", j->result.error.msg);
    } else {
        run_display_end(&r->display, &j->result, r->s.quiet);
    }
}

// One line a run, when it has ended.
static void show_one_of_many(struct run_command *r, const struct run_job *j)
{
    const struct run_result *result = &j->result;
    if (r->s.json) {
        print_json(j);
        return;
    }
    const char *outcome = j->skipped ? "skipped" : run_outcome_name(result->outcome);
    struct str words =
        result->error.code != ERR_NONE ? str_from(result->error.msg) : buf_view(&result->report);
    printf("%3zu/%zu  %-20s %-9s %6.1f s  %.*s\n", r->many.n_ended, r->n_jobs, run_job_name(j),
           outcome, result->total_ms / 1000, (int)(words.n < 160 ? words.n : 160), words.p);
    fflush(stdout);
}

// ---- running --------------------------------------------------------------------------------

static void *work(void *arg)
{
    struct run_command *r = arg;
    for (;;) {
        pthread_mutex_lock(&r->many.lock);
        size_t i = r->next;
        bool over = i == r->n_jobs;
        r->next += !over;
        pthread_mutex_unlock(&r->many.lock);
        if (over) return NULL;
        struct runs_place place = {.all = &r->many};
        r->jobs[i].shown = runs_place_view(&place);
        run_job_do(&r->jobs[i]);
        runs_place_end(&place);
        show_one_of_many(r, &r->jobs[i]);
        runs_display_leave(&r->many);
    }
}

static void run_many(struct run_command *r)
{
    pthread_t threads[MAX_JOBS];
    uint32_t wanted = r->s.given.jobs && r->s.jobs > 0 ? r->s.jobs : 4, n = 0;
    if (wanted > MAX_JOBS) wanted = MAX_JOBS;
    if (wanted > r->n_jobs) wanted = (uint32_t)r->n_jobs;
    runs_display_init(&r->many, r->n_jobs, r->s.quiet);
    while (n + 1 < wanted && pthread_create(&threads[n], NULL, work, r) == 0) n++;
    work(r); // this thread is one of them
    for (uint32_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

static void run_single(struct run_command *r)
{
    struct run_job *j = &r->jobs[0];
    run_display_init(&r->display, r->s.quiet, r->s.json);
    j->shown = run_display_view(&r->display);
    run_job_do(j);
    show_single(r, j);
}

// 0 when all went well, else the first that did not.
static int exit_code_of(const struct run_command *r)
{
    for (size_t i = 0; i < r->n_jobs; i++)
        if (r->jobs[i].exit_code != 0) return r->jobs[i].exit_code;
    return 0;
}

static int help(void)
{
    printf(
        "usage: submind run [flags] \"task\"                     (- reads it from standard input)\n"
        "       submind run [flags] NAME [key=value...] [NAME [key=value...]]...\n\n"
        "Runs sub-minds: the workspace's Markdown files and the task go to the model, its tool\n"
        "calls are carried out, its report is printed. A NAME is a definition in subminds/ "
        "(submind\n"
        "ls lists them). Exit codes: 0 done, 1 task failed, 2 bad use, 3 no server, 124 timeout,\n"
        "130 interrupted.\n\n");
    options_help(C_RUN, "run");
    return 0;
}

int cmd_run(int argc, char **argv)
{
    struct err e = {0};
    struct run_command r = {0};
    if (!options_parse(&r.s, C_RUN, argc, argv, &e)) return cmd_fail("run", &e);
    if (r.s.help) return help();
    log_set_level(r.s.verbose ? LOG_DEBUG : LOG_WARN);
    catch_signals();
    int code = 2;
    if (!run_session_open(&r.session, &r.s, &cancelled, &e) || !open_jobs(&r, &e)) {
        cmd_fail("run", &e);
    } else {
        if (r.n_jobs == 1)
            run_single(&r);
        else
            run_many(&r);
        code = exit_code_of(&r);
    }
    for (size_t i = 0; i < r.n_jobs; i++) run_job_close(&r.jobs[i]);
    free(r.jobs);
    run_session_close(&r.session);
    return code;
}
