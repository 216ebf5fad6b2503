// What caches ask of their packed states: codes as numbers, and attention to kept channels.
#include "decode.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "bfloat16.h"
#include "clones.h"
#include "exponential.h"

namespace {

#include "eights.inl"

// Codes of BITS bits become what they stand for: a row of `channels`, whole eights, after another.
template <int BITS>
inline __attribute__((always_inline)) void stand_for_codes(const uint8_t *const *lines,
                                                           const float *scales,
                                                           const float *offsets, bool by_channel,
                                                           int64_t count, int64_t channels,
                                                           float *out) {
    for (int64_t token = 0; token < count; token++)
        for (int64_t i = 0; i < channels; i += 8, out += 8) {
            const int64_t column = token * channels + i;
            typedef int32_t EightWhole __attribute__((vector_size(32)));
            const auto codes = (EightWhole)eight_codes<BITS>(lines, column);  // a plane a bit
            const EightNumbers plain = __builtin_convertvector(codes, EightNumbers);
            const EightNumbers found =
                by_channel ? plain * eight_numbers(scales + i) + eight_numbers(offsets + i)
                           : plain * scales[token] + offsets[token];
            std::memcpy(out, &found, 32);
        }
}

CLONES void stand_for(int planes, const uint8_t *const *lines, const float *scales,
                      const float *offsets, bool by_channel, int64_t count, int64_t channels,
                      float *out) {
#define BITS(number)                                                                          \
    case number:                                                                              \
        if (by_channel)                                                                       \
            stand_for_codes<number>(lines, scales, offsets, true, count, channels, out);      \
        else                                                                                  \
            stand_for_codes<number>(lines, scales, offsets, false, count, channels, out);     \
        break;
    switch (planes) { BITS(1) BITS(2) BITS(3) BITS(4) BITS(5) BITS(6) BITS(7) BITS(8) }
#undef BITS
}

CLONES void widen(const uint16_t *from, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = widened(from[i]);
}

// A row of thin factors is added to a token's channels.
CLONES void add_thin(const uint16_t *left, const uint16_t *right, int64_t rank, int64_t channels,
                     float *out) {
    for (int64_t k = 0; k < rank; k++, right += channels)
        for (int64_t i = 0; i < channels; i++) out[i] += widened(left[k]) * widened(right[i]);
}

CLONES void times(const uint16_t *factors, int64_t channels, float *out) {
    for (int64_t i = 0; i < channels; i++) out[i] *= widened(factors[i]);
}

}  // namespace

extern "C" {

// Codes of chunks of tokens, [heads, tokens, channels].
struct CodedStates {
    Codes codes;
    const uint16_t *scales, *offsets;  // bfloat16, [heads, chunks, channels] or [heads, tokens]
    int64_t heads, tokens, channels, by_channel;
};

// Codes with the error of rounding and outliers beside them, chunk by chunk.
struct CorrectedStates {
    CodedStates codes;
    const uint16_t *left, *right;     // [heads, chunks, chunk, rank], [heads, chunks, rank, channels]
    const uint16_t *places, *values;  // [heads, chunks, apart], of a chunk's numbers
    int64_t rank, apart;
};

// Chunks whose marked tokens lie in wider codes than the others.
struct PartedStates {
    CodedStates marked, others;
    const uint8_t *marks;      // [heads, chunks, bytes]
    const uint16_t *divisors;  // [heads, chunks, channels], multiplied after, or null
    int64_t chunks, salient;
};

// `count` is a chunk's tokens where its tokens share a scale.
void read_codes(const CodedStates *held, int64_t first, int64_t count, int64_t stride,
                float *out) {
    const int64_t channels = held->channels, shared = held->by_channel ? channels : count;
    std::vector<float> worth(2 * shared);
    float *const scales = worth.data(), *const offsets = scales + shared;
    for (int64_t head = 0; count && head < held->heads; head++) {
        const int64_t row = head * held->tokens + first;
        const int64_t place = held->by_channel ? row / count * channels : row;
        widen(held->scales + place, shared, scales);
        widen(held->offsets + place, shared, offsets);
        if (channels == stride) {  // whole eights, which end with a byte in every plane
            const Lines lines(held->codes, row, channels);
            stand_for(lines.planes, lines.of, scales, offsets, held->by_channel, count, channels,
                      out + head * count * stride);
            continue;
        }
        for (int64_t token = 0; token < count; token++) {
            float *const to = out + (head * count + token) * stride;
            const Lines lines(held->codes, row + token, channels);
            scale(lines, 0, channels, 0, 1, 0, to);
            for (int64_t i = 0; i < channels; i++) {
                const int64_t which = held->by_channel ? i : token;
                to[i] = to[i] * scales[which] + offsets[which];
            }
        }
    }
}

void read_corrected(const CorrectedStates *held, int64_t first, int64_t count, int64_t stride,
                    float *out) {
    const int64_t channels = held->codes.channels, rank = held->rank;
    read_codes(&held->codes, first, count, stride, out);
    for (int64_t head = 0; head < held->codes.heads; head++, out += count * stride) {
        const int64_t chunk = (head * held->codes.tokens + first) / count;
        for (int64_t token = 0; token < count; token++)
            add_thin(held->left + (chunk * count + token) * rank,
                     held->right + chunk * rank * channels, rank, channels, out + token * stride);
        for (int64_t i = chunk * held->apart; i < (chunk + 1) * held->apart; i++) {
            const int64_t place = held->places[i];
            out[place / channels * stride + place % channels] = widened(held->values[i]);
        }
    }
}

void read_parted(const PartedStates *held, int64_t first, int64_t count, int64_t stride,
                 float *out) {
    const int64_t channels = held->others.channels, heads = held->others.heads;
    const int64_t chunk = first / count, few = held->salient, rest = count - few;
    std::vector<float> room(heads * count * stride);
    float *const marked = room.data(), *const others = marked + heads * few * stride;
    read_codes(&held->marked, chunk * few, few, stride, marked);
    read_codes(&held->others, chunk * rest, rest, stride, others);
    for (int64_t head = 0; head < heads; head++) {
        const int64_t place = head * held->chunks + chunk;
        const uint8_t *marks = held->marks + place * bytes_of(count, 1);
        const float *next[2] = {others + head * rest * stride, marked + head * few * stride};
        for (int64_t token = 0; token < count; token++, out += stride) {
            const float *&from = next[bit_of(marks, token)];
            std::copy_n(from, channels, out);
            from += stride;
            if (held->divisors) times(held->divisors + place * channels, channels, out);
        }
    }
}

// Kept channels of keys or values: of each pair of a text and a head, of each token, as many.
struct KeptChannels {
    const uint8_t *bitmap;   // [pairs, tokens, ceil(channels / 8)]
    const uint16_t *values;  // [pairs, tokens, kept], bfloat16
    int64_t pairs, tokens, channels, kept;
};

// A row's channels, with zeros where none is kept; `kept` has room for sixteen more.
static void spread_kept(const KeptChannels &held, int64_t row, float *kept, float *out) {
    const uint8_t *mask = held.bitmap + row * bytes_of(held.channels, 1);
    loops->widen(held.values + row * held.kept, held.kept, kept);
    spread_row(mask, kept, held.channels, out);
}

void read_kept(const KeptChannels *held, int64_t first, int64_t count, int64_t stride,
               float *out) {
    std::vector<float> kept(held->kept + 16);
    for (int64_t pair = 0; pair < held->pairs; pair++)
        for (int64_t token = 0; token < count; token++, out += stride)
            spread_kept(*held, pair * held->tokens + first + token, kept.data(), out);
}

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
    std::vector<float> kept(held->kept + 16), spread(held->channels);
    std::fill_n(out, held->pairs * count * held->channels, 0.0f);
    for (int64_t pair = 0; pair < held->pairs; pair++)
        for (int64_t token = 0; token < held->tokens; token++) {
            const int64_t at = pair * held->tokens + token;
            spread_kept(*held, at, kept.data(), spread.data());
            for (int64_t query = pair * count; query < (pair + 1) * count; query++)
                loops->combine(out + query * held->channels, spread.data(),
                               shares[query * held->tokens + token], held->channels);
        }
}
}
