// Repairing UTF-8, for text that clients send and for characters that a model never finished.
// Invariant: what is appended is valid UTF-8, and valid text is appended unchanged.
#include "text/repair.h"

#include "base/utf8.h"

// Length of the broken sequence at p: the longest start of a character, else one byte.
static size_t broken_len(const char *p, size_t n)
{
    for (size_t len = n < 3 ? n : 3; len > 1; len--)
        if (utf8_partial_tail((struct str){p, len}) == len) return len;
    return 1;
}

void repair_utf8(struct buf *out, struct str s, int drop)
{
    for (size_t i = 0; i < s.n;) {
        size_t begin = i;
        for (size_t len; i < s.n && (len = utf8_valid_len(s.p + i, s.n - i)) > 0;) i += len;
        buf_put(out, s.p + begin, i - begin);
        if (i == s.n) break;
        if ((unsigned char)s.p[i] == drop) {
            i++;
            continue;
        }
        buf_z(out, "\xef\xbf\xbd");
        i += broken_len(s.p + i, s.n - i);
    }
}
