// Values: making, looking up, truth. Parsing is in value_parse.c, printing in value_dump.c.
// Invariant: a dict holds each key once, in order of first insertion. Look-ups are linear: the
// dicts that a request brings have a handful of keys; the parser removes duplicates of large ones
// by hash.
#include "text/value.h"

#include <string.h>

struct value value_find(struct value v, struct str key)
{
    if (v.kind != VALUE_DICT && v.kind != VALUE_NAMESPACE) return (struct value){0};
    for (size_t i = 0; i < v.dict->n; i++)
        if (str_eq(v.dict->pairs[i].key, key)) return v.dict->pairs[i].v;
    return (struct value){0};
}

struct value value_get(struct value v, const char *key)
{
    return value_find(v, str_from(key));
}

struct value value_str(struct str s)
{
    return (struct value){.kind = VALUE_STRING, .s = s.p == NULL ? STR("") : s};
}

struct value value_int(int64_t i)
{
    return (struct value){.kind = VALUE_INT, .i = i};
}
struct value value_bool(bool b)
{
    return (struct value){.kind = VALUE_BOOL, .b = b};
}

struct value value_new_list(struct arena *a)
{
    struct value_list *l = arena_alloc(a, sizeof *l);
    if (l == NULL) return (struct value){0};
    return (struct value){.kind = VALUE_LIST, .list = l};
}

struct value value_new_dict(struct arena *a)
{
    struct value_dict *d = arena_alloc(a, sizeof *d);
    if (d == NULL) return (struct value){0};
    return (struct value){.kind = VALUE_DICT, .dict = d};
}

// Room for one more of n items of `size` bytes; the old place stays behind in the arena.
static void *grown(struct arena *a, void *items, size_t n, size_t *cap, size_t size)
{
    if (n < *cap) return items;
    size_t more = *cap == 0 ? 4 : *cap * 2;
    void *p = more > *cap ? arena_array(a, more, size) : NULL;
    if (p == NULL) return NULL;
    if (n > 0) memcpy(p, items, n * size);
    *cap = more;
    return p;
}

bool value_append(struct arena *a, struct value list, struct value item)
{
    if (list.kind != VALUE_LIST) return false;
    struct value_list *l = list.list;
    struct value *items = grown(a, l->items, l->n, &l->cap, sizeof *items);
    if (items == NULL) return false;
    l->items = items;
    l->items[l->n++] = item;
    return true;
}

bool value_add_pair(struct arena *a, struct value_dict *d, struct str key, struct value v)
{
    struct value_pair *pairs = grown(a, d->pairs, d->n, &d->cap, sizeof *pairs);
    if (pairs == NULL) return false;
    d->pairs = pairs;
    d->pairs[d->n++] = (struct value_pair){key, v};
    return true;
}

bool value_set(struct arena *a, struct value dict, struct str key, struct value v)
{
    if (dict.kind != VALUE_DICT && dict.kind != VALUE_NAMESPACE) return false;
    struct value_dict *d = dict.dict;
    for (size_t i = 0; i < d->n; i++) {
        if (!str_eq(d->pairs[i].key, key)) continue;
        d->pairs[i].v = v;
        return true;
    }
    return value_add_pair(a, d, key, v);
}

bool value_is_true(struct value v)
{
    switch (v.kind) {
    case VALUE_UNDEFINED:
    case VALUE_NULL: return false;
    case VALUE_BOOL: return v.b;
    case VALUE_INT: return v.i != 0;
    case VALUE_BIGINT: return true; // it does not fit 64 bits, so it is not 0
    case VALUE_FLOAT: return v.f < 0 || v.f > 0 || v.f != v.f;
    case VALUE_STRING: return v.s.n != 0;
    case VALUE_LIST: return v.list->n != 0;
    case VALUE_DICT: return v.dict->n != 0;
    case VALUE_NAMESPACE:
    case VALUE_CALLABLE: return true;
    }
    return false;
}

const char *value_kind_name(enum value_kind k)
{
    switch (k) {
    case VALUE_UNDEFINED: return "undefined";
    case VALUE_NULL: return "null";
    case VALUE_BOOL: return "boolean";
    case VALUE_INT:
    case VALUE_BIGINT:
    case VALUE_FLOAT: return "number";
    case VALUE_STRING: return "string";
    case VALUE_LIST: return "array";
    case VALUE_DICT: return "object";
    case VALUE_NAMESPACE: return "namespace";
    case VALUE_CALLABLE: return "function";
    }
    return "unknown";
}
