// submind man, submind completion: what describes the program, from commands.def, actions.def and settings.def. The
// package holds what these print, so that neither can differ from the program.
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cmd/actions.h"
#include "cmd/cmd.h"
#include "cmd/help_text.h"
#include "cmd/options.h"

static const struct command {
    const char *name;
    unsigned settings;
    const char *help;
} commands[] = {
#define COMMAND(name, function, settings, help) {name, settings, help},
#include "cmd/commands.def"
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static bool takes(const struct command *c, const struct option_row *row)
{
    return c->settings != 0 && (row->commands & c->settings) != 0;
}

// ---- man(7) -----------------------------------------------------------------------------------------

// Text that roff reads as it is: backslashes, hyphens, and points at a line's start.
static void put_roff(struct buf *out, const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '\\')
            buf_z(out, "\\e");
        else if (*p == '-')
            buf_z(out, "\\-");
        else if ((*p == '.' || *p == '\'') && (p == text || p[-1] == '\n'))
            buf_printf(out, "\\&%c", *p);
        else
            buf_c(out, *p);
    }
}

static void put_head(struct buf *out, const char *title, const char *help)
{
    buf_z(out, ".TH ");
    for (const char *p = title; *p != '\0'; p++)
        buf_c(out, *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p);
    buf_printf(out, " 1 \"\" \"submind %s\" \"User Commands\"\n.SH NAME\n", SUBMIND_VERSION);
    put_roff(out, title);
    buf_z(out, " \\- ");
    put_roff(out, help);
    buf_c(out, '\n');
}

static void put_flag(struct buf *out, const struct option_row *row, const char *command)
{
    struct buf text = {0};
    buf_z(out, ".TP\n\\fB\\-\\-");
    put_roff(out, row->name);
    buf_z(out, "\\fR");
    if (*row->arg != '\0') buf_printf(out, " \\fI%s\\fR", row->arg);
    buf_c(out, '\n');
    help_text(&text, row->help, row->commands, command);
    put_roff(out, buf_cstr(&text));
    buf_free(&text);
    buf_c(out, '\n');
}

static void put_actions(struct buf *out, const struct command *c)
{
    const struct action *a;
    size_t n = 0;
    for (size_t i = 0; (a = actions_next(c->name, &i)) != NULL; n++) {
        buf_z(out, n == 0 ? ".SH ACTIONS\n.TP\n\\fB" : ".TP\n\\fB");
        put_roff(out, a->name);
        buf_z(out, "\\fR");
        if (*a->argument != '\0') buf_printf(out, " \\fI%s\\fR", a->argument);
        buf_c(out, '\n');
        put_roff(out, a->help);
        buf_c(out, '\n');
    }
}

static void put_command_page(struct buf *out, const struct command *c)
{
    struct option_row row;
    struct buf title = {0};
    buf_printf(&title, "submind-%s", c->name);
    put_head(out, buf_cstr(&title), c->help);
    buf_z(out, ".SH SYNOPSIS\n\\fBsubmind ");
    put_roff(out, c->name);
    size_t first = 0;
    buf_z(out, actions_next(c->name, &first) != NULL
                   ? "\\fR \\fIaction\\fR [\\fIarguments\\fR] [\\fIflags\\fR]\n"
                   : "\\fR [\\fIarguments\\fR] [\\fIflags\\fR]\n");
    put_actions(out, c);
    if (c->settings == 0) {
        buf_z(out, ".SH FLAGS\nThose of llama.cpp's server; what has no equivalent is said at the "
                   "start.\n");
    } else {
        buf_z(out,
              ".SH FLAGS\nEach can be given as an environment variable too: \\-\\-kv\\-memory as "
              "SUBMIND_KV_MEMORY; flags win.\n");
        for (size_t i = 0; options_row(i, &row); i++)
            if (takes(c, &row)) put_flag(out, &row, c->name);
    }
    buf_z(out,
          ".SH EXIT STATUS\n0 done; 1 failed; 2 bad use; 3 no server, or it refused; 124 out of "
          "time.\n.SH SEE ALSO\n.BR submind (1)\n");
    buf_free(&title);
}

static void put_program_page(struct buf *out)
{
    put_head(out, "submind", "a local brain for background agents");
    buf_z(out,
          ".SH SYNOPSIS\n\\fBsubmind\\fR \\fIcommand\\fR [\\fIarguments\\fR] [\\fIflags\\fR]\n"
          ".SH DESCRIPTION\nServes a GGUF model over the OpenAI API and runs small agents on it. "
          "What all agents of a workspace start with is computed once.\n.SH COMMANDS\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        buf_z(out, ".TP\n\\fB");
        put_roff(out, commands[i].name);
        buf_z(out, "\\fR\n");
        put_roff(out, commands[i].help);
        buf_c(out, '\n');
    }
    buf_z(out, ".SH SEE ALSO\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        buf_z(out, ".BR submind\\-");
        put_roff(out, commands[i].name);
        buf_printf(out, " (1)%s\n", i + 1 < N_COMMANDS ? "," : "");
    }
}

// ---- completion -------------------------------------------------------------------------------------

static void put_words(struct buf *out, const struct command *c)
{
    struct option_row row;
    for (size_t i = 0; c->settings != 0 && options_row(i, &row); i++)
        if (takes(c, &row)) buf_printf(out, " --%s", row.name);
}

static void put_action_names(struct buf *out, const struct command *c)
{
    const struct action *a;
    size_t n = 0;
    for (size_t i = 0; (a = actions_next(c->name, &i)) != NULL;)
        buf_printf(out, "%s%s", n++ > 0 ? " " : "", a->name);
}

// Behind a flag that takes a value comes a file, as far as can be known.
static void put_valued(struct buf *out)
{
    struct option_row row;
    size_t n = 0;
    for (size_t i = 0; options_row(i, &row); i++)
        if (*row.arg != '\0') buf_printf(out, "%s--%s", n++ > 0 ? "|" : "", row.name);
}

static void put_bash(struct buf *out)
{
    buf_z(out, "# bash completion for submind, printed by: submind completion bash\n"
               "_submind() {\n"
               "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words='' "
               "actions=''\n"
               "    case $prev in\n    ");
    put_valued(out);
    buf_z(out, ")\n"
               "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;\n"
               "    esac\n"
               "    if [ \"$COMP_CWORD\" = 1 ]; then\n        words=\"");
    for (size_t i = 0; i < N_COMMANDS; i++)
        buf_printf(out, "%s%s", i == 0 ? "" : " ", commands[i].name);
    buf_z(out, "\"\n    else\n        case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        buf_printf(out, "        %s) actions=\"", commands[i].name);
        put_action_names(out, &commands[i]);
        buf_z(out, "\" words=\"");
        put_words(out, &commands[i]);
        buf_z(out, "\" ;;\n");
    }
    buf_z(out,
          "        esac\n"
          "        [ \"$COMP_CWORD\" != 2 ] || [ -z \"$actions\" ] || [ \"${cur#-}\" != \"$cur\" ] "
          "||\n"
          "            words=$actions\n"
          "    fi\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
          "    [ -n \"${COMPREPLY[*]-}\" ] || mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n}\n"
          "complete -o filenames -F _submind submind\n");
}

// Single quotes, as sh and fish both read them; zsh's own brackets and colons are replaced.
static void put_quoted(struct buf *out, const char *text, bool zsh)
{
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '\'')
            buf_z(out, zsh ? "'\\''" : "\\'");
        else if (zsh && (*p == '[' || *p == ']' || *p == ':'))
            buf_printf(out, "\\%c", *p);
        else
            buf_c(out, *p);
    }
}

static void put_quoted_help(struct buf *out, const struct option_row *row, const char *command,
                            bool zsh)
{
    struct buf text = {0};
    help_text(&text, row->help, row->commands, command);
    put_quoted(out, buf_cstr(&text), zsh);
    buf_free(&text);
}

static void put_zsh(struct buf *out)
{
    struct option_row row;
    buf_z(out, "#compdef submind\n# printed by: submind completion zsh\n_submind() {\n"
               "    local -a commands=(\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        buf_printf(out, "        '%s:", commands[i].name);
        put_quoted(out, commands[i].help, true);
        buf_z(out, "'\n");
    }
    buf_z(out, "    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n"
               "        return\n    fi\n    case $words[2] in\n");
    for (size_t c = 0; c < N_COMMANDS; c++) {
        buf_printf(out, "    %s) _arguments \\\n", commands[c].name);
        for (size_t i = 0; options_row(i, &row); i++) {
            if (!takes(&commands[c], &row)) continue;
            buf_printf(out, "        '--%s[", row.name);
            put_quoted_help(out, &row, commands[c].name, true);
            buf_z(out, "]");
            if (*row.arg != '\0') buf_printf(out, ":%s:_files", row.arg);
            buf_z(out, "' \\\n");
        }
        size_t first = 0;
        if (actions_next(commands[c].name, &first) != NULL) {
            buf_z(out, "        '2:action:(");
            put_action_names(out, &commands[c]);
            buf_z(out, ")' \\\n");
        }
        buf_z(out, "        '*:file:_files' ;;\n");
    }
    buf_z(out, "    esac\n}\n_submind \"$@\"\n");
}

static void put_fish(struct buf *out)
{
    struct option_row row;
    buf_z(out, "# fish completion for submind, printed by: submind completion fish\n");
    for (size_t c = 0; c < N_COMMANDS; c++) {
        buf_printf(out, "complete -c submind -n __fish_use_subcommand -a %s -d '",
                   commands[c].name);
        put_quoted(out, commands[c].help, false);
        buf_z(out, "'\n");
        const struct action *a;
        for (size_t i = 0; (a = actions_next(commands[c].name, &i)) != NULL;) {
            buf_printf(out,
                       "complete -c submind -n '__fish_seen_subcommand_from %s; and test (count "
                       "(commandline -opc)) -eq 2' -a %s -d '",
                       a->command, a->name);
            put_quoted(out, a->help, false);
            buf_z(out, "'\n");
        }
        for (size_t i = 0; options_row(i, &row); i++) {
            if (!takes(&commands[c], &row)) continue;
            buf_printf(out, "complete -c submind -n '__fish_seen_subcommand_from %s' -l %s%s -d '",
                       commands[c].name, row.name, *row.arg == '\0' ? "" : " -r");
            put_quoted_help(out, &row, commands[c].name, false);
            buf_z(out, "'\n");
        }
    }
}

// ---- the two commands ----------------------------------------------------------------------------------

static int print(const char *command, struct buf *out, bool ok, struct err *e)
{
    if (ok && out->failed) ok = err_set(e, ERR_MEMORY, "no memory for the text");
    if (ok && (fwrite(out->p, 1, out->n, stdout) != out->n || fflush(stdout) != 0))
        ok = err_errno(e, ERR_IO, "cannot write it");
    buf_free(out);
    return ok ? 0 : cmd_fail(command, e);
}

int cmd_man(int argc, char **argv)
{
    struct err e = {0};
    struct settings s;
    struct buf out = {0};
    bool ok = true;
    if (!options_parse(&s, C_MANUAL, argc, argv, &e)) return cmd_fail("man", &e);
    if (s.help) {
        printf("usage: submind man [COMMAND] | man -l -\n");
        return 0;
    }
    const struct command *c = s.n_args > 0 ? find(s.args[0]) : NULL;
    if (s.n_args > 0 && c == NULL)
        ok = err_set(&e, ERR_INPUT, "there is no command \"%.40s\"", s.args[0]);
    else if (c != NULL)
        put_command_page(&out, c);
    else
        put_program_page(&out);
    return print("man", &out, ok, &e);
}

int cmd_completion(int argc, char **argv)
{
    static const struct {
        const char *shell;
        void (*put)(struct buf *out);
    } shells[] = {{"bash", put_bash}, {"zsh", put_zsh}, {"fish", put_fish}};
    struct err e = {0};
    struct settings s;
    struct buf out = {0};
    if (!options_parse(&s, C_MANUAL, argc, argv, &e)) return cmd_fail("completion", &e);
    for (size_t i = 0; i < 3 && s.n_args == 1; i++) {
        if (strcmp(s.args[0], shells[i].shell) != 0) continue;
        shells[i].put(&out);
        return print("completion", &out, true, &e);
    }
    if (s.help) {
        printf("usage: submind completion bash|zsh|fish\n");
        return 0;
    }
    err_set(&e, ERR_INPUT, "name one shell: bash, zsh or fish");
    return cmd_fail("completion", &e);
}
