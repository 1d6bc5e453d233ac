// SQLite with our errors: statements whose values are bound by a string of letters, rows handed to
// a function. One connection belongs to one thread.
#pragma once

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct database {
    sqlite3 *db;
    char *path; // for messages
};

// Opens path (0600, made when missing) in WAL mode. ERR_IO with what to do when it is damaged.
bool database_open(struct database *out, const char *path, struct err *e);
void database_close(struct database *d);

// Runs one statement. types says what the values behind it are, in the order of the parameters:
//   s const char * (NULL = NULL)   x struct str   i int64_t   d double
bool database_do(struct database *d, struct err *e, const char *sql, const char *types, ...);

// The same for a query: row is called for each row and ends the reading by returning false.
struct database_query {
    const char *sql, *types;
    bool (*row)(void *arg, sqlite3_stmt *row);
    void *arg;
};
bool database_each(struct database *d, struct err *e, const struct database_query *q, ...);

// Statements without values, separated by ";".
bool database_script(struct database *d, const char *sql, struct err *e);

// What was written until now survives a power cut. Waits for the disk, and holds no lock meanwhile.
bool database_sync(struct database *d, struct err *e);

struct str database_text(sqlite3_stmt *row, int column); // valid until the next row; NULL is empty
