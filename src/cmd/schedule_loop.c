// One pass a second: who has ended, what is due. Definitions are read anew when a file of the
// folder has changed, and what had been computed for the others stays.
#include "cmd/schedule_loop.h"

#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/run_history.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/process.h"
#include "base/rundir.h"
#include "cmd/schedule_failure.h"

enum { PASS_MS = 500, STOP_MS = 15000, RECENT = 50 };

struct entry { // one sub-mind with a schedule
    struct definition d;
    int64_t due_s; // with its random delay
    bool gone;     // its definition went away
};

struct child { // a run that goes on; its definition may have changed or gone meanwhile
    pid_t pid;
    char name[DEFINITION_NAME_MAX + 1];
};

struct loop {
    const struct schedule_loop *l;
    struct entry *list;
    size_t n;
    struct child *children; // [l->jobs]
    size_t n_children;
    uint64_t seen; // of the folder
};

static atomic_int stopped;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stopped, 1);
}

// ---- what is due ----------------------------------------------------------------------------

static uint32_t random_delay(uint32_t max_s)
{
    uint32_t r = 0;
    if (max_s == 0 || getrandom(&r, sizeof r, 0) != sizeof r) return 0;
    return r % (max_s + 1);
}

static bool take_scheduled(void *arg, const struct run_row *r)
{
    if (!str_eq(r->cause, STR("schedule"))) return true;
    *(int64_t *)arg = r->started_ms / 1000;
    return false;
}

// The last time it was started by a schedule; -1 when never, or without records.
static int64_t last_start(const struct loop *l, const char *name)
{
    struct run_store store = {0};
    struct err ignored = {0};
    int64_t at = -1;
    struct run_filter f = {.name = name, .workspace = l->l->place.workspace, .limit = RECENT};
    if (l->l->state_dir == NULL || !run_store_open(&store, l->l->state_dir, &ignored)) return -1;
    run_history_list(&store, &f, take_scheduled, &at, &ignored);
    run_store_close(&store);
    return at;
}

// At the start: what was due while nobody looked runs once, if the definition says so.
static void set_first(const struct loop *l, struct entry *en)
{
    int64_t now = clock_unix(), last = last_start(l, en->d.name);
    int64_t missed = last >= 0 && en->d.missed == MISSED_RUN ? definition_next(&en->d, last) : -1;
    if (missed >= 0 && missed <= now)
        en->due_s = now;
    else
        en->due_s = definition_next(&en->d, now);
    if (en->due_s >= 0) en->due_s += random_delay(en->d.delay_s);
}

// ---- definitions ----------------------------------------------------------------------------

static uint64_t look(const struct loop *l)
{
    struct definition_names names;
    struct err ignored = {0};
    uint64_t seen = 1;
    if (!definition_list(&names, l->l->place.workspace, &ignored)) return 0;
    for (size_t i = 0; i < names.n; i++) {
        struct buf path = {0};
        struct stat st = {0};
        definition_path(l->l->place.workspace, names.p[i], &path);
        stat(buf_cstr(&path), &st);
        uint64_t about[] = {(uint64_t)st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec,
                            (uint64_t)st.st_mtim.tv_nsec};
        seen = hash64(path.p, path.n, seen);
        seen = hash64(about, sizeof about, seen);
        buf_free(&path);
    }
    definition_names_free(&names);
    return seen;
}

static struct entry *find(struct loop *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->list[i].d.name, name) == 0) return &l->list[i];
    return NULL;
}

static void take_definition(struct loop *l, struct definition *d)
{
    struct entry *en = find(l, d->name);
    if (en != NULL && strcmp(en->d.hash, d->hash) == 0) { // as it was
        en->gone = false;
        definition_close(d);
        return;
    }
    if (en == NULL) {
        struct entry *p = realloc(l->list, (l->n + 1) * sizeof *p);
        if (p == NULL) {
            definition_close(d);
            return;
        }
        l->list = p;
        en = &p[l->n++];
        *en = (struct entry){0};
    }
    definition_close(&en->d);
    en->d = *d;
    en->gone = false;
    set_first(l, en);
}

static void read_definitions(struct loop *l)
{
    struct definition_names names;
    struct err e = {0};
    uint64_t seen = look(l);
    if (seen == l->seen) return;
    l->seen = seen;
    if (!definition_list(&names, l->l->place.workspace, &e)) return;
    for (size_t i = 0; i < l->n; i++) l->list[i].gone = true;
    for (size_t i = 0; i < names.n; i++) {
        struct definition d;
        struct err problem = {0};
        if (!definition_open(&d, l->l->place.workspace, names.p[i], &problem))
            log_warn("schedule", "%s", problem.msg);
        else if (d.n_schedules == 0)
            definition_close(&d);
        else
            take_definition(l, &d);
    }
    definition_names_free(&names);
}

static void drop_gone(struct loop *l)
{
    for (size_t i = 0; i < l->n;) {
        if (!l->list[i].gone) {
            i++;
            continue;
        }
        definition_close(&l->list[i].d);
        l->list[i] = l->list[--l->n];
    }
}

// ---- running --------------------------------------------------------------------------------

static void say(const char *name, const char *what)
{
    char when[32];
    time_t now = (time_t)clock_unix();
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(when, sizeof when, "%m-%d %H:%M:%S", &tm);
    printf("%s  %-20s  %s\n", when, name, what);
    fflush(stdout);
}

static void start_run(struct loop *l, struct entry *en)
{
    const struct schedule_loop *s = l->l;
    struct buf log = {0};
    struct err e = {0};
    const char *argv[] = {s->place.program, "run",
                          "--scheduled",    "--quiet",
                          "--workspace",    s->place.workspace,
                          "--state-dir",    s->state_dir != NULL ? s->state_dir : "off",
                          en->d.name,       NULL};
    if (s->state_dir != NULL)
        buf_printf(&log, "%s/%s.log", s->state_dir, en->d.name);
    else
        buf_z(&log, "/dev/null");
    struct child *c = &l->children[l->n_children];
    snprintf(c->name, sizeof c->name, "%s", en->d.name);
    if (process_start_detached(argv, (const char *const *)environ, "/", buf_cstr(&log), &c->pid,
                               &e)) {
        l->n_children++;
        say(en->d.name, "started");
    } else {
        log_warn("schedule", "%s: %s", en->d.name, e.msg);
    }
    buf_free(&log);
}

static void see_end(struct loop *l, const struct child *c, int code)
{
    char text[60];
    struct err e = {0};
    snprintf(text, sizeof text, "ended with code %d", code);
    say(c->name, text);
    if (code == 0 || l->l->state_dir == NULL) return;
    if (!schedule_failure_tell(l->l->place.workspace, l->l->state_dir, c->name, &e))
        log_warn("schedule", "%s: %s", c->name, e.msg);
}

static void see_ends(struct loop *l)
{
    for (size_t i = 0; i < l->n_children;) {
        int code = 0;
        struct child c = l->children[i];
        if (!process_ended(c.pid, &code)) {
            i++;
            continue;
        }
        l->children[i] = l->children[--l->n_children];
        see_end(l, &c, code);
    }
}

static bool is_running(const struct loop *l, const char *name)
{
    for (size_t i = 0; i < l->n_children; i++)
        if (strcmp(l->children[i].name, name) == 0) return true;
    return false;
}

// A run that is still going on when the next is due: beside it, after it, or not at all.
static void start_due(struct loop *l)
{
    int64_t now = clock_unix();
    for (size_t i = 0; i < l->n; i++) {
        struct entry *en = &l->list[i];
        if (en->due_s < 0 || en->due_s > now) continue;
        bool waits = en->d.overlap != OVERLAP_ALLOW && is_running(l, en->d.name);
        if (waits && en->d.overlap == OVERLAP_WAIT) continue;
        if (!waits && l->n_children >= l->l->jobs) continue; // later
        if (waits)
            say(en->d.name, "skipped: the run before still goes on");
        else
            start_run(l, en);
        en->due_s = definition_next(&en->d, now);
        if (en->due_s >= 0) en->due_s += random_delay(en->d.delay_s);
    }
}

static void stop_all(struct loop *l)
{
    uint64_t end_ns = clock_ns() + (uint64_t)STOP_MS * 1000000;
    for (size_t i = 0; i < l->n_children; i++) kill(l->children[i].pid, SIGTERM);
    while (l->n_children > 0 && clock_ns() < end_ns) {
        see_ends(l);
        clock_sleep_ms(PASS_MS / 10);
    }
    for (size_t i = 0; i < l->n_children; i++) kill(l->children[i].pid, SIGKILL);
}

bool schedule_loop_run(const struct schedule_loop *s, struct err *e)
{
    struct loop l = {.l = s};
    struct sigaction a = {.sa_handler = on_signal};
    if (s->state_dir != NULL && !rundir_make_all(s->state_dir, e)) return false;
    l.children = calloc(s->jobs, sizeof *l.children);
    if (l.children == NULL) return err_set(e, ERR_MEMORY, "no memory for the runs");
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    read_definitions(&l);
    printf("%zu sub-mind%s with a schedule in %s\n", l.n, l.n == 1 ? "" : "s", s->place.workspace);
    fflush(stdout);
    while (atomic_load(&stopped) == 0) {
        read_definitions(&l);
        see_ends(&l);
        drop_gone(&l);
        start_due(&l);
        clock_sleep_ms(PASS_MS);
    }
    stop_all(&l);
    for (size_t i = 0; i < l.n; i++) definition_close(&l.list[i].d);
    free(l.list);
    free(l.children);
    return true;
}
