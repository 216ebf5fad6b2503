// Tokens of one text through all blocks of a model of Llama's shape, in float32; composed products.
#include "decode_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "attention.h"
#include "bfloat16.h"
#include "clones.h"
#include "decode.h"
#include "exponential.h"

namespace {

constexpr int64_t NEAR = 4096;  // numbers that have room on the stack

CLONES float dot(const float *a, const float *b, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

CLONES void add_scaled(float *y, const float *x, float factor, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] += factor * x[i];
}

CLONES void narrow(const float *from, int64_t count, uint16_t *to) {
    for (int64_t i = 0; i < count; i++) to[i] = from[i] == from[i] ? narrowed(from[i]) : 0x7FC0;
}

// Gates through SiLU times the values that they let through, in place.
CLONES void let_through(float *gates, const float *values, int64_t count) {
    const auto let = [](const float *gate, const float *value) __attribute__((always_inline)) {
        const EightNumbers one = eight_numbers(gate);
        return one * eight_numbers(value) / (1 + exponential(-one));
    };
    int64_t done = 0;
    for (; done + 8 <= count; done += 8) {
        const EightNumbers found = let(gates + done, values + done);
        std::memcpy(gates + done, &found, 32);
    }
    if (done == count) return;
    float last[16] = {};
    const int64_t bytes = (count - done) * static_cast<int64_t>(sizeof(float));
    std::memcpy(last, gates + done, bytes);
    std::memcpy(last + 8, values + done, bytes);
    const EightNumbers found = let(last, last + 8);
    std::memcpy(gates + done, &found, bytes);
}

CLONES void take(const float *from, const int64_t *places, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i++) to[i] = from[places[i]];
}

void product(const Product &p, const float *x, int64_t count, float *y) {
    p.multiply(p.matrix, x, count, y);
    if (!p.bias) return;
    for (int64_t one = 0; one < count; one++) add_scaled(y + one * p.rows, p.bias, 1, p.rows);
}

CLONES void scale(const float *x, float factor, const float *weight, int64_t count, float *y) {
    for (int64_t i = 0; i < count; i++) y[i] = x[i] * factor;
    if (weight)
        for (int64_t i = 0; i < count; i++) y[i] *= weight[i];
}

void normalise_one(const Norm &norm, const float *x, float *y) {
    const float factor = 1 / std::sqrt(dot(x, x, norm.width) / norm.divisor + norm.epsilon);
    scale(x, factor, norm.weight, norm.width, y);
}

void normalise(const Norm &norm, const float *x, int64_t count, float *y) {
    for (int64_t at = 0; at < count * norm.width; at += norm.width)
        normalise_one(norm, x + at, y + at);
}

// Sines of the first half are negative: x * cosine + (x turned by half) * sine.
CLONES void rotate(float *x, const float *cosine, const float *sine, int64_t size) {
    const int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        const float first = x[i], second = x[i + half];
        x[i] = first * cosine[i] + second * sine[i];
        x[i + half] = second * cosine[i + half] + first * sine[i + half];
    }
}

// The heads of one token, each normalised where there is a norm, then turned to its position.
void place(const Norm &norm, float *heads, int64_t channels, int64_t size, const float *cosine,
           const float *sine) {
    for (int64_t at = 0; at < channels; at += size) {
        if (norm.width) normalise_one(norm, heads + at, heads + at);
        rotate(heads + at, cosine, sine, size);
    }
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

// The lowest place of the largest of some numbers, or of the first that is none.
template <typename Number, typename Eight, typename One>
inline __attribute__((always_inline)) int64_t first_of(const Number *numbers, int64_t count,
                                                       Eight eight, One one) {
    typedef int32_t EightWhole __attribute__((vector_size(32)));
    EightNumbers tops = EightNumbers{} - INFINITY;
    EightWhole none = {};
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const EightNumbers each = eight(numbers + i);
        tops = each > tops ? each : tops;
        none |= each != each;
    }
    bool missing = false;
    float top = -INFINITY;
    for (int lane = 0; lane < 8; lane++) top = std::max(top, tops[lane]), missing |= none[lane];
    for (; i < count; i++) {
        const float last = one(numbers[i]);
        top = std::max(top, last), missing |= last != last;
    }
    const auto wanted = [&](float number) __attribute__((always_inline)) {
        return missing ? number != number : number == top;
    };
    for (i = 0; !wanted(one(numbers[i])); i++) {
    }
    return i;
}

CLONES int64_t first_choice(const float *numbers, int64_t count) {
    const auto one = [](float number) __attribute__((always_inline)) { return number; };
    return first_of(numbers, count, eight_numbers, one);
}

CLONES int64_t first_choice_of_halves(const uint16_t *numbers, int64_t count) {
    const auto eight = [](const uint16_t *from) __attribute__((always_inline)) {
        EightNumbers found;
        for (int i = 0; i < 8; i++) found[i] = widened(from[i]);
        return found;
    };
    return first_of(numbers, count, eight, widened);
}

// Rows of the tokens; false where an id is none.
bool embed(const Packed &table, const int64_t *ids, int64_t count, float *stream) {
    State state;
    for (int64_t token = 0; token < count; token++) {
        if (ids[token] < 0 || ids[token] >= table.rows) return false;
        decode(&table, ids[token], 0, table.columns, stream + token * table.columns, state);
    }
    return true;
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

struct Gathered {
    Product inner;
    const int64_t *places;  // [inner.columns], which of the inputs each is
    int64_t columns;        // inputs
};

// Some inputs of an activation, and a product of those.
void multiply_gathered(const void *matrix, const float *x, int64_t count, float *y) {
    const Gathered &held = *static_cast<const Gathered *>(matrix);
    const int64_t width = held.inner.columns;
    std::vector<float> taken(count * width);
    for (int64_t token = 0; token < count; token++)
        take(x + token * held.columns, held.places, width, taken.data() + token * width);
    product(held.inner, taken.data(), count, y);
}

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
    float near[NEAR];
    std::vector<float> far(count * rows > NEAR ? count * rows : 0);
    float *found = far.empty() ? near : far.data();
    for (int64_t i = 0, first = 0; i < placed.parts.count; first += placed.parts.of[i++].rows)
        product(placed.parts.of[i], x, count, found + first * count);
    if (count == 1) {
        take(found, placed.places, placed.rows, y);
        return;
    }
    std::vector<float> side(rows);  // one token's, beside each other
    for (int64_t token = 0; token < count; token++, y += placed.rows) {
        for (int64_t i = 0, first = 0; i < placed.parts.count; first += placed.parts.of[i++].rows) {
            const int64_t several = placed.parts.of[i].rows;
            std::copy_n(found + first * count + token * several, several, side.data() + first);
        }
        take(side.data(), placed.places, placed.rows, y);
    }
}

// `rooms` of the blocks, null where one asks or has no attention; `ids` of the tokens, or `stream`
// [count, channels] has their embeddings and is written over; `cosine` and `sine` [positions,
// head_dim]; `places` [count], the tokens' positions, or null where they follow each other;
// `logits` [last, vocabulary] of so many last tokens, float32 or bfloat16. Returns whether every id
// is one.
int decode_step(const Step *step, const Room *const *rooms, const int64_t *ids, float *stream,
                const float *cosine, const float *sine, const int64_t *places, int64_t position,
                int64_t count, const uint8_t *among, int64_t last, void *logits) {
    const int64_t size = step->head_dim, room = count * step->widest;
    if (ids) {
        stream = step->scratch + 6 * room;
        if (!embed(*step->embedding, ids, count, stream)) return 0;
    }
    const Tokens tokens = {count, position, among};
    float *a = step->scratch, *b = a + room, *c = b + room, *d = c + room;
    float *spare = d + room, *found = spare + room;
    for (int64_t index = 0; index < step->count; index++) {
        const Block &block = step->blocks[index];
        if (block.query.multiply) {
            normalise(block.before, stream, count, a);
            product(block.query, a, count, b);
            product(block.key, a, count, c);
            product(block.value, a, count, d);
            for (int64_t token = 0; token < count; token++) {
                const int64_t at = size * (places ? places[token] : position + token);
                const float *turn[2] = {cosine + at, sine + at};
                place(block.query_norm, b + token * block.query.rows, block.query.rows, size,
                      turn[0], turn[1]);
                place(block.key_norm, c + token * block.key.rows, block.key.rows, size, turn[0],
                      turn[1]);
            }
            if (rooms[index])
                attend(block, *rooms[index], size, b, c, d, tokens, a);
            else
                step->attend(index);
            product(block.output, a, count, found);
            carry(block.attention_shortcut, stream, found, spare, block.output.rows, count);
        }
        if (block.gate.multiply) {
            normalise(block.between, stream, count, a);
            product(block.gate, a, count, b);
            product(block.up, a, count, c);
            let_through(b, c, count * block.gate.rows);
            product(block.down, b, count, found);
            carry(block.network_shortcut, stream, found, spare, block.down.rows, count);
        }
    }
    normalise(step->last, stream + (count - last) * step->last.width, last, a);
    if (step->last_shortcut.multiply) {
        product(step->last_shortcut, a, last, b);
        std::swap(a, b);
    }
    float *whole = step->halved ? step->scratch + 7 * room : static_cast<float *>(logits);
    product(step->head, a, last, whole);
    if (step->halved) narrow(whole, last * step->head.rows, static_cast<uint16_t *>(logits));
    return 1;
}

// Feeds a token and then each first choice, all into `rooms`, until so many are chosen or one is
// `end`; `written` [count] has the choices, `logits` the last one's. Returns how many there are, 0
// where the token is none.
int64_t write_tokens(const Step *step, const Room *const *rooms, int64_t token,
                     const float *cosine, const float *sine, int64_t position, int64_t count,
                     int64_t end, int64_t *written, void *logits) {
    for (int64_t i = 0; i < count; i++) {
        if (!decode_step(step, rooms, &token, nullptr, cosine, sine, nullptr, position + i, 1,
                         nullptr, 1, logits))
            return 0;
        token = step->halved
                    ? first_choice_of_halves(static_cast<uint16_t *>(logits), step->head.rows)
                    : first_choice(static_cast<float *>(logits), step->head.rows);
        written[i] = token;
        if (token == end) return i + 1;
    }
    return count;
}
}
