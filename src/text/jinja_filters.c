// Filters on single values: text, numbers, JSON. Those on lists are in jinja_filters_list.c.
// Names and arguments are Jinja 3's; tojson is transformers' (no escaping of HTML, ", " and ": ").
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

static bool given(struct value v)
{
    return v.kind != VALUE_UNDEFINED;
}

static bool filter_default(struct run *r, const struct jinja_call *c, struct value *out)
{
    (void)r;
    bool use =
        c->self.kind == VALUE_UNDEFINED || (value_is_true(c->args[1]) && !value_is_true(c->self));
    *out = use ? (given(c->args[0]) ? c->args[0] : value_str(STR(""))) : c->self;
    return true;
}

static bool filter_length(struct run *r, const struct jinja_call *c, struct value *out)
{
    int64_t n;
    if (!ops_length(r, c->self, &n)) return false;
    *out = value_int(n);
    return true;
}

static bool filter_string(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s;
    if (!ops_str(r, c->self, &s)) return false;
    *out = value_str(s);
    return true;
}

// ---- text -----------------------------------------------------------------------------------

static bool to_case(struct run *r, struct value v, enum text_case to, struct value *out)
{
    struct str s;
    if (!ops_str(r, v, &s) || !run_charge(r, s.n)) return false;
    s = text_to_case(r->arena, s, to);
    if (s.p == NULL) return run_no_memory(r);
    *out = value_str(s);
    return true;
}

static bool filter_upper(struct run *r, const struct jinja_call *c, struct value *out)
{
    return to_case(r, c->self, CASE_UPPER, out);
}

static bool filter_lower(struct run *r, const struct jinja_call *c, struct value *out)
{
    return to_case(r, c->self, CASE_LOWER, out);
}

static bool filter_title(struct run *r, const struct jinja_call *c, struct value *out)
{
    return to_case(r, c->self, CASE_JINJA_TITLE, out);
}

static bool filter_capitalize(struct run *r, const struct jinja_call *c, struct value *out)
{
    return to_case(r, c->self, CASE_CAPITALIZE, out);
}

static bool filter_trim(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s;
    if (!ops_str(r, c->self, &s) || !run_charge(r, 0)) return false;
    if (c->args[0].kind == VALUE_STRING)
        s = text_strip_set_end(text_strip_set_start(s, c->args[0].s), c->args[0].s);
    else
        s = text_strip_end(text_strip_start(s));
    *out = value_str(s);
    return true;
}

static bool filter_replace(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s, from, to;
    int64_t limit = -1;
    struct buf b = {0};
    if (!ops_str(r, c->self, &s) || !ops_str(r, c->args[0], &from) || !ops_str(r, c->args[1], &to))
        return false;
    if (given(c->args[2]) && c->args[2].kind != VALUE_NULL &&
        !ops_integer(r, c->args[2], "replace's count", &limit))
        return false;
    if (!run_charge(r, s.n)) return false;
    for (size_t i = 0; i <= s.n; limit -= limit > 0) {
        size_t n, hit = limit == 0 ? SIZE_MAX : text_find(s, from, i, &n);
        if (hit == SIZE_MAX) {
            buf_put(&b, s.p + i, s.n - i);
            break;
        }
        buf_put(&b, s.p + i, hit - i);
        buf_str(&b, to);
        if (!run_charge(r, to.n)) {
            buf_free(&b);
            return false;
        }
        i = hit + n;
        if (n > 0) continue;
        size_t one = text_char_len(s, i); // an empty needle stands between all characters
        if (one == 0) break;
        buf_put(&b, s.p + i, one);
        i += one;
    }
    return ops_take(r, &b, out);
}

static bool filter_indent(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s, prefix = STR("    ");
    struct buf spaces = {0}, b = {0};
    struct value made;
    bool first = value_is_true(c->args[1]), blank = value_is_true(c->args[2]);
    if (!ops_str(r, c->self, &s) || !run_charge(r, s.n)) return false;
    if (c->args[0].kind == VALUE_STRING) {
        prefix = c->args[0].s;
    } else if (given(c->args[0])) {
        int64_t width;
        if (!ops_integer(r, c->args[0], "indent's width", &width)) return false;
        for (int64_t i = 0; i < width && i < 1000; i++) buf_c(&spaces, ' ');
        if (!ops_take(r, &spaces, &made)) return false;
        prefix = made.s;
    }
    for (size_t i = 0, line = 0; i <= s.n; line++) {
        size_t end = str_find(s, STR("\n"), i);
        if (end == SIZE_MAX) end = s.n;
        if (line > 0) buf_c(&b, '\n');
        if (line == 0 ? first : (end > i || blank)) buf_str(&b, prefix);
        buf_put(&b, s.p + i, end - i);
        i = end + 1;
        if (b.n > RUN_MAX_OUTPUT) break;
    }
    return ops_take(r, &b, out);
}

static bool filter_escape(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s;
    struct buf b = {0};
    if (!ops_str(r, c->self, &s)) return false;
    for (size_t i = 0; i < s.n; i++) {
        switch (s.p[i]) {
        case '&': buf_z(&b, "&amp;"); break;
        case '<': buf_z(&b, "&lt;"); break;
        case '>': buf_z(&b, "&gt;"); break;
        case '"': buf_z(&b, "&#34;"); break;
        case '\'': buf_z(&b, "&#39;"); break;
        default: buf_c(&b, s.p[i]);
        }
    }
    return ops_take(r, &b, out);
}

static bool filter_format(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str f;
    return ops_str(r, c->self, &f) && format_percent(r, f, c->rest, c->n_rest, out);
}

static bool filter_wordcount(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s;
    int64_t n = 0;
    if (!ops_str(r, c->self, &s) || !run_charge(r, s.n)) return false;
    for (size_t i = 0; i < s.n; n++) {
        for (size_t k; (k = text_space_len(s, i)) > 0;) i += k;
        if (i >= s.n) break;
        while (i < s.n && text_space_len(s, i) == 0) i += text_char_len(s, i);
    }
    *out = value_int(n);
    return true;
}

static bool filter_urlencode(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s;
    struct buf b = {0};
    if (!ops_str(r, c->self, &s)) return false;
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool plain = (ch >= '0' && ch <= '9') || ((ch | 32) >= 'a' && (ch | 32) <= 'z') ||
                     (ch != '\0' && strchr("_.-~/", ch) != NULL);
        if (plain)
            buf_c(&b, ch);
        else
            buf_printf(&b, "%%%02X", (unsigned char)ch);
    }
    return ops_take(r, &b, out);
}

// ---- numbers --------------------------------------------------------------------------------

// int(text, base) of Python: false when it is no number.
static bool text_to_int(struct str s, int64_t base, int64_t *out)
{
    s = text_strip_end(text_strip_start(s));
    char z[80];
    char *end;
    if (s.n == 0 || s.n >= sizeof z || base < 2 || base > 36) return false;
    memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    long long i = strtoll(z, &end, (int)base);
    *out = i;
    return *end == '\0' && end != z;
}

static bool text_to_float(struct str s, double *out)
{
    s = text_strip_end(text_strip_start(s));
    char z[400];
    char *end;
    if (s.n == 0 || s.n >= sizeof z) return false;
    memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    if (strpbrk(z, "xXpP") != NULL) return false;
    *out = strtod(z, &end);
    return *end == '\0' && end != z;
}

static bool fits_int(double f)
{
    return f > -9.2e18 && f < 9.2e18;
}

static bool filter_int(struct run *r, const struct jinja_call *c, struct value *out)
{
    int64_t base = 10, i = 0;
    double f = 0;
    *out = given(c->args[0]) ? c->args[0] : value_int(0);
    if (given(c->args[1]) && !ops_integer(r, c->args[1], "int's base", &base)) return false;
    if (c->self.kind == VALUE_BIGINT) *out = c->self;
    if (c->self.kind == VALUE_INT) *out = c->self;
    if (c->self.kind == VALUE_BOOL) *out = value_int(c->self.b);
    if (c->self.kind == VALUE_FLOAT && fits_int(c->self.f)) *out = value_int((int64_t)c->self.f);
    if (c->self.kind != VALUE_STRING) return true;
    if (text_to_int(c->self.s, base, &i))
        *out = value_int(i);
    else if (text_to_float(c->self.s, &f) && fits_int(f))
        *out = value_int((int64_t)f);
    return true;
}

static bool filter_float(struct run *r, const struct jinja_call *c, struct value *out)
{
    (void)r;
    struct value v = {.kind = VALUE_FLOAT};
    bool ok = ops_is_number(c->self) || c->self.kind == VALUE_BIGINT;
    if (ops_is_number(c->self)) v.f = ops_double(c->self);
    if (c->self.kind == VALUE_STRING || c->self.kind == VALUE_BIGINT)
        ok = text_to_float(c->self.s, &v.f);
    *out = ok || !given(c->args[0]) ? v : c->args[0];
    if (!ok && !given(c->args[0])) out->f = 0;
    return true;
}

static bool filter_abs(struct run *r, const struct jinja_call *c, struct value *out)
{
    if (!ops_is_number(c->self))
        return run_fail(r, "bad operand type for abs(): '%s'", ops_type(c->self));
    *out = c->self;
    if (c->self.kind == VALUE_FLOAT) out->f = fabs(c->self.f);
    if (c->self.kind == VALUE_FLOAT || ops_double(c->self) >= 0) return true;
    return ops_binary(r, OP_SUB, value_int(0), c->self, out);
}

static bool filter_round(struct run *r, const struct jinja_call *c, struct value *out)
{
    int64_t digits = 0;
    if (!ops_is_number(c->self))
        return run_fail(r, "round() needs a number, not '%s'", ops_type(c->self));
    if (given(c->args[0]) && !ops_integer(r, c->args[0], "round's precision", &digits))
        return false;
    struct str method = c->args[1].kind == VALUE_STRING ? c->args[1].s : STR("common");
    bool common = str_eq(method, STR("common"));
    if (!common && !str_eq(method, STR("ceil")) && !str_eq(method, STR("floor")))
        return run_fail(r, "round's method must be common, ceil or floor");
    if (common && c->self.kind != VALUE_FLOAT && digits >= 0) {
        *out = c->self;
        return true;
    }
    double scale = pow(10, (double)(digits < -300 ? -300 : digits > 300 ? 300 : digits));
    double f = ops_double(c->self);
    *out = (struct value){.kind = VALUE_FLOAT};
    if (!common) {
        out->f = (method.p[0] == 'c' ? ceil(f * scale) : floor(f * scale)) / scale;
    } else if (digits > 0 && digits < 20) { // correctly rounded, as Python does it: via the text
        struct buf b = {0};
        buf_printf(&b, "%.*f", (int)digits, f);
        out->f = strtod(buf_cstr(&b), NULL);
        buf_free(&b);
    } else {
        out->f = digits >= 20 ? f : rint(f * scale) / scale;
    }
    if (common && c->self.kind != VALUE_FLOAT && fits_int(out->f))
        *out = value_int((int64_t)out->f);
    return true;
}

// ---- JSON -----------------------------------------------------------------------------------

static bool json_separators(struct run *r, struct value v, struct value_dump_style *s)
{
    if (v.kind == VALUE_UNDEFINED || v.kind == VALUE_NULL) return true;
    if (v.kind != VALUE_LIST || v.list->n != 2 || v.list->items[0].kind != VALUE_STRING ||
        v.list->items[1].kind != VALUE_STRING)
        return run_fail(r, "tojson's separators must be two strings");
    s->item_separator = v.list->items[0].s;
    s->key_separator = v.list->items[1].s;
    return true;
}

static bool filter_tojson(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_dump_style style = {.indent = -1,
                                     .ensure_ascii = value_is_true(c->args[0]),
                                     .sort_keys = value_is_true(c->args[3]),
                                     .max_bytes = RUN_MAX_OUTPUT};
    struct buf b = {0};
    int64_t indent = -1;
    if (c->self.kind == VALUE_UNDEFINED || c->self.kind == VALUE_CALLABLE)
        return run_fail(r, "Object of type %s is not JSON serializable", ops_type(c->self));
    if (given(c->args[1]) && c->args[1].kind != VALUE_NULL &&
        !ops_integer(r, c->args[1], "tojson's indent", &indent))
        return false;
    style.indent = indent < -1 ? 0 : indent > 16 ? 16 : (int)indent;
    if (!json_separators(r, c->args[2], &style)) return false;
    if (value_dump_with(&b, c->self, &style)) return ops_take(r, &b, out);
    buf_free(&b);
    return run_fail(r, "the value nests too deep for tojson, or is too long");
}

// ---- the table ------------------------------------------------------------------------------

static const struct jinja_builtin filters[] = {
    {"abs", "", filter_abs},
    {"capitalize", "", filter_capitalize},
    {"count", "", filter_length},
    {"d", "default_value boolean", filter_default},
    {"default", "default_value boolean", filter_default},
    {"e", "", filter_escape},
    {"escape", "", filter_escape},
    {"float", "default", filter_float},
    {"forceescape", "", filter_escape},
    {"format", "*", filter_format},
    {"indent", "width first blank", filter_indent},
    {"int", "default base", filter_int},
    {"length", "", filter_length},
    {"lower", "", filter_lower},
    {"replace", "old new count", filter_replace},
    {"round", "precision method", filter_round},
    {"safe", "", filter_string},
    {"string", "", filter_string},
    {"title", "", filter_title},
    {"tojson", "ensure_ascii indent separators sort_keys", filter_tojson},
    {"trim", "chars", filter_trim},
    {"upper", "", filter_upper},
    {"urlencode", "", filter_urlencode},
    {"wordcount", "", filter_wordcount},
};

const struct jinja_builtin *jinja_filter_find(struct str name)
{
    const struct jinja_builtin *b =
        jinja_table_find(filters, sizeof filters / sizeof *filters, name);
    return b != NULL ? b : jinja_list_filter_find(name);
}
