// A workspace folder: its settings, and its Markdown files as one bootstrap text.
//
// Order: AGENTS.md, SOUL.md, IDENTITY.md, USER.md, TOOLS.md, MEMORY.md, as agent gateways have
// them; then all other *.md of the folder by name (bytewise). Left out: README.md (for people),
// BOOTSTRAP.md and HEARTBEAT.md (a gateway's own), hidden files, folders (subminds/ holds tasks,
// memory/ a gateway's diary). Last comes the list of skills (skills.h). Nothing in the text depends on time, place or run, so that all runs of a
// workspace share it.
#pragma once

#include "agent/workspace_config.h"

struct workspace_part {
    char *name;
    size_t file_bytes; // of the file
    size_t kept_bytes; // of it in the bootstrap
    bool no_text;      // it is binary: only a mark stands there
    size_t at, n;      // where it stands in the bootstrap, with what is around it
};

struct workspace {
    char *dir; // absolute
    struct workspace_config config;
    struct buf bootstrap;         // the system message
    struct workspace_part *parts; // in the bootstrap's order; the opening stands before them
    size_t n_parts;
    size_t skills_at, n_skills; // the list of skills is the last part, from skills_at on
};

// dir may be relative. A folder without Markdown files is fine: then the bootstrap is the opening
// only.
bool workspace_open(struct workspace *out, const char *dir, struct err *e);
void workspace_close(struct workspace *w);
