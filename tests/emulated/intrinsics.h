// What CUDA's language and its library of intrinsics are in the emulator
// (included by emulator.h, whose fibers they exchange by).
#pragma once

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __forceinline__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__ static
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __grid_constant__
#define threadIdx (hw4fast::emulator::state().current->thread)
#define blockIdx (hw4fast::emulator::state().block)
#define blockDim (hw4fast::emulator::state().threads)
#define gridDim (hw4fast::emulator::state().blocks)
#define warpSize 32
#define HW4FAST_SHARED(NAME) unsigned char *NAME = hw4fast::emulator::state().shared.data()

inline void __syncthreads() { hw4fast::emulator::counted_at_barrier(0); }
inline int __syncthreads_count(int vote) { return static_cast<int>(hw4fast::emulator::counted_at_barrier(vote != 0)); }
inline int __syncthreads_or(int vote) { return hw4fast::emulator::counted_at_barrier(vote != 0) > 0; }
inline int __syncthreads_and(int vote) { return hw4fast::emulator::counted_at_barrier(vote == 0) == 0; }
inline void __syncwarp(unsigned mask = ~0u) { hw4fast::emulator::exchange(mask, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}
template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int lane = hw4fast::emulator::lane();
  return hw4fast::emulator::taken(mask, value, (lane & ~(width - 1)) | (from & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32) {
  const int lane = hw4fast::emulator::lane(), from = lane ^ other;
  return hw4fast::emulator::taken(mask, value, from / width == lane / width ? from : lane);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int lane = hw4fast::emulator::lane(), from = lane + static_cast<int>(by);
  return hw4fast::emulator::taken(mask, value, from / width == lane / width ? from : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int lane = hw4fast::emulator::lane(), from = lane - static_cast<int>(by);
  return hw4fast::emulator::taken(mask, value, from >= 0 && from / width == lane / width ? from : lane);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
  unsigned bits = 0;
  const unsigned char *all = reinterpret_cast<const unsigned char *>(hw4fast::emulator::exchange(mask, vote));
  for (int i = 0; i < 32; ++i) {
    int one;
    std::memcpy(&one, all + 16 * i, sizeof one);
    if (mask >> i & 1 && one) bits |= 1u << i;
  }
  return bits;
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }

template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> T __ldcg(const T *p) { return *p; }
template <class T> void __stcs(T *p, T value) { *p = value; }
template <class T> void __stcg(T *p, T value) { *p = value; }
template <class T> T atomicAdd(T *p, T value) {
  const T old = *p;
  *p = old + value;
  return old;
}
inline unsigned atomicInc(unsigned *p, unsigned limit) {
  const unsigned old = *p;
  *p = old >= limit ? 0 : old + 1;
  return old;
}
template <class T> T atomicMax(T *p, T value) {
  const T old = *p;
  *p = std::max(old, value);
  return old;
}
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline unsigned __float2uint_rn(float x) { return static_cast<unsigned>(std::nearbyint(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((std::uint64_t{a} * b) >> 32); }
template <class To, class From> To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From), "bits");
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline float __int_as_float(int x) { return bits_as<float>(x); }
inline std::size_t __cvta_generic_to_shared(const void *p) { return reinterpret_cast<std::size_t>(p); }
using std::max;
using std::min;
