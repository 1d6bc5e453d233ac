// Skills as agent gateways keep them: folders with a SKILL.md whose front matter has a name and a
// description. The bootstrap lists them; the model reads the one that fits with read_file.
#pragma once

#include "base/err.h"
#include "base/str.h"

enum { SKILLS_MAX = 200, SKILLS_BYTES = 8192 };

// Appends the list of dir/skills/*/SKILL.md and dir/.agents/skills/*/SKILL.md, by name; nothing
// where there are none. *n is how many are listed. At most SKILLS_BYTES, the rest is left out
// visibly. A SKILL.md without readable front matter is listed by its folder's name.
bool skills_put(const char *dir, struct buf *out, size_t *n, struct err *e);
