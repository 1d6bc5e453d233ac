// Any bytes as a GGUF model: opening, reading the configuration and looking at everything that was
// handed out must not crash, read outside, take much memory or hang.
// An input that begins with 'S' is a model in two parts: 'S', u32 length of the first, both parts.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/arch.h"
#include "model/gguf.h"
#include "model/quant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static volatile unsigned sink; // so that reads are not removed

static void look_at_kv(const struct gguf *g, const struct gguf_kv *kv)
{
    struct err e = {0};
    char key[128];
    uint32_t u = 0;
    float f = 0;
    bool b = false;
    struct str s = {0};
    if (kv->type == GGUF_STRING && kv->v.s.n > 0) sink += (unsigned char)kv->v.s.p[kv->v.s.n - 1];
    if (kv->type == GGUF_ARRAY) {
        size_t item = sizeof(struct str) > sizeof(int32_t) ? sizeof(struct str) : sizeof(int32_t);
        void *items = calloc(kv->n_items + 1, item);
        if (items == NULL) abort(); // n_items is bounded by the file's size
        if (gguf_array_str(kv, items, &e) && kv->n_items > 0) {
            const struct str *last = (const struct str *)items + kv->n_items - 1;
            if (last->n > 0) sink += (unsigned char)last->p[last->n - 1];
        }
        gguf_array_i32(kv, items, &e);
        free(items);
    }
    if (kv->key.n >= sizeof key || memchr(kv->key.p, 0, kv->key.n) != NULL) return;
    memcpy(key, kv->key.p, kv->key.n);
    key[kv->key.n] = '\0';
    if (gguf_find(g, key) != kv) abort();
    gguf_get_u32(g, key, &u, &(struct err){0});
    gguf_get_f32(g, key, &f, &(struct err){0});
    gguf_get_bool(g, key, &b, &(struct err){0});
    gguf_get_str(g, key, &s, &(struct err){0});
}

static void look_at_tensor(const struct gguf_tensor *t)
{
    float out[256];
    const uint32_t block = fmt_info[t->fmt].block;
    sink += t->data[0] + t->data[t->n_bytes - 1];
    if (t->dims[0] >= block) quant_decode_row(t->fmt, t->data, out, block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    log_set_level(LOG_ERROR);
    struct str parts[2] = {{(const char *)data, n}, {0}};
    size_t n_parts = 1;
    uint32_t first = 0;
    if (n >= 5 && data[0] == 'S') {
        memcpy(&first, data + 1, 4);
        if (first > n - 5) first = (uint32_t)(n - 5);
        parts[0] = (struct str){(const char *)data + 5, first};
        parts[1] = (struct str){(const char *)data + 5 + first, n - 5 - first};
        n_parts = 2;
    }
    struct gguf *g = NULL;
    struct err e = {0};
    struct model_config c;
    if (!gguf_open_memory(&g, parts, n_parts, "fuzz", &e)) {
        if (e.code == ERR_NONE || e.code == ERR_MEMORY || e.msg[0] == '\0') abort();
        return 0;
    }
    for (size_t i = 0; i < gguf_n_kv(g); i++) look_at_kv(g, gguf_kv_at(g, i));
    for (size_t i = 0; i < gguf_n_tensors(g); i++) look_at_tensor(gguf_tensor_at(g, i));
    arch_read(&c, g, false, &(struct err){0});
    arch_read(&c, g, true, &(struct err){0});
    gguf_close(g);
    return 0;
}
