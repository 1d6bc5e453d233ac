// The tree that the parser makes of a template and the interpreter walks. Immutable once parsed.
// Which fields a kind uses stands beside it; lists are chained through `next`.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "text/value.h"

enum node_kind {
    // statements
    NODE_TEXT,      // name: the text
    NODE_PRINT,     // a
    NODE_IF,        // a: condition, body, other: else (or one NODE_IF for elif)
    NODE_FOR,       // target, a: iterable, b: condition or NULL, body, other: else, flag: recursive
    NODE_SET,       // target, a
    NODE_SET_BLOCK, // target, body, a: filters around NODE_CAPTURED, or NULL
    NODE_MACRO,     // name, items: NODE_PARAM, body
    NODE_CALL_BLOCK,   // a: NODE_CALL, items: NODE_PARAM of caller(), body
    NODE_FILTER_BLOCK, // a: filters around NODE_CAPTURED, body
    NODE_WITH,         // items: NODE_SET, body
    NODE_SCOPE,        // body, in a scope of its own
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_DO, // a
    // expressions
    NODE_CONST,    // constant
    NODE_NAME,     // name
    NODE_LIST,     // items; also tuples and targets "a, b"
    NODE_DICT,     // items: key, value, key, value ...
    NODE_ATTR,     // a.name
    NODE_ITEM,     // a[b]
    NODE_SLICE,    // a[b:c:other], each of them may be NULL
    NODE_CALL,     // a(items)
    NODE_FILTER,   // a | name(items), builtin
    NODE_TEST,     // a is name(items), flag: is not, builtin
    NODE_UNARY,    // op OP_SUB, OP_ADD, OP_NOT: a
    NODE_AND,      // a, b
    NODE_OR,       // a, b
    NODE_IF_ELSE,  // b if a else c (c may be NULL)
    NODE_BINARY,   // op, a, b
    NODE_COMPARE,  // a, items: NODE_OPERAND
    NODE_CONCAT,   // items: a ~ b ~ c
    NODE_CAPTURED, // the text of the block around it
    // parts of the above
    NODE_OPERAND,   // op, a
    NODE_PARAM,     // name, a: default or NULL
    NODE_NAMED_ARG, // name = a
    NODE_STAR_ARG,  // *a
    NODE_STARS_ARG, // **a
};

enum node_op {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOOR_DIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN,
    OP_NOT
};

struct jinja_builtin;

struct node {
    enum node_kind kind;
    enum node_op op;
    bool flag;
    uint32_t line, column;
    struct str name;
    struct value constant;
    struct node *a, *b, *c;
    struct node *target, *items, *body, *other;
    struct node *next;
    const struct jinja_builtin *builtin; // NULL: no filter or test of that name
};
