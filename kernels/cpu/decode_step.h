// What a step of one or several tokens is made of. A product is a function and the matrix it
// multiplies by, so that the step knows no layout: y[count, rows] = x[count, columns] W^T, in
// float32.
#pragma once

#include <cstdint>

#include "packed.h"

extern "C" {

typedef void (*MultiplyFunction)(const void *matrix, const float *x, int64_t count, float *y);

struct Product {
    MultiplyFunction multiply;  // null: there is no such matrix
    const void *matrix;
    const float *bias;  // [rows], or null
    int64_t rows, columns;
};

struct Norm {
    const float *weight;  // [width], or null for ones
    int64_t width;        // channels that are read
    float divisor;        // what the sum of squares is divided by
    float epsilon;        // 0 and no width: there is no norm
};

struct Block {
    Norm before, between, query_norm, key_norm;
    Product query, key, value, output, gate, up, down, attention_shortcut, network_shortcut;
    float scale;
};

// Keys or values of all heads of a few tokens in float32: [heads, count, stride].
typedef void (*ReadFunction)(const void *held, int64_t first, int64_t count, int64_t stride,
                             float *out);

// Tokens before those of a room, as a cache holds them, read piece by piece.
struct Past {
    int64_t tokens, piece;  // the second divides the first
    ReadFunction read_keys, read_values;
    const void *keys, *values;
};

// Where a block's keys and values are.
struct Room {
    void *keys, *values;  // [heads, capacity, head_dim], float32 or bfloat16
    int64_t capacity, halved;  // halved: 1 for bfloat16
    const Past *past;          // or null
    // A token sees the `sinks` first ones and those less than `reach` before it; `gone` ones after
    // the first are there no more. No reach: it sees all.
    int64_t sinks, reach, gone;
    float *asked;  // [tokens, query heads, head_dim], where the queries are noted, or null
};

// Attention of a block without a room: queries, keys and values lie in the second to fourth part
// of the scratch, what it finds goes into the first.
typedef void (*AttendFunction)(int64_t block);

struct Step {
    const Block *blocks;
    int64_t count, head_dim, widest;  // widest: floats of the longest vector between two products
    Norm last;
    Product last_shortcut, head;
    const Packed *embedding;  // [vocabulary, channels], or null
    AttendFunction attend;  // for blocks without a room; null where each has one
    float *scratch;  // 7 * widest for each token, and the logits where they are halved
    int64_t halved;  // 1: logits are written in bfloat16
};
}
