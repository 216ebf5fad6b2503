// bfloat16 numbers whose exponents lie in Huffman codes, decoded a few lanes at a time.
#include "decode.h"

extern "C" {

// Makes the table of codes of these lengths, whose symbols count from `base`, in a room of so many
// bytes as are returned; in none where there is no room.
int64_t code_table(const uint8_t *lengths, int64_t count, int64_t base, void *room) {
    if (room) loops->make_code_table(lengths, count, base, *static_cast<CodeTable *>(room));
    return sizeof(CodeTable);
}

// A part of a row, or of rows that follow each other.
void decode_entropy(const Packed *matrix, int64_t row, int64_t column, int64_t count, float *out,
                    State &) {
    const EntropyCoded &held = as<EntropyCoded>(matrix);
    const CodedLanes lanes = {held.stream, held.bytes, held.bases, held.starts,
                              static_cast<const CodeTable *>(held.table)};
    const int64_t start = row * matrix->columns + column, end = start + count;
    constexpr int64_t SEVERAL = 4;
    uint8_t symbols[SEVERAL * LANE_ROOM];
    for (int64_t first = start / LANE; first * LANE < end; first += SEVERAL) {
        const int64_t several = std::min(SEVERAL, (end + LANE - 1) / LANE - first);
        loops->read_lanes(lanes, first, several, symbols);
        for (int64_t i = 0; i < several; i++) {
            const int64_t from = std::max(start, (first + i) * LANE);
            const int64_t to = std::min(end, (first + i + 1) * LANE);
            loops->join(held.rest + from, symbols + i * LANE_ROOM + from % LANE, to - from,
                        out + from - start);
        }
    }
}
}
