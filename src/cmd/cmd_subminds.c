// submind new, check, ls: definitions of sub-minds, to write, to validate, to look at.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/definition.h"
#include "agent/run_history.h"
#include "agent/tool_set.h"
#include "agent/workspace.h"
#include "base/clock.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/places.h"

static const char *dir_of(const struct settings *s)
{
    return s->workspace != NULL ? s->workspace : ".";
}

static bool parse(struct settings *s, const char *command, const char *usage, int argc, char **argv,
                  int *code)
{
    struct err e = {0};
    if (!options_parse(s, C_SUBMINDS, argc, argv, &e)) {
        *code = cmd_fail(command, &e);
        return false;
    }
    if (!s->help) return true;
    printf("usage: submind %s\n\n", usage);
    options_help(C_SUBMINDS, command);
    *code = 0;
    return false;
}

// ---- new ------------------------------------------------------------------------------------

static const char sample[] =
    "---\n"
    "description: What this chore is for, in one line\n"
    "# schedule: \"*/15 * * * *\"   # or: Mon..Fri 07:00; submind schedule apply makes the timer\n"
    "# deadline: 5m\n"
    "# retries: 1                  # only where nothing was done that may not be done twice\n"
    "# notify:\n"
    "#   when: attention           # failure, attention, always or never\n"
    "#   desktop: true             # or: command: [...], file: PATH, webhook: URL\n"
    "inputs:\n"
    "  service: nginx              # submind run %s service=cups\n"
    "---\n"
    "check whether service {{service}} is active\n";

static bool write_new(const char *path, struct str text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 && errno == EEXIST) return err_set(e, ERR_INPUT, "%.300s is there already", path);
    if (fd < 0) return err_errno(e, ERR_IO, "cannot write %.300s", path);
    bool ok = write(fd, text.p, text.n) == (ssize_t)text.n;
    if (!ok) err_errno(e, ERR_IO, "cannot write %.300s", path);
    close(fd);
    return ok;
}

static bool make_new(const char *dir, const char *name, struct buf *path, struct err *e)
{
    struct buf text = {0};
    struct stat st;
    if (!definition_name_is_valid(str_from(name)))
        return err_set(e, ERR_INPUT,
                       "\"%.60s\" is no name: lower case letters, digits, - and _, at most %d",
                       name, DEFINITION_NAME_MAX);
    if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_INPUT, "the workspace %.200s is no folder", dir);
    buf_printf(path, "%s/subminds", dir);
    if (mkdir(buf_cstr(path), 0755) != 0 && errno != EEXIST)
        return err_errno(e, ERR_IO, "cannot make %.300s", buf_cstr(path));
    buf_clear(path);
    definition_path(dir, name, path);
    buf_printf(&text, sample, name);
    bool ok = write_new(buf_cstr(path), buf_view(&text), e);
    buf_free(&text);
    return ok;
}

int cmd_new(int argc, char **argv)
{
    struct settings s;
    struct err e = {0};
    struct buf path = {0};
    int code = 0;
    if (!parse(&s, "new", "new [flags] NAME     writes subminds/NAME.md to edit", argc, argv,
               &code))
        return code;
    bool ok = s.n_args == 1 || err_set(&e, ERR_INPUT, "one name is needed: submind new NAME");
    ok = ok && make_new(dir_of(&s), s.args[0], &path, &e);
    if (ok && s.json) {
        struct buf json = {0};
        buf_json(&json, buf_view(&path));
        printf("{\"path\":%s}\n", buf_cstr(&json));
        buf_free(&json);
    } else if (ok) {
        printf("%s\nedit it, then: submind check; submind run %s\n", buf_cstr(&path), s.args[0]);
    }
    buf_free(&path);
    return ok ? 0 : cmd_fail("new", &e);
}

// ---- check ----------------------------------------------------------------------------------

static const char *const given_to_failure[] = {"name", "run", "outcome", "reason"};

static bool is_given(const char *input)
{
    for (size_t i = 0; i < sizeof given_to_failure / sizeof given_to_failure[0]; i++)
        if (strcmp(given_to_failure[i], input) == 0) return true;
    return false;
}

// The sub-mind that follows this one's failure is there, and needs no more than it gets.
static bool check_on_failure(const struct definition *d, const char *dir, struct err *e)
{
    struct definition other = {0};
    struct err problem = {0};
    bool ok = definition_open(&other, dir, d->on_failure, &problem);
    if (!ok)
        err_set(e, ERR_INPUT, "%.200s:%d: on_failure: %.250s", d->path, d->on_failure_line,
                problem.code == ERR_NOT_FOUND ? "there is no such sub-mind" : problem.msg);
    for (size_t i = 0; ok && i < other.n_inputs; i++)
        if (other.inputs[i].value == NULL && !is_given(other.inputs[i].name))
            ok = err_set(e, ERR_INPUT,
                         "%.200s:%d: on_failure: %s needs the input %s; it is given name, run, "
                         "outcome and reason",
                         d->path, d->on_failure_line, d->on_failure, other.inputs[i].name);
    definition_close(&other);
    return ok;
}

// What it may call is there.
static bool check_tools(const struct definition *d, const struct workspace_config *c, struct err *e)
{
    struct err problem = {0};
    int line = 0;
    if (!tool_set_check_names(c, &d->tools, &problem))
        return err_set(e, problem.code, "%.200s:%d: tools: %.250s", d->path, d->tools_line,
                       problem.msg);
    if (tool_set_check_rules(c, &d->allow, &line, &problem)) return true;
    if (line == 0) line = d->allow.n > 0 ? d->allow.rules[0].line : 1;
    return err_set(e, problem.code, "%.200s:%d: allow: %.250s", d->path, line, problem.msg);
}

// A definition on its own, and what it says of tools and of others. c: NULL where the workspace's
// settings are broken.
static bool check_one(const char *dir, const char *name, const struct workspace_config *c,
                      struct err *e)
{
    struct definition d = {0};
    bool ok = definition_open(&d, dir, name, e) && (c == NULL || check_tools(&d, c, e)) &&
              (d.on_failure == NULL || check_on_failure(&d, dir, e));
    definition_close(&d);
    return ok;
}

static void add_problem(struct buf *problems, const char *msg, bool json)
{
    if (!json) {
        buf_printf(problems, "%s\n", msg);
        return;
    }
    if (problems->n > 0) buf_c(problems, ',');
    buf_json(problems, str_from(msg));
}

static size_t check_all(const char *dir, const char *const *names, size_t n,
                        const struct workspace_config *c, struct buf *problems, bool json)
{
    size_t n_wrong = 0;
    for (size_t i = 0; i < n; i++) {
        struct err problem = {0};
        if (check_one(dir, names[i], c, &problem)) continue;
        add_problem(problems, problem.msg, json);
        n_wrong++;
    }
    return n_wrong;
}

// Nothing is wrong with that, but who wrote a first chore will not have meant it.
static bool has_no_tool(const struct workspace_config *c)
{
    return c->exec.allow.n == 0 && c->files.read.n == 0 && c->http.allow.n == 0 &&
           c->mcp_file == NULL && c->tools.n == 0;
}

int cmd_check(int argc, char **argv)
{
    struct settings s;
    struct err e = {0};
    struct definition_names all = {0};
    struct workspace ws = {0};
    struct buf problems = {0};
    int code = 0;
    if (!parse(&s, "check",
               "check [flags] [NAME...]     validates submind.yaml, its MCP servers and "
               "subminds/*.md",
               argc, argv, &code))
        return code;
    if (!definition_list(&all, dir_of(&s), &e)) return cmd_fail("check", &e);
    bool well = workspace_open(&ws, dir_of(&s), &e) && tool_set_check(&ws.config, &e);
    if (!well) add_problem(&problems, e.msg, s.json);
    size_t n = s.n_args > 0 ? (size_t)s.n_args : all.n;
    const char *const *names = s.n_args > 0 ? s.args : (const char *const *)all.p;
    const struct workspace_config *config = well ? &ws.config : NULL;
    well = check_all(dir_of(&s), names, n, config, &problems, s.json) == 0 && well;
    if (s.json)
        printf("{\"definitions\":%zu,\"problems\":[%s]}\n", n, buf_cstr(&problems));
    else if (!well)
        fputs(buf_cstr(&problems), stdout);
    else
        printf("%zu definition%s, all well\n%s", n, n == 1 ? "" : "s",
               n > 0 && has_no_tool(config)
                   ? "no tools: submind.yaml allows none, so they can only talk; a first one:\n"
                     "  exec: {allow: [{run: [uptime, -p]}]}\n"
                   : "");
    buf_free(&problems);
    workspace_close(&ws);
    definition_names_free(&all);
    return well ? 0 : 2;
}

// ---- ls -------------------------------------------------------------------------------------

struct last {
    bool known;
    int64_t started_ms;
    char outcome[24];
};

static bool take_last(void *arg, const struct run_row *r)
{
    struct last *l = arg;
    struct str outcome =
        r->status.n > 0 && str_eq(r->outcome, STR("done")) ? r->status : r->outcome;
    l->known = true;
    l->started_ms = r->started_ms;
    snprintf(l->outcome, sizeof l->outcome, "%.*s", (int)outcome.n, outcome.p);
    return false;
}

// "in 12 min", "3 h ago"
static void ago_text(int64_t seconds, char *out, size_t size)
{
    static const struct {
        int64_t seconds;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    int64_t n = seconds < 0 ? -seconds : seconds;
    size_t i = 0;
    while (i < 3 && n < 2 * units[i].seconds) i++;
    long long count = (long long)((n + (i < 3 ? units[i].seconds / 2 : 0)) / units[i].seconds);
    if (seconds == 0)
        snprintf(out, size, "just now");
    else if (seconds < 0)
        snprintf(out, size, "%lld %s ago", count, units[i].name);
    else
        snprintf(out, size, "in %lld %s", count, units[i].name);
}

static void list_json(const struct definition *d, const struct last *l, int64_t next, bool first)
{
    struct buf b = {0};
    buf_printf(&b, "%s{\"name\":", first ? "" : ",\n ");
    buf_json(&b, str_from(d->name));
    buf_z(&b, ",\"description\":");
    buf_json(&b, str_from(d->description));
    buf_z(&b, ",\"schedule\":[");
    for (size_t i = 0; i < d->n_schedules; i++) {
        if (i > 0) buf_c(&b, ',');
        buf_json(&b, str_from(d->schedule_texts[i]));
    }
    buf_z(&b, "],\"next_run\":");
    buf_printf(&b, next >= 0 ? "%lld" : "null", (long long)next);
    buf_z(&b, ",\"last_outcome\":");
    if (l->known)
        buf_json(&b, str_from(l->outcome));
    else
        buf_z(&b, "null");
    buf_z(&b, ",\"last_started_ms\":");
    buf_printf(&b, l->known ? "%lld" : "null", (long long)l->started_ms);
    buf_c(&b, '}');
    fwrite(b.p, 1, b.n, stdout);
    buf_free(&b);
}

static void list_line(const struct definition *d, const struct last *l, int64_t next)
{
    char last[60] = "never ran", soon[40] = "-", when[30];
    if (l->known) {
        ago_text(l->started_ms / 1000 - clock_unix(), when, sizeof when);
        snprintf(last, sizeof last, "%s, %s", l->outcome, when);
    }
    if (next >= 0) ago_text(next - clock_unix(), soon, sizeof soon);
    printf("%-20s  %-24s  %-10s  %s\n", d->name, last, soon,
           d->description != NULL ? d->description : "");
}

static size_t list_all(const struct settings *s, const struct definition_names *names,
                       struct run_store *store, const char *workspace)
{
    size_t n_wrong = 0;
    if (s->json) putchar('[');
    for (size_t i = 0; i < names->n; i++) {
        struct definition d;
        struct last l = {0};
        struct err e = {0};
        if (!definition_open(&d, workspace, names->p[i], &e)) {
            fprintf(stderr, "submind ls: %s\n", e.msg);
            n_wrong++;
            continue;
        }
        struct run_filter f = {.name = d.name, .workspace = workspace, .limit = 1};
        if (store != NULL) run_history_list(store, &f, take_last, &l, &e);
        int64_t next = definition_next(&d, clock_unix());
        if (s->json)
            list_json(&d, &l, next, i == n_wrong);
        else
            list_line(&d, &l, next);
        definition_close(&d);
    }
    if (s->json) puts("]");
    return n_wrong;
}

int cmd_ls(int argc, char **argv)
{
    struct settings s;
    struct err e = {0}, no_store = {0};
    struct definition_names names = {0};
    struct run_store store = {0};
    struct buf dir = {0};
    int code = 0;
    if (!parse(&s, "ls", "ls [flags]     sub-minds with their last outcome and next run", argc,
               argv, &code))
        return code;
    char *workspace = realpath(dir_of(&s), NULL);
    if (workspace == NULL) {
        err_errno(&e, ERR_INPUT, "cannot find the workspace %.200s", dir_of(&s));
        return cmd_fail("ls", &e);
    }
    if (!definition_list(&names, workspace, &e)) {
        free(workspace);
        return cmd_fail("ls", &e);
    }
    bool keeps = place_state_dir(&s, &dir) && run_store_open(&store, buf_cstr(&dir), &no_store);
    if (names.n == 0 && !s.json)
        printf("no sub-minds in %s/subminds; submind new NAME writes one\n", workspace);
    else if (!s.json)
        printf("%-20s  %-24s  %-10s  %s\n", "SUB-MIND", "LAST RUN", "NEXT", "DESCRIPTION");
    size_t n_wrong = list_all(&s, &names, keeps ? &store : NULL, workspace);
    if (no_store.code != ERR_NONE) fprintf(stderr, "submind ls: %s\n", no_store.msg);
    run_store_close(&store);
    definition_names_free(&names);
    buf_free(&dir);
    free(workspace);
    return n_wrong == 0 ? 0 : 2;
}
