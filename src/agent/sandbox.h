// What stands in front of a command so that it runs in bubblewrap: the system read-only, /tmp its
// own but for what the command line names there, only the listed paths writable, no network unless allowed, no other process to be seen.
#pragma once

#include "agent/allow.h"

enum sandbox_mode {
    SANDBOX_ON,   // commands that need it are refused where bubblewrap does not work
    SANDBOX_AUTO, // they run without it there, and a warning says so
    SANDBOX_OFF,
};

struct sandbox_settings {              // text is owned
    int mode;                          // enum sandbox_mode
    int network;                       // 1: allowed
    struct words write;                // absolute paths
    struct words hide;                 // that cannot even be read
    uint64_t memory_bytes, file_bytes; // of one process, of one file; 0 = no limit
    uint32_t n_files, n_processes;
};

struct sandbox_ask { // borrowed
    const struct sandbox_settings *settings;
    const struct words *write;      // beside the settings'; may be NULL
    const struct words *hide;       // beside the settings'; may be NULL
    const struct words *named;      // the program and what its user gave it; may be NULL
    const char *const *environment; // ours: PATH says where bwrap is, HOME what hides
    const char *dir;                // the working directory, absolute
    bool network, off;
};

void sandbox_settings_free(struct sandbox_settings *s);
// Appends what stands in front of the program; nothing when it runs without a sandbox. ERR_DENIED
// where the sandbox is asked for and does not work: why, and what to do.
bool sandbox_prefix(const struct sandbox_ask *ask, struct words *out, struct err *e);
// Does bubblewrap work here? Tried once per process, with the very flags that are used.
bool sandbox_works(const char *const *environment, struct err *why);
