// Files: mapped read-only, or read whole up to a bound.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct file_map {
    const unsigned char *p; // n bytes, NULL when n is 0
    size_t n;
    int fd; // open as long as the map is; -1 in a closed one
};

// Maps all of path. *out is owned by the caller; close with file_unmap.
bool file_map(struct file_map *out, const char *path, struct err *e);
void file_unmap(struct file_map *m);
// Appends all of path ("-" is standard input) to out; ERR_TOO_LARGE above max_bytes.
bool file_read(struct buf *out, const char *path, size_t max_bytes, struct err *e);
// A text that people write: a regular file, so that a pipe cannot hang us; a byte order mark is left
// out and CR LF becomes LF. Where total is not NULL a longer file is no error: its first max_bytes are
// read, and *total is what it has.
bool file_read_text(struct buf *out, const char *path, size_t max_bytes, size_t *total,
                    struct err *e);
// Makes the folders that stand in front of the last slash of path.
bool file_make_parents(const char *path, struct err *e);
// Writes a file so that it is there whole or as it was before; makes its folder.
bool file_replace(const char *path, struct str text, unsigned mode, struct err *e);
// All of text to fd, also in pieces; false with errno set.
bool file_write_all(int fd, struct str text);
