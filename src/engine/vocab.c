// Reads tokenizer.ggml.{model,pre,tokens,token_type,merges,*_token_id,add_bos_token}.
// Source: the GGUF specification, section "Tokenizer".
// Invariant: array lengths were bounded by the file's size when it was opened, so that what is
// allocated here is at most a few times the file.
#include "engine/vocab.h"

#include <stdlib.h>

#include "base/size.h"

// The array under key, of that item type or any (GGUF_TYPE_COUNT); NULL with an error. Absent is an
// error too, unless optional.
static const struct gguf_kv *find_array(const struct gguf *g, const char *key, bool optional,
                                        bool *ok, struct err *e)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    *ok = true;
    if (kv == NULL && optional) return NULL;
    if (kv == NULL) {
        *ok = err_set(e, ERR_FORMAT, "%s: key '%s' is missing", gguf_path(g), key);
    } else if (kv->type != GGUF_ARRAY) {
        *ok = err_set(e, ERR_FORMAT, "%s: key '%s' is not an array", gguf_path(g), key);
    } else if (kv->n_items > INT32_MAX) {
        *ok = err_set(e, ERR_FORMAT, "%s: key '%s' has %llu items", gguf_path(g), key,
                      (unsigned long long)kv->n_items);
    }
    return *ok ? kv : NULL;
}

// Reads an array of strings into *out (to free); *n stays 0 where an optional key is absent.
static bool read_texts(const struct gguf *g, const char *key, bool optional, struct str **out,
                       uint32_t *n, struct err *e)
{
    bool ok;
    const struct gguf_kv *kv = find_array(g, key, optional, &ok, e);
    if (kv == NULL) return ok;
    size_t bytes;
    if (!size_mul(&bytes, (size_t)kv->n_items, sizeof **out)) bytes = SIZE_MAX;
    *out = malloc(bytes == 0 ? 1 : bytes);
    if (*out == NULL)
        return err_set(e, ERR_MEMORY, "no memory for the %zu items of '%s'", (size_t)kv->n_items,
                       key);
    *n = (uint32_t)kv->n_items;
    return gguf_array_str(kv, *out, e) || err_prefix(e, "%s: '%s': ", gguf_path(g), key);
}

static bool read_types(const struct gguf *g, uint32_t n_tokens, int32_t **out, struct err *e)
{
    const char *key = "tokenizer.ggml.token_type";
    bool ok;
    const struct gguf_kv *kv = find_array(g, key, true, &ok, e);
    if (kv == NULL) return ok;
    if (kv->n_items != n_tokens)
        return err_set(e, ERR_FORMAT, "%s: '%s' has %llu items, there are %u tokens", gguf_path(g),
                       key, (unsigned long long)kv->n_items, n_tokens);
    *out = malloc(n_tokens == 0 ? 1 : n_tokens * sizeof **out);
    if (*out == NULL) return err_set(e, ERR_MEMORY, "no memory for %u token types", n_tokens);
    return gguf_array_i32(kv, *out, e) || err_prefix(e, "%s: '%s': ", gguf_path(g), key);
}

static bool read_id(const struct gguf *g, const char *key, int32_t *out, struct err *e)
{
    uint32_t id = UINT32_MAX; // also what some files write for "none"
    if (!gguf_get_u32(g, key, &id, e)) return false;
    if (id != UINT32_MAX && id > INT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: '%s' is %u", gguf_path(g), key, id);
    *out = id == UINT32_MAX ? -1 : (int32_t)id;
    return true;
}

static bool read_scalars(struct tokenizer_data *d, const struct gguf *g, struct err *e)
{
    return gguf_get_str(g, "tokenizer.ggml.model", &d->model, e) &&
           gguf_get_str(g, "tokenizer.ggml.pre", &d->pre, e) &&
           read_id(g, "tokenizer.ggml.bos_token_id", &d->bos, e) &&
           read_id(g, "tokenizer.ggml.eos_token_id", &d->eos, e) &&
           read_id(g, "tokenizer.ggml.eot_token_id", &d->eot, e) &&
           read_id(g, "tokenizer.ggml.padding_token_id", &d->pad, e) &&
           gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &d->add_bos, e);
}

bool vocab_open(struct tokenizer **out, const struct gguf *g, struct err *e)
{
    struct tokenizer_data d = {0};
    struct str *tokens = NULL, *merges = NULL;
    int32_t *types = NULL;
    bool ok = read_scalars(&d, g, e);
    if (ok && d.model.n == 0)
        ok = err_set(e, ERR_FORMAT, "%s: key 'tokenizer.ggml.model' is missing", gguf_path(g));
    ok = ok && read_texts(g, "tokenizer.ggml.tokens", false, &tokens, &d.n_tokens, e) &&
         read_texts(g, "tokenizer.ggml.merges", true, &merges, &d.n_merges, e) &&
         read_types(g, d.n_tokens, &types, e);
    d.tokens = tokens;
    d.merges = merges;
    d.types = types;
    if (ok && !tokenizer_open(out, &d, e)) ok = err_prefix(e, "%s: ", gguf_path(g));
    free(tokens);
    free(merges);
    free(types);
    return ok;
}
