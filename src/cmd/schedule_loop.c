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

#include "agent/notice.h"
#include "agent/run_history.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/process.h"
#include "base/rundir.h"

enum { PASS_MS = 500, STOP_MS = 15000, RECENT = 50 };

struct entry { // one sub-mind with a schedule
    struct definition d;
    int64_t due_s; // with its random delay
    pid_t pid;     // of its run; 0: none
    bool gone;     // its definition went away while it ran
};

struct loop {
    const struct schedule_loop *l;
    struct entry *list;
    size_t n;
    uint64_t seen; // of the folder
};

static atomic_int stopped;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stopped, 1);
}

// ---- failures -------------------------------------------------------------------------------

struct newest {
    struct buf id, outcome, reason, stage, report, notified;
    int64_t started_ms;
};

static bool keep_newest(void *arg, const struct run_row *r)
{
    struct newest *k = arg;
    buf_str(&k->id, r->id);
    buf_str(&k->outcome, r->outcome);
    buf_str(&k->reason, r->reason);
    buf_str(&k->stage, r->stage);
    buf_str(&k->notified, r->notified);
    k->started_ms = r->started_ms;
    return false;
}

// A service that failed without a record: systemd says why in the environment of OnFailure's unit.
static bool record_absence(struct run_store *store, const char *workspace, const char *name,
                           const char *why, struct newest *k, struct err *e)
{
    char id[40];
    run_id_make(id, sizeof id);
    struct run_start start = {.id = id,
                              .name = name,
                              .workspace = workspace,
                              .cause = "schedule",
                              .inputs = STR("{}"),
                              .attempt = 1};
    struct run_end end = {
        .outcome = "failed", .stage = STR("start"), .reason = str_from(why), .exit_code = 2};
    buf_z(&k->id, id);
    buf_z(&k->outcome, "failed");
    buf_z(&k->reason, why);
    buf_z(&k->stage, "start");
    return run_store_start(store, &start, e) && run_store_end(store, id, &end, e);
}

static void send_notice(struct run_store *store, const struct definition *d, struct newest *k,
                        const char *workspace)
{
    struct buf said = {0};
    struct err ignored = {0};
    struct notice n = {.name = d->name,
                       .id = buf_cstr(&k->id),
                       .outcome = buf_cstr(&k->outcome),
                       .reason = buf_view(&k->reason),
                       .stage = buf_view(&k->stage),
                       .failed = true};
    if (notice_wanted(&d->notify, &n)) {
        notice_send(&d->notify, &n, (const char *const *)environ, workspace, &said);
        run_store_set_notified(store, n.id, buf_view(&said), &ignored);
    }
    buf_free(&said);
}

bool schedule_tell_failure(const char *workspace, const char *state_dir, const char *name,
                           struct err *e)
{
    struct run_store store = {0};
    struct newest k = {0};
    struct definition d = {0};
    struct err broken = {0};
    struct run_filter f = {.name = name, .workspace = workspace, .limit = 1};
    bool defined = definition_open(&d, workspace, name, &broken);
    bool ok =
        run_store_open(&store, state_dir, e) && run_history_list(&store, &f, keep_newest, &k, e);
    bool killed = str_eq(buf_view(&k.outcome), STR(RUN_INTERRUPTED)) && k.notified.n == 0;
    if (ok && !defined) {
        buf_clear(&k.id);
        buf_clear(&k.outcome);
        buf_clear(&k.reason);
        buf_clear(&k.stage);
        ok = record_absence(&store, workspace, name, broken.msg, &k, e);
    } else if (ok && killed) {
        send_notice(&store, &d, &k, workspace);
    }
    if (ok && (!defined || killed))
        log_warn("schedule", "%s: %s (%s)", name, buf_cstr(&k.outcome), buf_cstr(&k.reason));
    run_store_close(&store);
    definition_close(&d);
    struct buf *texts[] = {&k.id, &k.outcome, &k.reason, &k.stage, &k.report, &k.notified};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) buf_free(texts[i]);
    return ok;
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
        if (!l->list[i].gone || l->list[i].pid != 0) {
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
    if (process_start_detached(argv, (const char *const *)environ, buf_cstr(&log), &en->pid, &e))
        say(en->d.name, "started");
    else
        log_warn("schedule", "%s: %s", en->d.name, e.msg);
    buf_free(&log);
}

static void see_ends(struct loop *l)
{
    for (size_t i = 0; i < l->n; i++) {
        struct entry *en = &l->list[i];
        int code = 0;
        char text[60];
        struct err e = {0};
        if (en->pid == 0 || !process_ended(en->pid, &code)) continue;
        en->pid = 0;
        snprintf(text, sizeof text, "ended with code %d", code);
        say(en->d.name, text);
        bool told = code == 0 || l->l->state_dir == NULL ||
                    schedule_tell_failure(l->l->place.workspace, l->l->state_dir, en->d.name, &e);
        if (!told) log_warn("schedule", "%s: %s", en->d.name, e.msg);
    }
}

static uint32_t count_running(const struct loop *l)
{
    uint32_t n = 0;
    for (size_t i = 0; i < l->n; i++) n += l->list[i].pid != 0;
    return n;
}

// A run that is still going on when the next is due: the definition's overlap is the run's own
// affair, except that we keep one at a time here and so a time that passes meanwhile is left out.
static void start_due(struct loop *l)
{
    int64_t now = clock_unix();
    for (size_t i = 0; i < l->n; i++) {
        struct entry *en = &l->list[i];
        if (en->gone || en->due_s < 0 || en->due_s > now) continue;
        if (en->pid == 0 && count_running(l) >= l->l->jobs) continue; // later
        if (en->pid != 0 && en->d.overlap == OVERLAP_WAIT) continue;
        if (en->pid == 0)
            start_run(l, en);
        else
            say(en->d.name, "skipped: the run before still goes on");
        en->due_s = definition_next(&en->d, now);
        if (en->due_s >= 0) en->due_s += random_delay(en->d.delay_s);
    }
}

static void stop_all(struct loop *l)
{
    uint64_t end_ns = clock_ns() + (uint64_t)STOP_MS * 1000000;
    for (size_t i = 0; i < l->n; i++)
        if (l->list[i].pid > 0) kill(l->list[i].pid, SIGTERM);
    while (count_running(l) > 0 && clock_ns() < end_ns) {
        see_ends(l);
        clock_sleep_ms(PASS_MS / 10);
    }
    for (size_t i = 0; i < l->n; i++)
        if (l->list[i].pid > 0) kill(l->list[i].pid, SIGKILL);
}

bool schedule_loop_run(const struct schedule_loop *s, struct err *e)
{
    struct loop l = {.l = s};
    struct sigaction a = {.sa_handler = on_signal};
    if (s->state_dir != NULL && !rundir_make_all(s->state_dir, e)) return false;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    read_definitions(&l);
    printf("%zu sub-minds with a schedule in %s\n", l.n, s->place.workspace);
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
    return true;
}
