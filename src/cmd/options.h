// The command line as one struct, filled from settings.def: flags win over the environment.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "engine/engine.h"

enum command_bit {
    C_SERVE = 1,
    C_RUN = 2,
    C_INSPECT = 4,
    C_BENCH = 8,
    C_DOCTOR = 16,
    C_CACHE = 32,
    C_SERVICE = 64,
    C_PULL = 128,
    C_RUNS = 1024,
    C_SUBMINDS = 2048, // new, check, ls
    C_SCHEDULE = 4096,
    C_BOOTSTRAP = 8192,
    C_MANUAL = 16384,                                 // man, completion
    C_ENGINE = C_SERVE | C_RUN | C_INSPECT | C_BENCH, // those that may load a model
    C_ALL = 0xffff,
};

#define SETTING_TYPE_STR  const char *
#define SETTING_TYPE_U32  uint32_t
#define SETTING_TYPE_F32  float
#define SETTING_TYPE_SIZE size_t
#define SETTING_TYPE_FLAG bool

// Strings are borrowed from argv and the environment. A field that was not given is zero (NULL,
// false); given.FIELD tells an explicit zero from an absent setting.
struct settings {
#define SETTING(commands, type, field, name, arg, help) SETTING_TYPE_##type field;
#include "cmd/settings.def"
#undef SETTING
    struct {
#define SETTING(commands, type, field, name, arg, help) bool field;
#include "cmd/settings.def"
#undef SETTING
    } given;
    const char *const *args; // what is no flag, in order; inside argv
    int n_args;
};

// Parses argv[1..] for a command. "--name value" and "--name=value"; "--" ends the flags.
// argv is reordered so that the positional arguments are contiguous.
bool options_parse(struct settings *out, enum command_bit command, int argc, char **argv,
                   struct err *e);
// One row of settings.def, for what describes the program.
struct option_row {
    unsigned commands;
    const char *name, *arg, *help; // arg: "" for a switch
};
// The i-th; false behind the last one.
bool options_row(size_t i, struct option_row *out);
// Prints the flags of a command with their help to standard output. Several commands may have one bit.
void options_help(enum command_bit bit, const char *command);
// "512M", "8G", "1048576", "1.5g" -> bytes.
bool options_size(const char *text, size_t *out);
// The engine's part of the settings. model_path falls back to the built-in model.
bool options_engine(const struct settings *s, struct engine_settings *out, struct err *e);
// A variable of the environment that belongs to the system (HOME, XDG_*, LISTEN_FDS, ...), no setting of
// ours; NULL when it is not set or empty.
const char *options_env(const char *name);
// The user's folder for submind's files of one kind: $xdg/submind, or ~/below/submind where that is not
// set ("XDG_CACHE_HOME", ".cache"). Appends nothing where there is no home either.
void options_home(struct buf *out, const char *xdg, const char *below);
// The sampling flags that were given.
void options_sampling(const struct settings *s, struct sampling *out);
// The engine's flags that were given, as words for another submind's command line ("--ctx", "4096", ...):
// appends to argv[*n] up to max words; the texts live in `a`. false: no memory or no room.
bool options_engine_words(const struct settings *s, struct arena *a, const char **argv, size_t *n,
                          size_t max);
// The same for all flags that `submind serve` takes.
bool options_serve_words(const struct settings *s, struct arena *a, const char **argv, size_t *n,
                         size_t max);
