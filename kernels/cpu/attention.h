// Attention of new tokens to a text, whose older tokens may lie as a cache holds them.
#pragma once

#include <cstdint>

#include "decode_step.h"

// New tokens, how many there are before them, and what they may see of each other.
struct Tokens {
    int64_t count, position;
    const uint8_t *among;  // [count, count], or null: each sees those before it and itself
};

// Puts keys and values [tokens, heads * size] of new tokens into a room, and what their queries
// [tokens, query heads * size] find there, shaped as they are, into `found`.
void attend(const Block &block, const Room &room, int64_t size, const float *queries,
            const float *keys, const float *values, const Tokens &tokens, float *found);
