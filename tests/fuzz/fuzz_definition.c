// subminds/NAME.md from anywhere: it is read or refused with its path, never a crash; what was read
// can be filled in with its own defaults, and what it is due at can be computed.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/definition.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_calendar(const struct calendar *c)
{
    struct buf text = {0};
    int64_t next = calendar_next(c, 1700000000);
    if (next >= 0 && next <= 1700000000) abort();
    for (int i = 0; i < c->n_rules; i++) {
        struct calendar again;
        struct err e = {0};
        buf_clear(&text);
        calendar_print(c, i, &text); // the normal form is a form
        if (!calendar_parse(&again, buf_view(&text), &e) && strstr(e.msg, "never") == NULL) abort();
    }
    buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct definition d;
    struct err e = {0};
    struct str text = {(const char *)data, n};
    const char *values[DEFINITION_INPUTS];
    if (n > 20000) return 0;
    if (definition_parse(&d, text, "/w", "f", "f", &e)) {
        struct buf task = {0}, json = {0};
        for (size_t i = 0; i < DEFINITION_INPUTS; i++)
            values[i] = i < d.n_inputs && d.inputs[i].value != NULL ? d.inputs[i].value : "x";
        definition_fill(&d, values, &task, &json);
        for (size_t i = 0; i < d.n_schedules; i++) check_calendar(&d.schedules[i]);
        if (json.n < 2 || json.p[json.n - 1] != '}') abort();
        buf_free(&task);
        buf_free(&json);
        definition_close(&d);
    } else if (strncmp(e.msg, "f:", 2) != 0 && e.code != ERR_MEMORY) {
        abort();
    }
    return 0;
}
