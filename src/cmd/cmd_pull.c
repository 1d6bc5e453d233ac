// submind pull: fetch a model, or list those that are here.
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/model_path.h"
#include "cmd/options.h"
#include "host/models.h"
#include "host/pull.h"

enum { MAX_TOKEN = 4096, TOO_LONG_S = 360000 };

static atomic_int cancelled;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&cancelled, 1);
}

// ---- progress ---------------------------------------------------------------------------------------

static void put_time(double seconds, char out[32])
{
    const unsigned s = (unsigned)seconds;
    if (s >= 3600)
        snprintf(out, 32, "%u h %02u min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(out, 32, "%u min %02u s", s / 60, s % 60);
    else
        snprintf(out, 32, "%u s", s);
}

static void show(void *arg, const char *file, const struct download_progress *p)
{
    char left[32] = "";
    (void)arg;
    if (!isatty(STDERR_FILENO)) return;
    // before the first measurement of the rate: the mean so far
    double rate = p->rate;
    if (rate <= 0 && p->seconds > 0.5) rate = (double)(p->done_bytes - p->start_bytes) / p->seconds;
    const double seconds = rate > 0 ? (double)(p->total_bytes - p->done_bytes) / rate : TOO_LONG_S;
    if (seconds < TOO_LONG_S) put_time(seconds, left);
    fprintf(stderr, "\r\033[K%.60s  %.2f of %.2f GB, %.1f MB/s%s%s", file,
            (double)p->done_bytes / 1e9, (double)p->total_bytes / 1e9, rate / 1e6,
            left[0] != '\0' ? ", left: " : "", left);
}

// ---- list -------------------------------------------------------------------------------------------

static void put_state(const struct model_file *m, char out[64])
{
    out[0] = '\0';
    if (m->n_parts_there == m->n_parts) return;
    if (m->n_parts > 1)
        snprintf(out, 64, "%u of %u parts", m->n_parts_there, m->n_parts);
    else
        snprintf(out, 64, "%.0f %%, go on with submind pull",
                 m->size_bytes > 0 ? 100.0 * (double)m->done_bytes / (double)m->size_bytes : 0.0);
}

static void print_json(const struct model_file *m, bool first)
{
    struct buf b = {0};
    buf_printf(&b, "%s{\"name\":", first ? "" : ",\n");
    buf_json(&b, m->name);
    buf_z(&b, ",\"path\":");
    buf_json(&b, m->path);
    buf_printf(&b,
               ",\"bytes\":%" PRIu64 ",\"done_bytes\":%" PRIu64 ",\"parts\":%u,\"complete\":%s}",
               m->size_bytes, m->done_bytes, m->n_parts,
               m->n_parts_there == m->n_parts ? "true" : "false");
    fputs(buf_cstr(&b), stdout);
    buf_free(&b);
}

static bool list(const struct settings *s, struct err *e)
{
    struct arena a = {0};
    struct buf dir = {0};
    struct model_file *all = arena_array(&a, MODELS_MAX, sizeof *all);
    if (all == NULL) return err_set(e, ERR_MEMORY, "no memory for the list");
    model_dir(&dir);
    const size_t n = models_list(buf_cstr(&dir), all, MODELS_MAX, &a);
    if (s->json) printf("{\"models\":[");
    for (size_t i = 0; i < n; i++) {
        char state[64];
        put_state(&all[i], state);
        if (s->json)
            print_json(&all[i], i == 0);
        else
            printf("%-56.*s %8.2f GB  %s\n", (int)all[i].name.n, all[i].name.p,
                   (double)all[i].size_bytes / 1e9, state);
    }
    if (s->json)
        printf("]}\n");
    else if (n == 0)
        printf("nothing in %s yet; try: submind pull hf:Qwen/Qwen3-4B-GGUF:Q4_K_M\n",
               buf_cstr(&dir));
    buf_free(&dir);
    arena_free(&a);
    return true;
}

// ---- fetch ------------------------------------------------------------------------------------------

// --token-file, HF_TOKEN, or the file where the hub's own tools keep it.
static bool read_token(const struct settings *s, struct buf *token, struct err *e)
{
    struct buf usual = {0};
    struct err ignored = {0};
    const char *variable = options_env("HF_TOKEN"), *home = options_env("HOME");
    bool ok = true;
    if (s->token_file != NULL) {
        ok = file_read(token, s->token_file, MAX_TOKEN, e) || err_prefix(e, "--token-file: ");
    } else if (variable != NULL) {
        buf_z(token, variable);
    } else if (home != NULL) {
        buf_printf(&usual, "%s/.cache/huggingface/token", home);
        file_read(token, buf_cstr(&usual), MAX_TOKEN, &ignored);
    }
    while (token->n > 0 && token->p[token->n - 1] <= ' ') token->n--;
    buf_free(&usual);
    if (ok && memchr(buf_cstr(token), '\n', token->n) != NULL)
        ok = err_set(e, ERR_INPUT, "the token has more than one line");
    return ok;
}

static bool fetch(const struct settings *s, struct err *e)
{
    struct buf dir = {0}, token = {0}, path = {0};
    const char *home = options_env("HOME"), *hub = options_env("HF_ENDPOINT");
    bool ok = read_token(s, &token, e);
    model_dir(&dir);
    const struct pull p = {
        .source = s->args[0],
        .dir = buf_cstr(&dir),
        .hub = s->hub != NULL ? s->hub
               : hub != NULL  ? hub
                              : "https://huggingface.co",
        .token = token.n > 0 ? buf_cstr(&token) : NULL,
        .ollama_dir = options_env("OLLAMA_MODELS"),
        .home = home == NULL ? "/root" : home,
        .n_connections = s->connections,
        .piece_bytes = s->piece_size,
        .cancel = &cancelled,
        .on_progress = show,
    };
    ok = ok && pull_run(&p, &path, e);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
    if (ok && s->json) {
        struct buf out = {0};
        buf_json(&out, buf_view(&path));
        printf("{\"path\":%s}\n", buf_cstr(&out));
        buf_free(&out);
    } else if (ok) {
        printf("%s\nserve it with: submind serve --model %s\n", buf_cstr(&path), s->args[0]);
    }
    buf_free(&dir);
    buf_free(&token);
    buf_free(&path);
    return ok;
}

int cmd_pull(int argc, char **argv)
{
    struct err e = {0};
    struct settings s;
    const struct sigaction stop = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    if (!options_parse(&s, C_PULL, argc, argv, &e)) return cmd_fail("pull", &e);
    if (s.help || (s.n_args == 0 && !s.list)) {
        printf("usage: submind pull hf:OWNER/REPO[:QUANT] | ollama:NAME[:TAG] | URL\n"
               "       submind pull --list\n\nFetches a model in parallel pieces and checks its "
               "hash; stopped, it goes on\nwhere it was.\n\n");
        options_help(C_PULL, "pull");
        return 0;
    }
    log_set_level(s.verbose ? LOG_DEBUG : LOG_WARN);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    bool ok = true;
    if (s.n_args > 1)
        ok = err_set(&e, ERR_INPUT, "one model at a time; unexpected \"%s\"", s.args[1]);
    else
        ok = s.list ? list(&s, &e) : fetch(&s, &e);
    return ok ? 0 : cmd_fail("pull", &e);
}
