// The CPU backend's insides, shared by its files. A step runs in one go on all workers: each walks the
// same list of ops and does its part; a barrier stands only where an op reads what another worker
// wrote.
#pragma once

#include <stdatomic.h>

#include "base/threads.h"
#include "compute/cpu/tiles.h"
#include "compute/hostbuf.h"

// One worker's memory. Only that worker touches it.
struct cpu_scratch {
    struct panel_block *panel;                       // [max_blocks]
    float acc[CHUNK_PANELS][CHUNK_ROWS][PANEL_ROWS]; // what passes over panels give
    struct weight_tile *tiles;                       // [n_tiles]: panels unpacked for many rows
    size_t n_tiles;
    struct attend_tile tile;
    // The input of a LINEAR of up to FEW_ROWS rows, which every worker quantises for itself.
    float *rows; // [FEW_ROWS][max_blocks * BLOCK_K]
    struct acts acts;
    struct act_groups groups;
};

enum {
    FEW_ROWS = ROW_BATCH, // steps up to so many rows wait for each other as seldom as they can
};

// Items that a worker has taken of its own share. A line of its own: it is written all the time.
struct cpu_share {
    _Alignas(64) atomic_uint taken;
};

// Sequences whose rows pass over the keys together: seq_order[first .. first + n - 1], which have the
// first `shared` keys in common.
struct attend_group {
    uint32_t first, n, shared;
};

struct cpu {
    struct backend base;
    struct backend_settings settings;
    const struct cpu_kernels *k;
    struct threads *threads;
    uint32_t n_threads;
    uint32_t n_rows;     // rows that the buffers below hold: the larger of max_rows and max_out
    uint32_t max_blocks; // blocks of the longest weight row so far
    struct acts acts;    // memory for the input of the LINEAR in progress
    struct act_groups groups; // the same for packed weights
    struct act_tiles tiles;   // and for many rows of them
    float *rope;              // [n_rows][2][head_dim / 2]: cosines, sines
    uint32_t max_rot;
    struct cpu_scratch *scratch[THREADS_MAX];
    // The step in progress.
    const struct op *ops;
    uint32_t n_ops;
    const struct batch *batch;
    uint32_t *seq_order;                // [n_rows]
    struct attend_group *attend_groups; // [n_rows]
    uint32_t n_groups;
    // Items taken in this phase (even, odd); see cpu_sync. A line of its own: what stands above is read with every item.
    _Alignas(64) atomic_uint next_item[2];
    struct cpu_share shares[2][THREADS_MAX]; // the same by worker; see cpu_take_share
};

// A worker on its way through a step.
struct cpu_worker {
    struct cpu *cpu;
    struct cpu_scratch *s;
    uint32_t i, n;
    uint32_t phase;           // barriers passed
    uint32_t n_empty;         // shares found empty in this phase, from the worker's own on
    uint32_t partition;       // rows that unsynced row-wise ops were shared out over; 0: none;
                              // UINT32_MAX: in no way that an op after them could go on with
    struct acts acts;         // the LINEAR in progress: cpu->acts with its k_pad
    struct act_groups groups; // and cpu->groups with its n_blocks
    struct act_tiles tiles;
    const struct op_rope_kv *rope; // what cpu->rope holds for this worker's rows
};

// All workers see what all did before. The counter of the next phase is zeroed by worker 0 while no
// one can be in that phase, and everybody has left the phase that used it last.
void cpu_sync(struct cpu_worker *w);
// The next item of this phase that nobody has taken.
uint32_t cpu_take(struct cpu_worker *w);
// An item of total, each taken once: first those of the worker's own share, in order, then what others
// have left of theirs. False when there are none.
bool cpu_take_share(struct cpu_worker *w, uint32_t total, uint32_t *item);
// Whether so many rows go against packed weights by tiles (tiles.h).
static inline bool cpu_is_tiled(const struct cpu *c, uint32_t n_rows)
{
    return c->k->tile_dot && n_rows > PACKED_ROWS;
}
// Rows that stay together where rows are shared out.
static inline uint32_t cpu_row_unit(const struct cpu *c, uint32_t n_rows)
{
    return cpu_is_tiled(c, n_rows) ? TILE_ROWS : ACT_GROUP;
}
// The page of a position and the rows' sequence.
uint32_t cpu_page(const struct batch *b, const struct batch_seq *s, uint32_t pos);

// The kernels that device names: "cpu" or NULL takes the best that the processor runs.
bool cpu_isa_choose(const struct cpu_kernels **out, const char *device, struct err *e);
void cpu_linear(struct cpu_worker *w, const struct op_linear *o); // cpu_linear.c
// What ends in the LINEAR before it, where few rows are on their way: exactly one may be given.
struct linear_tail {
    const struct op_add *add;
    const struct op_swiglu *swiglu;
};
// The same for n_rows <= FEW_ROWS rows, already normed by `norm` or to be normed by it (NULL: as they
// are), with the op that follows done in passing. No barrier inside.
void cpu_linear_few(struct cpu_worker *w, const struct op_linear *o, const struct op_rms_norm *norm,
                    const struct linear_tail *tail, uint32_t n_rows);
// Asks for the first weights that this worker will read of o.
void cpu_linear_ahead(struct cpu_worker *w, const struct op_linear *o);
// Does the ops at the head of ops[n_ops] that belong together when few rows are on their way; returns
// how many, 0 if they are none of these. cpu_few.c.
uint32_t cpu_few(struct cpu_worker *w, const struct op *ops, uint32_t n_ops);
uint32_t cpu_op_rows(const struct op *op, const struct batch *b);
// One row of ROPE_KV, or the part of it that belongs to one kv head.
void cpu_rope_angles(const struct cpu *c, const struct op_rope_kv *o, uint32_t row, uint32_t pos);
void cpu_rope_head(struct cpu_worker *w, const struct op_rope_kv *o, const struct batch_seq *seq,
                   uint32_t row, uint32_t kv_head);
void cpu_embed(struct cpu_worker *w, const struct op_embed *o, uint32_t first, uint32_t end);
// Repacks a weight for the kernels in use, if they want that; cpu_pack.c.
bool cpu_pack(struct cpu *c, struct dbuf *weight, const char *name, struct err *e);
// Whether weights of format f are kept as panels of int16 (struct kept_block).
bool cpu_keeps(const struct cpu *c, enum fmt f);
size_t cpu_pack_bytes(const struct cpu *c, enum fmt f, uint32_t n_rows, uint32_t n_cols);
// rope: NULL, or what is still to be done for the rows of the step, one of each sequence.
void cpu_attention(struct cpu_worker *w, const struct op_attention *o,
                   const struct op_rope_kv *rope); // cpu_attention.c
// Before a step whose first ATTENTION is o: which sequences go together in all of them.
void cpu_attention_plan(struct cpu *c, const struct batch *b, const struct op_attention *o);
struct kv_unit cpu_kv_unit(const struct dbuf *kv, uint32_t page, uint32_t layer, uint32_t head);
size_t cpu_kv_unit_bytes(const struct kv_shape *s);
bool cpu_tile_open(struct attend_tile *t); // its arrays, from the heap
void cpu_tile_close(struct attend_tile *t);
bool cpu_ceilings(struct backend *b, struct backend_ceilings *out, struct err *e); // cpu_ceiling.c
