// From a loaded model to its open store: fingerprint first, then the folder. Where the weights were
// hashed before, or are few, both are there when disk_open returns; otherwise a thread of its own reads
// the model once, and the disk tier begins when it is done.
#pragma once

#include <stdbool.h>

#include "engine/fingerprint.h"
#include "engine/loop.h"

struct disk;

struct disk_settings {
    const char *dir; // copied
    uint64_t cap_bytes;
    const struct gguf *gguf; // borrowed, as what `about` points to
    struct fingerprint_about about;
    struct loop *loop; // gets the store
};

// A folder that cannot be used is a warning in the log, no error: there is no disk tier then.
bool disk_open(struct disk **out, const struct disk_settings *s, struct err *e);
// Ends the thread, if it still runs; before the loop is closed. NULL is fine.
void disk_close(struct disk *d);
