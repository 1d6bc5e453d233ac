// "%s" % x and "{}".format(x): the part of Python's formatting that templates use. Flags, width and
// precision work for % only.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

struct spec {
    bool left, zero, plus, space, alternate;
    int width, precision; // -1: none
};

static size_t parse_number(struct str f, size_t i, int *out)
{
    int n = 0;
    while (i < f.n && f.p[i] >= '0' && f.p[i] <= '9' && n < 100000) n = n * 10 + (f.p[i++] - '0');
    *out = n;
    return i;
}

static size_t parse_spec(struct str f, size_t i, struct spec *s)
{
    *s = (struct spec){.width = 0, .precision = -1};
    for (; i < f.n && memchr("-0+ #", f.p[i], 5) != NULL; i++) {
        s->left |= f.p[i] == '-';
        s->zero |= f.p[i] == '0';
        s->plus |= f.p[i] == '+';
        s->space |= f.p[i] == ' ';
        s->alternate |= f.p[i] == '#';
    }
    i = parse_number(f, i, &s->width);
    if (i < f.n && f.p[i] == '.') i = parse_number(f, i + 1, &s->precision);
    return i;
}

static bool put_text(struct run *r, struct buf *b, const struct spec *s, struct value v, char kind)
{
    struct str text;
    struct buf quoted = {0};
    struct value copy;
    if (kind == 'r' && v.kind == VALUE_STRING) {
        text_repr(&quoted, v.s);
        if (!ops_take(r, &quoted, &copy)) return false;
        v = copy;
    }
    if (!ops_str(r, v, &text)) return false;
    if (s->precision >= 0) text.n = text_offset(text, (size_t)s->precision);
    size_t n = text_n_chars(text), width = (size_t)s->width;
    for (size_t i = n; !s->left && i < width; i++) buf_c(b, ' ');
    buf_str(b, text);
    for (size_t i = n; s->left && i < width; i++) buf_c(b, ' ');
    return run_charge(r, text.n + width);
}

static bool put_number(struct run *r, struct buf *b, const struct spec *s, struct value v,
                       char kind)
{
    if (!ops_is_number(v))
        return run_fail(r, "%%%c format: a number is required, not %s", kind, ops_type(v));
    char f[16];
    size_t n = 0;
    f[n++] = '%';
    if (s->left) f[n++] = '-';
    if (s->zero) f[n++] = '0';
    if (s->plus) f[n++] = '+';
    if (s->space) f[n++] = ' ';
    if (s->alternate) f[n++] = '#';
    f[n++] = '*';
    bool is_int = strchr("dixXo", kind) != NULL;
    char text[600];
    int width = s->width < 200 ? s->width : 200,
        precision = s->precision < 200 ? s->precision : 200;
    // The format string is built from a closed set of flags just above.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (is_int) {
        int64_t i = v.kind == VALUE_FLOAT ? 0 : v.kind == VALUE_BOOL ? v.b : v.i;
        if (v.kind == VALUE_FLOAT && v.f > -9e18 && v.f < 9e18) i = (int64_t)v.f;
        bool negative = (kind == 'x' || kind == 'X' || kind == 'o') && i < 0;
        snprintf(f + n, sizeof f - n, "ll%c", kind);
        if (negative) buf_c(b, '-');
        snprintf(text, sizeof text, f, width, negative ? -(long long)i : (long long)i);
    } else {
        snprintf(f + n, sizeof f - n, ".*%c", kind);
        snprintf(text, sizeof text, f, width, precision < 0 ? 6 : precision, ops_double(v));
    }
#pragma GCC diagnostic pop
    buf_z(b, text);
    return run_charge(r, 64);
}

static bool put_percent(struct run *r, struct buf *b, struct str f, const struct value *p, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < f.n;) {
        size_t percent = str_find(f, STR("%"), i);
        if (percent == SIZE_MAX) percent = f.n;
        buf_put(b, f.p + i, percent - i);
        i = percent + 1;
        if (percent == f.n) break;
        struct spec s;
        i = parse_spec(f, i, &s);
        if (i >= f.n) return run_fail(r, "incomplete format");
        char kind = f.p[i++];
        if (kind == '%') {
            buf_c(b, '%');
            continue;
        }
        if (kind == '\0' || strchr("srdixXofFeEgG", kind) == NULL)
            return run_fail(r, "unsupported format character 0x%02x", (unsigned char)kind);
        if (used == n) return run_fail(r, "not enough arguments for format string");
        struct value v = p[used++];
        bool ok = kind == 's' || kind == 'r' ? put_text(r, b, &s, v, kind)
                                             : put_number(r, b, &s, v, kind);
        if (!ok) return false;
    }
    return used == n || run_fail(r, "not all arguments converted during string formatting");
}

bool format_percent(struct run *r, struct str f, const struct value *p, size_t n, struct value *out)
{
    struct buf b = {0};
    if (put_percent(r, &b, f, p, n)) return ops_take(r, &b, out);
    buf_free(&b);
    return false;
}

// The argument that "{name}", "{0}" or "{}" means.
static bool brace_argument(struct run *r, struct str name, const struct jinja_call *c,
                           size_t *automatic, struct value *out)
{
    size_t i = 0;
    *out = (struct value){0};
    if (name.n == 0) {
        i = (*automatic)++;
    } else if (name.p[0] >= '0' && name.p[0] <= '9') {
        int n;
        parse_number(name, 0, &n);
        i = (size_t)n;
    } else {
        *out = value_find(c->named, name);
        if (out->kind != VALUE_UNDEFINED) return true;
        return run_fail(r, "format() has no argument of this name");
    }
    if (i >= c->n_rest) return run_fail(r, "format() has no argument %zu", i);
    *out = c->rest[i];
    return true;
}

static bool put_braces(struct run *r, struct buf *b, struct str f, const struct jinja_call *c)
{
    size_t automatic = 0;
    for (size_t i = 0; i < f.n;) {
        char ch = f.p[i];
        bool doubled = i + 1 < f.n && f.p[i + 1] == ch;
        if ((ch != '{' && ch != '}') || doubled) {
            buf_c(b, ch);
            i += 1 + (doubled && (ch == '{' || ch == '}'));
            continue;
        }
        size_t end = str_find(f, STR("}"), i);
        if (ch == '}' || end == SIZE_MAX) return run_fail(r, "single '%c' in format string", ch);
        struct str name = str_sub(f, i + 1, end - i - 1), text;
        struct value v;
        if (str_find(name, STR(":"), 0) != SIZE_MAX || str_find(name, STR("!"), 0) != SIZE_MAX)
            return run_fail(r, "format specifications in {} are not supported");
        if (!brace_argument(r, name, c, &automatic, &v) || !ops_str(r, v, &text)) return false;
        buf_str(b, text);
        if (!run_charge(r, text.n)) return false;
        i = end + 1;
    }
    return true;
}

bool format_braces(struct run *r, struct str f, const struct jinja_call *c, struct value *out)
{
    struct buf b = {0};
    if (put_braces(r, &b, f, c)) return ops_take(r, &b, out);
    buf_free(&b);
    return false;
}
