// Filters on lists and dicts. Where Jinja gives a lazy sequence, these give a list.
#include <stdlib.h>
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

static bool given(struct value v)
{
    return v.kind != VALUE_UNDEFINED;
}

static bool filter_list(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    if (!ops_items(r, c->self, &items) || !ops_new_list(r, out)) return false;
    for (size_t i = 0; i < items.n; i++)
        if (!ops_append(r, *out, items.items[i])) return false;
    return true;
}

static bool filter_first(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    if (!ops_items(r, c->self, &items)) return false;
    if (items.n > 0) *out = items.items[0];
    return true;
}

static bool filter_last(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    if (!ops_items(r, c->self, &items)) return false;
    if (items.n > 0) *out = items.items[items.n - 1];
    return true;
}

static bool filter_reverse(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    struct buf b = {0};
    if (!ops_items(r, c->self, &items) || !ops_new_list(r, out)) return false;
    for (size_t i = items.n; i-- > 0;) {
        if (c->self.kind == VALUE_STRING)
            buf_str(&b, items.items[i].s);
        else if (!ops_append(r, *out, items.items[i]))
            return false;
    }
    return c->self.kind != VALUE_STRING || ops_take(r, &b, out);
}

static bool filter_join(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    struct str glue = STR("");
    struct buf b = {0};
    bool ok = ops_items(r, c->self, &items) && ops_str(r, c->args[0], &glue);
    for (size_t i = 0; ok && i < items.n; i++) {
        struct value v = items.items[i];
        struct str s = STR("");
        ok = (!given(c->args[1]) || run_path(r, v, c->args[1], &v)) && ops_str(r, v, &s) &&
             run_charge(r, s.n + glue.n);
        if (i > 0) buf_str(&b, glue);
        buf_str(&b, s);
    }
    if (ok) return ops_take(r, &b, out);
    buf_free(&b);
    return false;
}

static bool filter_items(struct run *r, const struct jinja_call *c, struct value *out)
{
    if (!ops_new_list(r, out)) return false;
    if (c->self.kind == VALUE_UNDEFINED) return true;
    if (c->self.kind != VALUE_DICT)
        return run_fail(r, "Can only get item pairs from a mapping, not '%s'", ops_type(c->self));
    for (size_t i = 0; i < c->self.dict->n; i++) {
        struct value pair, key = value_str(c->self.dict->pairs[i].key);
        if (!ops_pair(r, key, c->self.dict->pairs[i].v, &pair) || !ops_append(r, *out, pair))
            return false;
    }
    return true;
}

// ---- sorting --------------------------------------------------------------------------------

// Lower-cased where strings are compared without case.
static bool fold(struct run *r, struct value v, bool case_sensitive, struct value *out)
{
    *out = v;
    if (case_sensitive || v.kind != VALUE_STRING) return true;
    struct str s = text_to_case(r->arena, v.s, CASE_LOWER);
    if (s.p == NULL) return run_no_memory(r);
    *out = value_str(s);
    return run_charge(r, s.n);
}

struct keyed {
    struct value key, v;
};

// Merge sort: stable, as Python's is, and comparing may fail. Result in a; b is scratch; [n] each.
static bool merge_sort(struct run *r, struct keyed *a, struct keyed *b, size_t n, bool reverse)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t from = 0; from < n; from += 2 * width) {
            size_t mid = from + width < n ? from + width : n;
            size_t end = mid + width < n ? mid + width : n, i = from, k = mid;
            for (size_t to = from; to < end; to++) {
                int order = i == mid ? 1 : -1;
                if (i < mid && k < end && !ops_compare(r, a[i].key, a[k].key, &order)) return false;
                if (i < mid && k < end && reverse) order = -order;
                b[to] = order <= 0 ? a[i++] : a[k++];
            }
        }
        memcpy(a, b, n * sizeof *a);
    }
    return true;
}

static bool sort_by(struct run *r, struct value_list items, struct value path, bool case_sensitive,
                    bool reverse, struct value *out)
{
    struct keyed *a = arena_array(r->arena, items.n + 1, sizeof *a);
    struct keyed *b = arena_array(r->arena, items.n + 1, sizeof *b);
    if (a == NULL || b == NULL) return run_no_memory(r);
    for (size_t i = 0; i < items.n; i++) {
        struct value key = items.items[i];
        if (given(path) && path.kind != VALUE_NULL && !run_path(r, key, path, &key)) return false;
        if (!fold(r, key, case_sensitive, &a[i].key)) return false;
        a[i].v = items.items[i];
    }
    if (!merge_sort(r, a, b, items.n, reverse) || !ops_new_list(r, out)) return false;
    for (size_t i = 0; i < items.n; i++)
        if (!ops_append(r, *out, a[i].v)) return false;
    return true;
}

static bool filter_sort(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    return ops_items(r, c->self, &items) &&
           sort_by(r, items, c->args[2], value_is_true(c->args[1]), value_is_true(c->args[0]), out);
}

static bool filter_dictsort(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value pairs;
    bool by_value = c->args[1].kind == VALUE_STRING && str_eq(c->args[1].s, STR("value"));
    if (c->self.kind != VALUE_DICT)
        return run_fail(r, "dictsort needs a dict, not '%s'", ops_type(c->self));
    return filter_items(r, c, &pairs) &&
           sort_by(r, *pairs.list, value_int(by_value), value_is_true(c->args[0]),
                   value_is_true(c->args[2]), out);
}

static bool filter_unique(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    struct value seen;
    if (!ops_items(r, c->self, &items) || !ops_new_list(r, out) || !ops_new_list(r, &seen))
        return false;
    for (size_t i = 0; i < items.n; i++) {
        struct value key = items.items[i];
        bool known;
        if (given(c->args[1]) && !run_path(r, key, c->args[1], &key)) return false;
        if (!fold(r, key, value_is_true(c->args[0]), &key) || !ops_in(r, key, seen, &known))
            return false;
        if (known) continue;
        if (!ops_append(r, seen, key) || !ops_append(r, *out, items.items[i])) return false;
    }
    return true;
}

// [{grouper, list}, ...] as pairs; "grouper" and "list" are also names of their halves.
static bool filter_groupby(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    struct value sorted, last = {0}, members = {0};
    if (!ops_items(r, c->self, &items) || !ops_new_list(r, out) ||
        !sort_by(r, items, c->args[0], value_is_true(c->args[2]), false, &sorted))
        return false;
    for (size_t i = 0; i < sorted.list->n; i++) {
        struct value key, folded, pair;
        if (!run_path(r, sorted.list->items[i], c->args[0], &key)) return false;
        if (!given(key)) key = c->args[1];
        if (!fold(r, key, value_is_true(c->args[2]), &folded)) return false;
        if (i == 0 || !ops_equal(r, folded, last)) {
            if (!ops_new_list(r, &members) || !ops_pair(r, key, members, &pair) ||
                !ops_append(r, *out, pair))
                return false;
            last = folded;
        }
        if (!ops_append(r, members, sorted.list->items[i])) return false;
    }
    return true;
}

// The smallest (sign < 0) or largest item.
static bool extreme(struct run *r, const struct jinja_call *c, int sign, struct value *out)
{
    struct value_list items;
    struct value best = {0};
    if (!ops_items(r, c->self, &items)) return false;
    for (size_t i = 0; i < items.n; i++) {
        struct value key = items.items[i];
        int order = 0;
        if (given(c->args[1]) && !run_path(r, key, c->args[1], &key)) return false;
        if (!fold(r, key, value_is_true(c->args[0]), &key)) return false;
        if (i > 0 && !ops_compare(r, key, best, &order)) return false;
        if (i > 0 && order * sign <= 0) continue;
        best = key;
        *out = items.items[i];
    }
    return true;
}

static bool filter_max(struct run *r, const struct jinja_call *c, struct value *out)
{
    return extreme(r, c, 1, out);
}

static bool filter_min(struct run *r, const struct jinja_call *c, struct value *out)
{
    return extreme(r, c, -1, out);
}

static bool filter_sum(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    if (!ops_items(r, c->self, &items)) return false;
    *out = given(c->args[1]) ? c->args[1] : value_int(0);
    for (size_t i = 0; i < items.n; i++) {
        struct value v = items.items[i];
        if (given(c->args[0]) && c->args[0].kind != VALUE_NULL && !run_path(r, v, c->args[0], &v))
            return false;
        if (!run_charge(r, 0) || !ops_binary(r, OP_ADD, *out, v, out)) return false;
    }
    return true;
}

// ---- cutting in pieces ----------------------------------------------------------------------

static bool filter_batch(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    struct value row = {0};
    int64_t size;
    if (!ops_items(r, c->self, &items) || !ops_integer(r, c->args[0], "batch's size", &size) ||
        !ops_new_list(r, out))
        return false;
    if (size < 1) return run_fail(r, "batch's size must be at least 1");
    for (size_t i = 0; i < items.n; i++) {
        if (i % (size_t)size == 0 && (!ops_new_list(r, &row) || !ops_append(r, *out, row)))
            return false;
        if (!ops_append(r, row, items.items[i])) return false;
    }
    while (given(c->args[1]) && row.kind == VALUE_LIST && row.list->n < (size_t)size)
        if (!ops_append(r, row, c->args[1])) return false;
    return true;
}

static bool filter_slice(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    int64_t n;
    if (!ops_items(r, c->self, &items) || !ops_integer(r, c->args[0], "slice's number", &n) ||
        !ops_new_list(r, out))
        return false;
    if (n < 1) return run_fail(r, "slice's number must be at least 1");
    size_t each = items.n / (size_t)n, longer = items.n % (size_t)n, at = 0;
    for (size_t k = 0; k < (size_t)n; k++) {
        struct value row;
        size_t size = each + (k < longer);
        if (!ops_new_list(r, &row) || !ops_append(r, *out, row)) return false;
        for (size_t i = 0; i < size; i++)
            if (!ops_append(r, row, items.items[at++])) return false;
        if (given(c->args[1]) && k >= longer && longer > 0 && !ops_append(r, row, c->args[1]))
            return false;
    }
    return true;
}

// ---- map, select and their kin --------------------------------------------------------------

// The rest of c's arguments, from the i-th on, as those of another call.
static bool rest_args(struct run *r, const struct jinja_call *c, size_t i, struct jinja_args *args)
{
    args->named = c->named;
    for (; i < c->n_rest; i++)
        if (!run_args_put(r, args, c->rest[i])) return false;
    return true;
}

static bool map_attribute(struct run *r, struct value_list items, const struct jinja_call *c,
                          struct value *out)
{
    struct value path = value_get(c->named, "attribute"), other = value_get(c->named, "default");
    for (size_t i = 0; i < items.n; i++) {
        struct value v;
        if (!run_path(r, items.items[i], path, &v)) return false;
        if (!ops_append(r, *out, given(v) ? v : other)) return false;
    }
    return true;
}

static bool filter_map(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    struct jinja_args args = {0};
    struct str name;
    if (!ops_items(r, c->self, &items) || !ops_new_list(r, out)) return false;
    if (c->n_rest == 0 && given(value_get(c->named, "attribute")))
        return map_attribute(r, items, c, out);
    if (c->n_rest == 0) return run_fail(r, "map needs a filter's name or attribute=");
    if (!ops_string(r, c->rest[0], "map's filter", &name) || !rest_args(r, c, 1, &args))
        return false;
    const struct jinja_builtin *f = jinja_filter_find(name);
    if (f == NULL)
        return run_fail(r, "no filter named '%.*s'", (int)(name.n < 60 ? name.n : 60), name.p);
    if (++r->depth > RUN_MAX_DEPTH) return run_fail(r, "filters call each other too deep");
    for (size_t i = 0; i < items.n; i++) {
        struct value v;
        if (!run_charge(r, 0) || !run_builtin(r, f, items.items[i], &args, &v)) return false;
        if (!ops_append(r, *out, v)) return false;
    }
    r->depth--;
    return true;
}

// Items for which a test (or their own truth) is `wanted`; by_attribute: the first argument is a
// path.
static bool choose(struct run *r, const struct jinja_call *c, bool by_attribute, bool wanted,
                   struct value *out)
{
    struct value_list items;
    struct jinja_args args = {0};
    const struct jinja_builtin *test = NULL;
    size_t at = by_attribute;
    if (!ops_items(r, c->self, &items) || !ops_new_list(r, out)) return false;
    if (c->n_rest < at) return run_fail(r, "this filter needs an attribute's name");
    if (c->n_rest > at) {
        struct str name;
        if (!ops_string(r, c->rest[at], "the test's name", &name)) return false;
        test = jinja_test_find(name);
        if (test == NULL)
            return run_fail(r, "no test named '%.*s'", (int)(name.n < 60 ? name.n : 60), name.p);
        if (!rest_args(r, c, at + 1, &args)) return false;
    }
    for (size_t i = 0; i < items.n; i++) {
        struct value v = items.items[i];
        if (by_attribute && !run_path(r, v, c->rest[0], &v)) return false;
        if (test != NULL && !run_builtin(r, test, v, &args, &v)) return false;
        if (!run_charge(r, 0)) return false;
        if (value_is_true(v) == wanted && !ops_append(r, *out, items.items[i])) return false;
    }
    return true;
}

static bool filter_select(struct run *r, const struct jinja_call *c, struct value *out)
{
    return choose(r, c, false, true, out);
}

static bool filter_reject(struct run *r, const struct jinja_call *c, struct value *out)
{
    return choose(r, c, false, false, out);
}

static bool filter_selectattr(struct run *r, const struct jinja_call *c, struct value *out)
{
    return choose(r, c, true, true, out);
}

static bool filter_rejectattr(struct run *r, const struct jinja_call *c, struct value *out)
{
    return choose(r, c, true, false, out);
}

static bool filter_attr(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str name;
    if (!ops_string(r, c->args[0], "attr's name", &name)) return false;
    if (c->self.kind == VALUE_DICT && jinja_method_find(c->self, name) == NULL) return true;
    return run_attribute(r, c->self, name, out); // unlike "." it does not look at a dict's items
}

// ---- the table ------------------------------------------------------------------------------

static const struct jinja_builtin filters[] = {
    {"attr", "name", filter_attr},
    {"batch", "linecount fill_with", filter_batch},
    {"dictsort", "case_sensitive by reverse", filter_dictsort},
    {"first", "", filter_first},
    {"groupby", "attribute default case_sensitive", filter_groupby},
    {"items", "", filter_items},
    {"join", "d attribute", filter_join},
    {"last", "", filter_last},
    {"list", "", filter_list},
    {"map", "**", filter_map},
    {"max", "case_sensitive attribute", filter_max},
    {"min", "case_sensitive attribute", filter_min},
    {"reject", "**", filter_reject},
    {"rejectattr", "**", filter_rejectattr},
    {"reverse", "", filter_reverse},
    {"select", "**", filter_select},
    {"selectattr", "**", filter_selectattr},
    {"slice", "slices fill_with", filter_slice},
    {"sort", "reverse case_sensitive attribute", filter_sort},
    {"sum", "attribute start", filter_sum},
    {"unique", "case_sensitive attribute", filter_unique},
};

const struct jinja_builtin *jinja_list_filter_find(struct str name)
{
    return jinja_table_find(filters, sizeof filters / sizeof *filters, name);
}
