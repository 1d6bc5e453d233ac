// Made from its end, as all of a grammar: a function is given the place that follows and returns the place
// where its own part begins.
#include "text/json_number.h"

#include <stdio.h>

enum { DIGITS_MAX = 15, EXPONENT_DIGITS = 2 };

static uint32_t byte(struct grammar *g, char c, uint32_t next)
{
    return grammar_text(g, (struct str){&c, 1}, next);
}

static uint32_t range(struct grammar *g, int lo, int hi, uint32_t next)
{
    return grammar_range(g, (uint8_t)lo, (uint8_t)hi, 1, 0, next);
}

static uint32_t digits(struct grammar *g, int least, int most, uint32_t next)
{
    uint32_t place = next;
    for (int i = most; i > 0; i--) {
        const uint32_t one = range(g, '0', '9', place);
        place = i > least ? grammar_either(g, one, next) : one;
    }
    return place;
}

static uint32_t nonzero(struct grammar *g, uint32_t next)
{
    return range(g, '1', '9', digits(g, 0, DIGITS_MAX - 1, next));
}

static uint32_t or_else(struct grammar *g, uint32_t place, uint32_t other)
{
    return place == GRAMMAR_NONE   ? other
           : other == GRAMMAR_NONE ? place
                                   : grammar_either(g, place, other);
}

// Digits i to n of numbers of n digits from `low` to `high`; each bound holds as long as all digits before
// were its own.
static uint32_t digits_between(struct grammar *g, const char *low, const char *high, int n, int i,
                               uint32_t next)
{
    if (i == n) return next;
    if (low == NULL && high == NULL) return digits(g, n - i, n - i, next);
    const int first = low != NULL ? low[i] : '0', last = high != NULL ? high[i] : '9';
    if (first == last) return range(g, first, first, digits_between(g, low, high, n, i + 1, next));
    const int from = first + (low != NULL), to = last - (high != NULL);
    uint32_t place = GRAMMAR_NONE;
    if (low != NULL) place = range(g, first, first, digits_between(g, low, NULL, n, i + 1, next));
    if (high != NULL)
        place =
            or_else(g, place, range(g, last, last, digits_between(g, NULL, high, n, i + 1, next)));
    if (from > to) return place;
    return or_else(g, place, range(g, from, to, digits(g, n - i - 1, n - i - 1, next)));
}

// Whole numbers from low to high, without a sign: length by length.
static uint32_t whole_between(struct grammar *g, uint64_t low, uint64_t high, uint32_t next)
{
    uint32_t place = GRAMMAR_NONE;
    uint64_t least = 0, most = 9;
    for (int n = 1; n <= DIGITS_MAX && least <= high; n++) {
        char from[24], to[24];
        snprintf(from, sizeof from, "%llu", (unsigned long long)(low > least ? low : least));
        snprintf(to, sizeof to, "%llu", (unsigned long long)(high < most ? high : most));
        if (low <= most) place = or_else(g, place, digits_between(g, from, to, n, 0, next));
        least = most + 1;
        most = most * 10 + 9;
    }
    return place;
}

// Numbers from low to high: those below high with any digits behind the point, and high itself.
static uint32_t number_between(struct grammar *g, uint64_t low, uint64_t high, uint32_t next)
{
    uint32_t zeros = next;
    for (int i = 0; i < DIGITS_MAX; i++)
        zeros = i == 0 ? byte(g, '0', next) : byte(g, '0', grammar_either(g, zeros, next));
    const uint32_t exact =
        whole_between(g, high, high, grammar_either(g, byte(g, '.', zeros), next));
    if (low == high) return exact;
    const uint32_t part = grammar_either(g, byte(g, '.', digits(g, 1, DIGITS_MAX, next)), next);
    return or_else(g, exact, whole_between(g, low, high - 1, part));
}

// ---- what others use ---------------------------------------------------------------------------

uint32_t json_integer(struct grammar *g, uint32_t next)
{
    const uint32_t place = nonzero(g, next);
    return grammar_either(g, byte(g, '-', place), grammar_either(g, byte(g, '0', next), place));
}

uint32_t json_number(struct grammar *g, uint32_t next)
{
    const uint32_t exponent = digits(g, 1, EXPONENT_DIGITS, next);
    const uint32_t e =
        grammar_range(g, 'e', 'e', 'E', 'E',
                      grammar_either(g, grammar_range(g, '+', '+', '-', '-', exponent), exponent));
    const uint32_t after = grammar_either(g, e, next);
    const uint32_t part = byte(g, '.', digits(g, 1, DIGITS_MAX, after));
    const uint32_t behind = grammar_either(g, part, after);
    const uint32_t whole = grammar_either(g, byte(g, '0', behind), nonzero(g, behind));
    return grammar_either(g, byte(g, '-', whole), whole);
}

uint32_t json_number_between(struct grammar *g, bool integers, int64_t least, int64_t most,
                             uint32_t next)
{
    uint32_t (*const between)(struct grammar *, uint64_t, uint64_t, uint32_t) =
        integers ? whole_between : number_between;
    uint32_t place = GRAMMAR_NONE;
    if (most >= 0) place = between(g, least > 0 ? (uint64_t)least : 0, (uint64_t)most, next);
    if (least >= 0) return place;
    const uint64_t nearest = most < 0 ? (uint64_t)-most : integers ? 1 : 0;
    return or_else(g, place, byte(g, '-', between(g, nearest, (uint64_t)-least, next)));
}
