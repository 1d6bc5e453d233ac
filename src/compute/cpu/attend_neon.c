// Attention and the element-wise kernels on aarch64, and its two tables, which share them. Scores and weighted
// values are exact sums of 8-bit products by SDOT until the float operations of kernels.h, which are the same
// for one q vector or many.
//
// SDOT takes signed bytes alone: keys have their top bit turned, which is KEY_BIAS, so that q_bias is not
// wanted; and a block's weights, in both terms, go up to PROB_SIGNED where kernels.h has PROB_MAX. USDOT would take
// all eight bits, and processors without i8mm would get other results.
#include "compute/cpu/neon.h"

#if defined(__ARM_FEATURE_DOTPROD) // nothing on machines of another kind

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "compute/cpu/attend_heads.h"
#include "compute/cpu/kernels_c.h"

#define INLINE static inline __attribute__((always_inline))

#define EACH(i, n) _Pragma("GCC unroll 16") for (uint32_t i = 0; i < (n); i++)

enum { PROB_SIGNED = 127 };

float neon_quantize_head(const float *x, uint32_t n, int8_t *q)
{
    return head_quantize(x, n, q);
}

float neon_quantize_query(const float *x, uint32_t n, int8_t *q, int32_t *bias)
{
    return head_quantize_query(x, n, 1, HEAD_MAX, q, bias);
}

void neon_rotate_back(const float *x, uint32_t n, float by, float *out)
{
    head_rotate_back(x, n, by, out);
}

// ---- eight lanes --------------------------------------------------------------------------------

struct f8 {
    float32x4_t a, b;
};

INLINE struct f8 f8_load(const float *p)
{
    return (struct f8){vld1q_f32(p), vld1q_f32(p + 4)};
}
INLINE void f8_store(float *p, struct f8 x)
{
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
}
INLINE struct f8 f8_set(float x)
{
    return (struct f8){vdupq_n_f32(x), vdupq_n_f32(x)};
}
INLINE struct f8 f8_add(struct f8 x, struct f8 y)
{
    return (struct f8){vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b)};
}
INLINE struct f8 f8_sub(struct f8 x, struct f8 y)
{
    return (struct f8){vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b)};
}
INLINE struct f8 f8_mul(struct f8 x, struct f8 y)
{
    return (struct f8){vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b)};
}
INLINE struct f8 f8_max(struct f8 x, struct f8 y)
{
    return (struct f8){vmaxq_f32(x.a, y.a), vmaxq_f32(x.b, y.b)};
}
// x * y + z, rounded once
INLINE struct f8 f8_fma(struct f8 x, struct f8 y, struct f8 z)
{
    return (struct f8){vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b)};
}
// In the order ((0+4)+(2+6)) + ((1+5)+(3+7)).
INLINE float f8_sum(struct f8 x)
{
    const float32x4_t s = vaddq_f32(x.a, x.b);
    const float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));
    return vget_lane_f32(t, 0) + vget_lane_f32(t, 1);
}
INLINE float f8_top(struct f8 x)
{
    return vmaxvq_f32(vmaxq_f32(x.a, x.b));
}

// As lanes_exp2 in lanes.h.
INLINE float32x4_t exp2_4(float32x4_t x)
{
    const float32x4_t low = vdupq_n_f32(-126.0f);
    const uint32x4_t alive = vcgeq_f32(x, low);
    x = vminq_f32(vmaxq_f32(x, low), vdupq_n_f32(127.0f));
    const float32x4_t n = vrndnq_f32(x), f = vsubq_f32(x, n);
    float32x4_t p = vdupq_n_f32(1.5403530e-4f);
    p = vfmaq_f32(vdupq_n_f32(1.3333558e-3f), p, f);
    p = vfmaq_f32(vdupq_n_f32(9.6181291e-3f), p, f);
    p = vfmaq_f32(vdupq_n_f32(5.5504109e-2f), p, f);
    p = vfmaq_f32(vdupq_n_f32(2.4022651e-1f), p, f);
    p = vfmaq_f32(vdupq_n_f32(6.9314718e-1f), p, f);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, f);
    const int32x4_t e = vshlq_n_s32(vcvtnq_s32_f32(n), 23);
    const int32x4_t y = vaddq_s32(vreinterpretq_s32_f32(p), e);
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_s32(y), alive));
}
INLINE struct f8 f8_exp2(struct f8 x)
{
    return (struct f8){exp2_4(x.a), exp2_4(x.b)};
}

// ---- products -----------------------------------------------------------------------------------

// A tile: n vectors by m registers of four outputs (keys, or columns of values), their sums in sixteen registers,
// of 32. With eight vectors, a register of keys is loaded and turned for eight products.
enum { TILE_SUMS = 16, TILE_ROWS = 8, DOT_INPUTS = 16 };

typedef int32x4_t tile_sums[TILE_SUMS];

// How many of n_left vectors the next tile takes, and its registers of outputs.
INLINE uint32_t tile_rows(uint32_t n_left)
{
    return n_left >= 8 ? 8 : n_left >= 4 ? 4 : n_left >= 2 ? 2 : 1;
}
INLINE uint32_t tile_regs(uint32_t n)
{
    return n >= 2 ? TILE_SUMS / n : 8;
}

INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t w, int8x16_t x, const uint32_t lane)
{
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, w, x, 0);
    case 1: return vdotq_laneq_s32(sum, w, x, 1);
    case 2: return vdotq_laneq_s32(sum, w, x, 2);
    default: return vdotq_laneq_s32(sum, w, x, 3);
    }
}

// s[i * m + j] += four inputs, those of `lane`, of vector i times those of the outputs 4 j .. 4 j + 3 at w.
INLINE void dot_four(const int8_t *w, const bool biased, const int8x16_t *x, const uint32_t lane,
                     const uint32_t n, tile_sums s)
{
    const uint32_t m = tile_regs(n);
    int8x16_t r[TILE_SUMS / 2];
    EACH(j, m) r[j] = vld1q_s8(w + 16 * j);
    EACH(j, m) if (biased) r[j] = veorq_s8(r[j], vdupq_n_s8(-KEY_BIAS));
    EACH(i, n)
    EACH(j, m) s[i * m + j] = dot_lane(s[i * m + j], r[j], x[i], lane);
}

// The same of sixteen inputs: vectors lie x_stride bytes apart, the outputs' next four inputs w_stride bytes.
INLINE void dot_tile(const void *w, size_t w_stride, const bool biased, const void *x,
                     size_t x_stride, const uint32_t n, tile_sums s)
{
    int8x16_t v[TILE_ROWS];
    EACH(i, n) v[i] = vld1q_s8((const int8_t *)x + i * x_stride);
    dot_four(w, biased, v, 0, n, s);
    dot_four((const int8_t *)w + w_stride, biased, v, 1, n, s);
    dot_four((const int8_t *)w + 2 * w_stride, biased, v, 2, n, s);
    dot_four((const int8_t *)w + 3 * w_stride, biased, v, 3, n, s);
}

// ---- scores -------------------------------------------------------------------------------------

// n q vectors from i0 on times a page's keys.
INLINE void score_rows(struct attend_tile *t, const struct kv_unit *u, uint32_t i0,
                       const uint32_t n, float *scores)
{
    const uint32_t m = tile_regs(n);
    const int8_t *q = t->q + (size_t)i0 * t->head_dim;
    for (uint32_t slot = 0; slot < PAGE_TOKENS; slot += 4 * m) {
        tile_sums s;
        EACH(i, n * m) s[i] = vdupq_n_s32(0);
        for (uint32_t d = 0; d < t->head_dim; d += DOT_INPUTS)
            dot_tile(u->k + (size_t)d * PAGE_TOKENS + slot * 4, PAGE_TOKENS * 4, true, q + d,
                     t->head_dim, n, s);
        EACH(i, n)
        EACH(j, m)
        {
            const float32x4_t by_key =
                vmulq_f32(vcvtq_f32_s32(s[i * m + j]), vld1q_f32(u->k_scales + slot + 4 * j));
            vst1q_f32(scores + (i0 + i) * KEY_BLOCK + slot + 4 * j,
                      vmulq_n_f32(by_key, t->q_scale[i0 + i]));
        }
    }
}

static void score_page(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *u,
                       float *scores)
{
    for (uint32_t i = first, n; i < end; i += n) {
        switch (n = tile_rows(end - i)) {
        case 8: score_rows(t, u, i, 8, scores); break;
        case 4: score_rows(t, u, i, 4, scores); break;
        case 2: score_rows(t, u, i, 2, scores); break;
        default: score_rows(t, u, i, 1, scores); break;
        }
    }
}

// ---- softmax ------------------------------------------------------------------------------------

enum { VECTORS = KEY_BLOCK / 8 };

// x where the key of lane `first` and after is visible, otherwise `hidden`.
INLINE float32x4_t where_visible(float32x4_t x, float hidden, uint32_t n_visible, uint32_t first)
{
    static const int32_t lanes[4] = {0, 1, 2, 3};
    const int32x4_t bound = vdupq_n_s32((int32_t)n_visible - (int32_t)first);
    return vbslq_f32(vcgtq_s32(bound, vld1q_s32(lanes)), x, vdupq_n_f32(hidden));
}
INLINE struct f8 f8_visible(struct f8 x, float hidden, uint32_t n_visible, uint32_t v)
{
    return (struct f8){where_visible(x.a, hidden, n_visible, v * 8),
                       where_visible(x.b, hidden, n_visible, v * 8 + 4)};
}

struct ints {
    int32x4_t a, b;
};

// Sixteen integers to bytes in order, within 127.
INLINE int8x16_t bytes_of(const struct ints *v)
{
    const int16x8_t low = vcombine_s16(vqmovn_s32(v[0].a), vqmovn_s32(v[0].b));
    const int16x8_t high = vcombine_s16(vqmovn_s32(v[1].a), vqmovn_s32(v[1].b));
    return vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
}

// Weights s by `inverse` to nearest integers; returns their sum.
INLINE int32_t round_weights(const struct f8 *s, float inverse, uint8_t *q)
{
    int32x4_t all = vdupq_n_s32(0);
    EACH(v, VECTORS / 2)
    {
        struct ints x[2];
        EACH(h, 2)
        {
            const struct f8 y = f8_mul(s[2 * v + h], f8_set(inverse));
            x[h] = (struct ints){vcvtnq_s32_f32(y.a), vcvtnq_s32_f32(y.b)};
        }
        const int8x16_t bytes = bytes_of(x);
        vst1q_u8(q + 16 * v, vreinterpretq_u8_s8(bytes));
        all = vdotq_s32(all, bytes, vdupq_n_s8(1));
    }
    return vaddvq_s32(all);
}

// x is cut to integers; what is left of it by PROB_SIGNED, cut too, is returned.
INLINE int32x4_t cut_4(float32x4_t x, int32x4_t *cut)
{
    *cut = vcvtq_s32_f32(x);
    return vcvtq_s32_f32(vmulq_n_f32(vsubq_f32(x, vcvtq_f32_s32(*cut)), PROB_SIGNED));
}

// Weights s by `inverse` cut to integers q, and what is left by PROB_SIGNED to integers low.
INLINE void cut_weights(const struct f8 *s, float inverse, uint8_t *q, uint8_t *low)
{
    EACH(v, VECTORS / 2)
    {
        struct ints x[2], rest[2];
        EACH(h, 2)
        {
            const struct f8 y = f8_mul(s[2 * v + h], f8_set(inverse));
            rest[h].a = cut_4(y.a, &x[h].a);
            rest[h].b = cut_4(y.b, &x[h].b);
        }
        vst1q_u8(q + 16 * v, vreinterpretq_u8_s8(bytes_of(x)));
        vst1q_u8(low + 16 * v, vreinterpretq_u8_s8(bytes_of(rest)));
    }
}

// Weights times values' scales, of vector i, to one or two terms.
INLINE void put_terms(struct attend_tile *t, uint32_t i, const struct f8 *s, float shrink)
{
    struct f8 sum = s[0], most = s[0];
    for (uint32_t v = 1; v < VECTORS; v++) {
        sum = f8_add(sum, s[v]);
        most = f8_max(most, s[v]);
    }
    const float total = f8_sum(sum), top = f8_top(most), step = top / PROB_SIGNED;
    const float inverse = top > 0 ? PROB_SIGNED / top : 0.0f;
    t->mass[i] = t->mass[i] * shrink + total;
    const uint32_t at = add_term(&t->term[0], i, step, shrink);
    if (step * TERM_BOUND > t->mass[i]) {
        const uint32_t low = add_term(&t->term[1], i, step / PROB_SIGNED, 1);
        cut_weights(s, inverse, t->term[0].q[at], t->term[1].q[low]);
    } else {
        const int32_t all = round_weights(s, inverse, t->term[0].q[at]);
        if (all > 0) t->term[0].scale[at] = total / (float)all;
    }
}

// Scores, in units of log 2, become weights; hidden keys, of which there are some unless `all` are seen,
// weigh exactly 0.
INLINE void soften_row(struct attend_tile *t, const struct kv_unit *units, uint32_t i,
                       const bool all)
{
    const float *scores = t->scores + i * KEY_BLOCK;
    const uint32_t n = t->n_visible[i];
    struct f8 s[VECTORS], top = f8_set(t->max[i]);
    EACH(v, VECTORS)
    {
        s[v] = f8_load(scores + v * 8);
        if (!all) s[v] = f8_visible(s[v], -INFINITY, n, v);
        top = f8_max(top, s[v]);
    }
    const float max = f8_top(top);
    const float shrink = vgetq_lane_f32(exp2_4(vdupq_n_f32(t->max[i] - max)), 0);
    struct f8 sum = f8_mul(f8_load(t->sum[i]), f8_set(shrink));
    EACH(v, VECTORS)
    {
        const struct f8 p = f8_exp2(f8_sub(s[v], f8_set(max)));
        const float *scales = units[v * 8 / PAGE_TOKENS].v_scales + v * 8 % PAGE_TOKENS;
        sum = f8_add(sum, p);
        s[v] = f8_mul(p, f8_load(scales));
        if (!all) s[v] = f8_visible(s[v], 0, n, v);
    }
    f8_store(t->sum[i], sum);
    t->max[i] = max;
    put_terms(t, i, s, shrink);
}

static void soften(struct attend_tile *t, const struct kv_unit *units, uint32_t i)
{
    if (t->n_visible[i] == KEY_BLOCK)
        soften_row(t, units, i, true);
    else if (t->n_visible[i] > 0)
        soften_row(t, units, i, false);
}

// ---- weighted values ----------------------------------------------------------------------------

// n vectors of a term from i0 on times all values of the block.
INLINE void value_rows(struct attend_tile *t, const struct attend_term *term,
                       const struct kv_unit *units, uint32_t n_pages, uint32_t i0, const uint32_t n)
{
    const uint32_t m = tile_regs(n);
    const size_t dim = t->head_dim;
    for (uint32_t d = 0; d < dim; d += 4 * m) {
        tile_sums s;
        EACH(i, n * m) s[i] = vdupq_n_s32(0);
        for (uint32_t key = 0; key < n_pages * PAGE_TOKENS; key += DOT_INPUTS)
            dot_tile(units[key / PAGE_TOKENS].v + key % PAGE_TOKENS * dim + 4 * d, 4 * dim, false,
                     term->q[i0] + key, KEY_BLOCK, n, s);
        EACH(i, n)
        EACH(j, m)
        {
            float *out = t->out + term->row[i0 + i] * dim + d + 4 * j;
            const float32x4_t old = vmulq_n_f32(vld1q_f32(out), term->shrink[i0 + i]);
            vst1q_f32(out, vfmaq_n_f32(old, vcvtq_f32_s32(s[i * m + j]), term->scale[i0 + i]));
        }
    }
}

static void add_values(struct attend_tile *t, const struct attend_term *term,
                       const struct kv_unit *units, uint32_t n_pages)
{
    for (uint32_t i = 0, n; i < term->n; i += n) {
        switch (n = tile_rows(term->n - i)) {
        case 8: value_rows(t, term, units, n_pages, i, 8); break;
        case 4: value_rows(t, term, units, n_pages, i, 4); break;
        case 2: value_rows(t, term, units, n_pages, i, 2); break;
        default: value_rows(t, term, units, n_pages, i, 1); break;
        }
    }
}

void neon_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                 uint32_t n_pages)
{
    t->term[0].n = t->term[1].n = 0;
    for (uint32_t p = 0; p < n_pages; p++)
        score_page(t, first, end, &units[p], t->scores + p * PAGE_TOKENS);
    const struct kv_unit both[KEY_PAGES] = {units[0], units[n_pages - 1]};
    for (uint32_t i = first; i < end; i++) soften(t, both, i);
    for (int term = 0; term < 2; term++) add_values(t, &t->term[term], units, n_pages);
}

// ---- the rest -----------------------------------------------------------------------------------

void neon_rms_norm(const float *x, const float *w, float *out, uint32_t n, float eps)
{
    struct f8 sum = f8_set(0);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const struct f8 v = f8_load(x + i);
        sum = f8_fma(v, v, sum);
    }
    float total = f8_sum(sum);
    for (; i < n; i++) total += x[i] * x[i];
    const float scale = 1.0f / sqrtf(total / (float)n + eps);
    for (i = 0; i + 8 <= n; i += 8)
        f8_store(out + i, f8_mul(f8_mul(f8_load(x + i), f8_set(scale)), f8_load(w + i)));
    for (; i < n; i++) out[i] = x[i] * scale * w[i];
}

INLINE float32x4_t swiglu_4(float32x4_t g, float32x4_t u)
{
    const float32x4_t e = exp2_4(vmulq_n_f32(g, -1.44269504f));
    return vmulq_f32(vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), e)), u);
}

void neon_swiglu(const float *gate, const float *up, float *out, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, swiglu_4(vld1q_f32(gate + i), vld1q_f32(up + i)));
    if (i == n) return;
    float g[4] = {0}, u[4] = {0};
    memcpy(g, gate + i, (n - i) * sizeof *g);
    memcpy(u, up + i, (n - i) * sizeof *u);
    vst1q_f32(g, swiglu_4(vld1q_f32(g), vld1q_f32(u)));
    memcpy(out + i, g, (n - i) * sizeof *g);
}

// f32 sums over 4096 logits at most, collected in f64.
double neon_sum_exp(const float *x, uint32_t n, float max)
{
    double total = 0;
    uint32_t i = 0;
    while (i + 8 <= n) {
        struct f8 sum = f8_set(0);
        const uint32_t end = n - i < 4096 ? n : i + 4096;
        for (; i + 8 <= end; i += 8) {
            const struct f8 v = f8_sub(f8_load(x + i), f8_set(max));
            sum = f8_add(sum, f8_exp2(f8_mul(v, f8_set(1.44269504f))));
        }
        total += (double)f8_sum(sum);
    }
    for (; i < n; i++) total += (double)expf(x[i] - max);
    return total;
}

uint32_t neon_find_above(const float *x, uint32_t from, uint32_t n, float bound)
{
    uint32_t i = from;
    for (; i + 4 <= n; i += 4)
        if (vmaxvq_u32(vcgtq_f32(vld1q_f32(x + i), vdupq_n_f32(bound)))) break;
    while (i < n && !(x[i] > bound)) i++;
    return i;
}

// Both tables give the same results: one number.
enum { NEON_NUMERICS = 0x402 };

const struct cpu_kernels cpu_kernels_dotprod = {
    .isa = "NEON dotprod",
    .numerics = NEON_NUMERICS,
    .quantize = c_quantize,
    .panel_expand = c_panel_expand,
    .panel_dot = c_panel_dot,
    .row_dot = c_row_dot,
    .quantize_group = dotprod_quantize_group,
    .packed_dot = dotprod_packed_dot,
    .quantize_head = neon_quantize_head,
    .quantize_query = neon_quantize_query,
    .rotate_back = neon_rotate_back,
    .attend = neon_attend,
    .rms_norm = neon_rms_norm,
    .swiglu = neon_swiglu,
    .scan = {neon_find_above, neon_sum_exp},
    .peak = dotprod_peak,
    .peak_name = "sdot, int8 products into int32",
};

const struct cpu_kernels cpu_kernels_i8mm = {
    .isa = "NEON i8mm",
    .numerics = NEON_NUMERICS,
    .quantize = c_quantize,
    .panel_expand = c_panel_expand,
    .panel_dot = c_panel_dot,
    .row_dot = c_row_dot,
    .quantize_group = dotprod_quantize_group,
    .packed_dot = i8mm_packed_dot,
    .quantize_head = neon_quantize_head,
    .quantize_query = neon_quantize_query,
    .rotate_back = neon_rotate_back,
    .attend = neon_attend,
    .rms_norm = neon_rms_norm,
    .swiglu = neon_swiglu,
    .scan = {neon_find_above, neon_sum_exp},
    .peak = i8mm_peak,
    .peak_name = "smmla, int8 products into int32",
};

#endif
