// From the model's arguments to a process and back to text. The order is what keeps it safe: split,
// check against the rules, run exactly what was checked. The child's environment is a fixed list of
// names, so that a key in ours never reaches it unless the workspace says so.
#include "agent/exec_tool.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tool_env.h"
#include "agent/tool_text.h"
#include "base/process.h"

enum { DESCRIPTION_RULES_BYTES = 2000 };

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

// What is going to run, by which rule.
struct command {
    struct words argv;
    const struct allow_rule *rule;
};

static bool take_shell(struct command *c, const struct allow_list *rules, struct str line,
                       struct err *e)
{
    size_t i = allow_find_shell(rules, line);
    if (i == SIZE_MAX) return false;
    words_free(&c->argv);
    c->rule = &rules->rules[i];
    return words_put(&c->argv, STR("/bin/sh"), e) && words_put(&c->argv, STR("-c"), e) &&
           words_put(&c->argv, str_trim(line), e);
}

// A line that needs a shell and is none of those that may have one.
static bool refuse_line(const struct allow_list *rules, const struct err *problem, struct err *e)
{
    struct buf lines = {0};
    for (size_t i = 0; i < rules->n && lines.n < 240; i++)
        if (rules->rules[i].shell != NULL)
            buf_printf(&lines, "%s%s", lines.n > 0 ? "; " : "", rules->rules[i].shell);
    if (problem->code == ERR_DENIED && lines.n > 0)
        err_set(e, problem->code, "%.200s (allowed as they stand: %.280s)", problem->msg,
                buf_cstr(&lines));
    else
        err_set(e, problem->code, "%s", problem->msg);
    buf_free(&lines);
    return false;
}

// Splits and finds the rule. False: e says why nothing may run; argv may hold what was asked for.
static bool read_command(struct command *c, const struct allow_list *rules, json_t *args,
                         struct err *e)
{
    struct err problem = {0};
    json_t *command = json_object_get(args, "command");
    struct str line = {json_string_value(command), json_string_length(command)};
    if (!json_is_string(command) && !json_is_array(command))
        return err_set(
            e, ERR_INPUT,
            "exec needs \"command\": the command line as a string, or an array of words");
    bool ok = json_is_string(command) ? words_split(&c->argv, line, &problem)
                                      : words_from_array(&c->argv, command, &problem);
    size_t i = ok ? allow_find(rules, &c->argv) : SIZE_MAX;
    if (i != SIZE_MAX) {
        c->rule = &rules->rules[i];
        return true;
    }
    if (json_is_string(command) && take_shell(c, rules, line, e)) return true;
    if (ok) return allow_refuse(rules, &c->argv, e);
    return refuse_line(rules, &problem, e);
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
    if (p->n_left > 0) buf_z(&out->text, "\n[a process that it started could not be ended]");
}

// ---- the tool -------------------------------------------------------------------------------

static bool make_environment(const struct exec_tool *x, const struct allow_rule *rule,
                             const char *path, struct words *env, struct err *e)
{
    const struct words *names = &rule->secrets;
    bool ok = tool_env_make(x->s.environment, &x->s.settings->env, path, env, e) &&
              tool_env_put(env, "SUBMIND_RUN", x->s.run_id, e);
    if (ok && x->s.sandbox->mode != SANDBOX_OFF && !rule->no_sandbox)
        ok = tool_env_put(env, "TMPDIR", "/tmp", e);
    for (size_t i = 0; ok && i < names->n; i++) {
        struct buf value = {0};
        const struct buf *secret = secrets_find(x->s.secrets, str_from(names->p[i]), e);
        if (secret != NULL) buf_str(&value, buf_view(secret));
        ok = secret != NULL && tool_env_put(env, names->p[i], buf_cstr(&value), e);
        if (value.p != NULL) explicit_bzero(value.p, value.n);
        buf_free(&value);
    }
    return ok;
}

// The sandbox stands in front; what it runs is the program as the rules know it.
static bool make_argv(const struct exec_tool *x, const struct command *c, const char *path,
                      struct words *argv, struct err *e)
{
    struct buf program = {0};
    struct words named = {0};
    struct sandbox_ask ask = {.settings = x->s.sandbox,
                              .write = &c->rule->write,
                              .hide = x->s.hide,
                              .named = &named,
                              .environment = x->s.environment,
                              .dir = x->s.settings->dir != NULL ? x->s.settings->dir : "/",
                              .network = c->rule->network,
                              .off = c->rule->no_sandbox};
    bool ok = process_find(&program, c->argv.p[0], path, e) &&
              words_put(&named, buf_view(&program), e) && sandbox_prefix(&ask, argv, e) &&
              words_put(argv, argv->n > 0 ? buf_view(&program) : str_from(c->argv.p[0]), e);
    for (size_t i = 1; ok && i < c->argv.n; i++) ok = words_put(argv, str_from(c->argv.p[i]), e);
    words_free(&named);
    buf_free(&program);
    return ok;
}

static void run_process(const struct exec_tool *x, const struct words *argv,
                        const struct words *env, const char *path, const struct tool_limits *limits,
                        struct tool_result *out)
{
    struct process_result result;
    struct err problem = {0};
    const struct redactor *redactor = &x->s.secrets->redactor;
    uint32_t timeout_ms = x->s.settings->timeout_s * 1000;
    if (limits->timeout_ms != 0 && limits->timeout_ms < timeout_ms) timeout_ms = limits->timeout_ms;
    struct process_spec spec = {.argv = (const char *const *)argv->p,
                                .env = (const char *const *)env->p,
                                .path = path,
                                .dir = x->s.settings->dir,
                                .timeout_ms = timeout_ms,
                                .keep_bytes = x->s.settings->output_bytes,
                                .cancel = limits->cancel,
                                .limits = {.memory_bytes = x->s.sandbox->memory_bytes,
                                           .file_bytes = x->s.sandbox->file_bytes,
                                           .n_files = x->s.sandbox->n_files,
                                           .n_processes = x->s.sandbox->n_processes}};
    if (!process_run(&spec, &result, &problem)) {
        tool_fail(out, "%s", problem.msg); // the rules let it pass; the system did not
        return;
    }
    redact_cut(redactor, &result.head, false, result.dropped_bytes > 0);
    redact_cut(redactor, &result.tail, result.dropped_bytes > 0, false);
    describe(&result, limits, timeout_ms, out);
    process_result_free(&result);
}

static bool exec_run(void *arg, json_t *args, const struct tool_limits *limits,
                     struct tool_result *out, struct err *e)
{
    struct exec_tool *x = arg;
    struct command c = {0};
    struct words env = {0}, argv = {0};
    struct buf path = {0};
    struct err problem = {0};
    tool_env_path(x->s.environment, &x->s.settings->path, &path);
    bool may = read_command(&c, x->s.allow, args, &problem);
    if (c.argv.n > 0)
        words_print(&c.argv, &out->detail);
    else if (json_is_string(json_object_get(args, "command"))) // for the record of what was asked
        buf_z(&out->detail, json_string_value(json_object_get(args, "command")));
    bool ready = may && make_argv(x, &c, buf_cstr(&path), &argv, &problem) &&
                 make_environment(x, c.rule, buf_cstr(&path), &env, &problem);
    out->repeatable = may && c.rule->repeat;
    if (ready)
        run_process(x, &argv, &env, buf_cstr(&path), limits, out);
    else if (problem.code == ERR_DENIED || problem.code == ERR_INPUT)
        tool_refuse(out, "%s", problem.msg);
    else if (problem.code != ERR_MEMORY)
        tool_fail(out, "%s", problem.msg);
    for (size_t i = 0; i < env.n; i++) explicit_bzero(env.p[i], strlen(env.p[i]));
    words_free(&c.argv);
    words_free(&argv);
    words_free(&env);
    buf_free(&path);
    return problem.code != ERR_MEMORY || err_set(e, problem.code, "%s", problem.msg);
}

bool exec_tool_open(struct exec_tool *x, const struct exec_setup *s, struct tool *tool,
                    struct err *e)
{
    const struct allow_list *shown = &s->settings->allow;
    struct exec_tool new = {.s = *s};
    if (new.s.allow == NULL) new.s.allow = shown;
    buf_z(
        &new.description,
        "Run one command on this machine and return its exit code and output. No shell: no pipes, "
        "no redirection. Allowed: ");
    for (size_t i = 0; i < shown->n && new.description.n < DESCRIPTION_RULES_BYTES; i++) {
        if (i > 0) buf_z(&new.description, "; ");
        allow_rule_print(&shown->rules[i], &new.description);
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
