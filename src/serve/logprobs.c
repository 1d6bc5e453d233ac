// A token that is part of a character has U+FFFD as its text; "bytes" has the truth.
#include "serve/logprobs.h"

#include "serve/openai_response.h"

static void put_token(struct buf *b, const struct tokenizer *tok, int32_t id, float logprob)
{
    struct str piece = tokenizer_piece(tok, id);
    buf_printf(b, "{\"id\":%d,\"token\":", id);
    buf_json(b, piece);
    buf_z(b, ",\"logprob\":");
    response_number(b, (double)logprob);
    buf_z(b, ",\"bytes\":[");
    for (size_t i = 0; i < piece.n; i++)
        buf_printf(b, i == 0 ? "%u" : ",%u", (unsigned)(unsigned char)piece.p[i]);
    buf_c(b, ']');
}

static void add_chat(struct logprobs *l, const struct tokenizer *tok, const struct stream_event *ev)
{
    struct buf *b = &l->items;
    if (l->n > 0) buf_c(b, ',');
    put_token(b, tok, ev->id, ev->logprob);
    buf_z(b, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < ev->n_top; i++) {
        if (i > 0) buf_c(b, ',');
        put_token(b, tok, ev->top[i].id, ev->top[i].logprob);
        buf_c(b, '}');
    }
    buf_z(b, "]}");
}

static size_t n_chars(struct str s)
{
    size_t n = 0; // bytes that start a character
    for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static void add_text(struct logprobs *l, const struct tokenizer *tok, const struct stream_event *ev)
{
    struct str piece = tokenizer_piece(tok, ev->id);
    struct buf *lists[] = {&l->tokens, &l->values, &l->tops, &l->offsets};
    for (size_t i = 0; l->n > 0 && i < 4; i++) buf_c(lists[i], ',');
    buf_json(&l->tokens, piece);
    response_number(&l->values, (double)ev->logprob);
    buf_printf(&l->offsets, "%zu", l->text_offset);
    buf_c(&l->tops, '{');
    for (uint32_t i = 0; i < ev->n_top; i++) {
        if (i > 0) buf_c(&l->tops, ',');
        buf_json(&l->tops, tokenizer_piece(tok, ev->top[i].id));
        buf_c(&l->tops, ':');
        response_number(&l->tops, (double)ev->top[i].logprob);
    }
    buf_c(&l->tops, '}');
    l->text_offset += n_chars(piece);
}

void logprobs_add(struct logprobs *l, const struct tokenizer *tok, const struct stream_event *ev)
{
    if (l->chat)
        add_chat(l, tok, ev);
    else
        add_text(l, tok, ev);
    l->n++;
}

void logprobs_put(struct logprobs *l, struct buf *out)
{
    if (l->n == 0) return;
    buf_z(out, ",\"logprobs\":{");
    if (l->chat) {
        buf_z(out, "\"content\":[");
        buf_str(out, buf_view(&l->items));
        buf_z(out, "],\"refusal\":null}");
    } else {
        static const char *const names[] = {"\"tokens\":[", "],\"token_logprobs\":[",
                                            "],\"top_logprobs\":[", "],\"text_offset\":["};
        struct buf *lists[] = {&l->tokens, &l->values, &l->tops, &l->offsets};
        for (size_t i = 0; i < 4; i++) {
            buf_z(out, names[i]);
            buf_str(out, buf_view(lists[i]));
            buf_clear(lists[i]);
        }
        buf_z(out, "]}");
    }
    buf_clear(&l->items);
    l->n = 0;
}

void logprobs_free(struct logprobs *l)
{
    struct buf *all[] = {&l->items, &l->tokens, &l->values, &l->tops, &l->offsets};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) buf_free(all[i]);
    *l = (struct logprobs){0};
}
