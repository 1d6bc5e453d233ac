// Byte b is token b. Spelling as GPT-2 has it, computed here on its own: a byte that prints in
// Latin-1 stands for itself, the others for U+0100 and up in turn.
#include "lib/tiny_vocab.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char spelled[256][3];
static struct str tokens[TINY_N];
static int32_t types[TINY_N];

static const char *const texts[TINY_N] = {
    [TINY_HE] = "he",
    [TINY_LL] = "ll",
    [TINY_HELL] = "hell",
    [TINY_HELLO] = "hello",
    [TINY_SPACE_HELLO] = "\xc4\xa0hello", // U+0120 is the space
    [TINY_NEWLINES] = "\xc4\x8a\xc4\x8a", // U+010A is the line feed
    [TINY_E_ACUTE] = "\xc3\x83\xc2\xa9",  // bytes C3 A9 stand for themselves: U+00C3, U+00A9
    [TINY_EO] = "eo",
    [TINY_ENDOFTEXT] = "<|endoftext|>",
    [TINY_IM_START] = "<|im_start|>",
    [TINY_IM_END] = "<|im_end|>",
    [TINY_IM_END_LONG] = "<|im_end|>!!",
    [TINY_THINK] = "<think>",
    [TINY_END_THINK] = "</think>",
    [TINY_TOOL_CALL] = "<tool_call>",
    [TINY_END_TOOL_CALL] = "</tool_call>",
};

static const struct str merges[] = {
    {"h e", 3},
    {"l l", 3},
    {"he ll", 5},
    {"hell o", 6},
    {"\xc4\xa0 hello", 8},
    {"\xc4\x8a \xc4\x8a", 5},
    {"\xc3\x83 \xc2\xa9", 5},
};

static bool prints(unsigned b)
{
    return (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
}

static void spell_bytes(void)
{
    unsigned next = 0x100;
    for (unsigned b = 0; b < 256; b++) {
        unsigned cp = prints(b) ? b : next++;
        char *p = spelled[b];
        size_t n = 0;
        if (cp >= 0x80) p[n++] = (char)(0xc0 | cp >> 6);
        p[n++] = (char)(cp < 0x80 ? cp : 0x80 | (cp & 0x3f));
        tokens[b] = (struct str){p, n};
        types[b] = TOKEN_NORMAL;
    }
}

struct tokenizer_data tiny_vocab_data(void)
{
    spell_bytes();
    for (int id = 256; id < TINY_N; id++) {
        tokens[id] = str_from(texts[id]);
        types[id] = id < TINY_ENDOFTEXT ? TOKEN_NORMAL : TOKEN_USER;
        if (id >= TINY_ENDOFTEXT && id < TINY_THINK) types[id] = TOKEN_CONTROL;
    }
    return (struct tokenizer_data){
        .model = STR("gpt2"),
        .pre = STR("qwen2"),
        .n_tokens = TINY_N,
        .tokens = tokens,
        .types = types,
        .n_merges = sizeof merges / sizeof *merges,
        .merges = merges,
        .bos = TINY_ENDOFTEXT,
        .eos = TINY_IM_END,
        .eot = -1,
        .pad = TINY_ENDOFTEXT,
    };
}

struct tokenizer *tiny_vocab_open(void)
{
    struct tokenizer_data d = tiny_vocab_data();
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (!tokenizer_open(&t, &d, &e)) {
        fprintf(stderr, "tiny_vocab: %s\n", e.msg);
        abort();
    }
    return t;
}
