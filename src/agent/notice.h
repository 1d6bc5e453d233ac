// Tells somebody how a run ended: a command, a line in a file, a webhook, the desktop. Quiet when
// all is well, unless the definition asks for more.
#pragma once

#include "agent/definition.h"
#include "agent/turns.h"

struct notice {                      // all borrowed
    const char *name, *id, *outcome; // of the run
    struct str status;               // of the tool `report`: ok, attention, failed or empty
    struct str report, reason, stage;
    bool failed;
};

bool notice_wanted(const struct notify_spec *s, const struct notice *n);
// Does everything that the definition asks for; what went wrong is in said, what was done too:
// "command: done; webhook: status 500". environment is NULL-terminated, dir where commands run.
// False when a part of it failed.
bool notice_send(const struct notify_spec *s, const struct notice *n,
                 const char *const *environment, const char *dir, struct buf *said);
