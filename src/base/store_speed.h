// Where a store's bytes are, and how fast its disk is. Part of store.c's inside.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { STORE_SPEED_FILES = 4 };

// Is this byte of a file in the system's memory? Never waits. True also where the file system does not say.
bool store_is_near(int fd, uint64_t off);
// Bytes a second that come from these segments (at most STORE_SPEED_FILES) past the system's memory, by a thread for
// each, tried for ms. Only what is not in memory is read: that is on the disk for sure. 0 where there is no such thing, or
// the file system cannot do it.
double store_speed_of(int dir_fd, const uint32_t *ids, uint32_t n, uint32_t ms);
