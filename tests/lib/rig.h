// The engine loop over the fake network. Including this links the fake in the real one's place.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/loop.h"
#include "lib/fake_net.h"
#include "lib/outcome.h"

struct rig_settings {
    uint32_t n_pages, page_tokens, n_ctx, n_parallel, n_queue, prefill_rows; // 0 = a usual value
    const struct tokenizer *tok;
    const char *cache_dir; // a disk tier in it
    uint64_t cap_bytes;    // of the disk tier
    uint32_t retry_s;      // of a full disk; 0 = a usual value
    uint64_t ram_bytes;    // a tier in host memory
    bool late;             // the disk tier comes with rig_attach, not with rig_open
    bool warm;
    bool encoded;      // pages are f16s, and in 8 bits below
    bool mapped;       // pages are read into their place, otherwise into a box beside it
    uint32_t delay_us; // of a step
    uint32_t page_delay_us,
        judge_ms;         // of a page that comes back; how long that is not judged (0: never)
    uint32_t patience_ms; // how long first tokens hold saving back (0: as usual)
    uint32_t far_at_once; // pages read from the disk itself at once (0: as usual)
};

struct rig {
    struct net *net;
    struct loop *loop;
    struct rig_settings settings;
    atomic_uint n_page_failures;         // this many next pages cannot be written to the device
    atomic_uint n_copy_failures;         // this many next copies of pages fail
    atomic_uint n_page_reads;            // pages that went down
    atomic_uint n_coming, n_coming_most; // pages that threads bring back; the most at once
    atomic_uint n_prepared;              // pages whose memory was taken ahead
};

void rig_open(struct rig *r, const struct rig_settings *s);
void rig_attach(struct rig *r);
void rig_close(struct rig *r); // also checks that no page leaked and no batch was wrong

// Submits; fails the test on an error.
struct stream *rig_submit(struct rig *r, const struct job *job);
// Submits and waits.
struct outcome rig_run(struct rig *r, const struct job *job);
struct engine_stats rig_stats(const struct rig *r);
void wait_steps(const struct net *n, uint32_t n_steps); // until that many steps are done
void wait_held(const struct net *n);                    // until a step waits for `hold`
// Does o hold exactly the tokens that the fake network gives for ids when nothing else runs?
bool outcome_is_alone(const struct outcome *o, const int32_t *ids, size_t n_ids);
// o came to its full length and is that; frees it.
void expect_alone(struct outcome o, const int32_t *ids, size_t n_ids, uint32_t n_new);
// n tokens below FAKE_VOCAB that depend on seed only.
void fill_tokens(int32_t *ids, size_t n, uint64_t seed);
