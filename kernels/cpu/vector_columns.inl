// Columns of a matrix in vectors of a codebook, times numbers and added up; a part of loops.inl.

// Vectors of a table that the codes of each line name, times the line's number, added to `sums`:
// TOGETHER vectors from `first` on, which stay in registers.
template <int WIDTH, int LENGTH, int TOGETHER>
inline __attribute__((always_inline)) void add_together(const VectorColumns &held, int64_t first,
                                                        float *out) {
    constexpr int EACH = LENGTH > 8 ? LENGTH : 8, VECTORS = EACH / LENGTH;  // of eight sums
    constexpr int MANY = TOGETHER / VECTORS;
    constexpr int64_t BYTES = TOGETHER * WIDTH / 8;
    static_assert(BYTES >= 1 && BYTES <= 8);
    EightFloats sums[MANY];
    __builtin_memcpy(sums, out + first * LENGTH, sizeof(sums));
    const uint8_t *line = held.codes + first * WIDTH / 8;
    for (int64_t k = 0; k < held.lines; k++, line += held.bytes) {
        uint64_t codes = 0;
        __builtin_memcpy(&codes, line, BYTES);
#pragma GCC unroll 8
        for (int i = 0; i < MANY; i++) {
            float found[8];
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j++) {
                const uint64_t code = codes >> (i * VECTORS + j) * WIDTH & ((1u << WIDTH) - 1);
                __builtin_memcpy(found + j * LENGTH, held.table + code * LENGTH, LENGTH * 4);
            }
            sums[i] += floats_at(found) * held.x[k];
        }
    }
    __builtin_memcpy(out + first * LENGTH, sums, sizeof(sums));
}

// One vector, whatever follows it.
template <int LENGTH>
void add_alone(const VectorColumns &held, int64_t vector, float *out) {
    const int64_t bit = vector * held.width;
    const uint32_t mask = (1u << held.width) - 1;
    const uint8_t *line = held.codes + bit / 8;
    for (int64_t k = 0; k < held.lines; k++, line += held.bytes) {
        const float *entry = held.table + (*line >> bit % 8 & mask) * LENGTH;
        for (int i = 0; i < LENGTH; i++) out[vector * LENGTH + i] += entry[i] * held.x[k];
    }
}

#ifdef HAS_AVX512
// Sixteen codes of up to four bits, each the lowest bits of a lane; those of four bits lie as
// `lane_of` says.
template <int WIDTH>
inline __attribute__((always_inline)) __m512i sixteen_codes(const uint8_t *from, __m512i turns) {
    if (WIDTH == 4) {
        int64_t codes;
        __builtin_memcpy(&codes, from, 8);
        return _mm512_srlv_epi32(_mm512_set1_epi64(codes), turns);
    }
    int32_t codes = 0;
    __builtin_memcpy(&codes, from, 2 * WIDTH);
    return _mm512_srlv_epi32(_mm512_set1_epi32(codes), turns);
}

inline int lane_of(int width, int code) { return width == 4 ? code % 8 * 2 + code / 8 : code; }

// PARTS times sixteen vectors of a table of up to sixteen, which registers hold: each number of
// vectors has sums of its own, put in their places at last.
template <int WIDTH, int LENGTH, int PARTS>
inline __attribute__((always_inline)) void add_sixteens(const VectorColumns &held, int64_t first,
                                                        float *out) {
    alignas(64) int32_t turns[16], places[LENGTH][16];
    for (int code = 0; code < 16; code++) turns[lane_of(WIDTH, code)] = code % (32 / WIDTH) * WIDTH;
    for (int at = 0; at < 16 * LENGTH; at++)
        places[at / 16][at % 16] = at % LENGTH * 16 + lane_of(WIDTH, at / LENGTH);
    const __m512i turn = _mm512_load_si512(turns);
    __m512 table[LENGTH], sums[PARTS][LENGTH];
    for (int i = 0; i < LENGTH; i++) {
        alignas(64) float entries[16];  // again and again: bits above a code's change nothing
        for (int code = 0; code < 16; code++)
            entries[code] = held.table[(code & ((1 << WIDTH) - 1)) * LENGTH + i];
        table[i] = _mm512_load_ps(entries);
        for (auto &part : sums) part[i] = _mm512_setzero_ps();
    }
    const uint8_t *line = held.codes + first * WIDTH / 8;
    for (int64_t k = 0; k < held.lines; k++, line += held.bytes) {
        const __m512 x = _mm512_set1_ps(held.x[k]);
#pragma GCC unroll 8
        for (int part = 0; part < PARTS; part++) {
            const __m512i codes = sixteen_codes<WIDTH>(line + part * 2 * WIDTH, turn);
#pragma GCC unroll 8
            for (int i = 0; i < LENGTH; i++)
                sums[part][i] = _mm512_fmadd_ps(_mm512_permutexvar_ps(codes, table[i]), x,
                                                sums[part][i]);
        }
    }
    out += first * LENGTH;
    for (int part = 0; part < PARTS; part++) {
        alignas(64) float found[16 * LENGTH];
        for (int i = 0; i < LENGTH; i++) _mm512_store_ps(found + 16 * i, sums[part][i]);
        for (int i = 0; i < LENGTH; i++, out += 16)
            _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out),
                                                _mm512_i32gather_ps(_mm512_load_si512(places[i]),
                                                                    found, 4)));
    }
}
#endif

template <int WIDTH, int LENGTH>
void add_columns_of(const VectorColumns &held, int64_t first, int64_t end, float *out) {
#ifdef HAS_AVX512
    if (WIDTH <= 4) {
        constexpr int NARROW = WIDTH & 7 ? WIDTH & 7 : 4, PARTS = 8 / LENGTH;
        for (; first + 16 * PARTS <= end; first += 16 * PARTS)
            add_sixteens<NARROW, LENGTH, PARTS>(held, first, out);
        for (; first + 16 <= end; first += 16) add_sixteens<NARROW, LENGTH, 1>(held, first, out);
    }
#endif
    for (; first + 8 <= end; first += 8) add_together<WIDTH, LENGTH, 8>(held, first, out);
    for (; first < end; first++) add_alone<LENGTH>(held, first, out);
}

// Adds vectors `first` to `end` of each line, times the line's number, to `out`, where the lines'
// first vectors begin; eight divides `first`.
template <int LENGTH>
void add_columns(const VectorColumns &held, int64_t first, int64_t end, float *out) {
    if (held.width == 1) add_columns_of<1, LENGTH>(held, first, end, out);
    if (held.width == 2) add_columns_of<2, LENGTH>(held, first, end, out);
    if (held.width == 4) add_columns_of<4, LENGTH>(held, first, end, out);
    if (held.width == 8) add_columns_of<8, LENGTH>(held, first, end, out);
}
