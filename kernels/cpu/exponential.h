// Powers of e, several at a time, to two units in the last place; below -87 they are 0.
#pragma once

#include <cstdint>
#include <cstring>

typedef float EightNumbers __attribute__((vector_size(32)));
typedef float SixteenNumbers __attribute__((vector_size(64)));

inline __attribute__((always_inline)) EightNumbers eight_numbers(const float *from) {
    EightNumbers found;
    std::memcpy(&found, from, 32);
    return found;
}

// 2^n times a polynomial (Cephes' expf) of what is left, at most half of log(2) away from 0.
template <typename Numbers>
inline __attribute__((always_inline)) Numbers exponential(Numbers x) {
    typedef int32_t Whole __attribute__((vector_size(sizeof(Numbers))));
    const Numbers shift = Numbers{} + 12582912.0f;  // rounds to whole numbers
    x = x > 88.0f ? Numbers{} + 88.0f : x;
    const Whole kept = ~(x < -87.0f);  // what is no number stays none
    x = kept ? x : Numbers{};
    const Numbers turns = (x * 1.44269504f + shift) - shift;
    const Numbers rest = (x - turns * 0.693359375f) + turns * 2.12194440e-4f;
    Numbers sum = Numbers{} + 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const Whole power = (__builtin_convertvector(turns, Whole) + 127) << 23;
    return (Numbers)((Whole)(sum * (Numbers)power) & kept);
}
