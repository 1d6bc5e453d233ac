// The unfinished file and what is known of it: pieces, their state on disk, the hash of what is there from
// the start on. Inside host/ only.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sha256.h"
#include "base/str.h"

enum { ETAG_BYTES = 200 };

struct part {
    struct buf path, data_path, state_path;
    int fd; // of data_path; locked
    uint64_t size_bytes, piece_bytes;
    char etag[ETAG_BYTES]; // of the first answer; "" when there was none
    uint32_t n_pieces, n_done;
    unsigned char *done; // [n_pieces]
    uint64_t *have;      // [n_pieces] bytes of each
    struct sha256 hash;
    uint64_t hashed_bytes; // from the start
    uint64_t saved_ns;
    bool resumed; // some of it is of an earlier run
};

// Opens and locks the files of path. ERR_FULL when another process is at it.
bool part_open(struct part *out, const char *path, struct err *e);
// Fits it to the file at the source: what is there is kept when size and etag are the same.
bool part_fit(struct part *p, uint64_t size_bytes, const char *etag, uint64_t piece_bytes,
              struct err *e);
bool part_write(struct part *p, uint32_t piece, const void *data, size_t n, struct err *e);
// The piece is whole: hashes as far as there is no gap, and saves the state once a second.
bool part_finish_piece(struct part *p, uint32_t piece, struct err *e);
// Hashes what stands without a gap behind what was hashed.
bool part_hash(struct part *p, struct err *e);
bool part_save(struct part *p, struct err *e);
// All there: moves it to its place.
bool part_complete(struct part *p, struct err *e);
void part_discard(struct part *p); // forgets all pieces
void part_remove(struct part *p);  // and the files
void part_close(struct part *p);
uint64_t part_done_bytes(const struct part *p);
uint64_t part_piece_size(const struct part *p, uint32_t piece);
// Reads a state file: size and how much is done; false when there is none.
bool part_peek(const char *path, uint64_t *done_bytes, uint64_t *size_bytes);
