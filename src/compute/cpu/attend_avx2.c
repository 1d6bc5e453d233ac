// Attention and the element-wise kernels with AVX2, and the table of all AVX2 kernels. Scores and
// weighted values are exact sums of 8-bit products (attend_bytes_avx2.h) until the float operations of kernels.h,
// which are the same for one q vector or many.
//
// Smaller integers than those of kernels.h keep sums of 16 bits exact. Neighbours in q (0 and 1, 2 and 3 ..) add up to
// QUERY_SUM at most; of a block's weights those of the sixteen keys of a page that meet in one sum,
// PROB_SUM. Rounding may add a half each. A second term has a scale of its own, found as the first one's.
#include "compute/cpu/attend_avx2.h"

#if defined(__AVX2__) // nothing on machines of another kind

#include <math.h>

#include "compute/cpu/attend_bytes_avx2.h"
#include "compute/cpu/attend_heads.h"
#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_avx2.h"

#define INLINE static inline __attribute__((always_inline))

#define EACH(i, n) _Pragma("GCC unroll 8") for (uint32_t i = 0; i < (n); i++)

enum {
    QUERY_SUM = 127,
    PROB_SUM = 246,
    LINE_BYTES = 64,
};

float avx2_quantize_head(const float *x, uint32_t n, int8_t *q)
{
    return head_quantize(x, n, q);
}

float avx2_quantize_query(const float *x, uint32_t n, int8_t *q, int32_t *bias)
{
    return head_quantize_query(x, n, 2, QUERY_SUM, q, bias);
}

void avx2_rotate_back(const float *x, uint32_t n, float by, float *out)
{
    head_rotate_back(x, n, by, out);
}

// ---- scores ---------------------------------------------------------------------------------

// The same as bytes_score of n vectors.
INLINE void score_few(const uint8_t *k, const int8_t *q, size_t stride, const uint32_t n,
                      bytes_sums s)
{
    const __m256i ones = _mm256_set1_epi16(1);
    EACH(h, 2)
    {
        const __m256i keys = load_i(k + 32 * h);
        EACH(i, n)
        {
            const __m256i x = _mm256_set1_epi32(load_i32(q + i * stride));
            const __m256i two = _mm256_maddubs_epi16(keys, x);
            s[2 * i + h] = _mm256_add_epi32(s[2 * i + h], _mm256_madd_epi16(two, ones));
        }
    }
}

// n q vectors from i0 on times 16 keys of a page from slot on; on the way two lines of `ahead` (or NULL) are
// asked for with every eight columns.
INLINE void score_tile(struct attend_tile *t, const struct kv_unit *u, uint32_t slot, uint32_t i0,
                       const uint32_t n, const uint8_t *ahead, float *scores)
{
    const int8_t *q = t->q + (size_t)i0 * t->head_dim;
    const uint8_t *k = u->k + slot * 4;
    const char *line = (const char *)(ahead ? ahead : k); // k is there anyway
    const size_t step = ahead ? LINE_BYTES : 0;
    bytes_sums s;
    EACH(i, 2 * n) s[i] = _mm256_set1_epi32(t->q_bias[i0 + i / 2]);
    for (uint32_t d = 0; d < t->head_dim; d += 4, k += PAGE_TOKENS * 4, line += step) {
        _mm_prefetch(line, _MM_HINT_T0);
        if (n == BYTES_ROWS)
            bytes_score(k, q + d, t->head_dim, s);
        else
            score_few(k, q + d, t->head_dim, n, s);
    }
    const __m256 s0 = _mm256_loadu_ps(u->k_scales + slot);
    const __m256 s1 = _mm256_loadu_ps(u->k_scales + slot + 8);
    EACH(i, n)
    {
        const __m256 scale = _mm256_set1_ps(t->q_scale[i0 + i]);
        const __m256 a = _mm256_cvtepi32_ps(s[2 * i]), b = _mm256_cvtepi32_ps(s[2 * i + 1]);
        float *to = scores + (i0 + i) * KEY_BLOCK;
        _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_mul_ps(a, s0), scale));
        _mm256_storeu_ps(to + 8, _mm256_mul_ps(_mm256_mul_ps(b, s1), scale));
    }
}

// How many of n_left vectors the next pass takes.
INLINE uint32_t pass_rows(uint32_t n_left)
{
    return n_left >= BYTES_ROWS ? BYTES_ROWS : n_left >= 2 ? 2 : 1;
}

// The first tile of vectors asks for the page's successor.
static void score_page(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *u,
                       const struct kv_unit *ahead, float *scores)
{
    for (uint32_t slot = 0; slot < PAGE_TOKENS; slot += BYTES_COLS) {
        const uint8_t *half = ahead ? ahead->k + (size_t)slot * t->head_dim : NULL;
        for (uint32_t i = first, n; i < end; i += n, half = NULL) {
            switch (n = pass_rows(end - i)) {
            case BYTES_ROWS: score_tile(t, u, slot, i, BYTES_ROWS, half, scores + slot); break;
            case 2: score_tile(t, u, slot, i, 2, half, scores + slot); break;
            default: score_tile(t, u, slot, i, 1, half, scores + slot); break;
            }
        }
    }
}

// ---- softmax --------------------------------------------------------------------------------

enum { VECTORS = KEY_BLOCK / 8 };

// Lanes of vector v whose key is visible.
INLINE __m256 visible_mask(uint32_t n_visible, uint32_t v)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i bound = _mm256_set1_epi32((int)n_visible - (int)(v * 8));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(bound, lane));
}

// Sums of the sixteen keys of each page that meet in one sum of 16 bits: keys 0, 1, 4, 5 .. and 2, 3, 6, 7 ..
INLINE __m128 sum_meeting(const __m256 *s)
{
    __m256 page[KEY_PAGES];
    EACH(p, KEY_PAGES)
    page[p] = _mm256_add_ps(_mm256_add_ps(s[4 * p], s[4 * p + 1]),
                            _mm256_add_ps(s[4 * p + 2], s[4 * p + 3]));
    const __m256 pairs = _mm256_hadd_ps(page[0], page[1]);
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

INLINE float max_4(__m128 v)
{
    v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)));
}
INLINE float sum_4(__m128 v)
{
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}

// Eight integers each to 32 bytes in order.
INLINE __m256i bytes_of(const __m256i *v)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i a = _mm256_packs_epi32(v[0], v[1]), b = _mm256_packs_epi32(v[2], v[3]);
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), order);
}

// Weights s by `inverse` to nearest integers; returns their sum.
INLINE uint32_t round_weights(const float *s, __m256 inverse, uint8_t *q)
{
    __m256i v[VECTORS], all = _mm256_setzero_si256();
    EACH(i, VECTORS) v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(s + 8 * i), inverse));
    EACH(p, KEY_PAGES)
    {
        const __m256i bytes = bytes_of(v + 4 * p);
        store_i(q + p * PAGE_TOKENS, bytes);
        all = _mm256_add_epi64(all, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
    }
    const __m128i half =
        _mm_add_epi64(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    return (uint32_t)_mm_cvtsi128_si32(half) + (uint32_t)_mm_extract_epi16(half, 4);
}

// Weights s by `inverse` cut to integers q; s becomes what is left.
INLINE void cut_weights(float *s, __m256 inverse, uint8_t *q)
{
    __m256i v[VECTORS];
    EACH(i, VECTORS)
    {
        const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(s + 8 * i), inverse);
        v[i] = _mm256_cvttps_epi32(x);
        _mm256_storeu_ps(s + 8 * i, _mm256_sub_ps(x, _mm256_cvtepi32_ps(v[i])));
    }
    EACH(p, KEY_PAGES) store_i(q + p * PAGE_TOKENS, bytes_of(v + 4 * p));
}

// What a vector's softmax over the block is known to be between the passes below.
struct softened {
    float shrink, top, total;
};

// The three passes of a vector. Each has little to wait for within a vector, so that the core works on the next
// vector meanwhile; in one pass it waits a fifth of the time.

// The largest score so far; hidden keys, of which there are some unless `all` are seen, become -INFINITY.
INLINE void find_max(struct attend_tile *t, uint32_t i, struct softened *x, const bool all)
{
    float *scores = t->scores + i * KEY_BLOCK;
    __m256 top = _mm256_set1_ps(-INFINITY);
    EACH(v, VECTORS)
    {
        __m256 s = _mm256_loadu_ps(scores + v * 8);
        if (!all) {
            const __m256 seen = visible_mask(t->n_visible[i], v);
            s = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), s, seen);
            _mm256_storeu_ps(scores + v * 8, s);
        }
        top = _mm256_max_ps(top, s);
    }
    const float old = t->max[i], found = lanes_max(top);
    t->max[i] = found > old ? found : old;
    x->shrink = _mm256_cvtss_f32(lanes_exp2(_mm256_set1_ps(old - t->max[i])));
}

// Scores, in units of log 2, become weights times values' scales; of hidden keys exactly 0.
INLINE void weigh(struct attend_tile *t, const struct kv_unit *units, uint32_t i,
                  struct softened *x, const bool all)
{
    float *scores = t->scores + i * KEY_BLOCK;
    const __m256 max = _mm256_set1_ps(t->max[i]);
    __m256 sum = _mm256_mul_ps(_mm256_loadu_ps(t->sum[i]), _mm256_set1_ps(x->shrink)), s[VECTORS];
    EACH(v, VECTORS)
    {
        const __m256 p = lanes_exp2_low(_mm256_sub_ps(_mm256_loadu_ps(scores + v * 8), max));
        const float *scales = units[v * 8 / PAGE_TOKENS].v_scales + v * 8 % PAGE_TOKENS;
        sum = _mm256_add_ps(sum, p);
        s[v] = _mm256_mul_ps(p, _mm256_loadu_ps(scales));
        if (!all) s[v] = _mm256_and_ps(s[v], visible_mask(t->n_visible[i], v));
        _mm256_storeu_ps(scores + v * 8, s[v]);
    }
    _mm256_storeu_ps(t->sum[i], sum);
    const __m128 meeting = sum_meeting(s);
    x->top = max_4(meeting);
    x->total = sum_4(meeting);
    t->mass[i] = t->mass[i] * x->shrink + x->total;
}

// Weights s, whose largest meeting sum and sum are these, to the nearest integers; returns their scale.
INLINE float put_rounded(const float *s, float top, float total, uint8_t *q)
{
    const float inverse = top > 0 ? PROB_SUM / top : 0.0f;
    const uint32_t all = round_weights(s, _mm256_set1_ps(inverse), q);
    return all > 0 ? total / (float)all : 0.0f;
}

// What cutting by `step` has left of vector i's weights, to a second term.
static void put_rest(struct attend_tile *t, uint32_t i, float step)
{
    const float *rest = t->scores + i * KEY_BLOCK;
    __m256 s[VECTORS];
    EACH(v, VECTORS) s[v] = _mm256_loadu_ps(rest + v * 8);
    const __m128 meeting = sum_meeting(s);
    const uint32_t at = add_term(&t->term[1], i, 0, 1);
    const float scale = put_rounded(rest, max_4(meeting), sum_4(meeting), t->term[1].q[at]);
    t->term[1].scale[at] = step * scale;
}

// These to one or two terms.
INLINE void put_terms(struct attend_tile *t, uint32_t i, const struct softened *x)
{
    float *s = t->scores + i * KEY_BLOCK;
    const float step = x->top * (1.0f / PROB_SUM);
    const uint32_t at = add_term(&t->term[0], i, step, x->shrink);
    uint8_t *q = t->term[0].q[at];
    if (step * TERM_BOUND > t->mass[i]) {
        cut_weights(s, _mm256_set1_ps(PROB_SUM / x->top), q);
        put_rest(t, i, step);
    } else {
        t->term[0].scale[at] = put_rounded(s, x->top, x->total, q);
    }
}

static void soften(struct attend_tile *t, const struct kv_unit *units, uint32_t first, uint32_t end)
{
    struct softened x[Q_TILE];
    for (uint32_t i = first; i < end; i++) {
        if (t->n_visible[i] == KEY_BLOCK)
            find_max(t, i, &x[i], true);
        else if (t->n_visible[i] > 0)
            find_max(t, i, &x[i], false);
    }
    for (uint32_t i = first; i < end; i++) {
        if (t->n_visible[i] == KEY_BLOCK)
            weigh(t, units, i, &x[i], true);
        else if (t->n_visible[i] > 0)
            weigh(t, units, i, &x[i], false);
    }
    for (uint32_t i = first; i < end; i++)
        if (t->n_visible[i] > 0) put_terms(t, i, &x[i]);
}

// ---- weighted values ------------------------------------------------------------------------

// The same as bytes_values of n vectors.
INLINE void values_few(const int8_t *v, size_t stride, const uint8_t *p, const uint32_t n,
                       bytes_sums s)
{
    EACH(i, 2 * n) s[i] = _mm256_setzero_si256();
    EACH(quad, PAGE_QUADS)
    {
        const __m256i v0 = load_i(v + quad * stride), v1 = load_i(v + quad * stride + 32);
        EACH(i, n)
        {
            const __m256i x = _mm256_set1_epi32(load_i32(p + i * KEY_BLOCK + 4 * quad));
            s[2 * i] = _mm256_add_epi16(s[2 * i], _mm256_maddubs_epi16(x, v0));
            s[2 * i + 1] = _mm256_add_epi16(s[2 * i + 1], _mm256_maddubs_epi16(x, v1));
        }
    }
}

INLINE void values_page(const int8_t *v, size_t stride, const uint8_t *p, const uint32_t n,
                        bytes_sums s)
{
    if (n == BYTES_ROWS)
        bytes_values(v, stride, p, s);
    else
        values_few(v, stride, p, n, s);
    EACH(i, 2 * n) s[i] = _mm256_madd_epi16(s[i], _mm256_set1_epi16(1));
}

// n vectors of a term from i0 on, 16 columns from d on, all keys of the block.
INLINE void value_tile(struct attend_tile *t, const struct attend_term *term,
                       const struct kv_unit *units, uint32_t n_pages, uint32_t d, uint32_t i0,
                       const uint32_t n)
{
    const size_t stride = (size_t)4 * t->head_dim;
    bytes_sums sum, second;
    values_page(units[0].v + 4 * d, stride, term->q[i0], n, sum);
    if (n_pages > 1) {
        values_page(units[1].v + 4 * d, stride, term->q[i0] + PAGE_TOKENS, n, second);
        EACH(i, 2 * n) sum[i] = _mm256_add_epi32(sum[i], second[i]);
    }
    EACH(i, n)
    {
        const __m256 shrink = _mm256_set1_ps(term->shrink[i0 + i]);
        const __m256 scale = _mm256_set1_ps(term->scale[i0 + i]);
        float *out = t->out + (size_t)term->row[i0 + i] * t->head_dim + d;
        EACH(h, 2)
        {
            const __m256 old = _mm256_mul_ps(_mm256_loadu_ps(out + 8 * h), shrink);
            const __m256 new = _mm256_cvtepi32_ps(sum[2 * i + h]);
            _mm256_storeu_ps(out + 8 * h, _mm256_fmadd_ps(new, scale, old));
        }
    }
}

// Asks for what of the next block's values lies where columns d .. d + 15 of this one's do.
static void ask_values(const struct attend_tile *t, uint32_t d)
{
    for (uint32_t p = 0; p < t->n_ahead; p++)
        for (uint32_t quad = 0; quad < PAGE_QUADS; quad++)
            _mm_prefetch((const char *)t->ahead[p].v + 4 * (quad * t->head_dim + d), _MM_HINT_T0);
}

static void add_values(struct attend_tile *t, const struct attend_term *term,
                       const struct kv_unit *units, uint32_t n_pages, uint32_t d)
{
    for (uint32_t i = 0, n; i < term->n; i += n) {
        switch (n = pass_rows(term->n - i)) {
        case BYTES_ROWS: value_tile(t, term, units, n_pages, d, i, BYTES_ROWS); break;
        case 2: value_tile(t, term, units, n_pages, d, i, 2); break;
        default: value_tile(t, term, units, n_pages, d, i, 1); break;
        }
    }
}

void avx2_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                 uint32_t n_pages)
{
    t->term[0].n = t->term[1].n = 0;
    for (uint32_t p = 0; p < n_pages; p++)
        score_page(t, first, end, &units[p], p < t->n_ahead ? &t->ahead[p] : NULL,
                   t->scores + p * PAGE_TOKENS);
    for (uint32_t p = 0; p < t->n_ahead; p++)
        for (uint32_t i = 0; i < 2 * PAGE_TOKENS; i += LINE_BYTES / sizeof(float))
            _mm_prefetch((const char *)(t->ahead[p].k_scales + i), _MM_HINT_T0);
    const struct kv_unit both[KEY_PAGES] = {units[0], units[n_pages - 1]};
    soften(t, both, first, end);
    for (uint32_t d = 0; d < t->head_dim; d += BYTES_COLS) {
        ask_values(t, d);
        for (int term = 0; term < 2; term++) add_values(t, &t->term[term], units, n_pages, d);
    }
}

// ---- the rest -------------------------------------------------------------------------------

void avx2_rms_norm(const float *x, const float *w, float *out, uint32_t n, float eps)
{
    __m256 sum = _mm256_setzero_ps();
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        sum = _mm256_fmadd_ps(v, v, sum);
    }
    float total = lanes_sum(sum);
    for (; i < n; i++) total += x[i] * x[i];
    const float scale = 1.0f / sqrtf(total / (float)n + eps);
    const __m256 scale8 = _mm256_set1_ps(scale);
    for (i = 0; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), scale8);
        _mm256_storeu_ps(out + i, _mm256_mul_ps(v, _mm256_loadu_ps(w + i)));
    }
    for (; i < n; i++) out[i] = x[i] * scale * w[i];
}

INLINE __m256 swiglu8(__m256 g, __m256 u)
{
    const __m256 e = lanes_exp2(_mm256_mul_ps(g, _mm256_set1_ps(-1.44269504f)));
    return _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), u);
}

void avx2_swiglu(const float *gate, const float *up, float *out, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, swiglu8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i == n) return;
    float g[8] = {0}, u[8] = {0};
    memcpy(g, gate + i, (n - i) * sizeof *g);
    memcpy(u, up + i, (n - i) * sizeof *u);
    _mm256_storeu_ps(g, swiglu8(_mm256_loadu_ps(g), _mm256_loadu_ps(u)));
    memcpy(out + i, g, (n - i) * sizeof *g);
}

// f32 sums over 4096 logits at most, collected in f64: relative error below 2^-18 in the worst case.
double avx2_sum_exp(const float *x, uint32_t n, float max)
{
    const __m256 max8 = _mm256_set1_ps(max), log2e = _mm256_set1_ps(1.44269504f);
    double total = 0;
    uint32_t i = 0;
    while (i + 8 <= n) {
        __m256 sum = _mm256_setzero_ps();
        const uint32_t end = n - i < 4096 ? n : i + 4096;
        for (; i + 8 <= end; i += 8) {
            const __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i), max8);
            sum = _mm256_add_ps(sum, lanes_exp2(_mm256_mul_ps(v, log2e)));
        }
        total += (double)lanes_sum(sum);
    }
    for (; i < n; i++) total += (double)expf(x[i] - max);
    return total;
}

uint32_t avx2_find_above(const float *x, uint32_t from, uint32_t n, float bound)
{
    const __m256 b = _mm256_set1_ps(bound);
    uint32_t i = from;
    for (; i + 8 <= n; i += 8) {
        const __m256 above = _mm256_cmp_ps(_mm256_loadu_ps(x + i), b, _CMP_GT_OQ);
        const int bits = _mm256_movemask_ps(above);
        if (bits) return i + (uint32_t)__builtin_ctz((unsigned)bits);
    }
    while (i < n && !(x[i] > bound)) i++;
    return i;
}

const struct cpu_kernels cpu_kernels_avx2 = {
    .isa = "AVX2",
    .numerics = 0x205,
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .keeps_panels = true,
    .quantize_group = avx2_quantize_group,
    .packed_dot = avx2_packed_dot,
    .tile_open = avx2_tile_open,
    .tile_dot = avx2_tile_dot,
    .tiles_by_quads = true,
    .limits_pairs = true,
    .quantize_head = avx2_quantize_head,
    .quantize_query = avx2_quantize_query,
    .rotate_back = avx2_rotate_back,
    .attend = avx2_attend,
    .asks_ahead = true,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .scan = {avx2_find_above, avx2_sum_exp},
    .peak = avx2_peak,
    .peak_name = "vpmaddubsw and vpaddw, int8 products into int16",
};

#endif
