// Errors as values: a code from err.def and a message that says what went wrong and what to do.
// Functions that can fail return bool and take a struct err; false means that it is filled,
// outputs are untouched and nothing leaked. The first error wins; callers may prefix it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum err_code {
#define ERR(id, name, http, exit_code) ERR_##id,
#include "base/err.def"
#undef ERR
    ERR_COUNT
};

struct err {
    enum err_code code;
    uint32_t retry_after_ms; // for ERR_FULL and ERR_LOADING: when to come again; 0 = not known
    char msg[500];
};

// Fills e unless it already holds an error; e may be NULL. Always returns false, so that a failing
// function ends with `return err_set(e, ...)`.
bool err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// As err_set, with ": strerror(errno)" behind the text.
bool err_errno(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// Puts text in front of the message of an error that is set; returns false.
bool err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const char *err_name(enum err_code code);
int err_http_status(enum err_code code);
int err_exit_code(enum err_code code);
