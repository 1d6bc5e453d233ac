// submind schedule: definitions onto systemd timers, or run by this process where there is none.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/schedule_unit.h"
#include "base/clock.h"
#include "base/process.h"
#include "base/rundir.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/places.h"
#include "cmd/schedule_failure.h"
#include "cmd/schedule_loop.h"
#include "host/systemd.h"

enum { VERIFY_MS = 60000, VERIFY_BYTES = 16384, MAX_VARIABLES = 4096 };

struct schedule_command {
    struct settings s;
    char *workspace;
    struct buf program, unit_dir, state_dir;
    bool keeps_records;
    struct definition *list;
    size_t n;
    struct schedule_place place;
    struct systemd systemd;
};

// ---- opening --------------------------------------------------------------------------------

static void find_unit_dir(struct schedule_command *c)
{
    const char *config = place_variable("XDG_CONFIG_HOME"), *home = place_variable("HOME");
    if (c->s.unit_dir != NULL)
        buf_z(&c->unit_dir, c->s.unit_dir);
    else if (c->s.system)
        buf_z(&c->unit_dir, "/etc/systemd/system");
    else if (config != NULL && config[0] == '/')
        buf_printf(&c->unit_dir, "%s/systemd/user", config);
    else
        buf_printf(&c->unit_dir, "%s/.config/systemd/user", home != NULL ? home : "");
}

static bool open_definitions(struct schedule_command *c, struct err *e)
{
    struct definition_names names;
    if (!definition_list(&names, c->workspace, e)) return false;
    c->list = calloc(names.n + 1, sizeof *c->list);
    bool ok = c->list != NULL || err_set(e, ERR_MEMORY, "no memory for the definitions");
    for (size_t i = 0; ok && i < names.n; i++) {
        ok = definition_open(&c->list[c->n], c->workspace, names.p[i], e);
        c->n += ok;
    }
    definition_names_free(&names);
    return ok;
}

static bool open_command(struct schedule_command *c, struct err *e)
{
    const char *dir = c->s.workspace != NULL ? c->s.workspace : ".";
    uint64_t identity;
    c->workspace = realpath(dir, NULL);
    if (c->workspace == NULL)
        return err_errno(e, ERR_INPUT, "cannot find the workspace %.200s", dir);
    c->keeps_records = place_state_dir(&c->s, &c->state_dir);
    find_unit_dir(c);
    const char *path = place_variable("PATH");
    c->systemd = (struct systemd){.system = c->s.system,
                                  .path = path != NULL ? path : "/usr/bin:/bin",
                                  .environment = (const char *const *)environ};
    if (!rundir_self(&c->program, &identity, e)) return false;
    c->place = (struct schedule_place){.program = buf_cstr(&c->program),
                                       .workspace = c->workspace,
                                       .state_dir = c->s.given.state_dir ? c->s.state_dir : NULL,
                                       .system = c->s.system};
    return true;
}

static void close_command(struct schedule_command *c)
{
    for (size_t i = 0; i < c->n; i++) definition_close(&c->list[i]);
    free(c->list);
    free(c->workspace);
    buf_free(&c->program);
    buf_free(&c->unit_dir);
    buf_free(&c->state_dir);
}

// ---- verify ---------------------------------------------------------------------------------

// The user's systemd looks for a runtime folder even to verify; any will do.
static bool run_verify(struct schedule_command *c, const char *dir, const char *const *argv,
                       struct err *e)
{
    struct process_result r = {0};
    const char *env[MAX_VARIABLES + 2];
    struct buf runtime = {0};
    size_t n = 0;
    buf_printf(&runtime, "XDG_RUNTIME_DIR=%s", dir);
    for (char **p = environ; *p != NULL && n < MAX_VARIABLES; p++) env[n++] = *p;
    if (place_variable("XDG_RUNTIME_DIR") == NULL) env[n++] = buf_cstr(&runtime);
    env[n] = NULL;
    struct process_spec spec = {.argv = argv,
                                .env = env,
                                .path = c->systemd.path,
                                .timeout_ms = VERIFY_MS,
                                .keep_bytes = VERIFY_BYTES};
    struct err problem = {0};
    bool ok = true;
    if (!process_run(&spec, &r, &problem)) {
        if (problem.code != ERR_NOT_FOUND) ok = err_set(e, problem.code, "%s", problem.msg);
    } else if (r.end != PROCESS_EXITED || r.code != 0) {
        struct str text = str_trim(buf_view(&r.head));
        ok = err_set(e, ERR_FORMAT, "systemd-analyze verify: %.*s",
                     (int)(text.n < 400 ? text.n : 400), text.p);
    }
    process_result_free(&r);
    buf_free(&runtime);
    return ok;
}

// All units of the plan, as they will be, in a folder of their own; nothing is installed that
// systemd would not take. Without systemd-analyze there is nothing to ask.
static bool verify(struct schedule_command *c, const struct schedule_plan *plan, struct err *e)
{
    char dir[] = "/tmp/submind-units-XXXXXX";
    const char **argv = calloc(c->n * SCHEDULE_FILES + 5, sizeof *argv);
    struct buf paths = {0};
    size_t n = 0;
    bool ok = argv != NULL && mkdtemp(dir) != NULL;
    if (!ok) err_errno(e, ERR_IO, "cannot make a folder to verify units in");
    for (size_t i = 0; ok && i < c->n; i++)
        for (int k = 0; ok && k < SCHEDULE_FILES && c->list[i].n_schedules > 0; k++) {
            struct schedule_change change = {.action = SCHEDULE_ADD};
            schedule_unit_name(c->list[i].name, k, &change.file);
            ok = schedule_unit_text(&c->list[i], &c->place, k, &change.now, e) &&
                 schedule_change_apply(&change, dir, e);
            buf_printf(&paths, "%s/%s", dir, buf_cstr(&change.file));
            buf_c(&paths, '\0');
            buf_free(&change.file);
            buf_free(&change.now);
        }
    if (ok && paths.n > 0 && plan->n > 0) {
        argv[n++] = "systemd-analyze";
        argv[n++] = "verify";
        argv[n++] = c->s.system ? "--system" : "--user";
        for (const char *p = paths.p; p < paths.p + paths.n; p += strlen(p) + 1) argv[n++] = p;
        ok = run_verify(c, dir, argv, e);
    }
    for (const char *p = paths.p; p != NULL && p < paths.p + paths.n; p += strlen(p) + 1) unlink(p);
    paths.n = 0; // then the folder that systemd made for itself where dir was its runtime folder
    buf_printf(&paths, "%s/systemd", dir);
    rmdir(buf_cstr(&paths));
    rmdir(dir);
    free(argv);
    buf_free(&paths);
    return ok;
}

// ---- apply and remove -----------------------------------------------------------------------

static bool is_timer(const struct schedule_change *c)
{
    return str_ends(buf_view(&c->file), STR(".timer"));
}

static bool write_files(struct schedule_command *c, struct schedule_plan *plan, struct err *e)
{
    bool ok = true;
    for (size_t i = 0; ok && i < plan->n; i++) {
        struct schedule_change *change = &plan->list[i];
        // A timer stops before its file goes; what is not loaded cannot be stopped, which is fine.
        struct err ignored = {0};
        if (change->action == SCHEDULE_REMOVE && is_timer(change)) {
            systemd_do(&c->systemd, "disable", buf_cstr(&change->file), &ignored);
            systemd_do(&c->systemd, "stop", buf_cstr(&change->file), &ignored);
        }
        ok = schedule_change_apply(change, buf_cstr(&c->unit_dir), e);
    }
    return ok;
}

static bool start_timers(struct schedule_command *c, struct schedule_plan *plan, struct err *e)
{
    bool ok = systemd_do(&c->systemd, "daemon-reload", NULL, e);
    for (size_t i = 0; ok && i < plan->n; i++) {
        struct schedule_change *change = &plan->list[i];
        if (change->action == SCHEDULE_REMOVE || !is_timer(change)) continue;
        ok = systemd_do(&c->systemd, "enable", buf_cstr(&change->file), e) &&
             systemd_do(&c->systemd, "restart", buf_cstr(&change->file), e);
    }
    return ok;
}

// Whole texts only where nothing is done; what changes is shown line by line always.
static void print_plan(struct schedule_plan *plan, bool whole)
{
    struct buf text = {0};
    for (size_t i = 0; i < plan->n; i++)
        schedule_change_print(&plan->list[i], whole || plan->list[i].action == SCHEDULE_CHANGE,
                              &text);
    fwrite(text.p, 1, text.n, stdout);
    buf_free(&text);
}

static bool make_unit_dir(struct schedule_command *c, struct err *e)
{
    struct buf part = {0};
    const char *path = buf_cstr(&c->unit_dir);
    bool ok = true;
    for (const char *p = path; ok; p++) {
        if ((*p == '/' && p > path) || *p == '\0')
            ok = mkdir(buf_cstr(&part), 0755) == 0 || errno == EEXIST ||
                 err_errno(e, ERR_IO, "cannot make the folder %.200s", buf_cstr(&part));
        if (*p == '\0') break;
        buf_c(&part, *p);
    }
    buf_free(&part);
    return ok;
}

// Timers of a user run while that user is logged in, unless systemd keeps the user's manager.
static void tell_linger(const struct schedule_plan *plan)
{
    const char *user = place_variable("USER");
    struct buf path = {0};
    bool any = false;
    for (size_t i = 0; i < plan->n; i++) any |= plan->list[i].action != SCHEDULE_REMOVE;
    buf_printf(&path, "/var/lib/systemd/linger/%s", user != NULL ? user : "");
    if (any && access(buf_cstr(&path), F_OK) != 0)
        puts("timers of a user run while that user is logged in; always: loginctl enable-linger");
    buf_free(&path);
}

static bool carry_out(struct schedule_command *c, struct schedule_plan *plan, struct err *e)
{
    struct buf version = {0};
    if (plan->n == 0) {
        puts("nothing to change");
        return true;
    }
    print_plan(plan, c->s.dry_run);
    if (c->s.dry_run) return true;
    // Asked first, so that without systemd nothing is half done.
    bool ok = systemd_property(&c->systemd, "timers.target", "LoadState", &version, e);
    if (!ok) err_prefix(e, "systemd does not answer (submind schedule run needs none): ");
    ok = ok && make_unit_dir(c, e) && write_files(c, plan, e) && start_timers(c, plan, e);
    if (ok && !c->s.system) tell_linger(plan);
    buf_free(&version);
    return ok;
}

static bool apply(struct schedule_command *c, struct err *e)
{
    struct schedule_plan plan = {0};
    bool ok = open_definitions(c, e) &&
              schedule_plan_make(&plan, buf_cstr(&c->unit_dir), &c->place, c->list, c->n,
                                 c->s.args + 1, (size_t)c->s.n_args - 1, e) &&
              verify(c, &plan, e) && carry_out(c, &plan, e);
    schedule_plan_free(&plan);
    return ok;
}

// Without definitions all units of this workspace are too many.
static bool remove_units(struct schedule_command *c, struct err *e)
{
    struct schedule_plan plan = {0};
    bool ok = schedule_plan_make(&plan, buf_cstr(&c->unit_dir), &c->place, NULL, 0, c->s.args + 1,
                                 (size_t)c->s.n_args - 1, e) &&
              carry_out(c, &plan, e);
    schedule_plan_free(&plan);
    return ok;
}

// ---- ls -------------------------------------------------------------------------------------

static void timer_state(struct schedule_command *c, const struct definition *d, struct buf *out)
{
    struct schedule_plan plan = {0};
    struct err ignored = {0};
    struct buf unit = {0};
    const char *only[] = {d->name};
    schedule_unit_name(d->name, 0, &unit);
    if (!schedule_plan_make(&plan, buf_cstr(&c->unit_dir), &c->place, d, 1, only, 1, &ignored))
        buf_z(out, "in the way");
    else if (plan.n > 0)
        buf_z(out, plan.list[0].action == SCHEDULE_ADD ? "not applied" : "outdated");
    else if (!systemd_property(&c->systemd, buf_cstr(&unit), "ActiveState", out, &ignored))
        buf_z(out, "unknown");
    schedule_plan_free(&plan);
    buf_free(&unit);
}

static bool list(struct schedule_command *c, struct err *e)
{
    if (!open_definitions(c, e)) return false;
    if (!c->s.json)
        printf("%-20s  %-28s  %-12s  %s\n", "SUB-MIND", "SCHEDULE", "TIMER", "NEXT");
    else
        putchar('[');
    size_t shown = 0;
    for (size_t i = 0; i < c->n; i++) {
        struct definition *d = &c->list[i];
        struct buf times = {0}, state = {0};
        char when[40] = "-";
        time_t next = (time_t)definition_next(d, clock_unix());
        struct tm tm;
        if (d->n_schedules == 0) continue;
        for (size_t k = 0; k < d->n_schedules; k++)
            buf_printf(&times, "%s%s", k > 0 ? "; " : "", d->schedule_texts[k]);
        timer_state(c, d, &state);
        localtime_r(&next, &tm);
        if (next >= 0) strftime(when, sizeof when, "%a %Y-%m-%d %H:%M", &tm);
        if (c->s.json) {
            struct buf b = {0};
            buf_printf(&b, "%s{\"name\":\"%s\",\"schedule\":", shown > 0 ? ",\n " : "", d->name);
            buf_json(&b, buf_view(&times));
            buf_z(&b, ",\"timer\":");
            buf_json(&b, buf_view(&state));
            buf_printf(&b, ",\"next_run\":%lld}", (long long)next);
            fputs(buf_cstr(&b), stdout);
            buf_free(&b);
        } else {
            printf("%-20s  %-28s  %-12s  %s\n", d->name, buf_cstr(&times), buf_cstr(&state), when);
        }
        shown++;
        buf_free(&times);
        buf_free(&state);
    }
    if (c->s.json)
        puts("]");
    else if (shown == 0)
        puts("no sub-mind has a schedule");
    return true;
}

// ---- failed ---------------------------------------------------------------------------------

// What systemd starts when a scheduled run's service has failed. A run that came to its own end has
// told of itself; one that was killed, or could not even begin, is told of here.
static bool tell_failure(struct schedule_command *c, struct err *e)
{
    if (c->s.n_args != 2) return err_set(e, ERR_INPUT, "failed takes one name");
    return !c->keeps_records ||
           schedule_failure_tell(c->workspace, buf_cstr(&c->state_dir), c->s.args[1], e);
}

// ---- the command ----------------------------------------------------------------------------

static bool run_here(struct schedule_command *c, struct err *e)
{
    struct schedule_loop loop = {.place = c->place,
                                 .state_dir = c->keeps_records ? buf_cstr(&c->state_dir) : NULL,
                                 .jobs = c->s.given.jobs && c->s.jobs > 0 ? c->s.jobs : 4};
    return schedule_loop_run(&loop, e);
}

static int help(void)
{
    printf("usage: submind schedule apply [--dry-run] [NAME...]   timers for the definitions\n"
           "       submind schedule ls                            what is due when\n"
           "       submind schedule remove [--dry-run] [NAME...]  the workspace's timers go\n"
           "       submind schedule run                           without systemd: stays and runs\n"
           "                                                      what is due\n\n");
    options_help(C_SCHEDULE, "schedule");
    return 0;
}

int cmd_schedule(int argc, char **argv)
{
    static const struct {
        const char *name;
        bool (*act)(struct schedule_command *c, struct err *e);
    } acts[] = {{"apply", apply},
                {"ls", list},
                {"remove", remove_units},
                {"run", run_here},
                {"failed", tell_failure}};
    struct err e = {0};
    struct schedule_command c = {0};
    if (!options_parse(&c.s, C_SCHEDULE, argc, argv, &e)) return cmd_fail("schedule", &e);
    if (c.s.help) return help();
    const char *what = c.s.n_args > 0 ? c.s.args[0] : "";
    size_t i = 0, n = sizeof acts / sizeof acts[0];
    while (i < n && strcmp(acts[i].name, what) != 0) i++;
    bool ok =
        i < n || err_set(&e, ERR_INPUT, "say what: submind schedule apply, ls, remove or run");
    ok = ok && open_command(&c, &e) && acts[i].act(&c, &e);
    close_command(&c);
    return ok ? 0 : cmd_fail("schedule", &e);
}
