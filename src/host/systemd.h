// systemctl and its relatives, found by PATH: what a service asks of the machine.
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

struct systemd {
    bool system;                    // the system's manager, not the user's
    const char *path;               // PATH
    const char *const *environment; // of the programs
};

// Runs `systemctl [--user] VERB UNIT` (unit may be NULL) to its end. False with the program's last words;
// ERR_NOT_FOUND when there is no systemctl.
bool systemd_do(const struct systemd *s, const char *verb, const char *unit, struct err *e);
// `systemctl show -P PROPERTY UNIT`, trimmed, appended to out.
bool systemd_property(const struct systemd *s, const char *unit, const char *property,
                      struct buf *out, struct err *e);
// `systemctl cat UNIT`: the unit with its drop-ins.
bool systemd_cat(const struct systemd *s, const char *unit, struct buf *out, struct err *e);
// The last lines of the unit's journal; nothing when there is no journalctl.
void systemd_journal(const struct systemd *s, const char *unit, unsigned n_lines, struct buf *out);
// May an unprivileged process have name spaces of its own? Without them a user's manager can sandbox no files.
bool systemd_name_spaces(void);
