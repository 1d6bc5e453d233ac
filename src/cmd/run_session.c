// Flags win over the definition, the definition over submind.yaml.
#include "cmd/run_session.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cmd/model_path.h"
#include "cmd/places.h"

enum { MAX_KEY_BYTES = 16384 };

static bool read_thinking(struct run_session *r, struct err *e)
{
    static const struct {
        const char *text;
        int value;
    } modes[] = {{"on", 1}, {"off", 0}, {"auto", -1}};
    if (r->s->thinking == NULL) return true;
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(r->s->thinking, modes[i].text) != 0) continue;
        r->ws.config.thinking = modes[i].value;
        return true;
    }
    return err_set(e, ERR_INPUT, "--thinking takes on, off or auto, not \"%.40s\"", r->s->thinking);
}

static bool read_key(struct run_session *r, struct err *e)
{
    const char *file = r->s->key_file != NULL ? r->s->key_file : r->ws.config.key_file;
    if (file == NULL) return true;
    if (!file_read(&r->key, file, MAX_KEY_BYTES, e)) return err_prefix(e, "the server's key: ");
    struct str key = str_trim(buf_view(&r->key));
    memmove(r->key.p, key.p, key.n);
    r->key.n = key.n;
    if (memchr(buf_cstr(&r->key), '\n', r->key.n) != NULL)
        return err_set(e, ERR_INPUT, "%.200s holds more than one line", file);
    return true;
}

static bool merge_settings(struct run_session *r, struct err *e)
{
    struct workspace_config *c = &r->ws.config;
    const struct settings *s = r->s;
    if (s->given.timeout) c->timeout_s = s->timeout;
    if (s->given.max_turns && s->max_turns > 0) c->max_turns = s->max_turns;
    if (s->given.max_tokens && s->max_tokens > 0) c->max_tokens = s->max_tokens;
    if (s->given.temperature) {
        c->temperature = s->temperature;
        c->has_temperature = true;
    }
    return read_key(r, e) && read_thinking(r, e);
}

// The private server's flags: those that decide what it serves.
static bool make_server_args(struct run_session *r, struct err *e)
{
    const struct settings *s = r->s;
    const char *model = s->model != NULL ? s->model : r->ws.config.model_file;
    const struct {
        const char *flag, *text;
        bool given;
        unsigned long long number;
    } flags[] = {
        {"--device", s->device, s->device != NULL, 0},
        {"--kv-type", s->kv_type, s->kv_type != NULL, 0},
        {"--prefill-type", s->prefill_type, s->prefill_type != NULL, 0},
        {"--cache-type", s->cache_type, s->cache_type != NULL, 0},
        {"--threads", NULL, s->given.threads, s->threads},
        {"--ctx", NULL, s->given.ctx, s->ctx},
        {"--kv-memory", NULL, s->given.kv_memory, s->kv_memory},
    };
    size_t n = 0, n_numbers = 0;
    if (model != NULL) {
        if (!model_path(model, &model, e)) return false;
        char *path = realpath(model, NULL);
        if (path == NULL) return err_errno(e, ERR_INPUT, "cannot find the model %.300s", model);
        buf_z(&r->model, path);
        free(path);
        r->server_args[n++] = "--model";
        r->server_args[n++] = buf_cstr(&r->model);
        r->private_only = true;
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

static const char *url_of(const struct run_session *r, const struct definition *d)
{
    if (r->s->server != NULL) return r->s->server;
    if (d != NULL && d->server_url != NULL) return d->server_url;
    return r->ws.config.server_url;
}

bool run_session_open(struct run_session *out, const struct settings *s, const atomic_int *cancel,
                      struct err *e)
{
    *out = (struct run_session){.s = s, .cancel = cancel};
    if (!workspace_open(&out->ws, s->workspace != NULL ? s->workspace : ".", e) ||
        !merge_settings(out, e) || !make_server_args(out, e))
        return false;
    const char *url = url_of(out, NULL);
    if (url != NULL && !http_client_check_url(url, e)) return false;
    place_runtime_dir(s, &out->runtime_dir);
    out->keeps_records = place_state_dir(s, &out->state_dir);
    buf_cstr(&out->key); // the texts are read by several threads: end them now
    buf_cstr(&out->runtime_dir);
    out->lists_dir = place_lists_dir(s, &out->lists);
    buf_cstr(&out->state_dir);
    return true;
}

void run_session_tell_model(const struct run_session *r)
{
    static atomic_flag told = ATOMIC_FLAG_INIT; // several runs of a command go on at once
    if (r->private_only || atomic_flag_test_and_set(&told)) return;
    fputs("no server was found and no model named, so the built-in one answers, which knows little "
          "but the demo's chores\n(submind serve --model NAME, or model: in submind.yaml, brings a "
          "real one)\n",
          stderr);
}

void run_session_close(struct run_session *r)
{
    workspace_close(&r->ws);
    buf_free(&r->key);
    buf_free(&r->runtime_dir);
    buf_free(&r->state_dir);
    buf_free(&r->lists);
    buf_free(&r->model);
}

struct server_wish run_session_wish(const struct run_session *r, const struct definition *d,
                                    uint64_t deadline_ns)
{
    return (struct server_wish){.url = url_of(r, d),
                                .key = r->key.n > 0 ? r->key.p : NULL,
                                .private_only = r->private_only,
                                .runtime_dir = r->runtime_dir.p,
                                .args = r->server_args,
                                .environment = (const char *const *)environ,
                                .idle_exit_s = r->s->idle_exit,
                                .deadline_ns = deadline_ns,
                                .cancel = r->cancel};
}
