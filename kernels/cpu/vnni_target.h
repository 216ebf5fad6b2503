// From here on code is compiled for AVX-512 with VNNI, VBMI and GFNI, until options are popped; after
// all other headers, and without a guard.
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512vbmi2,gfni")
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
