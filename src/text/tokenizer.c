// The tokenizer: text -> segments between special tokens -> words -> token ids, and back.
// A segment is cleaned first (guards dropped, bad bytes replaced, NFC), as Hugging Face normalises
// the text between added tokens and never across them.
// Invariant: after open all but the pool and the memo is immutable; each call works in a scratch of
// its own, so that any number of threads may encode at once.
#include "text/tokenizer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "text/bpe.h"
#include "text/memo.h"
#include "text/nfc.h"
#include "text/pieces.h"
#include "text/pretok.h"
#include "text/repair.h"
#include "text/special.h"
#include "text/wordcache.h"

enum {
    MEMO_BYTES = 32 << 20,        // about 200 bootstraps of 17,000 tokens
    POOL_MAX = 8,                 // scratches kept for the next call
    SCRATCH_KEEP_BYTES = 4 << 20, // a kept scratch's buffers are freed above this
    MAX_ENDS = 16,
};

// Texts that end a turn in the chat formats of known models; those that are control tokens count.
static const char *const end_names[] = {
    "<|im_end|>",      "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end|>",
    "<|end_of_text|>", "<end_of_turn>", "</s>",       "<|return|>", "<|call|>",
};
enum { N_END_NAMES = sizeof end_names / sizeof *end_names };

// What one call needs. Kept in a pool, because the words of the last text are in its cache.
struct scratch {
    struct scratch *next;
    struct pretok_work *pretok;
    struct wordcache words;
    struct bpe_work bpe;
    struct nfc_work nfc;
    struct buf clean, normal;
};

// The part that changes after open.
struct shared {
    pthread_mutex_t lock; // guards pool and n_pool
    struct scratch *pool;
    int n_pool;
    struct memo *memo; // locks itself
};

struct tokenizer {
    const struct pretok_rule *rule;
    struct pretok *pretok;
    struct pieces pieces;
    struct special special;
    struct bpe bpe;
    int32_t bos, eos;
    bool add_bos;
    int32_t ends[MAX_ENDS];
    int n_ends;
    struct shared *shared;
};

static void scratch_close(struct scratch *s)
{
    if (s == NULL) return;
    pretok_work_close(s->pretok);
    wordcache_close(&s->words);
    bpe_work_free(&s->bpe);
    nfc_work_free(&s->nfc);
    buf_free(&s->clean);
    buf_free(&s->normal);
    free(s);
}

static struct scratch *scratch_open(const struct tokenizer *t)
{
    struct scratch *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->pretok = pretok_work_open(t->pretok);
    if (s->pretok != NULL && wordcache_open(&s->words)) return s;
    scratch_close(s);
    return NULL;
}

static struct scratch *scratch_take(const struct tokenizer *t)
{
    struct shared *h = t->shared;
    pthread_mutex_lock(&h->lock);
    struct scratch *s = h->pool;
    if (s != NULL) {
        h->pool = s->next;
        h->n_pool--;
    }
    pthread_mutex_unlock(&h->lock);
    return s != NULL ? s : scratch_open(t);
}

static void scratch_give(const struct tokenizer *t, struct scratch *s)
{
    struct shared *h = t->shared;
    if (bpe_work_bytes(&s->bpe) > SCRATCH_KEEP_BYTES) bpe_work_free(&s->bpe);
    if (s->nfc.cap * sizeof *s->nfc.points > SCRATCH_KEEP_BYTES) nfc_work_free(&s->nfc);
    if (s->clean.cap > SCRATCH_KEEP_BYTES) buf_free(&s->clean);
    if (s->normal.cap > SCRATCH_KEEP_BYTES) buf_free(&s->normal);
    pthread_mutex_lock(&h->lock);
    bool keep = h->n_pool < POOL_MAX;
    if (keep) {
        s->next = h->pool;
        h->pool = s;
        h->n_pool++;
    }
    pthread_mutex_unlock(&h->lock);
    if (!keep) scratch_close(s);
}

static struct shared *shared_open(void)
{
    struct shared *h = calloc(1, sizeof *h);
    if (h == NULL) return NULL;
    h->memo = memo_open(MEMO_BYTES);
    if (h->memo == NULL) {
        free(h);
        return NULL;
    }
    pthread_mutex_init(&h->lock, NULL);
    return h;
}

static void shared_close(struct shared *h)
{
    if (h == NULL) return;
    for (struct scratch *s = h->pool, *next; s != NULL; s = next) {
        next = s->next;
        scratch_close(s);
    }
    memo_close(h->memo);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static void add_end(struct tokenizer *t, int32_t id)
{
    if (id < 0 || tokenizer_is_end(t, id) || t->n_ends == MAX_ENDS) return;
    t->ends[t->n_ends++] = id;
}

static void find_ends(struct tokenizer *t, const struct tokenizer_data *d)
{
    add_end(t, d->eos);
    add_end(t, d->eot);
    for (int i = 0; i < N_END_NAMES; i++) {
        int32_t id = special_exact(&t->special, str_from(end_names[i]));
        if (id >= 0 && t->pieces.kinds[id] == TOKEN_CONTROL) add_end(t, id);
    }
}

static bool check_ids(const struct tokenizer_data *d, struct err *e)
{
    const struct {
        const char *key;
        int32_t id;
    } ids[] = {{"bos", d->bos}, {"eos", d->eos}, {"eot", d->eot}, {"padding", d->pad}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i].id < -1 || (ids[i].id >= 0 && (uint32_t)ids[i].id >= d->n_tokens))
            return err_set(e, ERR_FORMAT,
                           "tokenizer.ggml.%s_token_id is %d; the vocabulary has %u tokens",
                           ids[i].key, ids[i].id, d->n_tokens);
    return true;
}

static bool open_parts(struct tokenizer *t, const struct tokenizer_data *d, struct err *e)
{
    int shown = d->model.n > 80 ? 80 : (int)d->model.n;
    if (!str_eq(d->model, STR("gpt2")))
        return err_set(e, ERR_UNSUPPORTED,
                       "tokenizer.ggml.model is '%.*s'; only 'gpt2' (byte-level BPE) is supported",
                       shown, d->model.p == NULL ? "" : d->model.p);
    t->rule = pretok_find(d->pre, e);
    if (t->rule == NULL || !check_ids(d, e)) return false;
    if (!pretok_open(&t->pretok, t->rule, e)) return false;
    if (!pieces_open(&t->pieces, d, e)) return false;
    if (!special_open(&t->special, &t->pieces, e)) return false;
    if (!bpe_open(&t->bpe, &t->pieces, d->merges, d->n_merges, e)) return false;
    t->shared = shared_open();
    if (t->shared == NULL) return err_set(e, ERR_MEMORY, "no memory for the tokenizer");
    t->bos = d->bos;
    t->eos = d->eos;
    t->add_bos = d->add_bos;
    find_ends(t, d);
    struct scratch *first = scratch_open(t); // so that the first request need not wait for it
    if (first == NULL) return err_set(e, ERR_MEMORY, "no memory for the tokenizer");
    scratch_give(t, first);
    return true;
}

bool tokenizer_open(struct tokenizer **out, const struct tokenizer_data *d, struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    if (t == NULL) return err_set(e, ERR_MEMORY, "no memory for the tokenizer");
    if (!open_parts(t, d, e)) {
        tokenizer_close(t);
        return false;
    }
    *out = t;
    return true;
}

void tokenizer_close(struct tokenizer *t)
{
    if (t == NULL) return;
    shared_close(t->shared);
    bpe_close(&t->bpe);
    special_close(&t->special);
    pieces_close(&t->pieces);
    pretok_close(t->pretok);
    free(t);
}

static bool is_ascii(struct str s)
{
    size_t i = 0;
    uint64_t high = 0;
    for (; i + 8 <= s.n; i += 8) {
        uint64_t eight;
        memcpy(&eight, s.p + i, 8);
        high |= eight;
    }
    for (; i < s.n; i++) high |= (unsigned char)s.p[i];
    return (high & 0x8080808080808080u) == 0;
}

// Guards dropped, bad bytes replaced, normalised; borrows from s or from the scratch.
static bool prepare(const struct tokenizer *t, struct scratch *w, struct str *s)
{
    if (is_ascii(*s)) return true;
    if (!utf8_valid(*s)) {
        buf_clear(&w->clean);
        repair_utf8(&w->clean, *s, (unsigned char)TOKENIZE_GUARD);
        if (w->clean.failed) return false;
        *s = buf_view(&w->clean);
    }
    if (!t->rule->nfc) return true;
    buf_clear(&w->normal);
    if (!nfc_put(&w->normal, *s, &w->nfc)) return false;
    *s = buf_view(&w->normal);
    return true;
}

static bool merge_word(const struct tokenizer *t, struct scratch *w, struct str word,
                       struct ids *out)
{
    if (t->rule->whole_words) {
        int32_t id = pieces_find(&t->pieces, word);
        if (id >= 0) return ids_put(out, &id, 1);
    }
    return bpe_word(&t->bpe, &w->bpe, word, out);
}

static bool put_word(const struct tokenizer *t, struct scratch *w, struct str word, struct ids *out)
{
    if (word.n > WORD_MAX_BYTES) return merge_word(t, w, word, out);
    struct word_entry *known = wordcache_find(&w->words, word);
    if (known->n > 0) return ids_put(out, known->ids, known->n_ids);
    size_t before = out->n;
    if (!merge_word(t, w, word, out)) return false;
    wordcache_put(known, out->p + before, out->n - before, word.n);
    return true;
}

static bool fail_memory(struct err *e, struct str text)
{
    return err_set(e, ERR_MEMORY, "no memory to tokenise %zu bytes", text.n);
}

// Appends the ids of text that holds no special token.
static bool put_segment(const struct tokenizer *t, struct scratch *w, struct str text,
                        uint64_t space, struct ids *out, struct err *e)
{
    bool no_memory = false, memoise = text.n >= MEMO_MIN_BYTES;
    if (memoise && memo_get(t->shared->memo, space, text, out, &no_memory)) return true;
    struct str s = text;
    size_t before = out->n;
    if (no_memory || !prepare(t, w, &s)) return fail_memory(e, text);
    for (size_t pos = 0; pos < s.n;) {
        size_t end = pretok_next(t->pretok, w->pretok, s, pos);
        if (end == SIZE_MAX)
            return err_set(e, ERR_INTERNAL, "the pre-tokenizer failed at byte %zu", pos);
        if (!put_word(t, w, str_sub(s, pos, end - pos), out)) return fail_memory(e, text);
        pos = end;
    }
    if (memoise) memo_put(t->shared->memo, space, text, out->p + before, out->n - before);
    return true;
}

static bool put_text(const struct tokenizer *t, struct scratch *w, struct str text, unsigned flags,
                     const struct tokenizer_help *help, struct ids *out, struct err *e)
{
    unsigned set = (flags & TOKENIZE_CONTROL) != 0 ? SPECIAL_ALL : SPECIAL_USER;
    for (size_t pos = 0; pos < text.n;) {
        struct special_hit hit = special_find(&t->special, text, pos, set);
        size_t end = hit.id < 0 ? text.n : hit.at;
        const struct str piece = str_sub(text, pos, end - pos);
        const bool done =
            piece.n == 0 || (help->known != NULL && help->known(help->arg, piece, out));
        if (!done && !put_segment(t, w, piece, help->space, out, e)) return false;
        if (hit.id >= 0 && !ids_put(out, &hit.id, 1)) return fail_memory(e, text);
        pos = end + (hit.id < 0 ? 0 : hit.n);
    }
    return true;
}

static bool encode(const struct tokenizer *t, struct str text, unsigned flags,
                   const struct tokenizer_help *help, struct ids *out, struct err *e)
{
    if (text.n > INT32_MAX)
        return err_set(e, ERR_TOO_LARGE, "a text of %zu bytes; at most %d can be tokenised", text.n,
                       INT32_MAX);
    struct scratch *w = scratch_take(t);
    if (w == NULL) return fail_memory(e, text);
    size_t before = out->n;
    bool ok = true;
    if ((flags & TOKENIZE_BOS) != 0 && t->add_bos && t->bos >= 0 && !ids_put(out, &t->bos, 1))
        ok = fail_memory(e, text);
    ok = ok && put_text(t, w, text, flags, help, out, e);
    if (!ok) out->n = before;
    scratch_give(t, w);
    return ok;
}

bool tokenizer_encode(const struct tokenizer *t, struct str text, unsigned flags, struct ids *out,
                      struct err *e)
{
    return encode(t, text, flags, &(struct tokenizer_help){0}, out, e);
}

bool tokenizer_encode_with(const struct tokenizer *t, struct str text, unsigned flags,
                           const struct tokenizer_help *help, struct ids *out, struct err *e)
{
    return encode(t, text, flags, help, out, e);
}

uint64_t tokenizer_space(struct str salt)
{
    return salt.n == 0 ? 0 : hash64(salt.p, salt.n, 0);
}

static bool is_id(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->pieces.n;
}

struct str tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    return is_id(t, id) ? pieces_at(&t->pieces, (uint32_t)id) : STR("");
}

enum token_kind tokenizer_kind(const struct tokenizer *t, int32_t id)
{
    return is_id(t, id) ? (enum token_kind)t->pieces.kinds[id] : TOKEN_UNUSED;
}

int32_t tokenizer_special(const struct tokenizer *t, struct str text)
{
    return special_exact(&t->special, text);
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->n_ends; i++)
        if (t->ends[i] == id) return true;
    return false;
}

uint32_t tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->pieces.n;
}
int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}
int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

size_t tokenizer_find_control(const struct tokenizer *t, struct str s, size_t from, size_t *n)
{
    struct special_hit hit = special_find(&t->special, s, from, SPECIAL_CONTROL);
    if (hit.id >= 0) *n = hit.n;
    return hit.at;
}
