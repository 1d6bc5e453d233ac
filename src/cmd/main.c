// Finds the subcommand in commands.def. What a command does stands in its own file.
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/map_guard.h"
#include "cmd/cmd.h"
#include "cmd/hint.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
#define COMMAND(name, function, settings, help) {name, function, help},
#include "cmd/commands.def"
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

// No page of help behind it: it would push the one line that matters off the screen.
static int unknown_command(const char *name)
{
    struct hint near = hint_of(name);
    for (size_t i = 0; i < N_COMMANDS; i++) hint_offer(&near, commands[i].name);
    fprintf(stderr, "submind: there is no command \"%.60s\"", name);
    if (near.best != NULL)
        fprintf(stderr, "; did you mean submind %s?", near.best);
    else
        fprintf(stderr, "; submind --help lists those that exist");
    fputc('\n', stderr);
    return 2;
}

static void usage(FILE *f)
{
    fprintf(f,
            "submind %s: a local brain for background agents\n\n"
            "usage: submind COMMAND [flags]\n\n",
            SUBMIND_VERSION);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-13s %s\n", commands[i].name, commands[i].help);
    fprintf(f, "\nsubmind COMMAND --help lists a command's flags. Start with: submind serve\n");
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    map_guard_install();
    signal(SIGXFSZ, SIG_IGN); // a limit on file sizes is an error of write() like a full disk
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        printf("submind %s\n", SUBMIND_VERSION);
        return 0;
    }
    bool asked =
        strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0;
    if (!asked) return unknown_command(name);
    usage(stdout);
    return argc > 1 ? 0 : 2;
}
