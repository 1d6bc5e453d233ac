// Names of processes that no later process shares, so that a record can tell "still running" from
// "its process is gone" although process numbers are used again.
#pragma once

#include <stdbool.h>

#include "base/str.h"

// Appends "PID:START:BOOT" of a process: its number, its start time in clock ticks since boot
// (proc(5), field 22 of /proc/PID/stat) and the boot's id. False when there is no such process.
bool process_id_of(long pid, struct buf *out);
bool process_id_lives(struct str id);
