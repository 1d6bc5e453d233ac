// The default: two requests of full length and 2,048 tokens for each that may run, as far as half of
// what is free allows, since a cache that fills slowly need not own the machine; but always room for
// one full-length request, or the plan fails.
#include "engine/plan.h"

#include <stdio.h>

enum { TOKENS_EACH = 2048 };

struct size_text {
    char z[24];
};
static struct size_text size_text(uint64_t n)
{
    struct size_text t;
    const double unit = n < 1u << 30 ? 1u << 20 : 1u << 30;
    snprintf(t.z, sizeof t.z, n < 1u << 30 ? "%.0f MiB" : "%.2f GiB", (double)n / unit);
    return t;
}
// Not less than n when a flag is given what it says.
static struct size_text size_text_up(uint64_t n)
{
    const uint64_t mib = 1u << 20;
    return size_text(n < 1u << 30 ? (n + mib - 1) / mib * mib : n + (1u << 30) / 100);
}

struct hint_text {
    char z[64];
};
// What would fit instead, in the words of the flag that asked for more.
static struct hint_text hint_text(const struct plan_input *in, uint64_t left)
{
    struct hint_text t = {"take a smaller model"};
    const uint64_t pages = left / in->page_bytes, mib = 1u << 20;
    if (in->kv_bytes > 0 && left >= mib)
        snprintf(t.z, sizeof t.z, "--kv-memory %lluM is the most",
                 (unsigned long long)(left / mib));
    else if (in->kv_bytes == 0 && pages > 1) // one page more than a request fills
        snprintf(t.z, sizeof t.z, "--ctx %llu is the most",
                 (unsigned long long)((pages - 1) * in->page_tokens));
    return t;
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
        return err_set(e, ERR_MEMORY,
                       "--kv-memory of %s holds %llu tokens, but a request may have %u: raise "
                       "it to %s or lower --ctx",
                       size_text(in->kv_bytes).z, (unsigned long long)(pages * in->page_tokens),
                       in->n_ctx, size_text_up(least * in->page_bytes).z);
    if (in->kv_bytes == 0) pages = wanted_pages(in, least, left);
    if (pages > UINT32_MAX / 2 / in->page_tokens) pages = UINT32_MAX / 2 / in->page_tokens;
    if (pages * in->page_bytes <= left) {
        *n_pages = (uint32_t)pages;
        return true;
    }
    return err_set(e, ERR_MEMORY,
                   "not enough memory: %s for weights and activations, %s for scratch and "
                   "%s for %llu tokens of keys and values (--ctx is %u), %s are free: %s",
                   size_text(in->network_bytes).z, size_text(in->scratch_bytes).z,
                   size_text(pages * in->page_bytes).z,
                   (unsigned long long)(pages * in->page_tokens), in->n_ctx,
                   size_text(in->free_bytes).z, hint_text(in, left).z);
}
