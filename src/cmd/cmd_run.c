// submind run: settings, workspace, server, one run, its report. What a run does stands in agent/.
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/private_server.h"
#include "agent/tool_set.h"
#include "agent/turns.h"
#include "agent/workspace.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rundir.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/run_display.h"

enum { MAX_KEY_BYTES = 16384, MAX_TASK_BYTES = 1 << 20, MAX_SERVER_ARGS = 16 };

struct run_command {
    struct settings s;
    struct workspace ws;
    struct tool_set *tools;
    struct run_display display;
    struct buf task, key, runtime_dir, model;
    const char *server_args[MAX_SERVER_ARGS];
    char numbers[4][24]; // texts of server_args
    struct server_wish wish;
    struct http_client *server, *second;
    bool is_private;
    char id[40];
};

static atomic_int cancelled; // lock-free, so that the handler may set it

static void on_signal(int number)
{
    (void)number;
    atomic_store(&cancelled, 1);
}

// The first Ctrl-C ends the run cleanly; a second one ends the process.
static void catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGHUP, &a, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

// ---- settings -------------------------------------------------------------------------------

// XDG_RUNTIME_DIR is the system's, no setting of ours, and the environment is handed on anyway.
static const char *runtime_dir_of(char *const *environment)
{
    static const char name[] = "XDG_RUNTIME_DIR=";
    for (; *environment != NULL; environment++)
        if (strncmp(*environment, name, sizeof name - 1) == 0)
            return *environment + sizeof name - 1;
    return NULL;
}

static bool read_task(struct run_command *r, struct err *e)
{
    if (r->s.n_args != 1)
        return err_set(e, ERR_INPUT,
                       r->s.n_args == 0 ? "a task is needed: submind run \"check service nginx\""
                                        : "one task is taken; put it in quotes");
    if (strcmp(r->s.args[0], "-") == 0) {
        if (!file_read(&r->task, "-", MAX_TASK_BYTES, e)) return false;
    } else {
        buf_z(&r->task, r->s.args[0]);
    }
    if (str_trim(buf_view(&r->task)).n == 0) return err_set(e, ERR_INPUT, "the task is empty");
    return true;
}

static bool read_thinking(struct run_command *r, struct err *e)
{
    const char *mode = r->s.thinking;
    if (mode == NULL) return true;
    if (strcmp(mode, "on") == 0)
        r->ws.config.thinking = 1;
    else if (strcmp(mode, "off") == 0)
        r->ws.config.thinking = 0;
    else if (strcmp(mode, "auto") == 0)
        r->ws.config.thinking = -1;
    else
        return err_set(e, ERR_INPUT, "--thinking takes on, off or auto, not \"%.40s\"", mode);
    return true;
}

// Flags win over submind.yaml.
static bool merge_settings(struct run_command *r, struct err *e)
{
    struct workspace_config *c = &r->ws.config;
    const struct settings *s = &r->s;
    if (s->given.timeout) c->timeout_s = s->timeout;
    if (s->given.max_turns && s->max_turns > 0) c->max_turns = s->max_turns;
    if (s->given.max_tokens && s->max_tokens > 0) c->max_tokens = s->max_tokens;
    if (s->given.temperature) {
        c->temperature = s->temperature;
        c->has_temperature = true;
    }
    const char *key_file = s->key_file != NULL ? s->key_file : c->key_file;
    if (key_file != NULL && !file_read(&r->key, key_file, MAX_KEY_BYTES, e))
        return err_prefix(e, "the server's key: ");
    struct str key = str_trim(buf_view(&r->key));
    memmove(r->key.p, key.p, key.n);
    r->key.n = key.n;
    if (memchr(buf_cstr(&r->key), '\n', r->key.n) != NULL)
        return err_set(e, ERR_INPUT, "%.200s holds more than one line", key_file);
    return read_thinking(r, e);
}

// The private server's flags: those that decide what it serves.
static bool make_server_args(struct run_command *r, struct err *e)
{
    const struct settings *s = &r->s;
    const char *model = s->model != NULL ? s->model : r->ws.config.model_file;
    const struct {
        const char *flag, *text;
        bool given;
        unsigned long long number;
    } flags[] = {
        {"--device", s->device, s->device != NULL, 0},
        {"--kv-type", s->kv_type, s->kv_type != NULL, 0},
        {"--threads", NULL, s->given.threads, s->threads},
        {"--ctx", NULL, s->given.ctx, s->ctx},
        {"--kv-memory", NULL, s->given.kv_memory, s->kv_memory},
    };
    size_t n = 0, n_numbers = 0;
    if (model != NULL) {
        char *path = realpath(model, NULL);
        if (path == NULL) return err_errno(e, ERR_INPUT, "cannot find the model %.300s", model);
        buf_z(&r->model, path);
        free(path);
        r->server_args[n++] = "--model";
        r->server_args[n++] = buf_cstr(&r->model);
        r->wish.private_only = true;
    }
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (!flags[i].given) continue;
        char *number = r->numbers[n_numbers];
        if (flags[i].text == NULL) {
            snprintf(number, sizeof r->numbers[0], "%llu", flags[i].number);
            n_numbers++;
        }
        r->server_args[n++] = flags[i].flag;
        r->server_args[n++] = flags[i].text != NULL ? flags[i].text : number;
    }
    r->server_args[n] = NULL;
    return true;
}

static bool make_wish(struct run_command *r, uint64_t deadline_ns, struct err *e)
{
    struct server_wish *w = &r->wish;
    w->url = r->s.server != NULL ? r->s.server : r->ws.config.server_url;
    if (w->url != NULL && !http_client_check_url(w->url, e)) return false;
    w->key = r->key.n > 0 ? buf_cstr(&r->key) : NULL;
    if (r->s.runtime_dir != NULL)
        buf_z(&r->runtime_dir, r->s.runtime_dir);
    else
        rundir_default(runtime_dir_of(environ), &r->runtime_dir);
    w->runtime_dir = buf_cstr(&r->runtime_dir);
    w->environment = (const char *const *)environ;
    w->idle_exit_s = r->s.idle_exit;
    w->deadline_ns = deadline_ns;
    w->cancel = &cancelled;
    w->on_wait = run_display_wait;
    w->arg = &r->display;
    w->args = r->server_args;
    return make_server_args(r, e);
}

// ---- the run --------------------------------------------------------------------------------

// A private server may have gone idle between two runs; then a second one is started.
static struct http_client *find_again(void *arg, struct err *e)
{
    struct run_command *r = arg;
    bool is_private;
    server_find(&r->second, &r->wish, &is_private, e);
    return r->second;
}

static void fail_before(struct run_result *out, const char *id, const struct err *e, double ms)
{
    *out = (struct run_result){.error = *e, .total_ms = ms};
    snprintf(out->id, sizeof out->id, "%s", id);
    buf_z(&out->stage, "server");
    out->outcome = e->code == ERR_TIMEOUT     ? RUN_TIMEOUT
                   : e->code == ERR_CANCELLED ? RUN_CANCELLED
                                              : RUN_NO_SERVER;
}

static void run_task(struct run_command *r, uint64_t start_ns, uint64_t deadline_ns,
                     struct run_result *out)
{
    const struct workspace_config *c = &r->ws.config;
    struct err e = {0};
    if (!server_find(&r->server, &r->wish, &r->is_private, &e)) {
        fail_before(out, r->id, &e, clock_ms_since(start_ns));
        return;
    }
    struct run_settings rs = {
        .bootstrap = buf_view(&r->ws.bootstrap),
        .task = str_trim(buf_view(&r->task)),
        .id = r->id,
        .model = r->s.server_model != NULL ? r->s.server_model : c->server_model,
        .tools = r->tools,
        .server = r->server,
        .reconnect = r->is_private ? find_again : NULL,
        .reconnect_arg = r,
        .deadline_ns = deadline_ns,
        .timeout_s = c->timeout_s,
        .cancel = &cancelled,
        .max_turns = c->max_turns,
        .max_tokens = c->max_tokens,
        .has_temperature = c->has_temperature,
        .temperature = c->temperature,
        .thinking = c->thinking,
        .view = run_display_view(&r->display),
    };
    run_loop(&rs, out);
}

static bool prepare(struct run_command *r, uint64_t start_ns, uint64_t *deadline_ns, struct err *e)
{
    const char *dir = r->s.workspace != NULL ? r->s.workspace : ".";
    if (!read_task(r, e) || !workspace_open(&r->ws, dir, e) || !merge_settings(r, e)) return false;
    uint64_t timeout_s = r->ws.config.timeout_s;
    *deadline_ns = timeout_s > 0 ? start_ns + timeout_s * 1000000000u : 0;
    run_id_make(r->id, sizeof r->id);
    run_display_init(&r->display, r->s.quiet, r->s.json);
    struct tool_set_spec spec = {
        .config = &r->ws.config, .environment = (const char *const *)environ, .run_id = r->id};
    return make_wish(r, *deadline_ns, e) && tool_set_open(&r->tools, &spec, e);
}

static int finish(struct run_command *r, struct run_result *result)
{
    struct buf json = {0};
    int code = cancelled && result->outcome == RUN_CANCELLED ? 130 : run_exit_code(result);
    if (r->s.json) {
        run_result_json(result, &json);
        buf_c(&json, '\n');
        fwrite(json.p, 1, json.n, stdout);
        fflush(stdout);
        if (r->display.shown) fputs("\r\033[K", stderr);
        if (result->error.code != ERR_NONE && !r->s.quiet)
            fprintf(stderr, "submind run: %s\n", result->error.msg);
    } else {
        run_display_end(&r->display, result, r->s.quiet);
    }
    buf_free(&json);
    return code;
}

static void close_all(struct run_command *r)
{
    http_client_close(r->server);
    http_client_close(r->second);
    tool_set_close(r->tools);
    workspace_close(&r->ws);
    buf_free(&r->task);
    buf_free(&r->key);
    buf_free(&r->runtime_dir);
    buf_free(&r->model);
}

static int help(void)
{
    printf(
        "usage: submind run [flags] \"task\"     (- reads the task from standard input)\n\n"
        "Runs one sub-mind: the workspace's Markdown files and the task go to the model, its tool\n"
        "calls are carried out, its report is printed. Exit codes: 0 done, 1 task failed, 2 bad\n"
        "use, 3 no server, 124 timeout, 130 interrupted.\n\n");
    options_help(C_RUN);
    return 0;
}

int cmd_run(int argc, char **argv)
{
    struct err e = {0};
    struct run_command r = {0};
    struct run_result result = {0};
    uint64_t start_ns = clock_ns(), deadline_ns = 0;
    if (!options_parse(&r.s, C_RUN, argc, argv, &e)) return cmd_fail("run", &e);
    if (r.s.help) return help();
    log_set_level(r.s.verbose ? LOG_DEBUG : LOG_WARN);
    catch_signals();
    int code = 2;
    if (!prepare(&r, start_ns, &deadline_ns, &e)) {
        cmd_fail("run", &e);
    } else {
        run_task(&r, start_ns, deadline_ns, &result);
        code = finish(&r, &result);
    }
    run_result_free(&result);
    close_all(&r);
    return code;
}
