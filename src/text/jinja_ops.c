// Python's semantics of operators on values: equality, order, membership, arithmetic, slices,
// str(). Integers are 64 bits wide; an operation that leaves them is an error, never a wrap-around.
// Not kept apart: tuples and lists (a tuple prints in square brackets).
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

enum { MAX_NESTING = 100 }; // of values that are compared or printed

const char *ops_type(struct value v)
{
    switch (v.kind) {
    case VALUE_UNDEFINED: return "Undefined";
    case VALUE_NULL: return "NoneType";
    case VALUE_BOOL: return "bool";
    case VALUE_INT:
    case VALUE_BIGINT: return "int";
    case VALUE_FLOAT: return "float";
    case VALUE_STRING: return "str";
    case VALUE_LIST: return "list";
    case VALUE_DICT: return "dict";
    case VALUE_NAMESPACE: return "Namespace";
    case VALUE_CALLABLE: return "function";
    }
    return "?";
}

bool ops_is_number(struct value v)
{
    return v.kind == VALUE_INT || v.kind == VALUE_FLOAT || v.kind == VALUE_BOOL;
}

double ops_double(struct value v)
{
    return v.kind == VALUE_FLOAT ? v.f : v.kind == VALUE_BOOL ? (double)v.b : (double)v.i;
}

static int64_t integer(struct value v)
{
    return v.kind == VALUE_BOOL ? v.b : v.i;
}
static struct value real(double f)
{
    return (struct value){.kind = VALUE_FLOAT, .f = f};
}

// ---- making values --------------------------------------------------------------------------

bool ops_take(struct run *r, struct buf *b, struct value *out)
{
    struct str s = b->failed ? (struct str){0} : arena_str(r->arena, buf_view(b));
    size_t n = b->n;
    buf_free(b);
    if (s.p == NULL) return run_no_memory(r);
    *out = value_str(s);
    return run_charge(r, n);
}

bool ops_new_list(struct run *r, struct value *out)
{
    *out = value_new_list(r->arena);
    return out->kind == VALUE_LIST || run_no_memory(r);
}

bool ops_append(struct run *r, struct value list, struct value v)
{
    return run_charge(r, 0) && (value_append(r->arena, list, v) || run_no_memory(r));
}

bool ops_pair(struct run *r, struct value a, struct value b, struct value *out)
{
    return ops_new_list(r, out) && ops_append(r, *out, a) && ops_append(r, *out, b);
}

bool ops_integer(struct run *r, struct value v, const char *what, int64_t *out)
{
    if (v.kind != VALUE_INT && v.kind != VALUE_BOOL)
        return run_fail(r, "%s must be an int, not '%s'", what, ops_type(v));
    *out = integer(v);
    return true;
}

bool ops_string(struct run *r, struct value v, const char *what, struct str *out)
{
    if (v.kind != VALUE_STRING) return run_fail(r, "%s must be a str, not '%s'", what, ops_type(v));
    *out = v.s;
    return true;
}

// ---- str() and repr() -----------------------------------------------------------------------

static void repr(struct buf *b, struct value v, int depth);

static void repr_pairs(struct buf *b, const struct value_dict *d, int depth)
{
    buf_c(b, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0) buf_z(b, ", ");
        text_repr(b, d->pairs[i].key);
        buf_z(b, ": ");
        repr(b, d->pairs[i].v, depth + 1);
    }
    buf_c(b, '}');
}

// Lists that hold one list many times make short work of any memory: too much text is the end of it.
static void repr(struct buf *b, struct value v, int depth)
{
    if (b->n > RUN_MAX_OUTPUT) return;
    if (depth > MAX_NESTING) {
        buf_z(b, "...");
        return;
    }
    switch (v.kind) {
    case VALUE_UNDEFINED: buf_z(b, "Undefined"); break;
    case VALUE_NULL: buf_z(b, "None"); break;
    case VALUE_BOOL: buf_z(b, v.b ? "True" : "False"); break;
    case VALUE_INT: buf_printf(b, "%lld", (long long)v.i); break;
    case VALUE_BIGINT: buf_str(b, v.s); break;
    case VALUE_FLOAT: value_float_repr(b, v.f); break;
    case VALUE_STRING: text_repr(b, v.s); break;
    case VALUE_LIST:
        buf_c(b, '[');
        for (size_t i = 0; i < v.list->n; i++) {
            if (i > 0) buf_z(b, ", ");
            repr(b, v.list->items[i], depth + 1);
        }
        buf_c(b, ']');
        break;
    case VALUE_DICT: repr_pairs(b, v.dict, depth); break;
    case VALUE_NAMESPACE:
        buf_z(b, "<Namespace ");
        repr_pairs(b, v.dict, depth);
        buf_c(b, '>');
        break;
    case VALUE_CALLABLE: buf_z(b, "<function>"); break;
    }
}

bool ops_str(struct run *r, struct value v, struct str *out)
{
    struct buf b = {0};
    struct value text;
    if (v.kind == VALUE_STRING || v.kind == VALUE_BIGINT) {
        *out = v.s;
        return true;
    }
    *out = STR("");
    if (v.kind == VALUE_UNDEFINED) return true;
    repr(&b, v, 0);
    if (b.n > RUN_MAX_OUTPUT) {
        buf_free(&b);
        return run_fail(r, "the text of this value is too long");
    }
    if (!ops_take(r, &b, &text)) return false;
    *out = text.s;
    return true;
}

// ---- equality, order, membership ------------------------------------------------------------

static bool equal(struct run *r, struct value a, struct value b, int depth);

static bool equal_dicts(struct run *r, struct value a, struct value b, int depth)
{
    if (a.dict->n != b.dict->n) return false;
    for (size_t i = 0; i < a.dict->n; i++) {
        struct value v = value_find(b, a.dict->pairs[i].key);
        if (v.kind == VALUE_UNDEFINED || !equal(r, a.dict->pairs[i].v, v, depth + 1)) return false;
    }
    return true;
}

// Steps are counted, for a value may hold another one many times; when there are too many the result
// means nothing, and the next charge fails.
static bool equal(struct run *r, struct value a, struct value b, int depth)
{
    r->n_steps += 1 + (a.kind == VALUE_STRING ? a.s.n / 64 : 0);
    if (depth > MAX_NESTING || r->n_steps > RUN_MAX_STEPS) return false;
    if (ops_is_number(a) && ops_is_number(b)) {
        if (a.kind != VALUE_FLOAT && b.kind != VALUE_FLOAT) return integer(a) == integer(b);
        double x = ops_double(a), y = ops_double(b);
        return x <= y && x >= y;
    }
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case VALUE_UNDEFINED:
    case VALUE_NULL: return true;
    case VALUE_STRING: return text_eq(a.s, b.s);
    case VALUE_BIGINT: return str_eq(a.s, b.s);
    case VALUE_LIST:
        if (a.list->n != b.list->n) return false;
        for (size_t i = 0; i < a.list->n; i++)
            if (!equal(r, a.list->items[i], b.list->items[i], depth + 1)) return false;
        return true;
    case VALUE_DICT: return equal_dicts(r, a, b, depth);
    case VALUE_NAMESPACE: return a.dict == b.dict;
    default: return a.callable == b.callable;
    }
}

bool ops_equal(struct run *r, struct value a, struct value b)
{
    return equal(r, a, b, 0);
}

static bool compare(struct run *r, struct value a, struct value b, int *out, int depth)
{
    *out = 0;
    if (ops_is_number(a) && ops_is_number(b)) {
        double x = ops_double(a), y = ops_double(b);
        *out = (x > y) - (x < y);
        if (a.kind != VALUE_FLOAT && b.kind != VALUE_FLOAT)
            *out = (integer(a) > integer(b)) - (integer(a) < integer(b));
        return true;
    }
    if (a.kind == VALUE_STRING && b.kind == VALUE_STRING) {
        *out = text_cmp(a.s, b.s);
        return run_charge(r, a.s.n < b.s.n ? a.s.n : b.s.n);
    }
    if (a.kind != VALUE_LIST || b.kind != VALUE_LIST || depth > MAX_NESTING)
        return run_fail(r, "'<' not supported between instances of '%s' and '%s'", ops_type(a),
                        ops_type(b));
    for (size_t i = 0; i < a.list->n && i < b.list->n; i++) {
        if (ops_equal(r, a.list->items[i], b.list->items[i])) continue;
        return compare(r, a.list->items[i], b.list->items[i], out, depth + 1);
    }
    *out = (a.list->n > b.list->n) - (a.list->n < b.list->n);
    return true;
}

bool ops_compare(struct run *r, struct value a, struct value b, int *out)
{
    return run_charge(r, 0) && compare(r, a, b, out, 0);
}

bool ops_in(struct run *r, struct value needle, struct value hay, bool *out)
{
    size_t n;
    *out = false;
    switch (hay.kind) {
    case VALUE_UNDEFINED: return true;
    case VALUE_STRING:
        if (needle.kind != VALUE_STRING)
            return run_fail(r, "'in <string>' requires string as left operand, not %s",
                            ops_type(needle));
        *out = text_find(hay.s, needle.s, 0, &n) != SIZE_MAX;
        return run_charge(r, hay.s.n);
    case VALUE_LIST:
        for (size_t i = 0; i < hay.list->n && !*out; i++)
            *out = ops_equal(r, hay.list->items[i], needle);
        return run_charge(r, hay.list->n * 8);
    case VALUE_DICT:
        for (size_t i = 0; i < hay.dict->n && needle.kind == VALUE_STRING && !*out; i++)
            *out = text_eq(hay.dict->pairs[i].key, needle.s);
        return run_charge(r, hay.dict->n * 8);
    default: return run_fail(r, "argument of type '%s' is not iterable", ops_type(hay));
    }
}

// ---- arithmetic -----------------------------------------------------------------------------

static bool overflow(struct run *r)
{
    return run_fail(r, "the integer does not fit 64 bits");
}

static bool int_power(struct run *r, int64_t base, int64_t exponent, struct value *out)
{
    int64_t p = 1;
    if (exponent < 0) {
        if (base == 0) return run_fail(r, "0 cannot be raised to a negative power");
        *out = real(pow((double)base, (double)exponent));
        return true;
    }
    if (base == 0 || base == 1 || base == -1) exponent = exponent == 0 ? 0 : 2 - (exponent & 1);
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(p, base, &p)) return overflow(r);
    *out = value_int(p);
    return true;
}

static bool int_binary(struct run *r, enum node_op op, int64_t a, int64_t b, struct value *out)
{
    int64_t i = 0;
    if ((op == OP_DIV || op == OP_FLOOR_DIV || op == OP_MOD) && b == 0)
        return run_fail(r, "division by zero");
    if (op != OP_DIV && op != OP_MOD && a == INT64_MIN && b == -1) return overflow(r);
    switch (op) {
    case OP_ADD:
        if (__builtin_add_overflow(a, b, &i)) return overflow(r);
        break;
    case OP_SUB:
        if (__builtin_sub_overflow(a, b, &i)) return overflow(r);
        break;
    case OP_MUL:
        if (__builtin_mul_overflow(a, b, &i)) return overflow(r);
        break;
    case OP_DIV: *out = real((double)a / (double)b); return true;
    case OP_FLOOR_DIV: i = a / b - (a % b != 0 && (a < 0) != (b < 0)); break;
    case OP_MOD:
        i = b == -1 ? 0 : a % b;
        if (i != 0 && (i < 0) != (b < 0)) i += b;
        break;
    default: return int_power(r, a, b, out);
    }
    *out = value_int(i);
    return true;
}

static bool real_binary(struct run *r, enum node_op op, double a, double b, struct value *out)
{
    bool divides = op == OP_DIV || op == OP_FLOOR_DIV || op == OP_MOD;
    double f = 0;
    if (divides && b <= 0 && b >= 0) return run_fail(r, "division by zero");
    switch (op) {
    case OP_ADD: f = a + b; break;
    case OP_SUB: f = a - b; break;
    case OP_MUL: f = a * b; break;
    case OP_DIV: f = a / b; break;
    case OP_FLOOR_DIV: f = floor(a / b); break;
    case OP_MOD:
        f = fmod(a, b);
        if (f != 0 && (f < 0) != (b < 0)) f += b;
        break;
    default: f = pow(a, b);
    }
    *out = real(f);
    return true;
}

static bool join(struct run *r, struct str a, struct str b, struct value *out)
{
    char *p = a.n < SIZE_MAX - b.n - 1 ? arena_alloc(r->arena, a.n + b.n + 1) : NULL;
    if (p == NULL) return run_no_memory(r);
    if (a.n > 0) memcpy(p, a.p, a.n);
    if (b.n > 0) memcpy(p + a.n, b.p, b.n);
    *out = value_str((struct str){p, a.n + b.n});
    return run_charge(r, a.n + b.n);
}

static bool repeat(struct run *r, struct value v, int64_t times, struct value *out)
{
    size_t n = v.kind == VALUE_STRING ? v.s.n : v.list->n, total;
    if (times < 0) times = 0;
    if (__builtin_mul_overflow(n, (size_t)times, &total) || total > RUN_MAX_OUTPUT)
        return run_fail(r, "repeating this %lld times is too long", (long long)times);
    if (v.kind == VALUE_STRING) {
        struct buf b = {0};
        for (int64_t i = 0; i < times && n > 0; i++) buf_str(&b, v.s);
        return ops_take(r, &b, out);
    }
    if (!ops_new_list(r, out)) return false;
    for (size_t i = 0; i < total; i++)
        if (!ops_append(r, *out, v.list->items[i % n])) return false;
    return true;
}

static bool join_lists(struct run *r, struct value a, struct value b, struct value *out)
{
    if (!ops_new_list(r, out)) return false;
    for (size_t i = 0; i < a.list->n + b.list->n; i++) {
        struct value v = i < a.list->n ? a.list->items[i] : b.list->items[i - a.list->n];
        if (!ops_append(r, *out, v)) return false;
    }
    return true;
}

static bool is_sequence(struct value v)
{
    return v.kind == VALUE_STRING || v.kind == VALUE_LIST;
}

bool ops_binary(struct run *r, enum node_op op, struct value a, struct value b, struct value *out)
{
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "**"};
    if (ops_is_number(a) && ops_is_number(b)) {
        if (a.kind == VALUE_FLOAT || b.kind == VALUE_FLOAT)
            return real_binary(r, op, ops_double(a), ops_double(b), out);
        return int_binary(r, op, integer(a), integer(b), out);
    }
    if (op == OP_ADD && a.kind == VALUE_STRING) {
        if (b.kind == VALUE_STRING) return join(r, a.s, b.s, out);
        return run_fail(r, "can only concatenate str (not \"%s\") to str", ops_type(b));
    }
    if (op == OP_ADD && a.kind == VALUE_LIST && b.kind == VALUE_LIST)
        return join_lists(r, a, b, out);
    if (op == OP_MUL && is_sequence(a) && (b.kind == VALUE_INT || b.kind == VALUE_BOOL))
        return repeat(r, a, integer(b), out);
    if (op == OP_MUL && is_sequence(b) && (a.kind == VALUE_INT || a.kind == VALUE_BOOL))
        return repeat(r, b, integer(a), out);
    if (op == OP_MOD && a.kind == VALUE_STRING)
        return b.kind == VALUE_LIST ? format_percent(r, a.s, b.list->items, b.list->n, out)
                                    : format_percent(r, a.s, &b, 1, out);
    return run_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'",
                    op <= OP_POW ? names[op] : "this", ops_type(a), ops_type(b));
}

// ---- sequences ------------------------------------------------------------------------------

static bool characters(struct run *r, struct str s, struct value_list *out)
{
    struct value list;
    if (!ops_new_list(r, &list)) return false;
    for (size_t i = 0; i < s.n;) {
        size_t n = text_char_len(s, i);
        if (!ops_append(r, list, value_str(str_sub(s, i, n)))) return false;
        i += n;
    }
    *out = *list.list;
    return true;
}

bool ops_items(struct run *r, struct value v, struct value_list *out)
{
    struct value list;
    *out = (struct value_list){0};
    switch (v.kind) {
    case VALUE_UNDEFINED: return true;
    case VALUE_LIST: *out = *v.list; return true;
    case VALUE_STRING: return characters(r, v.s, out);
    case VALUE_DICT:
        if (!ops_new_list(r, &list)) return false;
        for (size_t i = 0; i < v.dict->n; i++)
            if (!ops_append(r, list, value_str(v.dict->pairs[i].key))) return false;
        *out = *list.list;
        return true;
    default: return run_fail(r, "'%s' object is not iterable", ops_type(v));
    }
}

bool ops_length(struct run *r, struct value v, int64_t *out)
{
    switch (v.kind) {
    case VALUE_UNDEFINED: *out = 0; return true;
    case VALUE_LIST: *out = (int64_t)v.list->n; return true;
    case VALUE_DICT: *out = (int64_t)v.dict->n; return true;
    case VALUE_STRING: *out = (int64_t)text_n_chars(v.s); return run_charge(r, v.s.n / 16);
    default: return run_fail(r, "object of type '%s' has no len()", ops_type(v));
    }
}

// Python's slice.indices: from, to and step for n items.
static bool slice_bounds(struct run *r, const struct value bounds[3], int64_t n, int64_t *from,
                         int64_t *to, int64_t *step)
{
    *step = 1;
    if (bounds[2].kind != VALUE_UNDEFINED && bounds[2].kind != VALUE_NULL &&
        !ops_integer(r, bounds[2], "a slice's step", step))
        return false;
    if (*step == 0) return run_fail(r, "a slice's step cannot be 0");
    bool back = *step < 0;
    int64_t *ends[2] = {from, to}, defaults[2] = {back ? n - 1 : 0, back ? -1 : n};
    for (int i = 0; i < 2; i++) {
        *ends[i] = defaults[i];
        if (bounds[i].kind == VALUE_UNDEFINED || bounds[i].kind == VALUE_NULL) continue;
        if (!ops_integer(r, bounds[i], "a slice's bound", ends[i])) return false;
        if (*ends[i] < 0) *ends[i] += n;
        if (*ends[i] < 0) *ends[i] = back ? -1 : 0;
        if (*ends[i] >= n) *ends[i] = back ? n - 1 : n;
    }
    return true;
}

static bool slice_text(struct run *r, struct str s, int64_t from, int64_t to, int64_t step,
                       struct value *out)
{
    if (step == 1) { // a view
        size_t a = text_offset(s, (size_t)from);
        struct str tail = str_sub(s, a, s.n);
        *out = value_str(str_sub(tail, 0, to > from ? text_offset(tail, (size_t)(to - from)) : 0));
        return run_charge(r, s.n);
    }
    struct value_list chars;
    struct buf b = {0};
    if (!characters(r, s, &chars)) return false;
    for (int64_t i = from; step > 0 ? i < to : i > to;) {
        buf_str(&b, chars.items[i].s);
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    return ops_take(r, &b, out);
}

bool ops_slice(struct run *r, struct value v, const struct value bounds[3], struct value *out)
{
    int64_t n, from = 0, to = 0, step = 1;
    if (!is_sequence(v)) return run_fail(r, "'%s' object cannot be sliced", ops_type(v));
    if (!ops_length(r, v, &n) || !slice_bounds(r, bounds, n, &from, &to, &step)) return false;
    if (v.kind == VALUE_STRING) return slice_text(r, v.s, from, to, step, out);
    if (!ops_new_list(r, out)) return false;
    for (int64_t i = from; step > 0 ? i < to : i > to;) {
        if (!ops_append(r, *out, v.list->items[i])) return false;
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    return true;
}
