// submind.yaml from anywhere: it is read or refused with a line, never a crash. Rules that were
// read are matched against words of the same text, and a command that is printed splits into the
// same words again.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/workspace_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_words(const struct allow_list *rules, struct str text)
{
    struct words w = {0}, again = {0};
    struct buf line = {0};
    struct err e = {0};
    if (words_split(&w, text, &e)) {
        words_print(&w, &line);
        struct err e2 = {0};
        if (!words_split(&again, buf_view(&line), &e2) || again.n != w.n) abort();
        for (size_t i = 0; i < w.n; i++)
            if (strcmp(w.p[i], again.p[i]) != 0) abort();
        if (allow_find(rules, &w) == SIZE_MAX) allow_refuse(rules, &w, &e);
    }
    words_free(&w);
    words_free(&again);
    buf_free(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct workspace_config c;
    struct err e = {0};
    struct str text = {(const char *)data, n};
    static const struct allow_list none;
    if (n > 20000) return 0;
    if (workspace_config_parse(&c, text, "/w", "f", &e)) {
        for (size_t i = 0; i < c.exec.allow.n; i++) // a rule without stars matches itself
            if (c.exec.allow.rules[i].patterns.n == 0) abort();
        check_words(&c.exec.allow, text);
        workspace_config_close(&c);
    } else if (strncmp(e.msg, "f:", 2) != 0 && e.code != ERR_MEMORY) {
        abort();
    }
    check_words(&none, text);
    return 0;
}
