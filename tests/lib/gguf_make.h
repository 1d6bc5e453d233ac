// Writes GGUF files for tests, as the specification says and without looking at the reader.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

// Starts as {0}; make_free leaves {0} behind.
struct gguf_make {
    struct buf kv, infos, data;
    uint64_t n_kv, n_tensors;
    uint32_t alignment; // 0 = 32; a file with another one needs general.alignment too
};

void make_le(struct buf *b, uint64_t x, size_t n_bytes); // little-endian
void make_text(struct buf *b, struct str s);             // u64 length, bytes

void make_kv(struct gguf_make *m, const char *key, uint32_t type, const void *value, size_t n);
void make_u32(struct gguf_make *m, const char *key, uint32_t x);
void make_f32(struct gguf_make *m, const char *key, float x);
void make_bool(struct gguf_make *m, const char *key, bool x);
void make_str(struct gguf_make *m, const char *key, const char *z);
void make_strs(struct gguf_make *m, const char *key, const char *const *z, size_t n);
void make_i32s(struct gguf_make *m, const char *key, const int32_t *x, size_t n);
// type is GGUF's number; the data (zeros where data is NULL) are padded to the alignment.
void make_tensor(struct gguf_make *m, const char *name, uint32_t type, const uint64_t *dims,
                 uint32_t n_dims, const void *data, size_t n_bytes);
// Appends the whole file to out.
void make_file(const struct gguf_make *m, struct buf *out);
void make_free(struct gguf_make *m);

// A complete small model with random F32 weights (norms near 1) and no tokenizer.
struct make_shape {
    const char *arch; // "qwen3", "qwen2", "llama"
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab, n_ctx;
    bool tied;
    uint64_t seed;
};
void make_model(struct gguf_make *m, const struct make_shape *s);
