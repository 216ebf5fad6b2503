// Products that parts of an activation make with parts of a matrix: blocks along a diagonal, and
// one matrix again and again between identities.
#include <vector>

#include "decode.h"
#include "decode_step.h"
#include "multiply.h"

extern "C" {

struct Blocks {
    const Packed *held;  // blocks below each other
    int64_t blocks;
    int64_t chunk;  // outputs of a block that stay together: then come as many of the next block
};

struct Repeated {
    Product inner;
    int64_t groups, apart;  // how often, and how far the numbers that it reads lie apart
};

// Each block reads the inputs behind those of the one before.
void multiply_blocks(const void *matrix, const float *x, int64_t count, float *y) {
    const Blocks &of = *static_cast<const Blocks *>(matrix);
    const int64_t rows = of.held->rows, columns = of.held->columns, each = rows / of.blocks;
    thread_local std::vector<float> kept;
    std::vector<float> &found = kept;  // of the thread that calls, for all
    found.resize(count * rows);
    const bool large = rows * columns * count >= ALONE;
#pragma omp parallel for schedule(dynamic) if (large)
    for (int64_t block = 0; block < of.blocks; block++) {
        const float *from = x + block * columns;
        std::vector<float> taken(count > 1 ? count * columns : 0);
        for (int64_t one = 0; one < count && count > 1; one++)
            std::copy_n(from + one * of.blocks * columns, columns, taken.data() + one * columns);
        multiply_rows(of.held, block * each, (block + 1) * each, count > 1 ? taken.data() : from,
                      count, found.data());
    }
    const float *next = found.data();
    for (int64_t one = 0; one < count; one++, y += rows)
        for (int64_t block = 0; block < of.blocks; block++)
            for (int64_t row = 0; row < each; row += of.chunk, next += of.chunk)
                std::copy_n(next, of.chunk, y + row * of.blocks + block * of.chunk);
}

// Of activations [groups, inputs, apart] each column by itself: [groups, outputs, apart].
void multiply_repeated(const void *matrix, const float *x, int64_t count, float *y) {
    const Repeated &of = *static_cast<const Repeated *>(matrix);
    const int64_t rows = of.inner.rows, columns = of.inner.columns, apart = of.apart;
    const int64_t groups = count * of.groups;
    if (apart == 1) {
        of.inner.multiply(of.inner.matrix, x, groups, y);
        return;
    }
    std::vector<float> room(groups * apart * (columns + rows));
    float *taken = room.data(), *found = taken + groups * apart * columns;
    for (int64_t group = 0; group < groups; group++)
        for (int64_t i = 0; i < apart; i++)
            for (int64_t k = 0; k < columns; k++)
                taken[(group * apart + i) * columns + k] = x[(group * columns + k) * apart + i];
    of.inner.multiply(of.inner.matrix, taken, groups * apart, found);
    for (int64_t group = 0; group < groups; group++)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < apart; i++)
                y[(group * rows + row) * apart + i] = found[(group * apart + i) * rows + row];
}
}
