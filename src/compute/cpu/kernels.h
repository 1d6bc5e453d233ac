// What the CPU backend computes with: one table of kernels per instruction set, and the data they
// share. All tables follow the same arithmetic:
//
// Linear, of weights that are not packed (those that are: repack.h). A row of activations is quantised once, in
// blocks of 256 columns, to int16 of at most ACT_MAX with one f32 scale a block. Weights become int16 too:
// the integers of the format, times its integer scales for K-quants (13 bits at most), so that a block of a
// weight row times a block of activations is an exact int32 sum, whatever the order. Floating point enters once a (sub-)block,
// in the order of k:   t = (float)sum * d;  acc = fma(t, activation scale, acc)
// and for formats with minimums then:   t = (float)min_sum * dmin;  acc = fma(-t, scale, acc)
// One row or many, alone or in a panel of 16 weight rows: the same operations per element, hence
// equal results bit for bit. Bounds: 4096 * 2047 * 256 < 2^31, 128 * 2047 * 32 < 2^31.
// F32, F16 and BF16 weights are brought to int16 by block like activations, at most WEIGHT_MAX.
//
// Attention. Heads of q, k and v are rotated (attend_heads.h: no column stands out any more, and the
// rotation of q and k cancels in their product), then 8-bit integers with one f32 scale a vector. Scores
// are exact int32 sums (255 * 127 * 512 < 2^31) times both scales. Softmax is online over absolute blocks
// of KEY_BLOCK keys. Weights times the values' scales become unsigned 8-bit integers per block, in steps
// of its largest weight by 255; where such a step is more than 1 / TERM_BOUND of all that the
// row has weighed so far, what the integers leave becomes a second term of 8 bits. So a weight is
// precise where it matters: in short texts, and where one key has most of the weight. A block with one term
// keeps the sum of its weights. A table may use smaller integers than these where its instructions want
// that (attend_avx2.c).
#pragma once

#include "compute/topk.h"

enum {
    BLOCK_K = 256,
    MAX_SUBS = 8,      // sub-blocks of 32 with their own f32 scale (Q8_0, Q4_0)
    PANEL_ROWS = 16,   // weight rows that are expanded together
    ROW_BATCH = 4,     // at most so many rows take the path without panels
    TOKEN_BLOCK = 120, // rows of activations that one pass over a panel serves
    ACT_MAX = 2047,
    WEIGHT_MAX = 4095,
    HEAD_MAX = 127,
    KEY_BIAS = 128, // keys are kept unsigned
    PROB_MAX = 255,
    TERM_BOUND = 1024,
    ACT_GROUP = 4,    // rows of activations that lie together for packed weights
    PACKED_ROWS = 12, // rows of activations that one pass over a packed panel serves
    PAGE_TOKENS = 32,
    KEY_BLOCK = 64, // two pages
    KEY_PAGES = KEY_BLOCK / PAGE_TOKENS,
    Q_TILE = 48, // q vectors (rows x heads of a group) that share a pass over the keys, at most
    MAX_HEAD_DIM = 512,
    SUM_LANES = 16,
};

// Quantised activations. k_pad: columns rounded up to BLOCK_K, the rest is zero.
struct acts {
    int16_t *q;    // [rows][k_pad]
    int16_t *sums; // [rows][k_pad / 16]: sums of 16 neighbours, for minimums (16 * 2047 < 2^15)
    float *scales; // [rows][k_pad / BLOCK_K]
    uint32_t k_pad;
};

// One block of one weight row.
struct row_block {
    _Alignas(32) int16_t w[BLOCK_K];
    _Alignas(32) int16_t min[16]; // the minimum of each 16 weights
    _Alignas(32) float d[MAX_SUBS];
    float dmin;
};

// One block of PANEL_ROWS weight rows, neighbours in k interleaved by row.
struct panel_block {
    _Alignas(64) int16_t w[BLOCK_K / 2][PANEL_ROWS][2];
    float d[MAX_SUBS][PANEL_ROWS];
    float dmin[PANEL_ROWS];
    int16_t min[8][PANEL_ROWS][2];
};

// Keys and values of one page and kv head, as they lie in memory.
struct kv_unit {
    uint8_t *k;      // [head_dim / 4][PAGE_TOKENS][4], KEY_BIAS added
    int8_t *v;       // [PAGE_TOKENS / 4][head_dim][4]
    float *k_scales; // [PAGE_TOKENS]
    float *v_scales; // [PAGE_TOKENS]
};

// The first or second term of a block's weights for some of a tile's q vectors.
struct attend_term {
    uint32_t n;
    uint32_t row[Q_TILE];         // the vector in the tile
    float scale[Q_TILE];          // of the integers
    float shrink[Q_TILE];         // what the vector's sums so far are multiplied with before
    uint8_t q[Q_TILE][KEY_BLOCK]; // hidden keys weigh 0
};

// Takes a vector in; returns where its weights go.
static inline uint32_t add_term(struct attend_term *t, uint32_t row, float scale, float shrink)
{
    t->row[t->n] = row;
    t->scale[t->n] = scale;
    t->shrink[t->n] = shrink;
    return t->n++;
}

// The state of Q_TILE q vectors on their way through the keys.
struct attend_tile {
    uint32_t n, head_dim;
    int8_t *q;                       // [Q_TILE][head_dim]
    int32_t q_bias[Q_TILE];          // -KEY_BIAS times the sum of q
    float *out;                      // [Q_TILE][head_dim]
    float *scores;                   // [Q_TILE][KEY_BLOCK]
    struct attend_term term[2];      // of this block
    struct kv_unit ahead[KEY_PAGES]; // of the block after this one, where the table asks_ahead
    uint32_t n_ahead;
    float q_scale[Q_TILE];
    float max[Q_TILE];
    float mass[Q_TILE];         // all weights times values' scales so far, as sums are shrunk
    uint32_t n_visible[Q_TILE]; // keys of this block that the row sees
    _Alignas(64) float sum[Q_TILE][SUM_LANES]; // of the weights, as the table spreads them
};

struct act_groups; // repack.h
struct act_tiles;  // tiles.h
struct weight_tile;

struct cpu_kernels {
    const char *isa;
    uint32_t numerics; // differs wherever results may
    // Weights that are not packed, of int16: quantize, panel_expand, panel_dot, row_dot. A table with packed_dot is
    // not asked for formats that are packed; one that keeps_panels, not for rows of floats.
    // x[n] to q[k_pad], sums and scales.
    void (*quantize)(const float *x, uint32_t n, int16_t *q, int16_t *sums, float *scales);
    // Block i_block of n_rows <= PANEL_ROWS weight rows (the rest becomes zero) of n_k columns.
    void (*panel_expand)(enum fmt f, const uint8_t *rows, size_t row_bytes, uint32_t n_rows,
                         uint32_t i_block, uint32_t n_k, struct panel_block *out);
    // acc[i][16] += that block times rows row0 + i of a, i < n_rows.
    void (*panel_dot)(enum fmt f, const struct panel_block *p, const struct acts *a,
                      uint32_t i_block, uint32_t n_k, uint32_t row0, uint32_t n_rows,
                      float (*acc)[PANEL_ROWS]);
    // out[i] = a weight row of n_k columns times row i of a, i < n_rows <= ROW_BATCH.
    void (*row_dot)(enum fmt f, const uint8_t *row, uint32_t n_k, const struct acts *a,
                    uint32_t n_rows, float *out);
    // Packed weights (repack.h), both or none. Up to ACT_GROUP rows x[i][n] to group number `group`.
    void (*quantize_group)(const float *const *x, uint32_t n_rows, uint32_t n,
                           const struct act_groups *to, uint32_t group);
    // out[i] = a packed panel of n_k columns times row i of the groups from `group` on,
    // i < n_rows <= PACKED_ROWS. Rows behind n_rows of the last group may be written too.
    void (*packed_dot)(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                       uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS]);
    // The same for many rows, both or none (tiles.h). A packed panel of n_blocks times 32 columns to `to`.
    void (*tile_open)(enum fmt f, const uint8_t *panel, uint32_t n_blocks, struct weight_tile *to);
    // out[i] = such a panel times row i of the chunk that begins with tile `tile`; up to whole tiles are written.
    void (*tile_dot)(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                     uint32_t tile, float (*out)[PANEL_ROWS]);
    bool tiles_by_quads; // how activations lie in act_tiles
    // Products of Q8_0 add two of 16 bits first, which limits the activations (repack.h).
    bool limits_pairs;
    // F32, F16 and BF16 weights are expanded to panels once, at load; panel_dot serves one row too.
    bool keeps_panels;
    // A head of k or v, rotated, to q[n]; returns the scale.
    float (*quantize_head)(const float *x, uint32_t n, int8_t *q);
    // The same of q, with q_bias.
    float (*quantize_query)(const float *x, uint32_t n, int8_t *q, int32_t *bias);
    // out[n] = x times `by`, rotated back.
    void (*rotate_back)(const float *x, uint32_t n, float by, float *out);
    // One block of keys for vectors [first, end) of t: scores, softmax, weighted values. n_pages of
    // units.
    void (*attend)(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                   uint32_t n_pages);
    // attend asks for t->ahead, a line at a time; where it does not, the caller asks before each call.
    bool asks_ahead;
    void (*rms_norm)(const float *x, const float *w, float *out, uint32_t n, float eps);
    void (*swiglu)(const float *gate, const float *up, float *out, uint32_t n);
    struct topk_scan scan;
    // The most products that the table's instructions can make and add up, n_rounds times over, in registers:
    // returns how many were made. The ceiling of `bench ops`; what a format or a sum wants besides is the
    // kernel's loss.
    uint64_t (*peak)(uint32_t n_rounds);
    const char *peak_name;
};

extern const struct cpu_kernels cpu_kernels_c;
extern const struct cpu_kernels cpu_kernels_avx2;
extern const struct cpu_kernels cpu_kernels_avxvnni;
extern const struct cpu_kernels cpu_kernels_avx512;
extern const struct cpu_kernels cpu_kernels_amx;
extern const struct cpu_kernels cpu_kernels_dotprod; // aarch64
extern const struct cpu_kernels cpu_kernels_i8mm;

// Columns that share an f32 scale (struct row_block's d): 32, or the whole block.
static inline uint32_t sub_cols(enum fmt f)
{
    switch (f) {
    case FMT_Q8_0:
    case FMT_Q4_0:
    case FMT_Q4_1:
    case FMT_Q5_0:
    case FMT_Q5_1:
    case FMT_IQ4_NL:
    case FMT_MXFP4: return 32;
    default: return BLOCK_K;
    }
}
// Weights are d * w - dmin * min.
static inline bool has_min(enum fmt f)
{
    return f == FMT_Q4_K || f == FMT_Q5_K || f == FMT_Q2_K || f == FMT_Q4_1 || f == FMT_Q5_1;
}
static inline uint32_t block_cols(uint32_t n_k, uint32_t i_block)
{
    const uint32_t left = n_k - i_block * BLOCK_K;
    return left < BLOCK_K ? left : BLOCK_K;
}
