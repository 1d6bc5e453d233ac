// The GPU backend's insides, shared by its files:
//   gpu.c        opening, the driver's modules, submit and graphs
//   gpu_buf.c    buffers: sizes, memory, reading and writing
//   gpu_pages.c  pages that come back, over streams of their own
//   gpu_load.c   weights from file to packed form
//   gpu_step.c   what a batch means for the kernels: rows, attention work; its way to the device
//   gpu_ops.c    ops to kernel launches, with fusion
//   gpu_chain.c  products of few columns, several in a launch
//   gpu_plan.c   memory beside the buffers, before it is taken
//   gpu_large.c  products of many rows, by the library
//
// Precision: residual stream f32, other activations f16 (the gated product 64 times too small), keys
// and values f16 or q8_0, weights as packed (kernels/common/pack.h), sums f32.
#pragma once

#include <pthread.h>

#include "base/threads.h"
#include "compute/backend.h"
#include "compute/gpu_api.h"
#include "compute/gpu_blas.h"
#include "compute/gpu_pick.h"
#include "kernels/common/args.h"

// A kernel image in the binary; the table ends with start NULL (made by cmake/kernels.cmake).
struct gpu_image {
    const char *name;
    uint32_t arch; // 0: any that the image itself covers; 80, 90: PTX for that compute capability
    const void *start;
};
extern const struct gpu_image gpu_images[];
extern const char gpu_images_by[]; // the compiler, or why there are none

enum {
    GPU_MODULES_MAX = 16,
    GPU_GRAPHS_MAX = 32,
    GPU_LANES = 16,         // pages that come back at once
    GPU_UPLOADS = 2,        // steps whose batch may be on its way at once
    SPLIT_ROWS_MAX = 64,    // sequences with more rows go to the kernel for long prompts
    SPLIT_WAVE_ROWS = 64,   // rows whose partial results are kept at once ...
    SPLIT_PARTS_MAX = 4096, // ... and partial results
    GPU_LARGE_SHAPES = 16,  // of weight matrices in a model
    SLICED_BLOCKS_MAX = 396 // blocks of a product in slices, all slices together (gpu_pick.c)
};
#define GPU_EXPANDED_MAX ((size_t)1 << 30) // bytes of an expanded matrix; larger ones never are

struct dbuf {
    enum buf_kind kind;
    enum fmt fmt;
    enum pack_kind pack;
    uint32_t n_rows, n_cols, stride; // stride: elements a row, padded
    gpu_ptr p;
    size_t n_bytes;
    float scale; // what is held times scale is the value (BUF_ACT)
    // weights, for products in e4m3: f32 a row, filled when first needed
    gpu_ptr scales, kept; // kept: the matrix as e4m3, or 0
    bool has_scales;
    struct kv_shape kv;
    size_t page_bytes, layer_bytes, head_bytes;
};

// A stretch of attention work whose partial results are kept at once.
struct attn_wave {
    uint32_t item0, n_items, merge0, n_merges, most_queries;
};

// Arrays of one batch, in pinned memory on the host and at fixed places on the device. Those that have no more
// entries than stand here lie side by side in one box, and travel in one copy.
#define GPU_REGIONS(R)                       \
    R(tokens, int32_t, 256)                  \
    R(rows, struct batch_row, 256)           \
    R(out_rows, uint32_t, 256)               \
    R(n_adjust, uint32_t, 4)                 \
    R(adjust, struct topk_adjust_entry, 256) \
    R(pages, uint32_t, 4096)                 \
    R(items, struct attn_item, 256)          \
    R(merges, struct attn_merge, 256)        \
    R(tiles, struct attn_tile, 64)           \
    R(packs, struct attn_pack, 64)

enum gpu_region {
#define R(name, type, n) REGION_##name,
    GPU_REGIONS(R)
#undef R
        REGION_COUNT
};

struct gpu_upload {
    void *box;              // pinned
    void *at[REGION_COUNT]; // in the box, or pinned memory of its own
    uint32_t cap[REGION_COUNT], n[REGION_COUNT];
    gpu_event done;
    bool used;
};

// What a step needs beside its ops.
struct gpu_step {
    const struct batch *batch;
    struct gpu_upload *up;
    struct attn_wave *waves;
    uint32_t n_waves, cap_waves;
    bool flash;        // some sequences go to the kernels for long prompts
    bool packs;        // short sequences go to the kernel for few rows behind many keys
    uint32_t kv_pages; // of these sequences, as scratch pages (q8_0)
    uint32_t pack_merge0, n_pack_merges;
};

struct gpu_graph_entry {
    uint64_t key;
    uint32_t seen;
    gpu_graph_exec exec;
    uint64_t last_use;
};

// What products of many rows need of memory: the largest expanded matrix, the longest row.
struct gpu_large_want {
    size_t scratch, stride;
};

struct gpu_shape {
    uint32_t n_rows, stride;
};

struct gpu_large {
    struct gpu_large_want want;
    gpu_ptr scratch, rows8, row_scales; // rows8: activations as e4m3
    gpu_ptr kept;                       // e4m3 form of all matrices, 0: made anew for each product
    size_t scratch_bytes, rows8_bytes, row_scales_bytes;
    struct dbuf **all; // weights that may be multiplied here
    uint32_t n_all, cap_all;
    // for the choice of algorithms at the end of loading: a matrix of each shape, room that is not yet in use
    struct dbuf *met[GPU_LARGE_SHAPES];
    struct gpu_shape tuned[GPU_LARGE_SHAPES];
    uint32_t n_met, n_tuned, stream_cols;
    gpu_ptr room;
    size_t room_bytes;
};

// Scratch as counted before it is taken.
struct gpu_planned {
    struct gpu_large_want large;
    size_t parts, slices, tiles, squares, kv_scratch;
};

// What a page goes to the device through: pinned memory in two halves, one of which is filled while the other is on
// its way. Few long copies: those of 256 KiB halve what all lanes together bring.
enum { LANE_HALF_BYTES = 2 << 20 };
struct gpu_lane {
    gpu_stream stream;
    gpu_event gone[2];            // what lay in a half is on the device
    char *box;                    // NULL until the lane is used first
    size_t box_bytes, half_bytes; // half: all of it, where one piece needs it
    uint32_t half;                // that is being filled
    size_t n_filled;              // bytes in it
    bool going[2];                // what lies in the half may be on its way
    uint32_t n_ways;              // pages on this lane that have not landed
    bool taken;
};

struct gpu {
    struct backend base;
    struct gpu_api api;
    struct backend_settings settings;
    int device;
    gpu_ctx ctx;
    gpu_stream stream, page_stream;
    uint32_t cc, n_sm, n_devices;
    bool integrated, use_graphs, use_overlap, use_blas, use_tuning, use_chain;
    size_t mem_bytes; // of the device
    char no_fp8[160]; // why not, where it was asked for
    bool fp8;         // products of many rows in e4m3: asked for, and possible
    char device_name[100];
    gpu_module modules[GPU_MODULES_MAX];
    uint32_t n_modules;
    gpu_function kernels[GPU_KERNEL_COUNT];
    struct gpu_blas *blas;
    struct threads *threads; // for loading
    struct gpu_loader *loader;
    // device memory beside the buffers
    struct gpu_large large;
    struct gpu_planned planned;
    gpu_ptr workspace, parts, slices, tiles, squares, region[REGION_COUNT], kv_scratch, box,
        topk_work, arrived; // arrived: args_chain's counter
    size_t parts_bytes, slices_bytes, tiles_bytes, squares_bytes, kv_scratch_bytes, topk_bytes;
    uint32_t region_cap[REGION_COUNT];
    struct gpu_upload uploads[GPU_UPLOADS];
    uint32_t i_upload;
    struct gpu_step step;
    struct gpu_graph_entry graphs[GPU_GRAPHS_MAX];
    uint64_t n_steps, n_submits, fault_at; // fault_at: the step that fails on purpose, 0: none
    uint32_t n_pages;                      // of the largest KV buffer: bounds page tables
    void *host_box;                        // pinned, for read and write
    size_t host_box_bytes;
    pthread_mutex_t pages_lock; // guards the lanes' fields
    pthread_cond_t pages_free;
    struct gpu_lane lanes[GPU_LANES];
};

static inline struct gpu *gpu_of(const struct backend *b)
{
    return (struct gpu *)(uintptr_t)b;
}

// Grows *p to at least n bytes of device memory; waits for the device when it must move.
bool gpu_grow(struct gpu *g, gpu_ptr *p, size_t *have, size_t n, const char *what, struct err *e);
// Rows of a step at most: what the settings say, and what this device asks for.
uint32_t gpu_max_rows(const struct gpu *g);
// Launches a kernel with one argument struct.
bool gpu_run(struct gpu *g, enum gpu_kernel k, uint32_t grid_x, uint32_t grid_y, uint32_t threads,
             uint32_t shared_bytes, void *args, gpu_stream stream, struct err *e);

// gpu_buf.c
size_t gpu_size(const struct backend *b, const struct buf_desc *d);
bool gpu_alloc(struct backend *b, const struct buf_desc *d, struct dbuf **out, struct err *e);
void gpu_free(struct backend *b, struct dbuf *d);
bool gpu_read(struct backend *b, const struct dbuf *d, uint32_t row, uint32_t n_rows, void *out,
              struct err *e);
bool gpu_write(struct backend *b, struct dbuf *d, uint32_t row, uint32_t n_rows, const float *in,
               struct err *e);
size_t gpu_page_bytes(const struct backend *b, const struct kv_shape *s);
struct page_form gpu_page_form(const struct backend *b, const struct kv_shape *s);
bool gpu_page_read(struct backend *b, const struct dbuf *kv, uint32_t page, void *out,
                   struct err *e);
bool gpu_page_copy(struct backend *b, struct dbuf *kv, uint32_t from, uint32_t to, struct err *e);

// gpu_pages.c
void gpu_pages_open(struct gpu *g);
void gpu_pages_close(struct gpu *g); // with the device's context
bool gpu_page_begin(struct backend *b, struct dbuf *kv, uint32_t page, const struct page_way *after,
                    struct page_way *out, struct err *e);
void *gpu_page_next(struct backend *b, struct page_way *w, size_t n, struct err *e);
bool gpu_page_end(struct backend *b, struct page_way *w, bool good, struct err *e);
bool gpu_page_land(struct backend *b, struct page_way *w, struct err *e);

// gpu_load.c
bool gpu_load_weight(struct gpu *g, struct dbuf *d, const struct buf_desc *desc, struct err *e);
bool gpu_load_wait(struct gpu *g, struct err *e);
void gpu_load_close(struct gpu *g);
size_t gpu_load_bytes(void); // device memory while it works

// gpu_plan.c
size_t gpu_scratch(struct backend *b, const struct scratch_about *a);
bool gpu_plan_take(struct gpu *g, struct err *e);

// gpu_step.c
bool gpu_step_prepare(struct gpu *g, const struct op *ops, uint32_t n_ops,
                      const struct batch *batch, struct err *e);
// Does this short sequence go to the kernel for few rows behind a long context?
bool gpu_step_packs(const struct gpu *g, const struct op_attention *o, const struct batch_seq *s);
// Drops what was recorded: a buffer goes, and another may come to stand under its name.
void gpu_step_forget(struct gpu *g);
void gpu_step_close(struct gpu *g);

// gpu_ops.c
bool gpu_ops_run(struct gpu *g, const struct op *ops, uint32_t n_ops, struct err *e);

// gpu_large.c
void gpu_large_close(struct gpu *g);
// Adds a weight matrix to what is wanted; what that is in bytes; taking it.
void gpu_large_count(struct gpu_large_want *want, const struct buf_desc *d);
size_t gpu_large_bytes(const struct gpu *g, const struct gpu_large_want *want);
bool gpu_large_take(struct gpu *g, struct err *e);
// Has the scratch room for this matrix; can n_rows of this product be done in e4m3?
bool gpu_large_fits(const struct gpu *g, const struct dbuf *w);
bool gpu_large_fits_fp8(const struct gpu *g, const struct op_linear *o, uint32_t n_rows);
// A weight was loaded, or is about to go.
bool gpu_large_meet(struct gpu *g, struct dbuf *w, struct err *e);
void gpu_large_forget(struct gpu *g, const struct dbuf *w);
// After loading: keeps what can be kept; times the library's algorithms for each shape met since.
bool gpu_large_keep(struct gpu *g, struct err *e);
bool gpu_large_tune(struct gpu *g, struct err *e);
// f16 rows of x to e4m3, for the next product.
bool gpu_large_quantise(struct gpu *g, const struct dbuf *x, uint32_t n_rows, struct err *e);
// The first n_rows rows of the products of o, to o's outputs or added to add_to. E4M3: the rows are in rows8,
// and results are raw (args_norm8).
struct gpu_large_job {
    const struct op_linear *o;
    struct dbuf *add_to;
    uint32_t n_rows;
    enum gpu_product_kind kind;
};
bool gpu_large_linear(struct gpu *g, const struct gpu_large_job *j, struct err *e);
