// What every CUDA kernel's file shares: the list that cuda_module.cu walks, checked calls, number formats.
//
// The rules of csrc/*.cu: raw pointers and the caller's stream; no allocation, no synchronisation, nothing kept between
// calls, so that a call may be captured in a CUDA graph. int64 where rows times columns can pass 2³¹. Host code throws
// std::invalid_argument (ValueError) or std::runtime_error. What binds to Python stands within #ifndef __CUDA_ARCH__:
// the device's passes need not read pybind11.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#ifndef __CUDA_ARCH__
#include <pybind11/pybind11.h>
#else
namespace pybind11 {
class module_;
}
#endif

namespace hw4fast {

struct CudaKernel {
  CudaKernel(const char *name, void (*bind)(pybind11::module_ &));
  void count() { calls.fetch_add(1, std::memory_order_relaxed); }

  const char *name;
  void (*bind)(pybind11::module_ &);
  std::atomic<std::int64_t> calls{0};
  CudaKernel *next;
};

// The number formats of tensors, as hw4fast/nn/cuda.py numbers them.
enum class Dtype : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3, uint8 = 4 };

// with(a number of that format), if it is one of those KNOWN.
template <class S> constexpr Dtype dtype_of() {
  if (std::is_same_v<S, float>) return Dtype::float32;
  if (std::is_same_v<S, double>) return Dtype::float64;
  if (std::is_same_v<S, __nv_bfloat16>) return Dtype::bfloat16;
  return std::is_same_v<S, __half> ? Dtype::float16 : Dtype::uint8;
}
template <class... Known, class With> void with_dtype(const char *kernel, int dtype, const With &with) {
  const auto if_is = [&](auto number) {
    const bool is = static_cast<Dtype>(dtype) == dtype_of<decltype(number)>();
    if (is) with(number);
    return is;
  };
  if ((if_is(Known{}) || ...)) return;
  constexpr const char *names[] = {"float32", "float64", "bfloat16", "float16", "uint8"};
  const std::string known = ((std::string(" ") + names[static_cast<int>(dtype_of<Known>())]) + ...);
  throw std::invalid_argument(std::string(kernel) + " knows no dtype " + std::to_string(dtype) + ", but" + known);
}

inline std::int64_t up(std::int64_t x, std::int64_t by) { return (x + by - 1) / by; }  // x / by

template <class T> T *pointer(std::uintptr_t address) { return reinterpret_cast<T *>(address); }
inline cudaStream_t stream_of(std::uintptr_t handle) { return reinterpret_cast<cudaStream_t>(handle); }

// Raises RuntimeError that names the kernel and what CUDA says.
inline void check(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": CUDA says " + cudaGetErrorName(error) + " (" +
                           cudaGetErrorString(error) + ")");
}

#ifndef HW4FAST_EMULATED  // tests/emulated/emulator.h has its own, and runs the kernels on the CPU
// A property of the current device; the driver's answer is cached, so that it costs some 50 ns.
inline int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

inline int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }
inline int compute_capability() {  // 75, 80, … 120
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor) + attribute(cudaDevAttrComputeCapabilityMinor);
}

struct Grid {
  dim3 blocks, threads;
  std::size_t shared;  // bytes of dynamic shared memory, HW4FAST_SHARED in the kernel
  cudaStream_t stream;
  unsigned cluster = 1;  // blocks that reach each other's shared memory; from compute capability 9.0 on
};

// A launch's settings; `attributes` must live as long.
inline cudaLaunchConfig_t settings(const char *name, const void *kernel, const Grid &grid,
                                   cudaLaunchAttribute (&attributes)[2]) {
  if (grid.shared > 32 << 10)  // more than 48 KiB must be asked for, and static memory, 16 at most, counts, too
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared)),
          name);
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks, config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared, config.stream = grid.stream;
  config.attrs = attributes;
  if (grid.cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {grid.cluster, 1, 1};
  }
  if (compute_capability() >= 90) {  // it may begin before the kernel before it has ended: see in_turn
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  return config;
}

// The one way to start a kernel. Errors of the launch itself are raised; those within it come with a later call.
template <class... Parameters, class... Arguments>
void launch(const char *name, void (*kernel)(Parameters...), const Grid &grid, Arguments... arguments) {
  cudaLaunchAttribute attributes[2];
  const cudaLaunchConfig_t config = settings(name, reinterpret_cast<const void *>(kernel), grid, attributes);
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name);
}

// Clusters that the GPU can hold at a time: one more would begin when these have ended. A cluster lies within one group
// of multiprocessors, so it is not their number that tells.
template <class... Parameters>
std::int64_t clusters_that_fit(const char *name, void (*kernel)(Parameters...), Grid grid) {
  cudaLaunchAttribute attributes[2];
  grid.blocks = dim3(grid.cluster);
  const cudaLaunchConfig_t config = settings(name, reinterpret_cast<const void *>(kernel), grid, attributes);
  int clusters = 0;
  check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), name);
  if (clusters < 1) throw std::runtime_error(std::string(name) + ": no cluster of blocks fits on this GPU");
  return clusters;
}

// How a kernel begins: what the kernel before it wrote may be read, and what that reads be written, from here on. Every
// kernel comes here, in some thread at least: it would else end before the one before it, and the one after it see too
// little. (softmax_xent_rows reads before it waits, what the kernel before it has waited for.)
__device__ inline void in_turn() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel's blocks may take the places that are free, and wait there or work beside this one. Only for a next
// kernel that gains by it: where few places are free, its blocks would crowd on few multiprocessors.
__device__ inline void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
#define HW4FAST_SHARED(NAME) extern __shared__ __align__(128) unsigned char NAME[]
#endif

// Division by a number that is known to the host only, of 0 … 2³¹ − 1.
struct Divider {
  std::uint32_t by, multiplier, shift;
  __host__ __device__ int quotient(int x) const {
    return static_cast<int>((static_cast<std::uint64_t>(x) * multiplier) >> shift);
  }
};
inline Divider divider(std::int64_t by) {
  std::uint32_t bits = 0;
  while ((std::int64_t{1} << bits) < by) ++bits;
  const std::uint64_t power = std::uint64_t{1} << (31 + bits), d = static_cast<std::uint64_t>(by);
  return {static_cast<std::uint32_t>(by), static_cast<std::uint32_t>((power + d - 1) / d), 31 + bits};
}

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float widen(__half x) { return __half2float(x); }
template <class T> __device__ inline T narrow(float x);
template <> __device__ inline float narrow<float>(float x) { return x; }
template <> __device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ inline __half narrow<__half>(float x) { return __float2half_rn(x); }

}  // namespace hw4fast

// BIND is not there in the device's passes.
#ifndef __CUDA_ARCH__
#define HW4FAST_CUDA_KERNEL(NAME, BIND) static hw4fast::CudaKernel NAME##_kernel(#NAME, BIND)
#else
#define HW4FAST_CUDA_KERNEL(NAME, BIND) static hw4fast::CudaKernel NAME##_kernel(#NAME, nullptr)
#endif
