// Metadata values by key and type. A value is taken where it fits, whatever integer width the file
// chose; what does not fit is refused, never rounded or cut.
#include "model/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const char *const type_names[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = "u8",         [GGUF_I8] = "i8",       [GGUF_U16] = "u16", [GGUF_I16] = "i16",
    [GGUF_U32] = "u32",       [GGUF_I32] = "i32",     [GGUF_F32] = "f32", [GGUF_BOOL] = "bool",
    [GGUF_STRING] = "string", [GGUF_ARRAY] = "array", [GGUF_U64] = "u64", [GGUF_I64] = "i64",
    [GGUF_F64] = "f64",
};

static bool is_unsigned(enum gguf_type t)
{
    return t == GGUF_U8 || t == GGUF_U16 || t == GGUF_U32 || t == GGUF_U64;
}

static bool is_signed(enum gguf_type t)
{
    return t == GGUF_I8 || t == GGUF_I16 || t == GGUF_I32 || t == GGUF_I64;
}

static bool wrong_type(const struct gguf *g, const struct gguf_kv *kv, const char *want,
                       struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: key '%.*s' is of type %s, expected %s", gguf_path(g),
                   (int)(kv->key.n < 100 ? kv->key.n : 100), kv->key.p, type_names[kv->type], want);
}

bool gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL) return true;
    if (is_signed(kv->type) && kv->v.i < 0)
        return err_set(e, ERR_FORMAT, "%s: key '%s' is %" PRId64 ", expected 0 to %" PRIu32,
                       gguf_path(g), key, kv->v.i, UINT32_MAX);
    if (!is_signed(kv->type) && !is_unsigned(kv->type)) return wrong_type(g, kv, "an integer", e);
    uint64_t u = is_signed(kv->type) ? (uint64_t)kv->v.i : kv->v.u;
    if (u > UINT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: key '%s' is %" PRIu64 ", expected 0 to %" PRIu32,
                       gguf_path(g), key, u, UINT32_MAX);
    *out = (uint32_t)u;
    return true;
}

bool gguf_get_f32(const struct gguf *g, const char *key, float *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL) return true;
    if (kv->type != GGUF_F32 && kv->type != GGUF_F64) return wrong_type(g, kv, "a float", e);
    if (!isfinite((float)kv->v.f))
        return err_set(e, ERR_FORMAT, "%s: key '%s' is %g, expected a finite 32-bit float",
                       gguf_path(g), key, kv->v.f);
    *out = (float)kv->v.f;
    return true;
}

bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL) return true;
    if (kv->type != GGUF_BOOL) return wrong_type(g, kv, "a bool", e);
    *out = kv->v.b;
    return true;
}

bool gguf_get_str(const struct gguf *g, const char *key, struct str *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL) return true;
    if (kv->type != GGUF_STRING) return wrong_type(g, kv, "a string", e);
    *out = kv->v.s;
    return true;
}

static bool wrong_array(const struct gguf_kv *kv, const char *want, struct err *e)
{
    bool array = kv->type == GGUF_ARRAY;
    return err_set(e, ERR_FORMAT, "key '%.*s' is %s%s, expected an array of %s",
                   (int)(kv->key.n < 100 ? kv->key.n : 100), kv->key.p,
                   array ? "an array of " : "of type ",
                   type_names[array ? kv->item_type : kv->type], want);
}

bool gguf_array_str(const struct gguf_kv *kv, struct str *out, struct err *e)
{
    if (kv->type != GGUF_ARRAY || kv->item_type != GGUF_STRING)
        return wrong_array(kv, "strings", e);
    const unsigned char *p = kv->data;
    for (uint64_t i = 0; i < kv->n_items; i++) {
        uint64_t n;
        memcpy(&n, p, sizeof n);
        out[i] = (struct str){(const char *)p + sizeof n, (size_t)n};
        p += sizeof n + n;
    }
    return true;
}

// Item i of an integer array; false when it does not fit an int64_t.
static bool int_item(const struct gguf_kv *kv, uint64_t i, int64_t *out)
{
    const unsigned char *p = kv->data;
    switch (kv->item_type) {
    case GGUF_U8: *out = p[i]; return true;
    case GGUF_I8: *out = (int8_t)p[i]; return true;
    case GGUF_U16:
    case GGUF_I16: {
        uint16_t x;
        memcpy(&x, p + i * sizeof x, sizeof x);
        *out = kv->item_type == GGUF_I16 ? (int16_t)x : x;
        return true;
    }
    case GGUF_U32:
    case GGUF_I32: {
        uint32_t x;
        memcpy(&x, p + i * sizeof x, sizeof x);
        *out = kv->item_type == GGUF_I32 ? (int32_t)x : (int64_t)x;
        return true;
    }
    default: {
        uint64_t x;
        memcpy(&x, p + i * sizeof x, sizeof x);
        *out = (int64_t)x;
        return kv->item_type == GGUF_I64 || x <= INT64_MAX;
    }
    }
}

bool gguf_array_i32(const struct gguf_kv *kv, int32_t *out, struct err *e)
{
    if (kv->type != GGUF_ARRAY || (!is_signed(kv->item_type) && !is_unsigned(kv->item_type)))
        return wrong_array(kv, "integers", e);
    for (uint64_t i = 0; i < kv->n_items; i++) {
        int64_t x;
        if (!int_item(kv, i, &x) || x < INT32_MIN || x > INT32_MAX)
            return err_set(e, ERR_FORMAT,
                           "key '%.*s': item %" PRIu64 " does not fit a 32-bit integer",
                           (int)(kv->key.n < 100 ? kv->key.n : 100), kv->key.p, i);
        out[i] = (int32_t)x;
    }
    return true;
}
