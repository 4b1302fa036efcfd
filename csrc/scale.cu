// scale: a loss's gradient times what arrives at the loss: nothing is to be done where that is 1, which the host can't
// know without waiting for the GPU.
#include "cuda.cuh"

#include <algorithm>

namespace hw4fast {
namespace {

// data: [rows, columns], contiguous; factor: [rows] or, where columns_alone, one number for all
template <class S> __global__ void __launch_bounds__(512)
    scale_rows(S *data, const S *factor, std::int64_t rows, std::int64_t columns) {
  in_turn();
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x, n = rows * columns;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n; i += step) {
    if constexpr (std::is_same_v<S, double>)
      data[i] *= factor[i / columns];
    else
      data[i] = narrow<S>(widen(data[i]) * widen(factor[i / columns]));
  }
}

template <class S> __global__ void __launch_bounds__(512) scale_all(S *data, const S *factor, std::int64_t n) {
  in_turn();
  const auto by = widen(*factor);
  if (by == 1) return;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n; i += step) {
    if constexpr (std::is_same_v<S, double>)
      data[i] *= by;
    else
      data[i] = narrow<S>(widen(data[i]) * by);
  }
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(scale, bind);

[[maybe_unused]] static void scale(int dtype, std::uintptr_t data, std::uintptr_t factor, std::int64_t rows,
                                   std::int64_t columns, bool by_row, std::uintptr_t stream) {
  const std::int64_t n = rows * columns;
  if (n == 0) return;
  scale_kernel.count();
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>((n + 511) / 512, 4 * multiprocessors()));
  const Grid grid{dim3(blocks), dim3(512), 0, stream_of(stream)};
  const auto stored_as = [&](auto zero) {
    using S = decltype(zero);
    if (by_row) return launch("scale", scale_rows<S>, grid, pointer<S>(data), pointer<S>(factor), rows, columns);
    launch("scale", scale_all<S>, grid, pointer<S>(data), pointer<S>(factor), n);
  };
  with_dtype<float, double, __nv_bfloat16, __half>("scale", dtype, stored_as);
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("scale", &scale); }
#endif

}  // namespace hw4fast
