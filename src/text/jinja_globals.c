// Functions that every template may call: Jinja's, and those that transformers adds.
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "text/jinja_run.h"

static bool global_range(struct run *r, const struct jinja_call *c, struct value *out)
{
    int64_t from = 0, to = 0, step = 1;
    bool two = c->args[1].kind != VALUE_UNDEFINED;
    if (two && !ops_integer(r, c->args[0], "range's start", &from)) return false;
    if (!ops_integer(r, c->args[two], "range's end", &to)) return false;
    if (c->args[2].kind != VALUE_UNDEFINED && !ops_integer(r, c->args[2], "range's step", &step))
        return false;
    if (step == 0) return run_fail(r, "range() arg 3 must not be zero");
    if (!ops_new_list(r, out)) return false;
    for (int64_t i = from; step > 0 ? i < to : i > to;) {
        if (out->list->n == 100000) // Jinja's sandbox has the same bound
            return run_fail(r, "a range must not have more than 100000 items");
        if (!ops_append(r, *out, value_int(i))) return false;
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    return true;
}

// Copies the pairs of a dict, or of a list of pairs.
static bool put_pairs(struct run *r, struct value to, struct value from)
{
    if (from.kind == VALUE_UNDEFINED) return true;
    if (from.kind != VALUE_LIST && from.kind != VALUE_DICT)
        return run_fail(r, "'%s' object cannot become a dict", ops_type(from));
    size_t n = from.kind == VALUE_DICT ? from.dict->n : from.list->n;
    for (size_t i = 0; i < n; i++) {
        struct value pair[2];
        struct str key;
        if (from.kind == VALUE_DICT) {
            pair[0] = value_str(from.dict->pairs[i].key);
            pair[1] = from.dict->pairs[i].v;
        } else {
            struct value_list items;
            if (!ops_items(r, from.list->items[i], &items)) return false;
            if (items.n != 2) return run_fail(r, "dict() needs pairs; item %zu is none", i);
            pair[0] = items.items[0];
            pair[1] = items.items[1];
        }
        if (!ops_str(r, pair[0], &key) || !run_charge(r, to.dict->n)) return false;
        if (!value_set(r->arena, to, key, pair[1])) return run_no_memory(r);
    }
    return true;
}

static bool global_dict(struct run *r, const struct jinja_call *c, struct value *out)
{
    *out = value_new_dict(r->arena);
    if (out->kind != VALUE_DICT) return run_no_memory(r);
    for (size_t i = 0; i < c->n_rest; i++)
        if (!put_pairs(r, *out, c->rest[i])) return false;
    return put_pairs(r, *out, c->named);
}

static bool global_namespace(struct run *r, const struct jinja_call *c, struct value *out)
{
    if (!global_dict(r, c, out)) return false;
    out->kind = VALUE_NAMESPACE;
    return true;
}

static bool global_raise(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str message;
    (void)out;
    if (!ops_str(r, c->args[0], &message)) return false;
    return run_fail(r, "%.*s", (int)(message.n < 300 ? message.n : 300), message.p);
}

static bool global_strftime_now(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str format;
    char f[200], text[1000];
    if (!ops_string(r, c->args[0], "strftime_now's format", &format)) return false;
    if (format.n >= sizeof f) return run_fail(r, "strftime_now's format is too long");
    memcpy(f, format.p, format.n);
    f[format.n] = '\0';
    time_t now = (time_t)clock_unix();
    struct tm local;
    if (localtime_r(&now, &local) == NULL) return run_fail(r, "the clock cannot be read");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" // the template's format; text is bounded
    size_t n = strftime(text, sizeof text, f, &local);
#pragma GCC diagnostic pop
    struct buf b = {0};
    buf_put(&b, text, n);
    return ops_take(r, &b, out);
}

// joiner(): nothing the first time it is called, the separator afterwards.
static bool joiner_call(struct run *r, const struct jinja_call *c, struct value *out)
{
    *out = value_str(STR(""));
    if (value_is_true(value_get(c->self, "used"))) *out = value_get(c->self, "sep");
    return value_set(r->arena, c->self, STR("used"), value_bool(true)) || run_no_memory(r);
}

static bool global_joiner(struct run *r, const struct jinja_call *c, struct value *out)
{
    static const struct jinja_builtin call = {"joiner", "", joiner_call};
    struct value state = value_new_dict(r->arena), sep = c->args[0];
    if (sep.kind == VALUE_UNDEFINED) sep = value_str(STR(", "));
    if (state.kind != VALUE_DICT || !value_set(r->arena, state, STR("sep"), sep))
        return run_no_memory(r);
    struct callable joiner = {.kind = CALLABLE_BUILTIN, .builtin = &call, .self = state};
    return run_new_callable(r, joiner, out);
}

static const struct jinja_builtin globals[] = {
    {"range", "start stop step", global_range},      {"dict", "**", global_dict},
    {"namespace", "**", global_namespace},           {"raise_exception", "message", global_raise},
    {"strftime_now", "format", global_strftime_now}, {"joiner", "sep", global_joiner},
};

const struct jinja_builtin *jinja_global_find(struct str name)
{
    return jinja_table_find(globals, sizeof globals / sizeof *globals, name);
}
