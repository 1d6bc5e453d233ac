// JSON text (RFC 8259) -> values. Strict: no comments, no trailing commas, no NaN, valid UTF-8
// only. One leniency, where the RFC leaves it open (section 8.2): an escaped surrogate without its
// partner becomes U+FFFD, since clients that cut text between two UTF-16 units do send them.
// Invariant: pos only grows, and every read is checked against the end.
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "text/value.h"

enum { MAX_DEPTH = 128, LINEAR_KEYS = 16 };

struct parser {
    struct str text;
    size_t pos;
    struct arena *arena;
    struct err *err;
};

static bool fail(struct parser *p, size_t at, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at && i < p->text.n; i++) {
        unsigned char c = (unsigned char)p->text.p[i];
        column = c == '\n' ? 1 : column + (c < 0x80 || c >= 0xc0); // characters, not bytes
        line += c == '\n';
    }
    return err_set(p->err, ERR_INPUT, "line %zu column %zu: %s", line, column, what);
}

static bool no_memory(struct parser *p)
{
    return err_set(p->err, ERR_MEMORY, "out of memory while reading %zu bytes of JSON", p->text.n);
}

static int peek(const struct parser *p)
{
    return p->pos < p->text.n ? (unsigned char)p->text.p[p->pos] : -1;
}

static void skip_space(struct parser *p)
{
    for (int c = peek(p); c == ' ' || c == '\n' || c == '\t' || c == '\r'; c = peek(p)) p->pos++;
}

static bool skip_char(struct parser *p, char c)
{
    if (peek(p) != c) return false;
    p->pos++;
    return true;
}

// ---- strings --------------------------------------------------------------------------------

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// The four hex digits at index at; -1 when they are not all there.
static int32_t hex4(struct str s, size_t at)
{
    if (at > s.n || s.n - at < 4) return -1;
    int32_t u = 0;
    for (size_t i = 0; i < 4; i++) {
        int d = hex_digit(s.p[at + i]);
        if (d < 0) return -1;
        u = u << 4 | d;
    }
    return u;
}

// Moves to the closing quote, checking every byte; says whether there were escapes.
static bool scan_string(struct parser *p, bool *has_escapes)
{
    size_t start = p->pos - 1;
    *has_escapes = false;
    for (;;) {
        int c = peek(p);
        if (c < 0) return fail(p, start, "this string has no end");
        if (c == '"') return true;
        if (c < 0x20) return fail(p, p->pos, "control character in a string: write it as \\u00XX");
        if (c == '\\') {
            *has_escapes = true;
            int next = p->pos + 1 < p->text.n ? (unsigned char)p->text.p[p->pos + 1] : -1;
            if (next < 0 || next == 0 || strchr("\"\\/bfnrtu", next) == NULL)
                return fail(p, p->pos,
                            "unknown escape; allowed are \\\" \\\\ \\/ \\b \\f \\n \\r "
                            "\\t \\uXXXX");
            if (next == 'u' && hex4(p->text, p->pos + 2) < 0)
                return fail(p, p->pos, "\\u needs four hexadecimal digits");
            p->pos += next == 'u' ? 6 : 2;
            continue;
        }
        size_t n = c < 0x80 ? 1 : utf8_valid_len(p->text.p + p->pos, p->text.n - p->pos);
        if (n == 0) return fail(p, p->pos, "this is not valid UTF-8");
        p->pos += n;
    }
}

// Decodes \uXXXX (and a second one that completes a surrogate pair) at raw.p[*at] to out.
static size_t decode_u(struct str raw, size_t *at, char out[4])
{
    uint32_t cp = (uint32_t)hex4(raw, *at + 2);
    *at += 6;
    if (cp >= 0xd800 && cp < 0xdc00 && *at + 6 <= raw.n && raw.p[*at] == '\\' &&
        raw.p[*at + 1] == 'u') {
        int32_t low = hex4(raw, *at + 2);
        if (low >= 0xdc00 && low < 0xe000) {
            cp = 0x10000 + ((cp - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
            *at += 6;
        }
    }
    size_t n = utf8_encode(cp, out);
    return n > 0 ? n : utf8_encode(0xfffd, out);
}

// raw was checked by scan_string. An escape is never shorter than what it stands for.
static bool unescape(struct parser *p, struct str raw, struct str *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char *dst = arena_alloc(p->arena, raw.n + 1);
    if (dst == NULL) return no_memory(p);
    size_t n = 0, i = 0;
    while (i < raw.n) {
        const char *escape = memchr(raw.p + i, '\\', raw.n - i);
        size_t plain = escape == NULL ? raw.n - i : (size_t)(escape - raw.p) - i;
        memcpy(dst + n, raw.p + i, plain);
        n += plain;
        i += plain;
        if (i >= raw.n) break;
        if (raw.p[i + 1] == 'u') {
            n += decode_u(raw, &i, dst + n);
        } else {
            dst[n++] = to[strchr(from, raw.p[i + 1]) - from];
            i += 2;
        }
    }
    *out = (struct str){dst, n};
    return true;
}

static bool parse_string(struct parser *p, struct str *out)
{
    p->pos++; // the quote
    size_t start = p->pos;
    bool has_escapes;
    if (!scan_string(p, &has_escapes)) return false;
    struct str raw = str_sub(p->text, start, p->pos - start);
    p->pos++;
    if (has_escapes) return unescape(p, raw, out);
    *out = raw;
    return true;
}

// ---- numbers --------------------------------------------------------------------------------

static size_t skip_digits(struct parser *p)
{
    size_t start = p->pos;
    while (peek(p) >= '0' && peek(p) <= '9') p->pos++;
    return p->pos - start;
}

static struct value integer(struct str s)
{
    bool negative = s.p[0] == '-';
    int64_t i = 0;
    for (size_t k = negative; k < s.n; k++) {
        int64_t digit = s.p[k] - '0';
        if (__builtin_mul_overflow(i, 10, &i) ||
            __builtin_add_overflow(i, negative ? -digit : digit, &i))
            return (struct value){.kind = VALUE_BIGINT, .s = s};
    }
    return value_int(i);
}

static bool real(struct parser *p, struct str s, struct value *out)
{
    char small[64], *z = small;
    if (s.n >= sizeof small) z = arena_alloc(p->arena, s.n + 1);
    if (z == NULL) return no_memory(p);
    memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    *out = (struct value){.kind = VALUE_FLOAT, .f = strtod(z, NULL)};
    return true;
}

static bool parse_number(struct parser *p, struct value *out)
{
    size_t start = p->pos;
    bool is_real = false;
    skip_char(p, '-');
    bool zero = peek(p) == '0';
    size_t n = skip_digits(p);
    if (n == 0) return fail(p, p->pos, "expected a digit");
    if (zero && n > 1) return fail(p, start, "a number must not begin with 0");
    if (skip_char(p, '.')) {
        is_real = true;
        if (skip_digits(p) == 0) return fail(p, p->pos, "expected a digit behind the point");
    }
    if (peek(p) == 'e' || peek(p) == 'E') {
        is_real = true;
        p->pos++;
        if (!skip_char(p, '+')) skip_char(p, '-');
        if (skip_digits(p) == 0) return fail(p, p->pos, "expected a digit in the exponent");
    }
    struct str s = str_sub(p->text, start, p->pos - start);
    if (is_real) return real(p, s, out);
    *out = integer(s);
    return true;
}

// ---- arrays and objects ---------------------------------------------------------------------

// Python keeps a repeated key where it first stood, with its last value.
static bool drop_duplicates(struct parser *p, struct value_dict *d)
{
    size_t n_slots = 64;
    while (n_slots < d->n * 2) n_slots *= 2;
    size_t *slots = calloc(n_slots, sizeof *slots); // index + 1; 0 = free
    if (slots == NULL) return no_memory(p);
    uint64_t seed = (uint64_t)(uintptr_t)slots; // differs each time: nobody can prepare collisions
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++) {
        struct value_pair pair = d->pairs[i];
        size_t at = hash64(pair.key.p, pair.key.n, seed) & (n_slots - 1);
        while (slots[at] != 0 && !str_eq(d->pairs[slots[at] - 1].key, pair.key))
            at = (at + 1) & (n_slots - 1);
        if (slots[at] != 0) {
            d->pairs[slots[at] - 1].v = pair.v;
            continue;
        }
        d->pairs[n++] = pair;
        slots[at] = n;
    }
    d->n = n;
    free(slots);
    return true;
}

static bool put_pair(struct parser *p, struct value dict, struct str key, struct value v)
{
    bool ok = dict.dict->n < LINEAR_KEYS ? value_set(p->arena, dict, key, v)
                                         : value_add_pair(p->arena, dict.dict, key, v);
    return ok || no_memory(p);
}

static bool parse_value(struct parser *p, struct value *out, int depth);

static bool parse_object(struct parser *p, struct value *out, int depth)
{
    struct value dict = value_new_dict(p->arena);
    if (dict.kind != VALUE_DICT) return no_memory(p);
    p->pos++;
    skip_space(p);
    bool more = !skip_char(p, '}');
    while (more) {
        struct str key;
        struct value v;
        skip_space(p);
        if (peek(p) != '"') return fail(p, p->pos, "expected a key in double quotes");
        if (!parse_string(p, &key)) return false;
        skip_space(p);
        if (!skip_char(p, ':')) return fail(p, p->pos, "expected ':'");
        if (!parse_value(p, &v, depth) || !put_pair(p, dict, key, v)) return false;
        more = skip_char(p, ',');
        if (!more && !skip_char(p, '}')) return fail(p, p->pos, "expected ',' or '}'");
    }
    if (dict.dict->n > LINEAR_KEYS && !drop_duplicates(p, dict.dict)) return false;
    *out = dict;
    return true;
}

static bool parse_array(struct parser *p, struct value *out, int depth)
{
    struct value list = value_new_list(p->arena);
    if (list.kind != VALUE_LIST) return no_memory(p);
    p->pos++;
    skip_space(p);
    bool more = !skip_char(p, ']');
    while (more) {
        struct value v;
        if (!parse_value(p, &v, depth)) return false;
        if (!value_append(p->arena, list, v)) return no_memory(p);
        more = skip_char(p, ',');
        if (!more && !skip_char(p, ']')) return fail(p, p->pos, "expected ',' or ']'");
    }
    *out = list;
    return true;
}

static bool parse_word(struct parser *p, struct value *out)
{
    static const struct {
        struct str word;
        struct value v;
    } words[] = {
        {{"true", 4}, {.kind = VALUE_BOOL, .b = true}},
        {{"false", 5}, {.kind = VALUE_BOOL}},
        {{"null", 4}, {.kind = VALUE_NULL}},
    };
    struct str rest = str_sub(p->text, p->pos, 8);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!str_starts(rest, words[i].word)) continue;
        p->pos += words[i].word.n;
        *out = words[i].v;
        return true;
    }
    return fail(p, p->pos, rest.n == 0 ? "expected a value, found the end" : "expected a value");
}

// One value with white space on both sides.
static bool parse_value(struct parser *p, struct value *out, int depth)
{
    skip_space(p);
    int c = peek(p);
    bool ok;
    if ((c == '{' || c == '[') && depth == MAX_DEPTH)
        return fail(p, p->pos, "nested deeper than 128 levels");
    if (c == '{') {
        ok = parse_object(p, out, depth + 1);
    } else if (c == '[') {
        ok = parse_array(p, out, depth + 1);
    } else if (c == '"') {
        *out = (struct value){.kind = VALUE_STRING};
        ok = parse_string(p, &out->s);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        ok = parse_number(p, out);
    } else {
        ok = parse_word(p, out);
    }
    if (ok) skip_space(p);
    return ok;
}

bool value_parse(struct value *out, struct arena *a, struct str json, struct err *e)
{
    struct parser p = {.text = json, .arena = a, .err = e};
    struct value v;
    if (!parse_value(&p, &v, 0)) return false;
    if (p.pos < json.n) return fail(&p, p.pos, "nothing may follow the JSON value");
    *out = v;
    return true;
}
