// Reads the files that describe a machine, below a root folder: "/" is this machine, any other folder
// a recorded one. Nothing here writes, and nothing needs to be root.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { ROOT_NAME_BYTES = 128 };

struct root {
    int fd;
    bool live; // "/" itself: what no file tells (uid, free space) may be asked of the system
};

typedef char root_name[ROOT_NAME_BYTES];

bool root_open(struct root *out, const char *path, struct err *e);
void root_close(struct root *r);
// Paths are without a leading slash. A symbolic link of a recorded root never leads out of it.
bool root_exists(const struct root *r, const char *path);
// Appends at most max_bytes of a regular file to out; false when it cannot be read.
bool root_read(const struct root *r, const char *path, struct buf *out, size_t max_bytes);
// The first line, trimmed, cut to n - 1 bytes, with '?' for what is not printable ASCII (files of a
// broken machine must not speak to the terminal). "" and false when there is none.
bool root_line(const struct root *r, const char *path, char *out, size_t n);
// The first line as a decimal or 0x number.
bool root_number(const struct root *r, const char *path, uint64_t *out);
// Names in a folder that start and end so, sorted; at most max. 0 when the folder cannot be read.
size_t root_list(const struct root *r, const char *path, const char *prefix, const char *suffix,
                 root_name *names, size_t max);
// Where a symbolic link of a folder points, as text; false when it is none.
bool root_link(const struct root *r, const char *folder, const char *name, char *out, size_t n);
// Copies s to out as root_line does.
void root_clean(struct str s, char *out, size_t n);
