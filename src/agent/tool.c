// Results of tools: how a refusal and a failure are told.
#include "agent/tool.h"

#include <stdarg.h>
#include <stdio.h>

const char *report_status_name(enum report_status s)
{
    static const char *const names[REPORT_STATUSES] = {"none", "ok", "attention", "failed"};
    return names[s];
}

void tool_result_free(struct tool_result *r)
{
    buf_free(&r->text);
    buf_free(&r->detail);
    buf_free(&r->log);
    buf_free(&r->data);
    *r = (struct tool_result){0};
}

__attribute__((format(printf, 2, 0))) static void put_error(struct tool_result *r, const char *fmt,
                                                            va_list ap)
{
    char text[1000];
    vsnprintf(text, sizeof text, fmt, ap);
    r->failed = r->could_not_run = true;
    buf_clear(&r->text);
    buf_printf(&r->text, "Error: %s", text);
}

void tool_refuse(struct tool_result *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put_error(r, fmt, ap);
    va_end(ap);
    r->refused = true;
}

void tool_fail(struct tool_result *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put_error(r, fmt, ap);
    va_end(ap);
}
