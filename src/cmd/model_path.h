// What --model means: a file, or the name of a model that was fetched.
#pragma once

#include "base/err.h"
#include "base/str.h"

// Where fetched models lie, for this user; appended to out.
void model_dir(struct buf *out);
// A file's path stays as it is; a name becomes the path of the fetched model. *out lives until the process
// ends, for as many names as a command line has.
bool model_path(const char *name, const char **out, struct err *e);
