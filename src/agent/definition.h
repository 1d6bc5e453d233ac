// A sub-mind's definition, subminds/NAME.md: settings between two lines "---", then the task.
//
//   ---
//   description: Is the service up?
//   schedule: "*/15 * * * *"      or "Mon..Fri 07:00", or a list of both (calendar.h)
//   delay: 2m                     start up to this much later, so that not all come at once
//   missed: run                   or skip: what was due while the machine was off
//   overlap: skip                 or wait, allow: when the one before still runs
//   tools: [exec, "mcp_*"]        that it may call; left out: all of the workspace
//   allow:                        commands, as in submind.yaml; left out: the workspace's
//     - run: [systemctl, is-active, "*"]
//   deadline: 5m                  of the whole run, all tries together
//   server: http://127.0.0.1:8080
//   model: NAME                   to ask the server for
//   thinking: auto                on, off or auto
//   max_turns: 8
//   max_tokens: 512
//   retries: 2                    only where nothing was done that may not be done twice: tools
//                                 that read, rules with "repeat: yes", MCP tools that say so
//   on_failure: NAME              a sub-mind to run when this one failed for good
//   notify:
//     when: attention             failure, attention, always or never
//     command: [mail-me, "--now"]
//     file: notes/alerts.jsonl
//     webhook: https://example.org/hook
//     desktop: true
//   inputs:                       {{service}} in the task; others are listed behind it
//     service: mosquitto          its default
//     host:                       without one it must be given
//   ---
//   check whether service {{service}} is active
//
// Relative paths start at the workspace.
#pragma once

#include "agent/allow.h"
#include "agent/calendar.h"

enum { DEFINITION_NAME_MAX = 48, DEFINITION_SCHEDULES = 8, DEFINITION_INPUTS = 64 };

enum overlap { OVERLAP_SKIP, OVERLAP_WAIT, OVERLAP_ALLOW };
enum missed { MISSED_RUN, MISSED_SKIP };
enum notify_when { NOTIFY_FAILURE, NOTIFY_ATTENTION, NOTIFY_ALWAYS, NOTIFY_NEVER };
enum { THINKING_UNSET = -2 };

struct definition_input {
    char *name;
    char *value; // the default; NULL: must be given
};

struct notify_spec {
    int when;             // enum notify_when
    struct words command; // n 0: none
    char *file, *webhook;
    bool desktop;
};

struct definition { // text is owned, NULL when not set; zero means the workspace's
    char *name, *path, *hash;
    char *description, *server_url, *server_model, *on_failure;
    char *schedule_texts[DEFINITION_SCHEDULES];
    struct calendar schedules[DEFINITION_SCHEDULES];
    size_t n_schedules;
    uint32_t delay_s, deadline_s, max_turns, max_tokens, retries;
    int missed, overlap, thinking;
    bool has_tools, has_allow;
    int tools_line, on_failure_line; // in the file, for messages
    struct words tools;
    struct allow_list allow;
    struct notify_spec notify;
    struct definition_input inputs[DEFINITION_INPUTS];
    size_t n_inputs;
    char *task; // with its placeholders
};

// Lower case letters, digits, "-" and "_", a letter or digit first; no word of `submind runs`.
bool definition_name_is_valid(struct str name);
// DIR/subminds/NAME.md.
void definition_path(const char *dir, const char *name, struct buf *out);
// ERR_NOT_FOUND when there is no such file; else "FILE:LINE: FIELD must be ..., not ...".
bool definition_open(struct definition *out, const char *dir, const char *name, struct err *e);
// The same from text; path is for messages.
bool definition_parse(struct definition *out, struct str text, const char *dir, const char *name,
                      const char *path, struct err *e);
void definition_close(struct definition *d);
// The soonest time behind after_s; -1 without a schedule.
int64_t definition_next(const struct definition *d, int64_t after_s);

struct definition_names {
    char **p; // sorted
    size_t n;
};
// The names of all *.md in dir/subminds but README.md, also of those that are no valid names.
// Without the folder there are none.
bool definition_list(struct definition_names *out, const char *dir, struct err *e);
void definition_names_free(struct definition_names *n);

// "key=value" words for one run: values[i] belongs to inputs[i] and is borrowed from words or d.
// Errors name what there is.
bool definition_take_inputs(const struct definition *d, const char *const *words, size_t n,
                            const char *values[DEFINITION_INPUTS], struct err *e);
// The task with its placeholders filled in and the other inputs behind it -> task; the inputs as a
// JSON object -> json.
void definition_fill(const struct definition *d, const char *const values[DEFINITION_INPUTS],
                     struct buf *task, struct buf *json);
