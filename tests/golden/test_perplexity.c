// How well the demo model foretells a fixed text (data/text/chores.txt: conversations of the generator
// in tools/demo-model with a seed that training never saw), by format, device, KV type and kind of step:
// within 0.1 % of the reference device with the same weights and f32 keys and values. bench/SPEED.md has what
// each path is off.
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "compute/backend.h"
#include "engine/engine.h"

enum { SKIP = 77, TEXT_MAX = 1 << 20, N_ALONE = 12 };
// All of the text, or its beginning for decoding; what the reference device is held to each time.
enum { N_ALL = 1 << 20, N_DECODED = 600, N_REFERENCE = 60 };

#define BOUND 1e-3
// A KL of 0.0003 a token from the reference, which 8-bit activations, keys and values leave, moves the perplexity of the
// whole text by 0.03 % (one sigma) either way, and of its beginning by 0.1 %.
#define BOUND_FEW 2.5e-3

struct path {
    const char *device, *kv_type;
    uint32_t rows; // of a step: 1 is decoding
    size_t max_tokens;
    double bound;
};

static int n_failed;

static void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void complain(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    n_failed++;
}

static bool read_text(struct buf *out, struct err *e)
{
    char path[4096];
    const char *source = getenv("SUBMIND_SOURCE");
    snprintf(path, sizeof path, "%s/tests/data/text/chores.txt", source != NULL ? source : ".");
    return file_read(out, path, TEXT_MAX, e);
}

// Perplexity of the first max_tokens of the text; *score tells what was summed.
static bool measure(const char *model, const struct path *p, const struct buf *text,
                    struct engine_score *score, struct err *e)
{
    struct engine *en = NULL;
    struct ids ids = {0};
    const struct engine_settings s = {
        .model_path = model, .device = p->device, .kv_type = p->kv_type, .score_rows = p->rows};
    bool ok = engine_open(&en, &s, e) &&
              tokenizer_encode(engine_tokenizer(en), buf_view(text), TOKENIZE_CONTROL, &ids, e);
    const size_t n = p->max_tokens < ids.n ? p->max_tokens : ids.n;
    ok = ok && engine_score(en, ids.p, n, score, e);
    ids_free(&ids);
    engine_close(en);
    return ok;
}

static double perplexity(const struct engine_score *s)
{
    return exp(s->nll / (double)s->n_tokens);
}

static void check_path(const char *model, const char *format, const struct path *p,
                       const struct buf *text, double want)
{
    struct engine_score got;
    struct err e = {0};
    if (!measure(model, p, text, &got, &e)) {
        complain("%s on %s: %s", format, p->device, e.msg);
        return;
    }
    const double off = perplexity(&got) / want - 1;
    printf("%s on %s, KV %s, %u rows a step: %llu tokens, perplexity %.5f, off by %.4f %%\n",
           format, p->device, p->kv_type, got.n_rows, (unsigned long long)got.n_tokens,
           perplexity(&got), 100 * off);
    if (!(fabs(off) <= p->bound)) complain("%s on %s: off by %g", format, p->device, off);
}

// There, and its hardware too.
static bool has_device(const char *name)
{
    struct backend *b;
    struct err e = {0};
    const struct backend_settings s = {.device = name, .max_rows = 1, .max_out = 1};
    if (!backend_open(&b, &s, &e)) {
        printf("skipped: no %s (%s)\n", name, e.msg);
        return false;
    }
    b->class->close(b);
    return true;
}

// The reference device's own perplexities (f32 keys and values), which take minutes:
// SUBMIND_GOLDEN_ALL=1 measures all of them again; SUBMIND_GOLDEN_FEW=1 (a sanitizer's build) wants the
// beginning of the text only, and not of the slow paths.
static const struct expected {
    const char *format;
    double all, decoded, reference; // of N_ALL, N_DECODED, N_REFERENCE tokens
} expected[] = {
    {"Q8_0", 4.91048303, 5.01904131, 5.58028872},
    {"BF16", 4.90950815, 5.01694732, 5.55923835},
    {"Q4_K_M", 5.01005511, 5.08375919, 5.76920501},
};

// On the CPU decoding gives prefill's bits (test_equality): it is measured on GPUs only.
static const struct path paths[] = {
    {"cpu:avx512", "q8_0", 512, N_ALL, BOUND},
    {"cpu:avxvnni", "q8_0", 512, N_ALL, BOUND},
    {"cpu:avx2", "q8_0", 512, N_ALL, BOUND},
    {"cpu:i8mm", "q8_0", 512, N_ALL, BOUND},
    {"cpu:dotprod", "q8_0", 512, N_ALL, BOUND},
    {"cpu:portable", "q8_0", 512, N_DECODED, BOUND}, // slow: not with SUBMIND_GOLDEN_FEW
    {"cuda", "f16", 512, N_ALL, BOUND},
    {"cuda", "f16", 1, N_DECODED, BOUND},
    {"cuda", "q8_0", 512, N_ALL, BOUND},
    {"cuda", "q8_0", 1, N_DECODED, BOUND},
};

static double expected_for(const struct expected *x, size_t max_tokens)
{
    return max_tokens == N_ALL ? x->all : max_tokens == N_DECODED ? x->decoded : x->reference;
}

// False: there is no such model here.
static bool check_reference(const char *model, const struct expected *x, const struct buf *text)
{
    static const size_t counts[] = {N_REFERENCE, N_DECODED, N_ALL};
    const size_t n = getenv("SUBMIND_GOLDEN_ALL") != NULL ? 3 : 1;
    for (size_t i = 0; i < n; i++) {
        const struct path p = {"ref", "f32", 256, counts[i], BOUND};
        struct engine_score got;
        struct err e = {0};
        if (!measure(model, &p, text, &got, &e)) {
            if (e.code != ERR_NOT_FOUND) complain("%s: %s", x->format, e.msg);
            printf("skipped: %s\n", e.msg);
            return false;
        }
        const double off = perplexity(&got) / expected_for(x, counts[i]) - 1;
        printf("%s on ref: %llu tokens, perplexity %.9g\n", x->format,
               (unsigned long long)got.n_tokens, perplexity(&got));
        if (!(fabs(off) <= 1e-6)) complain("%s on ref: off by %g", x->format, off);
    }
    return true;
}

static bool check_model(const char *shared, const struct expected *x, const struct buf *text)
{
    char model[4096];
    snprintf(model, sizeof model, "%s/models/submind-demo-%s.gguf", shared, x->format);
    if (!check_reference(model, x, text)) return false;
    const bool few = getenv("SUBMIND_GOLDEN_FEW") != NULL;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct path p = paths[i];
        if (few && strcmp(p.device, "cpu:portable") == 0) continue;
        if (few) {
            p.max_tokens = N_DECODED;
            p.bound = BOUND_FEW;
        }
        if (has_device(p.device))
            check_path(model, x->format, &p, text, expected_for(x, p.max_tokens));
    }
    return true;
}

// The scoring itself: the same sum from the server's logits, one prefix after the other.
static void check_scoring(const char *shared, const struct buf *text)
{
    char model[4096];
    struct err e = {0};
    struct engine *en = NULL;
    struct ids ids = {0};
    struct engine_score got;
    const struct path path = {"cpu", "q8_0", 5, N_ALONE, BOUND};
    double nll = 0;
    snprintf(model, sizeof model, "%s/models/submind-demo-Q8_0.gguf", shared);
    const struct engine_settings s = {.model_path = model, .device = "cpu", .n_ctx = 256};
    bool ok = measure(model, &path, text, &got, &e) && engine_open(&en, &s, &e) &&
              tokenizer_encode(engine_tokenizer(en), buf_view(text), TOKENIZE_CONTROL, &ids, &e);
    const uint32_t n_vocab = ok ? engine_info(en)->n_vocab : 1;
    float *logits = calloc(n_vocab, sizeof *logits);
    for (size_t n = 1; ok && n < N_ALONE; n++) {
        double sum = 0;
        ok = engine_logits(en, ids.p, n, logits, &e);
        for (uint32_t i = 0; i < n_vocab; i++) sum += exp((double)logits[i]);
        nll += log(sum) - (double)logits[ids.p[n]];
    }
    if (!ok) complain("scoring: %s", e.msg);
    if (ok && (got.n_tokens != N_ALONE - 1 || !(fabs(got.nll - nll) <= 1e-9 * nll)))
        complain("scoring: %.12g over %llu tokens, expected %.12g over %d", got.nll,
                 (unsigned long long)got.n_tokens, nll, N_ALONE - 1);
    free(logits);
    ids_free(&ids);
    engine_close(en);
}

int main(void)
{
    const char *shared = getenv("SUBMIND_SHARED");
    struct buf text = {0};
    struct err e = {0};
    int n = 0;
    if (shared == NULL) shared = "../shared";
    if (!read_text(&text, &e)) {
        printf("%s\n", e.msg);
        return 1;
    }
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        n += check_model(shared, &expected[i], &text);
    if (n > 0) check_scoring(shared, &text);
    buf_free(&text);
    if (n == 0 && n_failed == 0) return SKIP;
    printf("%d formats, %d complaints\n", n, n_failed);
    return n_failed > 0;
}
