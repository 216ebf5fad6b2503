// What a step of one or several tokens is made of. A product is a function and the matrix it multiplies by, so that
// the step knows no layout: y[count, rows] = x[count, columns] W^T, in float32.
#pragma once

#include <cstdint>

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
    void *keys, *values;  // [heads, capacity, head_dim], float32 or bfloat16
    int64_t capacity, halved;  // halved: 1 for bfloat16
    int64_t asked;             // 1: attention is the caller's
    float scale;
};

// Attention of a block: queries, keys and values lie in the second to fourth part of the scratch,
// what it finds goes into the first.
typedef void (*AttendFunction)(int64_t block);

struct Step {
    const Block *blocks;
    int64_t count, head_dim, widest;  // widest: floats of the longest vector between two products
    Norm last;
    Product last_shortcut, head;
    AttendFunction attend;  // for blocks that ask; null where none does
    float *scratch;  // 6 * widest for each token + the longest text's scores of one head
};
}
