// What decoding a matrix needs: where codes lie, and what is remembered between two rows.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "loops.h"
#include "packed.h"

// What decoding remembers between two rows of one matrix, and of the matrices inside it.
struct State {
    int64_t row = -1, passed = 0;      // the last row, and the entries held before the next
    std::vector<uint16_t> table;       // of exponents of four bits: two by their byte
    std::vector<uint8_t> codes;        // of a row, spread to four bits, or its exponents
    std::vector<float> tile;           // of a transposed matrix: some of its rows
    int64_t tile_first = -1;
    std::vector<uint32_t> places;      // codes of a part of a row
    std::unique_ptr<State> inside[2];

    // Begins with another matrix, in the same rooms.
    void forget() {
        row = tile_first = -1;
        passed = 0;
        table.clear();
        for (const auto &one : inside)
            if (one) one->forget();
    }

    State &inner(int which) {
        if (!inside[which]) inside[which] = std::make_unique<State>();
        return *inside[which];
    }
};

constexpr int64_t PART = 256;       // numbers in a small room on the stack
constexpr int64_t PIECES = 16;      // of a matrix's rows, divided among threads
constexpr int64_t ALONE = 1 << 17;  // numbers of a matrix below which a second thread costs more
constexpr int64_t DECODED = 1 << 15;  // the same where they are decoded first

template <typename Kind>
const Kind &as(const Packed *matrix) {
    return *reinterpret_cast<const Kind *>(matrix);
}

inline int64_t bytes_of(int64_t columns, int64_t width) { return (columns * width + 7) / 8; }

// A bit for each plane that is there; as a number, the bits of a code.
inline int planes_of(const Codes &codes) {
    int planes = 0;
    for (int plane = 0; plane < 4; plane++)
        if (codes.planes[plane]) planes |= 1 << plane;
    return planes;
}

// The planes of a row, and which there are.
struct Lines {
    const uint8_t *of[4];
    int planes;

    Lines(const Codes &codes, int64_t row, int64_t columns) : planes(planes_of(codes)) {
        for (int plane = 0; plane < 4; plane++) {
            of[plane] = codes.planes[plane];
            if (of[plane]) of[plane] += row * bytes_of(columns, 1 << plane);
        }
    }

    uint32_t code(int64_t column) const {
        uint32_t code = 0, shift = 0;
        for (int plane = 0; plane < 4; plane++) {
            if (!of[plane]) continue;
            const int64_t width = 1 << plane, bit = column * width;
            code |= ((of[plane][bit / 8] >> bit % 8) & ((1u << width) - 1)) << shift;
            shift += width;
        }
        return code;
    }
};

// Codes of a part of a row: by eights where eight divides the column, one by one at the ends.
inline void unpack(const Lines &lines, int64_t column, int64_t count, uint32_t *out) {
    int64_t done = 0;
    for (; done < count && (column + done) % 8; done++) out[done] = lines.code(column + done);
    const int64_t whole = (count - done) / 8 * 8;
    loops->unpack[lines.planes](lines.of, column + done, whole, out + done);
    for (done += whole; done < count; done++) out[done] = lines.code(column + done);
}

inline void scale(const Lines &lines, int64_t column, int64_t count, float middle, float factor,
                  float offset, float *out) {
    int64_t done = 0;
    const auto alone = [&] {
        const auto code = static_cast<float>(lines.code(column + done));
        out[done++] = (code - middle) * factor + offset;
    };
    while (done < count && (column + done) % 8) alone();
    const int64_t whole = (count - done) / 8 * 8;
    loops->scaled[lines.planes](lines.of, column + done, whole, middle, factor, offset,
                                out + done);
    done += whole;
    while (done < count) alone();
}

inline void decode(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                   State &state) {
    matrix->decode(matrix, row, column, count, out, state);
}

// What decoding a matrix inside remembers; of plain numbers nothing.
inline State &state_of(const Packed *matrix, State &whole, int which) {
    return matrix->decode == decode_bfloat16 ? whole : whole.inner(which);
}

// Some columns of rows that follow each other.
struct Excerpt {
    int64_t row, rows, column, count;
};

// An excerpt [rows, count] in float32: rows that lie behind one another at once, and groups of codes.
void decode_excerpt(const Packed *matrix, const Excerpt &of, float *out, State &state);

// An excerpt [rows, count] of codes [.., columns] as numbers.
void decode_codes(const Codes &codes, int64_t columns, const Excerpt &of, float *out);

// What the codes of an excerpt of groups are worth, code * scale + shift; both [rows, count].
void decode_worth(const IntegerGroups &held, const Excerpt &of, float *scales, float *shifts,
                  State &state);

// Whole rows that follow each other.
inline void decode_run(const Packed *matrix, int64_t row, int64_t rows, float *out, State &state) {
    decode_excerpt(matrix, {row, rows, 0, matrix->columns}, out, state);
}

// What belongs to the groups of a part of a row, such as their scales.
class GroupValues {
  public:
    GroupValues(const Packed *matrix, int64_t row, int64_t first, int64_t end, State &state)
        : first_(first), room_(near_) {
        if (end - first > PART) {
            far_.resize(end - first);
            room_ = far_.data();
        }
        decode(matrix, row, first, end - first, room_, state);
    }

    GroupValues(const GroupValues &) = delete;

    float operator[](int64_t group) const { return room_[group - first_]; }

  private:
    int64_t first_;
    float near_[PART];
    std::vector<float> far_;
    float *room_;
};

inline uint32_t bit_of(const uint8_t *bytes, int64_t place) {
    return (bytes[place / 8] >> place % 8) & 1;
}

// Ones of a mask before a place.
inline int64_t ones_before(const uint8_t *mask, int64_t place) {
    int64_t found = loops->ones(mask, place / 8);
    for (int64_t i = place / 8 * 8; i < place; i++) found += bit_of(mask, i);
    return found;
}

// A row with zeros where a mask marks none; behind its values, where it ends, sixteen can be read.
inline const float *spread_row(const uint8_t *mask, const float *values, int64_t columns,
                               float *out) {
    const float *next = loops->spread(mask, values, columns / 8, out);
    for (int64_t k = columns / 8 * 8; k < columns; k++) out[k] = bit_of(mask, k) ? *next++ : 0.0f;
    return next;
}

// Which row of which matrix a mixed row is; quickest where rows follow each other.
struct RowOf {
    const Packed *held;
    int64_t row;
    State *state;

    RowOf(const MixedRows &mixed, int64_t place, State &whole) {
        if (place != whole.row + 1) whole.passed = ones_before(mixed.mask, place);
        const bool fine = bit_of(mixed.mask, place);
        held = fine ? mixed.fine : mixed.coarse;
        row = fine ? whole.passed : place - whole.passed;
        state = &whole.inner(fine ? 0 : 1);
        whole.passed += fine;
        whole.row = place;
    }
};

