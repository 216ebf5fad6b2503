// Exponents in Huffman codes, lane beside lane; a part of loops.inl.

// The code that twelve bits begin with.
inline __attribute__((always_inline)) FoundCode one_code(const CodeTable &table, uint32_t bits) {
    int32_t length = 1;
    while (length < CodeTable::LONGEST && bits >= table.ends[length]) length++;
    if (bits >= table.ends[length]) return {1, table.order[0]};  // no code at all
    const uint32_t from = length > 1 ? table.ends[length - 1] : 0;
    return {length,
            table.order[table.before[length] + ((bits - from) >> (CodeTable::LONGEST - length))]};
}

// The symbols of some lanes side by side, for each waits for its own code before: all codes that
// some bits hold are looked up at once, a longer one alone. Lanes [SEVERAL, LANE_ROOM].
template <int SEVERAL>
void read_some_lanes(const CodedLanes &held, int64_t first, uint8_t *symbols) {
    constexpr int64_t REACH = 112;  // bytes that are read of a lane, and of those behind it
    const CodeTable &table = *held.table;
    const uint64_t *several = table.several;
    uint8_t last[SEVERAL][REACH];
    const uint8_t *from[SEVERAL];
    uint64_t bit[SEVERAL], found[SEVERAL];
    for (int lane = 0; lane < SEVERAL; lane++) {
        bit[lane] = held.bases[(first + lane) / LANES_A_BASE] + held.starts[first + lane];
        from[lane] = held.stream;
        found[lane] = 0;
        const int64_t byte = static_cast<int64_t>(bit[lane] / 8), left = held.bytes - byte;
        if (left >= REACH) continue;
        std::fill_n(last[lane], REACH, 0);
        std::copy_n(held.stream + byte, left, last[lane]);
        from[lane] = last[lane];
        bit[lane] %= 8;
    }
    bool done = false;
    while (!done) {
        uint64_t window[SEVERAL], taken[SEVERAL], codes[SEVERAL];
        for (int lane = 0; lane < SEVERAL; lane++) {
            __builtin_memcpy(&window[lane], from[lane] + bit[lane] / 8, 8);
            window[lane] = __builtin_bswap64(window[lane]) << bit[lane] % 8;
            taken[lane] = found[lane] << 8;  // and bits
        }
#pragma GCC unroll 5
        for (int i = 0; i < 5; i++)
#pragma GCC unroll 4
            for (int lane = 0; lane < SEVERAL; lane++) {
                codes[lane] = several[window[lane] >> (64 - CodeTable::SHORT)];
                __builtin_memcpy(symbols + lane * LANE_ROOM + (taken[lane] >> 8), &codes[lane], 8);
                codes[lane] >>= 48;
                taken[lane] += codes[lane];
                window[lane] <<= codes[lane] & 63;
            }
        done = true;
        for (int lane = 0; lane < SEVERAL; lane++) {
            if (__builtin_expect(!codes[lane], 0)) {
                const FoundCode code = one_code(table, window[lane] >> (64 - CodeTable::LONGEST));
                symbols[lane * LANE_ROOM + (taken[lane] >> 8)] = code.symbol;
                taken[lane] += 256 + code.length;
            }
            const bool on = found[lane] < LANE;  // a lane that ended waits for the others
            bit[lane] += on ? taken[lane] & 255 : 0;
            found[lane] = on ? taken[lane] >> 8 : found[lane];
            done &= found[lane] >= LANE;
        }
    }
}

// The symbols of up to four lanes, [lanes, LANE_ROOM].
void read_lanes(const CodedLanes &held, int64_t first, int64_t count, uint8_t *symbols) {
    if (count == 4) {
        read_some_lanes<4>(held, first, symbols);
        return;
    }
    for (int64_t lane = 0; lane < count; lane++)
        read_some_lanes<1>(held, first + lane, symbols + lane * LANE_ROOM);
}

// What codes begin with, by their lengths, canonical: shorter before longer, then by symbol. Symbols
// count from `base`.
void make_code_table(const uint8_t *lengths, int64_t count, int64_t base, CodeTable &table) {
    table = {};
    uint32_t end = 0, placed = 0;
    for (int length = 1; length <= CodeTable::LONGEST; length++) {
        table.before[length] = static_cast<uint16_t>(placed);
        for (int64_t symbol = 0; symbol < count; symbol++) {
            if (lengths[symbol] != length || placed == 256) continue;
            table.order[placed++] = static_cast<uint8_t>(base + symbol);
            end += 1u << (CodeTable::LONGEST - length);
        }
        table.ends[length] = static_cast<uint16_t>(std::min(end, 1u << CodeTable::LONGEST));
    }
    for (uint32_t place = 0; place < 1u << CodeTable::SHORT; place++) {
        uint32_t bits = place << (CodeTable::LONGEST - CodeTable::SHORT);
        int64_t several = 0, used = 0;
        uint64_t codes = 0;
        while (several < 6) {
            const FoundCode code = one_code(table, bits & ((1u << CodeTable::LONGEST) - 1));
            if (used + code.length > CodeTable::SHORT) break;
            codes |= static_cast<uint64_t>(code.symbol) << 8 * several++;
            used += code.length;
            bits <<= code.length;
        }
        table.several[place] =
            codes | static_cast<uint64_t>(used) << 48 | static_cast<uint64_t>(several) << 56;
    }
}
