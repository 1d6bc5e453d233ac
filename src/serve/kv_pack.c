// Hashes are always written as 64-bit unsigned numbers (0xCF), because readers take no shorter form.
#include "serve/kv_pack.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

// Routers' words for the tiers; GPU is what the engine computes from.
static const char *const medium[] = {
    [CACHE_DEVICE] = "GPU", [CACHE_RAM] = "CPU", [CACHE_DISK] = "STORAGE"};

void kv_item_free(struct kv_item *item)
{
    free(item->tokens);
    free(item->salt);
    *item = (struct kv_item){0};
}

static int write_buf(void *arg, const char *p, size_t n)
{
    buf_put(arg, p, n);
    return 0;
}

static void put_text(msgpack_packer *pk, const char *text)
{
    const size_t n = strlen(text);
    msgpack_pack_str(pk, n);
    msgpack_pack_str_body(pk, text, n);
}

static void put_hashes(msgpack_packer *pk, const struct kv_item *items, size_t n)
{
    put_text(pk, "block_hashes");
    msgpack_pack_array(pk, n);
    for (size_t i = 0; i < n; i++) msgpack_pack_fix_uint64(pk, items[i].hash);
}

static void put_tokens(msgpack_packer *pk, const struct kv_item *items, size_t n)
{
    put_text(pk, "token_ids");
    msgpack_pack_array(pk, n * items[0].n_tokens);
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < items[i].n_tokens; k++)
            msgpack_pack_uint32(pk, (uint32_t)items[i].tokens[k]);
}

// One entry a block; a salt stands with the first block under it.
static void put_extra_keys(msgpack_packer *pk, const struct kv_item *items, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) any = any || items[i].salt != NULL;
    put_text(pk, "extra_keys");
    if (!any) {
        msgpack_pack_nil(pk);
        return;
    }
    msgpack_pack_array(pk, n);
    for (size_t i = 0; i < n; i++) {
        if (items[i].salt == NULL) {
            msgpack_pack_nil(pk);
            continue;
        }
        msgpack_pack_array(pk, 1);
        put_text(pk, items[i].salt);
    }
}

static void put_stored(msgpack_packer *pk, const struct kv_item *items, size_t n)
{
    msgpack_pack_map(pk, 9);
    put_text(pk, "type");
    put_text(pk, "BlockStored");
    put_hashes(pk, items, n);
    put_text(pk, "parent_block_hash");
    if (items[0].parent == 0)
        msgpack_pack_nil(pk);
    else
        msgpack_pack_fix_uint64(pk, items[0].parent);
    put_tokens(pk, items, n);
    put_text(pk, "block_size");
    msgpack_pack_uint32(pk, items[0].n_tokens);
    put_text(pk, "lora_id");
    msgpack_pack_nil(pk);
    put_text(pk, "medium");
    put_text(pk, medium[items[0].tier]);
    put_text(pk, "lora_name");
    msgpack_pack_nil(pk);
    put_extra_keys(pk, items, n);
}

static void put_removed(msgpack_packer *pk, const struct kv_item *items, size_t n)
{
    msgpack_pack_map(pk, 3);
    put_text(pk, "type");
    put_text(pk, "BlockRemoved");
    put_hashes(pk, items, n);
    put_text(pk, "medium");
    put_text(pk, medium[items[0].tier]);
}

// How many items from the first on make one event.
static size_t run_length(const struct kv_item *items, size_t n)
{
    size_t k = 1;
    if (items[0].kind == KV_CLEARED) return 1;
    while (k < n && items[k].kind == items[0].kind && items[k].tier == items[0].tier &&
           (items[0].kind == KV_REMOVED ||
            (items[k].parent == items[k - 1].hash && items[k].n_tokens == items[0].n_tokens)))
        k++;
    return k;
}

static void put_event(msgpack_packer *pk, const struct kv_item *items, size_t n)
{
    switch (items[0].kind) {
    case KV_STORED: put_stored(pk, items, n); break;
    case KV_REMOVED: put_removed(pk, items, n); break;
    case KV_CLEARED:
        msgpack_pack_map(pk, 1);
        put_text(pk, "type");
        put_text(pk, "AllBlocksCleared");
        break;
    }
}

void kv_pack_batch(struct buf *out, double now_s, const struct kv_item *items, size_t n)
{
    msgpack_packer pk;
    size_t n_events = 0;
    for (size_t i = 0; i < n; i += run_length(items + i, n - i)) n_events++;
    msgpack_packer_init(&pk, out, write_buf);
    msgpack_pack_array(&pk, 3);
    msgpack_pack_double(&pk, now_s);
    msgpack_pack_array(&pk, n_events);
    for (size_t i = 0, k; i < n; i += k) {
        k = run_length(items + i, n - i);
        put_event(&pk, items + i, k);
    }
    msgpack_pack_nil(&pk); // no data parallel rank
}
