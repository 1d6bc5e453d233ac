// What `submind cache` prints: the server's JSON as lines for a person.
#pragma once

#include <jansson.h>

#include "base/str.h"

void cache_show_list(struct buf *out, const json_t *answer);
void cache_show_explain(struct buf *out, const json_t *answer);
void cache_show_stats(struct buf *out, const json_t *answer);
void cache_show_warm(struct buf *out, const json_t *answer);
// Any flat object: "name  value" lines.
void cache_show_fields(struct buf *out, const json_t *answer);
