// submind.yaml, the settings of a workspace:
//
//   server:                       where the model is; left out: see private_server.h
//     url: http://127.0.0.1:8080  or unix:/path/to/socket
//     model: NAME                 to ask the server for
//     key_file: FILE
//   model: FILE                   GGUF for a private server
//   timeout: 600                  seconds of a whole run
//   max_turns: 16                 answers of the model before a run is given up
//   max_tokens: 2048              of one answer
//   temperature: 0.7
//   thinking: auto                on, off or auto
//   bootstrap:
//     file_bytes: 65536           of one file; the rest is left out, visibly
//     total_bytes: 262144
//   exec:
//     dir: .                      working directory of commands
//     path: [bin]                 folders in front of PATH
//     env: [NAME]                 variables that commands get beside the usual ones
//     timeout: 60                 seconds of one command
//     output_bytes: 16000         of one command's output that the model sees
//     allow:                      see allow.h; without rules there is no exec
//       - run: [systemctl, is-active, "*"]
//
// Relative paths start at the workspace.
#pragma once

#include "agent/exec_tool.h"

struct workspace_config { // text is owned, NULL when not set; zero means the default
    char *server_url, *server_model, *key_file, *model_file;
    uint32_t timeout_s, max_turns, max_tokens;
    bool has_temperature;
    float temperature;
    int thinking; // -1 auto, 0 off, 1 on
    uint32_t file_bytes, total_bytes;
    struct exec_settings exec;
};

// Reads dir/submind.yaml; without one everything is at its default. dir is absolute. Errors are
// "FILE:LINE: FIELD must be ..., not ...".
bool workspace_config_open(struct workspace_config *out, const char *dir, struct err *e);
// The same from text; file is for messages.
bool workspace_config_parse(struct workspace_config *out, struct str yaml, const char *dir,
                            const char *file, struct err *e);
void workspace_config_close(struct workspace_config *c);
