// The files of a service: its two units, the units it had before, and the record of every change.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct service_files {
    struct buf unit, socket; // paths of NAME.service and NAME.socket
    struct buf state_dir;    // kept units and records.jsonl
    struct buf service_name; // "NAME.service"
    struct buf socket_name;  // "NAME.socket"
};

// config_home and state_home (XDG_*) may be NULL: then below home. system: /etc and /var/lib.
bool service_files_open(struct service_files *out, bool system, const char *name, const char *home,
                        const char *config_home, const char *state_home, struct err *e);
void service_files_close(struct service_files *f);

// Keeps the present unit as NUMBER.service in the state folder; *number is 0 when there is none.
bool service_keep(struct service_files *f, uint32_t *number, struct err *e);
// The path of a kept unit, and the newest number (0: none).
void service_kept_path(struct service_files *f, uint32_t number, struct buf *out);
uint32_t service_kept_newest(struct service_files *f);
// Removes the kept units up to `through`; returns how many there were.
size_t service_clean(struct service_files *f, uint32_t through);
// Appends one JSON object as a line to records.jsonl.
bool service_record(struct service_files *f, struct str json, struct err *e);
bool service_records(struct service_files *f, struct buf *out, struct err *e); // nothing yet: empty
