// GGUF v3 files: metadata and tensor directory, mapped read-only. Every count, offset and size is
// bounded before use; a message names the file, the key or tensor and the offending value.
// Source: the GGUF specification of the ggml project.
// Not here: what the metadata means (model/arch.h), how weights are decoded (model/quant.h).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "kernels/common/formats.h"

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

// One metadata pair. Scalars are decoded; arrays stay in the file and are walked with gguf_array_*.
struct gguf_kv {
    struct str key;
    enum gguf_type type;
    enum gguf_type item_type;  // of an array
    uint64_t n_items;          // of an array; 1 otherwise
    const unsigned char *data; // of an array: first item, in the map
    union {
        uint64_t u;
        int64_t i;
        double f;
        bool b;
        struct str s;
    } v;
};

struct gguf_tensor {
    struct str name;
    enum fmt fmt;
    uint32_t n_dims;
    uint64_t dims[4];          // dims[0] is the row length; unused ones are 1
    const unsigned char *data; // n_bytes, in the map
    size_t n_bytes;
    int fd;            // the file that holds it (split models have several) ...
    uint64_t file_off; // ... and where, for direct reads
};

struct gguf; // owns the maps

// Opens path; of a split model any part may be named, and all parts are opened.
// *out is owned by the caller; close with gguf_close. A file without tensors is fine.
// A tensor of a type that formats.def lacks fails with ERR_UNSUPPORTED and the list of those it has.
bool gguf_open(struct gguf **out, const char *path, struct err *e);
// The same from bytes in memory, one string a part in order (tests, fuzzing). The bytes are borrowed
// until gguf_close; name stands for the path in messages.
bool gguf_open_memory(struct gguf **out, const struct str *parts, size_t n_parts, const char *name,
                      struct err *e);
void gguf_close(struct gguf *g); // NULL is fine

const char *gguf_path(const struct gguf *g);
size_t gguf_file_bytes(const struct gguf *g); // all parts
// One file of the model: all its bytes, in the map. fd is -1 where they came from memory.
struct gguf_part {
    const unsigned char *p;
    size_t n;
    int fd;
};
size_t gguf_n_parts(const struct gguf *g);
struct gguf_part gguf_part_at(const struct gguf *g, size_t i);
size_t gguf_n_kv(const struct gguf *g);
const struct gguf_kv *gguf_kv_at(const struct gguf *g, size_t i);
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key); // NULL when absent
size_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g,
                                           const char *name); // NULL when absent

// Typed look-ups. An absent key leaves *out alone and returns true; a key of another kind or a value
// out of range fails with ERR_FORMAT. Integers of every width and sign are taken where they fit.
bool gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out, struct err *e);
bool gguf_get_f32(const struct gguf *g, const char *key, float *out, struct err *e);
bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e);
bool gguf_get_str(const struct gguf *g, const char *key, struct str *out, struct err *e);

// Fills out[n_items] from an array of strings / of integers; bounds were checked at open.
bool gguf_array_str(const struct gguf_kv *kv, struct str *out, struct err *e);
bool gguf_array_i32(const struct gguf_kv *kv, int32_t *out, struct err *e);
