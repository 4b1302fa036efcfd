// To be included behind all system headers and before each_isa.h, by kernels whose floats must be the same on every
// machine: a product and a sum are two roundings, and never one (fused) where the processor happens to have it.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif
