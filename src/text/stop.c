// The last hop before text leaves: bytes -> whole characters -> text without stop strings.
// Which stop string counts does not depend on how the text was cut into tokens: the one that is
// complete first, and of those that end together the one that begins first.
// Invariant: held is repaired UTF-8 that may be the start of a stop string, then at most 3 bytes of
// a character that is not complete yet.
#include "text/stop.h"

#include "base/utf8.h"
#include "text/repair.h"

// Repairs held from byte `from` on, except for the partial character at its end. Returns the length
// of what is repaired.
static size_t repair_held(struct stop *s, size_t from)
{
    size_t n = s->held.n - utf8_partial_tail(buf_view(&s->held));
    struct str fresh = str_sub(buf_view(&s->held), from, n - from);
    if (utf8_valid(fresh)) return n;
    struct buf fixed = {0}; // rare: only where the model writes bytes that are no text
    repair_utf8(&fixed, fresh, -1);
    size_t whole = from + fixed.n;
    buf_str(&fixed, str_sub(buf_view(&s->held), n, SIZE_MAX));
    s->held.n = from;
    buf_str(&s->held, buf_view(&fixed));
    s->held.failed = s->held.failed || fixed.failed;
    buf_free(&fixed);
    return whole;
}

// Where the first stop string in text begins; SIZE_MAX when there is none.
static size_t find_stop(const struct stop *s, struct str text)
{
    size_t first = SIZE_MAX, first_end = SIZE_MAX;
    for (size_t i = 0; i < s->n_strings; i++) {
        if (s->strings[i].n == 0) continue;
        size_t at = str_find(text, s->strings[i], 0);
        if (at == SIZE_MAX) continue;
        size_t end = at + s->strings[i].n;
        if (end < first_end || (end == first_end && at < first)) {
            first = at;
            first_end = end;
        }
    }
    return first;
}

// How many bytes at the end of text could be the start of a stop string.
static size_t may_begin_stop(const struct stop *s, struct str text)
{
    size_t most = 0;
    for (size_t i = 0; i < s->n_strings; i++) {
        if (s->strings[i].n == 0) continue;
        size_t n = s->strings[i].n - 1;
        if (n > text.n) n = text.n;
        while (n > most && !str_ends(text, str_sub(s->strings[i], 0, n))) n--;
        if (n > most) most = n;
    }
    return most;
}

static void drop_front(struct buf *b, size_t n)
{
    for (size_t i = n; i < b->n; i++) b->p[i - n] = b->p[i];
    b->n -= n;
}

bool stop_feed(struct stop *s, struct str piece, struct buf *out)
{
    if (s->hit) return true;
    size_t from = s->held.n - utf8_partial_tail(buf_view(&s->held));
    buf_str(&s->held, piece);
    size_t n = repair_held(s, from);
    if (s->held.failed) { // no memory: the caller learns it from out
        out->failed = true;
        return false;
    }
    struct str whole = str_sub(buf_view(&s->held), 0, n);
    size_t at = find_stop(s, whole);
    s->hit = at != SIZE_MAX;
    size_t give = s->hit ? at : n - may_begin_stop(s, whole);
    buf_str(out, str_sub(whole, 0, give));
    drop_front(&s->held, s->hit ? s->held.n : give);
    return s->hit;
}

void stop_finish(struct stop *s, struct buf *out)
{
    if (!s->hit) repair_utf8(out, buf_view(&s->held), -1);
    buf_clear(&s->held);
}

void stop_free(struct stop *s)
{
    buf_free(&s->held);
    s->hit = false;
}
