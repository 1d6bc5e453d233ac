// Reads GGUF files. A reader walks a part's bytes front to back and never takes more than is left;
// everything else points into the parts' bytes, which live as long as the struct gguf.
// Not here: values by key and type (gguf_get.c).
// Invariant: what gguf_open hands out was checked completely: arrays end inside the file, strings in
// them too, tensors are whole rows of a known format inside the data section.
#include "model/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/size.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "GGUF data is used in place: a little-endian machine is needed"
#endif

enum {
    MAX_KV = 1 << 16, // real files have under 100
    MAX_TENSORS = 1 << 16,
    MAX_KEY_BYTES = 65535,
    MAX_NAME_BYTES = 255,
    MAX_PARTS = 999,
    MAX_ALIGNMENT = 1 << 20,
    MIN_KV_BYTES = 8 + 1 + 4 + 1,             // key length, key, type, value
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, // name, one dimension, type, offset
};

struct part {
    struct file_map map; // empty when the bytes are the caller's
    const unsigned char *p;
    size_t n;
    char *path;
};

// Open addressing over entries 1..n (0 = free slot); the mask is capacity - 1.
struct index {
    uint32_t *slots;
    size_t mask;
};

struct gguf {
    struct part *parts;
    size_t n_parts;
    struct gguf_kv *kv; // of the first part
    size_t n_kv;
    struct gguf_tensor *tensors; // of all parts
    size_t n_tensors;
    struct index kv_index, tensor_index;
    uint64_t alignment;
};

struct reader {
    const struct part *part;
    size_t pos;
};

// A name from a file, fit to be printed: at most 63 bytes, anything odd as '?'.
struct shown {
    char z[64];
};

static struct shown show(struct str s)
{
    struct shown out;
    size_t n = s.n < sizeof out.z ? s.n : sizeof out.z - 1;
    for (size_t i = 0; i < n; i++) out.z[i] = s.p[i] < ' ' || s.p[i] > '~' ? '?' : s.p[i];
    out.z[n] = '\0';
    return out;
}

// ---- lookups by name -------------------------------------------------------------------------

static bool index_init(struct index *x, size_t n, struct err *e)
{
    size_t cap = 16;
    while (cap < n * 2) cap *= 2;
    x->slots = calloc(cap, sizeof *x->slots);
    if (x->slots == NULL) return err_set(e, ERR_MEMORY, "no memory for an index of %zu names", n);
    x->mask = cap - 1;
    return true;
}

static struct str kv_name(const struct gguf *g, size_t i)
{
    return g->kv[i].key;
}
static struct str tensor_name(const struct gguf *g, size_t i)
{
    return g->tensors[i].name;
}

// The slot that holds name, or the free one where it belongs.
static uint32_t *index_slot(const struct gguf *g, const struct index *x,
                            struct str (*name_at)(const struct gguf *, size_t), struct str name)
{
    size_t i = hash64(name.p, name.n, 0) & x->mask;
    while (x->slots[i] != 0 && !str_eq(name_at(g, x->slots[i] - 1), name)) i = (i + 1) & x->mask;
    return &x->slots[i];
}

// ---- reading ---------------------------------------------------------------------------------

static size_t left(const struct reader *r)
{
    return r->part->n - r->pos;
}

static bool take(struct reader *r, void *out, size_t n, const char *what, struct err *e)
{
    if (n > left(r))
        return err_set(e, ERR_FORMAT,
                       "%s is cut short: %s needs %zu bytes at offset %zu, the file has %zu; fetch "
                       "it again",
                       r->part->path, what, n, r->pos, r->part->n);
    memcpy(out, r->part->p + r->pos, n);
    r->pos += n;
    return true;
}

static bool take_str(struct reader *r, struct str *out, uint64_t max, const char *what,
                     struct err *e)
{
    uint64_t n = 0;
    if (!take(r, &n, sizeof n, what, e)) return false;
    if (n > max)
        return err_set(e, ERR_FORMAT,
                       "%s: the length of %s at offset %zu is %" PRIu64
                       ", more than the limit of %" PRIu64,
                       r->part->path, what, r->pos - sizeof n, n, max);
    if (n > left(r))
        return err_set(e, ERR_FORMAT,
                       "%s: the length of %s at offset %zu is %" PRIu64
                       ", more than the %zu bytes left in the file",
                       r->part->path, what, r->pos - sizeof n, n, left(r));
    *out = (struct str){(const char *)r->part->p + r->pos, (size_t)n};
    r->pos += (size_t)n;
    return true;
}

static const uint8_t type_bytes[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

static void decode_scalar(struct gguf_kv *kv, const unsigned char *p)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
        float f32;
        double f64;
    } x = {0};
    memcpy(&x, p, type_bytes[kv->type]);
    switch (kv->type) {
    case GGUF_U8: kv->v.u = x.u8; break;
    case GGUF_I8: kv->v.i = x.i8; break;
    case GGUF_U16: kv->v.u = x.u16; break;
    case GGUF_I16: kv->v.i = x.i16; break;
    case GGUF_U32: kv->v.u = x.u32; break;
    case GGUF_I32: kv->v.i = x.i32; break;
    case GGUF_U64: kv->v.u = x.u64; break;
    case GGUF_I64: kv->v.i = x.i64; break;
    case GGUF_F32: kv->v.f = (double)x.f32; break;
    case GGUF_F64: kv->v.f = x.f64; break;
    default: kv->v.b = x.u8 != 0; break;
    }
}

static bool read_type(struct reader *r, enum gguf_type *out, struct str key, const char *what,
                      struct err *e)
{
    uint32_t type = 0;
    if (!take(r, &type, sizeof type, what, e)) return false;
    if (type >= GGUF_TYPE_COUNT)
        return err_set(e, ERR_FORMAT, "%s: key '%s' has %s %" PRIu32 ", known are 0 to %d",
                       r->part->path, show(key).z, what, type, GGUF_TYPE_COUNT - 1);
    *out = (enum gguf_type)type;
    return true;
}

static bool check_bools(const struct part *part, struct str key, const unsigned char *p, uint64_t n,
                        struct err *e)
{
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1)
            return err_set(e, ERR_FORMAT, "%s: key '%s' is a bool with the value %d", part->path,
                           show(key).z, p[i]);
    return true;
}

static bool read_array(struct reader *r, struct gguf_kv *kv, struct err *e)
{
    if (!read_type(r, &kv->item_type, kv->key, "array item type", e)) return false;
    if (kv->item_type == GGUF_ARRAY)
        return err_set(e, ERR_UNSUPPORTED, "%s: key '%s' is an array of arrays, not supported",
                       r->part->path, show(kv->key).z);
    if (!take(r, &kv->n_items, sizeof kv->n_items, "an array's length", e)) return false;
    size_t item = kv->item_type == GGUF_STRING ? sizeof(uint64_t) : type_bytes[kv->item_type];
    if (kv->n_items > left(r) / item)
        return err_set(e, ERR_FORMAT,
                       "%s: key '%s' is an array of %" PRIu64 " items, more than fit into the "
                       "%zu bytes left in the file",
                       r->part->path, show(kv->key).z, kv->n_items, left(r));
    kv->data = r->part->p + r->pos;
    if (kv->item_type == GGUF_BOOL && !check_bools(r->part, kv->key, kv->data, kv->n_items, e))
        return false;
    if (kv->item_type != GGUF_STRING) {
        r->pos += (size_t)kv->n_items * item;
        return true;
    }
    for (uint64_t i = 0; i < kv->n_items; i++) {
        struct str s;
        if (!take_str(r, &s, SIZE_MAX, "a string in an array", e))
            return err_prefix(e, "key '%s', item %" PRIu64 ": ", show(kv->key).z, i);
    }
    return true;
}

static bool read_kv(struct reader *r, struct gguf_kv *kv, struct err *e)
{
    *kv = (struct gguf_kv){.n_items = 1};
    if (!take_str(r, &kv->key, MAX_KEY_BYTES, "a key", e)) return false;
    if (kv->key.n == 0)
        return err_set(e, ERR_FORMAT, "%s: an empty key at offset %zu", r->part->path, r->pos);
    if (!read_type(r, &kv->type, kv->key, "type", e)) return false;
    if (kv->type == GGUF_ARRAY) return read_array(r, kv, e);
    if (kv->type == GGUF_STRING) {
        if (!take_str(r, &kv->v.s, SIZE_MAX, "a string", e))
            return err_prefix(e, "key '%s': ", show(kv->key).z);
        return true;
    }
    unsigned char raw[8];
    if (!take(r, raw, type_bytes[kv->type], "a value", e))
        return err_prefix(e, "key '%s': ", show(kv->key).z);
    if (kv->type == GGUF_BOOL && !check_bools(r->part, kv->key, raw, 1, e)) return false;
    decode_scalar(kv, raw);
    return true;
}

static bool read_header(struct reader *r, uint64_t *n_tensors, uint64_t *n_kv, struct err *e)
{
    const char *path = r->part->path;
    char magic[4];
    uint32_t version = 0;
    if (r->part->n == 0) return err_set(e, ERR_FORMAT, "%s is empty; fetch it again", path);
    if (r->part->n < sizeof magic || memcmp(r->part->p, "GGUF", sizeof magic) != 0)
        return err_set(e, ERR_FORMAT, "%s is not a GGUF file: it does not begin with 'GGUF'", path);
    if (!take(r, magic, sizeof magic, "the magic", e)) return false;
    if (!take(r, &version, sizeof version, "the version", e)) return false;
    if (version != 0 && (version & 0xffff) == 0)
        return err_set(e, ERR_UNSUPPORTED, "%s is a big-endian GGUF file; convert it", path);
    if (version != 2 && version != 3) // 2 and 3 differ in byte order only
        return err_set(e, ERR_UNSUPPORTED, "%s has GGUF version %" PRIu32 ", supported are 2 and 3",
                       path, version);
    if (!take(r, n_tensors, sizeof *n_tensors, "the tensor count", e)) return false;
    if (!take(r, n_kv, sizeof *n_kv, "the key count", e)) return false;
    if (*n_tensors > MAX_TENSORS || *n_tensors > left(r) / MIN_TENSOR_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s states %" PRIu64 " tensors and holds %zu bytes: it is cut short or "
                       "damaged; fetch it again (%d tensors is the limit)",
                       path, *n_tensors, r->part->n, MAX_TENSORS);
    if (*n_kv > MAX_KV || *n_kv > left(r) / MIN_KV_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s states %" PRIu64 " keys and holds %zu bytes: it is cut short or "
                       "damaged; fetch it again (%d keys is the limit)",
                       path, *n_kv, r->part->n, MAX_KV);
    return true;
}

// Reads all pairs of a part into g, which holds none yet.
static bool read_kvs(struct gguf *g, struct reader *r, uint64_t n_kv, struct err *e)
{
    if (!index_init(&g->kv_index, n_kv, e)) return false;
    g->kv = calloc(n_kv + 1, sizeof *g->kv);
    if (g->kv == NULL) return err_set(e, ERR_MEMORY, "no memory for %" PRIu64 " keys", n_kv);
    while (g->n_kv < n_kv) {
        struct gguf_kv *kv = &g->kv[g->n_kv];
        if (!read_kv(r, kv, e)) return false;
        uint32_t *slot = index_slot(g, &g->kv_index, kv_name, kv->key);
        if (*slot != 0)
            return err_set(e, ERR_FORMAT, "%s: key '%s' appears twice", r->part->path,
                           show(kv->key).z);
        *slot = (uint32_t)++g->n_kv;
    }
    return true;
}

static void drop_kvs(struct gguf *g)
{
    free(g->kv);
    free(g->kv_index.slots);
    g->kv = NULL;
    g->n_kv = 0;
    g->kv_index = (struct index){0};
}

// ---- tensors ---------------------------------------------------------------------------------

// ggml's type numbers that formats.def may lack, for messages.
static const char *const ggml_names[] = {
    [0] = "F32",     [1] = "F16",      [2] = "Q4_0",   [3] = "Q4_1",    [6] = "Q5_0",
    [7] = "Q5_1",    [8] = "Q8_0",     [9] = "Q8_1",   [10] = "Q2_K",   [11] = "Q3_K",
    [12] = "Q4_K",   [13] = "Q5_K",    [14] = "Q6_K",  [15] = "Q8_K",   [16] = "IQ2_XXS",
    [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S",
    [22] = "IQ2_S",  [23] = "IQ4_XS",  [24] = "I8",    [25] = "I16",    [26] = "I32",
    [27] = "I64",    [28] = "F64",     [29] = "IQ1_M", [30] = "BF16",   [34] = "TQ1_0",
    [35] = "TQ2_0",  [39] = "MXFP4",   [40] = "NVFP4",
};

static bool find_format(enum fmt *out, uint32_t type, const struct part *part, struct str name,
                        struct err *e)
{
    for (int f = 0; f < FMT_COUNT; f++) {
        if (fmt_info[f].gguf_type != type) continue;
        *out = (enum fmt)f;
        return true;
    }
    char have[128] = "";
    for (int f = 0; f < FMT_COUNT; f++) {
        size_t n = strlen(have);
        snprintf(have + n, sizeof have - n, "%s%s", f > 0 ? ", " : "", fmt_info[f].name);
    }
    const char *known = type < sizeof ggml_names / sizeof *ggml_names ? ggml_names[type] : NULL;
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: tensor '%s' has type %s (%" PRIu32 "), which is not supported; "
                   "supported are %s: take a file in one of these",
                   part->path, show(name).z, known != NULL ? known : "unknown", type, have);
}

// The tensor's size in bytes from its dimensions and format.
static bool size_tensor(struct gguf_tensor *t, const struct part *part, struct err *e)
{
    size_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        if (t->dims[i] == 0 || !size_mul(&n, n, (size_t)t->dims[i]))
            return err_set(e, ERR_FORMAT,
                           "%s: tensor '%s' has a dimension of %" PRIu64 ", or its size overflows",
                           part->path, show(t->name).z, t->dims[i]);
    const struct fmt_info *f = &fmt_info[t->fmt];
    if (t->dims[0] % f->block != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%s' has rows of %" PRIu64 ", not whole %s blocks of %" PRIu32,
                       part->path, show(t->name).z, t->dims[0], f->name, f->block);
    if (!size_mul(&t->n_bytes, n / f->block, f->block_bytes))
        return err_set(e, ERR_FORMAT, "%s: the size of tensor '%s' overflows", part->path,
                       show(t->name).z);
    return true;
}

// Reads one entry of the directory; file_off is relative to the data section until place_tensors.
static bool read_tensor(struct reader *r, struct gguf_tensor *t, struct err *e)
{
    const struct part *part = r->part;
    uint32_t type = 0;
    *t = (struct gguf_tensor){.dims = {1, 1, 1, 1}, .fd = part->map.p != NULL ? part->map.fd : -1};
    if (!take_str(r, &t->name, MAX_NAME_BYTES, "a tensor's name", e)) return false;
    if (t->name.n == 0)
        return err_set(e, ERR_FORMAT, "%s: a tensor without a name at offset %zu", part->path,
                       r->pos);
    if (!take(r, &t->n_dims, sizeof t->n_dims, "a tensor's dimension count", e)) return false;
    if (t->n_dims < 1 || t->n_dims > 4)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s' has %" PRIu32 " dimensions, not 1 to 4",
                       part->path, show(t->name).z, t->n_dims);
    if (!take(r, t->dims, t->n_dims * sizeof t->dims[0], "a tensor's dimensions", e)) return false;
    if (!take(r, &type, sizeof type, "a tensor's type", e)) return false;
    if (!take(r, &t->file_off, sizeof t->file_off, "a tensor's offset", e)) return false;
    return find_format(&t->fmt, type, part, t->name, e) && size_tensor(t, part, e);
}

static bool place_tensor(struct gguf *g, struct gguf_tensor *t, const struct part *part,
                         size_t data_start, struct err *e)
{
    size_t room = part->n > data_start ? part->n - data_start : 0;
    if (t->file_off % g->alignment != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%s' is at offset %" PRIu64 ", not a multiple of the "
                       "alignment %" PRIu64,
                       part->path, show(t->name).z, t->file_off, g->alignment);
    if (t->file_off > room || t->n_bytes > room - (size_t)t->file_off)
        return err_set(e, ERR_FORMAT,
                       "%s is cut short: tensor '%s' is %zu bytes at offset %" PRIu64
                       " of the data section, which has %zu; fetch the file again",
                       part->path, show(t->name).z, t->n_bytes, t->file_off, room);
    t->file_off += data_start;
    t->data = part->p + t->file_off;
    return true;
}

static bool read_tensors(struct gguf *g, struct reader *r, uint64_t n, struct err *e)
{
    size_t total = g->n_tensors + (size_t)n;
    if (total > MAX_TENSORS)
        return err_set(e, ERR_FORMAT, "%s: the model has more than %d tensors", r->part->path,
                       MAX_TENSORS);
    struct gguf_tensor *more = realloc(g->tensors, (total + 1) * sizeof *more);
    if (more == NULL) return err_set(e, ERR_MEMORY, "no memory for %zu tensors", total);
    g->tensors = more;
    size_t first = g->n_tensors;
    for (; g->n_tensors < total; g->n_tensors++)
        if (!read_tensor(r, &more[g->n_tensors], e)) return false;
    size_t align = (size_t)g->alignment;
    size_t start = (r->pos + align - 1) / align * align;
    for (size_t i = first; i < total; i++)
        if (!place_tensor(g, &more[i], r->part, start, e)) return false;
    return true;
}

static bool index_tensors(struct gguf *g, struct err *e)
{
    if (!index_init(&g->tensor_index, g->n_tensors, e)) return false;
    for (size_t i = 0; i < g->n_tensors; i++) {
        uint32_t *slot = index_slot(g, &g->tensor_index, tensor_name, g->tensors[i].name);
        if (*slot != 0)
            return err_set(e, ERR_FORMAT, "%s: tensor '%s' appears twice", gguf_path(g),
                           show(g->tensors[i].name).z);
        *slot = (uint32_t)i + 1;
    }
    return true;
}

// ---- parts -----------------------------------------------------------------------------------

static bool read_alignment(struct gguf *g, struct err *e)
{
    uint32_t a = 32;
    if (!gguf_get_u32(g, "general.alignment", &a, e)) return false;
    if (a < 8 || a > MAX_ALIGNMENT || (a & (a - 1)) != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: general.alignment is %" PRIu32 ", not a power of two from 8 to %d",
                       gguf_path(g), a, MAX_ALIGNMENT);
    g->alignment = a;
    return true;
}

// What a part says about the split it belongs to; count 1 when it is whole.
struct split {
    uint32_t no, count, n_tensors;
    bool has_n_tensors;
};

static bool read_split(const struct gguf *g, struct split *out, struct err *e)
{
    *out = (struct split){.count = 1};
    if (!gguf_get_u32(g, "split.count", &out->count, e)) return false;
    if (!gguf_get_u32(g, "split.no", &out->no, e)) return false;
    out->has_n_tensors = gguf_find(g, "split.tensors.count") != NULL;
    if (!gguf_get_u32(g, "split.tensors.count", &out->n_tensors, e)) return false;
    if (out->count == 0) out->count = 1; // some tools write 0 for a whole file
    if (out->count > MAX_PARTS || out->no >= out->count)
        return err_set(e, ERR_FORMAT,
                       "%s: split.no is %" PRIu32 " of split.count %" PRIu32
                       "; at most %d parts, numbered from 0",
                       gguf_path(g), out->no, out->count, MAX_PARTS);
    return true;
}

// Reads part i's metadata (kept of the first part only) and its tensors.
static bool read_part(struct gguf *g, size_t i, struct split *split, struct err *e)
{
    struct gguf other = {.parts = &g->parts[i], .n_parts = 1};
    struct gguf *meta = i == 0 ? g : &other;
    struct reader r = {.part = &g->parts[i]};
    uint64_t n_tensors = 0, n_kv = 0;
    bool ok = read_header(&r, &n_tensors, &n_kv, e) && read_kvs(meta, &r, n_kv, e) &&
              read_split(meta, split, e) && (i > 0 || read_alignment(g, e)) &&
              read_tensors(g, &r, n_tensors, e);
    drop_kvs(&other);
    return ok;
}

static bool check_part(const struct gguf *g, size_t i, const struct split *s, uint32_t count,
                       struct err *e)
{
    if (s->no == i && s->count == count) return true;
    return err_set(e, ERR_FORMAT,
                   "%s: its metadata say part %" PRIu32 " of %" PRIu32 " (counted from 0), "
                   "it stands in for part %zu of %" PRIu32,
                   g->parts[i].path, s->no, s->count, i, count);
}

// What is left once all parts are read.
static bool finish(struct gguf *g, const struct split *first, struct err *e)
{
    if (first->has_n_tensors && first->n_tensors != g->n_tensors)
        return err_set(e, ERR_FORMAT,
                       "%s: split.tensors.count is %" PRIu32 ", the parts hold %zu tensors",
                       gguf_path(g), first->n_tensors, g->n_tensors);
    return index_tensors(g, e);
}

static struct gguf *new_model(size_t n_parts, struct err *e)
{
    struct gguf *g = calloc(1, sizeof *g);
    if (g != NULL) g->parts = calloc(n_parts, sizeof *g->parts);
    if (g != NULL && g->parts != NULL) return g;
    free(g);
    err_set(e, ERR_MEMORY, "no memory to open a model of %zu parts", n_parts);
    return NULL;
}

static bool map_part(struct part *part, const char *path, struct err *e)
{
    part->path = strdup(path);
    if (part->path == NULL) return err_set(e, ERR_MEMORY, "no memory to open %s", path);
    if (!file_map(&part->map, path, e)) return false;
    part->p = part->map.p;
    part->n = part->map.n;
    return true;
}

// The name of part i beside the part named path; *out is the caller's to free.
static bool part_path(char **out, const char *path, size_t i, const struct split *s, struct err *e)
{
    char suffix[64];
    struct buf b = {0};
    struct str stem = str_from(path);
    snprintf(suffix, sizeof suffix, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", s->no + 1, s->count);
    if (!str_ends(stem, str_from(suffix)))
        return err_set(e, ERR_FORMAT,
                       "%s is part %" PRIu32 " of a model in %" PRIu32 " files; its name must end "
                       "in '%s' so that the others can be found",
                       path, s->no + 1, s->count, suffix);
    buf_str(&b, str_sub(stem, 0, stem.n - strlen(suffix)));
    buf_printf(&b, "-%05zu-of-%05" PRIu32 ".gguf", i + 1, s->count);
    *out = b.failed ? NULL : b.p;
    if (*out == NULL) buf_free(&b);
    return *out != NULL || err_set(e, ERR_MEMORY, "no memory for a file name beside %s", path);
}

static bool open_part(struct gguf *g, size_t i, const struct split *first, struct err *e)
{
    char *path;
    struct split s;
    if (!part_path(&path, g->parts[0].path, i, first, e)) return false;
    bool ok = map_part(&g->parts[i], path, e);
    g->n_parts++;
    ok = ok && read_part(g, i, &s, e) && check_part(g, i, &s, first->count, e);
    free(path);
    return ok;
}

// Opens the model whose first part is path; when it is another part, *split says which.
static bool open_first(struct gguf **out, const char *path, struct split *split, struct err *e)
{
    struct gguf *g = new_model(MAX_PARTS, e);
    if (g == NULL) return false;
    g->n_parts = 1;
    bool ok = map_part(&g->parts[0], path, e) && read_part(g, 0, split, e);
    for (size_t i = 1; ok && split->no == 0 && i < split->count; i++)
        ok = open_part(g, i, split, e);
    if (ok && split->no == 0) ok = finish(g, split, e);
    if (!ok) {
        gguf_close(g);
        return false;
    }
    *out = g;
    return true;
}

bool gguf_open(struct gguf **out, const char *path, struct err *e)
{
    struct gguf *g;
    struct split split, again;
    if (!open_first(&g, path, &split, e)) return false;
    if (split.no != 0) {
        char *first;
        gguf_close(g);
        if (!part_path(&first, path, 0, &split, e)) return false;
        bool ok = open_first(&g, first, &again, e);
        if (ok && !check_part(g, 0, &again, split.count, e)) {
            gguf_close(g);
            ok = false;
        }
        free(first);
        if (!ok) return false;
    }
    *out = g;
    return true;
}

bool gguf_open_memory(struct gguf **out, const struct str *parts, size_t n_parts, const char *name,
                      struct err *e)
{
    struct split first = {.count = 1}, s;
    struct gguf *g = new_model(n_parts, e);
    if (g == NULL) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < n_parts; i++) {
        struct part *part = &g->parts[i];
        *part = (struct part){.map.fd = -1, .n = parts[i].n, .path = strdup(name)};
        part->p = (const unsigned char *)parts[i].p;
        g->n_parts++;
        if (part->path == NULL) ok = err_set(e, ERR_MEMORY, "no memory to open %s", name);
        ok = ok && read_part(g, i, &s, e) && check_part(g, i, &s, (uint32_t)n_parts, e);
        if (i == 0) first = s;
    }
    ok = ok && finish(g, &first, e);
    if (!ok) {
        gguf_close(g);
        return false;
    }
    *out = g;
    return true;
}

void gguf_close(struct gguf *g)
{
    if (g == NULL) return;
    for (size_t i = 0; i < g->n_parts; i++) {
        file_unmap(&g->parts[i].map);
        free(g->parts[i].path);
    }
    drop_kvs(g);
    free(g->tensor_index.slots);
    free(g->tensors);
    free(g->parts);
    free(g);
}

// ---- looking ---------------------------------------------------------------------------------

const char *gguf_path(const struct gguf *g)
{
    return g->parts[0].path;
}

size_t gguf_file_bytes(const struct gguf *g)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_parts; i++) n += g->parts[i].n;
    return n;
}

size_t gguf_n_parts(const struct gguf *g)
{
    return g->n_parts;
}

struct gguf_part gguf_part_at(const struct gguf *g, size_t i)
{
    const struct part *part = &g->parts[i];
    return (struct gguf_part){part->p, part->n, part->map.p != NULL ? part->map.fd : -1};
}

size_t gguf_n_kv(const struct gguf *g)
{
    return g->n_kv;
}
const struct gguf_kv *gguf_kv_at(const struct gguf *g, size_t i)
{
    return &g->kv[i];
}
size_t gguf_n_tensors(const struct gguf *g)
{
    return g->n_tensors;
}
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i)
{
    return &g->tensors[i];
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    uint32_t i = *index_slot(g, &g->kv_index, kv_name, str_from(key));
    return i == 0 ? NULL : &g->kv[i - 1];
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
    uint32_t i = *index_slot(g, &g->tensor_index, tensor_name, str_from(name));
    return i == 0 ? NULL : &g->tensors[i - 1];
}
