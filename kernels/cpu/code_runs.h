// A tile of codes with a few activations, by AVX-512 with VNNI: the loop that all else feeds.
#pragma once

#include <cstdint>

constexpr int64_t TILE_WORD = 128;  // bytes of four codes of 32 rows

// 128 columns of 32 rows, and what they meet.
struct Meeting {
    const uint8_t *tile;     // [words, 32 rows, 4]
    const uint8_t *bytes;    // [words, activations, 1 or 2, 4]
    const float *shared;     // [32 columns, activations]: scales
    const float *own[4];     // of each 32 columns, [32 rows]: scales of their group
    const float *halves;     // [32 columns, 32 rows]: half the sums of codes; or null
    float *sums;             // [activations, 32 rows]
    const uint8_t *ahead;    // what is needed of memory later: so many lines every four words
    int64_t ahead_lines;
};

typedef void (*AddRun)(const Meeting &);

// What adds the products of a tile with so many activations, in upper bytes alone or with lower
// ones, to their sums; 32, 64 or 128 columns have one scale and one group: 1, 2 or 4 pieces.
AddRun add_run_of(bool in_bytes, int64_t pieces, int64_t activations);
