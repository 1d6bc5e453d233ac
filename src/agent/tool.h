// What the model may call. A tool is a row: name, description, JSON schema of its parameters, and a
// function. The loop knows tools only through this.
#pragma once

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

// One call's outcome. text goes to the model; the rest goes to the record.
struct tool_result {
    struct buf text;    // owned
    struct buf detail;  // what was done, in one line ("systemctl is-active mosquitto"), owned
    bool refused;       // not allowed, or arguments that make no sense: nothing ran
    bool could_not_run; // it never started, timed out, or was killed
    bool failed;        // refused, could not run, or ended with another exit code than 0
    bool has_exit_code;
    int exit_code;
    uint32_t n_strays; // processes it left behind
    double ms;
};

void tool_result_free(struct tool_result *r);

struct tool_limits {
    uint32_t timeout_ms;      // what is left of the run; 0 = none
    const atomic_int *cancel; // non-zero: stop at once; may be NULL
};

struct tool {
    const char *name;
    const char *description;
    const char *parameters; // a JSON schema
    void *arg;
    // args is an object. Failures are results, not errors: the model hears of them. False only
    // where the run cannot go on (no memory).
    bool (*run)(void *arg, json_t *args, const struct tool_limits *limits, struct tool_result *out,
                struct err *e);
};

struct tools {
    const struct tool *list; // borrowed
    size_t n;
};

const struct tool *tools_find(const struct tools *t, struct str name); // NULL when there is none
// Appends the "tools" array of a chat request.
void tools_json(const struct tools *t, struct buf *out);
