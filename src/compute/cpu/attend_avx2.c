// Attention and the element-wise kernels with AVX2, and the table of all AVX2 kernels. Scores and
// weighted values are vpmaddwd over int16, exact until the float operations of kernels.h, which are
// the same for one q vector or many.
#include "compute/cpu/attend_avx2.h"

#if defined(__AVX2__) // nothing on machines of another kind

#include <math.h>

#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_avx2.h"
#include "compute/cpu/tile_avx2.h"

#define INLINE static inline __attribute__((always_inline))

float avx2_quantize_head(const float *x, uint32_t n, int16_t *q)
{
    return avx2_quantize_vector(x, n, q, HEAD_MAX);
}

// ---- scores ---------------------------------------------------------------------------------

// n q vectors from i0 on times 16 keys of a page from slot on; on the way as many keys from `ahead`
// on (or NULL) are asked for.
INLINE void score_tile(struct attend_tile *t, const struct kv_unit *u, uint32_t slot, uint32_t i0,
                       uint32_t n, const int16_t *ahead, float *scores)
{
    __m256 total[TILE][2];
    for (uint32_t d = 0; d < t->head_dim; d += SUM_COLS) {
        const uint32_t left = t->head_dim - d, cols = left < SUM_COLS ? left : SUM_COLS;
        __m256i sum[TILE][2];
        tile_run(u->k + (size_t)d * PAGE_TOKENS + slot * 2, NULL, PAGE_TOKENS * 2 * sizeof *u->k,
                 t->q + i0 * t->head_dim + d, t->head_dim * sizeof *t->q, cols / 2,
                 ahead ? ahead + d * 16 : NULL, n, sum);
        for (uint32_t i = 0; i < n; i++) {
            for (int h = 0; h < 2; h++) {
                const __m256 s = _mm256_cvtepi32_ps(sum[i][h]);
                total[i][h] = d ? _mm256_add_ps(total[i][h], s) : s;
            }
        }
    }
    const __m256 s0 = _mm256_loadu_ps(u->k_scales + slot);
    const __m256 s1 = _mm256_loadu_ps(u->k_scales + slot + 8);
    for (uint32_t i = 0; i < n; i++) {
        const __m256 scale = _mm256_set1_ps(t->q_scale[i0 + i]);
        float *to = scores + (i0 + i) * KEY_BLOCK;
        _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_mul_ps(total[i][0], s0), scale));
        _mm256_storeu_ps(to + 8, _mm256_mul_ps(_mm256_mul_ps(total[i][1], s1), scale));
    }
}

// The first tile of vectors asks for the page's successor.
static void score_page(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *u,
                       const struct kv_unit *ahead, float *scores)
{
    for (uint32_t slot = 0; slot < PAGE_TOKENS; slot += 16) {
        const int16_t *half = ahead ? ahead->k + slot * t->head_dim : NULL;
        for (uint32_t i = first, n; i < end; i += n, half = NULL)
            score_tile(t, u, slot, i, n = tile_size(end - i), half, scores + slot);
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

// Scores, in units of log 2, become int16 weights; hidden keys, of which there are some unless `all` are seen,
// weigh exactly 0.
INLINE void soften_row(struct attend_tile *t, const struct kv_unit *units, uint32_t i,
                       const bool all)
{
    enum { VECTORS = KEY_BLOCK / 8 };
    const float *scores = t->scores + i * KEY_BLOCK;
    int16_t *probs = t->probs + i * KEY_BLOCK;
    const uint32_t n = t->n_visible[i];
    __m256 s[VECTORS], top = _mm256_set1_ps(t->max[i]);
#pragma GCC unroll 8
    for (uint32_t v = 0; v < VECTORS; v++) {
        s[v] = _mm256_loadu_ps(scores + v * 8);
        if (!all) s[v] = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), s[v], visible_mask(n, v));
        top = _mm256_max_ps(top, s[v]);
    }
    const float max = lanes_max(top);
    const __m256 max8 = _mm256_set1_ps(max);
    const __m256 shrink = lanes_exp2(_mm256_sub_ps(_mm256_set1_ps(t->max[i]), max8));
    __m256 sum = _mm256_mul_ps(_mm256_loadu_ps(t->sum[i]), shrink);
    __m256 prob_top = _mm256_setzero_ps();
#pragma GCC unroll 8
    for (uint32_t v = 0; v < VECTORS; v++) {
        const __m256 p = lanes_exp2_low(_mm256_sub_ps(s[v], max8));
        const float *scales = units[v * 8 / PAGE_TOKENS].v_scales + v * 8 % PAGE_TOKENS;
        sum = _mm256_add_ps(sum, p);
        s[v] = _mm256_mul_ps(p, _mm256_loadu_ps(scales));
        if (!all) s[v] = _mm256_and_ps(s[v], visible_mask(n, v));
        prob_top = _mm256_max_ps(prob_top, s[v]);
    }
    const float prob_max = lanes_max(prob_top);
    const __m256 inverse = _mm256_set1_ps(prob_max > 0 ? PROB_MAX / prob_max : 0.0f);
#pragma GCC unroll 4
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

static void soften(struct attend_tile *t, const struct kv_unit *units, uint32_t i)
{
    if (t->n_visible[i] == KEY_BLOCK) {
        soften_row(t, units, i, true);
    } else if (t->n_visible[i] > 0) {
        soften_row(t, units, i, false);
    } else {
        t->shrink[i] = 1;
        t->prob_scale[i] = 0;
        memset(t->probs + i * KEY_BLOCK, 0, KEY_BLOCK * sizeof *t->probs);
    }
}

// ---- weighted values ------------------------------------------------------------------------

// n q vectors from i0 on, 16 columns from d on, all keys of the block; as many values from `ahead`
// on (or NULL) are asked for.
INLINE void value_tile(struct attend_tile *t, const struct kv_unit *units, uint32_t n_pages,
                       uint32_t d, uint32_t i0, uint32_t n, const int16_t *ahead)
{
    __m256i sum[TILE][2];
    tile_run(units[0].v + 2 * d, n_pages > 1 ? units[1].v + 2 * d : NULL,
             2 * t->head_dim * sizeof *units->v, t->probs + i0 * KEY_BLOCK,
             KEY_BLOCK * sizeof *t->probs, PAGE_TOKENS / 2, ahead, n, sum);
    for (uint32_t i = 0; i < n; i++) {
        const __m256 shrink = _mm256_set1_ps(t->shrink[i0 + i]);
        const __m256 scale = _mm256_set1_ps(t->prob_scale[i0 + i]);
        float *out = t->out + (i0 + i) * t->head_dim + d;
        for (int h = 0; h < 2; h++, out += 8) {
            const __m256 old = _mm256_mul_ps(_mm256_loadu_ps(out), shrink);
            _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[i][h]), scale, old));
        }
    }
}

// What of the next block's values is asked for while columns d .. d + 15 are worked on: together
// all of them, in the order of memory.
static const int16_t *values_ahead(const struct attend_tile *t, uint32_t d)
{
    const uint32_t page = 2 * d / t->head_dim, page_d = d - page * t->head_dim / 2;
    return page < t->n_ahead ? t->ahead[page].v + page_d * KEY_BLOCK : NULL;
}

void avx2_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                 uint32_t n_pages)
{
    for (uint32_t p = 0; p < n_pages; p++)
        score_page(t, first, end, &units[p], p < t->n_ahead ? &t->ahead[p] : NULL,
                   t->scores + p * PAGE_TOKENS);
    for (uint32_t p = 0; p < t->n_ahead; p++)
        for (uint32_t i = 0; i < 2 * PAGE_TOKENS; i += LINE_BYTES / sizeof(float))
            _mm_prefetch((const char *)(t->ahead[p].k_scales + i), _MM_HINT_T0);
    struct kv_unit both[KEY_PAGES] = {units[0], units[n_pages - 1]};
    for (uint32_t i = first; i < end; i++) soften(t, both, i);
    for (uint32_t d = 0; d < t->head_dim; d += 16) {
        const int16_t *ahead = values_ahead(t, d);
        for (uint32_t i = first, n; i < end; i += n, ahead = NULL)
            value_tile(t, units, n_pages, d, i, n = tile_size(end - i), ahead);
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
    .numerics = 0x202,
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .keeps_panels = true,
    .split = avx2_split,
    .quantize_group = avx2_quantize_group,
    .packed_dot = avx2_packed_dot,
    .tile_open = avx2_tile_open,
    .tile_dot = avx2_tile_dot,
    .tiles_by_quads = true,
    .limits_pairs = true,
    .quantize_head = avx2_quantize_head,
    .attend = avx2_attend,
    .asks_ahead = true,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .scan = {avx2_find_above, avx2_sum_exp},
    .peak = avx2_peak,
    .peak_name = "vpmaddwd, int16 products into int32",
};

#endif
