// Entries in one array, found through a table of their numbers. Entries die in place; a dropped segment
// packs the array and fills the table anew (15,000 entries: below a millisecond, once in 64 MiB).
#include "base/store_index.h"

#include <stdlib.h>
#include <string.h>

enum { MARKS = 4, MARK_BITS = 6 };

uint32_t store_marks(const int32_t *ids, uint32_t n_ids)
{
    uint32_t marks = 0, missing = 0;
    for (uint32_t i = 0; i < MARKS && n_ids >= 2u << i; i++) {
        const uint64_t mark = hash64(ids, (2u << i) * sizeof *ids, 0) % (1u << MARK_BITS);
        marks |= (uint32_t)mark << MARK_BITS * i;
    }
    while (missing < n_ids && missing < 255 && ids[n_ids - 1 - missing] < 0) missing++;
    return marks | missing << 24;
}

uint32_t store_marks_alike(uint32_t a, uint32_t b)
{
    uint32_t n = 0;
    if (a == 0 || b == 0) return 0; // of an older version
    for (uint32_t i = 0; i < MARKS && (a ^ b) % (1u << MARK_BITS * (i + 1)) == 0; i++) n = 2u << i;
    return n;
}

void store_index_free(struct store_index *x)
{
    free(x->entries);
    free(x->table);
    free(x->children);
    free(x->older);
    *x = (struct store_index){0};
}

static void place(struct store_index *x, size_t i)
{
    size_t at = x->entries[i].key.lo & (x->n_table - 1);
    while (x->table[at] != 0) at = (at + 1) & (x->n_table - 1);
    x->table[at] = (uint32_t)i + 1;
    uint32_t *newest = &x->children[x->entries[i].parent.lo & (x->n_table - 1)];
    x->older[i] = *newest;
    *newest = (uint32_t)i + 1;
}

static void fill_table(struct store_index *x)
{
    memset(x->table, 0, x->n_table * sizeof *x->table);
    memset(x->children, 0, x->n_table * sizeof *x->children);
    for (size_t i = 0; i < x->n; i++)
        if (!x->entries[i].dead) place(x, i);
}

static bool make_room(struct store_index *x)
{
    if (x->n < x->cap) return true;
    const size_t cap = x->cap == 0 ? 64 : 2 * x->cap;
    if (cap > UINT32_MAX / 4) return false;
    uint32_t *table = malloc(4 * cap * sizeof *table);
    uint32_t *children = malloc(4 * cap * sizeof *children);
    uint32_t *older = malloc(cap * sizeof *older);
    const bool ok = table != NULL && children != NULL && older != NULL;
    struct store_entry *entries = ok ? realloc(x->entries, cap * sizeof *entries) : NULL;
    if (entries == NULL) {
        free(table);
        free(children);
        free(older);
        return false;
    }
    free(x->table);
    free(x->children);
    free(x->older);
    x->entries = entries;
    x->table = table;
    x->children = children;
    x->older = older;
    x->cap = cap;
    x->n_table = 4 * cap;
    fill_table(x);
    return true;
}

struct store_entry *store_index_find(const struct store_index *x, struct hash128 key)
{
    if (x->n_table == 0) return NULL;
    for (size_t at = key.lo & (x->n_table - 1); x->table[at] != 0;
         at = (at + 1) & (x->n_table - 1)) {
        struct store_entry *entry = &x->entries[x->table[at] - 1];
        if (!entry->dead && hash128_equal(entry->key, key)) return entry;
    }
    return NULL;
}

static const struct store_entry *entry_at(const struct store_index *x, uint32_t number)
{
    return number == 0 ? NULL : &x->entries[number - 1];
}

const struct store_entry *store_index_newest(const struct store_index *x, struct hash128 parent)
{
    return x->n_table == 0 ? NULL : entry_at(x, x->children[parent.lo & (x->n_table - 1)]);
}

const struct store_entry *store_index_older(const struct store_index *x,
                                            const struct store_entry *entry)
{
    return entry_at(x, x->older[entry - x->entries]);
}

bool store_index_add(struct store_index *x, const struct store_entry *entry)
{
    if (!make_room(x)) return false;
    struct store_entry *old = store_index_find(x, entry->key);
    if (old != NULL) store_index_kill(x, old);
    x->entries[x->n] = *entry;
    place(x, x->n++);
    x->n_alive++;
    x->n_changes++;
    return true;
}

void store_index_kill(struct store_index *x, struct store_entry *entry)
{
    if (!entry->dead) x->n_alive--;
    x->n_changes++;
    entry->dead = true;
}

void store_index_drop_segment(struct store_index *x, uint32_t i_segment)
{
    size_t n = 0;
    x->n_alive = 0;
    for (size_t i = 0; i < x->n; i++) {
        if (x->entries[i].dead || x->entries[i].i_segment == i_segment) continue;
        x->entries[n++] = x->entries[i];
        x->n_alive++;
    }
    x->n = n;
    x->n_changes++;
    if (x->n_table > 0) fill_table(x);
}
