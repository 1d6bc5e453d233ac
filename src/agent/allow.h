// Which commands a sub-mind may run: words, patterns per argument, and the precise reason of a
// refusal. Nothing here runs anything, and no shell is ever involved.
//
// A rule is a list of patterns, one per argument:
//   "*"        exactly one argument, whatever it is, unless it begins with "-"
//   "**"       as the last pattern: any number of further arguments, none beginning with "-"
//   otherwise  a glob over the argument: "?" one character but "/", "*" any run without "/",
//              "**" any run; "\" takes the next character as it is
// A pattern that begins with "-" is the way to let options in ("-n", "--lines=*"). Where a glob is
// used, an argument with a ".." path component never matches, so that "/var/log/*" stays in
// /var/log.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct words {
    char **p; // NULL-terminated, owned
    size_t n;
};

enum { WORDS_MAX = 1024 }; // of one command

void words_free(struct words *w);
bool words_put(struct words *w, struct str word, struct err *e);
// Splits as a shell splits words: blanks, '...', "..." and backslash. What only a shell could do
// (pipes, redirection, ;, &, variables, $(...), `...`) is refused with its character named.
bool words_split(struct words *out, struct str line, struct err *e);
// The command as one line again, quoted where needed; for messages and records.
void words_print(const struct words *w, struct buf *out);

struct allow_rule {
    struct words patterns; // run: one a word
    // shell: a glob over a whole command line that goes to /bin/sh -c; then patterns is empty. What
    // a star stands for holds nothing that a shell would act on, no blank and no option. NULL for
    // run.
    char *shell;
    // What the command gets beside: secrets as variables of their name, and more of the machine
    // than the sandbox gives.
    struct words secrets, write;
    bool network, no_sandbox;
    bool repeat; // it may be run again when a later try needs it (retries)
    int line;    // in submind.yaml
};

struct allow_list {
    struct allow_rule *rules;
    size_t n;
};

bool allow_glob(const char *pattern, const char *text);
bool allow_rule_matches(const struct allow_rule *r, const struct words *command);
// The first rule that matches; SIZE_MAX when none does.
size_t allow_find(const struct allow_list *l, const struct words *command);
// The same among the shell rules, for a command line.
size_t allow_find_shell(const struct allow_list *l, struct str line);
void allow_rule_print(const struct allow_rule *r, struct buf *out);
// Fills e with ERR_DENIED: what was refused and which rules there are for this program.
bool allow_refuse(const struct allow_list *l, const struct words *command, struct err *e);
void allow_free(struct allow_list *l);
