// Expressions, by descent through Jinja 3's levels of binding (loosest first):
//   x if y else z, or, and, not, == in ..., + -, ~, * / // %, **, unary - +, . [] () | is
// ** binds to the left and "-2 ** 2" is 4, as in Jinja, not as in Python.
#include "text/jinja_parser.h"

#include <string.h>

#include "text/jinja_run.h"

static bool expr_or(struct parser *p, struct node **out);
static bool unary(struct parser *p, bool with_filter, struct node **out);
static bool primary(struct parser *p, struct node **out);
static bool postfix(struct parser *p, struct node **n);

static bool deeper(struct parser *p)
{
    if (++p->depth <= PARSER_MAX_DEPTH) return true;
    return parser_fail(p, "nested deeper than 100 levels");
}

// kind with a = left, at the current token.
static struct node *around(struct parser *p, enum node_kind kind, struct node *left)
{
    struct node *n = parser_node(p, kind);
    if (n != NULL) n->a = left;
    return n;
}

static void chain(struct node **first, struct node **last, struct node *n)
{
    if (*last != NULL)
        (*last)->next = n;
    else
        *first = n;
    *last = n;
}

// ---- arguments, lists, dicts ----------------------------------------------------------------

static bool argument(struct parser *p, struct node **out)
{
    enum node_kind kind = NODE_CONST;
    if (parser_is_op(p, "*")) kind = NODE_STAR_ARG;
    if (parser_is_op(p, "**")) kind = NODE_STARS_ARG;
    if (p->at->kind == LEX_NAME && p->at[1].kind == LEX_OP && str_eq(p->at[1].s, STR("=")))
        kind = NODE_NAMED_ARG;
    if (kind == NODE_CONST) return parser_expression(p, out);
    struct node *n = parser_node(p, kind);
    if (n == NULL) return false;
    n->name = p->at->s;
    p->at += kind == NODE_NAMED_ARG ? 2 : 1;
    *out = n;
    return parser_expression(p, &n->a);
}

// "a, b, c close", the opening is behind us.
static bool items(struct parser *p, const char *close, bool are_arguments, struct node **out)
{
    struct node *last = NULL;
    while (!parser_is_op(p, close)) {
        struct node *n;
        if (last != NULL && !parser_expect_op(p, ",")) return false;
        if (last != NULL && parser_is_op(p, close)) break;
        if (!(are_arguments ? argument(p, &n) : parser_expression(p, &n))) return false;
        if (n->next != NULL) return parser_fail(p, "unexpected list");
        chain(out, &last, n);
    }
    return parser_expect_op(p, close);
}

static bool dict(struct parser *p, struct node *n)
{
    struct node *last = NULL;
    while (!parser_is_op(p, "}")) {
        struct node *key, *v;
        if (last != NULL && !parser_expect_op(p, ",")) return false;
        if (last != NULL && parser_is_op(p, "}")) break;
        if (!parser_expression(p, &key) || !parser_expect_op(p, ":") || !parser_expression(p, &v))
            return false;
        chain(&n->items, &last, key);
        chain(&n->items, &last, v);
    }
    return parser_expect_op(p, "}");
}

// "a" or "a, b" up to what cannot go on; a lone expression is itself.
static bool tuple(struct parser *p, bool with_if, struct node **out)
{
    struct node *n, *list = NULL, *last = NULL;
    if (!(with_if ? parser_expression(p, &n) : expr_or(p, &n))) return false;
    *out = n;
    while (parser_is_op(p, ",")) {
        if (list == NULL) {
            list = parser_node(p, NODE_LIST);
            if (list == NULL) return false;
            chain(&list->items, &last, n);
            *out = list;
        }
        p->at++;
        if (p->at->kind == LEX_CLOSE || parser_is_op(p, ")") || parser_is_op(p, "=") ||
            parser_is_name(p, "in"))
            break;
        if (!(with_if ? parser_expression(p, &n) : expr_or(p, &n))) return false;
        chain(&list->items, &last, n);
    }
    return true;
}

bool parser_tuple(struct parser *p, bool with_if, struct node **out)
{
    return tuple(p, with_if, out);
}

static bool one_target(struct parser *p, struct node **out)
{
    static const char *const reserved[] = {"true", "false", "none", "True", "False",
                                           "None", "and",   "or",   "not",  "in",
                                           "is",   "if",    "else", "elif"};
    if (parser_skip_op(p, "(")) {
        struct node *n;
        if (!deeper(p) || !parser_target(p, &n)) return false;
        p->depth--;
        *out = n;
        return parser_expect_op(p, ")");
    }
    if (p->at->kind != LEX_NAME) return parser_fail(p, "expected a name to assign to");
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (parser_is_name(p, reserved[i])) return parser_fail(p, "cannot assign to this word");
    struct node *n = parser_node(p, NODE_NAME);
    if (n == NULL) return false;
    n->name = p->at++->s;
    if (parser_skip_op(p, ".")) {
        n = around(p, NODE_ATTR, n);
        if (n == NULL) return false;
        if (p->at->kind != LEX_NAME) return parser_fail(p, "expected an attribute's name");
        n->name = p->at++->s;
    }
    *out = n;
    return true;
}

bool parser_target(struct parser *p, struct node **out)
{
    struct node *n, *list = NULL, *last = NULL;
    if (!one_target(p, &n)) return false;
    *out = n;
    while (parser_is_op(p, ",")) {
        if (list == NULL) {
            list = parser_node(p, NODE_LIST);
            if (list == NULL) return false;
            chain(&list->items, &last, n);
            *out = list;
        }
        p->at++;
        if (p->at->kind != LEX_NAME && !parser_is_op(p, "(")) break;
        if (!one_target(p, &n)) return false;
        chain(&list->items, &last, n);
    }
    return true;
}

// ---- primary and what follows it ------------------------------------------------------------

static bool word(struct parser *p, struct node **out)
{
    static const struct {
        const char *word;
        struct value v;
    } words[] = {
        {"true", {.kind = VALUE_BOOL, .b = true}},
        {"True", {.kind = VALUE_BOOL, .b = true}},
        {"false", {.kind = VALUE_BOOL}},
        {"False", {.kind = VALUE_BOOL}},
        {"none", {.kind = VALUE_NULL}},
        {"None", {.kind = VALUE_NULL}},
    };
    struct node *n = parser_node(p, NODE_NAME);
    if (n == NULL) return false;
    n->name = p->at->s;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!parser_is_name(p, words[i].word)) continue;
        n->kind = NODE_CONST;
        n->constant = words[i].v;
    }
    p->at++;
    *out = n;
    return true;
}

// "a" 'b' beside each other are one string.
static bool strings(struct parser *p, struct node *n)
{
    n->constant = p->at++->v;
    while (p->at->kind == LEX_STRING) {
        struct str a = n->constant.s, b = p->at++->v.s;
        char *both = arena_alloc(p->arena, a.n + b.n + 1);
        if (both == NULL)
            return err_set(p->err, ERR_MEMORY, "out of memory while reading a chat template");
        memcpy(both, a.p, a.n);
        memcpy(both + a.n, b.p, b.n);
        n->constant.s = (struct str){both, a.n + b.n};
    }
    return true;
}

static bool parentheses(struct parser *p, struct node **out)
{
    if (parser_is_op(p, ")")) {
        *out = parser_node(p, NODE_LIST); // the empty tuple
        p->at++;
        return *out != NULL;
    }
    if (!tuple(p, true, out)) return false;
    return parser_expect_op(p, ")");
}

static bool primary(struct parser *p, struct node **out)
{
    bool ok;
    if (p->at->kind == LEX_NAME) return word(p, out);
    if (!deeper(p)) return false;
    if (parser_skip_op(p, "(")) {
        ok = parentheses(p, out);
    } else {
        struct node *n = parser_node(p, NODE_CONST);
        if (n == NULL) return false;
        *out = n;
        if (p->at->kind == LEX_STRING) {
            ok = strings(p, n);
        } else if (p->at->kind == LEX_NUMBER) {
            n->constant = p->at++->v;
            ok = true;
        } else if (parser_skip_op(p, "[")) {
            n->kind = NODE_LIST;
            ok = items(p, "]", false, &n->items);
        } else if (parser_skip_op(p, "{")) {
            n->kind = NODE_DICT;
            ok = dict(p, n);
        } else {
            ok = parser_fail(p, "expected a value");
        }
    }
    p->depth--;
    return ok;
}

static bool slice_part(struct parser *p, struct node **out)
{
    if (parser_is_op(p, ":") || parser_is_op(p, "]")) return true;
    return parser_expression(p, out);
}

// "[...]" behind *n.
static bool subscript(struct parser *p, struct node **n)
{
    struct node *item = around(p, NODE_ITEM, *n);
    if (item == NULL) return false;
    p->at++;
    *n = item;
    if (parser_is_op(p, "]")) return parser_fail(p, "expected an index");
    if (!slice_part(p, &item->b)) return false;
    if (parser_skip_op(p, ":")) {
        item->kind = NODE_SLICE;
        if (!slice_part(p, &item->c)) return false;
        if (parser_skip_op(p, ":") && !slice_part(p, &item->other)) return false;
    }
    return parser_expect_op(p, "]");
}

static bool attribute(struct parser *p, struct node **n)
{
    struct node *a = around(p, NODE_ATTR, *n);
    if (a == NULL) return false;
    p->at++;
    if (p->at->kind == LEX_NAME) {
        a->name = p->at++->s;
    } else if (p->at->kind == LEX_NUMBER && p->at->v.kind == VALUE_INT) { // a.0 is a[0]
        a->kind = NODE_ITEM;
        a->b = parser_node(p, NODE_CONST);
        if (a->b == NULL) return false;
        a->b->constant = p->at++->v;
    } else {
        return parser_fail(p, "expected an attribute's name");
    }
    *n = a;
    return true;
}

static bool call(struct parser *p, struct node **n)
{
    struct node *c = around(p, NODE_CALL, *n);
    if (c == NULL) return false;
    p->at++;
    *n = c;
    return items(p, ")", true, &c->items);
}

static bool postfix(struct parser *p, struct node **n)
{
    for (;;) {
        bool ok;
        if (parser_is_op(p, "."))
            ok = attribute(p, n);
        else if (parser_is_op(p, "["))
            ok = subscript(p, n);
        else if (parser_is_op(p, "("))
            ok = call(p, n);
        else
            return true;
        if (!ok) return false;
    }
}

static bool one_filter(struct parser *p, struct node **n)
{
    struct node *f = around(p, NODE_FILTER, *n);
    if (f == NULL) return false;
    if (p->at->kind != LEX_NAME) return parser_fail(p, "expected a filter's name");
    f->name = p->at++->s;
    f->builtin = jinja_filter_find(f->name);
    *n = f;
    return !parser_skip_op(p, "(") || items(p, ")", true, &f->items);
}

bool parser_filters(struct parser *p, struct node *inner, struct node **out)
{
    do {
        if (!one_filter(p, &inner)) return false;
    } while (parser_skip_op(p, "|"));
    *out = inner;
    return true;
}

// May the argument of "is test" follow without brackets here?
static bool at_test_argument(const struct parser *p)
{
    if (p->at->kind == LEX_NAME)
        return !parser_is_name(p, "else") && !parser_is_name(p, "or") &&
               !parser_is_name(p, "and") && !parser_is_name(p, "is") && !parser_is_name(p, "if") &&
               !parser_is_name(p, "in") && !parser_is_name(p, "not") &&
               !parser_is_name(p, "recursive");
    return p->at->kind == LEX_STRING || p->at->kind == LEX_NUMBER || parser_is_op(p, "[") ||
           parser_is_op(p, "{");
}

static bool test(struct parser *p, struct node **n)
{
    p->at++; // is
    bool negated = parser_skip_name(p, "not");
    struct node *t = around(p, NODE_TEST, *n);
    if (t == NULL) return false;
    if (p->at->kind != LEX_NAME) return parser_fail(p, "expected a test's name");
    t->name = p->at++->s;
    t->flag = negated;
    t->builtin = jinja_test_find(t->name);
    *n = t;
    if (parser_skip_op(p, "(")) return items(p, ")", true, &t->items);
    if (at_test_argument(p)) return primary(p, &t->items) && postfix(p, &t->items);
    return true;
}

static bool filters_and_tests(struct parser *p, struct node **n)
{
    for (;;) {
        bool ok;
        if (parser_skip_op(p, "|"))
            ok = one_filter(p, n);
        else if (parser_is_name(p, "is"))
            ok = test(p, n);
        else if (parser_is_op(p, "("))
            ok = call(p, n);
        else
            return true;
        if (!ok) return false;
    }
}

// ---- operators ------------------------------------------------------------------------------

static bool unary(struct parser *p, bool with_filter, struct node **out)
{
    bool ok;
    if (parser_is_op(p, "-") || parser_is_op(p, "+")) {
        struct node *n = parser_node(p, NODE_UNARY);
        if (n == NULL || !deeper(p)) return false;
        n->op = parser_is_op(p, "-") ? OP_SUB : OP_ADD;
        p->at++;
        ok = unary(p, false, &n->a);
        p->depth--;
        *out = n;
    } else {
        ok = primary(p, out);
    }
    if (!ok || !postfix(p, out)) return false;
    return !with_filter || filters_and_tests(p, out);
}

struct operator
{
    const char *text;
    enum node_op op;
};

// The operator at the current token among n of ops; NULL when it is none of them.
static const struct operator*
    operator_at(const struct parser *p, const struct operator* ops, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (parser_is_op(p, ops[i].text)) return &ops[i];
    return NULL;
}

// left op right op right, binding to the left.
static bool binary(struct parser *p, const struct operator* ops, size_t n_ops,
                   bool (*operand)(struct parser *p, struct node **out), struct node **out)
{
    const struct operator* o;
    if (!operand(p, out)) return false;
    while ((o = operator_at(p, ops, n_ops)) != NULL) {
        struct node *n = around(p, NODE_BINARY, *out);
        if (n == NULL) return false;
        n->op = o->op;
        p->at++;
        *out = n;
        if (!operand(p, &n->b)) return false;
    }
    return true;
}

static bool operand_unary(struct parser *p, struct node **out)
{
    return unary(p, true, out);
}

static bool power(struct parser *p, struct node **out)
{
    static const struct operator ops[] = {{"**", OP_POW}};
    return binary(p, ops, 1, operand_unary, out);
}

static bool product(struct parser *p, struct node **out)
{
    static const struct operator ops[] = {
        {"*", OP_MUL}, {"/", OP_DIV}, {"//", OP_FLOOR_DIV}, {"%", OP_MOD}};
    return binary(p, ops, 4, power, out);
}

static bool concat(struct parser *p, struct node **out)
{
    struct node *n, *last = NULL;
    if (!product(p, &n)) return false;
    *out = n;
    if (!parser_is_op(p, "~")) return true;
    struct node *all = parser_node(p, NODE_CONCAT);
    if (all == NULL) return false;
    chain(&all->items, &last, n);
    while (parser_skip_op(p, "~")) {
        if (!product(p, &n)) return false;
        chain(&all->items, &last, n);
    }
    *out = all;
    return true;
}

static bool sum(struct parser *p, struct node **out)
{
    static const struct operator ops[] = {{"+", OP_ADD}, {"-", OP_SUB}};
    return binary(p, ops, 2, concat, out);
}

// "in", "not in" and the comparing operators; moves behind it.
static bool comparison(struct parser *p, enum node_op *op)
{
    static const struct operator ops[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<", OP_LT},
                                          {"<=", OP_LE}, {">", OP_GT},  {">=", OP_GE}};
    const struct operator* o = operator_at(p, ops, 6);
    if (o != NULL) {
        *op = o->op;
        p->at++;
        return true;
    }
    if (parser_skip_name(p, "in")) {
        *op = OP_IN;
        return true;
    }
    if (parser_is_name(p, "not") && p->at[1].kind == LEX_NAME && str_eq(p->at[1].s, STR("in"))) {
        *op = OP_NOT_IN;
        p->at += 2;
        return true;
    }
    return false;
}

static bool compare(struct parser *p, struct node **out)
{
    struct node *all = NULL, *last = NULL;
    const struct lex_token *start = p->at;
    enum node_op op;
    if (!sum(p, out)) return false;
    while (comparison(p, &op)) {
        if (all == NULL) {
            all = around(p, NODE_COMPARE, *out);
            if (all == NULL) return false;
            all->line = start->line;
            all->column = start->column;
            *out = all;
        }
        struct node *n = parser_node(p, NODE_OPERAND);
        if (n == NULL) return false;
        n->op = op;
        if (!sum(p, &n->a)) return false;
        chain(&all->items, &last, n);
    }
    return true;
}

static bool expr_not(struct parser *p, struct node **out)
{
    if (!parser_is_name(p, "not")) return compare(p, out);
    struct node *n = parser_node(p, NODE_UNARY);
    if (n == NULL || !deeper(p)) return false;
    n->op = OP_NOT;
    p->at++;
    *out = n;
    bool ok = expr_not(p, &n->a);
    p->depth--;
    return ok;
}

static bool expr_and(struct parser *p, struct node **out)
{
    if (!expr_not(p, out)) return false;
    while (parser_is_name(p, "and")) {
        struct node *n = around(p, NODE_AND, *out);
        if (n == NULL) return false;
        p->at++;
        *out = n;
        if (!expr_not(p, &n->b)) return false;
    }
    return true;
}

static bool expr_or(struct parser *p, struct node **out)
{
    if (!expr_and(p, out)) return false;
    while (parser_is_name(p, "or")) {
        struct node *n = around(p, NODE_OR, *out);
        if (n == NULL) return false;
        p->at++;
        *out = n;
        if (!expr_and(p, &n->b)) return false;
    }
    return true;
}

bool parser_expression(struct parser *p, struct node **out)
{
    struct node *n;
    if (!deeper(p) || !expr_or(p, &n)) return false;
    while (parser_is_name(p, "if")) {
        struct node *choice = parser_node(p, NODE_IF_ELSE);
        if (choice == NULL) return false;
        p->at++;
        choice->b = n;
        n = choice;
        if (!expr_or(p, &choice->a)) return false;
        if (parser_skip_name(p, "else") && !parser_expression(p, &choice->c)) return false;
    }
    p->depth--;
    *out = n;
    return true;
}
