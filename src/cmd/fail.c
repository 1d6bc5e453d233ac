// How a command tells the user what went wrong.
#include <stdio.h>

#include "cmd/cmd.h"

int cmd_fail(const char *command, const struct err *e)
{
    fprintf(stderr, "submind %s: %s\n", command, e->msg);
    return err_exit_code(e->code);
}
