// Statements, scopes, loops and macros.
// Invariant: whatever happens, r->out, r->scope and r->captured are afterwards what they were.
#include <string.h>

#include "text/jinja_run.h"

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE, FLOW_FAIL };

static enum flow exec(struct run *r, const struct node *first);

static enum flow flow(bool ok)
{
    return ok ? FLOW_NEXT : FLOW_FAIL;
}

static bool emit(struct run *r, struct str s)
{
    r->n_output += s.n;
    if (r->n_output > RUN_MAX_OUTPUT)
        return run_fail(r, "printed more than %u MiB", RUN_MAX_OUTPUT >> 20);
    buf_str(r->out, s);
    return !r->out->failed || run_no_memory(r);
}

static bool emit_value(struct run *r, struct value v)
{
    struct str s;
    return ops_str(r, v, &s) && emit(r, s);
}

// ---- scopes ---------------------------------------------------------------------------------

static struct scope *scope_push(struct run *r, struct scope *parent)
{
    struct scope *s = arena_alloc(r->arena, sizeof *s); // a macro may outlive the block
    if (s == NULL) {
        run_no_memory(r);
        return NULL;
    }
    s->parent = parent;
    r->scope = s;
    return s;
}

bool run_set(struct run *r, struct scope *s, struct str name, struct value v)
{
    for (size_t i = 0; i < s->n; i++)
        if (str_eq(s->vars[i].name, name)) {
            s->vars[i].v = v;
            return true;
        }
    if (s->n == s->cap) {
        size_t cap = s->cap == 0 ? 8 : s->cap * 2;
        struct var *vars = arena_array(r->arena, cap, sizeof *vars);
        if (vars == NULL) return run_no_memory(r);
        if (s->n > 0) memcpy(vars, s->vars, s->n * sizeof *vars);
        s->vars = vars;
        s->cap = cap;
    }
    s->vars[s->n++] = (struct var){name, v};
    return true;
}

static bool assign(struct run *r, const struct node *target, struct value v)
{
    if (target->kind == NODE_NAME) return run_set(r, r->scope, target->name, v);
    if (target->kind == NODE_ATTR) {
        struct value object;
        if (!run_eval(r, target->a, &object)) return false;
        r->at = target;
        if (object.kind != VALUE_NAMESPACE)
            return run_fail(r, "only a namespace's attributes can be set, not those of '%s'",
                            ops_type(object));
        return value_set(r->arena, object, target->name, v) || run_no_memory(r);
    }
    struct value_list items;
    size_t n = 0, i = 0;
    r->at = target;
    if (!ops_items(r, v, &items)) return false;
    for (const struct node *t = target->items; t != NULL; t = t->next) n++;
    if (items.n != n) return run_fail(r, "cannot unpack %zu values into %zu names", items.n, n);
    for (const struct node *t = target->items; t != NULL; t = t->next)
        if (!assign(r, t, items.items[i++])) return false;
    return true;
}

// ---- printing -------------------------------------------------------------------------------

// "a" + b + "c" is printed piece by piece, so that a long text is copied once. Only strings can
// follow a string, so the first operand decides.
static bool print_sum(struct run *r, const struct node *n)
{
    enum { MAX_TERMS = 32 };
    const struct node *terms[MAX_TERMS];
    size_t n_terms = 0;
    const struct node *left = n;
    for (; left->kind == NODE_BINARY && left->op == OP_ADD && n_terms < MAX_TERMS; left = left->a)
        terms[n_terms++] = left;
    struct value sum;
    if (!run_eval(r, left, &sum)) return false;
    if (n_terms > 0 && sum.kind == VALUE_UNDEFINED) return run_eval(r, n, &sum); // its message
    bool is_text = sum.kind == VALUE_STRING;
    if (is_text && !emit(r, sum.s)) return false;
    while (n_terms-- > 0) {
        struct value v;
        if (!run_eval(r, terms[n_terms]->b, &v)) return false;
        r->at = terms[n_terms];
        if (is_text && v.kind == VALUE_STRING) {
            if (!emit(r, v.s)) return false;
        } else if (!ops_binary(r, OP_ADD, is_text ? value_str(STR("")) : sum, v, &sum)) {
            return false;
        }
    }
    return is_text || emit_value(r, sum);
}

// Runs statements with their output going to a string.
static bool capture(struct run *r, const struct node *body, struct value *out)
{
    struct buf *saved = r->out, text = {0};
    r->out = &text;
    enum flow f = exec(r, body);
    r->out = saved;
    if (f == FLOW_FAIL) {
        buf_free(&text);
        return false;
    }
    return ops_take(r, &text, out);
}

// The block's text through the filters written at its head.
static bool capture_filtered(struct run *r, const struct node *n, struct value *out)
{
    struct value text, saved = r->captured;
    struct scope *outer = r->scope;
    bool ok = scope_push(r, outer) != NULL && capture(r, n->body, &text);
    r->scope = outer;
    if (!ok) return false;
    if (n->a == NULL) {
        *out = text;
        return true;
    }
    r->captured = text;
    ok = run_eval(r, n->a, out);
    r->captured = saved;
    return ok;
}

// ---- loops ----------------------------------------------------------------------------------

// Those items for which the loop's condition holds.
static bool filter_items(struct run *r, const struct node *n, struct value_list *items)
{
    struct value kept;
    if (!ops_new_list(r, &kept)) return false;
    for (size_t i = 0; i < items->n; i++) {
        struct value v;
        r->scope->n = 0;
        if (!assign(r, n->target, items->items[i]) || !run_eval(r, n->b, &v)) return false;
        if (value_is_true(v) && !ops_append(r, kept, items->items[i])) return false;
    }
    *items = *kept.list;
    return true;
}

static enum flow loop_body(struct run *r, const struct node *n, struct loop *l)
{
    struct value self;
    struct callable c = {.kind = CALLABLE_LOOP, .loop = l};
    if (!run_new_callable(r, c, &self)) return FLOW_FAIL;
    for (l->i = 0; l->i < l->n; l->i++) {
        r->scope->n = 0;
        if (!run_charge(r, 0) || !run_set(r, r->scope, STR("loop"), self)) return FLOW_FAIL;
        if (!assign(r, n->target, l->items[l->i])) return FLOW_FAIL;
        enum flow f = exec(r, n->body);
        if (f == FLOW_FAIL) return f;
        if (f == FLOW_BREAK) break;
    }
    return FLOW_NEXT;
}

static enum flow exec_loop(struct run *r, const struct node *n, struct value iterable, int depth)
{
    struct value_list items;
    struct scope *outer = r->scope;
    struct loop *l = arena_alloc(r->arena, sizeof *l);
    if (l == NULL) return flow(run_no_memory(r));
    r->at = n;
    if (!ops_items(r, iterable, &items) || scope_push(r, outer) == NULL) return FLOW_FAIL;
    enum flow f = FLOW_FAIL;
    if (n->b == NULL || filter_items(r, n, &items)) {
        *l = (struct loop){.node = n, .items = items.items, .n = items.n, .depth = depth};
        r->scope->n = 0;
        f = items.n > 0 ? loop_body(r, n, l) : exec(r, n->other);
    }
    r->scope = outer;
    return f;
}

bool run_loop_again(struct run *r, const struct loop *l, struct value iterable, struct value *out)
{
    if (!l->node->flag) return run_fail(r, "only a loop marked 'recursive' can be called");
    struct buf *saved = r->out, text = {0};
    r->out = &text;
    enum flow f = exec_loop(r, l->node, iterable, l->depth + 1);
    r->out = saved;
    if (f == FLOW_NEXT) return ops_take(r, &text, out);
    buf_free(&text);
    return false;
}

static enum flow exec_for(struct run *r, const struct node *n)
{
    struct value iterable;
    if (!run_eval(r, n->a, &iterable)) return FLOW_FAIL;
    return exec_loop(r, n, iterable, 1);
}

// ---- macros ---------------------------------------------------------------------------------

static bool bind_params(struct run *r, const struct node *n, const struct jinja_args *args)
{
    size_t i = 0;
    for (const struct node *p = n->items; p != NULL; p = p->next, i++) {
        struct value v = i < args->n ? args->p[i] : value_find(args->named, p->name);
        bool given = i < args->n || v.kind != VALUE_UNDEFINED;
        if (!given && p->a != NULL && !run_eval(r, p->a, &v)) return false;
        if (!run_set(r, r->scope, p->name, v)) return false;
    }
    struct value rest, named = value_new_dict(r->arena);
    if (named.kind != VALUE_DICT || !ops_new_list(r, &rest)) return run_no_memory(r);
    for (; i < args->n; i++)
        if (!ops_append(r, rest, args->p[i])) return false;
    for (size_t k = 0; args->named.kind == VALUE_DICT && k < args->named.dict->n; k++) {
        struct value_pair pair = args->named.dict->pairs[k];
        const struct node *p = n->items;
        while (p != NULL && !str_eq(p->name, pair.key)) p = p->next;
        bool ok = p != NULL ||
                  (str_eq(pair.key, STR("caller")) ? run_set(r, r->scope, pair.key, pair.v)
                                                   : value_set(r->arena, named, pair.key, pair.v));
        if (!ok) return run_no_memory(r);
    }
    return run_set(r, r->scope, STR("varargs"), rest) && run_set(r, r->scope, STR("kwargs"), named);
}

bool run_macro(struct run *r, const struct callable *c, const struct jinja_args *args,
               struct value *out)
{
    struct scope *outer = r->scope;
    bool ok = scope_push(r, c->scope) != NULL && bind_params(r, c->node, args) &&
              capture(r, c->node->body, out);
    r->scope = outer;
    return ok;
}

static bool define_macro(struct run *r, const struct node *n)
{
    struct value v;
    struct callable c = {.kind = CALLABLE_MACRO, .node = n, .scope = r->scope};
    return run_new_callable(r, c, &v) && run_set(r, r->scope, n->name, v);
}

// {% call macro(x) %}: the macro is called with its body as caller().
static bool exec_call_block(struct run *r, const struct node *n)
{
    struct value caller;
    struct callable c = {.kind = CALLABLE_MACRO, .node = n, .scope = r->scope};
    struct node named = {.kind = NODE_NAMED_ARG, .name = STR("caller"), .line = n->line};
    struct node constant = {.kind = NODE_CONST, .line = n->line};
    if (!run_new_callable(r, c, &caller)) return false;
    constant.constant = caller;
    named.a = &constant;
    named.next = n->a->items; // a named argument may come first: it is bound by name
    struct node call = *n->a;
    call.items = &named;
    struct value v;
    return run_eval(r, &call, &v) && emit_value(r, v);
}

// ---- statements -----------------------------------------------------------------------------

static enum flow exec_if(struct run *r, const struct node *n)
{
    while (n != NULL && n->kind == NODE_IF) {
        struct value v;
        if (!run_eval(r, n->a, &v)) return FLOW_FAIL;
        if (value_is_true(v)) return exec(r, n->body);
        // An else block that holds one {% if %} looks like elif and means the same, unless more
        // statements follow it.
        if (n->other != NULL && n->other->next != NULL) return exec(r, n->other);
        n = n->other;
    }
    return exec(r, n);
}

static enum flow exec_with(struct run *r, const struct node *n)
{
    struct scope *outer = r->scope;
    struct scope *inner = scope_push(r, outer);
    bool ok = inner != NULL;
    for (const struct node *set = n->items; ok && set != NULL; set = set->next) {
        struct value v;
        r->scope = outer; // the values see what is outside
        ok = run_eval(r, set->a, &v);
        r->scope = inner;
        ok = ok && assign(r, set->target, v);
    }
    enum flow f = ok ? exec(r, n->body) : FLOW_FAIL;
    r->scope = outer;
    return f;
}

static enum flow exec_scope(struct run *r, const struct node *n)
{
    struct scope *outer = r->scope;
    enum flow f = scope_push(r, outer) != NULL ? exec(r, n->body) : FLOW_FAIL;
    r->scope = outer;
    return f;
}

static enum flow exec_one(struct run *r, const struct node *n)
{
    struct value v;
    switch (n->kind) {
    case NODE_TEXT: return flow(emit(r, n->name));
    case NODE_PRINT: return flow(print_sum(r, n->a));
    case NODE_IF: return exec_if(r, n);
    case NODE_FOR: return exec_for(r, n);
    case NODE_SET: return flow(run_eval(r, n->a, &v) && assign(r, n->target, v));
    case NODE_SET_BLOCK: return flow(capture_filtered(r, n, &v) && assign(r, n->target, v));
    case NODE_FILTER_BLOCK: return flow(capture_filtered(r, n, &v) && emit_value(r, v));
    case NODE_MACRO: return flow(define_macro(r, n));
    case NODE_CALL_BLOCK: return flow(exec_call_block(r, n));
    case NODE_WITH: return exec_with(r, n);
    case NODE_SCOPE: return exec_scope(r, n);
    case NODE_BREAK: return FLOW_BREAK;
    case NODE_CONTINUE: return FLOW_CONTINUE;
    case NODE_DO: return flow(run_eval(r, n->a, &v));
    default: return flow(run_fail(r, "this is not a statement"));
    }
}

static enum flow exec(struct run *r, const struct node *first)
{
    enum flow f = FLOW_NEXT;
    if (++r->depth > RUN_MAX_DEPTH) {
        run_fail(r, "nested deeper than %d levels: does a macro call itself without end?",
                 RUN_MAX_DEPTH);
        return FLOW_FAIL;
    }
    for (const struct node *n = first; n != NULL && f == FLOW_NEXT; n = n->next) {
        r->at = n;
        if (!run_charge(r, 0)) return FLOW_FAIL;
        f = exec_one(r, n);
    }
    r->depth--;
    return f;
}

bool run_statements(struct run *r, const struct node *first)
{
    return exec(r, first) != FLOW_FAIL;
}
