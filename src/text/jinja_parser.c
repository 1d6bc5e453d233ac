// Statements. The grammar is Jinja 3's, with the extensions that transformers switches on
// (break, continue, generation) and without those a chat template cannot use (include, import,
// extends, block).
#include "text/jinja_parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool parser_fail(struct parser *p, const char *fmt, ...)
{
    char what[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(p->err, ERR_FORMAT, "template line %u column %u: %s", p->at->line, p->at->column,
                   what);
}

bool parser_is_name(const struct parser *p, const char *word)
{
    return p->at->kind == LEX_NAME && str_eq(p->at->s, str_from(word));
}

bool parser_is_op(const struct parser *p, const char *op)
{
    return p->at->kind == LEX_OP && str_eq(p->at->s, str_from(op));
}

bool parser_skip_name(struct parser *p, const char *word)
{
    if (!parser_is_name(p, word)) return false;
    p->at++;
    return true;
}

bool parser_skip_op(struct parser *p, const char *op)
{
    if (!parser_is_op(p, op)) return false;
    p->at++;
    return true;
}

bool parser_expect_op(struct parser *p, const char *op)
{
    return parser_skip_op(p, op) || parser_fail(p, "expected '%s'", op);
}

struct node *parser_node(struct parser *p, enum node_kind kind)
{
    struct node *n = arena_alloc(p->arena, sizeof *n);
    if (n == NULL) {
        err_set(p->err, ERR_MEMORY, "out of memory while reading a chat template");
        return NULL;
    }
    n->kind = kind;
    n->line = p->at->line;
    n->column = p->at->column;
    return n;
}

static bool close_tag(struct parser *p)
{
    if (p->at->kind != LEX_CLOSE) return parser_fail(p, "expected the end of the tag");
    p->at++;
    return true;
}

// Is the current token "{%" and the word behind it one of the words in ends (by spaces)?
static bool at_end(const struct parser *p, const char *ends)
{
    if (p->at->kind != LEX_BLOCK || p->at[1].kind != LEX_NAME) return false;
    struct str word = p->at[1].s;
    for (const char *e = ends; *e != '\0'; e += *e == ' ') {
        size_t n = strcspn(e, " ");
        if (str_eq(word, (struct str){e, n})) return true;
        e += n;
        if (*e == '\0') break;
    }
    return false;
}

static bool statement(struct parser *p, struct node **out);

// Statements up to "{% word", where ends holds the words; stands at the word afterwards.
// With ends == NULL up to the end of the template.
static bool body(struct parser *p, const char *ends, struct node **out)
{
    struct node *first = NULL;
    struct node *last = NULL;
    const struct lex_token *open = p->at;
    if (++p->depth > PARSER_MAX_DEPTH) return parser_fail(p, "nested deeper than 100 levels");
    while (p->at->kind != LEX_END && (ends == NULL || !at_end(p, ends))) {
        struct node *n = NULL;
        if (!statement(p, &n)) return false;
        if (last != NULL)
            last->next = n;
        else
            first = n;
        last = n;
    }
    if (p->at->kind == LEX_END && ends != NULL) {
        p->at = open;
        return parser_fail(p, "this block is never closed: expected '%s'", ends);
    }
    if (ends != NULL) p->at++; // the "{%"
    p->depth--;
    *out = first;
    return true;
}

// The body, then the end tag.
static bool body_to(struct parser *p, const char *end, struct node **out)
{
    if (!body(p, end, out)) return false;
    p->at++; // the word
    return close_tag(p);
}

static bool parse_if(struct parser *p, struct node *n)
{
    for (;;) {
        p->at++; // if, elif
        if (!parser_expression(p, &n->a) || !close_tag(p) || !body(p, "elif else endif", &n->body))
            return false;
        if (!parser_is_name(p, "elif")) break;
        n->other = parser_node(p, NODE_IF);
        if (n->other == NULL) return false;
        n = n->other;
    }
    if (parser_skip_name(p, "else")) return close_tag(p) && body_to(p, "endif", &n->other);
    p->at++; // endif
    return close_tag(p);
}

static bool parse_for(struct parser *p, struct node *n)
{
    p->at++;
    if (!parser_target(p, &n->target)) return false;
    if (!parser_skip_name(p, "in")) return parser_fail(p, "expected 'in'");
    if (!parser_tuple(p, false, &n->a)) return false;
    if (parser_skip_name(p, "if") && !parser_expression(p, &n->b)) return false;
    n->flag = parser_skip_name(p, "recursive");
    if (!close_tag(p) || !body(p, "else endfor", &n->body)) return false;
    if (parser_skip_name(p, "else")) return close_tag(p) && body_to(p, "endfor", &n->other);
    p->at++;
    return close_tag(p);
}

static bool parse_set(struct parser *p, struct node *n)
{
    p->at++;
    if (!parser_target(p, &n->target)) return false;
    if (parser_skip_op(p, "=")) return parser_tuple(p, true, &n->a) && close_tag(p);
    n->kind = NODE_SET_BLOCK;
    if (parser_skip_op(p, "|")) {
        struct node *captured = parser_node(p, NODE_CAPTURED);
        if (captured == NULL || !parser_filters(p, captured, &n->a)) return false;
    }
    return close_tag(p) && body_to(p, "endset", &n->body);
}

// "(a, b=1)"
static bool params(struct parser *p, struct node **out)
{
    struct node *last = NULL;
    if (!parser_expect_op(p, "(")) return false;
    while (!parser_is_op(p, ")")) {
        struct node *n = parser_node(p, NODE_PARAM);
        if (n == NULL) return false;
        if (last != NULL && !parser_expect_op(p, ",")) return false;
        if (last != NULL && parser_is_op(p, ")")) break;
        if (p->at->kind != LEX_NAME) return parser_fail(p, "expected a parameter's name");
        n->name = p->at++->s;
        if (parser_skip_op(p, "=") && !parser_expression(p, &n->a)) return false;
        if (last != NULL)
            last->next = n;
        else
            *out = n;
        last = n;
    }
    return parser_expect_op(p, ")");
}

static bool parse_macro(struct parser *p, struct node *n)
{
    p->at++;
    if (p->at->kind != LEX_NAME) return parser_fail(p, "expected the macro's name");
    n->name = p->at++->s;
    return params(p, &n->items) && close_tag(p) && body_to(p, "endmacro", &n->body);
}

static bool parse_call(struct parser *p, struct node *n)
{
    p->at++;
    if (parser_is_op(p, "(") && !params(p, &n->items)) return false;
    if (!parser_expression(p, &n->a)) return false;
    if (n->a->kind != NODE_CALL) return parser_fail(p, "expected a call, such as name(...)");
    return close_tag(p) && body_to(p, "endcall", &n->body);
}

static bool parse_filter(struct parser *p, struct node *n)
{
    struct node *captured = parser_node(p, NODE_CAPTURED);
    p->at++;
    return captured != NULL && parser_filters(p, captured, &n->a) && close_tag(p) &&
           body_to(p, "endfilter", &n->body);
}

static bool parse_with(struct parser *p, struct node *n)
{
    struct node *last = NULL;
    p->at++;
    while (p->at->kind != LEX_CLOSE) {
        if (last != NULL && !parser_expect_op(p, ",")) return false;
        struct node *set = parser_node(p, NODE_SET);
        if (set == NULL || !parser_target(p, &set->target) || !parser_expect_op(p, "=") ||
            !parser_expression(p, &set->a))
            return false;
        if (last != NULL)
            last->next = set;
        else
            n->items = set;
        last = set;
    }
    return close_tag(p) && body_to(p, "endwith", &n->body);
}

static bool parse_generation(struct parser *p, struct node *n)
{
    p->at++;
    return close_tag(p) && body_to(p, "endgeneration", &n->body);
}

static bool parse_word(struct parser *p, struct node *n)
{
    (void)n;
    p->at++;
    return close_tag(p);
}

static bool parse_do(struct parser *p, struct node *n)
{
    p->at++;
    return parser_tuple(p, true, &n->a) && close_tag(p);
}

static bool block(struct parser *p, struct node **out)
{
    static const struct {
        const char *word;
        enum node_kind kind;
        bool (*parse)(struct parser *p, struct node *n); // stands at the word
    } blocks[] = {
        {"if", NODE_IF, parse_if},
        {"for", NODE_FOR, parse_for},
        {"set", NODE_SET, parse_set},
        {"macro", NODE_MACRO, parse_macro},
        {"call", NODE_CALL_BLOCK, parse_call},
        {"filter", NODE_FILTER_BLOCK, parse_filter},
        {"with", NODE_WITH, parse_with},
        {"generation", NODE_SCOPE, parse_generation},
        {"break", NODE_BREAK, parse_word},
        {"continue", NODE_CONTINUE, parse_word},
        {"do", NODE_DO, parse_do},
    };
    p->at++; // {%
    if (p->at->kind != LEX_NAME) return parser_fail(p, "expected a tag's name behind '{%%'");
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        if (!parser_is_name(p, blocks[i].word)) continue;
        struct node *n = parser_node(p, blocks[i].kind);
        *out = n;
        return n != NULL && blocks[i].parse(p, n);
    }
    return parser_fail(p,
                       "unknown tag '%.*s'; known are if, for, set, macro, call, filter, with, "
                       "generation, raw, break, continue, do",
                       (int)(p->at->s.n < 40 ? p->at->s.n : 40), p->at->s.p);
}

static bool statement(struct parser *p, struct node **out)
{
    if (p->at->kind == LEX_BLOCK) return block(p, out);
    struct node *n = parser_node(p, p->at->kind == LEX_TEXT ? NODE_TEXT : NODE_PRINT);
    if (n == NULL) return false;
    *out = n;
    if (n->kind == NODE_TEXT) {
        n->name = p->at++->s;
        return true;
    }
    p->at++; // {{
    return parser_tuple(p, true, &n->a) && close_tag(p);
}

bool jinja_parse(struct node **out, struct lex_tokens tokens, struct arena *a, struct err *e)
{
    struct parser p = {.at = tokens.p, .arena = a, .err = e};
    return body(&p, NULL, out);
}
