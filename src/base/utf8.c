// UTF-8 decoding by the table in RFC 3629 section 4.
#include "base/utf8.h"

static size_t sequence_len(unsigned char c)
{
    if (c < 0x80) return 1;
    if (c >= 0xc2 && c <= 0xdf) return 2;
    if (c >= 0xe0 && c <= 0xef) return 3;
    if (c >= 0xf0 && c <= 0xf4) return 4;
    return 0;
}

// Is c allowed as byte i (1..3) of a sequence that begins with lead?
static bool continues(unsigned char lead, size_t i, unsigned char c)
{
    unsigned char lo = 0x80, hi = 0xbf;
    if (i == 1) {
        if (lead == 0xe0) lo = 0xa0;
        if (lead == 0xed) hi = 0x9f;
        if (lead == 0xf0) lo = 0x90;
        if (lead == 0xf4) hi = 0x8f;
    }
    return c >= lo && c <= hi;
}

size_t utf8_valid_len(const char *p, size_t n)
{
    if (n == 0) return 0;
    unsigned char lead = (unsigned char)p[0];
    size_t len = sequence_len(lead);
    if (len == 0 || len > n) return 0;
    for (size_t i = 1; i < len; i++)
        if (!continues(lead, i, (unsigned char)p[i])) return 0;
    return len;
}

bool utf8_valid(struct str s)
{
    size_t i = 0;
    while (i < s.n) {
        size_t len = (unsigned char)s.p[i] < 0x80 ? 1 : utf8_valid_len(s.p + i, s.n - i);
        if (len == 0) return false;
        i += len;
    }
    return true;
}

size_t utf8_partial_tail(struct str s)
{
    for (size_t back = 1; back <= 3 && back <= s.n; back++) {
        unsigned char lead = (unsigned char)s.p[s.n - back];
        if (lead < 0x80) return 0;
        if (lead < 0xc0) continue; // a continuation byte: look further back
        size_t len = sequence_len(lead);
        if (len <= back) return 0;
        for (size_t i = 1; i < back; i++)
            if (!continues(lead, i, (unsigned char)s.p[s.n - back + i])) return 0;
        return back;
    }
    return 0;
}

size_t utf8_decode(const char *p, size_t n, uint32_t *cp)
{
    static const unsigned char lead_bits[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    size_t len = utf8_valid_len(p, n);
    if (len == 0) return 0;
    uint32_t c = (unsigned char)p[0] & lead_bits[len];
    for (size_t i = 1; i < len; i++) c = c << 6 | ((unsigned char)p[i] & 0x3f);
    *cp = c;
    return len;
}

size_t utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp >= 0xd800 && cp <= 0xdfff) return 0;
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    if (cp > 0x10ffff) return 0;
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}
