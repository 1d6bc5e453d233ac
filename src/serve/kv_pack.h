// Cache events as routers read them: msgpack [time, [event...], nil], where each event is a map with
// its type (vLLM's wire format since its version of June 2026; llm-d, Dynamo and Mooncake read it).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "engine/engine.h"

// One page that came or went, or "all is gone".
struct kv_item {
    enum kv_kind { KV_STORED, KV_REMOVED, KV_CLEARED } kind;
    enum cache_tier tier; // that it came to or left
    uint64_t hash, parent;
    uint32_t n_tokens;
    int32_t *tokens; // owned by whoever holds the item; NULL unless stored
    char *salt;      // owned; NULL: none
};

void kv_item_free(struct kv_item *item);
// Appends one batch. Stored pages that follow one another become one event, as do removed ones.
void kv_pack_batch(struct buf *out, double now_s, const struct kv_item *items, size_t n);
