// submind doctor: looks at this machine (or a recorded one) and says what is wrong with it. Looking needs no
// root and changes nothing; --fix (doctor_mend.c) does.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/doctor_mend.h"
#include "cmd/doctor_sizing.h"
#include "cmd/model_path.h"
#include "cmd/options.h"
#include "host/doctor.h"

enum { DEFAULT_PORT = 8080 };

static bool report(const struct doctor *d, const struct settings *s, struct err *e)
{
    struct buf out = {0};
    bool ok = true;
    if (s->model != NULL)
        ok = doctor_sizing(d, s, &out, e);
    else if (s->explain != NULL)
        ok = doctor_explain(d, s->explain, &out, e);
    else if (s->plan)
        doctor_plan(d, &out);
    else if (s->json)
        doctor_json(d, &out);
    else
        doctor_table(d, &out);
    if (ok && out.failed) ok = err_set(e, ERR_MEMORY, "no memory for the report");
    if (ok && (fwrite(out.p, 1, out.n, stdout) != out.n || fflush(stdout) != 0))
        ok = err_errno(e, ERR_IO, "cannot write the report");
    buf_free(&out);
    return ok;
}

int cmd_doctor(int argc, char **argv)
{
    struct err e = {0};
    struct settings s;
    if (!options_parse(&s, C_DOCTOR, argc, argv, &e)) return cmd_fail("doctor", &e);
    if (s.help) {
        printf(
            "usage: submind doctor [flags]\n\nLooks at this machine and says what is wrong, why it "
            "matters and how to put it right.\nEnds with 1 when there is a problem.\n\n");
        options_help(C_DOCTOR, "doctor");
        return 0;
    }
    log_set_level(s.verbose ? LOG_DEBUG : LOG_WARN);
    struct buf models = {0}, cache = {0};
    struct doctor *d = calloc(1, sizeof *d);
    if (d == NULL) err_set(&e, ERR_MEMORY, "no memory");
    model_dir(&models);
    options_home(&cache, "XDG_CACHE_HOME", ".cache");
    struct look_wish wish = {.port = s.given.port ? s.port : DEFAULT_PORT,
                             .models = buf_cstr(&models),
                             .cache = buf_cstr(&cache),
                             .path = options_env("PATH"),
                             .environment = (const char *const *)environ};
    bool ok = d != NULL && doctor_look(d, s.root == NULL ? "/" : s.root, &wish, &e);
    buf_free(&models);
    buf_free(&cache);
    if (ok && (s.fix || s.undo)) {
        ok = s.undo ? doctor_undo(&s, &e) : doctor_mend(d, &s, &e);
        free(d);
        return ok ? 0 : cmd_fail("doctor", &e);
    }
    ok = ok && report(d, &s, &e);
    const bool problem = ok && doctor_worst(d) == FINDING_PROBLEM;
    free(d);
    if (!ok) return cmd_fail("doctor", &e);
    return problem && s.explain == NULL && s.model == NULL && !s.plan ? 1 : 0;
}
