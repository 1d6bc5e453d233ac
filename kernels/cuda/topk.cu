// The end of a step: adjustments of logits, then the k best candidates of each row and the log of the
// sum of exponentials. A candidate is one 64-bit number, the ordered bits of its logit above the
// inverted token id, so that all differ and equal logits come by smaller id. The best k are found digit
// by digit from the top until few enough are left to sort.
#include "kernels/common/port.h"
#include "kernels/common/args.h"

enum { BINS = 2048, DIGIT = 11, KEEP = 1024, THREADS = 1024, ROW_MAX = 128 };

// Grid: out rows. An entry is applied by the thread that finds its token's first entry in the row,
// together with the later ones in order.
KERNEL void adjust(const args_adjust a)
{
    dependents_launch();
    dependents_wait();
    const uint32_t n = *a.n_entries, row = block_x();
    float *logits = a.logits + (uint64_t)row * a.stride;
    for (uint32_t i = tid(); i < n; i += n_threads()) {
        const topk_adjust_entry *e = a.entries + i;
        if (e->out_row != row) continue;
        bool first = true;
        for (uint32_t j = i; first && j > 0 && a.entries[j - 1].out_row == row; j--)
            first = a.entries[j - 1].token != e->token;
        if (!first) continue;
        const int32_t token = e->token;
        float v = logits[token];
        for (uint32_t j = i; j < n && a.entries[j].out_row == row; j++) {
            const topk_adjust_entry c = a.entries[j];
            if (c.token != token) continue;
            v = c.divide && v > 0 ? v / c.scale : v * c.scale;
            v += c.add;
        }
        logits[token] = v;
    }
}

DEV uint64_t candidate(float v, uint32_t id)
{
    if (v != v) v = -INF_F;
    const uint32_t u = bits_of(v), key = u >> 31 ? ~u : u | 0x80000000u;
    return (uint64_t)key << 32 | (0xffffffffu - id);
}
DEV uint32_t candidate_id(uint64_t c) { return 0xffffffffu - (uint32_t)c; }
DEV float candidate_logit(uint64_t c)
{
    const uint32_t key = (uint32_t)(c >> 32);
    return float_of(key >> 31 ? key & 0x7fffffffu : ~key);
}

struct select_state {
    uint32_t bins[BINS];
    uint64_t kept[KEEP];
    float box[33];
    uint32_t counts[33];
    uint64_t prefix;     // what the digits so far must be
    uint32_t above, bin; // candidates above the prefix; the digit chosen
    uint32_t total;      // of the chosen digit and above
    uint32_t n_kept;
};

DEV float block_reduce(select_state &s, float v, bool max)
{
    v = max ? warp_max(v) : warp_sum(v);
    if (lane_id() == 0) s.box[warp_id()] = v;
    sync_block();
    if (warp_id() == 0) {
        v = s.box[lane_id()];
        v = max ? warp_max(v) : warp_sum(v);
        if (lane_id() == 0) s.box[32] = v;
    }
    sync_block();
    v = s.box[32];
    sync_block();
    return v;
}

// Finds the digit at which the candidates from the top reach k. Thread i holds bins of rank 2 i, 2 i + 1
// from the top.
DEV void choose_bin(select_state &s, uint32_t k)
{
    const uint32_t hi = BINS - 1 - 2 * tid(), lane = lane_id();
    const uint32_t c0 = s.bins[hi], c1 = s.bins[hi - 1];
    uint32_t sum = c0 + c1;
    for (uint32_t d = 1; d < 32; d <<= 1) {
        const uint32_t other = lane_get(sum, (lane - d) & 31);
        if (lane >= d) sum += other;
    }
    if (lane == 31) s.counts[warp_id()] = sum;
    sync_block();
    uint32_t before = s.above + sum - c0 - c1;
    for (uint32_t w = 0; w < warp_id(); w++) before += s.counts[w];
    sync_block();
    if (before < k && before + c0 >= k) {
        s.bin = hi;
        s.above = before;
        s.total = before + c0;
    } else if (before + c0 < k && before + c0 + c1 >= k) {
        s.bin = hi - 1;
        s.above = before + c0;
        s.total = before + c0 + c1;
    }
    sync_block();
}

DEV void sort_kept(select_state &s)
{
    for (uint32_t size = 2; size <= KEEP; size <<= 1)
        for (uint32_t step = size >> 1; step; step >>= 1) {
            const uint32_t i = tid(), j = i ^ step;
            if (j > i) {
                const uint64_t a = s.kept[i], b = s.kept[j];
                if ((a < b) == ((i & size) == 0)) {
                    s.kept[i] = b;
                    s.kept[j] = a;
                }
            }
            sync_block();
        }
}

struct row_out {
    uint32_t n;
    float lse;
    int32_t ids[ROW_MAX];
    float logits[ROW_MAX];
};

// Grid: out rows; 1024 threads. k <= 128 and k <= n.
KERNEL void BOUNDS(1024, 1) topk(const args_topk a)
{
    __shared__ select_state s;
    dependents_launch();
    dependents_wait();
    const float *logits = a.logits + (uint64_t)block_x() * a.stride;
    float most = -INF_F;
    if (tid() == 0) s.prefix = 0, s.above = 0, s.n_kept = 0;
    uint32_t shift = 64;
    do {
        shift -= DIGIT; // 53, 42, 31, 20, 9: below nine bits of id no more than 512 share a prefix
        s.bins[tid()] = s.bins[tid() + THREADS] = 0;
        sync_block();
        const uint64_t prefix = s.prefix;
        for (uint32_t i = tid(); i < a.n; i += THREADS) {
            const float v = logits[i];
            most = max_f(most, v);
            const uint64_t c = candidate(v, i);
                const bool mine = shift + DIGIT >= 64 || c >> (shift + DIGIT) == prefix;
            if (mine) shared_add(&s.bins[c >> shift & (BINS - 1)], 1);
        }
        sync_block();
        choose_bin(s, a.k);
        if (tid() == 0) s.prefix = prefix << DIGIT | s.bin;
        sync_block();
    } while (s.total > KEEP && shift > 9);
    const uint64_t least = s.prefix << shift;
    most = block_reduce(s, most, true);
    const float base = most == -INF_F ? 0.0f : most;
    float sum = 0;
    s.kept[tid()] = 0;
    sync_block();
    for (uint32_t i = tid(); i < a.n; i += THREADS) {
        const float v = logits[i];
        if (v == v) sum += exp2_fast((v - base) * 1.4426950408889634f);
        const uint64_t c = candidate(v, i);
        if (c < least) continue;
        const uint32_t at = shared_add(&s.n_kept, 1);
        if (at < KEEP) s.kept[at] = c;
    }
    sum = block_reduce(s, sum, false);
    sort_kept(s);
    row_out *out = (row_out *)a.out + block_x();
    if (tid() == 0) {
        out->n = a.k;
        out->lse = base + log2_fast(sum) * 0.6931471805599453f;
    }
    if (tid() < a.k) {
        out->ids[tid()] = (int32_t)candidate_id(s.kept[tid()]);
        out->logits[tid()] = candidate_logit(s.kept[tid()]);
    }
}
