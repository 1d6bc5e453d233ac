// The seam to a device. The engine describes one step as a list of ops over buffers that it had the
// backend allocate; the backend chooses kernels, tiles, fusion, libraries, graphs, scratch, and the
// layout and precision of weights, activations and pages. So the forward pass is written once.
//
// All calls come from the engine thread, but page_begin, page_next, page_end, page_land and page_prepare. Shapes are
// [rows][columns], columns contiguous.
//
// Equality: a row of a result may depend on its own inputs only. It reduces over K and over keys in
// an order fixed by absolute position, never by batch, chunk, hit length or thread count. On the CPU
// that makes cached and cold results equal bit for bit.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/common/formats.h"

struct backend; // an open device
struct dbuf;    // memory of a device; its owner is whoever called alloc

enum kv_type { KV_F16, KV_F32, KV_Q8_0, KV_TYPE_COUNT };
const char *kv_type_name(enum kv_type t); // "f16"

enum buf_kind {
    BUF_WEIGHT, // [n_rows][n_cols] in format fmt, from source; the layout is the backend's own
    BUF_VECTOR, // [n_cols] f32 constants from source (norm weights, rope frequencies): fmt is F32
    BUF_STREAM, // [n_rows][n_cols] activations, the residual stream: f32 arithmetic
    BUF_ACT,    // [n_rows][n_cols] activations between ops: precision is the backend's choice
    BUF_LOGITS, // [n_rows][n_cols] f32
    BUF_TOPK,   // [n_rows] results of TOPK: n_cols candidates each, read as struct topk_row
    BUF_KV,     // all pages of all layers, see struct kv_shape
};

// Where a weight's bytes are. map stays valid as long as the buffer lives (the CPU may use it in
// place); fd and file_off name the same bytes for direct reads, fd is -1 when there is no file.
struct weight_source {
    const void *map;
    size_t n_bytes;
    int fd;
    uint64_t file_off;
};

// Keys and values of page_tokens consecutive tokens, all layers: the unit of caching.
struct kv_shape {
    uint32_t n_pages, page_tokens, n_layers, n_kv_heads, head_dim;
    enum kv_type type;
};

// What a page's bytes are, for who keeps it in fewer bits: n_values numbers, a multiple of 32, and nothing else.
// OPAQUE: they have few bits already.
enum page_values { PAGE_OPAQUE, PAGE_F16, PAGE_F32 };
struct page_form {
    enum page_values values;
    size_t n_values;
};

struct buf_desc {
    enum buf_kind kind;
    enum fmt fmt; // BUF_WEIGHT, BUF_VECTOR
    uint32_t n_rows, n_cols;
    struct weight_source source; // BUF_WEIGHT, BUF_VECTOR
    struct kv_shape kv;          // BUF_KV
    const char *name;            // for messages; borrowed during the call
};

// ---- ops: arguments -------------------------------------------------------------------------

enum op_kind {
#define OP(id, name) OP_##id,
#include "compute/ops.def"
#undef OP
    OP_COUNT
};

// out[i] = table[tokens[i]] for the batch's rows. table [n_vocab][n_embd], out [n_rows][n_embd].
struct op_embed {
    struct dbuf *table, *out;
};

// out[i] = x[i] * w / sqrt(mean(x[i]^2) + eps). n_rows 0 means all rows of the batch, otherwise that
// many (after GATHER).
struct op_rms_norm {
    struct dbuf *x, *w, *out;
    float eps;
    uint32_t n_rows;
};

// out[j][i] = w[j] x[i] (+ bias[j]), j < n: weights [n_out_j][n_in] that share the input x [rows][n_in].
struct op_linear {
    struct dbuf *x, *w[3], *bias[3], *out[3];
    uint32_t n, n_rows;
};

// For every row of the batch at its position: q and k heads are normed (q_norm, k_norm [head_dim],
// or NULL), rotated by angle position * freqs[i] (freqs [n_rot / 2]; values times mscale), q is left
// in place, k and v go to their page and slot of `layer`.
// q [rows][n_heads * head_dim], k and v [rows][n_kv_heads * head_dim].
struct op_rope_kv {
    struct dbuf *q, *k, *v, *q_norm, *k_norm, *freqs, *kv;
    uint32_t layer, n_heads, n_kv_heads, head_dim, n_rot;
    bool neox; // pairs (i, i + n_rot/2); false: (2i, 2i + 1)
    float eps, mscale;
};

// out = softmax(scale * q K^T) V over the keys at positions 0..pos of the row's own sequence.
struct op_attention {
    struct dbuf *q, *kv, *out; // q, out [rows][n_heads * head_dim]
    uint32_t layer, n_heads, n_kv_heads, head_dim;
    float scale;
};

// n_rows as for RMS_NORM in both.
struct op_swiglu {
    struct dbuf *gate, *up, *out;
    uint32_t n_rows;
}; // [rows][n_ff]; out may be gate
struct op_add {
    struct dbuf *x, *y;
    uint32_t n_rows;
}; // x += y, x a BUF_STREAM
struct op_gather {
    struct dbuf *x, *out;
}; // out[i] = x[batch.out_rows[i]], n_out rows
// For each of batch.n_out rows of logits: apply the batch's adjustments of that row in place, then
// find the n_cols(out) largest, largest first, equal ones by smaller id, and log sum exp over all.
struct op_topk {
    struct dbuf *logits, *out;
};

struct op {
    enum op_kind kind;
    union {
#define OP(id, name) struct op_##name name;
#include "compute/ops.def"
#undef OP
    };
};

// ---- a step ---------------------------------------------------------------------------------

// The rows of one sequence in this step: rows row0 .. row0 + n_rows - 1 stand at positions
// pos0 .. pos0 + n_rows - 1. Position p lives in page pages[page0 + p / page_tokens], slot p % page_tokens.
struct batch_seq {
    uint32_t row0, n_rows, pos0, page0, n_pages;
};

// logit = logit * scale + add, or with `divide` the repetition penalty: logit / scale where positive,
// logit * scale where negative; then + add. add may be -INFINITY.
struct logit_adjust {
    uint32_t out_row;
    int32_t token;
    float scale, add;
    bool divide;
};

struct batch {
    uint32_t n_rows, n_seqs, n_out, n_page_ids, n_adjust;
    const int32_t *tokens;             // [n_rows]
    const struct batch_seq *seqs;      // [n_seqs], rows in order, decode steps (n_rows 1) first
    const uint32_t *pages;             // [n_page_ids] page tables of all sequences
    const uint32_t *out_rows;          // [n_out] rows that want logits
    const struct logit_adjust *adjust; // [n_adjust], by out_row
};

enum { TOPK_MAX = 128 };
// One row of a BUF_TOPK as `read` delivers it; n entries are filled.
struct topk_row {
    uint32_t n;
    float lse; // log sum exp of all adjusted logits of the row
    int32_t ids[TOPK_MAX];
    float logits[TOPK_MAX];
};

// ---- the device -----------------------------------------------------------------------------

struct backend_settings {
    const char *device; // "cpu", "ref", "cuda:0"
    uint32_t n_threads; // CPU: 0 = one per physical core
    uint32_t max_rows;  // no step has more rows than this
    uint32_t max_out;   // nor more rows that want logits
    bool prefill_fp8;   // products of long prompts in 8-bit floats, where the device can
};

struct backend_info {
    char name[32];        // "cpu"
    char device[128];     // what it runs on, for people: "AMD EPYC (AVX2), 2 threads"
    uint32_t page_tokens; // tokens a KV page
    uint64_t mem_total_bytes, mem_free_bytes;
    bool unified;          // device memory is host memory
    uint32_t prefill_rows; // rows a step should have when only prefill runs
    uint32_t n_devices;    // of this backend, for NAME:N; 0: it has one and no numbers
    uint32_t numerics;     // version of the arithmetic: part of the cache's fingerprint
    bool prefill_fp8;      // products of long prompts are in 8-bit floats: part of it, too
    char no_fp8[160]; // why they are not, where they were asked for; empty: the device has none
};

// What a device can do at most, as far as a program can see: for judging kernels.
struct backend_ceilings {
    double read_bytes_s; // from memory, all at once
    double flop_s;       // 2 a product and sum, of the type that the kernels multiply
    char how[96];        // what was run, for people
};

// What a network takes and how it is used: for counting a device's memory before it is taken.
struct scratch_about {
    const struct buf_desc *bufs; // all but the pages, names and sources not set
    uint32_t n_bufs, n_heads, n_ctx;
    struct kv_shape kv;
};

// A page on its way to the device, its bytes in their order.
struct page_way {
    struct dbuf *kv;
    uint32_t page;
    size_t n_put; // bytes, as of the last page_next
    // the backend's own
    void *lane;
    uint32_t n_sent, i_box;
};

struct backend_class {
    const char *name;
    enum kv_type kv_type; // of keys and values unless it is told otherwise
    bool (*open)(struct backend **out, const struct backend_settings *s, struct err *e);
    void (*close)(struct backend *b); // NULL is fine; all buffers were freed before
    void (*info)(const struct backend *b, struct backend_info *out);
    // Bytes of device memory that alloc would take (for planning before taking).
    size_t (*size)(const struct backend *b, const struct buf_desc *d);
    // Bytes of device memory that steps on such buffers take beside them. The backend takes as much in the next
    // `wait`. NULL: none.
    size_t (*scratch)(struct backend *b, const struct scratch_about *a);
    // Takes device memory; a weight's bytes are on their way when it returns, and there after `wait`.
    bool (*alloc)(struct backend *b, const struct buf_desc *d, struct dbuf **out, struct err *e);
    void (*free)(struct backend *b, struct dbuf *d); // NULL is fine
    // Rows [row, row + n_rows) of an activation or logits buffer as f32, or of a BUF_TOPK as struct
    // topk_row, after waiting for what was submitted.
    bool (*read)(struct backend *b, const struct dbuf *d, uint32_t row, uint32_t n_rows, void *out,
                 struct err *e);
    // Floats into rows of an activation buffer (tests, and what the host computes).
    bool (*write)(struct backend *b, struct dbuf *d, uint32_t row, uint32_t n_rows, const float *in,
                  struct err *e);
    // One page's bytes, in the backend's layout, page_bytes(shape) of them (cache tiers). Reading may go on beside
    // a step that was submitted: the page is one that it does not write, and was waited for once.
    size_t (*page_bytes)(const struct backend *b, const struct kv_shape *s);
    struct page_form (*page_form)(const struct backend *b, const struct kv_shape *s);
    bool (*page_read)(struct backend *b, const struct dbuf *kv, uint32_t page, void *out,
                      struct err *e);
    // A page becomes like another; between steps, done when it returns. Rows of a page do not depend on each other: what
    // a step writes into one of them leaves the others as they are.
    bool (*page_copy)(struct backend *b, struct dbuf *kv, uint32_t from, uint32_t to,
                      struct err *e);
    // A page's new bytes; from any thread, for pages that no step uses meanwhile. begin opens the page's way to the
    // device, and may wait for a free one; after: a page of the same thread that has ended and not landed, on whose way
    // it goes on, or NULL. next says where in host memory its next n bytes are to be put: in the page itself, or in a
    // box; what was put in the box before is on its way from then on. end sends the last of them; good false: what was
    // put is not a page's, the device keeps none of it. land waits until all are there. Each begin that succeeds is
    // followed by one end and, whatever that returned, one land, from the same thread. NULL and false fill e.
    bool (*page_begin)(struct backend *b, struct dbuf *kv, uint32_t page,
                       const struct page_way *after, struct page_way *out, struct err *e);
    void *(*page_next)(struct backend *b, struct page_way *w, size_t n, struct err *e);
    bool (*page_end)(struct backend *b, struct page_way *w, bool good, struct err *e);
    bool (*page_land)(struct backend *b, struct page_way *w, struct err *e); // NULL: end did that
    // Takes the memory of pages [first, first + n) from the system, contents as they are, so that their first
    // use does not wait for it; from any thread, beside everything. NULL: that has been done.
    void (*page_prepare)(struct backend *b, struct dbuf *kv, uint32_t first, uint32_t n);
    // Runs the ops in order over the batch. Returns when the work is queued (a GPU) or done (the CPU);
    // the batch's arrays are borrowed during the call only.
    bool (*submit)(struct backend *b, const struct op *ops, uint32_t n_ops,
                   const struct batch *batch, struct err *e);
    bool (*wait)(struct backend *b, struct err *e);
    // After a failure: will nothing work here again until the process is gone? NULL: that cannot be.
    bool (*lost)(struct backend *b);
    // Measures the device itself for about a second, without any op. NULL: it cannot.
    bool (*ceilings)(struct backend *b, struct backend_ceilings *out, struct err *e);
};

// Every opened backend begins with this.
struct backend {
    const struct backend_class *class;
};

extern const struct backend_class backend_ref;  // plain C, f32: the definition
extern const struct backend_class backend_cpu;  // the fast CPU
extern const struct backend_class backend_cuda; // an NVIDIA GPU

// Opens the device that settings->device names; "auto" takes the best one here. ERR_NOT_FOUND names
// those that exist.
bool backend_open(struct backend **out, const struct backend_settings *s, struct err *e);
// What device i (from 0) of a backend is, without keeping it open.
bool backend_look(const struct backend_class *class, uint32_t i, struct backend_info *out,
                  struct err *e);
// The list of backends in this build, ended by NULL.
const struct backend_class *const *backend_list(void);
