// What somebody may have meant who typed a word that there is not.
#pragma once

#include <stddef.h>

struct hint {
    const char *word;
    const char *best; // the likeliest of the words offered so far; NULL: none is near
    size_t distance;  // of best
};

// For `word`, as it was typed; of it nothing is kept but the pointer.
struct hint hint_of(const char *word);
// Offers a word that there is. Near is what differs by two letters at most, by one in words of up to four
// letters, or begins with the other up to a hyphen.
void hint_offer(struct hint *h, const char *known);
