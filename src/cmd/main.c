// Finds the subcommand. What a command does stands in its own file.
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"serve", cmd_serve, "serve a model over the OpenAI API"},
    {"llama-server", cmd_llama_server, "serve with llama-server's own flags"},
    {"run", cmd_run, "run sub-minds: bootstrap, task, tool calls, report"},
    {"runs", cmd_runs, "what sub-minds did: list, show, follow"},
    {"schedule", cmd_schedule, "put sub-minds on timers, or run what is due"},
    {"new", cmd_new, "write a sub-mind's definition to edit"},
    {"check", cmd_check, "validate the workspace's definitions"},
    {"ls", cmd_ls, "sub-minds with their last outcome and next run"},
    {"pull", cmd_pull, "fetch a model: from the hub, an address, or Ollama's store"},
    {"service", cmd_service, "run the server under systemd; adopt, switch and roll back setups"},
    {"bench", cmd_bench, "measure a server on the workload that matters"},
    {"cache", cmd_cache, "what is cached, why a prompt missed, pin and warm prefixes"},
    {"doctor", cmd_doctor, "what is wrong with this machine, why it matters, how to put it right"},
    {"inspect", cmd_inspect, "tokens, prompts, logits, metadata: what the server would see"},
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

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
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        printf("submind %s\n", SUBMIND_VERSION);
        return 0;
    }
    bool asked =
        strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0;
    if (!asked) fprintf(stderr, "submind: there is no command \"%s\"\n\n", name);
    usage(asked ? stdout : stderr);
    return asked && argc > 1 ? 0 : 2;
}
