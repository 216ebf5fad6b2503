// Short rows of codes into tables, in float32; a part of loops.inl.

#ifdef HAS_AVX512
// Sixteen codes of up to four bits as the lowest bits of lanes, those of four bits dealt.
template <int PLANES>
inline __attribute__((always_inline)) __m512i codes_of_table(const TableRows &held, int64_t row,
                                                             int64_t block, bool whole) {
    const auto at = [&](int plane, auto &found) __attribute__((always_inline)) {
        const int64_t each = sizeof(found), left = held.bytes[plane] - block * each;
        const uint8_t *from = held.lines[plane] + row * held.bytes[plane] + block * each;
        found = 0;
        __builtin_memcpy(&found, from, whole ? each : std::min(each, left));
    };
    const __m512i lanes =
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    if (PLANES == 4) {
        uint64_t fours;
        at(2, fours);
        const __m512i turns = _mm512_slli_epi32(_mm512_srli_epi32(lanes, 1), 2);
        return _mm512_srlv_epi32(_mm512_set1_epi64(static_cast<int64_t>(fours)), turns);
    }
    uint16_t ones = 0;
    uint32_t twos = 0;
    if (PLANES & 1) at(0, ones);
    const __m512i narrow = _mm512_srlv_epi32(_mm512_set1_epi32(ones), lanes);
    if (PLANES == 1) return narrow;
    at(1, twos);
    const __m512i turns = _mm512_add_epi32(lanes, lanes);
    const __m512i both = _mm512_set1_epi32(static_cast<int32_t>(twos));
    if (PLANES == 2) return _mm512_srlv_epi32(both, turns);
    const __m512i wide = _mm512_rorv_epi32(both, _mm512_sub_epi32(turns, _mm512_set1_epi32(1)));
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(1), narrow, wide, 0xCA);  // lowest: narrow
}

// Again and again up to sixteen values: bits above a code's change nothing.
template <int PLANES>
inline __attribute__((always_inline)) __m512 table_of_row(const uint16_t *values) {
    __m256i found;
    if (PLANES == 4) found = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(values));
    if (PLANES == 3)
        found = _mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i *>(values)));
    if (PLANES <= 2) {
        int64_t few = 0;
        __builtin_memcpy(&few, values, PLANES == 2 ? 8 : 4);
        found = PLANES == 2 ? _mm256_set1_epi64x(few)
                            : _mm256_set1_epi32(static_cast<int32_t>(few));
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(found), 16));
}

template <int PLANES, bool OWN, bool SCALED>
void table_rows_of(const TableRows &held, int64_t count, const float *x, float *y) {
    const int64_t whole = held.columns / 16, blocks = (held.columns + 15) / 16;
    const int64_t each = SCALED ? std::min(blocks, held.group_size / 16) : blocks;
    __m512 table = _mm512_loadu_ps(held.table);
    for (int64_t row = 0; row < count; row++) {
        if (OWN) table = table_of_row<PLANES>(held.tables + row * held.size);
        __m512 all = _mm512_setzero_ps();
        const float *scale = SCALED ? held.scales + row * held.groups : nullptr;
        for (int64_t first = 0; first < blocks; first += each) {
            __m512 sum = _mm512_setzero_ps();
            const auto add = [&](int64_t block, bool full) __attribute__((always_inline)) {
                sum = _mm512_fmadd_ps(
                    _mm512_permutexvar_ps(codes_of_table<PLANES>(held, row, block, full), table),
                    _mm512_loadu_ps(x + 16 * block), sum);
            };
            const int64_t end = std::min(whole, first + each);
            for (int64_t block = first; block < end; block++) add(block, true);
            if (first + each >= blocks && whole < blocks) add(whole, false);
            all = SCALED ? _mm512_fmadd_ps(sum, _mm512_set1_ps(*scale++), all) : sum;
        }
        y[row] = _mm512_reduce_add_ps(all);
    }
}

template <int PLANES>
void table_rows_by(const TableRows &held, int64_t count, const float *x, float *y) {
    if (held.tables)
        (held.scales ? table_rows_of<PLANES, true, true>
                     : table_rows_of<PLANES, true, false>)(held, count, x, y);
    else
        (held.scales ? table_rows_of<PLANES, false, true>
                     : table_rows_of<PLANES, false, false>)(held, count, x, y);
}

// Products of rows with an activation, whole sixteens of it and dealt as kept groups are where
// codes have four bits.
void table_rows(const TableRows &held, int64_t count, const float *x, float *y) {
    if (held.size == 2) table_rows_by<1>(held, count, x, y);
    if (held.size == 4) table_rows_by<2>(held, count, x, y);
    if (held.size == 8) table_rows_by<3>(held, count, x, y);
    if (held.size == 16) table_rows_by<4>(held, count, x, y);
}
#endif
