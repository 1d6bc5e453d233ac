// The default: two requests of full length and 2,048 tokens for each that may run, as far as half of
// what is free allows, since a cache that fills slowly need not own the machine; but always room for
// one full-length request, or the plan fails.
#include "engine/plan.h"

enum { TOKENS_EACH = 2048 };

static double gib(uint64_t n)
{
    return (double)n / (1u << 30);
}

static uint64_t wanted_pages(const struct plan_input *in, uint64_t least, uint64_t left)
{
    uint64_t tokens = 2ull * in->n_ctx + (uint64_t)TOKENS_EACH * in->n_parallel;
    uint64_t pages = (tokens + in->page_tokens - 1) / in->page_tokens;
    if (pages > left / 2 / in->page_bytes) pages = left / 2 / in->page_bytes;
    return pages > least ? pages : least;
}

bool plan_pages(const struct plan_input *in, uint32_t *n_pages, struct err *e)
{
    const uint64_t least = ((uint64_t)in->n_ctx + in->page_tokens - 1) / in->page_tokens + 1;
    const uint64_t fixed = in->network_bytes + in->scratch_bytes;
    const uint64_t left =
        in->free_bytes > fixed && fixed >= in->network_bytes ? in->free_bytes - fixed : 0;
    uint64_t pages = in->kv_bytes / in->page_bytes;
    if (in->kv_bytes > 0 && pages < least)
        return err_set(
            e, ERR_MEMORY,
            "--kv-memory of %.2f GiB holds %llu tokens, but a request may have %u: raise "
            "it to %.2f GiB or lower --ctx",
            gib(in->kv_bytes), (unsigned long long)(pages * in->page_tokens), in->n_ctx,
            gib(least * in->page_bytes) + 0.01);
    if (in->kv_bytes == 0) pages = wanted_pages(in, least, left);
    if (pages > UINT32_MAX / 2 / in->page_tokens) pages = UINT32_MAX / 2 / in->page_tokens;
    if (pages * in->page_bytes <= left) {
        *n_pages = (uint32_t)pages;
        return true;
    }
    return err_set(
        e, ERR_MEMORY,
        "not enough memory: %.2f GiB for weights and activations, %.2f GiB for scratch and "
        "%.2f GiB for %llu tokens of keys and values (--ctx is %u), %.2f GiB are free; "
        "lower --ctx or --kv-memory, or take a smaller model",
        gib(in->network_bytes), gib(in->scratch_bytes), gib(pages * in->page_bytes),
        (unsigned long long)(pages * in->page_tokens), in->n_ctx, gib(in->free_bytes));
}
