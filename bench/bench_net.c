// Times a model's forward pass on a device, without server or scheduler: prefill of a prompt in the
// backend's own chunks (last token's logits included), then decode steps at that depth. What it
// prints compares with the peer's llama-bench rows pp<N> and tg<M> @ d<N>.
//
//   bench_net MODEL [DEVICE [THREADS [PROMPT:DECODE ...]]]      default: auto 0 512:32 4096:32
//
// Tokens are pseudo-random with a fixed seed; 0 tokens of decode or prompt skip that part.
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/net.h"

struct bench {
    struct gguf *gguf;
    struct model_config config;
    struct backend *backend;
    struct net *net;
    struct dbuf *kv;
    uint32_t *pages;
    uint32_t n_pages, max_rows;
    uint64_t seed;
};

static int32_t next_token(struct bench *b)
{
    b->seed = b->seed * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((b->seed >> 33) % b->config.n_vocab);
}

static bool open_kv(struct bench *b, uint32_t n_ctx, struct err *e)
{
    struct backend_info info;
    b->backend->class->info(b->backend, &info);
    b->max_rows = info.prefill_rows;
    b->n_pages = (n_ctx + info.page_tokens - 1) / info.page_tokens;
    const struct buf_desc d = {.kind = BUF_KV,
                               .kv = {.n_pages = b->n_pages,
                                      .page_tokens = info.page_tokens,
                                      .n_layers = b->config.n_layers,
                                      .n_kv_heads = b->config.n_kv_heads,
                                      .head_dim = b->config.head_dim,
                                      .type = KV_F16},
                               .name = "KV pages"};
    b->pages = calloc(b->n_pages, sizeof *b->pages);
    if (!b->pages) return err_set(e, ERR_MEMORY, "no memory for a page table");
    for (uint32_t i = 0; i < b->n_pages; i++) b->pages[i] = i;
    printf("%s\n", info.device);
    return b->backend->class->alloc(b->backend, &d, &b->kv, e);
}

static bool bench_open(struct bench *b, const char *path, const char *device, uint32_t n_threads,
                       uint32_t n_ctx, struct err *e)
{
    const struct backend_settings bs = {
        .device = device, .n_threads = n_threads, .max_rows = 2048, .max_out = 1};
    const struct net_settings ns = {.n_ctx = n_ctx, .max_rows = 2048, .max_out = 1, .n_top = 20};
    b->seed = 1;
    return gguf_open(&b->gguf, path, e) && arch_read(&b->config, b->gguf, false, e) &&
           backend_open(&b->backend, &bs, e) &&
           net_open(&b->net, b->backend, b->gguf, &b->config, &ns, e) && open_kv(b, n_ctx, e);
}

// n tokens at pos in chunks of at most max_rows; returns their time in ms, negative on failure.
static double run(struct bench *b, uint32_t n, uint32_t pos, uint32_t max_rows, struct err *e)
{
    int32_t tokens[2048];
    const uint64_t start = clock_ns();
    for (uint32_t done = 0; done < n;) {
        const uint32_t rows = n - done < max_rows ? n - done : max_rows, last = rows - 1;
        for (uint32_t i = 0; i < rows; i++) tokens[i] = next_token(b);
        const struct batch_seq seq = {.n_rows = rows, .pos0 = pos + done, .n_pages = b->n_pages};
        const struct batch batch = {.n_rows = rows,
                                    .n_seqs = 1,
                                    .n_out = max_rows == 1 || done + rows == n,
                                    .n_page_ids = b->n_pages,
                                    .tokens = tokens,
                                    .seqs = &seq,
                                    .pages = b->pages,
                                    .out_rows = &last};
        struct topk_row top;
        if (!net_step(b->net, b->kv, &batch, e)) return -1;
        if (batch.n_out && !net_read_topk(b->net, 1, &top, e)) return -1;
        done += rows;
    }
    return clock_ms_since(start);
}

static bool run_pair(struct bench *b, uint32_t n_prompt, uint32_t n_decode, struct err *e)
{
    const double prefill_ms = run(b, n_prompt, 0, b->max_rows, e);
    if (prefill_ms < 0) return false;
    if (n_prompt) printf("pp%u %.1f t/s\n", n_prompt, 1e3 * n_prompt / prefill_ms);
    const double decode_ms = run(b, n_decode, n_prompt, 1, e);
    if (decode_ms < 0) return false;
    if (n_decode) printf("tg%u@%u %.2f t/s\n", n_decode, n_prompt, 1e3 * n_decode / decode_ms);
    return fflush(stdout) == 0;
}

int main(int argc, char **argv)
{
    static const char *const standard[] = {"512:32", "4096:32"};
    struct bench b = {0};
    struct err e = {0};
    if (argc < 2) {
        fprintf(stderr, "use: bench_net MODEL [DEVICE [THREADS [PROMPT:DECODE ...]]]\n");
        return 2;
    }
    const char *const *pairs = argc > 4 ? (const char *const *)argv + 4 : standard;
    const int n_pairs = argc > 4 ? argc - 4 : 2;
    uint32_t prompt[64], decode[64], n_ctx = 64;
    for (int i = 0; i < n_pairs && i < 64; i++) {
        if (sscanf(pairs[i], "%u:%u", &prompt[i], &decode[i]) != 2) return 2;
        if (prompt[i] + decode[i] > n_ctx) n_ctx = prompt[i] + decode[i];
    }
    const uint32_t n_threads = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
    bool ok = bench_open(&b, argv[1], argc > 2 ? argv[2] : "auto", n_threads, n_ctx, &e);
    for (int i = 0; i < n_pairs && i < 64 && ok; i++) ok = run_pair(&b, prompt[i], decode[i], &e);
    if (!ok) fprintf(stderr, "bench_net: %s\n", e.msg);
    return ok ? 0 : 1;
}
