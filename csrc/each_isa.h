// Compiles one .inl once per instruction set. No include guard: each kernel's .cpp includes it once, after
// every system header (a header that first appears inside a target region would be compiled for it):
//
//   #define HW4FAST_COMMON_INL "conv.inl"       (what several kernels share; may be left out)
//   #define HW4FAST_INL "softmax_xent.inl"
//   #include "each_isa.h"
//   … HW4FAST_VARIANT(isa, function)   →   baseline::function, avx2::function or avx512::function
//
// Only the code between push and pop may hold AVX instructions; the rest of the file is built for the baseline.
#include "bfloat16.h"
#include "isa.h"

#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
#define HW4FAST_X86 1
#endif

namespace hw4fast {

namespace baseline {
#define HW4FAST_VECTOR_BYTES 16
#include "vector.inl"
#ifdef HW4FAST_COMMON_INL
#include HW4FAST_COMMON_INL
#endif
#include HW4FAST_INL
#undef HW4FAST_VECTOR_BYTES
}  // namespace baseline

#ifdef HW4FAST_X86

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#define HW4FAST_VECTOR_BYTES 32
#include "vector.inl"
#ifdef HW4FAST_COMMON_INL
#include HW4FAST_COMMON_INL
#endif
#include HW4FAST_INL
#undef HW4FAST_VECTOR_BYTES
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
namespace avx512 {
#define HW4FAST_VECTOR_BYTES 64
#include "vector.inl"
#ifdef HW4FAST_COMMON_INL
#include HW4FAST_COMMON_INL
#endif
#include HW4FAST_INL
#undef HW4FAST_VECTOR_BYTES
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define HW4FAST_VARIANT(isa, function)                           \
  ((isa) == ::hw4fast::Isa::avx512 ? ::hw4fast::avx512::function \
   : (isa) == ::hw4fast::Isa::avx2 ? ::hw4fast::avx2::function   \
                                   : ::hw4fast::baseline::function)
#else
#define HW4FAST_VARIANT(isa, function) (::hw4fast::baseline::function)
#endif

}  // namespace hw4fast
