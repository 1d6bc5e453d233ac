// What the threads of a block find out together. A block has at most 1,024 threads; box is in shared memory.
#pragma once

#include "kernels/common/port.h"

// Sum over the block's threads, the same on all of them; box holds 33 floats.
DEV float block_sum(float v, float *box)
{
    const uint32_t n_warps = (n_threads() + 31) >> 5;
    v = warp_sum(v);
    if (lane_id() == 0) box[warp_id()] = v;
    sync_block();
    if (warp_id() == 0) {
        float s = lane_id() < n_warps ? box[lane_id()] : 0.0f;
        s = warp_sum(s);
        if (lane_id() == 0) box[32] = s;
    }
    sync_block();
    return box[32];
}

// The largest over the block's threads, likewise.
DEV float block_max(float v, float *box)
{
    const uint32_t n_warps = (n_threads() + 31) >> 5;
    v = warp_max(v);
    if (lane_id() == 0) box[warp_id()] = v;
    sync_block();
    if (warp_id() == 0) {
        const float m = warp_max(lane_id() < n_warps ? box[lane_id()] : -INF_F);
        if (lane_id() == 0) box[32] = m;
    }
    sync_block();
    return box[32];
}
