// Attention with AVX-512 VNNI, and the table of all AVX-512 kernels. As in the AVX2 file scores and
// weighted values are exact sums of int16 products (here vpdpwssd), so it does not matter how many q
// vectors share a pass; up to 12 of them meet 32 keys or 32 columns of values in registers.
#include "compute/cpu/attend_avx2.h"

#if defined(__AVX512VNNI__) // nothing on machines of another kind

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_avx512.h"
#include "compute/cpu/tile_avx512.h"

#define INLINE static inline __attribute__((always_inline))

enum { WIDE = TILE_INPUTS };
#define EACH(i) _Pragma("GCC unroll 12") for (uint32_t i = 0; i < n; i++)

INLINE __m512i load_z(const void *p)
{
    return _mm512_loadu_si512(p);
}

// sum[i][h] += w's half h times pair i of n, `stride` int16s apart, for n_pairs of neighbours in memory.
INLINE void multiply(const int16_t *w, size_t w_stride, const int16_t *x, size_t x_stride,
                     uint32_t n_pairs, const uint32_t n, __m512i (*sum)[2])
{
    if (n == WIDE) {
        tile_multiply(w, w_stride * sizeof *w, x, x_stride * sizeof *x, n_pairs, sum);
        return;
    }
    for (uint32_t p = 0; p < n_pairs; p++, w += w_stride, x += 2) {
        const __m512i w0 = load_z(w), w1 = load_z(w + 32);
        EACH(i)
        {
            int32_t pair;
            memcpy(&pair, x + i * x_stride, sizeof pair);
            const __m512i both = _mm512_set1_epi32(pair);
            sum[i][0] = _mm512_dpwssd_epi32(sum[i][0], w0, both);
            sum[i][1] = _mm512_dpwssd_epi32(sum[i][1], w1, both);
        }
    }
}

// How many of n_left vectors the next tile takes.
INLINE uint32_t tile_rows(uint32_t n_left)
{
    return n_left >= WIDE ? WIDE : n_left >= 8 ? 8 : n_left >= 4 ? 4 : n_left >= 2 ? 2 : 1;
}

// ---- scores ---------------------------------------------------------------------------------

// n q vectors from i0 on times the 32 keys of a page.
INLINE void score_tile(struct attend_tile *t, const struct kv_unit *u, uint32_t i0,
                       const uint32_t n, float *scores)
{
    const uint32_t dim = t->head_dim;
    for (uint32_t d = 0; d < dim; d += SUM_COLS) {
        const uint32_t cols = dim - d < SUM_COLS ? dim - d : SUM_COLS;
        __m512i sum[WIDE][2];
        EACH(i) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
        multiply(u->k + (size_t)d * PAGE_TOKENS, PAGE_TOKENS * 2, t->q + i0 * dim + d, dim,
                 cols / 2, n, sum);
        EACH(i)
        {
            for (int h = 0; h < 2; h++) {
                float *to = scores + (i0 + i) * KEY_BLOCK + h * 16;
                __m512 s = _mm512_cvtepi32_ps(sum[i][h]);
                if (d) s = _mm512_add_ps(_mm512_loadu_ps(to), s);
                if (d + cols == dim) {
                    s = _mm512_mul_ps(s, _mm512_loadu_ps(u->k_scales + h * 16));
                    s = _mm512_mul_ps(s, _mm512_set1_ps(t->q_scale[i0 + i]));
                }
                _mm512_storeu_ps(to, s);
            }
        }
    }
}

static void score_page(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *u,
                       float *scores)
{
    for (uint32_t i = first, n; i < end; i += n) {
        switch (n = tile_rows(end - i)) {
        case 1: score_tile(t, u, i, 1, scores); break;
        case 2: score_tile(t, u, i, 2, scores); break;
        case 4: score_tile(t, u, i, 4, scores); break;
        case 8: score_tile(t, u, i, 8, scores); break;
        default: score_tile(t, u, i, WIDE, scores); break;
        }
    }
}

// ---- softmax --------------------------------------------------------------------------------

// 2^x, as lanes_exp2 does it: what lies below -126 gives 0.
INLINE __m512 exp2_z(__m512 x)
{
    const __m512 low = _mm512_set1_ps(-126.0f);
    const __mmask16 alive = _mm512_cmp_ps_mask(x, low, _CMP_GE_OQ);
    x = _mm512_min_ps(_mm512_max_ps(x, low), _mm512_set1_ps(127.0f));
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.5403530e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    const __m512i e = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(alive, _mm512_castps_si512(p), e));
}

// Scores, in units of log 2, become int16 weights; hidden keys weigh exactly 0.
void avx512_soften(struct attend_tile *t, const struct kv_unit *units, uint32_t i)
{
    enum { VECTORS = KEY_BLOCK / 16 };
    const float *scores = t->scores + i * KEY_BLOCK;
    int16_t *probs = t->probs + i * KEY_BLOCK;
    const uint32_t n = t->n_visible[i];
    t->shrink[i] = 1;
    t->prob_scale[i] = 0;
    if (n == 0) {
        memset(probs, 0, KEY_BLOCK * sizeof *probs);
        return;
    }
    const uint64_t visible = n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1;
    __m512 s[VECTORS], top = _mm512_set1_ps(t->max[i]);
    for (uint32_t v = 0; v < VECTORS; v++) {
        s[v] = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(visible >> v * 16),
                                    scores + v * 16);
        top = _mm512_max_ps(top, s[v]);
    }
    const float max = _mm512_reduce_max_ps(top);
    const __m512 max16 = _mm512_set1_ps(max);
    const __m512 shrink = exp2_z(_mm512_sub_ps(_mm512_set1_ps(t->max[i]), max16));
    __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(t->sum[i]), shrink), prob_top = _mm512_setzero_ps();
    for (uint32_t v = 0; v < VECTORS; v++) {
        const __m512 p = exp2_z(_mm512_sub_ps(s[v], max16));
        const float *scales = units[v * 16 / PAGE_TOKENS].v_scales + v * 16 % PAGE_TOKENS;
        sum = _mm512_add_ps(sum, p);
        s[v] = _mm512_maskz_mul_ps((__mmask16)(visible >> v * 16), p, _mm512_loadu_ps(scales));
        prob_top = _mm512_max_ps(prob_top, s[v]);
    }
    const float prob_max = _mm512_reduce_max_ps(prob_top);
    const __m512 inverse = _mm512_set1_ps(prob_max > 0 ? PROB_MAX / prob_max : 0.0f);
    for (uint32_t v = 0; v < VECTORS; v++)
        _mm256_storeu_si256(
            (__m256i *)(void *)(probs + v * 16),
            _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(s[v], inverse))));
    _mm512_storeu_ps(t->sum[i], sum);
    t->max[i] = max;
    t->shrink[i] = _mm512_cvtss_f32(shrink);
    t->prob_scale[i] = prob_max / PROB_MAX;
}

// ---- weighted values ------------------------------------------------------------------------

// 32 columns of the values from d on for n vectors from i0 on.
INLINE void value_tile(struct attend_tile *t, const struct kv_unit *units, uint32_t n_pages,
                       uint32_t d, uint32_t i0, const uint32_t n)
{
    __m512i sum[WIDE][2];
    EACH(i) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    for (uint32_t p = 0; p < n_pages; p++)
        multiply(units[p].v + d * 2, t->head_dim * 2, t->probs + i0 * KEY_BLOCK + p * PAGE_TOKENS,
                 KEY_BLOCK, PAGE_TOKENS / 2, n, sum);
    EACH(i)
    {
        const __m512 shrink = _mm512_set1_ps(t->shrink[i0 + i]);
        const __m512 scale = _mm512_set1_ps(t->prob_scale[i0 + i]);
        float *out = t->out + (i0 + i) * t->head_dim + d;
        for (int h = 0; h < 2; h++, out += 16) {
            const __m512 old = _mm512_mul_ps(_mm512_loadu_ps(out), shrink);
            _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][h]), scale, old));
        }
    }
}

static void add_values(struct attend_tile *t, uint32_t first, uint32_t end,
                       const struct kv_unit *units, uint32_t n_pages, uint32_t d)
{
    for (uint32_t i = first, n; i < end; i += n) {
        switch (n = tile_rows(end - i)) {
        case 1: value_tile(t, units, n_pages, d, i, 1); break;
        case 2: value_tile(t, units, n_pages, d, i, 2); break;
        case 4: value_tile(t, units, n_pages, d, i, 4); break;
        case 8: value_tile(t, units, n_pages, d, i, 8); break;
        default: value_tile(t, units, n_pages, d, i, WIDE); break;
        }
    }
}

void avx512_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                   uint32_t n_pages)
{
    for (uint32_t p = 0; p < n_pages; p++)
        score_page(t, first, end, &units[p], t->scores + p * PAGE_TOKENS);
    struct kv_unit both[KEY_PAGES] = {units[0], units[n_pages - 1]};
    for (uint32_t i = first; i < end; i++) avx512_soften(t, both, i);
    for (uint32_t d = 0; d < t->head_dim; d += 32) add_values(t, first, end, units, n_pages, d);
}

const struct cpu_kernels cpu_kernels_avx512 = {
    .isa = "AVX-512 VNNI",
    .numerics = 0x300,
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .keeps_panels = true,
    .split = avx2_split,
    .quantize_group = avx512_quantize_group,
    .packed_dot = avx512_packed_dot,
    .quantize_head = avx2_quantize_head,
    .attend = avx512_attend,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .scan = {avx2_find_above, avx2_sum_exp},
    .peak = avx512_peak,
    .peak_name = "vpdpbusd, int8 products into int32",
};

#endif
