// Starts a program under a supervisor of ours: a small process between us and it that adopts
// everything the program leaves behind (prctl PR_SET_CHILD_SUBREAPER) and kills it when the program
// has ended, when we say so, or when we are gone, whatever group, session or environment it hides
// in. No shell, ever.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct child_limits {      // 0 = as ours
    uint64_t memory_bytes; // private memory of one process (RLIMIT_DATA)
    uint64_t file_bytes;   // of one file that it writes
    uint32_t n_files;      // open at once
    uint32_t n_processes;  // more than run on the machine at its start; root's are not limited
};

struct supervise_spec {      // all borrowed
    const char *program;     // a path, see process_find
    const char *const *argv; // NULL-terminated
    const char *const *env;  // NULL-terminated "NAME=value"; the child sees nothing else
    const char *dir;         // working directory; NULL = ours
    struct child_limits limits;
    bool pipe_in;  // else standard input is empty
    bool pipe_err; // else standard error goes where standard output goes
};

// The caller's ends, non-blocking; -1 where there is none.
struct supervised {
    int control; // readable when it is over
    int in, out, err;
    pid_t supervisor;
};

struct supervised_end {
    int status;        // as waitpid gives it
    uint32_t n_strays; // processes that it left behind and that were killed
    uint32_t n_left;   // that could not be killed (another user's)
};

// ERR_NOT_FOUND, ERR_DENIED or ERR_IO when the program cannot be started.
bool supervise_start(struct supervised *out, const struct supervise_spec *s, struct err *e);
void supervise_term(const struct supervised *s); // SIGTERM to the program's group
void supervise_kill(const struct supervised *s); // SIGKILL to everything
// Waits at most wait_ms for the end; false when it is not over. With true everything is gone and
// *end filled.
bool supervise_ended(struct supervised *s, int wait_ms, struct supervised_end *end);
// Kills what is left and closes all ends; accepts a zeroed or closed struct.
void supervise_close(struct supervised *s);
