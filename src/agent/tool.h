// What the model may call. A tool is a row: name, description, JSON schema of its parameters, and a
// function. Which tools there are stands in tool_set.h.
#pragma once

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

// What a sub-mind said of its task with the tool `report`.
enum report_status { REPORT_NONE, REPORT_OK, REPORT_ATTENTION, REPORT_FAILED, REPORT_STATUSES };
const char *report_status_name(enum report_status s); // "none", "ok", "attention", "failed"

// One call's outcome. text goes to the model; the rest goes to the record.
struct tool_result {
    struct buf text;    // owned
    struct buf detail;  // what was done, in one line ("systemctl is-active mosquitto"), owned
    struct buf log;     // what a server wrote on its standard error meanwhile, owned
    bool refused;       // not allowed, or arguments that make no sense: nothing ran
    bool could_not_run; // it never started, timed out, or was killed
    bool failed;        // refused, could not run, or ended with another exit code than 0
    bool repeatable;    // to do it again does no harm
    bool has_exit_code;
    int exit_code;
    uint32_t n_strays; // processes it left behind
    double ms;
    enum report_status report; // not REPORT_NONE: the run ends with this call
    struct buf data;           // what report gave beside its summary, JSON, owned
};

void tool_result_free(struct tool_result *r);
// Marks r as refused (nothing ran) or failed, with "Error: " and the message as its text.
void tool_refuse(struct tool_result *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tool_fail(struct tool_result *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct tool_limits {
    uint32_t timeout_ms;      // what is left of the run; 0 = none
    const atomic_int *cancel; // non-zero: stop at once; may be NULL
};

struct tool {
    const char *name;
    const char *description;
    const char *parameters; // a JSON schema, as the model sees it
    const char *accepts;    // a wider one that the arguments are checked against; NULL = parameters
    bool repeatable;        // each call of it may be made again; else the call's result says so
    void *arg;
    // args is an object. Failures are results, not errors: the model hears of them. False only
    // where the run cannot go on (no memory).
    bool (*run)(void *arg, json_t *args, const struct tool_limits *limits, struct tool_result *out,
                struct err *e);
};
