// Times the tokenizer: bench_tokenizer MODEL.gguf FILE...
// Prints the time to open the vocabulary and, for each file, MB/s of text never seen (an empty word
// cache), of text whose words were seen, and the time of an exact repetition (the memo).
// Every pass alters the first byte, so that the memo cannot answer where it is not what is timed.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "engine/vocab.h"
#include "model/gguf.h"
#include "text/tokenizer.h"

enum { PASSES = 9, MAX_FILE_BYTES = 64 << 20 };

static int fail(const struct err *e)
{
    fprintf(stderr, "bench_tokenizer: %s\n", e->msg);
    return EXIT_FAILURE;
}

static bool open_model(struct tokenizer **out, const char *path, struct err *e)
{
    struct gguf *g = NULL;
    if (!gguf_open(&g, path, e)) return false;
    bool ok = vocab_open(out, g, e);
    gguf_close(g);
    return ok;
}

// Processor time of this thread: what other programs do on the machine does not count.
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

static bool encode_ms(const struct tokenizer *t, struct str text, struct ids *ids, double *ms,
                      struct err *e)
{
    ids->n = 0;
    double start = cpu_ms();
    bool ok = tokenizer_encode(t, text, TOKENIZE_CONTROL, ids, e);
    *ms = cpu_ms() - start;
    return ok;
}

// The median of PASSES; alter: each pass is another text for the memo.
static bool median_ms(const struct tokenizer *t, struct buf *text, bool alter, struct ids *ids,
                      double *ms, struct err *e)
{
    double times[PASSES];
    for (int i = 0; i < PASSES; i++) {
        if (alter) text->p[0] = (char)('a' + i);
        if (!encode_ms(t, buf_view(text), ids, &times[i], e)) return false;
    }
    qsort(times, PASSES, sizeof *times, compare);
    *ms = times[PASSES / 2];
    return true;
}

static bool time_file(const char *model, const char *path, struct err *e)
{
    struct buf text = {0};
    struct ids ids = {0};
    struct tokenizer *t = NULL; // a fresh one, so that its word cache is empty
    double cold = 0, warm = 0, repeated = 0;
    bool ok = file_read(&text, path, MAX_FILE_BYTES, e) && open_model(&t, model, e);
    if (ok && text.n == 0) ok = err_set(e, ERR_INPUT, "%s is empty", path);
    // Special tokens would cut the text into segments that the memo answers one by one.
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] == '<') text.p[i] = '(';
    ok = ok && encode_ms(t, buf_view(&text), &ids, &cold, e) &&
         median_ms(t, &text, true, &ids, &warm, e) &&
         median_ms(t, &text, false, &ids, &repeated, e);
    double mb = (double)text.n / 1e6;
    if (ok)
        printf("%9zu bytes %8zu tokens  cold %6.1f MB/s  warm %6.1f MB/s  repeated %7.3f ms  %s\n",
               text.n, ids.n, mb * 1e3 / cold, mb * 1e3 / warm, repeated, path);
    tokenizer_close(t);
    ids_free(&ids);
    buf_free(&text);
    return ok;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    struct tokenizer *t = NULL;
    if (argc < 3) {
        fprintf(stderr, "usage: bench_tokenizer MODEL.gguf FILE...\n");
        return 2;
    }
    double start = cpu_ms();
    if (!open_model(&t, argv[1], &e)) return fail(&e);
    printf("open %.1f ms, %u tokens\n", cpu_ms() - start, tokenizer_n_vocab(t));
    tokenizer_close(t);
    for (int i = 2; i < argc; i++)
        if (!time_file(argv[1], argv[i], &e)) return fail(&e);
    return EXIT_SUCCESS;
}
