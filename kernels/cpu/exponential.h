// Powers of e, eight at a time, to two units in the last place; below -87 they are 0.
#pragma once

#include <cstdint>
#include <cstring>

typedef float EightNumbers __attribute__((vector_size(32)));

inline __attribute__((always_inline)) EightNumbers eight_numbers(const float *from) {
    EightNumbers found;
    std::memcpy(&found, from, 32);
    return found;
}

// 2^n times a polynomial (Cephes' expf) of what is left, at most half of log(2) away from 0.
inline __attribute__((always_inline)) EightNumbers exponential(EightNumbers x) {
    typedef int32_t EightWhole __attribute__((vector_size(32)));
    const EightNumbers shift = EightNumbers{} + 12582912.0f;  // rounds to whole numbers
    x = x > 88.0f ? EightNumbers{} + 88.0f : x;
    const EightWhole kept = ~(x < -87.0f);  // what is no number stays none
    x = kept ? x : EightNumbers{};
    const EightNumbers turns = (x * 1.44269504f + shift) - shift;
    const EightNumbers rest = (x - turns * 0.693359375f) + turns * 2.12194440e-4f;
    EightNumbers sum = EightNumbers{} + 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const EightWhole power = (__builtin_convertvector(turns, EightWhole) + 127) << 23;
    return (EightNumbers)((EightWhole)(sum * (EightNumbers)power) & kept);
}
