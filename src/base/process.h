// Child processes: run one to its end under limits, or start one that outlives us. No shell, ever.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "base/supervise.h"

struct process_spec {
    const char *const *argv; // NULL-terminated
    const char *const *env;  // NULL-terminated "NAME=value"; the child sees nothing else
    const char *path;    // folders, colon separated, in which a program without a slash is sought
    const char *dir;     // working directory; NULL = ours
    uint32_t timeout_ms; // 0 = none
    size_t keep_bytes;   // of the output: the first three quarters and the last one
    const atomic_int *cancel; // non-zero ends the child; NULL = never
    struct child_limits limits;
};

enum process_end { PROCESS_EXITED, PROCESS_SIGNALLED, PROCESS_TIMED_OUT, PROCESS_CANCELLED };

struct process_result {
    enum process_end end;
    int code;               // exit code, or the signal's number
    struct buf head;        // the first bytes of standard output and error together, owned
    struct buf tail;        // the last bytes, where the output was longer than what is kept
    uint64_t dropped_bytes; // between head and tail
    uint32_t n_strays;      // processes left behind and killed
    uint32_t n_left;        // that could not be killed (another user's)
    double ms;
};

// Runs argv to its end under a supervisor, standard input empty. Fails when it cannot be
// started: ERR_NOT_FOUND (no such program), ERR_DENIED, ERR_IO. Output that floods is read and
// dropped.
bool process_run(const struct process_spec *s, struct process_result *out, struct err *e);
void process_result_free(struct process_result *r);

// Finds a program the way execvp does, but in the given path; the result is absolute or has a
// slash.
bool process_find(struct buf *out, const char *program, const char *path, struct err *e);

// Starts argv in dir, in a session of its own with standard output and error going to log_path (0600,
// made anew). It keeps running when we end. *pid is ours to wait for while we live.
bool process_start_detached(const char *const *argv, const char *const *env, const char *dir,
                            const char *log_path, pid_t *pid, struct err *e);
// Has the child ended? Then *code is its exit code or 128 + signal.
bool process_ended(pid_t pid, int *code);
