// Two texts, parted by the first NUL byte, that begin with what they share: any bytes, any lengths.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/drift.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *cut = n > 0 ? memchr(data, 0, n) : NULL;
    const size_t first = cut != NULL ? (size_t)(cut - data) : n / 2;
    const size_t skip = cut != NULL ? 1 : 0;
    const struct str ours = {(const char *)data, first};
    const struct str theirs = {(const char *)data + first + skip, n - first - skip};
    struct drift d = {0};
    struct err e = {0};
    size_t at = 0;
    while (at < ours.n && at < theirs.n && ours.p[at] == theirs.p[at]) at++;
    if (!drift_find(&d, ours, theirs, at, &e)) return 0;
    if (d.kind == NULL || d.advice == NULL || d.same_bytes > ours.n) abort();
    if (d.same_from > ours.n || d.same_bytes > ours.n - d.same_from) abort();
    if (d.volatile_text && (d.same_from < at || d.theirs_from > theirs.n)) abort();
    if (d.ours.n > 0 && (d.ours.p < ours.p || d.ours.p + d.ours.n > ours.p + ours.n)) abort();
    if (d.theirs.n > 0 && (d.theirs.p < theirs.p || d.theirs.p + d.theirs.n > theirs.p + theirs.n))
        abort();
    return 0;
}
