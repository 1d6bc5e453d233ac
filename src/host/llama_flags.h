// llama-server's command line as one of `submind serve`: a user replaces the program's path, or has a
// unit adopted, and nothing is dropped in silence.
#pragma once

#include "base/err.h"
#include "host/cmdline.h"

enum llama_note { NOTE_KEPT, NOTE_DIFFERENT, NOTE_LOST };

struct llama_line {
    enum llama_note kind;
    const char *flag, *text; // "--mlock", "give the unit ..."
};

enum { LLAMA_MAX_NOTES = 128 };

struct llama_plan {
    struct cmdline words; // flags of `submind serve`
    struct str api_key;   // of --api-key: not among words, so that it shows in no list of processes
    bool small_keys, small_values; // types of fewer bits than 16 were asked for
    struct llama_line notes[LLAMA_MAX_NOTES];
    size_t n_notes;
};

// args: what stands behind the program's name. environment(arg, NAME) gives LLAMA_ARG_* variables, which
// flags override; NULL: none. ERR_INPUT for a flag that llama-server does not have either, or a value
// that ours cannot take.
bool llama_translate(struct llama_plan *out, const char *const *args, size_t n,
                     const char *(*environment)(void *arg, const char *name), void *arg,
                     struct arena *a, struct err *e);
// Whether `word` ("-c", "--ctx-size=4096") is a flag of llama-server. *ours is the name of the flag that takes its
// place ("ctx"), *note what is told of it; both may be empty, neither is the caller's.
bool llama_flag_meaning(const char *word, const char **ours, const char **note);
// Where other machines are let in without a key, as llama-server does by itself, ours has to be told so: adds
// or removes that flag, after the address has been changed.
void llama_settle_public(struct llama_plan *p);
