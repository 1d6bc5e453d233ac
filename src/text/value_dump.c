// Values -> JSON text, byte for byte as Python's json.dumps writes it, because that is what models
// were trained on. Bytes from 0x80 on are copied as they stand, so that a guard byte
// (text/tokenizer.h) comes through.
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/value.h"

enum { MAX_DEPTH = 256 };

static void dump_escape(struct buf *out, unsigned char c)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    const char *hit = c == 0 ? NULL : strchr(from, c);
    if (hit != NULL) {
        buf_c(out, '\\');
        buf_c(out, to[hit - from]);
    } else {
        buf_printf(out, "\\u%04x", c);
    }
}

static size_t dump_ascii(struct buf *out, struct str rest)
{
    uint32_t cp;
    size_t n = utf8_decode(rest.p, rest.n, &cp);
    if (n == 0) {
        buf_c(out, rest.p[0]);
        return 1;
    }
    if (cp > 0xffff) {
        cp -= 0x10000;
        buf_printf(out, "\\u%04x", 0xd800 + (cp >> 10));
        cp = 0xdc00 + (cp & 0x3ff);
    }
    buf_printf(out, "\\u%04x", cp);
    return n;
}

static void dump_string(struct buf *out, struct str s, bool ensure_ascii)
{
    buf_c(out, '"');
    size_t i = 0;
    while (i < s.n) {
        size_t start = i;
        for (; i < s.n; i++) { // the longest run that is copied as it stands
            unsigned char c = (unsigned char)s.p[i];
            if (c < 0x20 || c == '"' || c == '\\' || (c >= 0x80 && ensure_ascii)) break;
        }
        buf_put(out, s.p + start, i - start);
        if (i == s.n) break;
        if ((unsigned char)s.p[i] >= 0x80)
            i += dump_ascii(out, str_sub(s, i, s.n));
        else
            dump_escape(out, (unsigned char)s.p[i++]);
    }
    buf_c(out, '"');
}

// Digits (no point, no trailing zeros) and decimal exponent of the shortest text that reads back as
// f. 15 digits always survive a round trip unless f is subnormal; 17 always suffice.
static int shortest_digits(double f, char digits[24])
{
    char text[40];
    for (int precision = fabs(f) < DBL_MIN ? 0 : 14; precision <= 16; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, f);
        if (precision == 16 || memcmp(&(double){strtod(text, NULL)}, &f, sizeof f) == 0) break;
    }
    size_t n = 0;
    char *e = strchr(text, 'e');
    for (char *c = text; c < e; c++)
        if (*c >= '0' && *c <= '9') digits[n++] = *c;
    while (n > 1 && digits[n - 1] == '0') n--;
    digits[n] = '\0';
    return atoi(e + 1);
}

void value_float_repr(struct buf *out, double f)
{
    if (isnan(f) || isinf(f)) {
        buf_z(out, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    char digits[24];
    int exponent = shortest_digits(f, digits), n = (int)strlen(digits);
    if (signbit(f)) buf_c(out, '-');
    if (exponent < -4 || exponent >= 16) {
        buf_c(out, digits[0]);
        if (n > 1) buf_printf(out, ".%s", digits + 1);
        buf_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        buf_printf(out, "0.%.*s%s", -exponent - 1, "0000", digits);
    } else if (n <= exponent + 1) {
        buf_printf(out, "%s%.*s.0", digits, exponent + 1 - n, "0000000000000000");
    } else {
        buf_printf(out, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
    }
}

static void dump_float(struct buf *out, double f)
{
    if (isnan(f))
        buf_z(out, "NaN");
    else if (isinf(f))
        buf_z(out, f < 0 ? "-Infinity" : "Infinity");
    else
        value_float_repr(out, f);
}

static void new_line(struct buf *out, const struct value_dump_style *s, int depth)
{
    if (s->indent < 0) return;
    buf_c(out, '\n');
    for (int i = 0; i < s->indent * depth; i++) buf_c(out, ' ');
}

static bool dump(struct buf *out, struct value v, const struct value_dump_style *s, int depth);

static bool dump_list(struct buf *out, const struct value_list *l, const struct value_dump_style *s,
                      int depth)
{
    if (l->n == 0) {
        buf_z(out, "[]");
        return true;
    }
    buf_c(out, '[');
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0) buf_str(out, s->item_separator);
        new_line(out, s, depth + 1);
        if (!dump(out, l->items[i], s, depth + 1)) return false;
    }
    new_line(out, s, depth);
    buf_c(out, ']');
    return true;
}

static int by_key(const void *a, const void *b)
{
    return str_cmp(((const struct value_pair *)a)->key, ((const struct value_pair *)b)->key);
}

static bool dump_pairs(struct buf *out, const struct value_pair *pairs, size_t n,
                       const struct value_dump_style *s, int depth)
{
    for (size_t i = 0; i < n; i++) {
        if (i > 0) buf_str(out, s->item_separator);
        new_line(out, s, depth + 1);
        dump_string(out, pairs[i].key, s->ensure_ascii);
        buf_str(out, s->key_separator);
        if (!dump(out, pairs[i].v, s, depth + 1)) return false;
    }
    return true;
}

static bool dump_dict(struct buf *out, const struct value_dict *d, const struct value_dump_style *s,
                      int depth)
{
    if (d->n == 0) {
        buf_z(out, "{}");
        return true;
    }
    struct value_pair *sorted = NULL;
    if (s->sort_keys) {
        sorted = malloc(d->n * sizeof *sorted);
        if (sorted == NULL) {
            out->failed = true;
            return true;
        }
        memcpy(sorted, d->pairs, d->n * sizeof *sorted);
        qsort(sorted, d->n, sizeof *sorted, by_key);
    }
    buf_c(out, '{');
    bool ok = dump_pairs(out, sorted != NULL ? sorted : d->pairs, d->n, s, depth);
    free(sorted);
    if (!ok) return false;
    new_line(out, s, depth);
    buf_c(out, '}');
    return true;
}

static bool dump(struct buf *out, struct value v, const struct value_dump_style *s, int depth)
{
    if (depth > MAX_DEPTH || (s->max_bytes > 0 && out->n > s->max_bytes)) return false;
    switch (v.kind) {
    case VALUE_BOOL: buf_z(out, v.b ? "true" : "false"); return true;
    case VALUE_INT: buf_printf(out, "%lld", (long long)v.i); return true;
    case VALUE_BIGINT: buf_str(out, v.s); return true;
    case VALUE_FLOAT: dump_float(out, v.f); return true;
    case VALUE_STRING: dump_string(out, v.s, s->ensure_ascii); return true;
    case VALUE_LIST: return dump_list(out, v.list, s, depth);
    case VALUE_NAMESPACE:
    case VALUE_DICT: return dump_dict(out, v.dict, s, depth);
    case VALUE_UNDEFINED:
    case VALUE_NULL:
    case VALUE_CALLABLE: break; // what JSON cannot say is null
    }
    buf_z(out, "null");
    return true;
}

bool value_dump_with(struct buf *out, struct value v, const struct value_dump_style *style)
{
    struct value_dump_style s = *style;
    if (s.item_separator.p == NULL) s.item_separator = s.indent < 0 ? STR(", ") : STR(",");
    if (s.key_separator.p == NULL) s.key_separator = STR(": ");
    return dump(out, v, &s, 0);
}

void value_dump(struct buf *out, struct value v, int indent)
{
    value_dump_with(out, v, &(struct value_dump_style){.indent = indent});
}
