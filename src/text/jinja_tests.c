// "x is test". The names are Jinja 3's.
#include "text/jinja_run.h"
#include "text/jinja_text.h"

#define TEST(name, condition)                                                           \
    static bool is_##name(struct run *r, const struct jinja_call *c, struct value *out) \
    {                                                                                   \
        (void)r;                                                                        \
        struct value v = c->self;                                                       \
        *out = value_bool(condition);                                                   \
        return true;                                                                    \
    }

TEST(defined, v.kind != VALUE_UNDEFINED)
TEST(undefined, v.kind == VALUE_UNDEFINED)
TEST(none, v.kind == VALUE_NULL)
TEST(string, v.kind == VALUE_STRING)
TEST(number, ops_is_number(v) || v.kind == VALUE_BIGINT)
TEST(integer, v.kind == VALUE_INT || v.kind == VALUE_BIGINT)
TEST(float, v.kind == VALUE_FLOAT)
TEST(boolean, v.kind == VALUE_BOOL)
TEST(true, v.kind == VALUE_BOOL && v.b)
TEST(false, v.kind == VALUE_BOOL && !v.b)
TEST(mapping, v.kind == VALUE_DICT)
TEST(iterable, v.kind == VALUE_STRING || v.kind == VALUE_LIST || v.kind == VALUE_DICT ||
                   v.kind == VALUE_UNDEFINED)
TEST(sequence, v.kind == VALUE_STRING || v.kind == VALUE_LIST || v.kind == VALUE_DICT ||
                   v.kind == VALUE_UNDEFINED)
TEST(callable, v.kind == VALUE_CALLABLE || v.kind == VALUE_UNDEFINED)
TEST(upper, v.kind == VALUE_STRING && text_has_case(v.s, true))
TEST(lower, v.kind == VALUE_STRING && text_has_case(v.s, false))
TEST(filter, v.kind == VALUE_STRING && jinja_filter_find(v.s) != NULL)
TEST(test, v.kind == VALUE_STRING && jinja_test_find(v.s) != NULL)
TEST(eq, ops_equal(r, v, c->args[0]))
TEST(ne, !ops_equal(r, v, c->args[0]))

static bool same_object(struct run *r, struct value a, struct value b)
{
    if (a.kind != b.kind) return false;
    if (a.kind == VALUE_LIST) return a.list == b.list;
    if (a.kind == VALUE_DICT) return a.dict == b.dict;
    return ops_equal(r, a, b);
}
TEST(sameas, same_object(r, v, c->args[0]))

#define ORDER(name, condition)                                                          \
    static bool is_##name(struct run *r, const struct jinja_call *c, struct value *out) \
    {                                                                                   \
        int order;                                                                      \
        if (!ops_compare(r, c->self, c->args[0], &order)) return false;                 \
        *out = value_bool(condition);                                                   \
        return true;                                                                    \
    }

ORDER(lt, order < 0)
ORDER(le, order <= 0)
ORDER(gt, order > 0)
ORDER(ge, order >= 0)

static bool is_in(struct run *r, const struct jinja_call *c, struct value *out)
{
    bool found;
    if (!ops_in(r, c->self, c->args[0], &found)) return false;
    *out = value_bool(found);
    return true;
}

static bool remainder_is(struct run *r, struct value v, struct value by, int64_t want,
                         struct value *out)
{
    struct value rest;
    if (!ops_binary(r, OP_MOD, v, by, &rest)) return false;
    *out = value_bool(ops_equal(r, rest, value_int(want)));
    return true;
}

static bool is_divisibleby(struct run *r, const struct jinja_call *c, struct value *out)
{
    return remainder_is(r, c->self, c->args[0], 0, out);
}

static bool is_even(struct run *r, const struct jinja_call *c, struct value *out)
{
    return remainder_is(r, c->self, value_int(2), 0, out);
}

static bool is_odd(struct run *r, const struct jinja_call *c, struct value *out)
{
    return remainder_is(r, c->self, value_int(2), 1, out);
}

static const struct jinja_builtin tests[] = {
    {"defined", "", is_defined},
    {"undefined", "", is_undefined},
    {"none", "", is_none},
    {"string", "", is_string},
    {"number", "", is_number},
    {"integer", "", is_integer},
    {"float", "", is_float},
    {"boolean", "", is_boolean},
    {"true", "", is_true},
    {"false", "", is_false},
    {"mapping", "", is_mapping},
    {"iterable", "", is_iterable},
    {"sequence", "", is_sequence},
    {"callable", "", is_callable},
    {"upper", "", is_upper},
    {"lower", "", is_lower},
    {"filter", "", is_filter},
    {"test", "", is_test},
    {"eq", "other", is_eq},
    {"equalto", "other", is_eq},
    {"==", "other", is_eq},
    {"ne", "other", is_ne},
    {"!=", "other", is_ne},
    {"sameas", "other", is_sameas},
    {"lt", "other", is_lt},
    {"lessthan", "other", is_lt},
    {"<", "other", is_lt},
    {"le", "other", is_le},
    {"<=", "other", is_le},
    {"gt", "other", is_gt},
    {"greaterthan", "other", is_gt},
    {">", "other", is_gt},
    {"ge", "other", is_ge},
    {">=", "other", is_ge},
    {"in", "seq", is_in},
    {"divisibleby", "num", is_divisibleby},
    {"even", "", is_even},
    {"odd", "", is_odd},
};

const struct jinja_builtin *jinja_test_find(struct str name)
{
    return jinja_table_find(tests, sizeof tests / sizeof *tests, name);
}
