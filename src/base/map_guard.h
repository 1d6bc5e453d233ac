// A mapped file that shrinks under its readers: the system answers a read behind the new end by SIGBUS,
// from whichever thread reads. This turns the bare signal into a message that names the file.
#pragma once

#include <stddef.h>

// Remembers n bytes at p as a map of path; nothing happens when the table is full.
void map_guard_add(const void *p, size_t n, const char *path);
void map_guard_remove(const void *p);
// From now on a SIGBUS inside such a map writes which file, where and what to do to standard error and
// ends the process with exit code 1 (that of an I/O error). Any other SIGBUS kills as before.
void map_guard_install(void);
