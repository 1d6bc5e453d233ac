// What keeps it right: the first line of each file of ours says so and for which workspace; without
// it nothing is overwritten or removed.
#include "agent/schedule_unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

enum { MAX_UNIT_BYTES = 1 << 20, GRACE_S = 90, DEADLINE_S = 600, MAX_LINES = 200 };

static const char mark[] = "# Written by `submind schedule apply` for ";
static const char run_words[] = "run --scheduled --quiet";
static const char *const suffixes[SCHEDULE_FILES] = {".timer", ".service", "-failed.service"};

void schedule_unit_name(const char *name, int i, struct buf *out)
{
    buf_printf(out, "submind-%s%s", name, suffixes[i]);
}

// ---- texts ----------------------------------------------------------------------------------

// A value of a unit: "%" begins a specifier there.
static void put_plain(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '%') buf_c(out, '%');
        buf_c(out, *text);
    }
}

// A word of a command line: quoted, with what has a meaning there taken from it. systemd puts
// variables in wherever it starts a command: n_starts times.
static void put_word(struct buf *out, const char *before, const char *text, int n_starts)
{
    buf_printf(out, "\"%s", before);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') buf_c(out, '\\');
        if (*text == '%') buf_c(out, '%');
        for (int i = 1; *text == '$' && i < 1 << n_starts; i++) buf_c(out, '$');
        buf_c(out, *text);
    }
    buf_c(out, '"');
}

static void put_command(const struct schedule_place *p, const char *words, const char *name,
                        int n_starts, struct buf *out)
{
    put_word(out, "", p->program, n_starts);
    buf_printf(out, " %s ", words);
    put_word(out, "--workspace=", p->workspace, n_starts);
    if (p->state_dir != NULL) {
        buf_c(out, ' ');
        put_word(out, "--state-dir=", p->state_dir, n_starts);
    }
    buf_printf(out, " %s\n", name);
}

static void put_timer(const struct definition *d, struct buf *out)
{
    buf_printf(out, "[Unit]\nDescription=When the sub-mind %s is due\n\n[Timer]\n", d->name);
    for (size_t i = 0; i < d->n_schedules; i++)
        for (int rule = 0; rule < d->schedules[i].n_rules; rule++) {
            buf_z(out, "OnCalendar=");
            calendar_print(&d->schedules[i], rule, out);
            buf_c(out, '\n');
        }
    buf_z(out, "AccuracySec=1s\n"); // of itself systemd may be a minute late, to save wake-ups
    if (d->delay_s > 0) buf_printf(out, "RandomizedDelaySec=%u\n", d->delay_s);
    buf_printf(out, "Persistent=%s\n", d->missed == MISSED_RUN ? "true" : "false");
    buf_z(out, "\n[Install]\nWantedBy=timers.target\n");
}

static void put_title(const struct definition *d, struct buf *out)
{
    buf_printf(out, "Sub-mind %s", d->name);
    if (d->description != NULL) buf_printf(out, ": %s", d->description);
}

// A service runs once at a time, and what is due meanwhile is left out or comes behind it. Where
// runs may overlap the service only hands each to systemd as a unit of its own, so that it is free
// again when the next is due; INVOCATION_ID is what systemd calls this start. Drop-ins for all of
// them: submind-NAME-.service.d/.
static void put_own_unit(const struct definition *d, const struct schedule_place *p,
                         const char *title, const char *const *settings, struct buf *out)
{
    buf_printf(out, "ExecStart=systemd-run%s --quiet --collect --no-block",
               p->system ? "" : " --user");
    buf_printf(out, " --unit=submind-%s-${INVOCATION_ID} ", d->name);
    put_word(out, "--description=", title, 1);
    for (; *settings != NULL; settings++) buf_printf(out, " --property=%s", *settings);
    buf_c(out, ' ');
    put_word(out, "--working-directory=", p->workspace, 1);
    buf_c(out, ' ');
    put_command(p, run_words, d->name, 2, out);
}

// KillMode=process: the run ends its own tools; a private server that it started must stay warm.
static void put_service(const struct definition *d, const struct schedule_place *p, struct buf *out)
{
    struct buf title = {0};
    char on_failure[80], limit[40];
    snprintf(on_failure, sizeof on_failure, "OnFailure=submind-%s-failed.service", d->name);
    snprintf(limit, sizeof limit, "TimeoutStartSec=%u",
             (d->deadline_s > 0 ? d->deadline_s : DEADLINE_S) + GRACE_S);
    const char *const settings[] = {on_failure, "Type=oneshot", limit, "KillMode=process", NULL};
    put_title(d, &title);
    buf_z(out, "[Unit]\nDescription=");
    put_plain(out, buf_cstr(&title));
    buf_printf(out, "\n%s\n\n[Service]\nType=oneshot\nWorkingDirectory=", on_failure);
    put_plain(out, p->workspace);
    buf_c(out, '\n');
    if (d->overlap == OVERLAP_ALLOW) {
        put_own_unit(d, p, buf_cstr(&title), settings, out);
    } else {
        buf_z(out, "ExecStart=");
        put_command(p, run_words, d->name, 1, out);
        buf_printf(out, "%s\nKillMode=process\n", limit);
    }
    out->failed |= title.failed;
    buf_free(&title);
}

static void put_failed(const struct definition *d, const struct schedule_place *p, struct buf *out)
{
    buf_printf(out, "[Unit]\nDescription=Tell that the sub-mind %s failed\n\n[Service]\n", d->name);
    buf_z(out, "Type=oneshot\nExecStart=");
    put_command(p, "schedule failed", d->name, 1, out);
}

bool schedule_unit_text(const struct definition *d, const struct schedule_place *p, int i,
                        struct buf *out, struct err *e)
{
    const char *texts[] = {p->program, p->workspace, p->state_dir, d->description};
    for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++)
        if (texts[k] != NULL && strpbrk(texts[k], "\n\r") != NULL)
            return err_set(e, ERR_INPUT, "%s: a unit cannot hold \"%.100s\": it has a line break",
                           d->name, texts[k]);
    buf_printf(out, "%s%s\n", mark, p->workspace);
    buf_printf(out, "# from subminds/%s.md; changes made here are lost.\n", d->name);
    if (i == 0) put_timer(d, out);
    if (i == 1) put_service(d, p, out);
    if (i == 2) put_failed(d, p, out);
    return !out->failed || err_set(e, ERR_MEMORY, "no memory for a unit");
}

// ---- the plan -------------------------------------------------------------------------------

static struct schedule_change *put_change(struct schedule_plan *plan, enum schedule_action action,
                                          const char *file, struct err *e)
{
    struct schedule_change *p = NULL;
    if (plan->n < SCHEDULE_CHANGES_MAX) p = realloc(plan->list, (plan->n + 1) * sizeof *p);
    if (p == NULL) {
        err_set(e, ERR_MEMORY, "no memory for the plan");
        return NULL;
    }
    plan->list = p;
    p += plan->n++;
    *p = (struct schedule_change){.action = action};
    buf_z(&p->file, file);
    return p;
}

// What stands in the file now; *there false when it is not there.
static bool read_unit(const char *dir, const char *file, struct buf *text, bool *there,
                      struct err *e)
{
    struct buf path = {0};
    struct err problem = {0};
    buf_printf(&path, "%s/%s", dir, file);
    *there = file_read(text, buf_cstr(&path), MAX_UNIT_BYTES, &problem);
    bool ok = *there || problem.code == ERR_NOT_FOUND;
    if (!ok) err_set(e, problem.code, "%s", problem.msg);
    buf_free(&path);
    return ok;
}

// The workspace that a unit of ours was written for; empty when it is not ours.
static struct str owner_of(struct str text)
{
    struct str line = str_sub(text, 0, str_find(text, STR("\n"), 0));
    if (!str_starts(line, str_from(mark))) return (struct str){"", 0};
    return str_sub(line, sizeof mark - 1, SIZE_MAX);
}

static bool plan_file(struct schedule_plan *plan, const char *dir, const struct definition *d,
                      const struct schedule_place *p, int i, struct err *e)
{
    struct buf file = {0}, before = {0}, now = {0};
    bool there = false;
    schedule_unit_name(d->name, i, &file);
    bool ok =
        schedule_unit_text(d, p, i, &now, e) && read_unit(dir, buf_cstr(&file), &before, &there, e);
    struct str owner = owner_of(buf_view(&before));
    if (ok && there && owner.n == 0)
        ok = err_set(e, ERR_INPUT, "%.200s/%s is there and is not ours; move it away", dir,
                     buf_cstr(&file));
    else if (ok && there && !str_eq(owner, str_from(p->workspace)))
        ok = err_set(e, ERR_INPUT,
                     "%s belongs to the workspace %.*s; give one of the two sub-minds another name",
                     buf_cstr(&file), (int)owner.n, owner.p);
    if (ok && !str_eq(buf_view(&before), buf_view(&now))) {
        struct schedule_change *c =
            put_change(plan, there ? SCHEDULE_CHANGE : SCHEDULE_ADD, buf_cstr(&file), e);
        ok = c != NULL;
        if (ok) {
            c->before = before;
            c->now = now;
            before = now = (struct buf){0};
        }
    }
    buf_free(&file);
    buf_free(&before);
    buf_free(&now);
    return ok;
}

// The sub-mind's name in a unit file's; empty when it is none of ours by name.
static struct str name_of(struct str file)
{
    struct str none = {"", 0};
    if (!str_starts(file, STR("submind-"))) return none;
    for (int i = SCHEDULE_FILES - 1; i >= 0; i--) {
        struct str suffix = str_from(suffixes[i]);
        if (!str_ends(file, suffix)) continue;
        return str_sub(file, 8, file.n - 8 - suffix.n);
    }
    return none;
}

static bool is_among(struct str name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(name, str_from(names[i]))) return true;
    return n == 0;
}

static bool is_scheduled(struct str name, const struct definition *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].n_schedules > 0 && str_eq(name, str_from(list[i].name))) return true;
    return false;
}

static bool plan_removal(struct schedule_plan *plan, const char *dir, const char *file,
                         const struct schedule_place *p, struct err *e)
{
    struct buf text = {0};
    bool there = false;
    bool ok = read_unit(dir, file, &text, &there, e);
    if (ok && there && str_eq(owner_of(buf_view(&text)), str_from(p->workspace))) {
        struct schedule_change *c = put_change(plan, SCHEDULE_REMOVE, file, e);
        ok = c != NULL;
        if (ok) {
            c->before = text;
            text = (struct buf){0};
        }
    }
    buf_free(&text);
    return ok;
}

static int by_file(const void *pa, const void *pb)
{
    const struct schedule_change *a = pa, *b = pb;
    return str_cmp(buf_view(&a->file), buf_view(&b->file));
}

static bool plan_removals(struct schedule_plan *plan, const char *dir,
                          const struct schedule_place *p, const struct definition *list, size_t n,
                          const char *const *only, size_t n_only, struct err *e)
{
    DIR *d = opendir(dir);
    bool ok = true;
    if (d == NULL) return true; // nothing is installed
    for (struct dirent *entry; ok && (entry = readdir(d)) != NULL;) {
        struct str name = name_of(str_from(entry->d_name));
        if (name.n == 0 || !is_among(name, only, n_only) || is_scheduled(name, list, n)) continue;
        ok = plan_removal(plan, dir, entry->d_name, p, e);
    }
    closedir(d);
    return ok;
}

bool schedule_plan_make(struct schedule_plan *out, const char *dir, const struct schedule_place *p,
                        const struct definition *list, size_t n, const char *const *only,
                        size_t n_only, struct err *e)
{
    struct schedule_plan plan = {0};
    bool ok = true;
    for (size_t k = 0; ok && k < n; k++) {
        if (list[k].n_schedules == 0 || !is_among(str_from(list[k].name), only, n_only)) continue;
        for (int i = 0; ok && i < SCHEDULE_FILES; i++)
            ok = plan_file(&plan, dir, &list[k], p, i, e);
    }
    ok = ok && plan_removals(&plan, dir, p, list, n, only, n_only, e);
    if (ok && plan.n > 0) qsort(plan.list, plan.n, sizeof *plan.list, by_file);
    if (ok)
        *out = plan;
    else
        schedule_plan_free(&plan);
    return ok;
}

void schedule_plan_free(struct schedule_plan *plan)
{
    for (size_t i = 0; i < plan->n; i++) {
        buf_free(&plan->list[i].file);
        buf_free(&plan->list[i].before);
        buf_free(&plan->list[i].now);
    }
    free(plan->list);
    *plan = (struct schedule_plan){0};
}

// ---- showing --------------------------------------------------------------------------------

static size_t split_lines(struct str text, struct str *lines)
{
    size_t n = 0;
    for (size_t at = 0; at < text.n && n < MAX_LINES;) {
        size_t end = str_find(text, STR("\n"), at);
        if (end == SIZE_MAX) end = text.n;
        lines[n++] = str_sub(text, at, end - at);
        at = end + 1;
    }
    return n;
}

static void put_line(struct buf *out, char sign, struct str line)
{
    buf_printf(out, "  %c ", sign);
    buf_str(out, line);
    buf_c(out, '\n');
}

// The longest common subsequence of lines; units are short.
static void put_difference(struct str a, struct str b, struct buf *out)
{
    static _Thread_local uint8_t common[MAX_LINES + 1][MAX_LINES + 1];
    static _Thread_local struct str x[MAX_LINES], y[MAX_LINES];
    size_t nx = split_lines(a, x), ny = split_lines(b, y), i = 0, k = 0;
    memset(common, 0, sizeof common);
    for (size_t r = nx; r-- > 0;)
        for (size_t c = ny; c-- > 0;)
            common[r][c] = str_eq(x[r], y[c]) ? (uint8_t)(common[r + 1][c + 1] + 1)
                           : common[r + 1][c] > common[r][c + 1] ? common[r + 1][c]
                                                                 : common[r][c + 1];
    while (i < nx || k < ny) {
        if (i < nx && k < ny && str_eq(x[i], y[k])) {
            i++;
            k++;
        } else if (k == ny || (i < nx && common[i + 1][k] >= common[i][k + 1])) {
            put_line(out, '-', x[i++]);
        } else {
            put_line(out, '+', y[k++]);
        }
    }
}

void schedule_change_print(const struct schedule_change *c, bool lines, struct buf *out)
{
    static const char *const words[] = {"new", "changed", "removed"};
    buf_str(out, buf_view(&c->file));
    buf_printf(out, " (%s)\n", words[c->action]);
    if (lines) put_difference(buf_view(&c->before), buf_view(&c->now), out);
}

// ---- doing ----------------------------------------------------------------------------------

bool schedule_change_apply(const struct schedule_change *c, const char *dir, struct err *e)
{
    struct buf path = {0}, part = {0};
    buf_printf(&path, "%s/%.*s", dir, (int)c->file.n, c->file.p);
    buf_printf(&part, "%s.new", buf_cstr(&path));
    bool ok = true;
    if (c->action == SCHEDULE_REMOVE) {
        if (unlink(buf_cstr(&path)) != 0 && errno != ENOENT)
            ok = err_errno(e, ERR_IO, "cannot remove %.300s", buf_cstr(&path));
    } else {
        int fd = open(buf_cstr(&part), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
        ok = fd >= 0 && write(fd, c->now.p, c->now.n) == (ssize_t)c->now.n && fsync(fd) == 0;
        if (fd >= 0) close(fd);
        ok = ok && rename(buf_cstr(&part), buf_cstr(&path)) == 0;
        if (!ok) err_errno(e, ERR_IO, "cannot write %.300s", buf_cstr(&path));
    }
    buf_free(&path);
    buf_free(&part);
    return ok;
}
