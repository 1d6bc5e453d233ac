// A definition that cannot be read is no task of a measurement; `submind check` says what is wrong with it.
#include "cmd/bench_prompt.h"

#include <stdlib.h>
#include <string.h>

#include "agent/definition.h"

bool bench_prompt_open(struct bench_prompt *p, const char *dir, struct err *e)
{
    struct definition_names names = {0};
    *p = (struct bench_prompt){0};
    if (dir == NULL) return true;
    if (!workspace_open(&p->workspace, dir, e)) return false;
    p->there = true;
    bool ok = definition_list(&names, p->workspace.dir, e);
    for (size_t i = 0; ok && i < names.n && p->n_tasks < BENCH_MAX_TASKS; i++) {
        struct definition d = {0};
        struct err ignored = {0};
        if (definition_open(&d, p->workspace.dir, names.p[i], &ignored) && d.task != NULL)
            p->tasks[p->n_tasks++] = strdup(d.task);
        definition_close(&d);
    }
    definition_names_free(&names);
    if (ok && p->workspace.n_parts == 0)
        ok = err_set(e, ERR_NOT_FOUND, "%s has no Markdown files for a bootstrap", dir);
    if (!ok) bench_prompt_close(p);
    return ok;
}

void bench_prompt_close(struct bench_prompt *p)
{
    for (size_t i = 0; i < p->n_tasks; i++) free(p->tasks[i]);
    if (p->there) workspace_close(&p->workspace);
    *p = (struct bench_prompt){0};
}

void bench_prompt_use(struct bench_prompt *p, struct workload_settings *w)
{
    if (!p->there) return;
    w->bootstrap = buf_cstr(&p->workspace.bootstrap);
    w->tasks = (const char *const *)p->tasks;
    w->n_tasks = p->n_tasks;
}
