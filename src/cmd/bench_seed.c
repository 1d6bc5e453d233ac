// A contender is a device of ours, an address, or a command line. Only one runs at a time, so that none takes
// memory or bandwidth from another; servers that were there already are asked only in their turn.
#include "cmd/bench_seed.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/http_client.h"
#include "agent/workload.h"
#include "base/clock.h"
#include "base/file.h"
#include "cmd/bench_prompt.h"
#include "cmd/bench_report.h"
#include "cmd/bench_server.h"
#include "host/look.h"

enum { MAX_KEY = 16384, MAX_BASELINE = 16 << 20, ASK_S = 10 };

enum contender_kind { OURS, ADDRESS, COMMAND };

struct contender {
    char name[96];
    enum contender_kind kind;
    const char *text; // device, address or command
};

struct seed {
    const struct settings *s;
    const atomic_int *cancel;
    struct contender contenders[BENCH_COLUMNS_MAX];
    size_t n, i; // i: the one that is measured
    uint64_t start_ns;
    struct bench_prompt prompt;
    struct buf key, earlier;
    struct bench_report report;
    struct bench_change changes[BENCH_CHANGES_MAX];
    size_t n_changes;
};

// ---- contenders --------------------------------------------------------------------------------------

static bool is_address(const char *text)
{
    return strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0 ||
           strncmp(text, "unix:", 5) == 0;
}

// "[NAME=]WHAT"; a name has letters, digits and "-_." only, so that an address's "=" is none.
static void add(struct seed *b, const char *word, const char *name)
{
    struct contender *c = &b->contenders[b->n++];
    const size_t n =
        strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    *c = (struct contender){.text = word};
    if (n > 0 && word[n] == '=') {
        snprintf(c->name, sizeof c->name, "%.*s", (int)n, word);
        c->text = word + n + 1;
    }
    c->kind = is_address(c->text) ? ADDRESS : strstr(c->text, "{port}") != NULL ? COMMAND : OURS;
    if (c->name[0] == '\0')
        snprintf(c->name, sizeof c->name, "%s%.80s", c->kind == OURS ? "submind " : "",
                 name != NULL ? name : c->text);
}

static bool add_all(struct seed *b, struct err *e)
{
    const struct settings *s = b->s;
    if (s->n_args - 1 + 2 > BENCH_COLUMNS_MAX)
        return err_set(e, ERR_INPUT, "at most %d servers at once", BENCH_COLUMNS_MAX - 2);
    for (int i = 1; i < s->n_args; i++) {
        if (strchr(s->args[i], ' ') != NULL && strstr(s->args[i], "{port}") == NULL)
            return err_set(
                e, ERR_INPUT,
                "\"%.200s\" is no device and no address; a command needs {port} where its "
                "port goes",
                s->args[i]);
        add(b, s->args[i], NULL);
    }
    if (b->n == 0 && s->server == NULL) {
        add(b, s->device != NULL ? s->device : "auto", NULL);
        snprintf(b->contenders[0].name, sizeof b->contenders[0].name, "submind");
    }
    if (s->server != NULL) add(b, s->server, NULL);
    if (s->against != NULL) add(b, s->against, NULL);
    for (size_t i = 0; i < b->n; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(b->contenders[i].name, b->contenders[k].name) == 0)
                return err_set(e, ERR_INPUT, "two servers are called \"%s\"; name them: NAME=%s",
                               b->contenders[i].name, b->contenders[i].text);
    return true;
}

// ---- the machine ---------------------------------------------------------------------------------------

static void on_ceilings(void *arg, const struct engine_ceilings *c)
{
    struct bench_report *r = arg;
    r->has_limits = true;
    r->read_bytes_s = c->read_bytes_s;
    r->flop_s = c->flop_s;
    snprintf(r->limits_device, sizeof r->limits_device, "%s", c->device);
    snprintf(r->limits_how, sizeof r->limits_how, "%s", c->how);
}

static void on_op(void *arg, const struct engine_op_timing *t)
{
    (void)arg;
    (void)t;
}

static void show(const char *what)
{
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%s", what);
}

static void look_at_machine(struct seed *b)
{
    struct root root;
    struct err ignored = {0};
    struct host *h = calloc(1, sizeof *h);
    if (h == NULL || !root_open(&root, "/", &ignored)) {
        free(h);
        return;
    }
    host_look(h, &root, &(struct look_wish){0});
    root_close(&root);
    snprintf(b->report.cpu, sizeof b->report.cpu, "%s", h->cpu_name);
    snprintf(b->report.kernel, sizeof b->report.kernel, "%s", h->kernel);
    free(h);
}

// Limits of the first device of ours that takes part.
static bool measure_limits(struct seed *b, struct err *e)
{
    const char *device = NULL;
    for (size_t i = 0; i < b->n && device == NULL; i++)
        if (b->contenders[i].kind == OURS) device = b->contenders[i].text;
    if (b->s->no_limits) return true;
    const struct engine_ops_settings settings = {.device = device != NULL ? device : "auto",
                                                 .n_threads = b->s->threads,
                                                 .op = "none: the limits only",
                                                 .on_ceilings = on_ceilings,
                                                 .on_op = on_op,
                                                 .cancel = b->cancel,
                                                 .arg = &b->report};
    show("measuring the machine's limits");
    return engine_bench_ops(&settings, e);
}

// Size and parameters of the model, as our server and llama.cpp's tell them.
static void ask_model(struct seed *b, const char *url, const char *key, struct bench_model *out)
{
    struct http_client *http = NULL;
    struct http_answer answer = {0};
    struct err ignored = {0};
    const struct http_call call = {.path = "/v1/models",
                                   .deadline_ns = clock_ns() + ASK_S * 1000000000ull,
                                   .cancel = b->cancel};
    if (!http_client_open(&http, url, key, &ignored)) return;
    if (http_client_call(http, &call, &answer) && answer.status == 200) {
        json_t *root = json_loadb(answer.body.p, answer.body.n, 0, NULL);
        const json_t *meta =
            json_object_get(json_array_get(json_object_get(root, "data"), 0), "meta");
        out->bytes = json_number_value(json_object_get(meta, "size"));
        out->params = json_number_value(json_object_get(meta, "n_params"));
        json_decref(root);
    }
    http_answer_free(&answer);
    http_client_close(http);
}

// ---- measuring -----------------------------------------------------------------------------------------

static void on_step(void *arg, const char *what, uint32_t done, uint32_t total)
{
    const struct seed *b = arg;
    const double spent_s = clock_ms_since(b->start_ns) / 1e3;
    const double all = (double)total * (double)b->n, before = (double)total * (double)b->i + done;
    if (!isatty(STDERR_FILENO)) return;
    fprintf(stderr, "\r\033[K[%.0f/%.0f] %s: %s", before + 1, all, b->contenders[b->i].name, what);
    if (before > 1) fprintf(stderr, ", about %.0f s left", spent_s / before * (all - before));
}

static bool run_workload(struct seed *b, const char *url, const char *key, struct err *e)
{
    struct bench_column *column = &b->report.columns[b->report.n];
    struct workload_settings w = {
        .url = url,
        .key = key,
        .model = b->s->server_model,
        .prompt_tokens = b->s->prompt_tokens,
        .runs = b->s->runs,
        .gen_tokens = b->s->gen_tokens,
        .seed = (uint32_t)b->report.time, // the same prompts for all, in nobody's cache
        .cancel = b->cancel,
        .on_step = on_step,
        .arg = b,
    };
    bench_prompt_use(&b->prompt, &w);
    ask_model(b, url, key, &b->report.models[b->report.n]);
    if (!workload_run(&w, &column->result, e)) return false;
    column->name = b->contenders[b->i].name;
    b->report.n++;
    return true;
}

static bool measure_one(struct seed *b, struct err *e)
{
    const struct contender *c = &b->contenders[b->i];
    struct bench_server server = {0};
    struct settings own = *b->s;
    struct bench_start how = {.on_wait = show, .cancel = b->cancel};
    const char *key = b->key.n > 0 ? buf_cstr(&b->key) : NULL;
    bool ok = true;
    if (c->kind == ADDRESS) {
        ok = run_workload(b, c->text, key, e);
    } else {
        own.device = c->text;
        own.given.device = true;
        if (c->kind == OURS)
            how.settings = &own;
        else
            how.command = c->text;
        ok = bench_server_start(&server, &how, e) &&
             run_workload(b, buf_cstr(&server.url), c->kind == OURS ? NULL : key, e);
        bench_server_stop(&server);
    }
    show("");
    return ok || err_prefix(e, "%s: ", c->name);
}

// A server that fails is left out; what the others did is shown all the same.
static bool measure_each(struct seed *b, struct err *e)
{
    bool ok = true;
    for (; b->i < b->n && !atomic_load(b->cancel); b->i++) {
        struct err one = {0};
        if (measure_one(b, &one)) continue;
        ok = err_set(e, one.code, "%s", one.msg);
        if (b->n > 1) fprintf(stderr, "left out: %s\n", one.msg);
    }
    return ok && (b->i == b->n || err_set(e, ERR_CANCELLED, "stopped"));
}

// ---- the result ------------------------------------------------------------------------------------------

static bool can_write(const char *path, struct err *e)
{
    char folder[4096] = ".";
    const char *slash = strrchr(path, '/');
    if (!file_make_parents(path, e)) return false;
    if (slash != NULL) snprintf(folder, sizeof folder, "%.*s", (int)(slash - path) + 1, path);
    return access(folder, W_OK | X_OK) == 0 ||
           err_errno(e, ERR_IO, "cannot write to %.300s", folder);
}

// What would be found out after minutes of measuring otherwise.
static bool open_files(struct seed *b, struct err *e)
{
    const struct settings *s = b->s;
    if (s->baseline != NULL && !(file_read(&b->earlier, s->baseline, MAX_BASELINE, e) &&
                                 bench_is_earlier(buf_view(&b->earlier), e)))
        return err_prefix(e, "--baseline %s: ", s->baseline);
    if (s->out != NULL && !can_write(s->out, e)) return err_prefix(e, "--out: ");
    if (s->html != NULL && !can_write(s->html, e)) return err_prefix(e, "--html: ");
    return true;
}

static bool compare(struct seed *b, struct err *e)
{
    return b->s->baseline == NULL ||
           bench_compare(&b->report, buf_view(&b->earlier), b->changes, &b->n_changes, e) ||
           err_prefix(e, "--baseline %s: ", b->s->baseline);
}

static bool write_files(struct seed *b, struct err *e)
{
    struct buf json = {0}, html = {0};
    bool ok = true;
    if (b->s->out != NULL) {
        bench_report_json(&b->report, &json);
        ok = file_replace(b->s->out, buf_view(&json), 0644, e);
    }
    if (ok && b->s->html != NULL) {
        bench_report_html(&b->report, b->changes, b->n_changes, &html);
        ok = file_replace(b->s->html, buf_view(&html), 0644, e);
    }
    buf_free(&json);
    buf_free(&html);
    return ok;
}

static void print(struct seed *b)
{
    struct buf out = {0};
    if (b->s->json) {
        bench_report_json(&b->report, &out);
    } else {
        bench_table_print(b->report.columns, b->report.n, &out);
        bench_limits_print(&b->report, &out);
        bench_changes_print(&b->report, b->changes, b->n_changes, &out);
    }
    fputs(buf_cstr(&out), stdout);
    buf_free(&out);
}

static void release(struct seed *b)
{
    bench_prompt_close(&b->prompt);
    buf_free(&b->key);
    buf_free(&b->earlier);
    free(b);
}

bool bench_seed(const struct settings *s, const atomic_int *cancel, struct err *e)
{
    struct seed *b = calloc(1, sizeof *b);
    if (b == NULL) return err_set(e, ERR_MEMORY, "no memory for the benchmark");
    b->s = s;
    b->cancel = cancel;
    b->report.time = clock_unix();
    b->report.runs = s->runs != 0 ? s->runs : 3;
    b->report.gen_tokens = s->gen_tokens != 0 ? s->gen_tokens : 128;
    b->report.prompt_tokens = s->prompt_tokens != 0 ? s->prompt_tokens : 14000;
    b->report.workspace = s->workspace;
    bool ok = s->key_file == NULL || file_read(&b->key, s->key_file, MAX_KEY, e);
    while (b->key.n > 0 && b->key.p[b->key.n - 1] <= ' ') b->key.n--;
    ok = ok && add_all(b, e) && open_files(b, e) && bench_prompt_open(&b->prompt, s->workspace, e);
    if (ok) look_at_machine(b);
    ok = ok && measure_limits(b, e);
    b->start_ns = clock_ns();
    struct err failed = {0};
    ok = ok && measure_each(b, &failed);
    if (b->report.n > 0) { // whatever went wrong: what was measured is kept
        const bool compared = compare(b, e);
        ok = write_files(b, e) && compared && ok;
        print(b);
    }
    release(b);
    return ok || err_set(e, failed.code, "%s", failed.msg);
}
