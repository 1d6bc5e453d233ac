// A slot holds a hash of its token and of all slots before it, folded anew from the pages for each
// sequence of each step. The logits of a row are hashes of the fold up to and including it.
#include "lib/fake_net.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/fail_malloc.h"

// The finaliser of SplitMix64.
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t fold(uint64_t h, uint64_t slot)
{
    return mix(h * 3 + slot);
}

static uint64_t slot_value(uint64_t h, int32_t token, uint32_t pos)
{
    return mix(h ^ mix((uint64_t)token << 32 | pos));
}

static void logits_of(uint64_t h, float *logits)
{
    for (uint32_t i = 0; i < FAKE_VOCAB; i++)
        logits[i] = (float)(mix(h + i) >> 40) / (float)(1 << 21); // 0 .. 8
}

void fake_logits(const int32_t *ids, size_t n_ids, float *logits)
{
    uint64_t h = 0;
    for (size_t p = 0; p < n_ids; p++) h = fold(h, slot_value(h, ids[p], (uint32_t)p));
    logits_of(h, logits);
}

void fake_answer(const int32_t *ids, size_t n_ids, uint32_t n_new, int32_t *out)
{
    uint64_t h = 0;
    for (size_t p = 0; p < n_ids; p++) h = fold(h, slot_value(h, ids[p], (uint32_t)p));
    for (uint32_t i = 0; i < n_new; i++) {
        float logits[FAKE_VOCAB];
        logits_of(h, logits);
        out[i] = 0;
        for (int32_t j = 1; j < FAKE_VOCAB; j++)
            if (logits[j] > logits[out[i]]) out[i] = j;
        h = fold(h, slot_value(h, out[i], (uint32_t)(n_ids + i)));
    }
}

struct net *fake_net_open(uint32_t n_pages, uint32_t page_tokens)
{
    struct net *n = calloc(1, sizeof *n);
    assert(n != NULL);
    n->n_pages = n_pages;
    n->page_tokens = page_tokens;
    n->slots = calloc((size_t)n_pages * page_tokens, sizeof *n->slots);
    assert(n->slots != NULL);
    return n;
}

void fake_net_close(struct net *n)
{
    if (n == NULL) return;
    free(n->slots);
    free(n);
}

static uint64_t *slot_at(struct net *n, const struct batch *b, const struct batch_seq *s,
                         uint32_t pos)
{
    const uint32_t page = b->pages[s->page0 + pos / n->page_tokens];
    return &n->slots[(size_t)page * n->page_tokens + pos % n->page_tokens];
}

// No sequence may see a page in the step that writes it, but its writer; single rows come first.
static bool is_valid(const struct net *n, const struct batch *b)
{
    uint32_t row = 0;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &b->seqs[i];
        const uint32_t end = s->pos0 + s->n_rows;
        if (s->n_rows == 0 || s->row0 != row || s->n_pages * n->page_tokens < end) return false;
        row += s->n_rows;
        if (i > 0 && s->n_rows == 1 && b->seqs[i - 1].n_rows > 1) return false;
        for (uint32_t p = s->pos0 / n->page_tokens; p < s->n_pages; p++) {
            const uint32_t page = b->pages[s->page0 + p];
            if (page >= n->n_pages) return false;
            for (uint32_t j = 0; j < b->n_page_ids; j++)
                if (b->pages[j] == page && j != s->page0 + p) return false;
        }
    }
    return row == b->n_rows && b->n_out <= FAKE_OUT;
}

static void sleep_us(uint32_t us)
{
    const struct timespec t = {.tv_nsec = (long)us * 1000};
    nanosleep(&t, NULL);
}

static void adjust(float *logits, uint32_t out, const struct batch *b)
{
    for (uint32_t i = 0; i < b->n_adjust; i++) {
        const struct logit_adjust *a = &b->adjust[i];
        if (a->out_row != out) continue;
        float *x = &logits[a->token];
        *x = (a->divide && *x > 0 ? *x / a->scale : *x * a->scale) + a->add;
    }
}

static void best_of(const float *logits, struct topk_row *out)
{
    bool taken[FAKE_VOCAB] = {false};
    double sum = 0;
    for (uint32_t i = 0; i < FAKE_VOCAB; i++) sum += exp((double)logits[i]);
    out->lse = (float)log(sum);
    for (out->n = 0; out->n < TOPK_MAX; out->n++) {
        int32_t best = -1;
        for (int32_t i = 0; i < FAKE_VOCAB; i++)
            if (!taken[i] && (best < 0 || logits[i] > logits[best])) best = i;
        taken[best] = true;
        out->ids[out->n] = best;
        out->logits[out->n] = logits[best];
    }
}

// Between two steps the next allocation of this thread fails: so it is seen.
static void watch_allocations(struct net *n)
{
    if (fail_malloc_done()) atomic_fetch_add(&n->n_allocating, 1);
    fail_malloc_after(atomic_load(&n->watch) ? 0 : -1);
}

bool net_step(struct net *n, struct dbuf *kv, const struct batch *b, struct err *e)
{
    (void)kv;
    watch_allocations(n);
    if (atomic_load(&n->delay_us) > 0) sleep_us(atomic_load(&n->delay_us));
    atomic_fetch_add(&n->n_held, 1);
    while (atomic_load(&n->hold)) sleep_us(100);
    atomic_fetch_sub(&n->n_held, 1);
    if (atomic_load(&n->n_failing) > 0) {
        atomic_fetch_sub(&n->n_failing, 1);
        return err_set(e, ERR_DEVICE, "fake failure");
    }
    if (!is_valid(n, b)) atomic_fetch_add(&n->n_wrong, 1);
    uint32_t out = 0;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &b->seqs[i];
        uint64_t h = 0;
        for (uint32_t p = 0; p < s->pos0; p++) h = fold(h, *slot_at(n, b, s, p));
        for (uint32_t r = 0; r < s->n_rows; r++) {
            uint64_t *slot = slot_at(n, b, s, s->pos0 + r);
            *slot = slot_value(h, b->tokens[s->row0 + r], s->pos0 + r);
            h = fold(h, *slot);
            if (out == b->n_out || b->out_rows[out] != s->row0 + r) continue;
            logits_of(h, n->logits[out]);
            adjust(n->logits[out], out, b);
            out++;
        }
    }
    if (out != b->n_out) atomic_fetch_add(&n->n_wrong, 1);
    if (out > 0 && atomic_load(&n->n_spoilt) > 0) {
        atomic_fetch_sub(&n->n_spoilt, 1);
        for (uint32_t i = 0; i < out * FAKE_VOCAB; i++)
            n->logits[i / FAKE_VOCAB][i % FAKE_VOCAB] = NAN;
    }
    const uint32_t i_step = atomic_load(&n->n_steps);
    if (i_step < FAKE_LOG)
        n->log[i_step] = (struct fake_step){.first = b->tokens[0], .n_rows = b->n_rows};
    atomic_fetch_add(&n->n_steps, 1);
    atomic_fetch_add(&n->n_rows, b->n_rows);
    if (b->n_seqs > atomic_load(&n->max_seqs)) atomic_store(&n->max_seqs, b->n_seqs);
    return true;
}

bool net_read_topk(struct net *n, uint32_t n_out, struct topk_row *out, struct err *e)
{
    (void)e;
    for (uint32_t i = 0; i < n_out; i++) best_of(n->logits[i], &out[i]);
    return true;
}

bool net_read_logits(struct net *n, uint32_t out_row, float *logits, struct err *e)
{
    (void)e;
    memcpy(logits, n->logits[out_row], sizeof n->logits[out_row]);
    return true;
}

// The rest of net.h, so that nothing of the real one is linked.
bool net_open(struct net **out, struct backend *b, const struct gguf *g,
              const struct model_config *c, const struct net_settings *s, struct err *e)
{
    (void)out, (void)b, (void)g, (void)c, (void)s;
    return err_set(e, ERR_UNSUPPORTED, "the fake network is opened by fake_net_open");
}

void net_close(struct net *n)
{
    fake_net_close(n);
}

size_t net_bytes(struct backend *b, const struct gguf *g, const struct model_config *c,
                 const struct net_settings *s)
{
    (void)b, (void)g, (void)c, (void)s;
    return 0;
}

size_t net_scratch_bytes(struct backend *b, const struct gguf *g, const struct model_config *c,
                         const struct net_settings *s, const struct kv_shape *kv)
{
    (void)b, (void)g, (void)c, (void)s, (void)kv;
    return 0;
}

float net_rope_factor(const struct net *n)
{
    (void)n;
    return 1;
}
