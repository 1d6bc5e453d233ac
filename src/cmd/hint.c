// Distance of two words: letters put in, left out, changed, or two neighbours swapped (optimal string alignment:
// Boytsov, Indexing methods for approximate dictionary searching, 2011, section 2.1). Words are short.
#include "cmd/hint.h"

#include <stdbool.h>
#include <string.h>

enum { MAX_WORD = 40 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t rows[3][MAX_WORD + 1]; // of a's prefixes of i - 2, i - 1 and i letters, by b's
    for (size_t j = 0; j <= n_b; j++) rows[0][j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t *now = rows[i % 3], *before = rows[(i - 1) % 3], *earlier = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            const bool same = a[i - 1] == b[j - 1];
            now[j] = least(before[j - 1] + !same, least(before[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], earlier[j - 2] + 1);
        }
    }
    return rows[n_a % 3][n_b];
}

// "ctx-length" goes on where "ctx" ends.
static bool goes_on(const char *longer, const char *shorter, size_t n_shorter)
{
    return n_shorter > 1 && strncmp(longer, shorter, n_shorter) == 0 && longer[n_shorter] == '-';
}

struct hint hint_of(const char *word)
{
    return (struct hint){.word = word};
}

void hint_offer(struct hint *h, const char *known)
{
    const size_t n_word = strlen(h->word), n_known = strlen(known);
    if (n_word == 0 || n_word > MAX_WORD || n_known > MAX_WORD) return;
    const size_t longest = n_word > n_known ? n_word : n_known, allowed = longest <= 4 ? 1 : 2;
    size_t d = distance(h->word, n_word, known, n_known);
    if (d > allowed && (goes_on(h->word, known, n_known) || goes_on(known, h->word, n_word)))
        d = allowed;
    if (d > allowed || d >= n_word || (h->best != NULL && d >= h->distance)) return;
    h->best = known;
    h->distance = d;
}
