// Tokens -> tree. Statements are in jinja_parser.c, expressions in jinja_parser_expr.c.
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

struct parser {
    const struct lex_token *at; // never behind LEX_END
    struct arena *arena;
    struct err *err;
    unsigned depth; // of statements and expressions together
};

// The whole template as a chain of statements (NULL for an empty one).
bool jinja_parse(struct node **out, struct lex_tokens tokens, struct arena *a, struct err *e);

// ---- between the two files ------------------------------------------------------------------

enum { PARSER_MAX_DEPTH = 100 };

bool parser_fail(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool parser_is_name(const struct parser *p, const char *word);
bool parser_is_op(const struct parser *p, const char *op);
bool parser_skip_name(struct parser *p, const char *word); // true when it was there
bool parser_skip_op(struct parser *p, const char *op);
bool parser_expect_op(struct parser *p, const char *op);
// A node at the current token; NULL when out of memory.
struct node *parser_node(struct parser *p, enum node_kind kind);

bool parser_expression(struct parser *p, struct node **out);
// "a, b, c" without brackets is a list. with_if: may "x if y" appear at its top?
bool parser_tuple(struct parser *p, bool with_if, struct node **out);
// What may stand left of "=" or "in": a name, names with commas, or namespace.attribute.
bool parser_target(struct parser *p, struct node **out);
// "filter | filter" around inner; the first "|" is behind us.
bool parser_filters(struct parser *p, struct node *inner, struct node **out);
