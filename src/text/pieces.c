// Vocabulary table: one blob of bytes, offsets, kinds and an open-addressing hash index.
// Not here: merges (bpe.c), matching of special tokens in text (special.c).
// Invariant: no control or unknown token is in the index, so merging text can never yield one.
#include "text/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

// The spelling: printable bytes stand for themselves, the other 68 for U+0100.. in order of bytes.
enum { SPELLED_FIRST = 0x100, N_SPELLED = 68 };

static bool is_own_letter(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

// The byte that code point cp stands for; -1 when it is not of the spelling.
static int unspell_char(uint32_t cp)
{
    if (cp < SPELLED_FIRST) return is_own_letter(cp) ? (int)cp : -1;
    if (cp >= SPELLED_FIRST + N_SPELLED) return -1;
    uint32_t i = cp - SPELLED_FIRST;
    if (i <= 0x20) return (int)i;            // 0x00..0x20
    if (i < 67) return (int)(i - 33 + 0x7f); // 0x7f..0xa0
    return 0xad;
}

size_t piece_unspell(char *out, struct str text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.n;) {
        uint32_t cp;
        size_t len = utf8_decode(text.p + i, text.n - i, &cp);
        int byte = len == 0 ? -1 : unspell_char(cp);
        if (byte < 0) return SIZE_MAX;
        out[n++] = (char)byte;
        i += len;
    }
    return n;
}

static bool is_mergeable(uint8_t kind)
{
    return kind != TOKEN_CONTROL && kind != TOKEN_UNKNOWN;
}

// Special tokens are written as they are, all others in the spelling; what is not of the spelling
// stays as it is.
static uint32_t put_piece(char *out, struct str text, uint8_t kind)
{
    bool spelled = kind == TOKEN_NORMAL || kind == TOKEN_UNUSED || kind == TOKEN_BYTE;
    size_t n = spelled ? piece_unspell(out, text) : SIZE_MAX;
    if (n != SIZE_MAX) return (uint32_t)n;
    if (text.n > 0) memcpy(out, text.p, text.n);
    return (uint32_t)text.n;
}

// The slot that holds bytes or where they would go.
static struct piece_slot *find_slot(const struct pieces *p, struct str bytes, uint32_t *tag)
{
    uint64_t h = hash64(bytes.p, bytes.n, 0);
    *tag = (uint32_t)(h >> 32);
    uint32_t i = (uint32_t)h & p->mask;
    while (p->slots[i].id >= 0 &&
           (p->slots[i].tag != *tag || !str_eq(pieces_at(p, (uint32_t)p->slots[i].id), bytes)))
        i = (i + 1) & p->mask;
    return &p->slots[i];
}

int32_t pieces_find(const struct pieces *p, struct str bytes)
{
    uint32_t tag;
    return find_slot(p, bytes, &tag)->id;
}

// Normal tokens first: where two tokens have the same bytes, the normal one is what merging yields.
static void fill_index(struct pieces *p)
{
    memset(p->slots, 0xff, ((size_t)p->mask + 1) * sizeof *p->slots);
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t id = 0; id < p->n; id++) {
            bool normal = p->kinds[id] == TOKEN_NORMAL;
            struct str bytes = pieces_at(p, id);
            if (normal != (pass == 0) || !is_mergeable(p->kinds[id]) || bytes.n == 0) continue;
            uint32_t tag;
            struct piece_slot *slot = find_slot(p, bytes, &tag);
            if (slot->id < 0) *slot = (struct piece_slot){tag, (int32_t)id};
        }
}

static bool check_data(const struct tokenizer_data *d, size_t *total, struct err *e)
{
    if (d->n_tokens == 0 || d->n_tokens > (uint32_t)INT32_MAX / 4)
        return err_set(e, ERR_FORMAT, "the vocabulary has %u tokens; 1 to %d are possible",
                       d->n_tokens, INT32_MAX / 4);
    for (uint32_t id = 0; id < d->n_tokens; id++) {
        *total += d->tokens[id].n;
        if (*total > INT32_MAX)
            return err_set(e, ERR_FORMAT, "the vocabulary's texts are over 2 GiB at token %u", id);
        int32_t kind = d->types == NULL ? TOKEN_NORMAL : d->types[id];
        if (kind < TOKEN_NORMAL || kind > TOKEN_BYTE)
            return err_set(e, ERR_FORMAT, "token %u has type %d; known are 1 to %d", id, kind,
                           TOKEN_BYTE);
    }
    return true;
}

bool pieces_open(struct pieces *out, const struct tokenizer_data *d, struct err *e)
{
    size_t total = 0;
    if (!check_data(d, &total, e)) return false;
    struct pieces p = {.n = d->n_tokens, .mask = 255};
    while (p.mask < 2 * (uint64_t)p.n) p.mask = p.mask * 2 + 1; // at most half full
    p.bytes = malloc(total + 1);
    p.offsets = calloc((size_t)p.n + 1, sizeof *p.offsets);
    p.kinds = malloc(p.n);
    p.slots = malloc(((size_t)p.mask + 1) * sizeof *p.slots);
    if (p.bytes == NULL || p.offsets == NULL || p.kinds == NULL || p.slots == NULL) {
        pieces_close(&p);
        return err_set(e, ERR_MEMORY, "no memory for a vocabulary of %u tokens", d->n_tokens);
    }
    for (uint32_t id = 0; id < p.n; id++) {
        p.kinds[id] = d->types == NULL ? TOKEN_NORMAL : (uint8_t)d->types[id];
        uint32_t n = put_piece(p.bytes + p.offsets[id], d->tokens[id], p.kinds[id]);
        p.offsets[id + 1] = p.offsets[id] + n;
    }
    fill_index(&p);
    *out = p;
    return true;
}

void pieces_close(struct pieces *p)
{
    free(p->bytes);
    free(p->offsets);
    free(p->kinds);
    free(p->slots);
    *p = (struct pieces){0};
}
