// POST /tokenize and /detokenize, in the shapes of llama-server and of vLLM (which calls the text
// "prompt" and wants a count).
#include "base/utf8.h"
#include "serve/openai_request.h"
#include "serve/routes.h"

struct tokenize_request {
    struct value content; // a string, or a list of strings and token ids
    bool add_special, parse_special, with_pieces;
};

static bool read_flag(struct value body, const char *name, bool *out, struct err *e)
{
    struct value v = value_get(body, name);
    if (v.kind == VALUE_UNDEFINED || v.kind == VALUE_NULL) return true;
    if (v.kind != VALUE_BOOL)
        return err_set(e, ERR_INPUT, "\"%s\" must be true or false, not %s", name,
                       value_kind_name(v.kind));
    *out = v.b;
    return true;
}

static bool read_request(struct value body, struct tokenize_request *out, struct err *e)
{
    struct tokenize_request r = {.parse_special = true, .content = value_get(body, "content")};
    if (r.content.kind == VALUE_UNDEFINED) r.content = value_get(body, "prompt");
    if (r.content.kind == VALUE_UNDEFINED) return err_set(e, ERR_INPUT, "\"content\" is missing");
    if (r.content.kind != VALUE_STRING && r.content.kind != VALUE_LIST)
        return err_set(e, ERR_INPUT,
                       "\"content\" must be a string or an array of strings and token ids, not %s",
                       value_kind_name(r.content.kind));
    if (!read_flag(body, "add_special", &r.add_special, e) ||
        !read_flag(body, "parse_special", &r.parse_special, e) ||
        !read_flag(body, "with_pieces", &r.with_pieces, e))
        return false;
    *out = r;
    return true;
}

static bool encode_item(const struct tokenizer *tok, struct value v, unsigned flags,
                        struct ids *out, struct err *e)
{
    int32_t id;
    if (v.kind == VALUE_STRING) return tokenizer_encode(tok, v.s, flags, out, e);
    if (!request_token_id(&id, v, tokenizer_n_vocab(tok), "content", e)) return false;
    return ids_put(out, &id, 1) || err_set(e, ERR_MEMORY, "no memory for the tokens");
}

static bool encode(const struct tokenizer *tok, const struct tokenize_request *r, struct ids *out,
                   struct err *e)
{
    unsigned special = r->parse_special ? TOKENIZE_CONTROL : 0;
    unsigned bos = r->add_special ? TOKENIZE_BOS : 0;
    if (r->content.kind == VALUE_STRING)
        return tokenizer_encode(tok, r->content.s, special | bos, out, e);
    for (size_t i = 0; i < r->content.list->n; i++)
        if (!encode_item(tok, r->content.list->items[i], special | (i == 0 ? bos : 0), out, e))
            return false;
    return true;
}

// A piece that is no whole text is given as its bytes.
static void put_piece(struct buf *b, struct str piece)
{
    if (utf8_valid(piece)) {
        buf_json(b, piece);
        return;
    }
    buf_c(b, '[');
    for (size_t i = 0; i < piece.n; i++)
        buf_printf(b, i == 0 ? "%u" : ",%u", (unsigned)(unsigned char)piece.p[i]);
    buf_c(b, ']');
}

static void put_tokens(struct buf *b, const struct tokenizer *tok, const struct ids *ids,
                       bool with_pieces)
{
    buf_z(b, "{\"tokens\":[");
    for (size_t i = 0; i < ids->n; i++) {
        if (i > 0) buf_c(b, ',');
        if (!with_pieces) {
            buf_printf(b, "%d", ids->p[i]);
            continue;
        }
        buf_printf(b, "{\"id\":%d,\"piece\":", ids->p[i]);
        put_piece(b, tokenizer_piece(tok, ids->p[i]));
        buf_c(b, '}');
    }
    buf_c(b, ']');
}

bool route_tokenize(struct exchange *x)
{
    struct err e = {0};
    struct value body = {0};
    struct tokenize_request r = {0};
    struct ids ids = {0};
    struct buf b = {0};
    const struct tokenizer *tok = engine_tokenizer(x->sv->engine);
    bool ok =
        exchange_parse(x, &body, &e) && read_request(body, &r, &e) && encode(tok, &r, &ids, &e);
    if (ok) {
        put_tokens(&b, tok, &ids, r.with_pieces);
        buf_printf(&b, ",\"count\":%zu,\"max_model_len\":%u}", ids.n,
                   engine_info(x->sv->engine)->n_ctx);
    }
    ids_free(&ids);
    return ok ? exchange_send_json(x, &b) : exchange_send_error(x, &e);
}

static bool decode(const struct tokenizer *tok, struct value tokens, struct buf *out, struct err *e)
{
    if (tokens.kind == VALUE_UNDEFINED) return err_set(e, ERR_INPUT, "\"tokens\" is missing");
    if (tokens.kind != VALUE_LIST)
        return err_set(e, ERR_INPUT, "\"tokens\" must be an array of token ids, not %s",
                       value_kind_name(tokens.kind));
    for (size_t i = 0; i < tokens.list->n; i++) {
        int32_t id;
        if (!request_token_id(&id, tokens.list->items[i], tokenizer_n_vocab(tok), "tokens", e))
            return false;
        buf_str(out, tokenizer_piece(tok, id));
    }
    return true;
}

bool route_detokenize(struct exchange *x)
{
    struct err e = {0};
    struct value body = {0};
    struct buf text = {0}, b = {0};
    bool ok = exchange_parse(x, &body, &e) &&
              decode(engine_tokenizer(x->sv->engine), value_get(body, "tokens"), &text, &e);
    if (ok) {
        buf_z(&b, "{\"content\":");
        buf_json(&b, buf_view(&text));
        buf_c(&b, '}');
    }
    if (text.failed) b.failed = true;
    buf_free(&text);
    return ok ? exchange_send_json(x, &b) : exchange_send_error(x, &e);
}
