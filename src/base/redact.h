// Keeps secrets out of text: every secret in the forms in which it travels (as it is, escaped in
// JSON or HTML, percent-encoded, in hex with or without separators, in base64 at any alignment, each
// also with line breaks in it) becomes "[secret NAME]".
//
// Not found: a secret that was transformed in other ways (reversed, encrypted, spelt out).
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

enum { SECRET_MIN_BYTES = 6 }; // shorter ones could not be told from other text

struct redact_pattern {
    char *text; // owned
    size_t n;
    bool base64;                    // escaped line breaks may stand in it too
    bool hex;                       // separators may stand in it
    bool spills_left, spills_right; // a neighbouring character holds some bits of it
    char *name;                     // owned
};

// Starts as {0}. After the last add it is only read, by any number of threads.
struct redactor {
    struct redact_pattern *patterns;
    size_t n;
    bool starts[256]; // bytes that begin a pattern
};

// Both copied. Of a secret of several lines each long line is one too. ERR_INPUT when it is too
// short.
bool redactor_add(struct redactor *r, const char *name, struct str secret, struct err *e);
void redactor_free(struct redactor *r);

// In place. Text that could not be redacted for want of memory is emptied and marked failed.
void redact_text(const struct redactor *r, struct buf *text);
// The same for text that was cut off: begins or ends in the middle of something, so that a part of
// a secret at that edge goes too.
void redact_cut(const struct redactor *r, struct buf *text, bool cut_start, bool cut_end);
// The same for a fixed buffer with a NUL (an error's message), cut to its size.
void redact_line(const struct redactor *r, char *line, size_t size);
