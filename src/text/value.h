// JSON values as templates and requests see them: order of keys kept, numbers as they were written
// where Python would keep them (1.0 stays 1.0, a big integer stays whole). Why not jansson here: it
// drops exactly that, and the prompt must equal Hugging Face's byte for byte. All memory is an
// arena's.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum value_kind {
    VALUE_UNDEFINED, // Jinja's undefined; also what look-ups return for "absent"
    VALUE_NULL,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_BIGINT,
    VALUE_FLOAT,
    VALUE_STRING,
    VALUE_LIST,
    VALUE_DICT,
    VALUE_NAMESPACE,
    VALUE_CALLABLE, // only inside the template interpreter
};

struct value;
struct value_list {
    struct value *items;
    size_t n, cap;
};
struct value_pair;
struct value_dict {
    struct value_pair *pairs;
    size_t n, cap;
};

struct value {
    enum value_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        struct str s; // VALUE_STRING; the digits of a VALUE_BIGINT
        struct value_list *list;
        struct value_dict *dict; // also a namespace
        const void *callable;
    };
};
struct value_pair {
    struct str key;
    struct value v;
};

// Parses one JSON text (RFC 8259, UTF-8, duplicate keys: last wins) into the arena; text is
// borrowed as long as the values live (strings without escapes point into it). Depth at most 128.
// Errors give line and column: "line 1 column 17: expected ',' or '}'".
bool value_parse(struct value *out, struct arena *a, struct str json, struct err *e);
// Appends json.dumps(v, ensure_ascii=False) of Python: ", " and ": ". indent < 0 = one line.
void value_dump(struct buf *out, struct value v, int indent);
// The same with Python's other arguments. False when v nests deeper than 256 or the text grows above
// max_bytes (only a template can build such a value; nothing more is written then).
struct value_dump_style {
    int indent;                   // < 0 = one line
    bool ensure_ascii, sort_keys; // \uXXXX for all that is not ASCII; keys by code point
    struct str item_separator;    // with p == NULL: ", ", or "," when there is an indent
    struct str key_separator;     // with p == NULL: ": "
    size_t max_bytes;             // 0 = any length
};
bool value_dump_with(struct buf *out, struct value v, const struct value_dump_style *style);
// Python's repr of a float: the shortest digits that read back as the same number.
void value_float_repr(struct buf *out, double f);
// A dict's entry or VALUE_UNDEFINED; works on anything.
struct value value_get(struct value v, const char *key);
struct value value_find(struct value v, struct str key);
struct value value_str(struct str s);
struct value value_int(int64_t i);
struct value value_bool(bool b);
struct value value_new_list(struct arena *a); // VALUE_UNDEFINED when out of memory, as below
struct value value_new_dict(struct arena *a);
bool value_append(struct arena *a, struct value list, struct value item);
bool value_set(struct arena *a, struct value dict, struct str key, struct value v);
// Adds without looking for the key, where the caller knows that it is new.
bool value_add_pair(struct arena *a, struct value_dict *d, struct str key, struct value v);
bool value_is_true(struct value v);             // Python's truth
const char *value_kind_name(enum value_kind k); // "string", "number", ... for messages
