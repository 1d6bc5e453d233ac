// A vocabulary small enough to work out by hand: the 256 bytes (id = byte), a few merges, special
// tokens.
#pragma once

#include "text/tokenizer.h"

enum tiny_ids {
    TINY_HE = 256,      // h + e, rank 0
    TINY_LL,            // l + l, rank 1
    TINY_HELL,          // he + ll, rank 2
    TINY_HELLO,         // hell + o, rank 3
    TINY_SPACE_HELLO,   // ' ' + hello, rank 4
    TINY_NEWLINES,      // two line feeds, rank 5
    TINY_E_ACUTE,       // the two bytes of U+00E9, rank 6
    TINY_EO,            // e + o: no merge makes it, only whole-word rules find it
    TINY_ENDOFTEXT,     // <|endoftext|>, control, bos and pad
    TINY_IM_START,      // <|im_start|>, control
    TINY_IM_END,        // <|im_end|>, control, eos
    TINY_IM_END_LONG,   // <|im_end|>!!, control: the longer of two that begin alike
    TINY_THINK,         // <think>, user-defined
    TINY_END_THINK,     // </think>, user-defined
    TINY_TOOL_CALL,     // <tool_call>, user-defined
    TINY_END_TOOL_CALL, // </tool_call>, user-defined
    TINY_N
};

// The vocabulary as data; to be changed and opened by tests of what open refuses. Static memory.
struct tokenizer_data tiny_vocab_data(void);
// Opened with pre-tokenizer "qwen2"; a failure is an assertion. Close with tokenizer_close.
struct tokenizer *tiny_vocab_open(void);
