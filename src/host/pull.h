// Fetching models: what a source's name means, which files it has, and getting them.
#pragma once

#include <stdatomic.h>

#include "base/err.h"
#include "host/download.h"

struct pull {
    const char *source; // "hf:OWNER/REPO[:QUANT][@REVISION]", "ollama:NAME[:TAG]", "https://..."
    const char *dir;    // of the models (models_dir)
    const char *hub;    // "https://huggingface.co"
    const char *token;  // for the hub; NULL: none
    const char *ollama_dir; // Ollama's models folder; NULL: the usual ones
    const char *home;
    uint32_t n_connections;
    uint64_t piece_bytes;
    const atomic_int *cancel;
    // file i of n, by its name, and how far it is; the totals count all files of the model
    void (*on_progress)(void *arg, const char *file, const struct download_progress *p);
    void *arg;
};

// Appends the path of the model's first file. Nothing is fetched twice.
bool pull_run(const struct pull *p, struct buf *path, struct err *e);
