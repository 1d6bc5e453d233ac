// The table of settings; yaml_fields.c reads by it.
#include "agent/workspace_config.h"

#include <stddef.h>
#include <stdlib.h>

#include "agent/allow_yaml.h"
#include "agent/yaml_fields.h"
#include "base/file.h"

enum { MAX_YAML_BYTES = 1 << 20 };

static const struct field_choice thinking_modes[] = {{"on", 1},   {"off", 0},   {"auto", -1},
                                                     {"true", 1}, {"false", 0}, {NULL, 0}};

static const struct field_choice sandbox_modes[] = {{"on", SANDBOX_ON},     {"auto", SANDBOX_AUTO},
                                                    {"off", SANDBOX_OFF},   {"true", SANDBOX_ON},
                                                    {"false", SANDBOX_OFF}, {NULL, 0}};
static const struct field_choice yes_no[] = {{"yes", 1},  {"no", 0},    {"on", 1}, {"off", 0},
                                             {"true", 1}, {"false", 0}, {NULL, 0}};

#define AT(member) .offset = offsetof(struct workspace_config, member)
static const struct yaml_field fields[] = {
    {"server", "url", FIELD_TEXT, AT(server_url)},
    {"server", "model", FIELD_TEXT, AT(server_model)},
    {"server", "key_file", FIELD_PATH, AT(key_file)},
    {"", "model", FIELD_PATH, AT(model_file)},
    {"", "timeout", FIELD_COUNT, AT(timeout_s), 1, 7 * 86400},
    {"", "max_turns", FIELD_COUNT, AT(max_turns), 1, 1000},
    {"", "max_tokens", FIELD_COUNT, AT(max_tokens), 1, 1 << 20},
    {"", "temperature", FIELD_NUMBER, AT(temperature), 0, 5,
     .has = offsetof(struct workspace_config, has_temperature)},
    {"", "thinking", FIELD_CHOICE, AT(thinking), .choices = thinking_modes,
     .wanted = "on, off or auto"},
    {"bootstrap", "file_bytes", FIELD_COUNT, AT(file_bytes), 256, 16 << 20},
    {"bootstrap", "total_bytes", FIELD_COUNT, AT(total_bytes), 1024, 64 << 20},
    {"exec", "allow", FIELD_OWN, AT(exec.allow), .read = allow_yaml_read},
    {"exec", "dir", FIELD_PATH, AT(exec.dir)},
    {"exec", "path", FIELD_PATHS, AT(exec.path)},
    {"exec", "env", FIELD_NAMES, AT(exec.env)},
    {"exec", "timeout", FIELD_COUNT, AT(exec.timeout_s), 1, 86400},
    {"exec", "output_bytes", FIELD_COUNT, AT(exec.output_bytes), 256, 16 << 20},
    {"", "mcp", FIELD_PATH, AT(mcp_file)},
    {"", "tools", FIELD_NAMES, AT(tools)},
    {"files", "read", FIELD_PATHS, AT(files.read)},
    {"files", "output_bytes", FIELD_COUNT, AT(files.output_bytes), 256, 16 << 20},
    {"http", "allow", FIELD_OWN, AT(http.allow), .read = http_rules_read},
    {"http", "timeout", FIELD_COUNT, AT(http.timeout_s), 1, 3600},
    {"http", "output_bytes", FIELD_COUNT, AT(http.output_bytes), 256, 16 << 20},
    {"", "secrets", FIELD_OWN, AT(secrets), .read = secret_list_read},
    {"", "sandbox", FIELD_CHOICE, AT(sandbox.mode), .choices = sandbox_modes,
     .wanted = "on, auto or off"},
    {"sandbox", "mode", FIELD_CHOICE, AT(sandbox.mode), .choices = sandbox_modes,
     .wanted = "on, auto or off"},
    {"sandbox", "network", FIELD_CHOICE, AT(sandbox.network), .choices = yes_no,
     .wanted = "yes or no"},
    {"sandbox", "write", FIELD_PATHS, AT(sandbox.write)},
    {"sandbox", "hide", FIELD_PATHS, AT(sandbox.hide)},
    {"sandbox", "memory", FIELD_SIZE, AT(sandbox.memory_bytes)},
    {"sandbox", "file_size", FIELD_SIZE, AT(sandbox.file_bytes)},
    {"sandbox", "open_files", FIELD_COUNT, AT(sandbox.n_files), 16, 1 << 20},
    {"sandbox", "processes", FIELD_COUNT, AT(sandbox.n_processes), 16, 1 << 20},
};
#undef AT

bool workspace_config_parse(struct workspace_config *out, struct str yaml, const char *dir,
                            const char *file, struct err *e)
{
    struct workspace_config c = {.timeout_s = 600,
                                 .max_turns = 16,
                                 .max_tokens = 2048,
                                 .thinking = -1,
                                 .file_bytes = 65536,
                                 .total_bytes = 262144,
                                 .exec = {.timeout_s = 60, .output_bytes = 16000},
                                 .files = {.output_bytes = 16000},
                                 .sandbox = {.n_processes = 1000, .memory_bytes = 4ull << 30},
                                 .http = {.timeout_s = 20, .output_bytes = 16000}};
    bool ok = yaml_fields_read(fields, sizeof fields / sizeof fields[0], &c, yaml, dir, file, e) &&
              yaml_read_text(str_from(dir), &c.dir, e) &&
              (c.exec.dir != NULL || yaml_read_text(str_from(dir), &c.exec.dir, e));
    if (ok)
        *out = c;
    else
        workspace_config_close(&c);
    return ok;
}

bool workspace_config_open(struct workspace_config *out, const char *dir, struct err *e)
{
    struct buf path = {0}, text = {0};
    struct err problem = {0};
    buf_printf(&path, "%s/submind.yaml", dir);
    bool ok = file_read_text(&text, buf_cstr(&path), MAX_YAML_BYTES, NULL, &problem);
    if (!ok && problem.code == ERR_NOT_FOUND) ok = true;
    if (!ok) err_set(e, problem.code, "%s", problem.msg);
    ok = ok && workspace_config_parse(out, buf_view(&text), dir, buf_cstr(&path), e);
    buf_free(&path);
    buf_free(&text);
    return ok;
}

void workspace_config_close(struct workspace_config *c)
{
    free(c->server_url);
    free(c->server_model);
    free(c->key_file);
    free(c->model_file);
    free(c->dir);
    free(c->mcp_file);
    words_free(&c->tools);
    words_free(&c->files.read);
    http_settings_free(&c->http);
    exec_settings_free(&c->exec);
    sandbox_settings_free(&c->sandbox);
    secret_list_free(&c->secrets);
    *c = (struct workspace_config){0};
}
