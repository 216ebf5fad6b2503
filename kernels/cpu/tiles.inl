// Sums of tiles: several rows with several activations at once; a part of loops.inl.

#ifdef HAS_AVX512
typedef float Wide __attribute__((vector_size(64)));  // eight columns of two rows

inline __attribute__((always_inline)) Wide everywhere(const float *eight) {
    return (Wide)_mm512_broadcast_f32x8(_mm256_loadu_ps(eight));
}
constexpr int MOST = 6;  // activations whose sums with four vectors of rows stay in registers
#else
typedef EightFloats Wide;

inline __attribute__((always_inline)) Wide everywhere(const float *eight) {
    return floats_at(eight);
}
constexpr int MOST = 3;
#endif
constexpr int ROWS_OF_WIDE = sizeof(Wide) / 32, ROWS_OF_FOUR = 4 * ROWS_OF_WIDE;

inline __attribute__((always_inline)) Wide wide_at(const float *from) {
    Wide found;
    __builtin_memcpy(&found, from, sizeof(Wide));
    return found;
}

// Four vectors of rows with some activations; each sum in the order of `some_dots`.
template <int MANY>
void add_tile(const float *tile, const float *x, int64_t apart, int64_t steps, float *sums) {
    constexpr int EACH = sizeof(Wide) / 4;
    Wide found[MANY][4];
#pragma GCC unroll 6
    for (int one = 0; one < MANY; one++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            found[one][i] = wide_at(sums + one * 8 * TILE_ROWS + EACH * i);
    for (int64_t step = 0; step < steps; step++) {
        Wide rows[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) rows[i] = wide_at(tile + step * 8 * TILE_ROWS + EACH * i);
#pragma GCC unroll 6
        for (int one = 0; one < MANY; one++) {
            const Wide several = everywhere(x + one * apart + 8 * step);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) found[one][i] += rows[i] * several;
        }
    }
#pragma GCC unroll 6
    for (int one = 0; one < MANY; one++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            __builtin_memcpy(sums + one * 8 * TILE_ROWS + EACH * i, &found[one][i], sizeof(Wide));
}

// Adds the products of a tile of rows [steps, TILE_ROWS, 8] with activations that lie `apart` to
// sums [activations, TILE_ROWS, 8], of which the first `rows` are asked for.
void tile_dots(const float *tile, int64_t rows, const float *x, int64_t count, int64_t apart,
               int64_t steps, float *sums) {
    typedef void (*Add)(const float *, const float *, int64_t, int64_t, float *);
    static const Add adds[] = {add_tile<1>, add_tile<2>, add_tile<3>,
#ifdef HAS_AVX512
                               add_tile<4>, add_tile<5>, add_tile<6>
#endif
    };
    const int64_t parts = (count + MOST - 1) / MOST;
    for (int64_t part = 0; part < parts; part++) {
        const int64_t first = count * part / parts, end = count * (part + 1) / parts;
        for (int64_t row = 0; row < rows; row += ROWS_OF_FOUR)
            adds[end - first - 1](tile + 8 * row, x + first * apart, apart, steps,
                                  sums + 8 * (first * TILE_ROWS + row));
    }
}

// Sums [activations, TILE_ROWS, 8] of eight each, those of an activation `apart` in y.
void finish_tile(const float *sums, int64_t rows, int64_t count, float *y, int64_t apart) {
    for (int64_t one = 0; one < count; one++)
        for (int64_t row = 0; row < rows; row++)
            y[one * apart + row] = all_of(floats_at(sums + 8 * (one * TILE_ROWS + row)));
}

// Eight columns of a row at a time beside those of the other rows of a tile.
void place(const float *row, int64_t steps, float *tile) {
    for (int64_t step = 0; step < steps; step++) {
        const EightFloats found = floats_at(row + 8 * step);
        __builtin_memcpy(tile + step * 8 * TILE_ROWS, &found, 32);
    }
}
