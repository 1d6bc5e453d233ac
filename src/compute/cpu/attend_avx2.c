// Attention and the element-wise kernels with AVX2, and the table of all AVX2 kernels. Scores and
// weighted values are vpmaddwd over int16, exact until the float operations of kernels.h, which are
// the same for one q vector or many.
#include <math.h>

#include "compute/cpu/lanes.h"
#include "compute/cpu/linear_avx2.h"

#define INLINE static inline __attribute__((always_inline))

static float quantize_head(const float *x, uint32_t n, int16_t *q)
{
    return avx2_quantize_vector(x, n, q, HEAD_MAX);
}

// ---- scores ---------------------------------------------------------------------------------

// n q vectors (constant after inlining) times 16 keys of a page from slot on.
INLINE void score_tile(struct attend_tile *t, const struct kv_unit *u, uint32_t slot, uint32_t i0,
                       float *scores, const int n)
{
    __m256 total[4][2];
    const int16_t *q[4];
    for (int i = 0; i < n; i++) {
        total[i][0] = total[i][1] = _mm256_setzero_ps();
        q[i] = t->q + (i0 + (uint32_t)i) * t->head_dim;
    }
    for (uint32_t d0 = 0; d0 < t->head_dim; d0 += SUM_COLS) {
        const uint32_t end = t->head_dim < d0 + SUM_COLS ? t->head_dim : d0 + SUM_COLS;
        __m256i sum[4][2];
        for (int i = 0; i < n; i++) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
        const int16_t *k = u->k + (size_t)d0 * PAGE_TOKENS + slot * 2;
        for (uint32_t d = d0; d < end; d += 2, k += PAGE_TOKENS * 2) {
            const __m256i k0 = load_i(k), k1 = load_i(k + 16);
            for (int i = 0; i < n; i++) {
                const __m256i x = _mm256_set1_epi32(load_i32(q[i] + d));
                sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(k0, x));
                sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(k1, x));
            }
        }
        for (int i = 0; i < n; i++) {
            total[i][0] = _mm256_add_ps(total[i][0], _mm256_cvtepi32_ps(sum[i][0]));
            total[i][1] = _mm256_add_ps(total[i][1], _mm256_cvtepi32_ps(sum[i][1]));
        }
    }
    const __m256 s0 = _mm256_loadu_ps(u->k_scales + slot);
    const __m256 s1 = _mm256_loadu_ps(u->k_scales + slot + 8);
    for (int i = 0; i < n; i++) {
        const __m256 scale = _mm256_set1_ps(t->q_scale[i0 + (uint32_t)i]);
        float *to = scores + (i0 + (uint32_t)i) * KEY_BLOCK;
        _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_mul_ps(total[i][0], s0), scale));
        _mm256_storeu_ps(to + 8, _mm256_mul_ps(_mm256_mul_ps(total[i][1], s1), scale));
    }
}

static void score_page(struct attend_tile *t, const struct kv_unit *u, float *scores)
{
    for (uint32_t slot = 0; slot < PAGE_TOKENS; slot += 16) {
        uint32_t i = 0;
        for (; i + 4 <= t->n; i += 4) score_tile(t, u, slot, i, scores + slot, 4);
        for (; i + 2 <= t->n; i += 2) score_tile(t, u, slot, i, scores + slot, 2);
        for (; i < t->n; i++) score_tile(t, u, slot, i, scores + slot, 1);
    }
}

// ---- softmax --------------------------------------------------------------------------------

// Lanes of vector v whose key is visible.
INLINE __m256 visible_mask(uint32_t n_visible, uint32_t v)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i bound = _mm256_set1_epi32((int)n_visible - (int)(v * 8));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(bound, lane));
}

// Scores, in units of log 2, become int16 weights; hidden keys weigh exactly 0.
static void soften(struct attend_tile *t, const struct kv_unit *units, uint32_t i)
{
    enum { VECTORS = KEY_BLOCK / 8 };
    const float *scores = t->scores + i * KEY_BLOCK;
    int16_t *probs = t->probs + i * KEY_BLOCK;
    const uint32_t n = t->n_visible[i];
    t->shrink[i] = 1;
    t->prob_scale[i] = 0;
    if (n == 0) {
        memset(probs, 0, KEY_BLOCK * sizeof *probs);
        return;
    }
    __m256 s[VECTORS], mask[VECTORS];
    __m256 top = _mm256_set1_ps(t->max[i]);
    for (uint32_t v = 0; v < VECTORS; v++) {
        mask[v] = visible_mask(n, v);
        s[v] =
            _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_loadu_ps(scores + v * 8), mask[v]);
        top = _mm256_max_ps(top, s[v]);
    }
    const float max = lanes_max(top);
    const __m256 max8 = _mm256_set1_ps(max);
    const __m256 shrink = lanes_exp2(_mm256_sub_ps(_mm256_set1_ps(t->max[i]), max8));
    __m256 sum = _mm256_mul_ps(_mm256_loadu_ps(t->sum[i]), shrink);
    __m256 prob_top = _mm256_setzero_ps();
    for (uint32_t v = 0; v < VECTORS; v++) {
        const __m256 p = lanes_exp2(_mm256_sub_ps(s[v], max8));
        const float *scales = units[v * 8 / PAGE_TOKENS].v_scales + v * 8 % PAGE_TOKENS;
        sum = _mm256_add_ps(sum, p);
        s[v] = _mm256_and_ps(_mm256_mul_ps(p, _mm256_loadu_ps(scales)), mask[v]);
        prob_top = _mm256_max_ps(prob_top, s[v]);
    }
    const float prob_max = lanes_max(prob_top);
    const __m256 inverse = _mm256_set1_ps(prob_max > 0 ? PROB_MAX / prob_max : 0.0f);
    for (uint32_t v = 0; v < VECTORS; v += 2) {
        const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(s[v], inverse));
        const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(s[v + 1], inverse));
        store_i(probs + v * 8, lanes_pack_i16(a, b));
    }
    _mm256_storeu_ps(t->sum[i], sum);
    t->max[i] = max;
    t->shrink[i] = _mm256_cvtss_f32(shrink);
    t->prob_scale[i] = prob_max / PROB_MAX;
}

// ---- weighted values ------------------------------------------------------------------------

// n q vectors (constant after inlining), 16 columns from d on, all keys of the block.
INLINE void value_tile(struct attend_tile *t, const struct kv_unit *units, uint32_t n_pages,
                       uint32_t d, uint32_t i0, const int n)
{
    __m256i sum[4][2];
    for (int i = 0; i < n; i++) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (uint32_t page = 0; page < n_pages; page++) {
        const int16_t *v = units[page].v + 2 * d;
        const int16_t *p = t->probs + i0 * KEY_BLOCK + page * PAGE_TOKENS;
        for (uint32_t k = 0; k < PAGE_TOKENS; k += 2, v += 2 * t->head_dim) {
            const __m256i v0 = load_i(v), v1 = load_i(v + 16);
            for (int i = 0; i < n; i++) {
                const __m256i x = _mm256_set1_epi32(load_i32(p + i * KEY_BLOCK + k));
                sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(v0, x));
                sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(v1, x));
            }
        }
    }
    for (int i = 0; i < n; i++) {
        const uint32_t row = i0 + (uint32_t)i;
        const __m256 shrink = _mm256_set1_ps(t->shrink[row]);
        const __m256 scale = _mm256_set1_ps(t->prob_scale[row]);
        float *out = t->out + row * t->head_dim + d;
        for (int h = 0; h < 2; h++) {
            const __m256 old = _mm256_mul_ps(_mm256_loadu_ps(out + h * 8), shrink);
            const __m256 new = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[i][h]), scale, old);
            _mm256_storeu_ps(out + h * 8, new);
        }
    }
}

static void attend(struct attend_tile *t, const struct kv_unit *units, uint32_t n_pages)
{
    for (uint32_t p = 0; p < n_pages; p++) score_page(t, &units[p], t->scores + p * PAGE_TOKENS);
    struct kv_unit both[KEY_PAGES] = {units[0], units[n_pages - 1]};
    for (uint32_t i = 0; i < t->n; i++) soften(t, both, i);
    for (uint32_t d = 0; d < t->head_dim; d += 16) {
        uint32_t i = 0;
        for (; i + 4 <= t->n; i += 4) value_tile(t, units, n_pages, d, i, 4);
        for (; i + 2 <= t->n; i += 2) value_tile(t, units, n_pages, d, i, 2);
        for (; i < t->n; i++) value_tile(t, units, n_pages, d, i, 1);
    }
}

// ---- the rest -------------------------------------------------------------------------------

static void rms_norm(const float *x, const float *w, float *out, uint32_t n, float eps)
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

static void swiglu(const float *gate, const float *up, float *out, uint32_t n)
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
static double sum_exp(const float *x, uint32_t n, float max)
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

static uint32_t find_above(const float *x, uint32_t from, uint32_t n, float bound)
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
    .numerics = 0x200,
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .quantize_head = quantize_head,
    .attend = attend,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .scan = {find_above, sum_exp},
};
