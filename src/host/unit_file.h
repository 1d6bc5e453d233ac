// systemd's unit files: reading what somebody wrote, and quoting what we write. The rules are those of
// systemd.syntax(7) and systemd.service(5), "Command lines".
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "host/cmdline.h"
#include "host/unit_env.h"

enum { UNIT_MAX_BYTES = 1 << 20 };

// What specifiers and variables stand for. NULL: % or $ mean nothing and stay as they are.
struct unit_scope {
    const char *specifiers[128]; // by letter, NULL for those that are not supported
    bool has_specifiers;
    struct unit_env *env;
};

// Fills in what a unit of this name sees: %h %t %n %N %p %i %I %S %C %E %T. unit may be NULL.
void unit_scope_names(struct unit_scope *s, const char *unit, bool system, const char *home,
                      const char *runtime, struct arena *a);

struct unit_entry {
    struct str section, key, value; // in the arena; continuation lines are joined by a space
};

struct unit_file {
    struct unit_entry *entries;
    size_t n;
};

// Reads the text of a unit, or of several joined (`systemctl cat`). Lines that are no "Key=value" are
// ERR_FORMAT with their number.
bool unit_parse(struct unit_file *out, struct str text, struct arena *a, struct err *e);
bool unit_is_key(const struct unit_entry *t, const char *section, const char *key);
// The last value of a key that counts: an empty assignment resets what stood before. Empty when absent.
struct str unit_value(const struct unit_file *u, const char *section, const char *key);
// The words of a command line: quotes, escapes, specifiers, and variables as systemd has them: ${NAME} anywhere,
// $NAME as a word of its own, which becomes as many words as its value has.
bool unit_command(struct str line, const struct unit_scope *scope, struct cmdline *out,
                  struct err *e);
// Specifiers and ${NAME} of one text, appended.
bool unit_expand(const struct unit_scope *scope, struct str text, struct buf *out, struct err *e);
// The next word of a line from *at on, without its quotes and escapes; false at the end, or with e set.
bool unit_next_word(struct str line, size_t *at, struct buf *word, bool *quoted, struct err *e);
// Appends a word so that systemd reads it back as it is.
void unit_quote(struct buf *out, const char *word);
