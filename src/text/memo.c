// An LRU of segments. Locking: one mutex guards the table, the list, the counters and every entry's
// n_users; an entry's text and ids never change, so that they are compared and copied outside the
// lock while n_users holds the entry. Chosen over a 128-bit hash alone because comparing 60 KB
// costs 3 us.
// Invariant: an entry is freed when it is out of the list and n_users is 0.
#include "text/memo.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { N_BUCKETS = 8192 };

struct memo_entry {
    struct memo_entry *chain; // next in its bucket
    struct memo_entry *newer, *older;
    uint64_t hash, space;
    unsigned n_users;
    bool listed;
    size_t n_text, n_ids;
    int32_t data[]; // ids, then the text
};

struct memo {
    pthread_mutex_t lock;
    struct memo_entry *buckets[N_BUCKETS];
    struct memo_entry *newest, *oldest;
    size_t used_bytes, max_bytes;
};

static const char *entry_text(const struct memo_entry *x)
{
    return (const char *)(x->data + x->n_ids);
}

static size_t entry_bytes(size_t n_text, size_t n_ids)
{
    return sizeof(struct memo_entry) + n_ids * sizeof(int32_t) + n_text;
}

struct memo *memo_open(size_t max_bytes)
{
    struct memo *m = calloc(1, sizeof *m);
    if (m == NULL) return NULL;
    m->max_bytes = max_bytes;
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

void memo_close(struct memo *m)
{
    if (m == NULL) return;
    for (struct memo_entry *x = m->newest, *older; x != NULL; x = older) {
        older = x->older;
        free(x);
    }
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static void list_push(struct memo *m, struct memo_entry *x)
{
    x->newer = NULL;
    x->older = m->newest;
    if (m->newest != NULL) m->newest->newer = x;
    m->newest = x;
    if (m->oldest == NULL) m->oldest = x;
}

static void list_take(struct memo *m, struct memo_entry *x)
{
    if (x->newer != NULL) x->newer->older = x->older;
    if (x->older != NULL) x->older->newer = x->newer;
    if (m->newest == x) m->newest = x->older;
    if (m->oldest == x) m->oldest = x->newer;
}

static void drop_oldest(struct memo *m)
{
    struct memo_entry *x = m->oldest;
    struct memo_entry **link = &m->buckets[x->hash % N_BUCKETS];
    while (*link != x) link = &(*link)->chain;
    *link = x->chain;
    list_take(m, x);
    m->used_bytes -= entry_bytes(x->n_text, x->n_ids);
    x->listed = false;
    if (x->n_users == 0) free(x);
}

// The entry with this hash and length, held for the caller; NULL when there is none. At most one is
// listed for a hash (memo_put), so that a collision costs a miss and nothing else.
static struct memo_entry *hold(struct memo *m, uint64_t space, uint64_t hash, size_t n_text)
{
    pthread_mutex_lock(&m->lock);
    struct memo_entry *x = m->buckets[hash % N_BUCKETS];
    while (x != NULL && (x->hash != hash || x->space != space || x->n_text != n_text)) x = x->chain;
    if (x != NULL) {
        x->n_users++;
        list_take(m, x);
        list_push(m, x);
    }
    pthread_mutex_unlock(&m->lock);
    return x;
}

static void release(struct memo *m, struct memo_entry *x)
{
    pthread_mutex_lock(&m->lock);
    x->n_users--;
    bool gone = !x->listed && x->n_users == 0;
    pthread_mutex_unlock(&m->lock);
    if (gone) free(x);
}

bool memo_get(struct memo *m, uint64_t space, struct str text, struct ids *out, bool *no_memory)
{
    struct memo_entry *x = hold(m, space, hash64(text.p, text.n, space), text.n);
    if (x == NULL) return false;
    bool same = memcmp(entry_text(x), text.p, text.n) == 0;
    bool put = same && ids_put(out, x->data, x->n_ids);
    release(m, x);
    *no_memory = same && !put;
    return put;
}

void memo_put(struct memo *m, uint64_t space, struct str text, const int32_t *ids, size_t n)
{
    size_t bytes = entry_bytes(text.n, n);
    if (bytes > m->max_bytes / 4) return; // one segment must not push out all others
    struct memo_entry *x = malloc(bytes);
    if (x == NULL) return;
    *x = (struct memo_entry){.hash = hash64(text.p, text.n, space), .space = space, .listed = true};
    x->n_text = text.n;
    x->n_ids = n;
    if (n > 0) memcpy(x->data, ids, n * sizeof *ids);
    memcpy(x->data + n, text.p, text.n);
    pthread_mutex_lock(&m->lock);
    struct memo_entry **bucket = &m->buckets[x->hash % N_BUCKETS];
    struct memo_entry *other = *bucket;
    while (other != NULL &&
           (other->hash != x->hash || other->space != space || other->n_text != x->n_text))
        other = other->chain;
    if (other == NULL) {
        while (m->oldest != NULL && m->used_bytes + bytes > m->max_bytes) drop_oldest(m);
        x->chain = *bucket;
        *bucket = x;
        list_push(m, x);
        m->used_bytes += bytes;
    }
    pthread_mutex_unlock(&m->lock);
    if (other != NULL) free(x); // another thread was quicker
}
