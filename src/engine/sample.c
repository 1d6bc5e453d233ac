// Sampling. The kept tokens are a beginning of the order "largest logit first, equal ones by smaller
// id", and its length is the smallest of three:
//   top_k   the k first (0: all);
//   top_p   as few as hold at least p of the probability of those that top_k kept;
//   min_p   those with at least min_p times the probability of the first.
// These look at the plain softmax; the draw among the kept ones is by exp(logit / temperature). A draw
// takes one random number, however many tokens were kept; greedy takes none.
//
// Exactness: sample_pick answers only where the candidates prove the length, so what it answers is
// what sample_pick_full answers for the same logits (the last bit of a backend's lse aside). Up to
// TOPK_MAX kept tokens both draw in rank order, above that only sample_pick_full draws, in id order.
#include "engine/sample.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "compute/topk.h"

// ---- random numbers: xoroshiro128++ seeded by splitmix64 (Blackman and Vigna, public domain) --

static uint64_t rotate_left(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

static uint64_t next_splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void sample_seed(struct sample_rng *r, uint64_t seed)
{
    r->state[0] = next_splitmix(&seed);
    r->state[1] = next_splitmix(&seed);
}

static uint64_t next_random(struct sample_rng *r)
{
    uint64_t a = r->state[0], b = r->state[1];
    uint64_t out = rotate_left(a + b, 17) + a;
    b ^= a;
    r->state[0] = rotate_left(a, 49) ^ b ^ b << 21;
    r->state[1] = rotate_left(b, 28);
    return out;
}

// Uniform in [0, 1): the upper 53 bits.
static double next_uniform(struct sample_rng *r)
{
    return (double)(next_random(r) >> 11) * 0x1p-53;
}

// ---- from candidates -------------------------------------------------------------------------

// exp(x - max), the weight whose sum over the vocabulary is exp(lse - max).
static double weight(float x, float max)
{
    return exp((double)x - (double)max);
}

// The least logit that min_p keeps.
static double min_p_logit(float max, float min_p)
{
    return min_p > 0 ? (double)max + log((double)min_p) : -HUGE_VAL;
}

// How many of the row's first tokens hold at least `want` of the weight; row->n + 1: more than it has.
static uint32_t count_to(const struct topk_row *row, double want)
{
    double sum = 0;
    for (uint32_t i = 0; i < row->n; i++) {
        sum += weight(row->logits[i], row->logits[0]);
        if (sum >= want) return i + 1;
    }
    return row->n + 1;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

// The length of the kept beginning; false where the row cannot tell.
static bool kept_of_row(const struct topk_row *row, const struct sampling *s, uint32_t *out)
{
    const uint32_t beyond = row->n + 1;
    const float max = row->logits[0];
    uint32_t top_k = s->top_k == 0 ? beyond : smaller(s->top_k, beyond);
    uint32_t min_p = 0, least = beyond, most = beyond;
    const double lowest = min_p_logit(max, s->min_p);
    while (min_p < row->n && (double)row->logits[min_p] >= lowest) min_p++;
    if (min_p == row->n) min_p = beyond;
    if (s->top_p < 1) {
        // The weight that top_p takes its share of: known, or between the row's and the vocabulary's.
        double row_sum = 0, all = exp((double)row->lse - (double)max);
        for (uint32_t i = 0; i < smaller(top_k, row->n); i++)
            row_sum += weight(row->logits[i], max);
        double low = s->top_k == 0 ? all : row_sum, high = top_k <= row->n ? row_sum : all;
        least = count_to(row, (double)s->top_p * low);
        most = count_to(row, (double)s->top_p * high);
    }
    least = smaller(least, smaller(top_k, min_p));
    most = smaller(most, smaller(top_k, min_p));
    *out = least;
    return least == most && least <= row->n;
}

static int32_t draw_of_row(const struct topk_row *row, uint32_t n_kept, float temperature,
                           struct sample_rng *r)
{
    const double t = (double)temperature, max = (double)row->logits[0];
    double sum = 0, cumulated = 0;
    for (uint32_t i = 0; i < n_kept; i++) sum += exp(((double)row->logits[i] - max) / t);
    const double target = next_uniform(r) * sum;
    for (uint32_t i = 0; i < n_kept; i++) {
        cumulated += exp(((double)row->logits[i] - max) / t);
        if (cumulated > target) return row->ids[i];
    }
    return row->ids[0]; // where nothing is a number
}

bool sample_pick(const struct topk_row *row, const struct sampling *s, struct sample_rng *r,
                 int32_t *id)
{
    uint32_t n_kept;
    assert(row->n > 0);
    if (!(s->temperature > 0)) {
        *id = row->ids[0];
        return true;
    }
    if (!kept_of_row(row, s, &n_kept)) return false;
    *id = draw_of_row(row, n_kept, s->temperature, r);
    return true;
}

int32_t sample_pick_among(const struct topk_row *row, const struct sampling *s,
                          struct sample_rng *r)
{
    struct sampling own = *s; // with top_k within the row nothing beyond it matters
    uint32_t n_kept;
    assert(row->n > 0);
    if (!(s->temperature > 0)) return row->ids[0];
    if (own.top_k == 0 || own.top_k > row->n) own.top_k = row->n;
    const bool known = kept_of_row(row, &own, &n_kept);
    assert(known);
    return draw_of_row(row, known ? n_kept : row->n, s->temperature, r);
}

// ---- from all logits -------------------------------------------------------------------------
// Reached when more than TOPK_MAX tokens may be kept, so nothing is sorted: the length and the last
// kept logit are found by three passes over digits of the logits' order (11, 11 and 10 bits).

struct row_view {
    const float *logits;
    uint32_t n;
    float max;
};

// The kept set: every logit whose order is above `order`, and the n_equal first ids of equal order.
struct cut {
    uint32_t order, n_above, n_equal;
};

// Unsigned integers in the order of the floats; NaN as -infinity, both zeros alike.
static uint32_t order_of(float x)
{
    uint32_t u;
    if (isnan(x)) x = -INFINITY;
    x += 0.0f;
    memcpy(&u, &x, sizeof u);
    return u >> 31 ? ~u : u | 0x80000000u;
}

enum { DIGITS = 1 << 11 };

struct digit_sums {
    uint32_t counts[DIGITS];
    double weights[DIGITS];
};

// Counts and weights of the logits whose order begins with `prefix` (above `shift` + `bits`), by their
// next digit of `bits` bits.
static void sum_digits(struct digit_sums *out, const struct row_view *v, uint32_t prefix, int shift,
                       int bits)
{
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < v->n; i++) {
        uint32_t order = order_of(v->logits[i]);
        if ((uint64_t)order >> (shift + bits) != prefix) continue;
        uint32_t digit = order >> shift & ((1u << bits) - 1);
        out->counts[digit]++;
        if (v->logits[i] > -INFINITY) out->weights[digit] += weight(v->logits[i], v->max);
    }
}

// The shortest beginning with at least n tokens, or where n is 0 with at least `want` of the weight.
static struct cut find_cut(const struct row_view *v, uint32_t n, double want)
{
    static const struct {
        int shift, bits;
    } level[] = {{21, 11}, {10, 11}, {0, 10}};
    struct digit_sums sums;
    struct cut c = {0};
    double above = 0;
    int d = 0;
    for (size_t l = 0; l < sizeof level / sizeof *level; l++) {
        sum_digits(&sums, v, c.order, level[l].shift, level[l].bits);
        int lowest = 0; // rounding may leave the weights short of what is wanted: then all are kept
        while (sums.counts[lowest] == 0) lowest++;
        for (d = (1 << level[l].bits) - 1; d > lowest; d--) {
            bool reached =
                n > 0 ? c.n_above + sums.counts[d] >= n : above + sums.weights[d] >= want;
            if (sums.counts[d] > 0 && reached) break;
            c.n_above += sums.counts[d];
            above += sums.weights[d];
        }
        c.order = c.order << level[l].bits | (uint32_t)d;
    }
    double each = sums.weights[d] / sums.counts[d];
    double need = n > 0 ? (double)(n - c.n_above) : ceil((want - above) / each);
    c.n_equal = need >= 1 && need < sums.counts[d] ? (uint32_t)need : need < 1 ? 1 : sums.counts[d];
    return c;
}

// Calls of this in id order say for each logit whether it is kept.
static bool is_kept(float x, const struct cut *c, uint32_t *n_equal_seen)
{
    uint32_t order = order_of(x);
    if (order != c->order) return order > c->order;
    return (*n_equal_seen)++ < c->n_equal;
}

static double kept_weight(const struct row_view *v, const struct cut *c, double temperature)
{
    double sum = 0;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < v->n; i++)
        if (is_kept(v->logits[i], c, &seen) && v->logits[i] > -INFINITY)
            sum += exp(((double)v->logits[i] - (double)v->max) / temperature);
    return sum;
}

static uint32_t cut_size(const struct cut *c)
{
    return c->n_above + c->n_equal;
}

// The first n; all where n is no smaller than the vocabulary.
static struct cut cut_to_count(const struct row_view *v, uint32_t n)
{
    if (n >= v->n) return (struct cut){.order = 0, .n_above = v->n};
    return find_cut(v, n, 0);
}

static struct cut kept_of_all(const struct row_view *v, const struct sampling *s)
{
    struct cut c = cut_to_count(v, s->top_k > 0 ? s->top_k : v->n);
    if (s->top_p < 1) {
        struct cut p = find_cut(v, 0, (double)s->top_p * kept_weight(v, &c, 1));
        if (cut_size(&p) < cut_size(&c)) c = p;
    }
    if (s->min_p > 0) {
        const double lowest = min_p_logit(v->max, s->min_p);
        uint32_t n = 0;
        for (uint32_t i = 0; i < v->n; i++) n += (double)v->logits[i] >= lowest;
        if (n < cut_size(&c)) c = cut_to_count(v, n > 0 ? n : 1);
    }
    return c;
}

int32_t sample_pick_full(const float *logits, uint32_t n_vocab, const struct sampling *s,
                         struct sample_rng *r, struct topk_row *scratch)
{
    static const struct topk_scan plain = {topk_find_above, topk_sum_exp};
    int32_t id;
    topk_select(&plain, logits, n_vocab, TOPK_MAX, scratch);
    if (sample_pick(scratch, s, r, &id)) return id;
    struct row_view v = {logits, n_vocab, scratch->logits[0]};
    const struct cut c = kept_of_all(&v, s);
    if (cut_size(&c) <= scratch->n) return draw_of_row(scratch, cut_size(&c), s->temperature, r);
    const double t = (double)s->temperature;
    const double target = next_uniform(r) * kept_weight(&v, &c, t);
    double cumulated = 0;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (!is_kept(logits[i], &c, &seen) || !(logits[i] > -INFINITY)) continue;
        cumulated += exp(((double)logits[i] - (double)v.max) / t);
        if (cumulated > target) return (int32_t)i;
    }
    return scratch->ids[0];
}

// ---- penalties and biases --------------------------------------------------------------------

// The entry of a token in out[n], or a new neutral one; NULL when there is no room.
static struct logit_adjust *entry_of(struct logit_adjust *out, size_t *n, size_t max, int32_t token,
                                     uint32_t out_row)
{
    for (size_t i = 0; i < *n; i++)
        if (out[i].token == token) return &out[i];
    if (*n == max) return NULL;
    out[*n] = (struct logit_adjust){.out_row = out_row, .token = token, .scale = 1};
    return &out[(*n)++];
}

size_t sample_adjust(const struct sampling *s, const struct token_count *counts, size_t n_counts,
                     const struct logit_bias *bias, size_t n_bias, uint32_t out_row,
                     struct logit_adjust *out, size_t max)
{
    size_t n = 0;
    const bool repeats = s->repeat_penalty > 0 && s->repeat_penalty != 1;
    const bool counted = repeats || s->presence_penalty != 0 || s->frequency_penalty != 0;
    for (size_t i = 0; counted && i < n_counts && n < max; i++) {
        const struct token_count *c = &counts[i];
        struct logit_adjust a = {.out_row = out_row, .token = c->id, .scale = 1};
        if (repeats && c->n_seen > 0) {
            a.divide = true;
            a.scale = s->repeat_penalty;
        }
        if (c->n_generated > 0)
            a.add = -s->presence_penalty - s->frequency_penalty * (float)c->n_generated;
        if (a.divide || a.add != 0) out[n++] = a;
    }
    for (size_t i = 0; i < n_bias; i++) {
        struct logit_adjust *a = entry_of(out, &n, max, bias[i].token, out_row);
        if (a != NULL) a->add += bias[i].bias;
    }
    return n;
}
