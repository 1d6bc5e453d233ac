// A definition's schedule as systemd units (systemd.timer(5), systemd.service(5)): a timer, the
// service that it starts, and one that is started when the service fails, so that also a run that
// was killed is told of. Texts and files only; nothing here talks to systemd.
#pragma once

#include "agent/definition.h"

enum { SCHEDULE_FILES = 3, SCHEDULE_CHANGES_MAX = 3 * 1000 };

struct schedule_place {    // all borrowed
    const char *program;   // this program, absolute
    const char *workspace; // absolute
    const char *state_dir; // NULL: the default
    bool system;           // units of the system, not of a user
};

// The name of unit file i of a sub-mind: "submind-NAME.timer", ".service", "-failed.service".
void schedule_unit_name(const char *name, int i, struct buf *out);
// Its text. ERR_INPUT when a text would not be a unit (a line break in a path).
bool schedule_unit_text(const struct definition *d, const struct schedule_place *p, int i,
                        struct buf *out, struct err *e);

enum schedule_action { SCHEDULE_ADD, SCHEDULE_CHANGE, SCHEDULE_REMOVE };
struct schedule_change { // text owned
    enum schedule_action action;
    struct buf file;        // its name, without a folder
    struct buf before, now; // texts
};
struct schedule_plan {
    struct schedule_change *list;
    size_t n;
};

// What has to change in dir, so that it holds exactly the units of these definitions for this
// workspace. Units of other workspaces and of others are left alone; one that is in the way of ours
// is an error. only: names to touch (n_only 0: all, also those that have gone).
bool schedule_plan_make(struct schedule_plan *out, const char *dir, const struct schedule_place *p,
                        const struct definition *list, size_t n, const char *const *only,
                        size_t n_only, struct err *e);
void schedule_plan_free(struct schedule_plan *plan);
// The change, with its lines marked "+" and "-" where they are wanted.
void schedule_change_print(const struct schedule_change *c, bool lines, struct buf *out);
// Writes or removes the file in dir; a file is there whole or not at all.
bool schedule_change_apply(const struct schedule_change *c, const char *dir, struct err *e);
