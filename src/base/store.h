// Records on disk that outlive the process: all of one size, each found by a 128-bit key, each with a
// checksum over everything. Records of one family (of one fingerprint) have a folder of their own:
// an append-only row of segment files and a lock. One process writes a family, any number read it.
//
// Never trusted: what is on the disk. The index is rebuilt from the records' headers at every open, a
// record counts only when its checksum, key, parent and ids are right, and nothing is ever synced, for a
// write that a power cut lost or tore is a record that does not verify.
//
// Threads: any, but one writer at a time (store_put, store_tick). No lock is held over I/O.
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"

struct store;

// What all records of a family have in common.
struct store_shape {
    struct hash128 family;
    uint32_t n_ids, encoding; // of the data: the user's to say what that means
    size_t data_bytes;
};

// A record is a header, n_ids ids and data_bytes bytes, then zeros up to a multiple of STORE_ALIGN.
enum { STORE_ALIGN = 64 };
struct store_header {
    struct hash128 sum; // XXH3-128 of all bytes of the record behind this field
    uint64_t head_sum;  // XXH3-64 of the header behind this field
    uint64_t magic;     // overwritten in a record that was found bad
    struct hash128 family, key, parent, salt;
    uint32_t depth, n_ids;
    uint64_t data_bytes;
    int64_t saved_unix;
    uint32_t encoding;
    uint32_t marks; // store_marks of its ids; 0 from a version that did not have them
};
static_assert(sizeof(struct store_header) == 128, "a file format");

size_t store_record_bytes(const struct store_shape *s);
// What is known of ids without reading them: six bits each of hashes of the first 2, 4, 8 and 16, and in the highest
// byte how many at the end are none (negative).
uint32_t store_marks(const int32_t *ids, uint32_t n_ids);
static inline uint32_t store_marks_missing(uint32_t marks)
{
    return marks >> 24;
}
// How many ids at least two rows seem to begin with alike, by their marks: 0, 2, 4, 8 or 16.
uint32_t store_marks_alike(uint32_t a, uint32_t b);
static inline int32_t *store_ids(void *record)
{
    return (int32_t *)(void *)((unsigned char *)record + sizeof(struct store_header));
}
static inline unsigned char *store_data(void *record, uint32_t n_ids)
{
    return (unsigned char *)record + sizeof(struct store_header) + n_ids * sizeof(int32_t);
}

struct store_settings {
    const char *dir;    // of all families; made with mode 0700 where missing
    uint64_t cap_bytes; // of all families together; 0 = a quarter of what is free, at most 64 GiB
    uint32_t retry_s;   // after a write has failed; 0 = 300
    struct store_shape shape;
};

// Opens a family, as its writer where no other process is, otherwise to read. Reads all headers.
// *why (may be NULL): why its folder cannot be written to, where it is only read for that and not for another process.
bool store_open(struct store **out, const struct store_settings *s, struct err *why, struct err *e);
void store_close(struct store *st); // NULL is fine

// Where a record is and what its header says.
struct store_entry {
    struct hash128 key, parent, salt;
    uint32_t depth, i_segment, slot, marks;
    int64_t saved_unix;
    bool dead; // found bad, or replaced
};
// Is there a record of this key? Asks the index, no I/O.
bool store_has(struct store *st, struct hash128 key);
// The same, and this was a use of it: worth, what it saved (in any unit), keeps it.
bool store_use(struct store *st, struct hash128 key, double worth);

// Of the records that follow this parent under this salt, the one whose ids begin most like these marks; the newer of
// equal ones. Looks at the newest few only. False where none begins so. No I/O.
bool store_child(struct store *st, struct hash128 parent, struct hash128 salt, uint32_t marks,
                 struct store_entry *out);

enum store_result { STORE_OK, STORE_MISSING, STORE_BAD };
// Reads the record into record[store_record_bytes] and verifies it; ids[n_ids] and parent are what the
// caller expects (ids NULL: whatever the record says of both). A bad record is forgotten.
enum store_result store_get(struct store *st, struct hash128 key, struct hash128 parent,
                            const int32_t *ids, void *record);
// Where data go, piece by piece in their order: next gives a place for n bytes more, at most STORE_PIECE_BYTES; they are
// there, though not yet verified, when it is called again, or store_get_to returns. NULL: no place, nothing is read.
enum { STORE_PIECE_BYTES = 256 << 10 };
struct store_sink {
    void *(*next)(void *arg, size_t n);
    void *arg;
};
// The same with the data going there instead: record takes the rest. STORE_MISSING where there is no place.
enum store_result store_get_to(struct store *st, struct hash128 key, struct hash128 parent,
                               const int32_t *ids, void *record, const struct store_sink *data);
// near[n]: is each key's record in the system's memory, so that reading it asks no disk? Looks at some of them, and
// takes those behind for alike. Never waits; true where that cannot be said.
void store_near(struct store *st, const struct hash128 *keys, uint32_t n, bool *near);
// Bytes a second at which the disk itself gives what it holds, tried for so long; 0 where nothing can be tried: all of
// it is in memory, or is not yet on the disk.
double store_read_speed(struct store *st, uint32_t ms);
// Appends a record, of which the caller filled key, parent, salt and depth, ids and data; the rest is
// filled here. worth: of the use that it comes from. Where the cap asks for it, segments go whose records were worth least
// (decayed), with those of a segment whose records go on from theirs: so ends of texts go before beginnings. After a write has failed (full
// disk, read-only file system) the store only reads, until retry_s later.
bool store_put(struct store *st, void *record, double worth, struct err *e);
bool store_writable(const struct store *st);
// Housekeeping, to be called every few seconds: remembers uses on disk; a reader looks for what the
// writer added, and becomes the writer when that one is gone.
void store_tick(struct store *st);

// A few numbers that the family's user wants to find again; not part of any record, may be missing or
// of another time. read: false when there are none.
enum { STORE_MEMO = 5 };
bool store_memo_read(struct store *st, double out[STORE_MEMO]);
void store_memo_write(struct store *st, const double in[STORE_MEMO]); // writer only

struct store_figures {
    uint64_t n_records, bytes, cap_bytes, other_bytes; // other: of other families, when last looked
    uint64_t n_bad, n_dropped, n_saved;                // since it was opened; dropped: for the cap
    bool writer;
};
void store_figures(struct store *st, struct store_figures *out);
// Entries that are alive, from index *next on; *next is where to go on. The uses of an entry's segment
// are in uses[] where that is not NULL. Returns how many were written, 0 at the end.
size_t store_list(struct store *st, size_t *next, struct store_entry *out, double *uses,
                  size_t max);
// Grows with whatever comes into the index or leaves it: as long as it stays, store_list would say the same.
uint64_t store_changes(struct store *st);
// Reads a record's ids[n_ids] alone, for somebody to look at: only its header is verified.
bool store_peek(struct store *st, struct hash128 key, int32_t *ids);
// Forgets a record: from now on nothing finds it here. False where there is none. *where is for store_erase, which
// makes it unreadable on disk (writer only), so that no later process finds it.
bool store_forget(struct store *st, struct hash128 key, struct store_entry *where);
void store_erase(struct store *st, const struct store_entry *where);

// The header's check, for who has a record's bytes (scan, fuzzing): are family, sizes and head_sum right?
bool store_header_valid(const struct store_header *h, const struct store_shape *s);
