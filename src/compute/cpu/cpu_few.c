// Steps of few rows, as decoding makes them: a layer's ops take microseconds there, so what counts is how
// often workers wait for each other. Here ops that follow each other are done in one go: a norm by
// everybody who needs its row, an addition or a gated activation by who computed its input, rotation and
// keys by who attends with them. Five barriers a layer remain, where everybody needs what all have made;
// before each, a worker asks for the weights that it will read behind it.
//
// Invariant: the same operations on every element as op by op, and the buffers of the list hold what
// they would, up to what an op of the same group overwrites.
#include "compute/cpu/cpu.h"

static bool is_few(const struct cpu_worker *w, const struct op *op)
{
    return cpu_op_rows(op, w->cpu->batch) <= FEW_ROWS;
}

// Everybody has arrived; on the way there, the head of the next product is asked for.
static void wait_all(struct cpu_worker *w, const struct op *next, const struct op *end)
{
    while (next < end && next->kind != OP_LINEAR) next++;
    if (next < end && is_few(w, next)) cpu_linear_ahead(w, &next->linear);
    cpu_sync(w);
}

// What row-wise ops before this left with their workers becomes everybody's.
static void settle(struct cpu_worker *w)
{
    if (w->partition) cpu_sync(w);
}

// Where a group writes nobody may still be reading: there is no barrier inside.
static bool reads(const struct op *first, const struct dbuf *d)
{
    if (first->kind == OP_LINEAR) return first->linear.x == d;
    return first->rms_norm.x == d || first->rms_norm.out == d;
}

static bool fits_add(const struct op *first, const struct op_linear *o, const struct op *next)
{
    return next->kind == OP_ADD && o->n == 1 && next->add.y == o->out[0] &&
           next->add.x != o->out[0] && !reads(first, next->add.x);
}

static bool fits_swiglu(const struct op *first, const struct op_linear *o, const struct op *next)
{
    return next->kind == OP_SWIGLU && o->n == 2 && next->swiglu.gate == o->out[0] &&
           next->swiglu.up == o->out[1] && !reads(first, next->swiglu.out) &&
           o->w[0]->n_rows == o->w[1]->n_rows;
}

// [RMS_NORM] LINEAR [ADD or SWIGLU]
static uint32_t do_linear(struct cpu_worker *w, const struct op *ops, uint32_t n_ops)
{
    const bool has_norm = ops->kind == OP_RMS_NORM;
    const struct op *op = ops + has_norm, *next = op + 1, *end = ops + n_ops;
    struct linear_tail tail = {0};
    const uint32_t n_rows = cpu_op_rows(op, w->cpu->batch);
    if (next < end && cpu_op_rows(next, w->cpu->batch) == n_rows) {
        if (fits_add(ops, &op->linear, next)) tail.add = &next->add;
        if (fits_swiglu(ops, &op->linear, next)) tail.swiglu = &next->swiglu;
        if (tail.add || tail.swiglu) next++;
    }
    settle(w);
    cpu_linear_few(w, &op->linear, has_norm ? &ops->rms_norm : NULL, &tail, n_rows);
    wait_all(w, next, end);
    return (uint32_t)(next - ops);
}

static bool starts_linear(const struct cpu_worker *w, const struct op *ops, uint32_t n_ops)
{
    const struct op *op = ops;
    if (!is_few(w, ops)) return false;
    if (ops->kind == OP_RMS_NORM && n_ops > 1) op++;
    if (op->kind != OP_LINEAR) return false;
    for (uint32_t m = 0; m < op->linear.n; m++)
        if (reads(ops, op->linear.out[m])) return false;
    return op == ops ||
           (op->linear.x == ops->rms_norm.out && ops->rms_norm.out != ops->rms_norm.x &&
            cpu_op_rows(op, w->cpu->batch) == cpu_op_rows(ops, w->cpu->batch));
}

// Rows of the residual stream, and the angles of their positions for all layers.
static uint32_t do_embed(struct cpu_worker *w, const struct op *ops, uint32_t n_ops)
{
    const struct batch *b = w->cpu->batch;
    const struct op *rope = ops, *end = ops + n_ops;
    uint32_t first, last;
    while (rope < end && rope->kind != OP_ROPE_KV) rope++;
    threads_share(b->n_rows, 1, w->i, w->n, &first, &last);
    settle(w);
    cpu_embed(w, &ops->embed, first, last);
    for (uint32_t i = 0; i < b->n_seqs && rope < end; i++)
        for (uint32_t j = 0; j < b->seqs[i].n_rows; j++) {
            const uint32_t row = b->seqs[i].row0 + j;
            if (row % w->n == w->n - 1 - w->i)
                cpu_rope_angles(w->cpu, &rope->rope_kv, row, b->seqs[i].pos0 + j);
        }
    w->rope = rope < end ? &rope->rope_kv : NULL;
    wait_all(w, ops + 1, end);
    return 1;
}

static bool starts_attention(const struct cpu_worker *w, const struct op *ops, uint32_t n_ops)
{
    const struct batch *b = w->cpu->batch;
    if (ops->kind != OP_ROPE_KV || n_ops < 2 || ops[1].kind != OP_ATTENTION) return false;
    const struct op_rope_kv *r = &ops->rope_kv, *known = w->rope;
    const struct op_attention *a = &ops[1].attention;
    for (uint32_t i = 0; i < b->n_seqs; i++)
        if (b->seqs[i].n_rows != 1) return false;
    if (r->n_heads / r->n_kv_heads > Q_TILE)
        return false; // several workers would share a kv head, and each make its new keys
    return known && known->freqs == r->freqs && known->n_rot == r->n_rot &&
           known->mscale == r->mscale && a->q == r->q && a->kv == r->kv && a->layer == r->layer &&
           a->n_heads == r->n_heads && a->n_kv_heads == r->n_kv_heads && a->out != r->q &&
           a->head_dim == r->head_dim;
}

uint32_t cpu_few(struct cpu_worker *w, const struct op *ops, uint32_t n_ops)
{
    if (cpu_op_rows(ops, w->cpu->batch) == 0) return 0;
    if (starts_linear(w, ops, n_ops)) return do_linear(w, ops, n_ops);
    if (!is_few(w, ops)) return 0;
    if (ops->kind == OP_EMBED) return do_embed(w, ops, n_ops);
    if (!starts_attention(w, ops, n_ops)) return 0;
    settle(w);
    cpu_attention(w, &ops[1].attention, &ops->rope_kv);
    wait_all(w, ops + 2, ops + n_ops);
    return 2;
}
