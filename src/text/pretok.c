// The only file that includes pcre2.h. Why PCRE2 and not hand-written loops: the expression is the
// definition that Hugging Face's tokenizers use, so a new model is a new row.
// Invariant: words follow each other without gaps and cover the text.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretok.h"

#include <pcre2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Unicode's White_Space, spelled out: PCRE2's own \s also takes U+180E, which Unicode dropped in
// 6.3 and which the engine that defines these expressions does not take.
#define SPACE "\\p{Z}\\t-\\r\\x{85}"
// What the expressions of the GPT-4 family have in common at either end.
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "[" SPACE "]*[\\r\\n]+|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"
#define SYMBOLS      " ?[^" SPACE "\\p{L}\\p{N}]+[\\r\\n]*"

static const struct pretok_rule pretok_rules[] = {
    {"qwen2", CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" SYMBOLS "|" SPACES,
     .nfc = true},
    {"qwen35",
     CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACE
                  "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES,
     .nfc = true},
    {"llama-bpe", CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" SYMBOLS "|" SPACES,
     .whole_words = true},
    {"gpt-2",
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|[" SPACE
     "]+(?![^" SPACE "])|[" SPACE "]+",
     .nfc = false},
};
enum { N_RULES = sizeof pretok_rules / sizeof *pretok_rules };

// JIT stack of one caller, bytes. The expressions need a few hundred; should one ever need more
// than the maximum, the interpreter takes over for that match.
enum { STACK_START = 32 << 10, STACK_MAX = 4 << 20 };

struct pretok {
    pcre2_code *code;
    bool jit;
};

struct pretok_work {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack; // NULL without JIT
};

const struct pretok_rule *pretok_find(struct str name, struct err *e)
{
    char known[200] = "";
    for (int i = 0; i < N_RULES; i++) {
        if (str_eq(name, str_from(pretok_rules[i].name))) return &pretok_rules[i];
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i == 0 ? "" : ", ", pretok_rules[i].name);
    }
    int shown = name.n > 80 ? 80 : (int)name.n;
    err_set(e, ERR_UNSUPPORTED, "tokenizer.ggml.pre is '%.*s'; known pre-tokenizers: %s", shown,
            name.p == NULL ? "" : name.p, known);
    return NULL;
}

bool pretok_open(struct pretok **out, const struct pretok_rule *rule, struct err *e)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    struct pretok *p = calloc(1, sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for the pre-tokenizer");
    p->code = pcre2_compile((PCRE2_SPTR)rule->pattern, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &code, &at, NULL);
    if (p->code == NULL) {
        char why[120] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        free(p);
        return err_set(e, ERR_INTERNAL, "pre-tokenizer '%s': %s at offset %zu", rule->name, why,
                       at);
    }
    // Where the system forbids executable memory the interpreter does the same, slower.
    p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    *out = p;
    return true;
}

void pretok_close(struct pretok *p)
{
    if (p == NULL) return;
    pcre2_code_free(p->code);
    free(p);
}

struct pretok_work *pretok_work_open(const struct pretok *p)
{
    struct pretok_work *w = calloc(1, sizeof *w);
    if (w == NULL) return NULL;
    w->match = pcre2_match_data_create(1, NULL);
    w->context = pcre2_match_context_create(NULL);
    if (p->jit) w->stack = pcre2_jit_stack_create(STACK_START, STACK_MAX, NULL);
    if (w->match == NULL || w->context == NULL || (p->jit && w->stack == NULL)) {
        pretok_work_close(w);
        return NULL;
    }
    if (p->jit) pcre2_jit_stack_assign(w->context, NULL, w->stack);
    pcre2_set_match_limit(w->context, UINT32_MAX); // words are as long as the text allows
    return w;
}

void pretok_work_close(struct pretok_work *w)
{
    if (w == NULL) return;
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->context);
    pcre2_jit_stack_free(w->stack);
    free(w);
}

size_t pretok_next(const struct pretok *p, struct pretok_work *w, struct str text, size_t pos)
{
    PCRE2_SPTR subject = (PCRE2_SPTR)text.p;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (p->jit) rc = pcre2_jit_match(p->code, subject, text.n, pos, 0, w->match, w->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(p->code, subject, text.n, pos, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->match,
                         w->context);
    if (rc == PCRE2_ERROR_NOMATCH) return text.n;
    if (rc < 0) return SIZE_MAX;
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(w->match);
    if (span[0] > pos) return span[0];       // a gap before the match
    return span[1] > pos ? span[1] : text.n; // no rule matches nothing; be safe if one did
}
