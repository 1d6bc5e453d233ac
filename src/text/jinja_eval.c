// Expressions. The order of evaluation is Python's: left to right, and/or/if stop early.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

bool run_fail(struct run *r, const char *fmt, ...)
{
    char what[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(r->err, ERR_INPUT, "template line %u column %u: %s",
                   r->at == NULL ? 1 : r->at->line, r->at == NULL ? 1 : r->at->column, what);
}

bool run_no_memory(struct run *r)
{
    return err_set(r->err, ERR_MEMORY, "out of memory while rendering the chat template");
}

bool run_charge(struct run *r, size_t n)
{
    r->n_steps += 1 + n / 64;
    if (r->n_steps <= RUN_MAX_STEPS) return true;
    return run_fail(r, "gave up after %d steps: does the template loop without end?",
                    RUN_MAX_STEPS);
}

const struct jinja_builtin *jinja_table_find(const struct jinja_builtin *table, size_t n,
                                             struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (strncmp(table[i].name, name.p, name.n) == 0 && table[i].name[name.n] == '\0')
            return &table[i];
    return NULL;
}

// The error of using what is not there.
static bool fail_undefined(struct run *r, const struct node *n)
{
    int len = (int)(n->name.n < 80 ? n->name.n : 80);
    if (n->kind == NODE_NAME) return run_fail(r, "'%.*s' is undefined", len, n->name.p);
    if (n->kind == NODE_ATTR)
        return run_fail(r, "the value has no attribute '%.*s'", len, n->name.p);
    if (n->kind == NODE_ITEM) return run_fail(r, "there is no item with this key or index");
    return run_fail(r, "the value is undefined");
}

// ---- names, attributes, items ---------------------------------------------------------------

static bool eval_name(struct run *r, const struct node *n, struct value *out)
{
    for (const struct scope *s = r->scope; s != NULL; s = s->parent)
        for (size_t i = s->n; i-- > 0;)
            if (str_eq(s->vars[i].name, n->name)) {
                *out = s->vars[i].v;
                return true;
            }
    *out = value_find(r->vars, n->name);
    if (out->kind != VALUE_UNDEFINED) return true;
    const struct jinja_builtin *b = jinja_global_find(n->name);
    if (b == NULL) return true;
    return run_new_callable(r, (struct callable){.kind = CALLABLE_BUILTIN, .builtin = b}, out);
}

bool run_new_callable(struct run *r, struct callable c, struct value *out)
{
    struct callable *made = arena_alloc(r->arena, sizeof *made);
    if (made == NULL) return run_no_memory(r);
    *made = c;
    *out = (struct value){.kind = VALUE_CALLABLE, .callable = made};
    return true;
}

static struct value loop_item(const struct loop *l, size_t i)
{
    return i < l->n ? l->items[i] : (struct value){0};
}

static struct value loop_attribute(const struct loop *l, struct str name)
{
    int64_t i = (int64_t)l->i, n = (int64_t)l->n;
    const struct {
        const char *name;
        struct value v;
    } table[] = {
        {"index", value_int(i + 1)},
        {"index0", value_int(i)},
        {"revindex", value_int(n - i)},
        {"revindex0", value_int(n - i - 1)},
        {"first", value_bool(i == 0)},
        {"last", value_bool(i == n - 1)},
        {"length", value_int(n)},
        {"depth", value_int(l->depth)},
        {"depth0", value_int(l->depth - 1)},
        {"previtem", i == 0 ? (struct value){0} : loop_item(l, l->i - 1)},
        {"nextitem", loop_item(l, l->i + 1)},
    };
    for (size_t k = 0; k < sizeof table / sizeof *table; k++)
        if (str_eq(str_from(table[k].name), name)) return table[k].v;
    return (struct value){0};
}

bool run_attribute(struct run *r, struct value v, struct str name, struct value *out)
{
    const struct jinja_builtin *b = jinja_method_find(v, name);
    if (b != NULL) {
        struct callable method = {.kind = CALLABLE_BUILTIN, .builtin = b, .self = v};
        return run_new_callable(r, method, out);
    }
    *out = value_find(v, name);
    if (v.kind == VALUE_CALLABLE) {
        const struct callable *c = v.callable;
        if (c->kind == CALLABLE_LOOP) *out = loop_attribute(c->loop, name);
    }
    return true;
}

bool run_item(struct run *r, struct value v, struct value index, struct value *out)
{
    *out = (struct value){0};
    if (index.kind == VALUE_STRING) {
        *out = value_find(v, index.s);
        if (out->kind != VALUE_UNDEFINED) return true;
        return run_attribute(r, v, index.s, out);
    }
    if (index.kind == VALUE_BOOL) index = value_int(index.b);
    if (index.kind != VALUE_INT) return true;
    int64_t i = index.i, n = 0;
    if (v.kind == VALUE_LIST) {
        n = (int64_t)v.list->n;
        if (i < 0) i += n;
        if (i >= 0 && i < n) *out = v.list->items[i];
    } else if (v.kind == VALUE_STRING) {
        n = (int64_t)text_n_chars(v.s);
        if (i < 0) i += n;
        if (!run_charge(r, v.s.n)) return false;
        if (i < 0 || i >= n) return true;
        size_t at = text_offset(v.s, (size_t)i);
        *out = value_str(str_sub(v.s, at, text_char_len(v.s, at)));
    } else if (v.kind == VALUE_DICT) { // keys are strings; {1: x}[1] was stored as "1"
        struct str key;
        if (!ops_str(r, index, &key)) return false;
        *out = value_find(v, key);
    }
    return true;
}

bool run_path(struct run *r, struct value v, struct value path, struct value *out)
{
    if (path.kind != VALUE_STRING) return run_item(r, v, path, out);
    struct str left = path.s;
    while (left.n > 0) {
        size_t dot = str_find(left, STR("."), 0);
        struct str step = str_sub(left, 0, dot == SIZE_MAX ? left.n : dot);
        left = dot == SIZE_MAX ? STR("") : str_sub(left, dot + 1, left.n);
        bool digits = step.n > 0 && step.n < 10;
        int64_t i = 0;
        for (size_t k = 0; k < step.n && digits; k++) {
            digits = step.p[k] >= '0' && step.p[k] <= '9';
            i = i * 10 + (step.p[k] - '0');
        }
        struct value key = digits ? value_int(i) : value_str(step), next;
        if (!run_item(r, v, key, &next)) return false;
        v = next;
    }
    *out = v;
    return true;
}

static bool eval_attribute(struct run *r, const struct node *n, struct value *out)
{
    struct value v;
    if (!run_eval(r, n->a, &v)) return false;
    r->at = n;
    if (v.kind == VALUE_UNDEFINED) return fail_undefined(r, n->a);
    return run_attribute(r, v, n->name, out);
}

static bool eval_item(struct run *r, const struct node *n, struct value *out)
{
    struct value v, index;
    if (!run_eval(r, n->a, &v) || !run_eval(r, n->b, &index)) return false;
    r->at = n;
    if (v.kind == VALUE_UNDEFINED) return fail_undefined(r, n->a);
    return run_item(r, v, index, out);
}

static bool eval_slice(struct run *r, const struct node *n, struct value *out)
{
    struct value v, bounds[3] = {{0}};
    const struct node *parts[3] = {n->b, n->c, n->other};
    if (!run_eval(r, n->a, &v)) return false;
    for (int i = 0; i < 3; i++)
        if (parts[i] != NULL && !run_eval(r, parts[i], &bounds[i])) return false;
    r->at = n;
    if (v.kind == VALUE_UNDEFINED) return fail_undefined(r, n->a);
    return ops_slice(r, v, bounds, out);
}

// ---- calls ----------------------------------------------------------------------------------

bool run_args_put(struct run *r, struct jinja_args *args, struct value v)
{
    if (args->p == NULL) {
        args->p = args->small;
        args->cap = RUN_SMALL_ARGS;
    }
    if (args->n == args->cap) {
        struct value *more = arena_array(r->arena, args->cap * 2, sizeof *more);
        if (more == NULL) return run_no_memory(r);
        memcpy(more, args->p, args->n * sizeof *more);
        args->p = more;
        args->cap *= 2;
    }
    args->p[args->n++] = v;
    return true;
}

static bool put_named(struct run *r, struct jinja_args *args, struct str name, struct value v)
{
    if (args->named.kind == VALUE_UNDEFINED) args->named = value_new_dict(r->arena);
    return value_set(r->arena, args->named, name, v) || run_no_memory(r);
}

static bool put_stars(struct run *r, struct jinja_args *args, const struct node *n, struct value v)
{
    if (n->kind == NODE_STAR_ARG) {
        struct value_list items;
        if (!ops_items(r, v, &items)) return false;
        for (size_t i = 0; i < items.n; i++)
            if (!run_args_put(r, args, items.items[i])) return false;
        return true;
    }
    if (v.kind != VALUE_DICT) return run_fail(r, "** needs a dict, not %s", ops_type(v));
    for (size_t i = 0; i < v.dict->n; i++)
        if (!put_named(r, args, v.dict->pairs[i].key, v.dict->pairs[i].v)) return false;
    return true;
}

static bool eval_args(struct run *r, const struct node *items, struct jinja_args *args)
{
    for (const struct node *n = items; n != NULL; n = n->next) {
        struct value v;
        bool stars = n->kind == NODE_STAR_ARG || n->kind == NODE_STARS_ARG, ok;
        if (!run_eval(r, stars || n->kind == NODE_NAMED_ARG ? n->a : n, &v)) return false;
        r->at = n;
        if (stars)
            ok = put_stars(r, args, n, v);
        else if (n->kind == NODE_NAMED_ARG)
            ok = put_named(r, args, n->name, v);
        else
            ok = run_args_put(r, args, v);
        if (!ok) return false;
    }
    return true;
}

// The i-th name in params, or an empty one behind the last.
static struct str param_name(const char *params, size_t i)
{
    for (;; i--) {
        size_t n = strcspn(params, " ");
        if (i == 0 || n == 0) return (struct str){params, params[0] == '*' ? 0 : n};
        params += n + (params[n] == ' ');
    }
}

static bool bind_named(struct run *r, const struct jinja_builtin *b, const struct jinja_args *args,
                       struct jinja_call *c)
{
    bool any_name = strstr(b->params, "**") != NULL;
    if (args->named.kind != VALUE_DICT) return true;
    for (size_t i = 0; i < args->named.dict->n; i++) {
        struct value_pair pair = args->named.dict->pairs[i];
        size_t at = 0;
        while (param_name(b->params, at).n > 0 && !str_eq(param_name(b->params, at), pair.key))
            at++;
        if (param_name(b->params, at).n > 0) {
            c->args[at] = pair.v;
        } else if (any_name) {
            c->named = args->named;
        } else {
            return run_fail(r, "%s() has no argument '%.*s'", b->name,
                            (int)(pair.key.n < 60 ? pair.key.n : 60), pair.key.p);
        }
    }
    return true;
}

bool run_builtin(struct run *r, const struct jinja_builtin *b, struct value self,
                 const struct jinja_args *args, struct value *out)
{
    struct jinja_call c = {.self = self};
    size_t n_params = 0;
    while (n_params < RUN_MAX_ARGS && param_name(b->params, n_params).n > 0) n_params++;
    for (size_t i = 0; i < args->n && i < n_params; i++) c.args[i] = args->p[i];
    if (args->n > n_params) {
        if (strchr(b->params, '*') == NULL)
            return run_fail(r, "%s() takes at most %zu arguments, not %zu", b->name, n_params,
                            args->n);
        c.rest = args->p + n_params;
        c.n_rest = args->n - n_params;
    }
    if (!bind_named(r, b, args, &c)) return false;
    struct value v = {0};
    if (!b->fn(r, &c, &v)) return false;
    *out = v;
    return true;
}

bool run_call(struct run *r, struct value callee, const struct jinja_args *args, struct value *out)
{
    if (callee.kind != VALUE_CALLABLE)
        return run_fail(r, "'%s' object is not callable", ops_type(callee));
    const struct callable *c = callee.callable;
    switch (c->kind) {
    case CALLABLE_BUILTIN: return run_builtin(r, c->builtin, c->self, args, out);
    case CALLABLE_MACRO: return run_macro(r, c, args, out);
    case CALLABLE_LOOP:
        if (args->n != 1) return run_fail(r, "loop() takes the next level's items");
        return run_loop_again(r, c->loop, args->p[0], out);
    }
    return false;
}

static bool eval_call(struct run *r, const struct node *n, struct value *out)
{
    struct value callee, self = {0};
    struct jinja_args args = {0};
    const struct jinja_builtin *method = NULL;
    if (n->a->kind == NODE_ATTR) { // a method: no need to make a value of it
        if (!run_eval(r, n->a->a, &self)) return false;
        r->at = n->a;
        if (self.kind == VALUE_UNDEFINED) return fail_undefined(r, n->a->a);
        method = jinja_method_find(self, n->a->name);
        if (method == NULL && !run_attribute(r, self, n->a->name, &callee)) return false;
    } else if (!run_eval(r, n->a, &callee)) {
        return false;
    }
    if (!eval_args(r, n->items, &args)) return false;
    r->at = n;
    if (method != NULL) return run_builtin(r, method, self, &args, out);
    if (callee.kind != VALUE_UNDEFINED) return run_call(r, callee, &args, out);
    if (n->a->kind == NODE_ATTR)
        return run_fail(r, "'%s' object has no method '%.*s' that a template may call",
                        ops_type(self), (int)(n->a->name.n < 60 ? n->a->name.n : 60), n->a->name.p);
    return fail_undefined(r, n->a);
}

static bool eval_filter(struct run *r, const struct node *n, struct value *out)
{
    struct value self;
    struct jinja_args args = {0};
    if (!run_eval(r, n->a, &self) || !eval_args(r, n->items, &args)) return false;
    r->at = n;
    if (n->builtin == NULL)
        return run_fail(r, "no filter named '%.*s'", (int)(n->name.n < 60 ? n->name.n : 60),
                        n->name.p);
    return run_builtin(r, n->builtin, self, &args, out);
}

static bool eval_test(struct run *r, const struct node *n, struct value *out)
{
    struct value self, v;
    struct jinja_args args = {0};
    if (!run_eval(r, n->a, &self) || !eval_args(r, n->items, &args)) return false;
    r->at = n;
    if (n->builtin == NULL)
        return run_fail(r, "no test named '%.*s'", (int)(n->name.n < 60 ? n->name.n : 60),
                        n->name.p);
    if (!run_builtin(r, n->builtin, self, &args, &v)) return false;
    *out = value_bool(value_is_true(v) != n->flag);
    return true;
}

// ---- literals and operators -----------------------------------------------------------------

static bool eval_list(struct run *r, const struct node *n, struct value *out)
{
    struct value list;
    if (!ops_new_list(r, &list)) return false;
    for (const struct node *item = n->items; item != NULL; item = item->next) {
        struct value v;
        if (!run_eval(r, item, &v) || !ops_append(r, list, v)) return false;
    }
    *out = list;
    return true;
}

static bool eval_dict(struct run *r, const struct node *n, struct value *out)
{
    struct value dict = value_new_dict(r->arena);
    if (dict.kind != VALUE_DICT) return run_no_memory(r);
    for (const struct node *item = n->items; item != NULL; item = item->next->next) {
        struct value key, v;
        struct str text;
        if (!run_eval(r, item, &key) || !run_eval(r, item->next, &v)) return false;
        if (!ops_str(r, key, &text) || !run_charge(r, dict.dict->n)) return false;
        if (!value_set(r->arena, dict, text, v)) return run_no_memory(r);
    }
    *out = dict;
    return true;
}

static bool eval_unary(struct run *r, const struct node *n, struct value *out)
{
    struct value v;
    if (!run_eval(r, n->a, &v)) return false;
    r->at = n;
    if (n->op == OP_NOT) {
        *out = value_bool(!value_is_true(v));
        return true;
    }
    if (v.kind == VALUE_UNDEFINED) return fail_undefined(r, n->a);
    if (v.kind == VALUE_FLOAT) {
        *out = (struct value){.kind = VALUE_FLOAT, .f = n->op == OP_SUB ? -v.f : v.f};
        return true;
    }
    return ops_binary(r, n->op, value_int(0), v, out);
}

static bool eval_binary(struct run *r, const struct node *n, struct value *out)
{
    struct value a, b;
    if (!run_eval(r, n->a, &a) || !run_eval(r, n->b, &b)) return false;
    r->at = n;
    if (a.kind == VALUE_UNDEFINED) return fail_undefined(r, n->a);
    if (b.kind == VALUE_UNDEFINED) return fail_undefined(r, n->b);
    return ops_binary(r, n->op, a, b, out);
}

static bool compare_one(struct run *r, enum node_op op, struct value a, struct value b, bool *out)
{
    int c = 0;
    if (op == OP_EQ || op == OP_NE) {
        *out = ops_equal(r, a, b) == (op == OP_EQ);
        return true;
    }
    if (op == OP_IN || op == OP_NOT_IN) {
        if (!ops_in(r, a, b, out)) return false;
        *out = *out == (op == OP_IN);
        return true;
    }
    if (!ops_compare(r, a, b, &c)) return false;
    *out = op == OP_LT ? c < 0 : op == OP_LE ? c <= 0 : op == OP_GT ? c > 0 : c >= 0;
    return true;
}

static bool eval_compare(struct run *r, const struct node *n, struct value *out)
{
    struct value left, right;
    bool holds = true;
    if (!run_eval(r, n->a, &left)) return false;
    for (const struct node *o = n->items; o != NULL && holds; o = o->next) {
        if (!run_eval(r, o->a, &right)) return false;
        r->at = n;
        if (!run_charge(r, 0) || !compare_one(r, o->op, left, right, &holds)) return false;
        left = right;
    }
    *out = value_bool(holds);
    return true;
}

static bool eval_concat(struct run *r, const struct node *n, struct value *out)
{
    struct buf b = {0};
    for (const struct node *item = n->items; item != NULL; item = item->next) {
        struct value v;
        struct str text;
        if (!run_eval(r, item, &v) || !ops_str(r, v, &text) || !run_charge(r, text.n)) {
            buf_free(&b);
            return false;
        }
        buf_str(&b, text);
    }
    return ops_take(r, &b, out);
}

static bool eval_choice(struct run *r, const struct node *n, struct value *out)
{
    struct value v;
    switch (n->kind) {
    case NODE_AND:
        if (!run_eval(r, n->a, &v)) return false;
        if (value_is_true(v)) return run_eval(r, n->b, out);
        break;
    case NODE_OR:
        if (!run_eval(r, n->a, &v)) return false;
        if (!value_is_true(v)) return run_eval(r, n->b, out);
        break;
    default: // NODE_IF_ELSE
        if (!run_eval(r, n->a, &v)) return false;
        if (value_is_true(v)) return run_eval(r, n->b, out);
        v = (struct value){0};
        if (n->c != NULL) return run_eval(r, n->c, out);
    }
    *out = v;
    return true;
}

static bool eval_kind(struct run *r, const struct node *n, struct value *out)
{
    switch (n->kind) {
    case NODE_CONST: *out = n->constant; return true;
    case NODE_CAPTURED: *out = r->captured; return true;
    case NODE_NAME: return eval_name(r, n, out);
    case NODE_LIST: return eval_list(r, n, out);
    case NODE_DICT: return eval_dict(r, n, out);
    case NODE_ATTR: return eval_attribute(r, n, out);
    case NODE_ITEM: return eval_item(r, n, out);
    case NODE_SLICE: return eval_slice(r, n, out);
    case NODE_CALL: return eval_call(r, n, out);
    case NODE_FILTER: return eval_filter(r, n, out);
    case NODE_TEST: return eval_test(r, n, out);
    case NODE_UNARY: return eval_unary(r, n, out);
    case NODE_BINARY: return eval_binary(r, n, out);
    case NODE_COMPARE: return eval_compare(r, n, out);
    case NODE_CONCAT: return eval_concat(r, n, out);
    case NODE_AND:
    case NODE_OR:
    case NODE_IF_ELSE: return eval_choice(r, n, out);
    default: return run_fail(r, "this is not an expression");
    }
}

bool run_eval(struct run *r, const struct node *n, struct value *out)
{
    r->at = n;
    if (!run_charge(r, 0)) return false;
    if (++r->depth > RUN_MAX_DEPTH)
        return run_fail(r, "nested deeper than %d levels: does a macro call itself without end?",
                        RUN_MAX_DEPTH);
    bool ok = eval_kind(r, n, out);
    r->depth--;
    return ok;
}
