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
// Rows [groups, 32], turned, with some activations: sums of every STEP-th group from two that follow
// each other, added up; of a step of one, of all groups in their order.
template <int STEP, int MANY>
inline __attribute__((always_inline)) void turned_sums(const float *turned, int64_t first,
                                                       int64_t groups, const float *x,
                                                       __m512 (&found)[MANY][2]) {
    __m512 next[MANY][2];
    for (int one = 0; one < MANY; one++)
        for (int half = 0; half < 2; half++)
            found[one][half] = next[one][half] = _mm512_setzero_ps();
    const auto add = [&](int64_t group, __m512 (&to)[MANY][2]) __attribute__((always_inline)) {
        const __m512 of[2] = {_mm512_loadu_ps(turned + 32 * group),
                              _mm512_loadu_ps(turned + 32 * group + 16)};
        for (int one = 0; one < MANY; one++)
            for (int half = 0; half < 2; half++)
                to[one][half] = _mm512_fmadd_ps(of[half], _mm512_set1_ps(x[one * groups + group]),
                                                to[one][half]);
    };
    for (int64_t group = first; group < groups; group += STEP) {
        add(group, found);
        if (STEP > 1 && group + 1 < groups) add(group + 1, next);
    }
    for (int one = 0; one < MANY; one++)
        for (int half = 0; half < 2 && STEP > 1; half++)
            found[one][half] = _mm512_add_ps(found[one][half], next[one][half]);
}

// Each sum in the order of its groups where they are few, as `dots_of_few` has it, else in that of
// `some_dots`.
template <bool FEW, int MANY>
void turned_dots(const float *turned, int64_t count, int64_t groups, const float *x, float *y,
                 int64_t apart) {
    __m512 sums[4][MANY][2];
    turned_sums<FEW ? 1 : 8, MANY>(turned, 0, groups, x, sums[0]);
    for (int pair = 1; pair < 4 && !FEW; pair++)
        turned_sums<8, MANY>(turned, 2 * pair, groups, x, sums[pair]);
    for (int one = 0; one < MANY; one++)
        for (int64_t half = 0; 16 * half < count; half++) {
            __m512 found = sums[0][one][half];
            if (!FEW)
                found = _mm512_add_ps(_mm512_add_ps(found, sums[1][one][half]),
                                      _mm512_add_ps(sums[2][one][half], sums[3][one][half]));
            const int64_t left = std::min<int64_t>(16, count - 16 * half);
            _mm512_mask_storeu_ps(y + one * apart + 16 * half,
                                  static_cast<__mmask16>((1u << left) - 1), found);
        }
}

template <bool FEW>
void all_turned_dots(const float *turned, int64_t count, int64_t groups, const float *x,
                     int64_t several, float *y, int64_t apart) {
    constexpr int MANY = FEW ? 8 : 4;
    int64_t one = 0;
    for (; one + MANY <= several; one += MANY)
        turned_dots<FEW, MANY>(turned, count, groups, x + one * groups, y + one * apart, apart);
    for (; one < several; one++)
        turned_dots<FEW, 1>(turned, count, groups, x + one * groups, y + one * apart, apart);
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
        const auto run = groups <= FEW_GROUPS ? all_turned_dots<true> : all_turned_dots<false>;
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
