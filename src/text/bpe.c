// Merging: short words in an array, searched anew after each merge; long ones as a linked list with
// a heap of pairs, so that a word of a megabyte takes n log n steps and not n squared.
// Invariant: both ways give the same ids (tests/unit/text/test_tokenizer_bpe.c compares them with a
// literal reading of the definition).
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { SHORT_WORD = 48 }; // bytes; below this the array is the faster one

struct bpe_symbol {
    int32_t id;          // -1: merged into its left neighbour
    uint32_t prev, next; // UINT32_MAX at the ends
};

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static uint32_t pair_hash(uint64_t pair)
{
    return (uint32_t)((pair ^ pair >> 29) * 0x9e3779b97f4a7c15u >> 32);
}

static const struct bpe_slot *find_pair(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t key = pair_key(left, right);
    uint32_t i = pair_hash(key) & b->mask;
    while (b->slots[i].pair != key) {
        if (b->slots[i].pair == UINT64_MAX) return NULL;
        i = (i + 1) & b->mask;
    }
    return &b->slots[i];
}

// A pair that is listed twice keeps its first rank.
static void add_pair(struct bpe *b, uint64_t key, uint32_t rank, int32_t id)
{
    uint32_t i = pair_hash(key) & b->mask;
    while (b->slots[i].pair != UINT64_MAX) {
        if (b->slots[i].pair == key) return;
        i = (i + 1) & b->mask;
    }
    b->slots[i] = (struct bpe_slot){key, rank, id};
}

static bool fail_merge(struct err *e, uint32_t rank, struct str merge, const char *why)
{
    int shown = merge.n > 80 ? 80 : (int)merge.n;
    return err_set(e, ERR_FORMAT, "merge %u '%.*s' %s", rank, shown, merge.p, why);
}

// A merge of tokens that the vocabulary lacks can never happen: it is counted in *n_idle and left out.
static bool add_merge(struct bpe *b, const struct pieces *p, uint32_t rank, struct str merge,
                      uint32_t *n_idle, struct err *e)
{
    char bytes[1024]; // left and right, decoded
    if (merge.n < 3 || merge.n > sizeof bytes)
        return fail_merge(e, rank, merge, "is not of 3 to 1024 bytes");
    const char *gap = memchr(merge.p + 1, ' ', merge.n - 1);
    if (gap == NULL || gap == merge.p + merge.n - 1)
        return fail_merge(e, rank, merge, "is not two tokens with a space between them");
    struct str left = {merge.p, (size_t)(gap - merge.p)};
    struct str right = {gap + 1, merge.n - left.n - 1};
    size_t n_left = piece_unspell(bytes, left);
    size_t n_right = n_left == SIZE_MAX ? SIZE_MAX : piece_unspell(bytes + n_left, right);
    if (n_right == SIZE_MAX)
        return fail_merge(e, rank, merge, "is not in GPT-2's spelling of bytes");
    int32_t left_id = pieces_find(p, (struct str){bytes, n_left});
    int32_t right_id = pieces_find(p, (struct str){bytes + n_left, n_right});
    int32_t id = pieces_find(p, (struct str){bytes, n_left + n_right});
    if (left_id < 0 || right_id < 0 || id < 0)
        ++*n_idle;
    else
        add_pair(b, pair_key(left_id, right_id), rank, id);
    return true;
}

// Every byte that UTF-8 can hold must be a token, else text would be lost in silence.
static bool set_bytes(struct bpe *b, const struct pieces *p, struct err *e)
{
    for (int i = 0; i < 256; i++) {
        char byte = (char)i;
        b->byte_ids[i] = pieces_find(p, (struct str){&byte, 1});
        bool in_utf8 = i <= 0xf4 && i != 0xc0 && i != 0xc1;
        if (b->byte_ids[i] < 0 && in_utf8)
            return err_set(e, ERR_FORMAT, "the vocabulary has no token for byte 0x%02x", i);
    }
    return true;
}

bool bpe_open(struct bpe *out, const struct pieces *p, const struct str *merges, uint32_t n_merges,
              struct err *e)
{
    if (n_merges > (uint32_t)INT32_MAX / 4)
        return err_set(e, ERR_FORMAT, "%u merges; at most %d are possible", n_merges,
                       INT32_MAX / 4);
    struct bpe b = {.mask = 255};
    while (b.mask < 2 * (uint64_t)n_merges) b.mask = b.mask * 2 + 1; // at most half full
    b.slots = malloc(((size_t)b.mask + 1) * sizeof *b.slots);
    if (b.slots == NULL) return err_set(e, ERR_MEMORY, "no memory for %u merges", n_merges);
    for (size_t i = 0; i <= b.mask; i++) b.slots[i].pair = UINT64_MAX;
    uint32_t n_idle = 0;
    bool ok = set_bytes(&b, p, e);
    for (uint32_t rank = 0; ok && rank < n_merges; rank++)
        ok = add_merge(&b, p, rank, merges[rank], &n_idle, e);
    if (n_idle > 0)
        log_warn("tokenizer", "left out %u of %u merges: their tokens are not in the vocabulary",
                 n_idle, n_merges);
    if (!ok) {
        bpe_close(&b);
        return false;
    }
    *out = b;
    return true;
}

void bpe_close(struct bpe *b)
{
    free(b->slots);
    *b = (struct bpe){0};
}

static bool merge_short(const struct bpe *b, struct str word, struct ids *out)
{
    int32_t ids[SHORT_WORD];
    const struct bpe_slot *pairs[SHORT_WORD]; // [i] is the pair of ids[i] and ids[i + 1], or NULL
    size_t n = word.n;
    for (size_t i = 0; i < n; i++) ids[i] = b->byte_ids[(uint8_t)word.p[i]];
    for (size_t i = 0; i + 1 < n; i++) pairs[i] = find_pair(b, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i + 1 < n; i++)
            if (pairs[i] != NULL && (best == SIZE_MAX || pairs[i]->rank < pairs[best]->rank))
                best = i;
        if (best == SIZE_MAX) break;
        ids[best] = pairs[best]->id;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) {
            memmove(pairs + best + 1, pairs + best + 2, (n - best - 2) * sizeof(void *));
            pairs[best] = find_pair(b, ids[best], ids[best + 1]);
        }
        if (best > 0) pairs[best - 1] = find_pair(b, ids[best - 1], ids[best]);
    }
    return ids_put(out, ids, n);
}

// A heap of four children to a node: half the depth of the usual one, and they share a cache line.
static void heap_push(uint64_t *heap, size_t *n, uint64_t x)
{
    size_t i = (*n)++;
    while (i > 0 && x < heap[(i - 1) / 4]) {
        heap[i] = heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    heap[i] = x;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0], x = heap[--*n];
    size_t i = 0;
    for (size_t c = 1; c < *n; c = 4 * i + 1) {
        size_t end = c + 4 < *n ? c + 4 : *n;
        size_t least = c;
        for (size_t k = c + 1; k < end; k++) least = heap[k] < heap[least] ? k : least;
        if (heap[least] >= x) break;
        heap[i] = heap[least];
        i = least;
    }
    heap[i] = x;
    return top;
}

static bool work_reserve(struct bpe_work *w, size_t n)
{
    if (n <= w->cap) return true;
    size_t cap = n + n / 2;
    struct bpe_symbol *symbols = realloc(w->symbols, cap * sizeof *symbols);
    if (symbols == NULL) return false;
    w->symbols = symbols;
    // Pushed are n - 1 pairs at first, then at most two for each of at most n - 1 merges.
    uint64_t *heap = realloc(w->heap, 3 * cap * sizeof *heap);
    if (heap == NULL) return false;
    w->heap = heap;
    w->cap = cap;
    return true;
}

static void push_pair(const struct bpe *b, struct bpe_work *w, size_t *n_heap, uint32_t pos)
{
    if (pos == UINT32_MAX || w->symbols[pos].next == UINT32_MAX) return;
    const struct bpe_slot *pair =
        find_pair(b, w->symbols[pos].id, w->symbols[w->symbols[pos].next].id);
    if (pair != NULL) heap_push(w->heap, n_heap, (uint64_t)pair->rank << 32 | pos);
}

// Merges the pair that entry stands for, unless it is gone by now (a neighbour was merged).
static void merge_entry(const struct bpe *b, struct bpe_work *w, size_t *n_heap, uint64_t entry)
{
    uint32_t pos = (uint32_t)entry;
    struct bpe_symbol *left = &w->symbols[pos];
    if (left->id < 0 || left->next == UINT32_MAX) return;
    struct bpe_symbol *right = &w->symbols[left->next];
    const struct bpe_slot *pair = find_pair(b, left->id, right->id);
    if (pair == NULL || pair->rank != entry >> 32) return;
    left->id = pair->id;
    left->next = right->next;
    right->id = -1;
    if (left->next != UINT32_MAX) w->symbols[left->next].prev = pos;
    push_pair(b, w, n_heap, left->prev);
    push_pair(b, w, n_heap, pos);
}

static bool merge_long(const struct bpe *b, struct bpe_work *w, struct str word, struct ids *out)
{
    if (!work_reserve(w, word.n)) return false;
    uint32_t n = (uint32_t)word.n;
    for (uint32_t i = 0; i < n; i++)
        w->symbols[i] =
            (struct bpe_symbol){b->byte_ids[(uint8_t)word.p[i]], i == 0 ? UINT32_MAX : i - 1,
                                i + 1 == n ? UINT32_MAX : i + 1};
    size_t n_heap = 0;
    for (uint32_t i = 0; i < n; i++) push_pair(b, w, &n_heap, i);
    while (n_heap > 0) merge_entry(b, w, &n_heap, heap_pop(w->heap, &n_heap));
    for (uint32_t i = 0; i != UINT32_MAX; i = w->symbols[i].next)
        if (!ids_put(out, &w->symbols[i].id, 1)) return false;
    return true;
}

bool bpe_word(const struct bpe *b, struct bpe_work *w, struct str word, struct ids *out)
{
    return word.n <= SHORT_WORD ? merge_short(b, word, out) : merge_long(b, w, word, out);
}

size_t bpe_work_bytes(const struct bpe_work *w)
{
    return w->cap * (sizeof *w->symbols + 3 * sizeof *w->heap);
}

void bpe_work_free(struct bpe_work *w)
{
    free(w->symbols);
    free(w->heap);
    *w = (struct bpe_work){0};
}
