// Which clauses hold is found by name alone, in the tables of commands and actions: settings.def needs no marks.
#include "cmd/help_text.h"

#include <stdio.h>
#include <string.h>

#include "cmd/actions.h"
#include "cmd/options.h"

enum { LINE_WIDTH = 100, NAME_WIDTH = 30 };

static const struct {
    const char *name;
    unsigned settings;
} commands[] = {
#define COMMAND(name, function, settings, help) {name, settings},
#include "cmd/commands.def"
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

enum holds { FOR_ALL, FOR_COMMAND, FOR_ACTION, FOR_OTHERS };

static unsigned settings_of(const char *command)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, command) == 0) return commands[i].settings;
    return 0;
}

// One name, by its first word: "service switch" is service's.
static enum holds holds_name(struct str name, unsigned takers, const char *command)
{
    char word[32];
    name = str_sub(name, 0, str_find(name, STR(" "), 0));
    if (name.n == 0 || name.n >= sizeof word) return FOR_ALL;
    memcpy(word, name.p, name.n);
    word[name.n] = '\0';
    if (strcmp(word, command) == 0) return FOR_COMMAND;
    bool known = false;
    for (int i = 0; i < N_COMMANDS; i++) {
        const bool is_command = strcmp(commands[i].name, word) == 0;
        if (is_command && (commands[i].settings & takers) != 0)
            return (commands[i].settings & ~settings_of(command)) == 0 ? FOR_COMMAND : FOR_OTHERS;
        known = known || is_command || actions_find(commands[i].name, word) != NULL;
    }
    if (actions_find(command, word) != NULL) return FOR_ACTION;
    return known ? FOR_OTHERS : FOR_ALL;
}

// *text: what stands behind the names.
static enum holds holds_clause(struct str clause, unsigned takers, const char *command,
                               struct str *text)
{
    const size_t colon = str_find(clause, STR(": "), 0);
    enum holds holds = FOR_OTHERS;
    *text = clause;
    if (colon == SIZE_MAX) return FOR_ALL;
    for (struct str rest = str_sub(clause, 0, colon); rest.n > 0;) {
        const size_t comma = str_find(rest, STR(", "), 0);
        const enum holds one = holds_name(str_sub(rest, 0, comma), takers, command);
        if (one == FOR_ALL) return FOR_ALL; // no name: a colon of the sentence
        if (one < holds) holds = one;
        rest = comma == SIZE_MAX ? (struct str){0} : str_sub(rest, comma + 2, SIZE_MAX);
    }
    if (holds == FOR_COMMAND) *text = str_sub(clause, colon + 2, SIZE_MAX);
    return holds;
}

void help_text(struct buf *out, const char *help, unsigned takers, const char *command)
{
    const size_t start = out->n;
    for (struct str rest = str_from(help); rest.n > 0;) {
        const size_t end = str_find(rest, STR("; "), 0);
        struct str text;
        if (holds_clause(str_sub(rest, 0, end), takers, command, &text) != FOR_OTHERS) {
            if (out->n > start) buf_z(out, "; ");
            buf_str(out, text);
        }
        rest = end == SIZE_MAX ? (struct str){0} : str_sub(rest, end + 2, SIZE_MAX);
    }
    if (out->n == start) buf_z(out, help);
}

void help_print(const char *name, const char *text)
{
    int column = printf("  %-*s", NAME_WIDTH, name);
    for (struct str rest = str_from(text); rest.n > 0;) {
        const size_t end = str_find(rest, STR(" "), 0);
        const struct str word = str_sub(rest, 0, end);
        if (column + 1 + (int)word.n > LINE_WIDTH && column > 2 + NAME_WIDTH)
            column = printf("\n  %-*s", NAME_WIDTH, "") - 1;
        column += printf(" %.*s", (int)word.n, word.p);
        rest = end == SIZE_MAX ? (struct str){0} : str_sub(rest, end + 1, SIZE_MAX);
    }
    putchar('\n');
}
