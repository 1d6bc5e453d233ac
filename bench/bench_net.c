// Times a model's forward pass on a device, without server or scheduler: prefill of a prompt in the
// backend's own chunks (last token's logits included), then decode steps at that depth. What it
// prints compares with the peer's llama-bench rows pp<N> and tg<M> @ d<N>.
//
//   bench_net MODEL [DEVICE [THREADS [PROMPT:DECODE[:SEQUENCES] ...]]]      default: auto 0 512:32 4096:32
//
// With several sequences all of them go on from the one prompt, whose pages they share, each with pages
// of its own for the rest, one row each a step; t/s is of all together (the peer's batched-bench -pps).
// The time of all processors a token stands beside: on a busy machine, with one thread, only that counts.
// Tokens are pseudo-random with a fixed seed; 0 tokens of decode or prompt skip that part.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "engine/net.h"

enum { MAX_SEQS = 64, MAX_PAIRS = 64, MAX_ROWS = 2048, MAX_TOKENS = 1 << 20, WARM_ROWS = 512 };

struct bench {
    struct gguf *gguf;
    struct model_config config;
    struct backend *backend;
    struct net *net;
    struct dbuf *kv;
    uint32_t page_tokens;
    uint32_t *pages; // [MAX_SEQS][n_pages] page tables
    uint32_t n_pages, n_own_pages, max_rows;
    double cpu_ms; // of the last run
    uint64_t seed;
};

static int32_t next_token(struct bench *b)
{
    b->seed = b->seed * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((b->seed >> 33) % b->config.n_vocab);
}

// Room for one sequence of n_ctx tokens, or n_seqs of them that share all but n_own.
static bool open_kv(struct bench *b, uint32_t n_ctx, uint32_t n_own, uint32_t n_seqs, struct err *e)
{
    struct backend_info info;
    b->backend->class->info(b->backend, &info);
    b->max_rows = info.prefill_rows;
    b->page_tokens = info.page_tokens;
    b->n_pages = n_ctx / info.page_tokens + 1;
    b->n_own_pages = n_seqs > 1 ? n_own / info.page_tokens + 2 : 0;
    const struct buf_desc d = {.kind = BUF_KV,
                               .kv = {.n_pages = b->n_pages + n_seqs * b->n_own_pages,
                                      .page_tokens = info.page_tokens,
                                      .n_layers = b->config.n_layers,
                                      .n_kv_heads = b->config.n_kv_heads,
                                      .head_dim = b->config.head_dim,
                                      .type = b->backend->class->kv_type},
                               .name = "KV pages"};
    b->pages = calloc((size_t)MAX_SEQS * b->n_pages, sizeof *b->pages);
    if (!b->pages) return err_set(e, ERR_MEMORY, "no memory for a page table");
    printf("%s\n", info.device);
    return b->backend->class->alloc(b->backend, &d, &b->kv, e);
}

// Pages in order for the first n_shared tokens, then each sequence's own.
static void set_pages(struct bench *b, uint32_t n_shared, uint32_t n_seqs)
{
    const uint32_t shared = n_seqs > 1 ? n_shared / b->page_tokens : b->n_pages;
    const uint32_t own = b->n_own_pages;
    for (uint32_t s = 0; s < n_seqs; s++)
        for (uint32_t i = 0; i < b->n_pages; i++)
            b->pages[s * b->n_pages + i] = i < shared || i >= shared + own ? i : i + s * own;
}

static bool bench_open(struct bench *b, const char *path, const char *device, uint32_t n_threads,
                       uint32_t n_ctx, uint32_t n_own, uint32_t n_seqs, struct err *e)
{
    const struct backend_settings bs = {
        .device = device, .n_threads = n_threads, .max_rows = MAX_ROWS, .max_out = MAX_SEQS};
    const struct net_settings ns = {
        .n_ctx = n_ctx, .max_rows = MAX_ROWS, .max_out = MAX_SEQS, .n_top = 20};
    b->seed = 1;
    return gguf_open(&b->gguf, path, e) && arch_read(&b->config, b->gguf, false, e) &&
           backend_open(&b->backend, &bs, e) &&
           net_open(&b->net, b->backend, b->gguf, &b->config, &ns, e) &&
           open_kv(b, n_ctx, n_own, n_seqs, e);
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

// One step: `rows` tokens at pos of the first sequence, or one token of each of n_seqs.
static bool step(struct bench *b, uint32_t pos, uint32_t rows, uint32_t n_seqs, bool want,
                 struct err *e)
{
    static struct topk_row top[MAX_SEQS];
    int32_t tokens[MAX_ROWS];
    struct batch_seq seqs[MAX_SEQS];
    uint32_t out[MAX_SEQS];
    for (uint32_t s = 0; s < n_seqs; s++) {
        seqs[s] = (struct batch_seq){s, rows, pos, s * b->n_pages, b->n_pages};
        out[s] = (s + 1) * rows - 1;
    }
    for (uint32_t i = 0; i < rows * n_seqs; i++) tokens[i] = next_token(b);
    const struct batch batch = {.n_rows = rows * n_seqs,
                                .n_seqs = n_seqs,
                                .n_out = want ? n_seqs : 0,
                                .n_page_ids = MAX_SEQS * b->n_pages,
                                .tokens = tokens,
                                .seqs = seqs,
                                .pages = b->pages,
                                .out_rows = out};
    return net_step(b->net, b->kv, &batch, e) && (!want || net_read_topk(b->net, n_seqs, top, e));
}

// n tokens at pos in chunks of at most max_rows; returns their time in ms, negative on failure.
static double run(struct bench *b, uint32_t n, uint32_t pos, uint32_t max_rows, uint32_t n_seqs,
                  struct err *e)
{
    const uint64_t start = clock_ns();
    const double cpu_start = cpu_ms();
    for (uint32_t done = 0, rows; done < n; done += rows) {
        rows = n - done < max_rows ? n - done : max_rows;
        const bool want = max_rows == 1 || done + rows == n;
        if (!step(b, pos + done, rows, n_seqs, want, e)) return -1;
    }
    b->cpu_ms = cpu_ms() - cpu_start;
    return clock_ms_since(start);
}

struct pair {
    uint32_t n_prompt, n_decode, n_seqs;
};

static bool run_pair(struct bench *b, const struct pair *p, struct err *e)
{
    if (p->n_seqs > 1 &&
        p->n_prompt % b->page_tokens != 0) // what stands on the last page is shared or nobody's
        return err_set(e, ERR_INPUT, "a prompt of %u for %u sequences: take whole pages of %u",
                       p->n_prompt, p->n_seqs, b->page_tokens);
    set_pages(b, p->n_prompt, p->n_seqs);
    const double prefill_ms = run(b, p->n_prompt, 0, b->max_rows, 1, e);
    if (prefill_ms < 0) return false;
    if (p->n_prompt)
        printf("pp%u %.1f t/s, %.3f CPU ms a token\n", p->n_prompt, 1e3 * p->n_prompt / prefill_ms,
               b->cpu_ms / p->n_prompt);
    const double decode_ms = run(b, p->n_decode, p->n_prompt, 1, p->n_seqs, e);
    if (decode_ms < 0) return false;
    const uint32_t n = p->n_decode * p->n_seqs;
    if (n)
        printf("tg%u@%u x%u %.2f t/s, %.3f CPU ms a token\n", p->n_decode, p->n_prompt, p->n_seqs,
               1e3 * n / decode_ms, b->cpu_ms / n);
    return fflush(stdout) == 0;
}

static bool read_pair(const char *text, struct pair *p)
{
    *p = (struct pair){.n_seqs = 1};
    return sscanf(text, "%u:%u:%u", &p->n_prompt, &p->n_decode, &p->n_seqs) >= 2 && p->n_seqs > 0 &&
           p->n_seqs <= MAX_SEQS && p->n_prompt <= MAX_TOKENS && p->n_decode <= MAX_TOKENS;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static bool run_all(struct bench *b, const struct pair *pairs, int n_pairs, struct err *e)
{
    set_pages(b, 0, 1);
    if (run(b, WARM_ROWS, 0, b->max_rows, 1, e) < 0) return false; // touches all memory once
    for (int i = 0; i < n_pairs; i++)
        if (!run_pair(b, &pairs[i], e)) return false;
    return true;
}

static void bench_close(struct bench *b)
{
    if (b->kv) b->backend->class->free(b->backend, b->kv);
    net_close(b->net);
    if (b->backend) b->backend->class->close(b->backend);
    gguf_close(b->gguf);
    free(b->pages);
}

int main(int argc, char **argv)
{
    static const char *const standard[] = {"512:32", "4096:32"};
    struct bench b = {0};
    struct err e = {0};
    const char *const *texts = argc > 4 ? (const char *const *)argv + 4 : standard;
    const int n_pairs = argc > 4 ? argc - 4 : 2;
    struct pair pairs[MAX_PAIRS];
    uint32_t n_ctx = WARM_ROWS, n_own = 0, n_seqs = 1;
    bool ok = argc > 1 && n_pairs <= MAX_PAIRS;
    for (int i = 0; i < n_pairs && ok; i++) {
        ok = read_pair(texts[i], &pairs[i]);
        if (!ok) break;
        n_ctx = larger(n_ctx, pairs[i].n_prompt + pairs[i].n_decode);
        n_own = larger(n_own, pairs[i].n_decode);
        n_seqs = larger(n_seqs, pairs[i].n_seqs);
    }
    if (!ok) {
        fprintf(stderr,
                "use: bench_net MODEL [DEVICE [THREADS [PROMPT:DECODE[:SEQUENCES] ...]]]\n"
                "up to %d of these, of %d tokens and %d sequences\n",
                MAX_PAIRS, MAX_TOKENS, MAX_SEQS);
        return 2;
    }
    const char *device = argc > 2 ? argv[2] : "auto";
    const uint32_t n_threads = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
    ok = bench_open(&b, argv[1], device, n_threads, n_ctx, n_own, n_seqs, &e) &&
         run_all(&b, pairs, n_pairs, &e);
    if (!ok) fprintf(stderr, "bench_net: %s\n", e.msg);
    bench_close(&b);
    return ok ? 0 : 1;
}
