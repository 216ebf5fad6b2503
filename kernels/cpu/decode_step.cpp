// One token through all blocks of a model of Llama's shape, in float32; composed products.
#include "decode_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bfloat16.h"
#include "clones.h"

namespace {

float number(float value) { return value; }

float number(uint16_t bfloat16) { return widened(bfloat16); }

template <typename Number>
inline __attribute__((always_inline)) float dot_of(const float *a, const Number *b, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += a[i] * number(b[i]);
    return sum;
}

CLONES float dot(const float *a, const float *b, int64_t count) { return dot_of(a, b, count); }

CLONES float dot(const float *a, const uint16_t *b, int64_t count) { return dot_of(a, b, count); }

template <typename Number>
inline __attribute__((always_inline)) void add_of(float *y, const Number *x, float factor,
                                                  int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] += factor * number(x[i]);
}

CLONES void add_scaled(float *y, const float *x, float factor, int64_t count) {
    add_of(y, x, factor, count);
}

CLONES void add_scaled(float *y, const uint16_t *x, float factor, int64_t count) {
    add_of(y, x, factor, count);
}

void put(float *to, const float *from, int64_t count) { std::copy_n(from, count, to); }

void put(uint16_t *to, const float *from, int64_t count) {
    std::transform(from, from + count, to, narrowed);
}

void product(const Product &p, const float *x, float *y) {
    p.multiply(p.matrix, x, y);
    if (p.bias) add_scaled(y, p.bias, 1, p.rows);
}

void normalise(const Norm &norm, const float *x, float *y) {
    const float factor = 1 / std::sqrt(dot(x, x, norm.width) / norm.divisor + norm.epsilon);
    for (int64_t i = 0; i < norm.width; i++) y[i] = x[i] * factor;
    if (norm.weight)
        for (int64_t i = 0; i < norm.width; i++) y[i] *= norm.weight[i];
}

// Sines of the first half are negative: x * cosine + (x turned by half) * sine.
void rotate(float *x, const float *cosine, const float *sine, int64_t size) {
    const int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        const float first = x[i], second = x[i + half];
        x[i] = first * cosine[i] + second * sine[i];
        x[i + half] = second * cosine[i + half] + first * sine[i + half];
    }
}

void shares(float *scores, int64_t count) {
    const float top = *std::max_element(scores, scores + count);
    float sum = 0;
    for (int64_t i = 0; i < count; i++) sum += scores[i] = std::exp(scores[i] - top);
    for (int64_t i = 0; i < count; i++) scores[i] /= sum;
}

template <typename Number>
void remember(const Block &block, int64_t size, const float *keys, const float *values,
              int64_t position) {
    for (int64_t at = 0; at < block.key.rows; at += size) {
        const int64_t place = at * block.capacity + position * size;
        put(static_cast<Number *>(block.keys) + place, keys + at, size);
        put(static_cast<Number *>(block.values) + place, values + at, size);
    }
}

template <typename Number>
void attend(const Block &block, int64_t size, const float *queries, int64_t tokens, float *found,
            float *scores) {
    const int64_t heads = block.query.rows / size, held = block.key.rows / size;
    for (int64_t head = 0; head < heads; head++) {
        const int64_t start = head / (heads / held) * block.capacity * size;
        const Number *keys = static_cast<const Number *>(block.keys) + start;
        const Number *values = static_cast<const Number *>(block.values) + start;
        for (int64_t t = 0; t < tokens; t++)
            scores[t] = block.scale * dot(queries + head * size, keys + t * size, size);
        shares(scores, tokens);
        std::fill_n(found + head * size, size, 0.0f);
        for (int64_t t = 0; t < tokens; t++)
            add_scaled(found + head * size, values + t * size, scores[t], size);
    }
}

// The old stream, as it is or through a shortcut, plus what a half of the block found.
void carry(const Product &shortcut, float *stream, const float *found, float *spare, int64_t size) {
    if (shortcut.multiply) {
        product(shortcut, stream, spare);
        std::memcpy(stream, spare, size * sizeof(float));
    }
    add_scaled(stream, found, 1, size);
}

}  // namespace

extern "C" {

struct Chain {
    const Product *parts;  // applied in order
    int64_t count;
    float *scratch;  // two of the longest vector between them
    int64_t longest;
};

struct Sum {
    const Product *parts;
    int64_t count;
    float *scratch;  // [rows]
};

struct Placed {
    const Product *parts;  // their rows follow each other
    int64_t count;
    const int64_t *places;  // [rows], which of those rows each is
    float *scratch;         // [rows of all parts]
    int64_t rows;
};

void multiply_chain(const void *matrix, const float *x, float *y) {
    const Chain &chain = *static_cast<const Chain *>(matrix);
    for (int64_t i = 0; i < chain.count; i++) {
        float *out = i + 1 == chain.count ? y : chain.scratch + (i % 2) * chain.longest;
        product(chain.parts[i], x, out);
        x = out;
    }
}

void multiply_sum(const void *matrix, const float *x, float *y) {
    const Sum &sum = *static_cast<const Sum *>(matrix);
    product(sum.parts[0], x, y);
    for (int64_t i = 1; i < sum.count; i++) {
        product(sum.parts[i], x, sum.scratch);
        add_scaled(y, sum.scratch, 1, sum.parts[i].rows);
    }
}

void multiply_placed(const void *matrix, const float *x, float *y) {
    const Placed &placed = *static_cast<const Placed *>(matrix);
    float *next = placed.scratch;
    for (int64_t i = 0; i < placed.count; i++) {
        product(placed.parts[i], x, next);
        next += placed.parts[i].rows;
    }
    for (int64_t row = 0; row < placed.rows; row++) y[row] = placed.scratch[placed.places[row]];
}

// `stream` [channels] is the token's embedding and is written over; `logits` [vocabulary].
void decode_step(const Step *step, float *stream, const float *cosine, const float *sine,
                 int64_t position, float *logits) {
    const int64_t size = step->head_dim;
    float *a = step->scratch, *b = a + step->widest, *c = b + step->widest, *d = c + step->widest;
    float *spare = d + step->widest, *found = spare + step->widest, *scores = found + step->widest;
    for (int64_t index = 0; index < step->count; index++) {
        const Block &block = step->blocks[index];
        if (block.query.multiply) {
            normalise(block.before, stream, a);
            product(block.query, a, b);
            product(block.key, a, c);
            product(block.value, a, d);
            for (int64_t at = 0; at < block.query.rows; at += size) {
                if (block.query_norm.width) normalise(block.query_norm, b + at, b + at);
                rotate(b + at, cosine, sine, size);
            }
            for (int64_t at = 0; at < block.key.rows; at += size) {
                if (block.key_norm.width) normalise(block.key_norm, c + at, c + at);
                rotate(c + at, cosine, sine, size);
            }
            if (block.halved) {
                remember<uint16_t>(block, size, c, d, position);
                attend<uint16_t>(block, size, b, position + 1, a, scores);
            } else {
                remember<float>(block, size, c, d, position);
                attend<float>(block, size, b, position + 1, a, scores);
            }
            product(block.output, a, found);
            carry(block.attention_shortcut, stream, found, spare, block.output.rows);
        }
        if (block.gate.multiply) {
            normalise(block.between, stream, a);
            product(block.gate, a, b);
            product(block.up, a, c);
            for (int64_t i = 0; i < block.gate.rows; i++) b[i] *= c[i] / (1 + std::exp(-b[i]));
            product(block.down, b, found);
            carry(block.network_shortcut, stream, found, spare, block.down.rows);
        }
    }
    normalise(step->last, stream, a);
    if (step->last_shortcut.multiply) {
        product(step->last_shortcut, a, b);
        std::swap(a, b);
    }
    product(step->head, a, logits);
}
}
