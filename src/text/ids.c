// The growing list of token ids. Invariant: n <= cap, and a failed put changes nothing.
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

bool ids_put(struct ids *l, const int32_t *p, size_t n)
{
    if (n > l->cap - l->n) {
        size_t want = l->n + n;
        if (want < n || want > SIZE_MAX / 2 / sizeof *l->p) return false;
        size_t cap = l->cap < 64 ? 64 : l->cap;
        while (cap < want) cap *= 2;
        int32_t *grown = realloc(l->p, cap * sizeof *grown);
        if (grown == NULL) return false;
        l->p = grown;
        l->cap = cap;
    }
    if (n > 0) memcpy(l->p + l->n, p, n * sizeof *p);
    l->n += n;
    return true;
}

void ids_free(struct ids *l)
{
    free(l->p);
    *l = (struct ids){0};
}
