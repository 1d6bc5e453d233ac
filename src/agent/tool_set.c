// Built-in tools are a table in the order in which the model sees them. A call goes through the
// same gates whichever tool it is for; a tool's own code sees only arguments that fit its schema.
#include "agent/tool_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/exec_tool.h"
#include "agent/mcp.h"
#include "agent/mcp_lists.h"
#include "agent/notes_tool.h"
#include "agent/schema.h"
#include "agent/tool_text.h"
#include "base/clock.h"

enum { MAX_TOOLS = 512 };

struct entry {
    struct tool tool;
    json_t *schema; // what arguments are checked against
    void *owned;    // the row's arg where it is ours
};

struct tool_set {
    struct tool_set_spec spec;
    struct exec_tool exec;
    struct files_tool files;
    struct http_tool http;
    struct notes_tool notes;
    struct mcp_specs mcp;
    struct mcp_server *servers; // [mcp.n]
    struct mcp_place place;
    struct secrets secrets;
    struct words hide; // files of secrets: no command may read them
    struct entry *entries;
    size_t n;
};

// ---- the built-in tools ---------------------------------------------------------------------

static bool put_tool(struct tool_set *t, const struct tool *tool, struct err *e)
{
    json_error_t where;
    struct entry *list = realloc(t->entries, (t->n + 1) * sizeof *list);
    if (list == NULL) return err_set(e, ERR_MEMORY, "no memory for a tool");
    t->entries = list;
    if (t->n == MAX_TOOLS) return err_set(e, ERR_INPUT, "there are more than %d tools", MAX_TOOLS);
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(list[i].tool.name, tool->name) == 0)
            return err_set(e, ERR_INPUT, "two tools have the name %.100s", tool->name);
    const char *text = tool->accepts != NULL ? tool->accepts : tool->parameters;
    json_t *schema = json_loads(text, 0, &where);
    if (schema == NULL)
        return err_set(e, ERR_INPUT, "the parameters of the tool %.100s are no JSON: %.100s",
                       tool->name, where.text);
    list[t->n++] = (struct entry){*tool, schema, NULL};
    return true;
}

static bool open_exec(struct tool_set *t, struct err *e)
{
    struct tool tool;
    struct exec_setup setup = {.settings = &t->spec.config->exec,
                               .allow = t->spec.allow,
                               .sandbox = &t->spec.config->sandbox,
                               .secrets = &t->secrets,
                               .hide = &t->hide,
                               .environment = t->spec.environment,
                               .run_id = t->spec.run_id};
    return exec_tool_open(&t->exec, &setup, &tool, e) && put_tool(t, &tool, e);
}

static bool open_read(struct tool_set *t, struct err *e)
{
    t->files = (struct files_tool){&t->spec.config->files, &t->hide, t->spec.config->dir};
    struct tool tool = files_tool_read(&t->files);
    return put_tool(t, &tool, e);
}

static bool open_list(struct tool_set *t, struct err *e)
{
    t->files = (struct files_tool){&t->spec.config->files, &t->hide, t->spec.config->dir};
    struct tool tool = files_tool_list(&t->files);
    return put_tool(t, &tool, e);
}

static bool open_http(struct tool_set *t, struct err *e)
{
    t->http = (struct http_tool){&t->spec.config->http, &t->secrets};
    struct tool tool = http_tool_row(&t->http);
    return put_tool(t, &tool, e);
}

static bool open_remember(struct tool_set *t, struct err *e)
{
    t->notes.file = t->spec.notes_file;
    struct tool tool = notes_tool_row(&t->notes);
    return put_tool(t, &tool, e);
}

static bool open_report(struct tool_set *t, struct err *e)
{
    struct tool tool = report_tool_row();
    return put_tool(t, &tool, e);
}

static bool has_commands(const struct workspace_config *c)
{
    return c->exec.allow.n > 0;
}
static bool has_files(const struct workspace_config *c)
{
    return c->files.read.n > 0;
}
static bool has_hosts(const struct workspace_config *c)
{
    return c->http.allow.n > 0;
}

static const struct {
    const char *name;
    bool (*has_rules)(const struct workspace_config *c); // NULL: it needs none, only its name
    const char *needs;
    bool (*open)(struct tool_set *t, struct err *e);
} built_in[] = {
    {"exec", has_commands, "exec.allow", open_exec},
    {"read_file", has_files, "files.read", open_read},
    {"list_files", has_files, "files.read", open_list},
    {"http_get", has_hosts, "http.allow", open_http},
    {"remember", NULL, "", open_remember},
    {"report", NULL, "", open_report},
};

static bool is_named(const struct words *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++)
        if (allow_glob(names->p[i], name)) return true;
    return false;
}

// A tool that is asked for by its very name and cannot do anything is a mistake worth telling.
static bool check_name(const struct workspace_config *c, size_t i, struct err *e)
{
    const struct words *names = &c->tools;
    for (size_t k = 0; k < names->n; k++)
        if (strcmp(names->p[k], built_in[i].name) == 0)
            return err_set(e, ERR_INPUT,
                           "submind.yaml: tools names %s, but %s lists nothing that it may do",
                           built_in[i].name, built_in[i].needs);
    return true;
}

static bool open_built_in(struct tool_set *t, struct err *e)
{
    const struct workspace_config *c = t->spec.config;
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof built_in / sizeof built_in[0]; i++) {
        bool ready = built_in[i].has_rules == NULL || built_in[i].has_rules(c);
        bool wanted =
            c->tools.n > 0 ? is_named(&c->tools, built_in[i].name) : built_in[i].has_rules != NULL;
        if (wanted && ready) ok = built_in[i].open(t, e);
        if (wanted && !ready) ok = check_name(c, i, e);
    }
    return ok;
}

// ---- MCP servers ----------------------------------------------------------------------------

struct mcp_entry { // what a row of an MCP tool carries
    struct mcp_server *server;
    const struct mcp_tool *tool;
};

static bool run_mcp(void *arg, json_t *args, const struct tool_limits *limits,
                    struct tool_result *out, struct err *e)
{
    const struct mcp_entry *m = arg;
    (void)e;
    mcp_server_call(m->server, m->tool, args, limits, out);
    return true;
}

static bool is_offered(const struct tool_set *t, const char *name)
{
    const struct words *names = &t->spec.config->tools;
    return names->n == 0 || is_named(names, name);
}

static bool put_mcp_tools(struct tool_set *t, struct mcp_server *server, struct err *e)
{
    bool ok = true;
    for (size_t i = 0; ok && i < server->n_tools; i++) {
        struct mcp_tool *m = &server->tools[i];
        if (!is_offered(t, m->name)) continue;
        struct mcp_entry *entry = malloc(sizeof *entry);
        if (entry == NULL) return err_set(e, ERR_MEMORY, "no memory for a tool");
        *entry = (struct mcp_entry){server, m};
        struct tool tool = {.name = m->name,
                            .description = m->description,
                            .parameters = m->parameters,
                            .repeatable = m->repeatable,
                            .arg = entry,
                            .run = run_mcp};
        ok = put_tool(t, &tool, e);
        if (ok)
            t->entries[t->n - 1].owned = entry;
        else
            free(entry);
    }
    return ok;
}

// What an earlier run learned of it; s->listed stays NULL where that is nothing.
static bool take_known_list(struct mcp_server *s, struct err *e)
{
    json_t *listed = NULL;
    if (!mcp_list_load(&listed, s->place->lists_dir, s->spec, s->place)) return true;
    bool ok = mcp_server_take_list(s, listed, e);
    json_decref(listed);
    return ok;
}

static void tell_wait(const struct tool_set *t, const struct mcp_spec *server)
{
    struct buf what = {0};
    if (t->spec.on_wait == NULL) return;
    buf_printf(&what, "MCP %s starts, within %d s", server->name, MCP_START_MS / 1000);
    t->spec.on_wait(t->spec.wait_arg, buf_view(&what));
    buf_free(&what);
}

// Those whose tools are not known are all started before the first is waited for: their starts
// overlap. The others start when they are called.
static bool start_servers(struct tool_set *t, struct err *e)
{
    bool ok = true;
    for (size_t i = 0; ok && i < t->mcp.n; i++) {
        mcp_server_init(&t->servers[i], &t->mcp.list[i], &t->place);
        ok = take_known_list(&t->servers[i], e);
    }
    for (size_t i = 0; ok && i < t->mcp.n; i++)
        if (t->servers[i].listed == NULL) ok = mcp_server_start(&t->servers[i], e);
    for (size_t i = 0; ok && i < t->mcp.n; i++) {
        if (t->servers[i].listed == NULL) {
            tell_wait(t, &t->mcp.list[i]);
            ok = mcp_server_ready(&t->servers[i], t->spec.deadline_ns, t->spec.cancel, e);
        }
        ok = ok && put_mcp_tools(t, &t->servers[i], e);
    }
    return ok;
}

static bool open_mcp(struct tool_set *t, struct err *e)
{
    const struct workspace_config *c = t->spec.config;
    if (c->mcp_file == NULL) return true;
    t->place = (struct mcp_place){.sandbox = &c->sandbox,
                                  .secrets = &t->secrets,
                                  .hide = &t->hide,
                                  .environment = t->spec.environment,
                                  .dir = c->dir,
                                  .lists_dir = t->spec.lists_dir,
                                  .output_bytes = c->exec.output_bytes};
    if (!mcp_config_read(&t->mcp, c->mcp_file, c->dir, e)) return false;
    t->servers = calloc(t->mcp.n + 1, sizeof *t->servers);
    return (t->servers != NULL || err_set(e, ERR_MEMORY, "no memory for MCP servers")) &&
           start_servers(t, e);
}

// ---- the set --------------------------------------------------------------------------------

static bool put_hidden(struct tool_set *t, struct err *e)
{
    const char *key = t->spec.config->key_file;
    bool ok = key == NULL || words_put(&t->hide, str_from(key), e);
    for (size_t i = 0; ok && i < t->secrets.n; i++)
        if (t->secrets.list[i].path != NULL)
            ok = words_put(&t->hide, str_from(t->secrets.list[i].path), e);
    return ok;
}

// False: a rule names a secret that is not there; *line is the rule's.
static bool check_rule_secrets(const struct allow_list *allow, const struct secrets *s, int *line,
                               struct err *e)
{
    for (size_t i = 0; i < allow->n; i++) {
        const struct allow_rule *rule = &allow->rules[i];
        *line = rule->line;
        for (size_t k = 0; k < rule->secrets.n; k++)
            if (secrets_find(s, str_from(rule->secrets.p[k]), e) == NULL) return false;
    }
    return true;
}

// A credential is there only when systemd starts the run: then nothing can be said here.
static bool check_secrets(const struct workspace_config *c, const struct allow_list *allow,
                          int *line, struct err *e)
{
    static const char *const none[] = {NULL};
    struct secrets secrets = {0};
    bool credentials = false;
    *line = 0;
    for (size_t i = 0; i < c->secrets.n; i++) credentials |= c->secrets.list[i].credential != NULL;
    bool ok = secrets_open(&secrets, &c->secrets, none, e) &&
              (credentials || check_rule_secrets(allow, &secrets, line, e));
    secrets_close(&secrets);
    return ok;
}

bool tool_set_check(const struct workspace_config *c, struct err *e)
{
    struct mcp_specs mcp = {0};
    struct err problem = {0};
    int line;
    bool ok = c->mcp_file == NULL || mcp_config_read(&mcp, c->mcp_file, c->dir, e);
    for (size_t i = 0; ok && i < sizeof built_in / sizeof built_in[0]; i++)
        if (built_in[i].has_rules != NULL && !built_in[i].has_rules(c)) ok = check_name(c, i, e);
    mcp_specs_free(&mcp);
    if (!ok || check_secrets(c, &c->exec.allow, &line, &problem)) return ok;
    if (line == 0) return err_set(e, problem.code, "%s", problem.msg);
    return err_set(e, problem.code, "submind.yaml:%d: exec.allow: %s", line, problem.msg);
}

static bool is_of_server(const struct mcp_specs *mcp, struct str name)
{
    for (size_t i = 0; i < mcp->n; i++) {
        struct str server = str_from(mcp->list[i].name);
        if (str_starts(name, server) && str_starts(str_sub(name, server.n, SIZE_MAX), STR("__")))
            return true;
    }
    return false;
}

static bool is_offered_name(const struct workspace_config *c, size_t i_built_in, struct err *e)
{
    const char *name = built_in[i_built_in].name;
    if (built_in[i_built_in].has_rules == NULL || built_in[i_built_in].has_rules(c)) return true;
    return err_set(e, ERR_INPUT, "%s is not offered: %s of submind.yaml lists nothing", name,
                   built_in[i_built_in].needs);
}

static bool check_one_name(const struct workspace_config *c, const struct mcp_specs *mcp,
                           const char *name, struct err *e)
{
    struct buf list = {0};
    bool known = is_of_server(mcp, str_from(name)), ok = true;
    for (size_t i = 0; i < sizeof built_in / sizeof built_in[0]; i++) {
        buf_printf(&list, "%s%s", i > 0 ? ", " : "", built_in[i].name);
        if (strcmp(built_in[i].name, name) != 0) continue;
        known = true;
        ok = is_offered_name(c, i, e);
    }
    for (size_t i = 0; i < mcp->n; i++) buf_printf(&list, ", %s__*", mcp->list[i].name);
    if (!known)
        ok = err_set(e, ERR_INPUT, "there is no tool \"%.60s\"; there is: %.400s", name,
                     buf_cstr(&list));
    if (ok && c->tools.n > 0 && !is_named(&c->tools, name))
        ok = err_set(e, ERR_INPUT, "%.60s is not offered: \"tools\" of submind.yaml leaves it out",
                     name);
    buf_free(&list);
    return ok;
}

bool tool_set_check_names(const struct workspace_config *c, const struct words *tools,
                          struct err *e)
{
    struct mcp_specs mcp = {0};
    bool ok = c->mcp_file == NULL || mcp_config_read(&mcp, c->mcp_file, c->dir, e);
    for (size_t i = 0; ok && i < tools->n;
         i++) // a pattern may stand for what a server has tomorrow
        ok = strpbrk(tools->p[i], "*?") != NULL || check_one_name(c, &mcp, tools->p[i], e);
    mcp_specs_free(&mcp);
    return ok;
}

bool tool_set_check_rules(const struct workspace_config *c, const struct allow_list *allow,
                          int *line, struct err *e)
{
    *line = 0;
    if (allow->n > 0 && !has_commands(c))
        return err_set(e, ERR_INPUT,
                       "no run is offered exec, because exec.allow of submind.yaml lists nothing");
    return check_secrets(c, allow, line, e);
}

bool tool_set_open(struct tool_set **out, const struct tool_set_spec *spec, struct err *e)
{
    struct tool_set *t = calloc(1, sizeof *t);
    bool ok = t != NULL || err_set(e, ERR_MEMORY, "no memory for the tools");
    if (ok) t->spec = *spec;
    ok = ok && secrets_open(&t->secrets, &spec->config->secrets, spec->environment, e) &&
         put_hidden(t, e);
    ok = ok && open_built_in(t, e) && open_mcp(t, e);
    if (!ok && t != NULL && e != NULL) redact_line(&t->secrets.redactor, e->msg, sizeof e->msg);
    if (ok)
        *out = t;
    else
        tool_set_close(t);
    return ok;
}

void tool_set_close(struct tool_set *t)
{
    if (t == NULL) return;
    for (size_t i = 0; i < t->n; i++) {
        json_decref(t->entries[i].schema);
        free(t->entries[i].owned);
    }
    for (size_t i = 0; t->servers != NULL && i < t->mcp.n; i++) mcp_server_close(&t->servers[i]);
    free(t->servers);
    mcp_specs_free(&t->mcp);
    free(t->entries);
    exec_tool_close(&t->exec);
    secrets_close(&t->secrets);
    words_free(&t->hide);
    free(t);
}

size_t tool_set_count(const struct tool_set *t)
{
    return t != NULL ? t->n : 0;
}

const struct redactor *tool_set_redactor(const struct tool_set *t)
{
    return t != NULL ? &t->secrets.redactor : NULL;
}

void tool_set_json(const struct tool_set *t, struct buf *out)
{
    buf_c(out, '[');
    for (size_t i = 0; i < tool_set_count(t); i++) {
        const struct tool *tool = &t->entries[i].tool;
        buf_z(out, i > 0 ? ",{\"type\":\"function\",\"function\":{\"name\":"
                         : "{\"type\":\"function\",\"function\":{\"name\":");
        buf_json(out, str_from(tool->name));
        buf_z(out, ",\"description\":");
        buf_json(out, str_from(tool->description));
        buf_printf(out, ",\"parameters\":%s}}", tool->parameters);
    }
    buf_c(out, ']');
}

// ---- a call ---------------------------------------------------------------------------------

static struct entry *find(struct tool_set *t, struct str name)
{
    for (size_t i = 0; i < tool_set_count(t); i++)
        if (str_eq(str_from(t->entries[i].tool.name), name)) return &t->entries[i];
    return NULL;
}

static bool may_call(const struct tool_set *t, const char *name)
{
    return t->spec.tools == NULL || is_named(t->spec.tools, name);
}

static void refuse_unknown(struct tool_set *t, struct str name, struct tool_result *r)
{
    struct buf list = {0};
    for (size_t i = 0; i < tool_set_count(t); i++)
        if (may_call(t, t->entries[i].tool.name)) buf_printf(&list, " %s", t->entries[i].tool.name);
    tool_refuse(r, "there is no tool \"%.*s\"; there is:%.600s", (int)(name.n < 60 ? name.n : 60),
                name.p, list.n > 0 ? buf_cstr(&list) : " none");
    buf_free(&list);
}

// The arguments as an object that fits the schema, or NULL with the refusal in r.
static json_t *read_arguments(const struct entry *entry, struct str text, struct tool_result *r)
{
    json_error_t where;
    struct buf why = {0};
    text = str_trim(text);
    json_t *args = text.n > 0 ? json_loadb(text.p, text.n, JSON_ALLOW_NUL, &where) : json_object();
    bool ok = json_is_object(args);
    if (!ok) {
        tool_refuse(r, "the arguments are no JSON object%s%.100s", args == NULL ? ": " : "",
                    args == NULL ? where.text : "");
    } else if (!schema_check(entry->schema, args, &why)) {
        ok = false;
        tool_refuse(r, "%.100s was not called: %.700s", entry->tool.name, buf_cstr(&why));
    }
    buf_free(&why);
    if (ok) return args;
    json_decref(args);
    return NULL;
}

// Whatever a tool gave: data, without secrets. Detail and log are for the record only.
static void make_harmless(const struct tool_set *t, struct tool_result *r)
{
    struct buf *const texts[] = {&r->text, &r->detail, &r->log, &r->data};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        redact_text(tool_set_redactor(t), texts[i]);
    tool_text_defuse(&r->text);
}

bool tool_set_call(struct tool_set *t, struct str name, struct str arguments,
                   const struct tool_limits *limits, struct tool_result *out, struct err *e)
{
    struct tool_result r = {0};
    struct entry *entry = find(t, name);
    uint64_t start_ns = clock_ns();
    bool ok = true;
    if (entry == NULL) {
        refuse_unknown(t, name, &r);
    } else if (!may_call(t, entry->tool.name)) {
        tool_refuse(&r, "this sub-mind may not use the tool %.100s", entry->tool.name);
    } else {
        json_t *args = read_arguments(entry, arguments, &r);
        if (args != NULL) ok = entry->tool.run(entry->tool.arg, args, limits, &r, e);
        json_decref(args);
    }
    r.repeatable |= r.refused || entry->tool.repeatable; // refused: nothing ran
    make_harmless(t, &r);
    if (r.ms == 0) r.ms = clock_ms_since(start_ns);
    if (ok && (r.text.failed || r.detail.failed || r.log.failed || r.data.failed))
        ok = err_set(e, ERR_MEMORY, "no memory for a tool's result");
    if (ok)
        *out = r;
    else
        tool_result_free(&r);
    return ok;
}
