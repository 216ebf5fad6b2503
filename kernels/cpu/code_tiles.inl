// Tiles of codes that several activations meet, by AVX-512 with VNNI; part of its loops.
//
// A block of 32 rows is unpacked once and turned, so that a register holds four codes of sixteen
// rows; every activation meets it there (`code_runs.inl`).

// Eight words of sixteen rows: rows become columns. Rows four apart share a register at once.
inline __attribute__((always_inline)) void turn_eight(const uint8_t *rows, int64_t apart,
                                                      __m512i (&held)[8]) {
    __m512i half[8];
    const auto at = [&](int64_t row) __attribute__((always_inline)) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(rows + row * apart));
    };
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++, rows += 8 * apart)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            held[4 * i + j] = _mm512_inserti64x4(_mm512_castsi256_si512(at(j)), at(j + 4), 1);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        half[2 * i] = _mm512_unpacklo_epi32(held[2 * i], held[2 * i + 1]);
        half[2 * i + 1] = _mm512_unpackhi_epi32(held[2 * i], held[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            held[4 * i + 2 * j] = _mm512_unpacklo_epi64(half[4 * i + j], half[4 * i + 2 + j]);
            held[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(half[4 * i + j], half[4 * i + 2 + j]);
        }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        half[j] = _mm512_shuffle_i32x4(held[j], held[4 + j], 0x88);
        half[4 + j] = _mm512_shuffle_i32x4(held[j], held[4 + j], 0xDD);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) held[j] = half[j];
}

// Asks for a line of each of some rows, sixteen at most: no more of them may have room near a core
// where rows lie a power of two apart.
inline void ask_for(const uint8_t *line, int64_t bytes, int64_t several) {
    for (int64_t i = 0; i < std::min<int64_t>(several, 16); i++)
        _mm_prefetch(reinterpret_cast<const char *>(line + i * bytes), _MM_HINT_T0);
}

// A block of some rows, [words of a row's block, codes of a byte, 32 rows, 4].
template <int PLANES>
void unpack_tile(const CodeRows &rows, int64_t row, int64_t several, int64_t block, uint8_t *tile) {
    typedef Held<PLANES> Of;
    // What is fewer registers is turned: planes as they lie, or codes.
    constexpr bool PLANES_FIRST = 1 + (Of::LOWER & 1) + (Of::LOWER >> 1) < Of::EACH;
    constexpr int TURNED = PLANES_FIRST ? 3 : Of::EACH;
    const bool whole = (block + 1) * 64 <= rows.bytes[Of::WIDEST];
    const int64_t bytes = rows.bytes[Of::WIDEST];
    const uint8_t *line = rows.lines[Of::WIDEST] + row * bytes + 64 * block;
    alignas(64) uint8_t room[TURNED][16 * 64];
    for (int64_t half = 0; half < 2 && 16 * half < several; half++, line += 16 * bytes) {
        // whether the widest plane is turned where it lies
        const bool there = (PLANES_FIRST || PLANES == 8) && whole && several >= 16 * (half + 1);
        if (half == 0) ask_for(line + 16 * bytes, bytes, several - 16);
        if (row == 0) ask_for(line + 3 * 64, bytes, 16);  // nobody did before
        for (int64_t i = 0; i < 16 && (Of::LOWER || !there); i++) {
            const Of one(rows, row + std::min(16 * half + i, several - 1), block, whole);
            const auto keep = [&](int plane, __m512i held) __attribute__((always_inline)) {
                _mm512_store_si512(room[plane] + 64 * i, held);
            };
            if constexpr (PLANES_FIRST) {
                if (!there) keep(0, one.widest);
                if (Of::LOWER & 1) keep(1, one.ones);
                if (Of::LOWER & 2) keep(2, one.twos);
            } else {
#pragma GCC unroll 8
                for (int j = 0; j < Of::EACH; j++) keep(j, one.codes(j));
            }
        }
        for (int64_t word = 0; word < 16; word += 8) {
            __m512i held[TURNED][8];
            turn_eight((there ? line : room[0]) + 4 * word, there ? bytes : 64, held[0]);
            for (int plane = 1; plane < TURNED; plane++)
                if (!PLANES_FIRST || Of::LOWER & plane)
                    turn_eight(room[plane] + 4 * word, 64, held[plane]);
            uint8_t *to = tile + (2 * word * Of::EACH + half) * 64;
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                Of of;
                of.widest = held[0][i];
                if constexpr (PLANES_FIRST) of.ones = held[1][i], of.twos = held[2][i];
#pragma GCC unroll 8
                for (int j = 0; j < Of::EACH; j++, to += TILE_WORD)
                    _mm512_store_si512(to, PLANES_FIRST ? of.codes(j) : held[j][i]);
            }
        }
    }
}

// Of 32 columns in the order of a plane's words, the places of their bytes: upper ones of a word's
// four columns, then lower ones.
struct Places {
    alignas(64) uint8_t pairs[4][64], upper[4][64];

    Places() {
        for (int plane = 0; plane < 4; plane++)
            for (int word = 0; word < 8; word++)
                for (int i = 0; i < 4; i++) {
                    const int each = 8 >> plane;
                    const int column = (word / each * 4 + i) * each + word % each;
                    pairs[plane][8 * word + i] = static_cast<uint8_t>(2 * column + 1);
                    pairs[plane][8 * word + 4 + i] = static_cast<uint8_t>(2 * column);
                    upper[plane][4 * word + i] = upper[plane][32 + 4 * word + i] =
                        static_cast<uint8_t>(2 * column + 1);
                }
    }
};

template <int WIDTH>
void deal_words(const int16_t *numbers, int64_t apart, int64_t several, const uint8_t *places,
                uint8_t *to) {
    constexpr int64_t PIECE = PanelView::PIECE;
    const __m512i order = _mm512_load_si512(places);
    const __m512i half = _mm512_set1_epi16(WIDTH == 8 ? 128 : 0);
    for (int64_t piece = 0; piece < PanelView::RUN / PIECE; piece++, to += 8 * several * WIDTH)
        for (int64_t one = 0; one < several; one++) {
            alignas(64) uint8_t dealt[64];
            const __m512i held = _mm512_loadu_si512(numbers + one * apart + piece * PIECE);
            // lower bytes as they were: with a sign, less by 256 where the upper ones are more
            const __m512i split = _mm512_xor_si512(_mm512_add_epi16(held, half), half);
            _mm512_store_si512(dealt, _mm512_permutexvar_epi8(order, split));
            for (int64_t word = 0; word < 8; word++)
                std::memcpy(to + (word * several + one) * WIDTH, dealt + word * WIDTH, WIDTH);
        }
}

// Deals a run of activations as `Panel` says. Where both bytes are there, upper ones are rounded,
// so that lower ones have a sign.
void deal_panel(const int16_t *numbers, int64_t apart, int64_t several, int64_t plane,
                int64_t width, uint8_t *to) {
    static const Places places;
    if (width == 8)
        deal_words<8>(numbers, apart, several, places.pairs[plane], to);
    else
        deal_words<4>(numbers, apart, several, places.upper[plane], to);
}

// Half the sums of the codes of each 32 columns of a tile, [32 columns, 32].
inline void halves_of(const uint8_t *tile, float *found) {
    for (int64_t piece = 0; piece < PanelView::RUN / PanelView::PIECE; piece++)
        for (int half = 0; half < 2; half++) {
            __m512i sum = _mm512_setzero_si512();
            for (int word = 0; word < 8; word++)
                sum = _mm512_dpbusd_epi32(
                    sum, _mm512_load_si512(tile + (8 * piece + word) * TILE_WORD + 64 * half),
                    _mm512_set1_epi8(1));
            _mm512_storeu_ps(found + 32 * piece + 16 * half,
                             _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(0.5f)));
        }
}

// Adds sums [activations, 32] of some rows, times a factor, to y [activations, apart].
inline void add_sums(const float *sums, int64_t rows, int64_t several, float factor, float *y,
                     int64_t apart) {
    for (int64_t one = 0; one < several; one++, sums += 32, y += apart)
        for (int64_t half = 0; 16 * half < rows; half++) {
            const int64_t left = std::min<int64_t>(16, rows - 16 * half);
            const __mmask16 there = static_cast<__mmask16>((1u << left) - 1);
            _mm512_mask_storeu_ps(y + 16 * half, there,
                                  _mm512_fmadd_ps(_mm512_loadu_ps(sums + 16 * half),
                                                  _mm512_set1_ps(factor),
                                                  _mm512_maskz_loadu_ps(there, y + 16 * half)));
        }
}

// A part of the activations, of which bits mark those whose columns are scaled together. Where some
// are and some are not, all are added both ways: no sum depends on what stands beside.
inline void add_part(Meeting &at, bool in_bytes, int64_t pieces, int64_t count, unsigned near) {
    if (!near || pieces == 1 || near == (1u << count) - 1) {
        add_run_of(in_bytes, near ? pieces : 1, count)(at);
        return;
    }
    float apart[8 * 32];
    std::copy_n(at.sums, 32 * count, apart);
    add_run_of(in_bytes, pieces, count)(at);
    float *together = at.sums;
    at.sums = apart;
    add_run_of(in_bytes, 1, count)(at);
    for (int64_t one = 0; one < count; one++)
        if (!(near >> one & 1)) std::copy_n(apart + 32 * one, 32, together + 32 * one);
}

// A run of tiles of 32 rows with all activations, added to sums [activations, 32]. Meanwhile the
// next rows' codes are asked for: so many bits of each, one behind the other, so many lines every four
// words by each part.
inline void add_runs(const uint8_t *tile, int64_t run, const PlaneView &view, int64_t several,
                     const float *scales, int64_t pieces, const uint8_t *ahead, int64_t width,
                     int64_t lines, float *sums) {
    const PanelView &panel = *view.panel;
    const bool in_bytes = panel.width == 4;
    float halves[4 * 32];
    if (view.halves) halves_of(tile, halves);
    Meeting at = {tile, nullptr, nullptr, {}, view.halves ? halves : nullptr, nullptr, ahead, 0};
    for (int64_t piece = 0; piece < 4; piece++)
        at.own[piece] = scales + 32 * view.groups[4 * run + piece];
    for (int64_t part = 0; part < panel.parts; part++) {
        const int64_t first = panel.first[part], end = panel.first[part + 1];
        at.bytes = panel.bytes + (run * several + first) * PanelView::WORDS * panel.width;
        at.shared = panel.scales + (run * several + first) * 4;
        at.sums = sums + 32 * first;
        at.ahead = ahead + part * lines * 8 * 64;
        at.ahead_lines = part * lines < width ? lines : 0;
        add_part(at, in_bytes, pieces, end - first, panel.near[run * panel.parts + part]);
    }
}

// Adds the products of rows of codes with all activations, times their factor, to y [activations,
// apart]; groups and steps part where 32 columns end.
template <int PLANES>
void code_tiles(const CodeRows &rows, int64_t count, const PlaneView &view, int64_t several,
                float *y, int64_t apart) {
    constexpr int64_t RUN = PanelView::RUN, WIDTH = Held<PLANES>::WIDTH;
    constexpr int64_t BLOCK = 512 / WIDTH, COLUMNS = std::max(RUN, BLOCK);  // of a tile
    alignas(64) uint8_t tile[COLUMNS / 4 * TILE_WORD];
    const int64_t runs = view.panel->runs, parts = view.panel->parts, size = view.group_size;
    const int64_t pieces = rows.groups == 1 || size % 128 == 0 ? 4 : size % 64 == 0 ? 2 : 1;
    const int64_t lines = (WIDTH + parts - 1) / parts;
    std::vector<float> scales(32 * rows.groups), sums;
    for (int64_t row = 0; row < count; row += TILE_OF_CODES) {
        const int64_t here = std::min(TILE_OF_CODES, count - row);
        turn_rows(rows.scales + row * rows.groups, here, rows.groups, scales.data());
        sums.assign(32 * several, 0);
        const int64_t bytes = rows.bytes[Held<PLANES>::WIDEST];
        const uint8_t *line = rows.lines[Held<PLANES>::WIDEST] + row * bytes;
        const uint8_t *next = rows.lines[Held<PLANES>::WIDEST] + (row + TILE_OF_CODES) * bytes;
        for (int64_t run = 0; run < runs; run += COLUMNS / RUN) {
            for (int64_t start = 0; start < COLUMNS; start += BLOCK)
                unpack_tile<PLANES>(rows, row, here, (run * RUN + start) / BLOCK,
                                    tile + start / 4 * TILE_WORD);
            ask_for(line + (run * RUN + COLUMNS) / BLOCK * 64, bytes, here);
            for (int64_t more = 0; more < std::min(COLUMNS / RUN, runs - run); more++)
                add_runs(tile + more * PanelView::WORDS * TILE_WORD, run + more, view, several,
                         scales.data(), pieces, next + (run + more) * WIDTH * 8 * 64, WIDTH,
                         lines, sums.data());
        }
        add_sums(sums.data(), here, several, rows.factor, y + row, apart);
    }
}
