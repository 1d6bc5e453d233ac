// The subcommands. Each gets its own argv (argv[0] is its name) and returns the exit code.
#pragma once

#include "base/err.h"

int cmd_serve(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_runs(int argc, char **argv);
int cmd_schedule(int argc, char **argv);
int cmd_new(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_cache(int argc, char **argv);
int cmd_pull(int argc, char **argv);
int cmd_service(int argc, char **argv);
int cmd_llama_server(int argc, char **argv);

// Prints "submind COMMAND: message" to standard error and returns the error's exit code.
int cmd_fail(const char *command, const struct err *e);
