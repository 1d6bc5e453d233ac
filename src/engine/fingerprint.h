// What the numbers in a cached page depend on, as one hash: a page may be used again only where all of
// it is the same. Weights are known by their bytes, never by name, size or date alone.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "base/hash.h"
#include "compute/backend.h"
#include "engine/page_code.h"
#include "model/arch.h"
#include "model/gguf.h"

// XXH3-128 over the XXH3-128s of all parts' pieces of 16 MiB. Reads the whole model. False when *stop
// was set, or when a file changed meanwhile.
bool fingerprint_weights(const struct gguf *g, const atomic_bool *stop, struct hash128 *out);
// The hash of weights that was computed before, by device, inode, size, mtime and ctime of every part,
// from a private file in the cache's folder; false when none is there.
bool fingerprint_recall(const char *dir, const struct gguf *g, struct hash128 *out);
void fingerprint_remember(const char *dir, const struct gguf *g, struct hash128 weights);

// What a page depends on besides the weights.
struct fingerprint_about {
    const struct model_config *config;
    uint32_t n_ctx;        // decides about the rope's stretch
    struct kv_shape shape; // n_pages does not count
    size_t page_bytes;
    const struct backend_info *device;
    const struct page_code *code; // how pages are kept; NULL = exactly
};
bool fingerprint_of(struct hash128 weights, const struct fingerprint_about *a, struct hash128 *out,
                    struct err *e);
