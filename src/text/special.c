// A trie over the texts of control (and unknown) and user-defined tokens.
// Why its own structure: Hugging Face cuts text at added tokens before anything else happens to it,
// leftmost first and longest where several begin at one place; a trie gives just that in one walk.
// Invariant: a walk reads at most SPECIAL_MAX_BYTES.
#include "text/special.h"

#include <stdlib.h>
#include <string.h>

struct special_node {
    uint32_t child, sibling; // 0 = none: the root is nobody's child
    int32_t id;              // the token that ends here, -1 = none
    uint8_t byte, set;
};

static uint8_t set_of(uint8_t kind)
{
    if (kind == TOKEN_USER) return SPECIAL_USER;
    return kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN ? SPECIAL_CONTROL : 0;
}

static uint32_t find_child(const struct special *s, uint32_t node, uint8_t byte)
{
    uint32_t c = s->nodes[node].child;
    while (c != 0 && s->nodes[c].byte != byte) c = s->nodes[c].sibling;
    return c;
}

// The new node's index; 0 when there is no memory.
static uint32_t add_node(struct special *s, uint32_t parent, uint8_t byte)
{
    if (s->n == s->cap) {
        uint32_t cap = s->cap * 2;
        struct special_node *grown = realloc(s->nodes, cap * sizeof *grown);
        if (grown == NULL) return 0;
        s->nodes = grown;
        s->cap = cap;
    }
    s->nodes[s->n] =
        (struct special_node){.sibling = s->nodes[parent].child, .id = -1, .byte = byte};
    s->nodes[parent].child = s->n;
    return s->n++;
}

static bool add_token(struct special *s, struct str text, uint8_t set, uint32_t id)
{
    uint32_t node = 0;
    for (size_t i = 0; i < text.n; i++) {
        uint32_t next = find_child(s, node, (uint8_t)text.p[i]);
        if (next == 0) next = add_node(s, node, (uint8_t)text.p[i]);
        if (next == 0) return false;
        node = next;
    }
    if (s->nodes[node].id >= 0) return true; // the first token of a text wins
    s->nodes[node].id = (int32_t)id;
    s->nodes[node].set = set;
    s->firsts[(uint8_t)text.p[0]] |= set;
    return true;
}

static int only_first(const struct special *s)
{
    int only = -1;
    for (int b = 0; b < 256; b++) {
        if (s->firsts[b] == 0) continue;
        if (only >= 0) return -1;
        only = b;
    }
    return only;
}

bool special_open(struct special *out, const struct pieces *p, struct err *e)
{
    struct special s = {.cap = 256, .n = 1};
    s.nodes = malloc(s.cap * sizeof *s.nodes);
    if (s.nodes == NULL) return err_set(e, ERR_MEMORY, "no memory for the special tokens");
    s.nodes[0] = (struct special_node){.id = -1};
    for (uint32_t id = 0; id < p->n; id++) {
        uint8_t set = set_of(p->kinds[id]);
        struct str text = pieces_at(p, id);
        if (set == 0 || text.n == 0) continue;
        if (text.n > SPECIAL_MAX_BYTES) {
            special_close(&s);
            return err_set(e, ERR_FORMAT, "special token %u has %zu bytes; at most %d are possible",
                           id, text.n, SPECIAL_MAX_BYTES);
        }
        if (!add_token(&s, text, set, id)) {
            special_close(&s);
            return err_set(e, ERR_MEMORY, "no memory for the special tokens");
        }
    }
    s.only_first = only_first(&s);
    *out = s;
    return true;
}

void special_close(struct special *s)
{
    free(s->nodes);
    *s = (struct special){0};
}

// The next place at or after i where a token of the set could begin; text.n when there is none.
static size_t next_candidate(const struct special *s, struct str text, size_t i, unsigned set)
{
    if (i >= text.n) return text.n;
    if (s->only_first >= 0) {
        const char *hit = memchr(text.p + i, s->only_first, text.n - i);
        return hit == NULL ? text.n : (size_t)(hit - text.p);
    }
    while (i < text.n && (s->firsts[(uint8_t)text.p[i]] & set) == 0) i++;
    return i;
}

struct special_hit special_find(const struct special *s, struct str text, size_t from, unsigned set)
{
    struct special_hit hit = {.at = SIZE_MAX, .id = -1};
    size_t i = next_candidate(s, text, from, set);
    while (i < text.n) {
        uint32_t node = 0;
        for (size_t j = i; j < text.n; j++) {
            node = find_child(s, node, (uint8_t)text.p[j]);
            if (node == 0) break;
            if (s->nodes[node].id >= 0 && (s->nodes[node].set & set) != 0)
                hit = (struct special_hit){i, j - i + 1, s->nodes[node].id};
        }
        if (hit.id >= 0) break;
        i = next_candidate(s, text, i + 1, set);
    }
    return hit;
}

int32_t special_exact(const struct special *s, struct str text)
{
    uint32_t node = 0;
    for (size_t i = 0; i < text.n; i++) {
        node = find_child(s, node, (uint8_t)text.p[i]);
        if (node == 0) return -1;
    }
    return s->nodes[node].id;
}
