// The end of a step: adjustments of logits, then the k best candidates of each row and the log of the
// sum of exponentials. A candidate is one 64-bit number, the ordered bits of its logit above the
// inverted token id, so that all differ and equal logits come by smaller id. The k-th best of the
// threads' own best is a bound that at least k reach; usually few do, and they are sorted. Otherwise the
// bound is found digit by digit from the top.
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

// Sorts kept[0, n) downwards; n is a power of two, at most KEEP.
DEV void sort_kept(select_state &s, uint32_t n)
{
    for (uint32_t size = 2; size <= n; size <<= 1)
        for (uint32_t step = size >> 1; step; step >>= 1) {
            const uint32_t i = tid(), j = i ^ step;
            if (i < n && j > i) {
                const uint64_t a = s.kept[i], b = s.kept[j];
                if ((a < b) == ((i & size) == 0)) {
                    s.kept[i] = b;
                    s.kept[j] = a;
                }
            }
            sync_block();
        }
}

// Sixteen logits of this thread: element 4 j + e is index at + j * 4096 + e. A row's padding is readable.
enum { STRIDE = THREADS * 16 };
DEV void sixteen(float v[16], const float *logits, uint32_t at, uint32_t n)
{
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) {
        f32x4 x = {0, 0, 0, 0};
        if (at + j * (THREADS * 4) < n) x = *(const f32x4 *)(logits + at + j * (THREADS * 4));
        v[4 * j] = x.x;
        v[4 * j + 1] = x.y;
        v[4 * j + 2] = x.z;
        v[4 * j + 3] = x.w;
    }
}
DEV uint32_t index_of(uint32_t at, uint32_t i) { return at + (i >> 2) * (THREADS * 4) + (i & 3); }

// The largest logit, and a bound that at least k candidates reach.
DEV uint64_t quick_bound(select_state &s, const args_topk &a, const float *logits, float &most)
{
    uint64_t best = 0;
    most = -INF_F;
    for (uint32_t at = tid() * 4; at < a.n; at += STRIDE) {
        float v[16];
        sixteen(v, logits, at, a.n);
#pragma unroll
        for (uint32_t i = 0; i < 16; i++) {
            const uint32_t id = index_of(at, i);
            if (id >= a.n) continue;
            const uint64_t c = candidate(v[i], id);
            best = c > best ? c : best;
            most = max_f(most, v[i]);
        }
    }
    s.kept[tid()] = best;
    sync_block();
    sort_kept(s, KEEP);
    const uint64_t bound = s.kept[a.k - 1];
    sync_block();
    return bound;
}

// The bound at which no more than KEEP candidates are left, digit by digit.
DEV uint64_t exact_bound(select_state &s, const args_topk &a, const float *logits)
{
    uint32_t shift = 64;
    if (tid() == 0) s.prefix = 0, s.above = 0;
    do {
        shift -= DIGIT; // 53, 42, 31, 20, 9: below nine bits of id no more than 512 share a prefix
        s.bins[tid()] = s.bins[tid() + THREADS] = 0;
        sync_block();
        const uint64_t prefix = s.prefix;
        for (uint32_t i = tid(); i < a.n; i += THREADS) {
            const uint64_t c = candidate(logits[i], i);
            const bool mine = shift + DIGIT >= 64 || c >> (shift + DIGIT) == prefix;
            if (mine) shared_add(&s.bins[c >> shift & (BINS - 1)], 1);
        }
        sync_block();
        choose_bin(s, a.k);
        if (tid() == 0) s.prefix = prefix << DIGIT | s.bin;
        sync_block();
    } while (s.total > KEEP && shift > 9);
    return s.prefix << shift;
}

// Keeps the candidates that reach the bound, as far as there is room; returns how many there are.
DEV uint32_t keep(select_state &s, const args_topk &a, const float *logits, uint64_t bound, float base,
                  float &sum)
{
    sum = 0;
    s.kept[tid()] = 0;
    if (tid() == 0) s.n_kept = 0;
    sync_block();
    for (uint32_t at = tid() * 4; at < a.n; at += STRIDE) {
        float v[16];
        sixteen(v, logits, at, a.n);
#pragma unroll
        for (uint32_t i = 0; i < 16; i++) {
            const uint32_t id = index_of(at, i);
            if (id >= a.n) continue;
            if (v[i] == v[i]) sum += exp2_fast((v[i] - base) * 1.4426950408889634f);
            const uint64_t c = candidate(v[i], id);
            if (c < bound) continue;
            const uint32_t place = shared_add(&s.n_kept, 1);
            if (place < KEEP) s.kept[place] = c;
        }
    }
    sync_block();
    const uint32_t n = s.n_kept;
    sync_block();
    return n;
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
    float most, sum;
    uint64_t bound = quick_bound(s, a, logits, most);
    most = block_reduce(s, most, true);
    const float base = most == -INF_F ? 0.0f : most;
    uint32_t n = keep(s, a, logits, bound, base, sum);
    if (n > KEEP) {
        bound = exact_bound(s, a, logits);
        n = keep(s, a, logits, bound, base, sum);
    }
    sum = block_reduce(s, sum, false);
    uint32_t size = 2;
    while (size < n && size < KEEP) size <<= 1;
    sort_kept(s, size);
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
