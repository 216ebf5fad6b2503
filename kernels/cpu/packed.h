// Matrices as the formats hold them: nothing is laid out anew. What each knows is how to write a
// part of a row in float32; one product serves all of them.
#pragma once

#include <cstdint>

extern "C" {

struct Packed;

struct State;

typedef void (*Decode)(const Packed *matrix, int64_t row, int64_t column, int64_t count,
                       float *out, State &state);

struct Packed {
    Decode decode;  // a part of a row; quickest where rows follow each other
    int64_t rows, columns;
};

// One for each format; they are named by `Packed`, and tell what a matrix is.
#define DECODES(name)                                                                          \
    void name(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,    \
              State &state)
DECODES(decode_float32);
DECODES(decode_bfloat16);
DECODES(decode_integers);
DECODES(decode_codebook);
DECODES(decode_bitmask);
DECODES(decode_two_of_four);
DECODES(decode_transposed);
DECODES(decode_mixed);
DECODES(decode_binary);
DECODES(decode_sum);
DECODES(decode_groups);
DECODES(decode_columns);
DECODES(decode_window);
DECODES(decode_entropy);
#undef DECODES

struct Codes {
    const uint8_t *planes[4];  // of 1, 2, 4 and 8 bits, narrowest lowest; null where there is none
};

struct DenseRows {
    Packed shape;
    const void *numbers;
};

struct IntegerGroups {
    Packed shape;
    Codes codes, zero_points;  // codes of 0 to 2**bits - 1
    int64_t group_size;
    float middle;  // code that means zero without a zero point
    float unit;    // what neighbouring codes are apart in scales
    const Packed *scales, *offsets;
};

struct Codebook {
    Packed shape;
    Codes codes;
    const uint16_t *rows;  // [rows, size], bfloat16; null: one table for all
    const float *table;    // [size]
    int64_t size, dimension;
    const Packed *scales;  // [rows, groups], or null
    int64_t group_size;
};

struct BinaryCodes {
    Packed shape;
    const uint8_t *signs;  // [planes, rows, bytes]
    const Packed *worth;   // [(planes + 1) * rows, groups]: scales of each plane, then offsets
    int64_t planes, group_size;
};

struct Bitmask {
    Packed shape;
    const uint8_t *mask;  // [rows, ceil(columns / 8)]
    const Packed *values;  // [1, kept]
};

struct GroupSparse {
    Packed shape;
    const uint8_t *mask;   // [rows, ceil(groups / 8)], a bit a group
    const Packed *values;  // [1, group_size * kept]
    int64_t group_size;
};

struct TwoOfFour {
    Packed shape;
    const uint8_t *positions;  // two bits each
    const Packed *values;      // [rows, columns / 2]
};

struct SplitColumns {
    Packed shape;
    const uint8_t *mask;  // a bit a column: the next of `fine`, else of `coarse`, scaled
    const Packed *fine, *coarse;
    const uint16_t *scales;  // of the coarse columns, bfloat16
};

struct SignBlock {
    Packed shape;
    const uint8_t *signs;
    const Packed *left, *right;
};

struct EntropyCoded {
    Packed shape;
    const uint8_t *rest, *stream;
    const int64_t *bases;
    const uint16_t *starts;
    const void *table;  // of codes
    int64_t bytes;      // of the stream
};

struct WindowCoded {
    Packed shape;
    const uint8_t *rest, *codes, *table;  // sign and mantissa, [rows, bytes], [16] exponents
    const int32_t *rows, *columns;        // of the numbers apart, row after row
    const uint16_t *values;
    int64_t apart;
};

struct Transposed {
    Packed shape;
    const Packed *held;  // [columns, rows]
};

struct MixedRows {
    Packed shape;
    const uint8_t *mask;  // a bit a row: the next of `fine`, else of `coarse`
    const Packed *fine, *coarse;
};

struct SumOfTwo {
    Packed shape;
    const Packed *first, *second;
};

// How activations are rounded: each block of a token's with a step of its own.
struct Rounding {
    int64_t bits;  // of a code, or WHOLE: to 16 bits with a step every 32 columns
    int64_t block, wide;  // columns of a block, and those of the first blocks, which have 8 bits
    float reach;  // what the largest code stands for, as a share of the largest of the block
    int32_t odd;  // whether codes are odd numbers of half steps
};

struct Outliers {
    Packed shape;
    const uint16_t *values, *positions;
    const int32_t *ends;  // of each row
};
}
