// Where fetched models lie and what they are called:
//   DATA/models/hf/OWNER/REPO/[FOLDER/]FILE.gguf     "hf:OWNER/REPO:QUANT"
//   DATA/models/url/HOST/FILE.gguf                   the file's name
//   DATA/models/ollama/NAME/TAG.gguf                 "ollama:NAME:TAG", a link to Ollama's blob
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

struct model_file {
    struct str path;     // of the first part of a split model
    struct str name;     // as above
    uint64_t size_bytes; // of all parts that are there
    uint64_t done_bytes; // less than size_bytes while it is not whole
    uint32_t n_parts, n_parts_there;
};

enum { MODELS_MAX = 1024 };

// DATA/models; data_home (XDG_DATA_HOME) may be NULL. Appended to out.
void models_dir(const char *home, const char *data_home, struct buf *out);
// All models below dir, sorted by path, unfinished ones too; texts in the arena.
size_t models_list(const char *dir, struct model_file *out, size_t max, struct arena *a);
// The one whole model that `name` means: its name, its path below dir, its file's name with or without
// ".gguf", or a part of one of these that no other has. Appends its path. ERR_NOT_FOUND, ERR_INPUT when
// several fit (they are listed).
bool models_find(const char *dir, const char *name, struct buf *out, struct err *e);
// "Q4_K_M" of "Qwen3-32B-Q4_K_M-00001-of-00002.gguf"; empty when the name has none.
struct str model_quant(struct str file);
// Is it part i of n ("-00002-of-00003.gguf")? The name without that in *stem.
bool model_is_part(struct str file, uint32_t *i, uint32_t *n, struct str *stem);
// What of a model's file a container has to see: the file, or its folder where the model is split.
void model_volume(const char *path, struct buf *out);
