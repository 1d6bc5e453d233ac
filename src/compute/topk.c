// Candidates by a heap whose root is the worst of the best k so far: nearly all logits lose against
// the root and cost one comparison.
#include "compute/topk.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>

void topk_adjust(float *logits, uint32_t row, const struct batch *batch)
{
    uint32_t low = 0, high = batch->n_adjust;
    while (low < high) {
        const uint32_t mid = low + (high - low) / 2;
        if (batch->adjust[mid].out_row < row)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < batch->n_adjust && batch->adjust[low].out_row == row; low++) {
        const struct logit_adjust *a = &batch->adjust[low];
        float *x = &logits[a->token];
        if (a->divide && *x > 0)
            *x /= a->scale;
        else
            *x *= a->scale;
        *x += a->add;
    }
}

// Total order: a before b. Ids differ, so no two are equal.
static bool better(float a, int32_t a_id, float b, int32_t b_id)
{
    return a > b || (a == b && a_id < b_id);
}

static void swap(struct topk_row *t, uint32_t i, uint32_t j)
{
    const float logit = t->logits[i];
    const int32_t id = t->ids[i];
    t->logits[i] = t->logits[j];
    t->ids[i] = t->ids[j];
    t->logits[j] = logit;
    t->ids[j] = id;
}

// Heap of n entries with the worst at the root: entry i sinks below every worse one.
static void sink(struct topk_row *t, uint32_t i, uint32_t n)
{
    for (;;) {
        uint32_t worst = i;
        for (uint32_t c = 2 * i + 1; c <= 2 * i + 2 && c < n; c++)
            if (better(t->logits[worst], t->ids[worst], t->logits[c], t->ids[c])) worst = c;
        if (worst == i) return;
        swap(t, i, worst);
        i = worst;
    }
}

uint32_t topk_find_above(const float *x, uint32_t from, uint32_t n, float bound)
{
    while (from < n && !(x[from] > bound)) from++;
    return from;
}

double topk_sum_exp(const float *x, uint32_t n, float max)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        if (x[i] > max - 88.0f) sum += (double)expf(x[i] - max);
    return sum;
}

void topk_select(const struct topk_scan *scan, const float *logits, uint32_t n, uint32_t k,
                 struct topk_row *out)
{
    assert(k > 0 && k <= TOPK_MAX);
    if (k > n) k = n;
    out->n = k;
    for (uint32_t i = 0; i < k; i++) {
        out->ids[i] = (int32_t)i;
        out->logits[i] = isnan(logits[i]) ? -INFINITY : logits[i];
    }
    for (uint32_t i = k / 2; i-- > 0;) sink(out, i, k);
    // Strictly above: of equal ones the first, with the smaller id, stays.
    for (uint32_t i = k; (i = scan->find_above(logits, i, n, out->logits[0])) < n; i++) {
        out->logits[0] = logits[i];
        out->ids[0] = (int32_t)i;
        sink(out, 0, k);
    }
    // Heap sort: the worst goes to the end each time.
    for (uint32_t m = k; m > 1; m--) {
        swap(out, 0, m - 1);
        sink(out, 0, m - 1);
    }
    const float max = out->logits[0];
    out->lse = max;
    if (isfinite(max)) out->lse = (float)((double)max + log(scan->sum_exp(logits, n, max)));
}
