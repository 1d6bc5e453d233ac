// Times a chat request's way to token ids: bench_chat MODEL.gguf REQUEST.json...
// Each request is parsed, checked, rendered by the model's template and tokenised, as the server
// does before it queues the job. Prints processor time of the first pass and the median of the
// later ones.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/file.h"
#include "engine/vocab.h"
#include "model/gguf.h"
#include "text/chat.h"
#include "text/tokenizer.h"
#include "text/value.h"

enum { PASSES = 51, MAX_FILE_BYTES = 64 << 20, N_STEPS = 4 };

static const char *const step_names[N_STEPS] = {"parse", "check", "render", "tokenise"};

struct subject {
    struct tokenizer *tok;
    struct chat_template chat;
};

static double cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool subject_open(struct subject *out, const char *path, struct err *e)
{
    struct gguf *g = NULL;
    struct str source = {0};
    bool ok = gguf_open(&g, path, e) && vocab_open(&out->tok, g, e) &&
              gguf_get_str(g, "tokenizer.chat_template", &source, e) &&
              chat_template_open(&out->chat, source, out->tok, e);
    gguf_close(g);
    return ok;
}

// One pass; ms[N_STEPS] gets what each step took, *n_bytes and ids what came out.
static bool pass(const struct subject *s, struct str body, double *ms, size_t *n_bytes,
                 struct ids *ids, struct err *e)
{
    struct arena a = {0};
    struct buf prompt = {0};
    struct value request;
    double t[N_STEPS + 1] = {cpu_ms()};
    bool ok = value_parse(&request, &a, body, e);
    t[1] = cpu_ms();
    struct value messages = ok ? value_get(request, "messages") : (struct value){0};
    struct value tools = ok ? value_get(request, "tools") : (struct value){0};
    ok = ok && chat_check(&messages, &tools, &a, e);
    t[2] = cpu_ms();
    struct chat_request r = {
        .messages = messages, .tools = tools, .add_generation_prompt = true, .thinking = -1};
    ok = ok && chat_render(&s->chat, &r, true, &a, &prompt, e);
    t[3] = cpu_ms();
    ids->n = 0;
    ok = ok && tokenizer_encode(s->tok, buf_view(&prompt), TOKENIZE_CONTROL, ids, e);
    t[4] = cpu_ms();
    for (int i = 0; i < N_STEPS; i++) ms[i] = t[i + 1] - t[i];
    *n_bytes = prompt.n;
    buf_free(&prompt);
    arena_free(&a);
    return ok;
}

static bool time_request(const struct subject *s, const char *path, struct err *e)
{
    static double ms[PASSES][N_STEPS], column[PASSES];
    struct buf body = {0};
    struct ids ids = {0};
    size_t n_bytes = 0;
    bool ok = file_read(&body, path, MAX_FILE_BYTES, e);
    for (int i = 0; ok && i < PASSES; i++) ok = pass(s, buf_view(&body), ms[i], &n_bytes, &ids, e);
    if (ok) printf("%s: %zu bytes, prompt %zu bytes, %zu tokens\n", path, body.n, n_bytes, ids.n);
    for (int step = 0; ok && step < N_STEPS; step++) {
        for (int i = 1; i < PASSES; i++) column[i - 1] = ms[i][step];
        qsort(column, PASSES - 1, sizeof *column, compare);
        printf("  %-8s first %7.3f ms, then %7.3f ms\n", step_names[step], ms[0][step],
               column[(PASSES - 1) / 2]);
    }
    ids_free(&ids);
    buf_free(&body);
    return ok;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    struct subject s = {0};
    if (argc < 3) {
        fprintf(stderr, "usage: bench_chat MODEL.gguf REQUEST.json...\n");
        return 2;
    }
    bool ok = subject_open(&s, argv[1], &e);
    for (int i = 2; ok && i < argc; i++) ok = time_request(&s, argv[i], &e);
    if (!ok) fprintf(stderr, "bench_chat: %s\n", e.msg);
    chat_template_close(&s.chat);
    tokenizer_close(s.tok);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
