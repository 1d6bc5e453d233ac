// Normalising piecewise: only where a character could change or compose is anything computed, on
// the stretch from the last stable character before it to the next one after it. All else is
// copied.
// Why not utf8proc_map: it takes the whole text, and its ordering of marks is quadratic in their
// number, which a request could use to keep a thread busy; here marks are sorted by counting.
// Invariant: a stable character has combining class 0, never composes with what precedes it and is
// its own normal form, so that NFC(a + b) = NFC(a) + NFC(b) where b begins with one.
#include "text/nfc.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

enum {
    FIRST_UNSTABLE = 0x300,  // every code point below is stable (DerivedNormalizationProps: NFC_QC)
    SECOND_OF_PAIR = 0x8000, // utf8proc's comb_index from here on: may compose with what precedes
    NO_INDEX = UINT16_MAX,
    MAX_DECOMPOSED =
        18, // code points that one may become; 4 by Unicode's policy, utf8proc asks for room
};

static bool is_stable(uint32_t cp)
{
    if (cp < FIRST_UNSTABLE) return true;
    if (cp >= 0xac00 && cp <= 0xd7a3) return true;  // Hangul syllables
    if (cp >= 0x1161 && cp <= 0x11c2) return false; // Hangul vowels and final consonants
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    bool second = p->comb_index != NO_INDEX && p->comb_index >= SECOND_OF_PAIR;
    bool canonical = p->decomp_type == 0 && p->decomp_seqindex != NO_INDEX;
    return p->combining_class == 0 && !second && !canonical;
}

static bool work_reserve(struct nfc_work *w, size_t n)
{
    if (n <= w->cap) return true;
    size_t cap = n + n / 2 + 64;
    int32_t *points = realloc(w->points, cap * sizeof *points);
    if (points == NULL) return false;
    w->points = points;
    int32_t *sorted = realloc(w->sorted, cap * sizeof *sorted);
    if (sorted == NULL) return false;
    w->sorted = sorted;
    w->cap = cap;
    return true;
}

static int class_of(int32_t cp)
{
    return utf8proc_get_property(cp)->combining_class;
}

// Sorts n marks by combining class, keeping the order within a class.
static void sort_marks(int32_t *marks, int32_t *room, size_t n)
{
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++) start[class_of(marks[i]) + 1]++;
    for (int c = 0; c < 256; c++) start[c + 1] += start[c];
    for (size_t i = 0; i < n; i++) room[start[class_of(marks[i])]++] = marks[i];
    memcpy(marks, room, n * sizeof *marks);
}

static void order_marks(struct nfc_work *w, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t begin = i;
        bool sorted = true;
        int last = 0;
        for (int c; i < n && (c = class_of(w->points[i])) != 0; i++) {
            sorted = sorted && c >= last;
            last = c;
        }
        if (!sorted) sort_marks(w->points + begin, w->sorted, i - begin);
        if (i == begin) i++;
    }
}

// Appends the NFC of a stretch; false: no memory.
static bool put_stretch(struct buf *out, struct str s, struct nfc_work *w)
{
    const utf8proc_option_t how = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp = 0;
        i += utf8_decode(s.p + i, s.n - i, &cp);
        if (!work_reserve(w, n + MAX_DECOMPOSED)) return false;
        utf8proc_ssize_t more =
            utf8proc_decompose_char((utf8proc_int32_t)cp, w->points + n, MAX_DECOMPOSED, how, NULL);
        if (more < 0 || more > MAX_DECOMPOSED) return false;
        n += (size_t)more;
    }
    order_marks(w, n);
    utf8proc_ssize_t composed = utf8proc_normalize_utf32(w->points, (utf8proc_ssize_t)n, how);
    for (utf8proc_ssize_t i = 0; i < composed; i++) {
        char bytes[4];
        buf_put(out, bytes, utf8_encode((uint32_t)w->points[i], bytes));
    }
    return composed >= 0 && !out->failed;
}

bool nfc_put(struct buf *out, struct str s, struct nfc_work *w)
{
    size_t copied = 0; // all before is in out
    size_t stable = 0; // where the last stable character begins, at or after copied
    for (size_t i = 0; i < s.n;) {
        uint32_t cp = (unsigned char)s.p[i];
        size_t len = cp < 0x80 ? 1 : utf8_decode(s.p + i, s.n - i, &cp);
        if (is_stable(cp)) {
            stable = i;
            i += len;
            continue;
        }
        buf_put(out, s.p + copied, stable - copied);
        for (i += len; i < s.n; i += len) {
            len = utf8_decode(s.p + i, s.n - i, &cp);
            if (is_stable(cp)) break;
        }
        if (!put_stretch(out, str_sub(s, stable, i - stable), w)) return false;
        copied = stable = i;
    }
    buf_put(out, s.p + copied, s.n - copied);
    return !out->failed;
}

void nfc_work_free(struct nfc_work *w)
{
    free(w->points);
    free(w->sorted);
    *w = (struct nfc_work){0};
}
