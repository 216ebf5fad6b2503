// What caches ask of their packed states: codes as numbers, and attention to kept channels.
#include "decode.h"

#include <algorithm>
#include <vector>

extern "C" {

// Kept channels of keys or values: of each pair of a text and a head, of each token, as many.
struct KeptChannels {
    const uint8_t *bitmap;   // [pairs, tokens, ceil(channels / 8)]
    const uint16_t *values;  // [pairs, tokens, kept], bfloat16
    int64_t pairs, tokens, channels, kept;
};

// Codes [rows, columns] as they count.
void unpack_codes(const Codes *codes, int64_t rows, int64_t columns, float *out) {
    for (int64_t row = 0; row < rows; row++)
        scale(Lines(*codes, row, columns), 0, columns, 0, 1, 0, out + row * columns);
}

// Products [pairs, queries, tokens] of queries [pairs, queries, channels] with all keys.
void score_kept(const KeptChannels *held, const float *queries, int64_t count, float *out) {
    const int64_t bytes = bytes_of(held->channels, 1);
    const uint16_t *end = held->values + held->pairs * held->tokens * held->kept;
    for (int64_t pair = 0; pair < held->pairs; pair++)
        for (int64_t query = pair * count; query < (pair + 1) * count; query++) {
            const uint16_t *next = held->values + pair * held->tokens * held->kept;
            for (int64_t token = 0; token < held->tokens; token++)
                out[query * held->tokens + token] = loops->masked_dot(
                    held->bitmap + (pair * held->tokens + token) * bytes,
                    queries + query * held->channels, held->channels, next, end);
        }
}

// Values weighted by shares [pairs, queries, tokens]: [pairs, queries, channels].
void mix_kept(const KeptChannels *held, const float *shares, int64_t count, float *out) {
    const int64_t bytes = bytes_of(held->channels, 1), whole = held->channels / 8;
    std::vector<float> kept(held->kept + 8), spread(held->channels);
    std::fill_n(out, held->pairs * count * held->channels, 0.0f);
    for (int64_t pair = 0; pair < held->pairs; pair++)
        for (int64_t token = 0; token < held->tokens; token++) {
            const int64_t at = pair * held->tokens + token;
            const uint8_t *mask = held->bitmap + at * bytes;
            loops->widen(held->values + at * held->kept, held->kept, kept.data());
            const float *next = loops->spread(mask, kept.data(), whole, spread.data());
            for (int64_t k = whole * 8; k < held->channels; k++)
                spread[k] = bit_of(mask, k) ? *next++ : 0.0f;
            for (int64_t query = pair * count; query < (pair + 1) * count; query++)
                loops->combine(out + query * held->channels, spread.data(),
                               shares[query * held->tokens + token], held->channels);
        }
}
}
