// A request body -> parameters, chat and text. The input may say nothing that crashes, hangs, or
// leaves values outside their bounds.
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/openai_request.h"
#include "text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { N_VOCAB = 4096 };

static void check(const struct request_params *p)
{
    const struct sampling *s = &p->sampling;
    assert(p->n_stops <= STOPS_MAX && p->n_bias <= BIAS_MAX);
    assert(p->n_top_logprobs <= TOP_LOGPROBS_MAX);
    assert(!s->has_temperature || (s->temperature >= 0 && s->temperature <= 2));
    assert(!s->has_top_p || (s->top_p >= 0 && s->top_p <= 1));
    assert(isfinite(s->presence_penalty) && isfinite(s->frequency_penalty));
    assert(p->thinking >= -1 && p->thinking <= 1);
    for (size_t i = 0; i < p->n_bias; i++)
        assert(p->bias[i].token >= 0 && p->bias[i].token < N_VOCAB && isfinite(p->bias[i].bias));
    for (size_t i = 0; i < p->n_stops; i++) assert(p->stops[i].n > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a = {.limit_bytes = 256u << 20};
    struct err e = {0}, e2 = {0}, e3 = {0};
    struct value body = {0};
    struct request_params p = {0};
    if (value_parse(&body, &a, (struct str){(const char *)data, n}, &e)) {
        if (request_read_completion(&p, body, N_VOCAB, &a, &e2)) check(&p);
        if (request_read_chat(&p, body, N_VOCAB, &a, &e3)) {
            check(&p);
            chat_check(&p.messages, &p.tools, &a, &e);
        }
        assert((e2.code == ERR_NONE) == (e2.msg[0] == '\0'));
    }
    arena_free(&a);
    return 0;
}
