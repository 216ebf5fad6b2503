// How the rows of a tile are written, and which activations meet them.
#include "tiles.h"

#include "codes.h"
#include "window.h"

namespace {

constexpr int64_t AT_ONCE = 64;  // activations that meet a tile before it is written anew

template <typename Number>
const Number *numbers_of(const Packed *matrix) {
    return static_cast<const Number *>(as<DenseRows>(matrix).numbers);
}

bool are_halves(const Packed *values) { return values->decode == decode_bfloat16; }

// Writes parts of some rows in float32, the columns in their order or dealt as activations are.
class Source {
  public:
    enum Way { WHOLE, HALVES, MASKED, FOURS, WINDOW, TABLE, DECODED };

    static Way way_of(const Packed *matrix) {
        const Decode kind = matrix->decode;
        if (kind == decode_float32) return WHOLE;
        if (kind == decode_bfloat16) return HALVES;
        if (!loops->expand_pairs) return DECODED;
        if (kind == decode_bitmask && are_halves(as<Bitmask>(matrix).values)) return MASKED;
        if (kind == decode_two_of_four && are_halves(as<TwoOfFour>(matrix).values)) return FOURS;
        if (kind == decode_codebook && has_table(as<Codebook>(matrix))) return TABLE;
        return kind == decode_window ? WINDOW : DECODED;
    }

    // Columns that are dealt together.
    static int64_t together(Way way) {
        return way == WINDOW ? 64 : way == MASKED || way == FOURS ? 32 : 8;
    }

    // `passed`: values behind a mask before the first row.
    Source(const Packed *matrix, int64_t passed) : matrix_(matrix), way_(way_of(matrix)) {
        if (way_ == MASKED) values_[0] = numbers_of<uint16_t>(as<Bitmask>(matrix).values) + passed;
        if (way_ == WINDOW) exponents_.take(as<WindowCoded>(matrix));
    }

    // Goes on to rows that follow those before.
    void take(int64_t first, int64_t several) {
        first_ = first;
        const int64_t columns = matrix_->columns;
        if (way_ == MASKED) {
            const int64_t bytes = bytes_of(columns, 1);
            for (int64_t i = 0; i < several; i++)
                values_[i + 1] = values_[i] + loops->ones(mask() + (first + i) * bytes, bytes);
            next_ = values_[several];
        }
        if (way_ == FOURS)
            for (int64_t i = 0; i < several; i++)
                values_[i] = numbers_of<uint16_t>(as<TwoOfFour>(matrix_).values) +
                             (first + i) * (columns / 2);
        if (way_ == TABLE) take_tables(several);
        if (way_ != DECODED) return;
        decoded_.resize(several * columns);
        decode_run(matrix_, first, several, decoded_.data(), state_);
    }

    // Ends what `take` began.
    void leave() {
        if (way_ == MASKED) values_[0] = next_;
    }

    // A part of the i-th row, zero behind its end up to columns that are dealt together.
    void write(int64_t i, int64_t column, int64_t count, float *out) {
        const int64_t row = first_ + i, columns = matrix_->columns, at = row * columns + column;
        if (way_ == MASKED) {
            const Packed *values = as<Bitmask>(matrix_).values;
            loops->expand_pairs(mask() + row * bytes_of(columns, 1) + column / 8, count, values_[i],
                                numbers_of<uint16_t>(values) + values->columns, out);
        } else if (way_ == FOURS) {
            const int64_t half = columns / 2, bytes = bytes_of(half, 2);
            const Packed *values = as<TwoOfFour>(matrix_).values;
            uint8_t masks[TILE_COLUMNS / 8];
            loops->masks_of_fours(as<TwoOfFour>(matrix_).positions + row * bytes + column / 8,
                                  (count + 7) / 8, masks);
            if (count % 8) masks[count / 8] &= 15;  // its upper half lies behind the row's end
            loops->expand_pairs(masks, count, values_[i],
                                numbers_of<uint16_t>(values) + matrix_->rows * half, out);
        } else if (way_ == WINDOW) {
            const WindowCoded &held = as<WindowCoded>(matrix_);
            loops->join_window(held.rest + at,
                               held.codes + row * bytes_of(columns, 4) + column / 2,
                               exponents_.high, exponents_.low, count, out);
        } else {
            if (way_ == HALVES)
                fetch(numbers_of<uint16_t>(matrix_) + at + TILE_COLUMNS, 2 * TILE_COLUMNS);
            if (way_ == WHOLE) std::copy_n(numbers_of<float>(matrix_) + at, count, out);
            if (way_ == HALVES) loops->widen(numbers_of<uint16_t>(matrix_) + at, count, out);
            if (way_ == TABLE) look_up(i, column, count, out);
            if (way_ == DECODED) std::copy_n(decoded_.data() + i * columns + column, count, out);
            std::fill(out + count, out + (count + 7) / 8 * 8, 0.0f);
        }
    }

  private:
    // What is read next of a row comes too late when it is read among those of all others.
    static void fetch(const void *from, int64_t bytes) {
        for (int64_t at = 0; at < bytes; at += 64)
            __builtin_prefetch(static_cast<const char *>(from) + at);
    }

    void take_tables(int64_t several) {
        const Codebook &held = as<Codebook>(matrix_);
        for (int64_t i = 0; i < several; i++) {
            if (held.rows)
                loops->widen(held.rows + (first_ + i) * held.size, held.size, tables_[i]);
            else
                std::copy_n(held.table, held.size, tables_[i]);
            codes_[i] = in_four_bits(held.codes, first_ + i, matrix_->columns, rooms_[i]);
        }
        if (!held.scales) return;
        const int64_t groups = held.scales->columns;
        decoded_.resize(several * groups);
        for (int64_t i = 0; i < several; i++)
            decode(held.scales, first_ + i, 0, groups, decoded_.data() + i * groups, state_);
    }

    void look_up(int64_t i, int64_t column, int64_t count, float *out) {
        const Codebook &held = as<Codebook>(matrix_);
        fetch(codes_[i] + (column + TILE_COLUMNS) / 2, TILE_COLUMNS / 2);
        loops->look_up_codes(codes_[i] + column / 2, tables_[i], count, out);
        if (!held.scales) return;
        const float *scales = decoded_.data() + i * held.scales->columns;
        for (int64_t done = 0; done < count;) {
            const int64_t group = (column + done) / held.group_size;
            const int64_t end = std::min(count, (group + 1) * held.group_size - column);
            loops->scale_by(out + done, scales[group], end - done);
            done = end;
        }
    }

    const uint8_t *mask() const { return as<Bitmask>(matrix_).mask; }

    const Packed *matrix_;
    Way way_;
    int64_t first_ = 0;
    const uint16_t *values_[TILE_ROWS + 1] = {}, *next_ = nullptr;
    const uint8_t *codes_[TILE_ROWS] = {};
    float tables_[TILE_ROWS][16] = {};
    std::vector<uint8_t> rooms_[TILE_ROWS];  // codes of fewer bits
    WindowExponents exponents_;
    std::vector<float> decoded_;  // rows, or the scales of a table's groups
    State state_;
};

// Numbers that begin where a line of memory does: what lies across two lines is read at half the rate.
class Lined {
  public:
    // Zeros; what was there before is gone.
    float *zeros(int64_t count) {
        room_.assign(count + 16, 0);
        const auto at = reinterpret_cast<uintptr_t>(room_.data());
        return from_ = room_.data() + (64 - at % 64) % 64 / sizeof(float);
    }

    const float *data() const { return from_; }

  private:
    std::vector<float> room_;
    float *from_ = nullptr;
};

// Activations by blocks of columns, [blocks, activations, TILE_COLUMNS], dealt as rows are.
Lined panel_of(const float *x, int64_t count, int64_t columns, int64_t together) {
    const int64_t blocks = (columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    Lined panel;
    const auto deal = together == 64   ? loops->deal_window
                      : together == 32 ? loops->deal_pairs
                                       : nullptr;
    float *to = panel.zeros(blocks * count * TILE_COLUMNS);
    for (int64_t column = 0; column < columns; column += TILE_COLUMNS)
        for (int64_t one = 0; one < count; one++, to += TILE_COLUMNS) {
            const int64_t several = std::min(TILE_COLUMNS, columns - column);
            if (deal)
                deal(x + one * columns + column, several, to);
            else
                std::copy_n(x + one * columns + column, several, to);
        }
    return panel;
}

// The products of a run of rows with a panel of activations.
void rows_in_tiles(Source &source, const Packed *matrix, const float *panel, int64_t count,
                   const Pieces &pieces, int64_t piece, float *y) {
    const int64_t columns = matrix->columns, end = pieces.first(piece + 1);
    const int64_t together = Source::together(Source::way_of(matrix));
    alignas(64) float tile[TILE_COLUMNS * TILE_ROWS], part[TILE_COLUMNS];
    Lined room;
    for (int64_t row = pieces.first(piece); row < end; row += TILE_ROWS) {
        const int64_t several = std::min(TILE_ROWS, end - row);
        source.take(row, several);
        float *sums = room.zeros(count * TILE_ROWS * 8);
        const float *x = panel;
        for (int64_t column = 0; column < columns; column += TILE_COLUMNS) {
            const int64_t width = std::min(TILE_COLUMNS, columns - column);
            const int64_t steps = (width + together - 1) / together * together / 8;
            for (int64_t i = 0; i < several; i++) {
                source.write(i, column, width, part);
                loops->place(part, steps, tile + 8 * i);
            }
            loops->tile_dots(tile, several, x, count, TILE_COLUMNS, steps, sums);
            x += count * TILE_COLUMNS;
        }
        source.leave();
        loops->finish_tile(sums, several, count, y + row, matrix->rows);
    }
}

}  // namespace

void count_before(const uint8_t *mask, int64_t bytes, const Pieces &pieces, int64_t *before) {
    before[0] = 0;
#pragma omp parallel for if (pieces.count > 1)
    for (int64_t piece = 0; piece < pieces.count - 1; piece++)
        before[piece + 1] =
            loops->ones(mask + pieces.first(piece) * bytes,
                        (pieces.first(piece + 1) - pieces.first(piece)) * bytes);
    for (int64_t piece = 1; piece < pieces.count; piece++) before[piece] += before[piece - 1];
}

bool are_decoded(const Packed *matrix) { return Source::way_of(matrix) == Source::DECODED; }

void multiply_in_tiles(const Packed *matrix, const float *x, int64_t count, float *y) {
    const int64_t rows = matrix->rows, columns = matrix->columns;
    const Source::Way way = Source::way_of(matrix);
    const Pieces pieces = Pieces::of(rows, TILE_ROWS, rows * columns >= DECODED);
    int64_t before[PIECES] = {};
    if (way == Source::MASKED)
        count_before(as<Bitmask>(matrix).mask, bytes_of(columns, 1), pieces, before);
    for (int64_t first = 0; first < count; first += AT_ONCE) {
        const int64_t several = std::min(AT_ONCE, count - first);
        const float *from = x + first * columns;
        const Lined panel = panel_of(from, several, columns, Source::together(way));
#pragma omp parallel for schedule(dynamic) if (pieces.count > 1)
        for (int64_t piece = 0; piece < pieces.count; piece++) {
            Source source(matrix, before[piece]);
            rows_in_tiles(source, matrix, panel.data(), several, pieces, piece, y + first * rows);
            if (way == Source::WINDOW)
                add_apart(as<WindowCoded>(matrix), pieces.first(piece), pieces.first(piece + 1),
                          from, several, y + first * rows);
        }
    }
}
