// The error list as a table, and the three ways to fill a struct err.
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int http, exit_code;
} err_table[ERR_COUNT] = {
#define ERR(id, name, http, exit_code) [ERR_##id] = {name, http, exit_code},
#include "base/err.def"
#undef ERR
};

__attribute__((format(printf, 3, 0))) static bool fill(struct err *e, enum err_code code,
                                                       const char *fmt, va_list ap)
{
    if (e == NULL || e->code != ERR_NONE) return false;
    e->code = code;
    e->retry_after_ms = 0;
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    return false;
}

bool err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fill(e, code, fmt, ap);
    va_end(ap);
    return false;
}

bool err_errno(struct err *e, enum err_code code, const char *fmt, ...)
{
    int saved = errno;
    if (e == NULL || e->code != ERR_NONE) return false;
    va_list ap;
    va_start(ap, fmt);
    fill(e, code, fmt, ap);
    va_end(ap);
    size_t n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, ": %s", strerror(saved));
    return false;
}

bool err_prefix(struct err *e, const char *fmt, ...)
{
    if (e == NULL || e->code == ERR_NONE) return false;
    char old[sizeof e->msg];
    memcpy(old, e->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    size_t n = strlen(e->msg);
    snprintf(e->msg + n, sizeof e->msg - n, "%s", old);
    return false;
}

const char *err_name(enum err_code code)
{
    return err_table[code].name;
}
int err_http_status(enum err_code code)
{
    return err_table[code].http;
}
int err_exit_code(enum err_code code)
{
    return err_table[code].exit_code;
}
