// Runs the judges and writes what they found. Nothing here knows a check by name.
#include "host/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "host/remedy.h"

static const struct {
    const char *name, *what, *want, *why, *source;
} checks[N_CHECKS] = {
#define CHECK(id, what, want, why, source) {#id, what, want, why, source},
#include "host/facts.def"
};

static const char *const status_names[] = {"absent", "ok", "attention", "problem"};

void finding_set(struct doctor *d, enum check_id id, enum finding_status status, const char *remedy,
                 const char *fmt, ...)
{
    struct finding *f = &d->finding[id];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->seen, sizeof f->seen, fmt, ap);
    va_end(ap);
    f->status = status;
    f->remedy = remedy;
}

bool doctor_look(struct doctor *d, const char *root_path, const struct look_wish *wish,
                 struct err *e)
{
    struct root r;
    if (!root_open(&r, root_path, e)) return false;
    *d = (struct doctor){.here = r.live};
    host_look(&d->host, &r, wish);
    root_close(&r);
    judge_system(d);
    judge_gpu(d);
    return true;
}

enum finding_status doctor_worst(const struct doctor *d)
{
    enum finding_status worst = FINDING_OK;
    for (size_t i = 0; i < N_CHECKS; i++)
        if (d->finding[i].status > worst) worst = d->finding[i].status;
    return worst;
}

static const char *dashed(enum check_id id, char name[32])
{
    snprintf(name, 32, "%s", checks[id].name);
    for (char *p = name; *p != '\0'; p++)
        if (*p == '_') *p = '-';
    return name;
}

void doctor_want(const struct doctor *d, enum check_id id, struct buf *out)
{
    remedy_expand(d, checks[id].want, out);
}

void doctor_fix(const struct doctor *d, enum check_id id, struct buf *out)
{
    const struct finding *f = &d->finding[id];
    if (f->status > FINDING_OK && f->remedy != NULL) remedy_text(d, f->remedy, out);
}

// Text with every line indented, for people.
static void put_indented(struct buf *out, const char *label, const struct buf *text)
{
    struct str s = buf_view(text);
    if (s.n == 0) return;
    buf_printf(out, "    %-7s ", label);
    for (size_t i = 0; i < s.n; i++) {
        buf_c(out, s.p[i]);
        if (s.p[i] == '\n') buf_printf(out, "    %-7s ", "");
    }
    buf_c(out, '\n');
}

static void put_details(const struct doctor *d, enum check_id id, struct buf *out)
{
    struct buf want = {0}, why = {0}, fix = {0}, source = {0};
    doctor_want(d, id, &want);
    buf_z(&why, checks[id].why);
    remedy_sources(checks[id].source, &source);
    doctor_fix(d, id, &fix);
    put_indented(out, "want", &want);
    put_indented(out, "why", &why);
    put_indented(out, "source", &source);
    put_indented(out, "fix", &fix);
    buf_free(&want);
    buf_free(&why);
    buf_free(&fix);
    buf_free(&source);
}

void doctor_table(const struct doctor *d, struct buf *out)
{
    size_t count[4] = {0};
    char name[32];
    const struct host *h = &d->host;
    buf_printf(out, "%s, kernel %s%s%s\n\n", h->os_name[0] != '\0' ? h->os_name : "unknown system",
               h->kernel[0] != '\0' ? h->kernel : "unknown",
               h->container[0] != '\0' ? ", inside " : "", h->container);
    for (size_t i = 0; i < N_CHECKS; i++) {
        const struct finding *f = &d->finding[i];
        count[f->status]++;
        if (f->status == FINDING_ABSENT) continue;
        buf_printf(out, "%-9s  %-16s  %s: %s\n", status_names[f->status],
                   dashed((enum check_id)i, name), checks[i].what, f->seen);
        if (f->status != FINDING_OK) put_details(d, (enum check_id)i, out);
    }
    buf_printf(out, "\n%zu ok, %zu to look at, %zu problems%s\n", count[FINDING_OK],
               count[FINDING_ATTENTION], count[FINDING_PROBLEM],
               count[FINDING_ATTENTION] + count[FINDING_PROBLEM] > 0
                   ? "; submind doctor --plan prints the commands as one script"
                   : "");
}

void doctor_json(const struct doctor *d, struct buf *out)
{
    char name[32];
    bool first = true;
    buf_z(out, "{\"checks\":[");
    for (size_t i = 0; i < N_CHECKS; i++) {
        const struct finding *f = &d->finding[i];
        struct buf want = {0}, fix = {0};
        if (f->status == FINDING_ABSENT) continue;
        doctor_want(d, (enum check_id)i, &want);
        doctor_fix(d, (enum check_id)i, &fix);
        buf_printf(out, "%s\n{\"id\":\"%s\",\"status\":\"%s\",\"seen\":", first ? "" : ",",
                   dashed((enum check_id)i, name), status_names[f->status]);
        buf_json(out, str_from(f->seen));
        buf_z(out, ",\"want\":");
        buf_json(out, buf_view(&want));
        buf_z(out, ",\"why\":");
        buf_json(out, str_from(checks[i].why));
        buf_z(out, ",\"fix\":");
        buf_json(out, buf_view(&fix));
        buf_c(out, '}');
        buf_free(&want);
        buf_free(&fix);
        first = false;
    }
    buf_z(out, "\n]}\n");
}

bool doctor_explain(const struct doctor *d, const char *name, struct buf *out, struct err *e)
{
    struct buf names = {0};
    char text[32];
    for (size_t i = 0; i < N_CHECKS; i++) {
        const enum check_id id = (enum check_id)i;
        buf_printf(&names, " %s", dashed(id, text));
        if (strcmp(name, text) != 0 && strcmp(name, checks[i].name) != 0) continue;
        const struct finding *f = &d->finding[i];
        buf_printf(out, "%s: %s\n", text, checks[i].what);
        buf_printf(out, "    %-7s %s\n    %-7s %s\n", "status",
                   f->status == FINDING_ABSENT ? "does not apply to this machine"
                                               : status_names[f->status],
                   "seen", f->status == FINDING_ABSENT ? "-" : f->seen);
        put_details(d, id, out);
        buf_free(&names);
        return true;
    }
    err_set(e, ERR_INPUT, "there is no check \"%s\"; there are:%s", name, buf_cstr(&names));
    buf_free(&names);
    return false;
}

static void put_lines(struct buf *out, const char *front, const struct buf *text)
{
    buf_z(out, front);
    for (size_t i = 0; i < text->n; i++) {
        buf_c(out, text->p[i]);
        if (text->p[i] == '\n') buf_z(out, front);
    }
    buf_c(out, '\n');
}

// Commands of one kind, each remedy once, with what it is for as a comment.
static size_t plan_section(const struct doctor *d, unsigned kinds, const char *title,
                           struct buf *out)
{
    const char *done[N_CHECKS];
    size_t n = 0;
    for (size_t i = 0; i < N_CHECKS; i++) {
        const struct finding *f = &d->finding[i];
        struct buf text = {0};
        bool again = false;
        if (f->status <= FINDING_OK || f->remedy == NULL) continue;
        for (size_t k = 0; k < n; k++) again = again || strcmp(done[k], f->remedy) == 0;
        const enum remedy_kind kind = remedy_text(d, f->remedy, &text);
        if (!again && (kinds >> kind & 1) != 0) {
            if (n == 0) buf_printf(out, "\n# ---- %s ----\n", title);
            done[n++] = f->remedy;
            buf_printf(out, "\n# %s: %s (%s)\n", checks[i].what, f->seen, status_names[f->status]);
            put_lines(out, kind == BY_HAND ? "# " : "", &text);
        }
        buf_free(&text);
    }
    return n;
}

static size_t plan_boot(const struct doctor *d, struct buf *out)
{
    const char *names[N_CHECKS];
    size_t n = 0;
    for (size_t i = 0; i < N_CHECKS; i++) {
        const struct finding *f = &d->finding[i];
        struct buf text = {0};
        if (f->status <= FINDING_OK || f->remedy == NULL) continue;
        if (remedy_text(d, f->remedy, &text) == AT_BOOT) names[n++] = f->remedy;
        buf_free(&text);
    }
    if (n == 0) return 0;
    struct buf text = {0};
    const enum remedy_kind kind = remedy_boot(d, names, n, false, &text);
    buf_z(out,
          "\n# ---- The boot entry: changes the kernel's command line. Read it before you run it. "
          "----\n");
    if (kind == AT_BOOT)
        buf_z(out, "# Runs only when the script is called with --boot.\n"
                   "if [ \"${1:-}\" = --boot ]; then\n");
    put_lines(out, kind == AT_BOOT ? "" : "# ", &text);
    if (kind == AT_BOOT) buf_z(out, "fi\n");
    buf_free(&text);
    return n;
}

void doctor_plan(const struct doctor *d, struct buf *out)
{
    buf_printf(out, "#!/bin/sh\n# What submind doctor found on %s. Read it, then run it.\n",
               d->host.os_name[0] != '\0' ? d->host.os_name : "this machine");
    if (d->host.container[0] != '\0')
        buf_z(out, "# Seen from inside a container: run it on the machine itself.\n");
    buf_z(out, "set -eu\n");
    size_t n =
        plan_section(d, 1U << USER | 1U << SUDO, "Counts at once or from the next login", out);
    size_t reboot = plan_section(d, 1U << REBOOT, "Counts after a reboot", out);
    reboot += plan_boot(d, out);
    n += plan_section(d, 1U << BY_HAND, "By hand", out);
    if (reboot > 0) buf_z(out, "\necho 'Reboot, then run submind doctor again.'\n");
    if (n + reboot == 0) buf_z(out, "# Nothing to do.\n");
}

size_t doctor_steps(const struct doctor *d, struct doctor_step steps[N_CHECKS])
{
    size_t n = 0;
    for (size_t i = 0; i < N_CHECKS; i++) {
        const struct finding *f = &d->finding[i];
        struct buf text = {0};
        bool again = false;
        if (f->status <= FINDING_OK || f->remedy == NULL) continue;
        for (size_t k = 0; k < n; k++) again = again || strcmp(steps[k].remedy, f->remedy) == 0;
        if (!again)
            steps[n++] = (struct doctor_step){.remedy = f->remedy,
                                              .what = checks[i].what,
                                              .seen = f->seen,
                                              .kind = (int)remedy_text(d, f->remedy, &text)};
        buf_free(&text);
    }
    return n;
}
