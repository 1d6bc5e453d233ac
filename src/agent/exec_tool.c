// From the model's arguments to a process and back to text. The order is what keeps it safe: split,
// check against the rules, run exactly what was checked. The child's environment is a fixed list of
// names, so that a key in ours never reaches it unless the workspace says so.
#include "agent/exec_tool.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tool_text.h"
#include "base/clock.h"
#include "base/process.h"

enum { DESCRIPTION_RULES_BYTES = 2000 };

// ---- environment ----------------------------------------------------------------------------

static const char *const usual_names[] = {
    "HOME",     "USER", "LOGNAME", "LANG", "TZ", "LC_ALL", "XDG_RUNTIME_DIR",
    "LC_CTYPE", "TERM", "TMPDIR",  "SHELL"};

static const char *find_variable(const char *const *environment, const char *name)
{
    size_t n = strlen(name);
    for (; environment != NULL && *environment != NULL; environment++)
        if (strncmp(*environment, name, n) == 0 && (*environment)[n] == '=')
            return *environment + n + 1;
    return NULL;
}

static bool put_variable(struct words *env, const char *name, const char *value, struct err *e)
{
    struct buf entry = {0};
    if (value == NULL) return true;
    buf_printf(&entry, "%s=%s", name, value);
    bool ok = entry.failed ? err_set(e, ERR_MEMORY, "no memory for the environment")
                           : words_put(env, buf_view(&entry), e);
    buf_free(&entry);
    return ok;
}

static void put_path(const struct exec_tool *x, struct buf *out)
{
    const struct words *extra = &x->settings->path;
    const char *ours = find_variable(x->environment, "PATH");
    for (size_t i = 0; i < extra->n; i++) buf_printf(out, "%s:", extra->p[i]);
    buf_z(out, ours != NULL && *ours != '\0' ? ours : "/usr/local/bin:/usr/bin:/bin");
}

static bool make_environment(const struct exec_tool *x, const char *path, struct words *env,
                             struct err *e)
{
    bool ok = put_variable(env, "SUBMIND_RUN", x->run_id, e) && put_variable(env, "PATH", path, e);
    for (size_t i = 0; ok && i < sizeof usual_names / sizeof usual_names[0]; i++)
        ok = put_variable(env, usual_names[i], find_variable(x->environment, usual_names[i]), e);
    for (size_t i = 0; ok && i < x->settings->env.n; i++) {
        const char *name = x->settings->env.p[i];
        ok = put_variable(env, name, find_variable(x->environment, name), e);
    }
    return ok;
}

// ---- arguments ------------------------------------------------------------------------------

static bool words_from_array(struct words *out, json_t *list, struct err *e)
{
    struct words w = {0};
    size_t i;
    json_t *item;
    bool ok = json_array_size(list) > 0 || err_set(e, ERR_INPUT, "the command is empty");
    json_array_foreach(list, i, item)
    {
        if (ok && !json_is_string(item))
            ok = err_set(e, ERR_INPUT, "command[%zu] must be a string", i);
        if (ok)
            ok = words_put(&w, (struct str){json_string_value(item), json_string_length(item)}, e);
    }
    if (ok)
        *out = w;
    else
        words_free(&w);
    return ok;
}

static bool read_command(struct words *out, json_t *args, struct err *e)
{
    json_t *command = json_object_get(args, "command");
    if (json_is_string(command))
        return words_split(
            out, (struct str){json_string_value(command), json_string_length(command)}, e);
    if (json_is_array(command)) return words_from_array(out, command, e);
    return err_set(e, ERR_INPUT,
                   "exec needs \"command\": the command line as a string, or an array of words");
}

// ---- results --------------------------------------------------------------------------------

static void put_output(struct buf *out, const struct process_result *p)
{
    uint64_t total = p->head.n + p->tail.n + p->dropped_bytes;
    if (tool_text_is_binary(buf_view(&p->head))) {
        buf_printf(out, "[%llu bytes of binary output]", (unsigned long long)total);
        return;
    }
    tool_text_put(out, buf_view(&p->head));
    if (p->dropped_bytes > 0) {
        tool_text_trim_end(out);
        buf_printf(out, "\n[... %llu of %llu bytes left out ...]\n",
                   (unsigned long long)p->dropped_bytes, (unsigned long long)total);
        tool_text_put(out, buf_view(&p->tail));
    }
    tool_text_trim_end(out);
}

// The forms are short on purpose: small models read them as well as large ones.
static void describe(const struct process_result *p, const struct tool_limits *limits,
                     uint32_t timeout_ms, struct tool_result *out)
{
    out->ms = p->ms;
    out->n_strays = p->n_strays;
    out->could_not_run = p->end != PROCESS_EXITED;
    out->failed = out->could_not_run || p->code != 0;
    out->has_exit_code = p->end == PROCESS_EXITED;
    out->exit_code = out->has_exit_code ? p->code : 0;
    switch (p->end) {
    case PROCESS_EXITED: buf_printf(&out->text, "exit code: %d\n", p->code); break;
    case PROCESS_SIGNALLED:
        buf_printf(&out->text, "Error: killed by signal %d (%s)\n", p->code, strsignal(p->code));
        break;
    case PROCESS_TIMED_OUT:
        if (limits->timeout_ms != 0 && timeout_ms == limits->timeout_ms)
            buf_z(&out->text, "Error: the run's deadline was reached\n");
        else
            buf_printf(&out->text, "Error: timed out after %g s\n", timeout_ms / 1000.0);
        break;
    case PROCESS_CANCELLED: buf_z(&out->text, "Error: cancelled\n"); break;
    }
    put_output(&out->text, p);
    tool_text_trim_end(&out->text);
}

static void complain(const struct err *problem, struct tool_result *out)
{
    out->failed = true;
    out->refused = problem->code == ERR_DENIED || problem->code == ERR_INPUT;
    out->could_not_run = true;
    buf_printf(&out->text, "Error: %s", problem->msg);
}

// ---- the tool -------------------------------------------------------------------------------

static bool start(struct exec_tool *x, const struct words *command,
                  const struct tool_limits *limits, struct tool_result *out, struct err *e)
{
    struct words env = {0};
    struct buf path = {0};
    struct process_result result;
    struct err problem = {0};
    uint32_t timeout_ms = x->settings->timeout_s * 1000;
    if (limits->timeout_ms != 0 && limits->timeout_ms < timeout_ms) timeout_ms = limits->timeout_ms;
    put_path(x, &path);
    bool ok = make_environment(x, buf_cstr(&path), &env, e);
    if (ok) {
        struct process_spec spec = {.argv = (const char *const *)command->p,
                                    .env = (const char *const *)env.p,
                                    .path = buf_cstr(&path),
                                    .dir = x->settings->dir,
                                    .timeout_ms = timeout_ms,
                                    .keep_bytes = x->settings->output_bytes,
                                    .cancel = limits->cancel};
        if (process_run(&spec, &result, &problem)) {
            describe(&result, limits, timeout_ms, out);
            process_result_free(&result);
        } else {
            complain(&problem, out);
            out->refused = false; // the rules let it pass; the system did not
        }
    }
    words_free(&env);
    buf_free(&path);
    return ok;
}

static bool exec_run(void *arg, json_t *args, const struct tool_limits *limits,
                     struct tool_result *out, struct err *e)
{
    struct exec_tool *x = arg;
    struct tool_result r = {0};
    struct words command = {0};
    struct err problem = {0};
    bool ok = true;
    if (!read_command(&command, args, &problem)) {
        complain(&problem, &r);
    } else {
        words_print(&command, &r.detail);
        if (allow_find(x->allow, &command) == SIZE_MAX) {
            allow_refuse(x->allow, &command, &problem);
            complain(&problem, &r);
        } else {
            ok = start(x, &command, limits, &r, e);
        }
    }
    words_free(&command);
    if (ok && (r.text.failed || r.detail.failed))
        ok = err_set(e, ERR_MEMORY, "no memory for a tool's result");
    if (ok)
        *out = r;
    else
        tool_result_free(&r);
    return ok;
}

bool exec_tool_open(struct exec_tool *x, const struct exec_settings *s,
                    const struct allow_list *allow, const char *const *environment,
                    const char *run_id, struct tool *tool, struct err *e)
{
    struct exec_tool new = {.settings = s,
                            .allow = allow != NULL ? allow : &s->allow,
                            .environment = environment,
                            .run_id = run_id};
    buf_z(
        &new.description,
        "Run one command on this machine and return its exit code and output. No shell: no pipes, "
        "no redirection. Allowed: ");
    for (size_t i = 0; i < s->allow.n && new.description.n < DESCRIPTION_RULES_BYTES; i++) {
        if (i > 0) buf_z(&new.description, "; ");
        words_print(&s->allow.rules[i].patterns, &new.description);
    }
    buf_c(&new.description, '.');
    const char *description = buf_cstr(&new.description);
    if (new.description.failed) {
        buf_free(&new.description);
        return err_set(e, ERR_MEMORY, "no memory for a tool");
    }
    *x = new;
    *tool = (struct tool){
        .name = "exec",
        .description = description,
        .parameters = "{\"type\":\"object\",\"properties\":{\"command\":{\"type\":\"string\","
                      "\"description\":\"The command line to run.\"}},\"required\":[\"command\"]}",
        .accepts = "{\"properties\":{\"command\":{\"type\":[\"string\",\"array\"],\"items\":{"
                   "\"type\":\"string\"}}},\"required\":[\"command\"]}",
        .arg = x,
        .run = exec_run,
    };
    return true;
}

void exec_tool_close(struct exec_tool *x)
{
    buf_free(&x->description);
    *x = (struct exec_tool){0};
}

void exec_settings_free(struct exec_settings *s)
{
    allow_free(&s->allow);
    words_free(&s->path);
    words_free(&s->env);
    free(s->dir);
    *s = (struct exec_settings){0};
}
