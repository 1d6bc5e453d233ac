// A generated token reads all weights and the keys and values of its context once: decode is bound by the
// memory. A prompt's token costs two operations a parameter and, in attention, four a layer, head element
// and token before it: prefill is bound by the arithmetic.
#include "host/sizing.h"

enum { STEP_ROWS = 528, OUT_ROWS = 32 };
// q8_0 on a GPU has a scale of 16 bits each 32 values, the CPU one of 32 bits each vector.
enum { Q8_BLOCK = 32, Q8_BLOCK_BYTES = 34, CPU_SCALE_BYTES = 4 };

void sizing_compute(const struct sizing_model *m, struct sizing *out)
{
    const uint64_t vectors = 2ull * m->n_layers * m->n_kv_heads, elements = vectors * m->head_dim;
    struct sizing s = {.weights_bytes = m->file_bytes,
                       .kv_f16_bytes = elements * 2,
                       .kv_q8_bytes = elements * Q8_BLOCK_BYTES / Q8_BLOCK,
                       .kv_cpu_bytes = elements + vectors * CPU_SCALE_BYTES};
    // activations of one step in 32 bits: residual, normed, q, k, v, attention's output, gate and up, logits
    s.scratch_bytes =
        4ull * STEP_ROWS * (8ull * m->n_embd + 2ull * m->n_ff) + 4ull * OUT_ROWS * m->n_vocab;
    *out = s;
}

static uint64_t longest(uint64_t free_bytes, uint64_t fixed, uint64_t each)
{
    return free_bytes > fixed && each > 0 ? (free_bytes - fixed) / each : 0;
}

void sizing_fit_in(const struct sizing_model *m, const struct sizing_wish *w,
                   const struct sizing *s, const struct sizing_place *p, struct sizing_fit *out)
{
    const uint64_t fixed = s->weights_bytes + s->scratch_bytes;
    const uint64_t kv = p->is_cpu ? s->kv_cpu_bytes : s->kv_f16_bytes;
    const uint64_t q8 = p->is_cpu ? s->kv_cpu_bytes : s->kv_q8_bytes;
    const double weights = (double)s->weights_bytes, n = w->n_ctx;
    struct sizing_fit f = {.kv_bytes = kv,
                           .one_bytes = fixed + kv * w->n_ctx,
                           .all_bytes = fixed + kv * w->n_ctx * w->n_parallel,
                           .longest = longest(p->free_bytes, fixed, kv),
                           .longest_q8 = longest(p->free_bytes, fixed, q8)};
    f.one_fits = f.one_bytes <= p->free_bytes;
    f.all_fit = f.all_bytes <= p->free_bytes;
    if (p->read_bytes_s > 0) {
        f.decode_empty = p->read_bytes_s / weights;
        f.decode_full = p->read_bytes_s / (weights + (double)kv * n);
    }
    if (p->flop_s > 0) {
        const double attention =
            2.0 * m->n_layers * m->n_embd * n * n; // half of the square is masked
        f.prefill_s = (2.0 * (double)m->n_params * n + attention) / p->flop_s;
    }
    *out = f;
}
