// A folder of this user's own for sockets and locks, and locks between processes in it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

// Makes path (one level) with mode 0700. ERR_DENIED when it is there but not a folder of this user
// that nobody else can enter.
bool rundir_make(const char *path, struct err *e);
// The same with the folders above it, which are made 0700 when missing and left alone otherwise.
bool rundir_make_all(const char *path, struct err *e);
// The default: runtime_dir (XDG_RUNTIME_DIR) when it is set, else /run/user/UID, each only where it
// is there, with "/submind" behind; else /tmp/submind-UID.
void rundir_default(const char *runtime_dir, struct buf *out);

enum lock_state { LOCK_TAKEN, LOCK_BUSY, LOCK_FAILED };
// Takes the lock file at path (made when missing, never removed) without waiting. It is released by
// rundir_unlock and by the end of the process. *fd is set when it was taken.
enum lock_state rundir_lock(const char *path, int *fd, struct err *e);
void rundir_unlock(int fd);
// The running program's own file, absolute, and a number that changes when it is built anew.
bool rundir_self(struct buf *path, uint64_t *identity, struct err *e);
