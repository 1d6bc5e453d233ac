// Pages in fewer bits for the tiers below the device, where a user asks for that: blocks of 32 values as q8_0 has
// them, one scale and 32 times 8 bits. What comes back is close, not the same; so pages of either kind never stand
// in one store (fingerprint.h), and a record says which it is.
//
// A block is 32 neighbours in the backend's own layout, whatever they are of.
#pragma once

#include "compute/backend.h"

enum page_encoding { PAGES_EXACT, PAGES_Q8_0 };

struct page_code {
    enum page_encoding encoding;
    struct page_form form;
    size_t page_bytes, stored_bytes; // on the device; below
};

// name: "exact" (also NULL and ""), "q8_0". Pages that are not made of 16 or 32-bit floats stay as they are.
bool page_code_from(const char *name, const struct page_form *form, size_t page_bytes,
                    struct page_code *out, struct err *e);
// page[page_bytes] to stored[stored_bytes]. False where a value has no place in the code: none that is a number of
// a network that works.
bool page_encode(const struct page_code *c, const void *page, void *stored);
void page_decode(const struct page_code *c, const void *stored, void *page);
