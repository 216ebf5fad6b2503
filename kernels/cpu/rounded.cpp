// Products of inputs that are divided, put in order, turned and rounded first, token by token.
#include <vector>

#include "decode.h"
#include "decode_step.h"
#include "multiply.h"

namespace {

// Every run of a * b numbers x of a token as left^T x right, x being [a, b].
struct Turns {
    const float *left, *right;  // transposed, [a, a] and [b, b]; null where nothing is turned
    int64_t a, b;
};

void turn(const Turns &turns, const float *x, int64_t runs, float *out) {
    const int64_t a = turns.a, b = turns.b;
#pragma omp parallel for if (runs > 1 && runs * a * b * (a + b) >= ALONE)
    for (int64_t run = 0; run < runs; run++) {
        std::vector<float> turned(a * b);  // (x right)^T
        loops->dots(x + run * a * b, a, turns.right, b, b, turned.data(), a);
        loops->dots(turned.data(), b, turns.left, a, a, out + run * a * b, b);
    }
}

}  // namespace

extern "C" {

struct SeenInputs {
    const float *divisors;  // [columns], of inputs as they come; null: none
    const void *places;  // [columns], where each input comes from; null: they stay
    int64_t places_bits;  // 16 or 32
    Turns turns;
    Rounding rounding;
    const Packed *matrix;  // of what is seen; null: only `held` knows
    Product held;
};

void multiply_seen(const void *of, const float *x, int64_t count, float *y) {
    const SeenInputs &seen = *static_cast<const SeenInputs *>(of);
    const int64_t columns = seen.held.columns, size = count * columns;
    std::vector<float> room[3];
    if (seen.divisors) {
        room[2].resize(size);
        for (int64_t one = 0; one < size; one += columns)
            for (int64_t k = 0; k < columns; k++) room[2][one + k] = x[one + k] / seen.divisors[k];
        x = room[2].data();
    }
    const auto gather = [&](const auto *places) {
        room[0].resize(size);
        for (int64_t one = 0; one < size; one += columns)
            for (int64_t k = 0; k < columns; k++) room[0][one + k] = x[one + places[k]];
        x = room[0].data();
    };
    if (seen.places && seen.places_bits == 16) gather(static_cast<const int16_t *>(seen.places));
    if (seen.places && seen.places_bits == 32) gather(static_cast<const int32_t *>(seen.places));
    if (seen.turns.left) {
        room[1].resize(size);
        turn(seen.turns, x, size / (seen.turns.a * seen.turns.b), room[1].data());
        x = room[1].data();
    }
    if (seen.matrix) {
        multiply_rounded(seen.matrix, x, count, seen.rounding, y);
        return;
    }
    std::vector<float> rounded(x, x + size);
    round_in_place(rounded.data(), count, columns, seen.rounding);
    seen.held.multiply(seen.held.matrix, rounded.data(), count, y);
}
}
