// Attention and the element-wise kernels on aarch64, and its two tables. Eight lanes are two registers;
// every float operation is that of attend_avx2.c, in the same order, so that results are equal bit for
// bit.
#include "compute/cpu/neon.h"

#if defined(__aarch64__) // nothing on machines of another kind

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "compute/cpu/kernels_c.h"

#define INLINE static inline __attribute__((always_inline))

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

// ---- int16 tiles --------------------------------------------------------------------------------

// Sixteen outputs for n inputs, as in tile_avx2.h; two inputs fill the registers.
enum { TILE_ROWS = 2 };

struct i16 {
    int32x4_t v[4];
};

INLINE void tile_pairs(const char *w, size_t w_stride, const char *q, size_t q_stride,
                       uint32_t n_pairs, const uint32_t n, struct i16 *out)
{
    int32x4_t sum[TILE_ROWS][8];
    for (uint32_t i = 0; i < n * 8; i++) sum[i / 8][i % 8] = vdupq_n_s32(0);
    for (uint32_t p = 0; p < n_pairs; p++, w += w_stride) {
        int16x8_t x[4];
        for (int j = 0; j < 4; j++) x[j] = vld1q_s16((const int16_t *)(const void *)w + 8 * j);
        for (uint32_t i = 0; i < n; i++) {
            int32_t both;
            memcpy(&both, q + i * q_stride + p * sizeof both, sizeof both);
            const int16x8_t pair = vreinterpretq_s16_s32(vdupq_n_s32(both));
            for (int j = 0; j < 4; j++) {
                sum[i][2 * j] = vmlal_s16(sum[i][2 * j], vget_low_s16(x[j]), vget_low_s16(pair));
                sum[i][2 * j + 1] = vmlal_high_s16(sum[i][2 * j + 1], x[j], pair);
            }
        }
    }
    for (uint32_t i = 0; i < n; i++)
        for (int j = 0; j < 4; j++) out[i].v[j] = vpaddq_s32(sum[i][2 * j], sum[i][2 * j + 1]);
}

INLINE void tile_run(const void *w, size_t w_stride, const void *q, size_t q_stride,
                     uint32_t n_pairs, uint32_t n, struct i16 *out)
{
    if (n == 1)
        tile_pairs(w, w_stride, q, q_stride, n_pairs, 1, out);
    else
        tile_pairs(w, w_stride, q, q_stride, n_pairs, TILE_ROWS, out);
}

// ---- scores -------------------------------------------------------------------------------------

// n <= TILE_ROWS q vectors from i0 on times 16 keys of a page from slot on.
INLINE void score_tile(struct attend_tile *t, const struct kv_unit *u, uint32_t slot, uint32_t i0,
                       uint32_t n, float *scores)
{
    float32x4_t total[TILE_ROWS][4];
    for (uint32_t d = 0; d < t->head_dim; d += SUM_COLS) {
        const uint32_t left = t->head_dim - d, cols = left < SUM_COLS ? left : SUM_COLS;
        struct i16 sum[TILE_ROWS];
        tile_run(u->k + (size_t)d * PAGE_TOKENS + slot * 2, PAGE_TOKENS * 2 * sizeof *u->k,
                 t->q + i0 * t->head_dim + d, t->head_dim * sizeof *t->q, cols / 2, n, sum);
        for (uint32_t i = 0; i < n; i++)
            for (int j = 0; j < 4; j++) {
                const float32x4_t s = vcvtq_f32_s32(sum[i].v[j]);
                total[i][j] = d ? vaddq_f32(total[i][j], s) : s;
            }
    }
    for (uint32_t i = 0; i < n; i++)
        for (int j = 0; j < 4; j++) {
            const float32x4_t scale = vld1q_f32(u->k_scales + slot + 4 * j);
            vst1q_f32(scores + (i0 + i) * KEY_BLOCK + 4 * j,
                      vmulq_n_f32(vmulq_f32(total[i][j], scale), t->q_scale[i0 + i]));
        }
}

static void score_page(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *u,
                       float *scores)
{
    for (uint32_t slot = 0; slot < PAGE_TOKENS; slot += 16)
        for (uint32_t i = first; i < end; i += TILE_ROWS)
            score_tile(t, u, slot, i, end - i < TILE_ROWS ? 1 : TILE_ROWS, scores + slot);
}

// ---- softmax ------------------------------------------------------------------------------------

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

INLINE int16x8_t f8_round(struct f8 x, float factor)
{
    return vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(x.a, factor))),
                        vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(x.b, factor))));
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
    struct f8 s[VECTORS], top = f8_set(t->max[i]);
    for (uint32_t v = 0; v < VECTORS; v++) {
        s[v] = f8_visible(f8_load(scores + v * 8), -INFINITY, n, v);
        top = f8_max(top, s[v]);
    }
    const float max = f8_top(top);
    const float shrink = vgetq_lane_f32(exp2_4(vdupq_n_f32(t->max[i] - max)), 0);
    struct f8 sum = f8_mul(f8_load(t->sum[i]), f8_set(shrink)), prob_top = f8_set(0);
    for (uint32_t v = 0; v < VECTORS; v++) {
        const struct f8 p = f8_exp2(f8_sub(s[v], f8_set(max)));
        const float *scales = units[v * 8 / PAGE_TOKENS].v_scales + v * 8 % PAGE_TOKENS;
        sum = f8_add(sum, p);
        s[v] = f8_visible(f8_mul(p, f8_load(scales)), 0, n, v);
        prob_top = f8_max(prob_top, s[v]);
    }
    const float prob_max = f8_top(prob_top);
    const float inverse = prob_max > 0 ? PROB_MAX / prob_max : 0.0f;
    for (uint32_t v = 0; v < VECTORS; v++) vst1q_s16(probs + v * 8, f8_round(s[v], inverse));
    f8_store(t->sum[i], sum);
    t->max[i] = max;
    t->shrink[i] = shrink;
    t->prob_scale[i] = prob_max / PROB_MAX;
}

// ---- weighted values ----------------------------------------------------------------------------

// n <= TILE_ROWS q vectors from i0 on, 16 columns from d on, all keys of the block.
INLINE void value_tile(struct attend_tile *t, const struct kv_unit *units, uint32_t n_pages,
                       uint32_t d, uint32_t i0, uint32_t n)
{
    struct i16 sum[KEY_PAGES][TILE_ROWS] = {0};
    for (uint32_t page = 0; page < n_pages; page++)
        tile_run(units[page].v + 2 * d, 2 * t->head_dim * sizeof *units->v,
                 t->probs + i0 * KEY_BLOCK + page * PAGE_TOKENS, KEY_BLOCK * sizeof *t->probs,
                 PAGE_TOKENS / 2, n, sum[page]);
    for (uint32_t i = 0; i < n; i++) {
        float *out = t->out + (i0 + i) * t->head_dim + d;
        for (int j = 0; j < 4; j++, out += 4) {
            int32x4_t s = sum[0][i].v[j];
            if (n_pages > 1) s = vaddq_s32(s, sum[1][i].v[j]);
            const float32x4_t old = vmulq_n_f32(vld1q_f32(out), t->shrink[i0 + i]);
            vst1q_f32(out, vfmaq_n_f32(old, vcvtq_f32_s32(s), t->prob_scale[i0 + i]));
        }
    }
}

void neon_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                 uint32_t n_pages)
{
    for (uint32_t p = 0; p < n_pages; p++)
        score_page(t, first, end, &units[p], t->scores + p * PAGE_TOKENS);
    const struct kv_unit both[KEY_PAGES] = {units[0], units[n_pages - 1]};
    for (uint32_t i = first; i < end; i++) soften(t, both, i);
    for (uint32_t d = 0; d < t->head_dim; d += 16)
        for (uint32_t i = first; i < end; i += TILE_ROWS)
            value_tile(t, units, n_pages, d, i, end - i < TILE_ROWS ? 1 : TILE_ROWS);
}

// ---- the rest -----------------------------------------------------------------------------------

float neon_quantize_head(const float *x, uint32_t n, int16_t *q)
{
    struct f8 m = f8_set(0);
    for (uint32_t i = 0; i < n; i += 8) {
        const struct f8 v = f8_load(x + i);
        m = f8_max(m, (struct f8){vabsq_f32(v.a), vabsq_f32(v.b)});
    }
    const float max = f8_top(m), inverse = max > 0 ? (float)HEAD_MAX / max : 0.0f;
    for (uint32_t i = 0; i < n; i += 8) vst1q_s16(q + i, f8_round(f8_load(x + i), inverse));
    return max / (float)HEAD_MAX;
}

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
enum { NEON_NUMERICS = 0x400 };

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
    .attend = neon_attend,
    .rms_norm = neon_rms_norm,
    .swiglu = neon_swiglu,
    .scan = {neon_find_above, neon_sum_exp},
    .peak = i8mm_peak,
    .peak_name = "smmla, int8 products into int32",
};

#endif
