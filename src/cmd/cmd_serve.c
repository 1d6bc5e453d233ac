// submind serve: settings -> server, and a progress bar where somebody watches. The server itself is
// serve/'s.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/places.h"
#include "cmd/serve_warm.h"
#include "serve/serve.h"

enum { MAX_KEYS = 1024, MAX_KEY_FILE = 1 << 20, MAX_TEMPLATE = 4 << 20, BAR_WIDTH = 30 };

// What the settings borrow.
struct serve_files {
    struct buf keys, chat_template, cache_dir;
    struct str *key_list; // [MAX_KEYS]
};

// Drawn in place on standard error; the last call ends the line.
static void draw_progress(void *arg, const char *stage, uint64_t done, uint64_t total)
{
    int *last_percent = arg;
    int percent = total > 0 ? (int)(100 * done / total) : 100;
    if (percent == *last_percent || *last_percent == 100) return;
    *last_percent = percent;
    char bar[BAR_WIDTH + 1];
    int filled = percent * BAR_WIDTH / 100;
    memset(bar, '#', (size_t)filled);
    memset(bar + filled, '.', (size_t)(BAR_WIDTH - filled));
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\rloading %-10s [%s] %3d %% of %.1f GB%s", stage, bar, percent,
            (double)total / 1e9, percent == 100 ? "\n" : "");
}

// One key a line; blank lines and those that start with # do not count.
static bool read_keys(const char *path, struct serve_files *f, struct serve_settings *out,
                      struct err *e)
{
    if (!file_read(&f->keys, path, MAX_KEY_FILE, e)) return err_prefix(e, "--api-key-file: ");
    f->key_list = calloc(MAX_KEYS, sizeof *f->key_list);
    if (f->key_list == NULL) return err_set(e, ERR_MEMORY, "no memory for the keys");
    struct str rest = buf_view(&f->keys);
    size_t n = 0;
    while (rest.n > 0) {
        size_t end = str_find(rest, STR("\n"), 0);
        if (end == SIZE_MAX) end = rest.n;
        struct str key = str_trim(str_sub(rest, 0, end));
        rest = str_sub(rest, end + 1, rest.n);
        if (key.n == 0 || key.p[0] == '#') continue;
        if (n == MAX_KEYS)
            return err_set(e, ERR_INPUT, "--api-key-file %s holds more than %d keys", path,
                           MAX_KEYS);
        f->key_list[n++] = key;
    }
    if (n == 0)
        return err_set(e, ERR_INPUT, "--api-key-file %s holds no key; put one on a line", path);
    out->keys = f->key_list;
    out->n_keys = n;
    return true;
}

static bool read_reasoning(const char *text, enum reasoning_mode *out, struct err *e)
{
    static const char *const names[] = {"auto", "off", "on"}; // as enum reasoning_mode
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) != 0) continue;
        *out = (enum reasoning_mode)i;
        return true;
    }
    return err_set(e, ERR_INPUT, "--reasoning takes on, off or auto, not \"%s\"", text);
}

// What systemd tells a service: sockets that it holds, where to report, how often. The process id guards
// against variables that were meant for a parent.
static void read_manager(struct serve_settings *out)
{
    const char *fds = options_env("LISTEN_FDS"), *pid = options_env("LISTEN_PID");
    const char *watchdog = options_env("WATCHDOG_USEC"), *who = options_env("WATCHDOG_PID");
    const long self = (long)getpid();
    if (fds != NULL && pid != NULL && strtol(pid, NULL, 10) == self)
        out->listen_fds = (uint32_t)strtoul(fds, NULL, 10);
    out->notify_socket = options_env("NOTIFY_SOCKET");
    if (watchdog != NULL && (who == NULL || strtol(who, NULL, 10) == self))
        out->watchdog_us = strtoull(watchdog, NULL, 10);
}

static bool read_settings(const struct settings *s, struct serve_files *f,
                          struct serve_settings *out, struct engine_settings *es, struct err *e)
{
    if (s->n_args > 0)
        return err_set(e, ERR_INPUT,
                       "unexpected \"%s\"; serve takes flags only: a model is named by --model",
                       s->args[0]);
    if (s->given.cache_quota && (s->cache_quota == 0 || s->cache_quota > 100))
        return err_set(e, ERR_INPUT, "--cache-quota takes 1 to 100 percent, not %u",
                       s->cache_quota);
    if (s->kv_events == NULL && (s->kv_events_replay != NULL || s->kv_events_topic != NULL))
        return err_set(e, ERR_INPUT, "--kv-events is missing; it says where to publish");
    if (s->cache_ahead != NULL && strcmp(s->cache_ahead, "on") != 0 &&
        strcmp(s->cache_ahead, "off") != 0)
        return err_set(e, ERR_INPUT, "--cache-ahead takes on or off, not \"%s\"", s->cache_ahead);
    if (s->given.timeout && s->timeout > 7 * 24 * 3600)
        return err_set(e, ERR_INPUT, "--timeout takes at most a week (604800), not %u", s->timeout);
    *out = (struct serve_settings){
        .host = s->host,
        .port = s->given.port ? s->port : 8080,
        .unix_socket = s->unix_socket,
        .alias = s->alias,
        .allow_public = s->allow_public,
        .cors_origin = s->cors_origin,
        .allow_host = s->allow_host,
        .template_kwargs = str_from(s->chat_template_kwargs),
        .max_body_bytes = s->max_body,
        .max_connections = s->max_connections,
        .idle_exit_s = s->idle_exit,
        .kv_events = s->kv_events,
        .kv_events_replay = s->kv_events_replay,
        .kv_events_topic = s->kv_events_topic,
        .timeout_ms = s->timeout * 1000,
        .no_ahead = s->cache_ahead != NULL && strcmp(s->cache_ahead, "off") == 0,
        .drain_s = s->drain,
        .accept_when_ready = s->accept_when_ready,
    };
    read_manager(out);
    options_sampling(s, &out->sampling);
    if (s->model == NULL)
        log_info("serve", "no --model: the built-in one answers, which knows little but the demo's "
                          "chores; submind pull fetches a real one");
    if (s->model == NULL && !s->given.temperature) { // by chance, so small a model talks nonsense
        out->sampling.has_temperature = true;
        out->sampling.temperature = 0;
    }
    if (s->reasoning != NULL && !read_reasoning(s->reasoning, &out->reasoning, e)) return false;
    if (s->api_key_file != NULL && !read_keys(s->api_key_file, f, out, e)) return false;
    if (!options_engine(s, es, e)) return false;
    if (s->workspace != NULL && access(s->workspace, R_OK | X_OK) != 0)
        return err_errno(e, ERR_INPUT, "--workspace: cannot read the folder %.300s", s->workspace);
    if (s->cache_dir == NULL) {
        options_home(&f->cache_dir, "XDG_CACHE_HOME", ".cache");
        if (f->cache_dir.n > 0)
            es->cache_dir = buf_cstr(&f->cache_dir);
        else
            log_warn("cache", "nothing is kept on disk: neither HOME nor XDG_CACHE_HOME is set "
                              "(--cache-dir takes a folder)");
    }
    if (s->chat_template_file == NULL) return true;
    if (!file_read(&f->chat_template, s->chat_template_file, MAX_TEMPLATE, e))
        return err_prefix(e, "--chat-template-file: ");
    es->chat_template = buf_view(&f->chat_template);
    return true;
}

int cmd_serve(int argc, char **argv)
{
    struct err e = {0};
    struct settings s;
    struct serve_settings serve;
    struct engine_settings engine;
    struct serve_files files = {0};
    struct serve_warm warm = {0};
    struct buf lists = {0};
    int percent = -1;
    if (!options_parse(&s, C_SERVE, argc, argv, &e)) return cmd_fail("serve", &e);
    if (s.help) {
        printf("usage: submind serve [flags]\n\nServes a model over the OpenAI API.\n\n");
        options_help(C_SERVE, "serve");
        return 0;
    }
    if (s.verbose) log_set_level(LOG_DEBUG);
    bool ok = read_settings(&s, &files, &serve, &engine, &e);
    if (ok && isatty(STDERR_FILENO)) {
        serve.progress = draw_progress;
        serve.progress_arg = &percent;
    }
    if (ok && s.workspace != NULL) {
        warm = (struct serve_warm){.dir = s.workspace,
                                   .lists_dir = place_lists_dir(&s, &lists),
                                   .public = s.public,
                                   .key = serve.n_keys > 0 ? serve.keys[0] : STR("")};
        serve.on_ready = serve_warm_start;
        serve.on_ready_arg = &warm;
    }
    ok = ok && serve_run(&serve, &engine, &e);
    serve_warm_stop(&warm);
    buf_free(&lists);
    buf_free(&files.keys);
    buf_free(&files.chat_template);
    buf_free(&files.cache_dir);
    free(files.key_list);
    return ok ? 0 : cmd_fail("serve", &e);
}
