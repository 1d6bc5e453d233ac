// One table for all commands, in the order in which help shows it.
#include "cmd/actions.h"

#include <stdio.h>
#include <string.h>

static const struct action actions[] = {
#define ACTION(command, name, argument, help) {command, name, argument, help},
#include "cmd/actions.def"
};

const struct action *actions_next(const char *command, size_t *i)
{
    for (; *i < sizeof actions / sizeof actions[0]; ++*i)
        if (strcmp(actions[*i].command, command) == 0) return &actions[(*i)++];
    return NULL;
}

const struct action *actions_find(const char *command, const char *name)
{
    const struct action *a;
    for (size_t i = 0; (a = actions_next(command, &i)) != NULL;)
        if (strcmp(a->name, name) == 0) return a;
    return NULL;
}

void actions_help(const char *command)
{
    const struct action *a;
    for (size_t i = 0; (a = actions_next(command, &i)) != NULL;)
        printf("  %-10s %-9s %s\n", a->name, a->argument, a->help);
    printf("\n");
}
