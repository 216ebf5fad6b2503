// Sums of groups times what they are worth, in one order however many activations there are; a part
// of loops.inl.

// Rows [count, FEW] with one activation.
template <int FEW>
void dots_of_few(const float *rows, int64_t count, const float *x, float *y) {
    for (int64_t row = 0; row < count; row++) {
        float sum = 0;  // of two products alone a compiler may round either first
        for (int k = 0; k < FEW; k++) sum += rows[row * FEW + k] * x[k];
        y[row] = sum;
    }
}

#ifdef HAS_AVX512
// Rows [groups, 32], turned, with some activations: each sum in the order of its groups where they
// are few, as `dots_of_few` has it, else in that of `some_dots`.
template <int LANES, int MANY>
void turned_dots(const float *turned, int64_t count, int64_t groups, const float *x, float *y,
                 int64_t apart) {
    for (int64_t half = 0; 16 * half < count; half++) {
        __m512 sums[MANY][LANES];
        for (auto &several : sums)
            for (auto &sum : several) sum = _mm512_setzero_ps();
        const auto add = [&](int64_t group, int lane) __attribute__((always_inline)) {
            const __m512 of = _mm512_loadu_ps(turned + 32 * group + 16 * half);
            for (int one = 0; one < MANY; one++)
                sums[one][lane] = _mm512_fmadd_ps(of, _mm512_set1_ps(x[one * groups + group]),
                                                  sums[one][lane]);
        };
        int64_t group = 0;
        for (; group + LANES <= groups; group += LANES)
#pragma GCC unroll 8
            for (int lane = 0; lane < LANES; lane++) add(group + lane, lane);
#pragma GCC unroll 8
        for (int lane = 0; lane < LANES; lane++)
            if (group + lane < groups) add(group + lane, lane);
        const int64_t left = std::min<int64_t>(16, count - 16 * half);
        for (int one = 0; one < MANY; one++) {
            for (int step = 1; step < LANES; step *= 2)
#pragma GCC unroll 4
                for (int lane = 0; lane < LANES; lane += 2 * step)
                    sums[one][lane] = _mm512_add_ps(sums[one][lane], sums[one][lane + step]);
            _mm512_mask_storeu_ps(y + one * apart + 16 * half,
                                  static_cast<__mmask16>((1u << left) - 1), sums[one][0]);
        }
    }
}

template <int LANES>
void all_turned_dots(const float *turned, int64_t count, int64_t groups, const float *x,
                     int64_t several, float *y, int64_t apart) {
    constexpr int MANY = LANES == 1 ? 8 : 2;
    int64_t one = 0;
    for (; one + MANY <= several; one += MANY)
        turned_dots<LANES, MANY>(turned, count, groups, x + one * groups, y + one * apart, apart);
    for (; one < several; one++)
        turned_dots<LANES, 1>(turned, count, groups, x + one * groups, y + one * apart, apart);
}
#endif

constexpr int64_t FEW_GROUPS = 4;

// Products y [several, apart] of rows [count, groups] with activations [several, groups]; each sum
// in one order, whatever stands beside. Rows of one to four numbers are for a loop over rows,
// others for one over numbers.
void group_dots(const float *rows, int64_t count, int64_t groups, const float *x, int64_t several,
                float *y, int64_t apart) {
    typedef void (*Few)(const float *, int64_t, const float *, float *);
    static const Few few[] = {dots_of_few<1>, dots_of_few<2>, dots_of_few<3>, dots_of_few<4>};
#ifdef HAS_AVX512
    if (several > 3) {
        const auto run = groups <= FEW_GROUPS ? all_turned_dots<1> : all_turned_dots<8>;
        thread_local std::vector<float> turned;  // keeps its room
        turned.resize(32 * groups);
        for (int64_t row = 0; row < count; row += 32) {
            const int64_t here = std::min<int64_t>(32, count - row);
            turn_rows(rows + row * groups, here, groups, turned.data());
            run(turned.data(), here, groups, x, several, y + row, apart);
        }
        return;
    }
#endif
    if (groups <= FEW_GROUPS)
        for (int64_t one = 0; one < several; one++)
            few[groups - 1](rows, count, x + one * groups, y + one * apart);
    else
        dots<float>(rows, count, x, several, groups, y, apart);
}
