// The CPU kernels in portable C: what kernels.h describes, for machines without a table of their own.
// Compiled with -ffp-contract=off: products and sums round separately everywhere.
#include "compute/cpu/kernels_c.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "compute/cpu/attend_heads.h"
#include "compute/cpu/unpack.h"
#include "kernels/common/decode.h"

static float abs_max(const float *x, uint32_t n)
{
    float m = 0;
    for (uint32_t i = 0; i < n; i++) m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}

// To nearest even, within the limit.
static int16_t to_int(float x, float inverse, int limit)
{
    const long v = lrintf(x * inverse);
    return (int16_t)(v > limit ? limit : v < -limit ? -limit : v);
}

static float quantize_vector(const float *x, uint32_t n, int16_t *q, int limit)
{
    const float max = abs_max(x, n), inverse = max > 0 ? (float)limit / max : 0.0f;
    for (uint32_t i = 0; i < n; i++) q[i] = to_int(x[i], inverse, limit);
    return max / (float)limit;
}

void c_quantize(const float *x, uint32_t n, int16_t *q, int16_t *sums, float *scales)
{
    for (uint32_t i = 0; i * BLOCK_K < n; i++, q += BLOCK_K, sums += 16) {
        const uint32_t cols = block_cols(n, i);
        memset(q, 0, BLOCK_K * sizeof *q);
        scales[i] = quantize_vector(x + i * BLOCK_K, cols, q, ACT_MAX);
        for (int g = 0; g < 16; g++) {
            int sum = 0;
            for (int j = 0; j < 16; j++) sum += q[g * 16 + j];
            sums[g] = (int16_t)sum;
        }
    }
}

// ---- weights --------------------------------------------------------------------------------

static void unpack_floats(enum fmt f, const uint8_t *p, uint32_t cols, struct row_block *out)
{
    float x[BLOCK_K];
    decode_row(f, p, x, cols);
    out->d[0] = quantize_vector(x, cols, out->w, WEIGHT_MAX);
}

static void unpack_32(enum fmt f, const uint8_t *p, uint32_t cols, struct row_block *out)
{
    for (uint32_t g = 0; g < cols / 32; g++, p += fmt_info[f].block_bytes) {
        int16_t *w = out->w + g * 32;
        out->d[g] = decode_f16(p);
        for (int i = 0; i < 32 && f == FMT_Q8_0; i++) w[i] = (int8_t)p[2 + i];
        for (int i = 0; i < 16 && f == FMT_Q4_0; i++) {
            w[i] = (int16_t)((p[2 + i] & 15) - 8);
            w[i + 16] = (int16_t)((p[2 + i] >> 4) - 8);
        }
    }
}

static void unpack_q45_k(enum fmt f, const uint8_t *p, struct row_block *out)
{
    const uint8_t *high = p + 16, *low = f == FMT_Q5_K ? p + 48 : p + 16;
    out->d[0] = decode_f16(p);
    out->dmin = decode_f16(p + 2);
    for (int g = 0; g < 8; g++) {
        int scale, min;
        decode_scale_min(p + 4, g, &scale, &min);
        out->min[2 * g] = out->min[2 * g + 1] = (int16_t)min;
        for (int i = 0; i < 32; i++) {
            int q = low[g / 2 * 32 + i] >> g % 2 * 4 & 15;
            if (f == FMT_Q5_K) q |= (high[i] >> g & 1) << 4;
            out->w[g * 32 + i] = (int16_t)(q * scale);
        }
    }
}

static void unpack_q6_k(const uint8_t *p, struct row_block *out)
{
    out->d[0] = decode_f16(p + 208);
    for (int i = 0; i < 256; i++) {
        const int half = i / 128, g = i % 128 / 32, l = i % 32;
        const int low = p[half * 64 + l + 32 * (g % 2)] >> g / 2 * 4 & 15;
        const int high = p[128 + half * 32 + l] >> 2 * g & 3;
        out->w[i] = (int16_t)(((low | high << 4) - 32) * (int8_t)p[192 + i / 16]);
    }
}

// Columns behind the row's end are left alone; nobody multiplies with them but panels, which are
// zeroed, and activations are zero there.
static void unpack(enum fmt f, const uint8_t *row, uint32_t i_block, uint32_t cols,
                   struct row_block *out)
{
    const uint8_t *p = row + fmt_row_bytes(f, (size_t)i_block * BLOCK_K);
    switch (f) {
    case FMT_F32:
    case FMT_F16:
    case FMT_BF16: unpack_floats(f, p, cols, out); break;
    case FMT_Q8_0:
    case FMT_Q4_0: unpack_32(f, p, cols, out); break;
    case FMT_Q4_K:
    case FMT_Q5_K: unpack_q45_k(f, p, out); break;
    case FMT_Q6_K: unpack_q6_k(p, out); break;
    default: unpack_rare(f, p, cols, out); break;
    }
}

void c_panel_expand(enum fmt f, const uint8_t *rows, size_t row_bytes, uint32_t n_rows,
                    uint32_t i_block, uint32_t n_k, struct panel_block *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t r = 0; r < n_rows; r++) {
        struct row_block b = {0};
        unpack(f, rows + r * row_bytes, i_block, block_cols(n_k, i_block), &b);
        for (int k = 0; k < BLOCK_K; k++) out->w[k / 2][r][k % 2] = b.w[k];
        for (int g = 0; g < 16; g++) out->min[g / 2][r][g % 2] = b.min[g];
        for (int s = 0; s < MAX_SUBS; s++) out->d[s][r] = b.d[s];
        out->dmin[r] = b.dmin;
    }
}

void c_panel_dot(enum fmt f, const struct panel_block *p, const struct acts *a, uint32_t i_block,
                 uint32_t n_k, uint32_t row0, uint32_t n_rows, float (*acc)[PANEL_ROWS])
{
    const uint32_t cols = block_cols(n_k, i_block), sub = sub_cols(f);
    for (uint32_t i = 0; i < n_rows; i++) {
        const size_t row = row0 + i;
        const int16_t *q = a->q + row * a->k_pad + i_block * BLOCK_K;
        const int16_t *sums = a->sums + row * (a->k_pad / 16) + i_block * 16;
        const float scale = a->scales[row * (a->k_pad / BLOCK_K) + i_block];
        for (uint32_t k0 = 0; k0 < cols; k0 += sub) {
            int32_t sum[PANEL_ROWS] = {0};
            for (uint32_t k = k0; k < k0 + sub && k < BLOCK_K; k++)
                for (int r = 0; r < PANEL_ROWS; r++) sum[r] += p->w[k / 2][r][k % 2] * q[k];
            for (int r = 0; r < PANEL_ROWS; r++)
                acc[i][r] += (float)sum[r] * p->d[k0 / sub][r] * scale;
        }
        for (int r = 0; r < PANEL_ROWS && has_min(f); r++) {
            int32_t sum = 0;
            for (int g = 0; g < 16; g++) sum += p->min[g / 2][r][g % 2] * sums[g];
            acc[i][r] -= (float)sum * p->dmin[r] * scale;
        }
    }
}

void c_row_dot(enum fmt f, const uint8_t *row, uint32_t n_k, const struct acts *a, uint32_t n_rows,
               float *out)
{
    const uint32_t sub = sub_cols(f), n_blocks = (n_k + BLOCK_K - 1) / BLOCK_K;
    for (uint32_t i = 0; i < n_rows; i++) out[i] = 0;
    for (uint32_t b = 0; b < n_blocks; b++) {
        struct row_block w;
        const uint32_t cols = block_cols(n_k, b);
        unpack(f, row, b, cols, &w);
        for (uint32_t i = 0; i < n_rows; i++) {
            const int16_t *q = a->q + (size_t)i * a->k_pad + b * BLOCK_K;
            const int16_t *sums = a->sums + (size_t)i * (a->k_pad / 16) + b * 16;
            const float scale = a->scales[i * (a->k_pad / BLOCK_K) + b];
            for (uint32_t k0 = 0; k0 < cols; k0 += sub) {
                int32_t sum = 0;
                for (uint32_t k = k0; k < k0 + sub && k < cols; k++) sum += w.w[k] * q[k];
                out[i] += (float)sum * w.d[k0 / sub] * scale;
            }
            int32_t min_sum = 0;
            for (int g = 0; g < 16 && has_min(f); g++) min_sum += w.min[g] * sums[g];
            if (has_min(f)) out[i] -= (float)min_sum * w.dmin * scale;
        }
    }
}

// ---- attention ------------------------------------------------------------------------------

static float c_quantize_head(const float *x, uint32_t n, int8_t *q)
{
    return head_quantize(x, n, q);
}

static float c_quantize_query(const float *x, uint32_t n, int8_t *q, int32_t *bias)
{
    return head_quantize_query(x, n, 1, HEAD_MAX, q, bias);
}

static void c_rotate_back(const float *x, uint32_t n, float by, float *out)
{
    head_rotate_back(x, n, by, out);
}

static void score_block(struct attend_tile *t, uint32_t first, uint32_t end,
                        const struct kv_unit *units, uint32_t n_pages)
{
    for (uint32_t i = first; i < end; i++) {
        const int8_t *q = t->q + i * t->head_dim;
        for (uint32_t key = 0; key < n_pages * PAGE_TOKENS; key++) {
            const struct kv_unit *u = &units[key / PAGE_TOKENS];
            const uint32_t slot = key % PAGE_TOKENS;
            uint32_t sum = (uint32_t)t->q_bias[i]; // which is anything where q is no number
            for (uint32_t d = 0; d < t->head_dim; d++)
                sum += (uint32_t)(q[d] * u->k[(d / 4 * PAGE_TOKENS + slot) * 4 + d % 4]);
            t->scores[i * KEY_BLOCK + key] =
                (float)(int32_t)sum * u->k_scales[slot] * t->q_scale[i];
        }
    }
}

// An integer of at most PROB_MAX; 0 where x is no number.
static uint8_t to_byte(float x)
{
    return (uint8_t)(x > 0 ? x : 0);
}

// s[n], weights times values' scales of which `top` is the largest, to one or two terms of vector i.
static void put_terms(struct attend_tile *t, uint32_t i, const float *s, uint32_t n, float top,
                      float shrink)
{
    const float step = top / PROB_MAX, inverse = top > 0x1p-100f ? PROB_MAX / top : 0;
    const bool two = step * TERM_BOUND > t->mass[i];
    float total = 0;
    uint32_t all = 0;
    for (uint32_t k = 0; k < n; k++) total += s[k];
    const uint32_t at = add_term(&t->term[0], i, step, shrink);
    uint8_t *q = t->term[0].q[at];
    memset(q, 0, KEY_BLOCK);
    for (uint32_t k = 0; k < n; k++) {
        q[k] = to_byte(two ? s[k] * inverse : rintf(s[k] * inverse));
        all += q[k];
    }
    if (!two && all > 0) t->term[0].scale[at] = total / (float)all;
    if (!two) return;
    uint8_t *low = t->term[1].q[add_term(&t->term[1], i, step / PROB_MAX, 1)];
    memset(low, 0, KEY_BLOCK);
    for (uint32_t k = 0; k < n; k++) low[k] = to_byte((s[k] * inverse - (float)q[k]) * PROB_MAX);
}

// Scores are in units of log 2.
static void soften(struct attend_tile *t, const struct kv_unit *units, uint32_t i)
{
    float *s = t->scores + i * KEY_BLOCK, max = t->max[i], top = 0, total = 0;
    const uint32_t n = t->n_visible[i];
    if (n == 0) return;
    for (uint32_t k = 0; k < n; k++) max = s[k] > max ? s[k] : max;
    const float shrink = exp2f(t->max[i] - max);
    t->max[i] = max;
    for (int lane = 0; lane < 8; lane++) t->sum[i][lane] *= shrink;
    for (uint32_t k = 0; k < n; k++) {
        const float prob = exp2f(s[k] - max);
        t->sum[i][k % 8] += prob;
        s[k] = prob * units[k / PAGE_TOKENS].v_scales[k % PAGE_TOKENS];
        top = s[k] > top ? s[k] : top;
        total += s[k];
    }
    t->mass[i] = t->mass[i] * shrink + total;
    put_terms(t, i, s, n, top, shrink);
}

static void add_values(struct attend_tile *t, const struct attend_term *term, uint32_t i,
                       const struct kv_unit *units, uint32_t n_pages)
{
    float *out = t->out + term->row[i] * t->head_dim;
    for (uint32_t d = 0; d < t->head_dim; d++) {
        int32_t sum = 0;
        for (uint32_t k = 0; k < n_pages * PAGE_TOKENS; k++) {
            const int8_t *v = units[k / PAGE_TOKENS].v;
            sum += term->q[i][k] * v[(k % PAGE_TOKENS / 4 * t->head_dim + d) * 4 + k % 4];
        }
        out[d] = out[d] * term->shrink[i] + (float)sum * term->scale[i];
    }
}

static void c_attend(struct attend_tile *t, uint32_t first, uint32_t end,
                     const struct kv_unit *units, uint32_t n_pages)
{
    t->term[0].n = t->term[1].n = 0;
    score_block(t, first, end, units, n_pages);
    for (uint32_t i = first; i < end; i++) soften(t, units, i);
    for (int term = 0; term < 2; term++)
        for (uint32_t i = 0; i < t->term[term].n; i++)
            add_values(t, &t->term[term], i, units, n_pages);
}

// ---- the rest -------------------------------------------------------------------------------

static void c_rms_norm(const float *x, const float *w, float *out, uint32_t n, float eps)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    const float scale = (float)(1.0 / sqrt(sum / n + (double)eps));
    for (uint32_t i = 0; i < n; i++) out[i] = x[i] * scale * w[i];
}

static void c_swiglu(const float *gate, const float *up, float *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static uint64_t c_peak(uint32_t n_rounds)
{
    enum { N = 256 };
    int16_t w[N], x[N];
    int32_t sum = 0;
    for (int i = 0; i < N; i++) w[i] = (int16_t)i, x[i] = (int16_t)(N - i);
    for (uint32_t r = 0; r < n_rounds; r++) {
        int32_t part = 0;
        __asm__ volatile("" : : "r"(w), "r"(x) : "memory"); // both are read again each round
        for (int i = 0; i < N; i++) part += w[i] * x[i];
        sum += part & 1;
    }
    __asm__ volatile("" : : "r"(sum));
    return (uint64_t)n_rounds * N;
}

const struct cpu_kernels cpu_kernels_c = {
    .isa = "portable",
    .numerics = 0x102,
    .quantize = c_quantize,
    .panel_expand = c_panel_expand,
    .panel_dot = c_panel_dot,
    .row_dot = c_row_dot,
    .quantize_head = c_quantize_head,
    .quantize_query = c_quantize_query,
    .rotate_back = c_rotate_back,
    .attend = c_attend,
    .rms_norm = c_rms_norm,
    .swiglu = c_swiglu,
    .scan = {topk_find_above, topk_sum_exp},
    .peak = c_peak,
    .peak_name = "int16 products in C",
};
