// A piece is what stands between two special tokens; these the tokenizer never joins with anything. Its
// key is a digest of all token ids before it, so a piece is put back only behind exactly the tokens
// that it was sampled behind: there the cached pages are. Calls of tools come back as JSON that some
// client wrote anew: a piece also counts as the same when both are JSON of the same value.
//
// Most answers are spelled as the tokenizer spells them; those are not kept, and the table stays small.
// Invariant: the ring holds the entries in the order of their coming; a bucket names the latest one.
#include "text/splice.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "text/value.h"

enum { N_BUCKETS = 4096, RING = 8192, JSON_MAX_BYTES = 1 << 20 };

struct entry {
    uint64_t key;
    struct str text; // with ids behind it in one allocation
    int32_t *ids;
    size_t n_ids;
    uint32_t next; // in the bucket; index + 1, 0 ends
};

struct splice {
    pthread_mutex_t lock;
    struct entry ring[RING];
    uint32_t buckets[N_BUCKETS]; // index + 1
    uint64_t first, n;           // entries [first, n) of the ring are there
    size_t bytes, max_bytes;
};

struct splice *splice_open(size_t max_bytes)
{
    struct splice *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->max_bytes = max_bytes;
    return s;
}

static size_t entry_bytes(const struct entry *e)
{
    return e->text.n + e->n_ids * sizeof *e->ids;
}

static void drop_first(struct splice *s)
{
    const uint32_t i = (uint32_t)(s->first++ % RING);
    struct entry *e = &s->ring[i];
    uint32_t *link = &s->buckets[e->key % N_BUCKETS];
    while (*link != i + 1) link = &s->ring[*link - 1].next;
    *link = e->next;
    s->bytes -= entry_bytes(e);
    free(e->ids);
    *e = (struct entry){0};
}

void splice_close(struct splice *s)
{
    if (s == NULL) return;
    while (s->first < s->n) drop_first(s);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

size_t splice_count(struct splice *s)
{
    pthread_mutex_lock(&s->lock);
    const size_t n = (size_t)(s->n - s->first);
    pthread_mutex_unlock(&s->lock);
    return n;
}

// ---- digests ------------------------------------------------------------------------------------

// One token further. Any good mixing does: a false match is followed by a comparison of the text.
static uint64_t mix(uint64_t digest, int32_t id)
{
    digest = (digest ^ (uint32_t)id) * 0x9e3779b97f4a7c15u;
    return digest ^ digest >> 29;
}

static uint64_t mix_all(uint64_t digest, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) digest = mix(digest, ids[i]);
    return digest;
}

static uint64_t start_digest(struct str salt)
{
    return hash64(salt.p, salt.n, 0);
}

static bool is_special(const struct tokenizer *t, int32_t id)
{
    const enum token_kind kind = tokenizer_kind(t, id);
    return kind == TOKEN_CONTROL || kind == TOKEN_USER;
}

// ---- putting back -------------------------------------------------------------------------------

static bool same_json(struct str a, struct str b)
{
    struct arena arena = {.limit_bytes = 64u * JSON_MAX_BYTES};
    struct value x, y;
    struct buf p = {0}, q = {0};
    a = str_trim(a);
    b = str_trim(b);
    const struct value_dump_style style = {.indent = -1, .sort_keys = true};
    bool same = a.n > 1 && b.n > 1 && a.p[0] == '{' && b.p[0] == '{' && a.n <= JSON_MAX_BYTES &&
                value_parse(&x, &arena, a, NULL) && value_parse(&y, &arena, b, NULL) &&
                value_dump_with(&p, x, &style) && value_dump_with(&q, y, &style);
    same = same && !p.failed && !q.failed && str_eq(buf_view(&p), buf_view(&q));
    buf_free(&p);
    buf_free(&q);
    arena_free(&arena);
    return same;
}

static bool same_text(const struct entry *e, struct str text)
{
    if (str_eq(e->text, text)) return true;
    // Only a piece that begins and ends as a call does is worth parsing.
    const struct str inner = str_trim(text);
    return inner.n > 1 && inner.p[0] == '{' && same_json(e->text, text);
}

struct encoding {
    struct splice *splice;
    uint64_t digest; // of ids[0, n)
    size_t n;
};

// tokenizer_known: what stands in out is before the piece.
static bool find_piece(void *arg, struct str text, struct ids *out)
{
    struct encoding *x = arg;
    struct splice *s = x->splice;
    bool found = false;
    x->digest = mix_all(x->digest, out->p + x->n, out->n - x->n);
    x->n = out->n;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = s->buckets[x->digest % N_BUCKETS]; i != 0 && !found;
         i = s->ring[i - 1].next) {
        const struct entry *e = &s->ring[i - 1];
        found = e->key == x->digest && same_text(e, text) && ids_put(out, e->ids, e->n_ids);
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

bool splice_encode(struct splice *s, const struct tokenizer *t, struct str salt, struct str text,
                   unsigned flags, struct ids *out, struct err *e)
{
    struct encoding x = {.splice = s, .digest = start_digest(salt)};
    struct tokenizer_help help = {.space = tokenizer_space(salt)};
    if (s != NULL && out->n == 0 && splice_count(s) > 0) {
        help.known = find_piece;
        help.arg = &x;
    }
    return tokenizer_encode_with(t, text, flags, &help, out, e);
}

// ---- learning -----------------------------------------------------------------------------------

bool splice_place_of(struct splice_place *out, const struct tokenizer *t, struct str salt,
                     const struct ids *prompt)
{
    size_t tail = prompt->n;
    *out = (struct splice_place){0};
    while (tail > 0 && !is_special(t, prompt->p[tail - 1])) tail--;
    out->space = tokenizer_space(salt);
    out->before = mix_all(start_digest(salt), prompt->p, tail);
    return ids_put(&out->tail, prompt->p + tail, prompt->n - tail);
}

void splice_place_free(struct splice_place *p)
{
    ids_free(&p->tail);
    *p = (struct splice_place){0};
}

static void remember(struct splice *s, uint64_t key, struct str text, const struct ids *ids)
{
    const size_t need = text.n + ids->n * sizeof *ids->p;
    int32_t *room = need > s->max_bytes ? NULL : malloc(need);
    if (room == NULL) return;
    memcpy(room, ids->p, ids->n * sizeof *room);
    memcpy(room + ids->n, text.p, text.n);
    pthread_mutex_lock(&s->lock);
    while (s->n - s->first == RING || (s->bytes + need > s->max_bytes && s->first < s->n))
        drop_first(s);
    const uint32_t i = (uint32_t)(s->n++ % RING);
    s->ring[i] = (struct entry){.key = key,
                                .text = {(const char *)(room + ids->n), text.n},
                                .ids = room,
                                .n_ids = ids->n,
                                .next = s->buckets[key % N_BUCKETS]};
    s->buckets[key % N_BUCKETS] = i + 1;
    s->bytes += need;
    pthread_mutex_unlock(&s->lock);
}

// A whole piece: kept when the tokenizer would spell it otherwise.
static void learn_piece(struct splice *s, const struct tokenizer *t, uint64_t space,
                        uint64_t before, const struct ids *piece)
{
    struct buf text = {0};
    struct ids own = {0};
    for (size_t i = 0; i < piece->n; i++) buf_str(&text, tokenizer_piece(t, piece->p[i]));
    if (piece->n > 0 && !text.failed && text.n > 0 &&
        tokenizer_encode_with(t, buf_view(&text), 0, &(struct tokenizer_help){.space = space}, &own,
                              NULL)) {
        const bool same = own.n == piece->n && memcmp(own.p, piece->p, own.n * sizeof *own.p) == 0;
        if (!same) remember(s, before, buf_view(&text), piece);
    }
    ids_free(&own);
    buf_free(&text);
}

void splice_learn(struct splice *s, const struct tokenizer *t, const struct splice_place *p,
                  const struct ids *sampled)
{
    struct ids piece = {0};
    uint64_t before = p->before;
    bool ok = ids_put(&piece, p->tail.p, p->tail.n);
    for (size_t i = 0; ok && i < sampled->n; i++) {
        const int32_t id = sampled->p[i];
        if (!is_special(t, id)) {
            ok = ids_put(&piece, &id, 1);
            continue;
        }
        learn_piece(s, t, p->space, before, &piece);
        before = mix(mix_all(before, piece.p, piece.n), id);
        piece.n = 0;
    }
    if (ok) learn_piece(s, t, p->space, before, &piece);
    ids_free(&piece);
}
