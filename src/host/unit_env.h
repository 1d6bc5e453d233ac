// The variables that a unit gives its program: Environment= and EnvironmentFile=, as systemd.exec(5) has them.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

struct unit_file;
struct unit_scope;

enum { UNIT_NAME_BYTES = 128 };

struct unit_variable {
    const char *name, *value;
    bool used; // somebody asked for it
};

// Starts as {.arena = a}. failed is set when there was no memory.
struct unit_env {
    struct arena *arena;
    struct unit_variable *v;
    size_t n, cap;
    bool failed;
};

void unit_env_set(struct unit_env *env, struct str name, struct str value);
// NULL when it is not set. Marks it as used.
const char *unit_env_get(struct unit_env *env, const char *name);
// "NAME=value" as one text; others are no assignment and false.
bool unit_env_assign(struct unit_env *env, struct str text);
// Environment= first, then the files, so that these win. A file that is missing is ERR_NOT_FOUND unless a
// "-" stands before its path. scope: for specifiers in them.
bool unit_env_read(struct unit_env *env, const struct unit_file *u, const struct unit_scope *scope,
                   struct err *e);
// A file of podman's --env-file: one NAME=value a line, quotes are part of the value.
bool unit_env_plain_file(struct unit_env *env, const char *path, struct err *e);
