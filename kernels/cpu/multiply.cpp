// Products of held matrices with activations: one row after another, by the quickest way there is.
//
// Codes are multiplied as integers (`codes.h`), dense and sparse numbers as they lie, and what knows
// neither way is decoded, some rows at a time; many activations meet tiles of rows (`tiles.h`). A sum
// never depends on the number of threads, and of dense numbers, of those that are decoded first, of
// integer codes in short rows and of rounded activations not on how many there are; of other codes and
// of short rows of signs it has one order for up to three activations and one for more, of others one
// for one alone.
#include "bfloat16.h"
#include "codes.h"
#include "tiles.h"
#include "multiply.h"
#include "vectors.h"
#include "window.h"

namespace {

constexpr int64_t RUN = 64, LONG_RUN = 256;  // rows of codes with few activations and with many
constexpr int64_t SHORT_ROWS = 1 << 15;      // numbers of a run that is longer with few, too
constexpr int64_t FEW = 4;  // activations for which dense rows are read as they lie
constexpr int64_t FEWER = 3;  // the same of codes
constexpr int64_t MOST = 64;  // activations up to which any product beats one of a dense matrix
constexpr int64_t NEAR = 1 << 19, NEAREST = 256;  // numbers and activations that stay near a core

// What a product is made of, and how some of its rows are made.
struct Work {
    const Packed *matrix;
    const float *x;  // [count, columns]
    int64_t count;
    float *y;  // [count, rows]
    const Fixed *activations = nullptr;
    const float *dealt = nullptr;  // the activation for values behind masks, as loops ask for it
    int64_t starts[PIECES] = {};  // values behind a mask before each piece
};

void rows_of_codes(const Work &work, int64_t, int64_t first, int64_t end) {
    thread_local State state;  // keeps its rooms
    state.forget();
    const int64_t several = SHORT_ROWS / std::max<int64_t>(work.matrix->columns, 1);
    const bool tiles = work.activations->are_many();
    const int64_t longest = tiles ? LONG_RUN : std::clamp(several, RUN, LONG_RUN);
    for (int64_t row = first; row < end; row += longest)
        dots_of_codes(work.matrix,
                      {row, std::min(longest, end - row), work.y + row, work.matrix->rows},
                      *work.activations, state);
}

void rows_of_numbers(const Work &work, int64_t, int64_t first, int64_t end) {
    const bool whole = work.matrix->decode == decode_float32;
    const int64_t columns = work.matrix->columns;
    const auto *numbers = static_cast<const char *>(as<DenseRows>(work.matrix).numbers);
    (whole ? loops->dots : loops->dots_of_halves)(numbers + first * columns * (whole ? 4 : 2),
                                                 end - first, work.x, work.count, columns,
                                                 work.y + first, work.matrix->rows);
}

// As many as a core's first cache holds in float32, decoded.
void rows_decoded(const Work &work, int64_t, int64_t first, int64_t end) {
    const int64_t columns = work.matrix->columns;
    const int64_t several = std::clamp<int64_t>(DECODED / 8 / columns, 1, TILE_ROWS);
    thread_local State state;  // keeps its rooms
    thread_local std::vector<float> room;
    state.forget();
    room.resize(several * columns);
    for (int64_t row = first; row < end; row += several) {
        const int64_t rows = std::min(several, end - row);
        decode_run(work.matrix, row, rows, room.data(), state);
        loops->dots(room.data(), rows, work.x, work.count, columns, work.y + row,
                    work.matrix->rows);
    }
}

const uint16_t *halves(const Packed *matrix) {
    return static_cast<const uint16_t *>(as<DenseRows>(matrix).numbers);
}

void rows_behind_masks(const Work &work, int64_t piece, int64_t first, int64_t end) {
    const Bitmask &held = as<Bitmask>(work.matrix);
    const int64_t bytes = bytes_of(work.matrix->columns, 1);
    const uint16_t *values = halves(held.values) + work.starts[piece];
    const uint16_t *behind = halves(held.values) + held.values->columns;
    const auto dot = work.dealt ? loops->masked_pairs_dot : loops->masked_dot;
    const float *x = work.dealt ? work.dealt : work.x;
    for (int64_t row = first; row < end; row++)
        work.y[row] = dot(held.mask + row * bytes, x, work.matrix->columns, values, behind);
}

void rows_of_fours(const Work &work, int64_t, int64_t first, int64_t end) {
    const TwoOfFour &held = as<TwoOfFour>(work.matrix);
    const int64_t half = work.matrix->columns / 2, bytes = bytes_of(half, 2);
    if (work.dealt) {
        loops->fours_rows(held.positions + first * bytes, bytes, halves(held.values) + first * half,
                          end - first, work.matrix->columns, work.dealt, work.y + first);
        return;
    }
    for (int64_t row = first; row < end; row++)
        work.y[row] =
            loops->fours_dot(held.positions + row * bytes, work.x,
                             work.matrix->columns, halves(held.values) + row * half);
}

void rows_of_vectors(const Work &work, int64_t, int64_t first, int64_t end) {
    for (int64_t row = first; row < end; row++)
        work.y[row] = dot_of_vectors(work.matrix, row, work.x);
}

template <void (*DOTS)(const Packed *, int64_t, int64_t, const float *, float *)>
void rows_one_by_one(const Work &work, int64_t, int64_t first, int64_t end) {
    const Packed *matrix = work.matrix;
    for (int64_t one = 0; one < work.count; one++)
        DOTS(matrix, first, end, work.x + one * matrix->columns, work.y + one * matrix->rows);
}

// Whether codes meet tiles of activations, which keeps up with a dense matrix however many there are.
bool keeps_up(const Packed *matrix) {
    if (matrix->decode == decode_mixed)
        return keeps_up(as<MixedRows>(matrix).fine) && keeps_up(as<MixedRows>(matrix).coarse);
    if (matrix->decode != decode_integers || !has_codes(matrix) || !loops->code_dots[1]) return false;
    const int64_t group = as<IntegerGroups>(matrix).group_size;
    return group >= matrix->columns || group % Fixed::SHARED == 0;
}

typedef void (*MakeRows)(const Work &, int64_t, int64_t, int64_t);

bool is_dense(const Packed *matrix) {
    return matrix->decode == decode_float32 || matrix->decode == decode_bfloat16;
}

// Null: in tiles.
MakeRows way_of(const Packed *matrix, int64_t count) {
    const Decode kind = matrix->decode;
    if (kind == decode_codebook && count > FEWER && loops->look_up_codes) return nullptr;
    if (count <= FEWER && has_short_tables(matrix, count)) return rows_one_by_one<dots_of_tables>;
    if (count <= FEWER && has_short_signs(matrix)) return rows_one_by_one<dots_of_signs>;
    if (has_codes(matrix)) return rows_of_codes;
    if (is_dense(matrix))
        return count <= FEW || matrix->columns <= loops->short_columns ? rows_of_numbers : nullptr;
    if (kind == decode_bitmask && count == 1 &&
        as<Bitmask>(matrix).values->decode == decode_bfloat16)
        return rows_behind_masks;
    if (kind == decode_two_of_four && count == 1 &&
        as<TwoOfFour>(matrix).values->decode == decode_bfloat16)
        return rows_of_fours;
    if (kind == decode_groups && count == 1) return rows_one_by_one<dots_of_groups>;
    if (has_vectors(matrix) && count == 1) return rows_of_vectors;
    return count <= FEW && are_decoded(matrix) ? rows_decoded : nullptr;
}

// Activations laid out for the codes of a matrix; until the next of this thread.
const Fixed &laid(const Packed *matrix, const float *x, int64_t count, const Rounding &rounding) {
    thread_local Fixed activations;  // keeps its rooms
    const bool usual = rounding.bits == Fixed::WHOLE;
    activations.take(x, count, matrix->columns, rounding,
                     usual ? loops->round_to_fixed : loops->round_to_codes, loops->sums);
    lay(activations, matrix);
    return activations;
}

void make_all(Work &work, MakeRows make) {
    const Packed *matrix = work.matrix;
    const int64_t size = matrix->rows * matrix->columns * work.count;
    const bool tiles = make == rows_of_codes && work.activations->are_many();
    const bool together = make == rows_of_numbers || make == rows_decoded;
    const int64_t least = tiles ? TILE_OF_CODES : together ? TILE_ROWS : 1;
    const Pieces pieces = Pieces::of(matrix->rows, least, size >= ALONE);
    if (make == rows_behind_masks)
        count_before(as<Bitmask>(matrix).mask, bytes_of(matrix->columns, 1), pieces, work.starts);
    if (pieces.count == 1) {  // a loop of threads takes as long as a small product, even of one
        make(work, 0, 0, matrix->rows);
        return;
    }
#pragma omp parallel for schedule(dynamic)
    for (int64_t piece = 0; piece < pieces.count; piece++)
        make(work, piece, pieces.first(piece), pieces.first(piece + 1));
}

// Each part by the activations of its own columns, those of the coarse ones scaled beforehand.
void multiply_columns(const SplitColumns &held, const float *x, int64_t count, float *y) {
    const int64_t rows = held.shape.rows, columns = held.shape.columns;
    const int64_t apart = held.fine->columns, others = held.coarse->columns;
    std::vector<float> own(count * apart), rest(count * others), sums(count * rows);
    float *fine = own.data(), *coarse = rest.data();
    for (int64_t one = 0; one < count; one++, x += columns) {
        const uint16_t *scale = held.scales;
        for (int64_t k = 0; k < columns; k++)
            if (bit_of(held.mask, k))
                *fine++ = x[k];
            else
                *coarse++ = x[k] * widened(*scale++);
    }
    multiply_many(held.fine, own.data(), count, y);
    multiply_many(held.coarse, rest.data(), count, sums.data());
    loops->combine(y, sums.data(), 1, count * rows);
}

}  // namespace

extern "C" {

// y[count, rows] = x[count, columns] W^T, the rows divided among threads.
void multiply_many(const Packed *matrix, const float *x, int64_t count, float *y) {
    if (!matrix->columns) {  // a part that holds nothing
        std::fill_n(y, count * matrix->rows, 0.0f);
        return;
    }
    if (matrix->decode == decode_transposed && count == 1) {
        std::fill_n(y, matrix->rows, 0.0f);
        add_turned(as<Transposed>(matrix).held, x, y);
        return;
    }
    if (matrix->decode == decode_columns) {
        multiply_columns(as<SplitColumns>(matrix), x, count, y);
        return;
    }
    if (matrix->decode == decode_window && count == 1 && loops->window_dot) {
        multiply_window(as<WindowCoded>(matrix), x, y);
        return;
    }
    const MakeRows make = way_of(matrix, count);
    if (!make) {
        multiply_in_tiles(matrix, x, count, y);
        return;
    }
    const int64_t near = std::clamp(NEAR / matrix->columns, MOST, NEAREST);
    if (make == rows_of_codes && count > near) {
        const int64_t parts = (count + near - 1) / near;  // as large: none is of a few
        for (int64_t part = 0; part < parts; part++) {
            const int64_t first = count * part / parts, end = count * (part + 1) / parts;
            multiply_many(matrix, x + first * matrix->columns, end - first,
                          y + first * matrix->rows);
        }
        return;
    }
    Work work = {matrix, x, count, y};
    if (make == rows_of_codes) work.activations = &laid(matrix, x, count, Fixed::USUAL);
    std::vector<float> dealt;
    if (make == rows_behind_masks ? !!loops->deal_pairs : make == rows_of_fours && loops->fours_rows) {
        dealt.resize((matrix->columns + 31) / 32 * 32);
        if (make == rows_of_fours)
            std::copy_n(x, matrix->columns, dealt.data());
        else
            loops->deal_pairs(x, matrix->columns, dealt.data());
        work.dealt = dealt.data();
    }
    make_all(work, make);
}

void multiply_rows(const Packed *matrix, int64_t first, int64_t end, const float *x, int64_t count,
                   float *y) {
    Work work = {matrix, x, count, y};
    const MakeRows make = way_of(matrix, count);
    if (make == rows_of_codes) {
        work.activations = &laid(matrix, x, count, Fixed::USUAL);
        make(work, 0, first, end);
    } else if (is_dense(matrix)) {
        rows_of_numbers(work, 0, first, end);
    } else {
        rows_decoded(work, 0, first, end);
    }
}

// The same with activations [count, columns] that are rounded first, by codes where they have such.
void multiply_rounded(const Packed *matrix, const float *x, int64_t count,
                      const Rounding &rounding, float *y) {
    if (rounding.bits == Fixed::WHOLE) {
        multiply_many(matrix, x, count, y);
        return;
    }
    // A sum has one order for any number of activations: in what is made of it another unit in the
    // last place may be another step.
    const int64_t shared = Fixed::shared(rounding, matrix->columns);
    if (shared && has_codes(matrix, shared)) {
        Work work = {matrix, x, count, y, &laid(matrix, x, count, rounding)};
        make_all(work, rows_of_codes);
        return;
    }
    std::vector<float> seen(x, x + count * matrix->columns);
    round_in_place(seen.data(), count, matrix->columns, rounding);
    // codes would have activations rounded to 16 bits once more, others know orders by their number
    if (count <= FEW && are_decoded(matrix)) {
        Work work = {matrix, seen.data(), count, y};
        make_all(work, rows_decoded);
        return;
    }
    (is_dense(matrix) ? multiply_many : multiply_in_tiles)(matrix, seen.data(), count, y);
}

void round_in_place(float *x, int64_t count, int64_t columns, const Rounding &rounding) {
    if (rounding.bits == Fixed::WHOLE) return;
    std::vector<int16_t> numbers(columns);
    std::vector<float> scales((columns + rounding.block - 1) / rounding.block);
    for (int64_t one = 0; one < count; one++, x += columns) {
        std::fill(numbers.begin(), numbers.end(), 0);
        loops->round_to_codes(x, columns, rounding, rounding.block, numbers.data(), scales.data());
        for (int64_t k = 0; k < columns; k++)
            x[k] = static_cast<float>(numbers[k]) * scales[k / rounding.block];
    }
}

// Up to how many activations a product by what is held beats one by a dense matrix.
int64_t most_activations(const Packed *matrix) {
    const bool large = matrix->rows * matrix->columns >= ALONE;
    return large && keeps_up(matrix) ? INT64_MAX / matrix->columns : MOST;
}

void decode_all(const Packed *matrix, float *out) {
    const int64_t rows = matrix->rows, columns = matrix->columns;
    const int64_t pieces = rows * columns >= DECODED ? PIECES : 1;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t first = rows * piece / pieces, end = rows * (piece + 1) / pieces;
        State state;
        decode_run(matrix, first, end - first, out + first * columns, state);
    }
}

void decode_some(const Packed *matrix, const int64_t *places, int64_t count, float *out) {
    State state;
    for (int64_t i = 0; i < count; i++)
        decode(matrix, places[i], 0, matrix->columns, out + i * matrix->columns, state);
}

void multiply_packed(const void *matrix, const float *x, int64_t count, float *y) {
    multiply_many(static_cast<const Packed *>(matrix), x, count, y);
}

void multiply_outliers(const void *matrix, const float *x, int64_t count, float *y) {
    const Outliers &held = *static_cast<const Outliers *>(matrix);
    for (int64_t one = 0; one < count; one++, x += held.shape.columns, y += held.shape.rows) {
        int32_t next = 0;
        for (int64_t row = 0; row < held.shape.rows; row++) {
            float sum = 0;
            for (; next < held.ends[row]; next++)
                sum += widened(held.values[next]) * x[held.positions[next]];
            y[row] = sum;
        }
    }
}
}
