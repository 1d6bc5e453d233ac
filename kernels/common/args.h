// The arguments of every kernel: one plain struct each, the same text for the host
// and the device. Addresses are device addresses. A row of activations starts every
// row_stride(n_cols) elements, and its padding holds zeros.
#pragma once

#include <stdint.h>

enum { ROW_ALIGN = 256 };

static inline
#if defined(__CUDACC__) || defined(__HIP__)
    __host__ __device__
#endif
        uint32_t
        row_stride(uint32_t n_cols)
{
    return (n_cols + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN;
}

// Packed weights from a GGUF matrix: panels [panel0, panel0 + n_panels) of 16 rows each; `raw` starts
// at the first of these rows.
struct args_repack {
    const void *raw;
    void *packed;
    uint32_t fmt, n_rows, n_cols, panel0, n_panels, row_bytes;
};

// f16 rows [n_rows padded to 16][n_units * 256] from packed weights (values times PACK_SCALE).
struct args_dequant {
    const void *packed;
    void *out;
    uint32_t n_panels, n_units;
};

// Products in e4m3 (kernels/cuda/fp8.cu): a row of weights or activations is held as bytes times a scale of its
// own, E4M3_MAX being the row's largest value.
#define E4M3_MAX 448.0f
// scales f32 [n_panels * 16] of packed weights, from the rows' largest values.
struct args_peak {
    const void *packed;
    float *scales;
    uint32_t n_panels, n_units;
};
// e4m3 rows [n_panels * 16][n_units * 256] of packed weights, by those scales.
struct args_dequant8 {
    const void *packed;
    const float *scales;
    void *out;
    uint32_t n_panels, n_units;
};
// A product of e4m3 rows may leave its sums times RAW_SCALE in f16, which no sum of 32,768 products passes: element
// j of row i is then that over RAW_SCALE times the row's scale and columns[j]. The scales of its rows are those
// that the kernel that takes the product up writes its own to. Rows before n_plain are in f16 throughout.
#define RAW_SCALE (1.0f / 65536.0f)
// The norm of f32 rows, as e4m3 with a scale a row; the first n_plain rows also as f16 to `plain`. With raw, such
// a product is added to x first (and x written back).
struct args_norm8 {
    float *x;
    const float *w;
    void *out, *plain;
    float *scales;
    uint32_t n_cols, stride, n_plain;
    float eps;
    const void *raw;
    const float *columns;
    float raw_times; // the product's input's factor over RAW_SCALE
};
// The gated product (see args_swiglu), likewise; with up NULL the f16 rows of gate as they are. With columns, gate
// and up are raw.
struct args_rows8 {
    const void *gate, *up;
    void *out, *plain;
    float *scales;
    const float *gate_columns, *up_columns;
    uint32_t stride, n_plain, n_cols;
    float raw_times; // as in args_norm8
};
// Threads of a block of rows8 and the pieces of eight elements that a thread holds: rows of up to that many.
enum { ROWS8_THREADS = 640, ROWS8_PIECES = 6, NORM8_PAIRS = 8 };

// out f32 [n_tokens][row_stride(n_units * 256)]
struct args_embed {
    const void *packed;
    const int32_t *tokens;
    float *out;
    uint32_t n_units, stride;
};

// x f32 (or f16 when x_half) rows; y, when given, f16 rows, is added to x first (and x written back).
struct args_norm {
    void *x;
    const void *y;
    const float *w;
    void *out; // f16
    uint32_t n_cols, stride, x_half;
    float eps;
};

enum linear_mode {
    LINEAR_F16,   // out f16 = alpha * W x + bias
    LINEAR_F32,   // out f32
    LINEAR_ADD,   // out f32 +=
    LINEAR_SWIGLU // out f16 = silu(alpha * W0 x) * (alpha * W1 x) * SWIGLU_SCALE
};
// The gated product may pass f16's range: it is held 64 times too small.
#define SWIGLU_SCALE (1.0f / 64.0f)

// Units of K formats on their way to a warp of few_* with that many panels, the one at work included: three
// where three blocks of eight warps then still fit in a multiprocessor's shared memory.
#define FEW_STAGES(panels, warps, unit_bytes) \
    ((panels) == 1 && (warps) * (unit_bytes)*3 <= 60000 ? 3 : 2)

struct linear_part {
    const void *w;
    void *out;
    const float *bias;
    uint32_t n_rows, block0; // its first block in the grid
};
struct args_linear {
    struct linear_part part[3];
    const void *x; // f16 [n][n_units * 256]; for wide_*: tiles
    float *slices; // [n_slices][n][blocks * 128] sums over parts of K, where n_slices > 1
    uint32_t n, n_units;
    float alpha;
    uint8_t mode, n_parts, n_slices, unused;
    uint8_t pack[4]; // few_mixed: enum pack_kind of each part
    // few_* only. A product that is added to the residual stream may write the norm after it as well, except
    // for the row's own factor, which the next product applies to its results: norm_out f16 = out * norm_w *
    // NORM_SCALE, and for each column and panel the sum of out^2, squares [n][n_squares].
    uint32_t n_squares; // of the panels that wrote them, up to a multiple of four
    const float *norm_w;
    void *norm_out;
    float *squares;
    const float
        *row_squares; // of x: columns' results take 1 / NORM_SCALE / sqrt(sum / n_norm + eps)
    float n_norm, eps;
};
// Residuals times norm weights can pass f16's range, and small ones still have enough of its bits.
#define NORM_SCALE (1.0f / 64.0f)

// Products of up to eight columns one after another (kernels/cuda/chain.cu), each as few_* would take it.
// X(pack, warps, slots of a warp's ring, bytes of a slot, columns from which on it is quicker): with two boxes of
// sums a block takes 195 KiB at most (allow_shared in gpu.c). K formats are not here: eight or sixteen warps cannot
// expand them as fast as they come; q8_0 was measured with one column (4 % slower) and with eight (4 % quicker).
#define CHAIN_CLASSES(X)   \
    X(H16, 8, 11, 2048, 1) \
    X(Q8_0, 8, 5, 4352, 8)
enum { CHAIN_PRODUCTS = 4 };
#define CHAIN_SHARED(warps, slots, slot_bytes) ((warps) * ((slots) * (slot_bytes) + 2 * 1024))
struct args_chain {
    struct args_linear product[CHAIN_PRODUCTS];
    uint64_t *arrived; // at meetings, of all blocks of all launches; 0 at first
    uint32_t n_products;
    uint32_t n_panels[CHAIN_PRODUCTS]; // of all parts; with SWIGLU of gate
    uint32_t n_warps[CHAIN_PRODUCTS];  // that share a panel
};

// Activations in the order in which wide_* wants them: a tile [n_tile columns][64 of a granule] as it lies in
// shared memory, one granule after another.
struct args_tiles {
    const void *x;
    void *out;
    uint32_t n, n_tile, n_granules, unused;
};

struct args_bias {
    void *x; // f16 or f32 rows
    const float *bias;
    uint32_t n_cols, stride, is_f32;
};

struct args_swiglu {
    const void *gate, *up;
    void *out;
    uint32_t stride, n_rows;
    float scale_in; // of gate and up
};

struct args_add {
    float *x;
    const void *y;
    uint32_t stride, n_rows;
    float scale;
};

struct args_gather {
    const void *x;
    void *out;
    const uint32_t *rows;
    uint32_t row_bytes;
};

// What the kernels know of a row of the batch.
struct batch_row {
    uint32_t pos, page0; // page0: where its sequence's page table starts
};

// Where keys and values are: page p of a table entry at base + id * page_bytes (the layer's offset is
// in base). A head's keys take head_bytes, the values follow after all heads' keys.
// f16: [head_dim / 64][64 tokens][8 chunks of 8], chunk c of token s stands at c ^ (s % 8).
// q8_0: the same order with bytes [head_dim / 64][64 tokens][64], then f16 scales [64 tokens][head_dim / 32].
struct kv_place {
    char *base;
    const uint32_t *pages;
    uint64_t page_bytes;
    uint32_t head_bytes, n_kv_heads;
};
enum { KV_PAGE_TOKENS = 64 };

struct args_rope {
    struct kv_place kv;
    void *q; // f16 rows, in place
    const void *k, *v;
    const float *q_norm, *k_norm, *freqs;
    const struct batch_row *rows;
    uint32_t n_heads, stride_q, stride_k;
    uint16_t head_dim, n_rot, neox, q8;
    float eps, mscale;
};

// Attention of a few queries over part of their keys: SPLIT_KEYS keys from key0, a multiple of it. The
// queries share these pages. Partial results go to part[i]: n_heads x (head_dim floats, max, sum).
enum {
    SPLIT_KEYS = 512,
    SPLIT_QUERIES = 8,
    SPLIT_HEADS_MAX = 64
}; // a launch: queries, and queries times heads
#define ATTN_WHOLE \
    0xffffffffu // in place of a part: these are all of the row's keys, its result is complete
struct attn_item {
    uint32_t key0, n_keys, table, n_queries; // table: index of key0's page in the page tables
    uint32_t n_old;                          // of its pages, those that this step does not write
    uint32_t row[SPLIT_QUERIES], pos[SPLIT_QUERIES], part[SPLIT_QUERIES];
};
struct args_split {
    struct kv_place kv;
    const void *q;
    void *out; // as q
    float *parts;
    const struct attn_item *items;
    uint32_t n_heads, stride;
    float scale_log2; // softmax scale times log2(e)
    uint32_t q8;
};

// Attention of group_128 and group_rope_128, and the rotation before it where it is part of the kernel: every row
// of the batch is then a decode step of its own sequence.
enum { GROUP_RING = 3, GROUP_SHARED_BYTES = (1 + GROUP_RING) * 16384 + 16 * GROUP_RING };
struct args_group {
    struct args_split split;
    const void *k, *v;
    const float *q_norm, *k_norm, *freqs;
    uint32_t stride_k, neox;
    float eps, mscale;
};

// Row `row` of the output from parts [part0, part0 + n_parts).
struct attn_merge {
    uint32_t row, part0, n_parts, unused;
};
struct args_merge {
    const float *parts;
    const struct attn_merge *merges;
    void *out;
    uint32_t n_heads, head_dim, stride;
};

// Attention of many queries: rows [row0, row0 + n_rows) at positions from pos0 over all their keys.
enum { FLASH_ROWS = 128 };
struct attn_tile {
    uint32_t row0, n_rows, pos0, table;
};
struct args_flash {
    struct kv_place kv;
    const void *q;
    void *out;
    const struct attn_tile *tiles;
    uint32_t n_tiles, n_heads, stride;
    float scale_log2;
};

// Attention of a few neighbouring rows on sm_90a: 128 / (heads a key/value head) rows at most, over keys
// [key0, key0 + n_keys), key0 a multiple of PACK_KEYS. Row i's partial result goes to part0 + i * n_splits.
enum { PACK_KEYS = 1024 };
struct attn_pack {
    uint32_t row0, n_rows, pos0, table; // table: of the sequence's first page
    uint32_t key0, n_keys, part0, n_splits;
};
struct args_pack {
    struct kv_place kv;
    const void *q;
    float *parts;
    const struct attn_pack *packs;
    uint32_t n_heads, stride;
    float scale_log2;
};

// f16 pages of one layer from q8_0 ones: page i of a table to page i of the scratch.
struct args_kv_dequant {
    struct kv_place kv;
    char *out;
    uint64_t out_page_bytes;
    uint32_t table, out_page0, head_dim;
};

struct topk_adjust_entry {
    uint32_t out_row;
    int32_t token;
    float scale, add;
    uint32_t divide;
};
// What the kernels of TOPK hand on for a row.
enum { TOPK_PIECES = 64, TOPK_KEEP = 1024 };
struct topk_work {
    uint64_t best[TOPK_KEEP], kept[TOPK_KEEP];
    float most[TOPK_PIECES], sum[TOPK_PIECES];
    uint32_t n_kept, unused[3];
};
struct args_topk {
    float *logits;
    void *out; // struct topk_row each
    struct topk_work *work;
    const struct topk_adjust_entry *entries;
    const uint32_t *n_entries;
    uint32_t n, k, stride, unused;
};
