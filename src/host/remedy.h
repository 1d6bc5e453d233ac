// Remedies by name: the text of facts.def for a distribution, with this machine's values in it.
#pragma once

#include "host/doctor.h"

enum remedy_kind {
    USER,    // a command for the user
    SUDO,    // changes the system, counts at once
    REBOOT,  // changes the system, counts after a reboot
    BY_HAND, // nothing a script can do
    AT_BOOT, // changes the kernel's command line; counts after a reboot
};

// Replaces {gib}, {pages} and the others that facts.def names in its head.
void remedy_expand(const struct doctor *d, const char *text, struct buf *out);
// Writes out what [K], [L] ... stand for.
void remedy_sources(const char *text, struct buf *out);
// The remedy's text; its kind is the result. A name that facts.def does not have is our own error.
enum remedy_kind remedy_text(const struct doctor *d, const char *name, struct buf *out);
// One change of the kernel's command line that holds all those of the named remedies, or takes it back: AT_BOOT
// for commands, BY_HAND where a person has to make it.
enum remedy_kind remedy_boot(const struct doctor *d, const char *const *names, size_t n, bool back,
                             struct buf *out);
// How a remedy is taken back; false when it cannot be (it has no UNDO row).
bool remedy_undo(const struct doctor *d, const char *name, struct buf *out);
