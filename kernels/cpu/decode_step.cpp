// Tokens of one text through all blocks of a model of Llama's shape, in float32; composed products.
#include "decode_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

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

void product(const Product &p, const float *x, int64_t count, float *y) {
    p.multiply(p.matrix, x, count, y);
    if (!p.bias) return;
    for (int64_t one = 0; one < count; one++) add_scaled(y + one * p.rows, p.bias, 1, p.rows);
}

void normalise_one(const Norm &norm, const float *x, float *y) {
    const float factor = 1 / std::sqrt(dot(x, x, norm.width) / norm.divisor + norm.epsilon);
    for (int64_t i = 0; i < norm.width; i++) y[i] = x[i] * factor;
    if (norm.weight)
        for (int64_t i = 0; i < norm.width; i++) y[i] *= norm.weight[i];
}

void normalise(const Norm &norm, const float *x, int64_t count, float *y) {
    for (int64_t at = 0; at < count * norm.width; at += norm.width)
        normalise_one(norm, x + at, y + at);
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

// The heads of one token, each normalised where there is a norm, then turned to its position.
void place(const Norm &norm, float *heads, int64_t channels, int64_t size, const float *cosine,
           const float *sine) {
    for (int64_t at = 0; at < channels; at += size) {
        if (norm.width) normalise_one(norm, heads + at, heads + at);
        rotate(heads + at, cosine, sine, size);
    }
}

// New tokens, where they are put and what they may see of each other.
struct Tokens {
    int64_t count, position;
    const uint8_t *among;  // [count, count], or null: each sees those before it and itself

    bool hidden(int64_t token, int64_t other) const {
        return other >= position &&
               (among ? !among[token * count + other - position] : other > position + token);
    }
};

template <typename Number>
void remember(const Block &block, int64_t size, const float *keys, const float *values,
              const Tokens &tokens) {
    const int64_t channels = block.key.rows;
    for (int64_t token = 0; token < tokens.count; token++)
        for (int64_t at = 0; at < channels; at += size) {
            const int64_t place = at * block.capacity + (tokens.position + token) * size;
            put(static_cast<Number *>(block.keys) + place, keys + token * channels + at, size);
            put(static_cast<Number *>(block.values) + place, values + token * channels + at, size);
        }
}

template <typename Number>
void attend_one(const Block &block, int64_t size, const float *queries, const Tokens &tokens,
                int64_t token, float *found, float *scores) {
    const int64_t heads = block.query.rows / size, held = block.key.rows / size;
    const int64_t seen = tokens.position + (tokens.among ? tokens.count : token + 1);
    for (int64_t head = 0; head < heads; head++) {
        const int64_t start = head / (heads / held) * block.capacity * size;
        const Number *keys = static_cast<const Number *>(block.keys) + start;
        const Number *values = static_cast<const Number *>(block.values) + start;
        for (int64_t t = 0; t < seen; t++)
            scores[t] = tokens.hidden(token, t)
                            ? -INFINITY
                            : block.scale * dot(queries + head * size, keys + t * size, size);
        shares(scores, seen);
        std::fill_n(found + head * size, size, 0.0f);
        for (int64_t t = 0; t < seen; t++)
            if (scores[t] != 0) add_scaled(found + head * size, values + t * size, scores[t], size);
    }
}

template <typename Number>
void attend(const Block &block, int64_t size, const float *queries, const float *keys,
            const float *values, const Tokens &tokens, float *found, float *scores) {
    remember<Number>(block, size, keys, values, tokens);
    for (int64_t token = 0; token < tokens.count; token++)
        attend_one<Number>(block, size, queries + token * block.query.rows, tokens, token,
                           found + token * block.query.rows, scores);
}

// The old stream, as it is or through a shortcut, plus what a half of the block found.
void carry(const Product &shortcut, float *stream, const float *found, float *spare, int64_t size,
           int64_t count) {
    if (shortcut.multiply) {
        product(shortcut, stream, count, spare);
        std::memcpy(stream, spare, count * size * sizeof(float));
    }
    add_scaled(stream, found, 1, count * size);
}

}  // namespace

extern "C" {

struct Parts {
    const Product *of;
    int64_t count;
};

struct Placed {
    Parts parts;            // their rows follow each other
    const int64_t *places;  // [rows], which of those rows each is
    int64_t rows;
};

// One after another, the first applied first.
void multiply_chain(const void *matrix, const float *x, int64_t count, float *y) {
    const Parts &parts = *static_cast<const Parts *>(matrix);
    std::vector<float> room[2];
    for (int64_t i = 0; i < parts.count; i++) {
        float *out = y;
        if (i + 1 < parts.count) {
            room[i % 2].resize(count * parts.of[i].rows);
            out = room[i % 2].data();
        }
        product(parts.of[i], x, count, out);
        x = out;
    }
}

void multiply_sum(const void *matrix, const float *x, int64_t count, float *y) {
    const Parts &parts = *static_cast<const Parts *>(matrix);
    const int64_t size = count * parts.of[0].rows;
    std::vector<float> found(size);
    product(parts.of[0], x, count, y);
    for (int64_t i = 1; i < parts.count; i++) {
        product(parts.of[i], x, count, found.data());
        add_scaled(y, found.data(), 1, size);
    }
}

void multiply_placed(const void *matrix, const float *x, int64_t count, float *y) {
    const Placed &placed = *static_cast<const Placed *>(matrix);
    int64_t rows = 0;
    for (int64_t i = 0; i < placed.parts.count; i++) rows += placed.parts.of[i].rows;
    std::vector<float> found(count * rows), part;
    for (int64_t i = 0, first = 0; i < placed.parts.count; first += placed.parts.of[i++].rows) {
        const Product &one = placed.parts.of[i];
        part.resize(count * one.rows);
        product(one, x, count, part.data());
        for (int64_t token = 0; token < count; token++)
            std::copy_n(part.data() + token * one.rows, one.rows,
                        found.data() + token * rows + first);
    }
    for (int64_t token = 0; token < count; token++)
        for (int64_t row = 0; row < placed.rows; row++)
            y[token * placed.rows + row] = found[token * rows + placed.places[row]];
}

// `stream` [count, channels] has the tokens' embeddings and is written over; `cosine` and `sine`
// [count, head_dim]; `logits` [count, vocabulary].
void decode_step(const Step *step, float *stream, const float *cosine, const float *sine,
                 int64_t position, int64_t count, const uint8_t *among, float *logits) {
    const int64_t size = step->head_dim, room = count * step->widest;
    const Tokens tokens = {count, position, among};
    float *a = step->scratch, *b = a + room, *c = b + room, *d = c + room;
    float *spare = d + room, *found = spare + room, *scores = found + room;
    for (int64_t index = 0; index < step->count; index++) {
        const Block &block = step->blocks[index];
        if (block.query.multiply) {
            normalise(block.before, stream, count, a);
            product(block.query, a, count, b);
            product(block.key, a, count, c);
            product(block.value, a, count, d);
            for (int64_t token = 0; token < count; token++) {
                const float *turn[2] = {cosine + token * size, sine + token * size};
                place(block.query_norm, b + token * block.query.rows, block.query.rows, size,
                      turn[0], turn[1]);
                place(block.key_norm, c + token * block.key.rows, block.key.rows, size, turn[0],
                      turn[1]);
            }
            if (block.asked)
                step->attend(index);
            else
                (block.halved ? attend<uint16_t> : attend<float>)(block, size, b, c, d, tokens, a,
                                                                  scores);
            product(block.output, a, count, found);
            carry(block.attention_shortcut, stream, found, spare, block.output.rows, count);
        }
        if (block.gate.multiply) {
            normalise(block.between, stream, count, a);
            product(block.gate, a, count, b);
            product(block.up, a, count, c);
            for (int64_t i = 0; i < count * block.gate.rows; i++)
                b[i] *= c[i] / (1 + std::exp(-b[i]));
            product(block.down, b, count, found);
            carry(block.network_shortcut, stream, found, spare, block.down.rows, count);
        }
    }
    normalise(step->last, stream, count, a);
    if (step->last_shortcut.multiply) {
        product(step->last_shortcut, a, count, b);
        std::swap(a, b);
    }
    product(step->head, a, count, logits);
}
}
