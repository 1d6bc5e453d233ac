// The files of a store: names, room, other families. Part of store.c's inside.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/str.h"

enum { SEGMENT_NAME_MAX = 16 };

// "seg-0000002a"
void segment_name(char out[SEGMENT_NAME_MAX], uint32_t id);
bool segment_id(const char *name, uint32_t *id);
// Makes path and the folders above it where they are missing; path itself must be private (rundir.h).
bool store_make_dir(const char *path, struct err *e);
// The folder of a family inside dir.
void store_family_path(struct buf *out, const char *dir, struct hash128 family);
// Bytes in segments of all families in dir but `own`. With want > 0: removes segments of families that
// no process has open, oldest first, until want bytes are gone or none is left.
uint64_t store_other_families(const char *dir, const char *own, uint64_t want);
// Bytes that the file system of dir has free; 0 when that cannot be said.
uint64_t store_free_bytes(const char *dir);
// All of p[n] at off, or false with errno set.
bool store_write_all(int fd, const void *p, size_t n, uint64_t off);
bool store_read_all(int fd, void *p, size_t n, uint64_t off);
