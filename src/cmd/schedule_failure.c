// A run that came to its own end has told of itself. Who calls this does not know which kind of
// failure it was, and runs may overlap: the records decide.
#include "cmd/schedule_failure.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/notice.h"
#include "agent/run_history.h"
#include "agent/tool_set.h"
#include "agent/workspace.h"
#include "base/log.h"
#include "cmd/places.h"

enum { RECENT = 50 }; // runs of the name that are looked at

struct killed { // an interrupted run that nobody was told of; text owned
    struct buf id, reason, stage;
};

struct looking {
    struct killed list[RECENT];
    size_t n, n_rows;
    bool newest_is_well; // it has ended and did not fail
};

static bool take_row(void *arg, const struct run_row *r)
{
    struct looking *l = arg;
    if (!str_eq(r->cause, STR("schedule"))) return true;
    if (l->n_rows++ == 0)
        l->newest_is_well = str_eq(r->outcome, STR("done")) || str_eq(r->outcome, STR(RUN_SKIPPED));
    if (!str_eq(r->outcome, STR(RUN_INTERRUPTED)) || r->notified.n > 0 || l->n == RECENT)
        return true;
    struct killed *k = &l->list[l->n++];
    buf_str(&k->id, r->id);
    buf_str(&k->reason, r->reason);
    buf_str(&k->stage, r->stage);
    return true;
}

static void tell(struct run_store *store, const struct definition *d, const char *workspace,
                 const struct notice *n)
{
    struct buf said = {0};
    struct err ignored = {0};
    log_warn("schedule", "%s: %s (%.*s)", n->name, n->outcome, (int)n->reason.n, n->reason.p);
    if (d->name != NULL && notice_wanted(&d->notify, n)) {
        notice_send(&d->notify, n, (const char *const *)environ, workspace, &said);
        run_store_set_notified(store, n->id, buf_view(&said), &ignored);
    }
    buf_free(&said);
}

// Why a run of the workspace cannot begin; false when nothing keeps it from it.
static bool cannot_begin(const char *workspace, struct err *why)
{
    struct workspace ws = {0};
    bool ok = workspace_open(&ws, workspace, why) && tool_set_check(&ws.config, why);
    workspace_close(&ws);
    return !ok;
}

// What systemd tells the unit of OnFailure= about the one that failed (systemd.exec(5)).
static void name_service_end(struct buf *out)
{
    const char *result = place_variable("MONITOR_SERVICE_RESULT"),
               *status = place_variable("MONITOR_EXIT_STATUS");
    buf_z(out, "its process ended before the run began");
    if (result != NULL)
        buf_printf(out, " (%.40s%s%.40s)", result, status != NULL ? " " : "",
                   status != NULL ? status : "");
}

// A run that left no record gets one.
static bool tell_absence(struct run_store *store, const struct definition *d, const char *workspace,
                         const char *name, struct str why, struct err *e)
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
        .outcome = "failed", .stage = STR("start"), .reason = why, .exit_code = 2};
    struct notice n = {.name = name,
                       .id = id,
                       .outcome = end.outcome,
                       .reason = why,
                       .stage = end.stage,
                       .failed = true};
    bool ok = run_store_start(store, &start, e) && run_store_end(store, id, &end, e);
    if (ok) tell(store, d, workspace, &n);
    return ok;
}

bool schedule_failure_tell(const char *workspace, const char *state_dir, const char *name,
                           struct err *e)
{
    struct run_store store = {0};
    struct looking *l = calloc(1, sizeof *l);
    struct definition d = {0};
    struct err broken = {0};
    struct buf why = {0};
    struct run_filter f = {.name = name, .workspace = workspace, .limit = RECENT};
    if (l == NULL) return err_set(e, ERR_MEMORY, "no memory for the records");
    bool is_broken =
        !definition_open(&d, workspace, name, &broken) || cannot_begin(workspace, &broken);
    bool ok = run_store_open(&store, state_dir, e) && run_history_list(&store, &f, take_row, l, e);
    for (size_t i = 0; ok && i < l->n; i++) {
        struct notice n = {.name = name,
                           .id = buf_cstr(&l->list[i].id),
                           .outcome = RUN_INTERRUPTED,
                           .reason = buf_view(&l->list[i].reason),
                           .stage = buf_view(&l->list[i].stage),
                           .failed = true};
        tell(&store, &d, workspace, &n);
    }
    if (is_broken)
        buf_z(&why, broken.msg);
    else if (l->n == 0 && (l->n_rows == 0 || l->newest_is_well))
        name_service_end(&why);
    if (ok && why.n > 0) ok = tell_absence(&store, &d, workspace, name, buf_view(&why), e);
    run_store_close(&store);
    definition_close(&d);
    for (size_t i = 0; i < l->n; i++) {
        buf_free(&l->list[i].id);
        buf_free(&l->list[i].reason);
        buf_free(&l->list[i].stage);
    }
    free(l);
    buf_free(&why);
    return ok;
}
