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
//       - run: [mailctl, "**"]
//         secrets: [MAIL]         as a variable of that name
//         network: yes            what the sandbox does not give otherwise
//         write: [state]
//         sandbox: off
//       - shell: "df -h / | tail -n *"
//   tools: [exec, read_file]      what is offered, "*" allowed; left out: all that have rules below;
//                                 remember and report only where they are named
//   files:
//     read: [., /var/log]         what read_file and list_files may see; without it there are none
//     output_bytes: 16000
//   http:
//     allow:                      see http_tool.h; without rules there is no http_get
//       - api.example.org
//       - url: https://*.example.net/status/**
//         headers: {Authorization: "Bearer ${secret:MAIL}"}
//         private: yes            it may resolve to an address of this network
//     timeout: 20
//     output_bytes: 16000
//   mcp: mcp.json                 servers of tools, see mcp_config.h
//   secrets:
//     MAIL: keys/mail             a file, or credential:NAME (systemd)
//   sandbox: on                   auto: without one where none can be made; off; or with settings:
//   sandbox:
//     mode: on
//     network: no
//     write: [state]              paths; everything else is read-only
//     hide: [keys]                paths that cannot be read either
//     memory: 2G                  of one process
//     file_size: 1G               of one file
//     open_files: 1024
//     processes: 1000     # more than run now (this when nothing is said)
//
// Relative paths start at the workspace.
#pragma once

#include "agent/exec_tool.h"
#include "agent/files_tool.h"
#include "agent/http_tool.h"
#include "agent/sandbox.h"
#include "agent/secrets.h"

struct workspace_config { // text is owned, NULL when not set; zero means the default
    char *server_url, *server_model, *key_file, *model_file;
    uint32_t timeout_s, max_turns, max_tokens;
    bool has_temperature;
    float temperature;
    int thinking; // -1 auto, 0 off, 1 on
    uint32_t file_bytes, total_bytes;
    char *dir; // the workspace
    char *mcp_file;
    struct words tools; // n 0: all that have rules
    struct exec_settings exec;
    struct files_settings files;
    struct http_settings http;
    struct sandbox_settings sandbox;
    struct secret_list secrets;
};

// Reads dir/submind.yaml; without one everything is at its default. dir is absolute. Errors are
// "FILE:LINE: FIELD must be ..., not ...".
bool workspace_config_open(struct workspace_config *out, const char *dir, struct err *e);
// The same from text; file is for messages.
bool workspace_config_parse(struct workspace_config *out, struct str yaml, const char *dir,
                            const char *file, struct err *e);
void workspace_config_close(struct workspace_config *c);
