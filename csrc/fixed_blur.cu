// fixed_blur on a GPU: gaussian_blur of bytes in the CPU's fixed point (csrc/gaussian_blur.inl), its very bytes.
//
// Two passes of one shape: down, from the picture to 16-bit numbers whose rows and columns are exchanged; and across,
// which is down again, back to the picture. A thread has 16 neighbouring outputs of a line, and its neighbours have the
// lines beside it: what was read meets 16 weights. Sums of integers have no order.
#include "border.cuh"

#include <algorithm>
#include <array>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int each = 16, threads = 128, largest = 999;

// `lines` lines of `length` numbers, side by side. Down: number i of line k is at input[i · lines + k] and its result
// at output[k · length + i]; across: of each channel at input[(i · channels + channel) · lines + k], its result at
// output[(k · length + i) · channels + channel].
template <class S, class O> struct Pass {
  const S *input;
  O *output;
  std::int64_t image;  // numbers of a picture
  int lines, length, size, channels;
  const int *weights, *shifts;        // [n or 1][size], [n or 1]
  int weights_stride, shifts_stride;  // 0 where all pictures have the same
  Border border;
  bool nearest;
};

__device__ inline int rounded(int sum, int shift, bool nearest) {
  return (nearest ? sum + ((1 << (shift - 1)) - 1) + (sum >> shift & 1) : sum) >> shift;
}

// DOWN: lines are a picture's columns and channels; else its rows, and blockIdx.z is the channel.
template <bool DOWN, class S, class O> __global__ void __launch_bounds__(threads) fixed_blur_pass(const Pass<S, O> p) {
  in_turn();
  __shared__ int weights[largest + each];
  const std::int64_t picture = blockIdx.y;
  for (int i = threadIdx.x; i < p.size; i += threads) weights[i] = p.weights[picture * p.weights_stride + i];
  __syncthreads();
  const int shift = p.shifts[picture * p.shifts_stride], parts = (p.length + each - 1) / each;
  const int blocks_beside = (p.lines + threads - 1) / threads;
  const int line = static_cast<int>(blockIdx.x) % blocks_beside * threads + static_cast<int>(threadIdx.x);
  const int begin = static_cast<int>(blockIdx.x) / blocks_beside * each;
  if (line >= p.lines || begin >= parts * each) return;
  const int channel = static_cast<int>(blockIdx.z), first = begin - p.size / 2;
  const S *from = p.input + picture * p.image + line;
  const auto at = [&](int i) -> int {
    const std::int64_t where = place(p.border, i, p.length);
    return from[(DOWN ? where : where * p.channels + channel) * p.lines];
  };
  int near[each], sums[each] = {};
#pragma unroll
  for (int j = 0; j < each; ++j) near[j] = at(first + j);
  const auto tap = [&](int t, int k) {
    const int weight = weights[t + k];
#pragma unroll
    for (int j = 0; j < each; ++j) sums[j] += weight * near[(j + k) % each];
    near[k] = at(first + t + k + each);  // the oldest has met its last weight
  };
  int t = 0;
  for (; t + each <= p.size; t += each) {
#pragma unroll
    for (int k = 0; k < each; ++k) tap(t, k);
  }
#pragma unroll
  for (int k = 0; k < each - 1; ++k) {
    if (t + k >= p.size) break;
    tap(t, k);
  }
  O *to = p.output + picture * p.image;
#pragma unroll
  for (int j = 0; j < each; ++j) {
    if (begin + j >= p.length) break;
    const std::int64_t i = begin + j;
    const auto value = static_cast<O>(rounded(sums[j], shift, p.nearest));
    if constexpr (DOWN)
      to[line * std::int64_t{p.length} + i] = value;
    else
      to[(line * std::int64_t{p.length} + i) * p.channels + channel] = value;
  }
}

template <bool DOWN, class S, class O>
void run(const Pass<S, O> &p, std::int64_t n, int channels, cudaStream_t stream) {
  const std::int64_t blocks = std::int64_t{(p.lines + threads - 1) / threads} * ((p.length + each - 1) / each);
  if (blocks > INT32_MAX) throw std::invalid_argument("fixed_blur: the pictures are too large");
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(n), static_cast<unsigned>(channels));
  launch("fixed_blur", fixed_blur_pass<DOWN, S, O>, Grid{grid, dim3(threads), 0, stream}, p);
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(fixed_blur, bind);

// shape: n, h, w, c, contiguous; middle: scratch of n · h · w · c 16-bit numbers; weights: int32 [1 or n][size], the
// same down and across; shifts: int32 [2][1 or n], the bits rounded away down and across. All on the device.
[[maybe_unused]] static void fixed_blur(std::uintptr_t input, std::uintptr_t output, std::uintptr_t middle,
                                        const std::array<std::int64_t, 4> &shape, std::uintptr_t weights, int size,
                                        std::uintptr_t shifts, bool for_each, int border, bool nearest,
                                        std::uintptr_t stream) {
  const auto [n, h, w, c] = shape;
  for (const std::int64_t side : shape)
    if (side < 0 || side > INT32_MAX) throw std::invalid_argument("fixed_blur: a side is out of range");
  if (n > 65535 || c > 65535 || w * c > INT32_MAX)
    throw std::invalid_argument("fixed_blur: too many pictures or channels at once");
  if (size < 1 || size % 2 == 0 || size > largest)
    throw std::invalid_argument("fixed_blur: kernel sizes are odd, 1 … 999");
  if (border < 0 || border > 2) throw std::invalid_argument("fixed_blur: border must be 0, 1 or 2");
  if (n == 0 || h == 0 || w == 0 || c == 0) return;
  if (!input || !output || !middle || !weights || !shifts)
    throw std::invalid_argument("fixed_blur was given a tensor without memory");
  fixed_blur_kernel.count();
  const int channels = static_cast<int>(c), per_picture = for_each ? 1 : 0;
  const std::int64_t image = h * w * c;
  const auto edges = static_cast<Border>(border);
  const Pass<std::uint8_t, std::uint16_t> down{pointer<std::uint8_t>(input),
                                               pointer<std::uint16_t>(middle),
                                               image,
                                               static_cast<int>(w * c),
                                               static_cast<int>(h),
                                               size,
                                               channels,
                                               pointer<int>(weights),
                                               pointer<int>(shifts),
                                               per_picture * size,
                                               per_picture,
                                               edges,
                                               true};
  run<true>(down, n, 1, stream_of(stream));
  const Pass<std::uint16_t, std::uint8_t> across{pointer<std::uint16_t>(middle),
                                                 pointer<std::uint8_t>(output),
                                                 image,
                                                 static_cast<int>(h),
                                                 static_cast<int>(w),
                                                 size,
                                                 channels,
                                                 pointer<int>(weights),
                                                 pointer<int>(shifts) + (for_each ? n : 1),
                                                 per_picture * size,
                                                 per_picture,
                                                 edges,
                                                 nearest};
  run<false>(across, n, channels, stream_of(stream));
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("fixed_blur", &fixed_blur); }
#endif

}  // namespace hw4fast
