// systemd's unit files: reading what somebody wrote, and quoting what we write. The rules are those of
// systemd.syntax(7) and systemd.service(5), "Command lines".
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "host/cmdline.h"

enum { UNIT_MAX_BYTES = 1 << 20 };

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
// The last value of a key that counts: an empty assignment resets what stood before. Empty when absent.
struct str unit_value(const struct unit_file *u, const char *section, const char *key);
// The words of a command line: quotes, escapes, the specifiers %h %t %u %%, and $NAME or ${NAME} from the
// unit's Environment= lines. *prefix receives the characters in front of the program (-, @, +, !, :).
bool unit_command(const struct unit_file *u, struct str line, const char *home, const char *runtime,
                  struct cmdline *out, struct err *e);
// Value of NAME in the unit's Environment= lines; NULL when it is not there.
const char *unit_environment(const struct unit_file *u, const char *name, struct arena *a);
// Appends a word so that systemd reads it back as it is.
void unit_quote(struct buf *out, const char *word);
