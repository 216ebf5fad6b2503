// What the loops of every kind of processor look up; included by the files that compile them.
#pragma once

#include "exponential.h"
#include "loops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#ifdef SEVERAL_KINDS
#include <immintrin.h>
#endif

namespace {

// Where the kept entries of eight columns lie, by the byte of their mask.
struct Spread {
    uint32_t place[256][8], kept[256][8];
    uint32_t marked[256][8];  // the other way: the columns that are kept, one after another
    uint32_t first[9][8];    // as many as are kept

    Spread() {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t next = 0;
            std::fill_n(marked[byte], 8, 0);
            for (int bit = 0; bit < 8; bit++) {
                const bool there = (byte >> bit) & 1;
                if (there) marked[byte][next] = static_cast<uint32_t>(bit);
                place[byte][bit] = there ? next++ : 0;
                kept[byte][bit] = there ? ~0u : 0;
            }
        }
        for (int count = 0; count <= 8; count++)
            for (int i = 0; i < 8; i++) first[count][i] = i < count ? ~0u : 0;
    }
};

const Spread SPREAD;

// Where the kept entries of two fours lie, by the byte of their positions.
struct Fours {
    uint32_t place[256][8], kept[256][8];
    uint8_t marked[256];  // a bit for each that is kept

    Fours() {
        for (int byte = 0; byte < 256; byte++) {
            marked[byte] = 0;
            for (int column = 0; column < 8; column++)
                place[byte][column] = kept[byte][column] = 0;
            for (uint32_t value = 0; value < 4; value++) {
                const uint32_t column = value / 2 * 4 + (byte >> (2 * value) & 3);
                place[byte][column] = value;
                kept[byte][column] = ~0u;
                marked[byte] |= 1 << column;
            }
        }
    }
};

const Fours FOURS;

}  // namespace
