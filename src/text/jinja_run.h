// The interpreter's state and what its files share: evaluating (jinja_eval.c), statements
// (jinja_exec.c), operators (jinja_ops.c), built-in filters, tests, methods and functions.
//
// All values live in the render's arena and never change once made, except namespaces. Strings are
// views of the template, of the variables or of the arena. Every function that can fail returns
// false with the error set, position included.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "text/jinja_ast.h"
#include "text/value.h"

enum {
    RUN_MAX_STEPS = 10000000,   // nodes evaluated, and bytes handled / 64
    RUN_MAX_OUTPUT = 64u << 20, // bytes printed, those of captured blocks included
    RUN_MAX_DEPTH = 300,        // nodes and blocks inside each other, macro calls included
    RUN_MAX_ARGS = 6,
    RUN_SMALL_ARGS = 4,
};

struct var {
    struct str name;
    struct value v;
};

// Names that a block has set. Reading goes outwards, writing stays here.
struct scope {
    struct scope *parent;
    struct var *vars;
    size_t n, cap;
};

struct run {
    struct arena *arena;
    struct buf *out; // where printing goes now
    struct err *err;
    struct scope *scope;
    struct value vars;     // the caller's dict, below the outermost scope
    const struct node *at; // for messages
    struct value captured; // what NODE_CAPTURED stands for
    uint64_t n_steps, n_output;
    unsigned depth;
};

// Arguments of a call as written.
struct jinja_args {
    struct value small[RUN_SMALL_ARGS];
    struct value *p; // [n] small, or the arena's
    size_t n, cap;
    struct value named; // dict or undefined
};

// Arguments bound to a built-in's parameters; those not given are undefined.
struct jinja_call {
    struct value self; // the filtered value, the tested value, the method's object
    struct value args[RUN_MAX_ARGS];
    struct value *rest; // [n_rest] behind the parameters, where "*" allows them
    size_t n_rest;
    struct value named; // dict or undefined, where "**" allows them
};

typedef bool jinja_fn(struct run *r, const struct jinja_call *c, struct value *out);

struct jinja_builtin {
    const char *name;
    const char *params; // names by spaces; "*" at the end: any number more; "**": any names
    jinja_fn *fn;
};

struct loop {
    const struct node *node;
    const struct value *items; // [n]
    size_t n, i;
    int depth; // from 1
    struct value changed;
};

enum callable_kind { CALLABLE_BUILTIN, CALLABLE_MACRO, CALLABLE_LOOP };

struct callable {
    enum callable_kind kind;
    const struct jinja_builtin *builtin;
    struct value self;       // of a method
    const struct node *node; // NODE_MACRO, or NODE_CALL_BLOCK as caller()
    struct scope *scope;     // where the macro was written
    struct loop *loop;
};

// ---- jinja_eval.c ---------------------------------------------------------------------------

bool run_fail(struct run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool run_no_memory(struct run *r);
// Counts work that is not a node: n bytes or items.
bool run_charge(struct run *r, size_t n);
bool run_eval(struct run *r, const struct node *n, struct value *out);
bool run_attribute(struct run *r, struct value v, struct str name, struct value *out);
bool run_item(struct run *r, struct value v, struct value index, struct value *out);
// Follows "a.b.0" (of map, selectattr, sort ...): undefined when a step is missing.
bool run_path(struct run *r, struct value v, struct value path, struct value *out);
bool run_args_put(struct run *r, struct jinja_args *args, struct value v);
bool run_builtin(struct run *r, const struct jinja_builtin *b, struct value self,
                 const struct jinja_args *args, struct value *out);
bool run_call(struct run *r, struct value callee, const struct jinja_args *args, struct value *out);
bool run_new_callable(struct run *r, struct callable c, struct value *out);

// ---- jinja_exec.c ---------------------------------------------------------------------------

bool run_set(struct run *r, struct scope *s, struct str name, struct value v);
bool run_macro(struct run *r, const struct callable *c, const struct jinja_args *args,
               struct value *out);
bool run_loop_again(struct run *r, const struct loop *l, struct value iterable, struct value *out);
bool run_statements(struct run *r, const struct node *first);

// ---- jinja_ops.c ----------------------------------------------------------------------------

const char *ops_type(struct value v); // as Python names it: "str", "int", ...
bool ops_is_number(struct value v);   // int, float, bool
double ops_double(struct value v);    // of a number
// Counts its steps: once there are too many, the result means nothing and the next charge fails.
bool ops_equal(struct run *r, struct value a, struct value b);
bool ops_compare(struct run *r, struct value a, struct value b, int *out);
bool ops_in(struct run *r, struct value needle, struct value hay, bool *out);
bool ops_binary(struct run *r, enum node_op op, struct value a, struct value b, struct value *out);
bool ops_slice(struct run *r, struct value v, const struct value bounds[3], struct value *out);
// The items of a list, the keys of a dict, the characters of a string, nothing for undefined.
bool ops_items(struct run *r, struct value v, struct value_list *out);
bool ops_length(struct run *r, struct value v, int64_t *out);
// str(v). A string is its own view.
bool ops_str(struct run *r, struct value v, struct str *out);
// Takes b: its text becomes a value in the arena, b is freed.
bool ops_take(struct run *r, struct buf *b, struct value *out);
bool ops_integer(struct run *r, struct value v, const char *what, int64_t *out);
bool ops_string(struct run *r, struct value v, const char *what, struct str *out);
bool ops_append(struct run *r, struct value list, struct value v);
bool ops_new_list(struct run *r, struct value *out);
bool ops_pair(struct run *r, struct value a, struct value b, struct value *out); // [a, b]

// ---- jinja_format.c -------------------------------------------------------------------------

// "%s and %d" % values
bool format_percent(struct run *r, struct str f, const struct value *p, size_t n,
                    struct value *out);
// "{} and {name}".format(...)
bool format_braces(struct run *r, struct str f, const struct jinja_call *c, struct value *out);

// ---- the built-ins: NULL when there is none of that name ------------------------------------

const struct jinja_builtin *jinja_filter_find(struct str name);      // jinja_filters.c
const struct jinja_builtin *jinja_list_filter_find(struct str name); // jinja_filters_list.c
const struct jinja_builtin *jinja_test_find(struct str name);        // jinja_tests.c
const struct jinja_builtin *jinja_method_find(struct value self,
                                              struct str name); // jinja_methods.c
const struct jinja_builtin *jinja_global_find(struct str name); // jinja_globals.c
const struct jinja_builtin *jinja_table_find(const struct jinja_builtin *table, size_t n,
                                             struct str name); // jinja_eval.c
