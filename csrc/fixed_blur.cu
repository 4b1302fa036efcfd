// fixed_blur and float_blur on a GPU: gaussian_blur of bytes in the CPU's fixed point (csrc/gaussian_blur.inl), its
// very bytes, and of float32 with the bits of processors that fuse a product and a sum.
//
// Two passes of one shape: down, from the picture to 16-bit numbers (of float32 to float32) whose rows and columns are
// exchanged; and across, which is down again, back to the picture. A thread has 16 neighbouring outputs of a line, and
// its neighbours have the lines beside it: what was read meets 16 weights. Sums of integers have no order; those of
// floats begin at 0 and have that of the taps, and nothing but taps meets a number: 0 · ∞ is no 0.
#include "border.cuh"

#include <algorithm>
#include <array>
#include <initializer_list>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int each = 16, threads = 128, largest = 999;

using Shape = std::array<std::int64_t, 4>;  // n, h, w, c
template <class S> using Sum = std::conditional_t<std::is_same_v<S, float>, float, int>;

template <class W> struct Taps {
  const W *weights;   // [n or 1][size]
  const int *shifts;  // [n or 1], how many bits of a sum are rounded away; none of floats
  int size;
  int weights_stride, shifts_stride;  // 0 where all pictures have the same
  bool nearest;                       // to the nearest, halves to even; else down
};

// `lines` lines of `length` numbers, side by side. Down: number i of line k is at input[i · lines + k] and its result
// at output[k · length + i]; across: of each channel at input[(i · channels + channel) · lines + k], its result at
// output[(k · length + i) · channels + channel].
template <class S, class O> struct Pass {
  const S *input;
  O *output;
  std::int64_t image;  // numbers of a picture
  int lines, length, channels;
  Taps<Sum<S>> taps;
  Border border;
};

__device__ inline int met(int sum, int weight, int number) { return sum + weight * number; }
__device__ inline float met(float sum, float weight, float number) { return __fmaf_rn(weight, number, sum); }

__device__ inline int rounded(int sum, int shift, bool nearest) {
  return (nearest ? sum + ((1 << (shift - 1)) - 1) + (sum >> shift & 1) : sum) >> shift;
}
__device__ inline float rounded(float sum, int, bool) { return sum; }

// DOWN: lines are a picture's columns and channels; else its rows, and blockIdx.z is the channel.
template <bool DOWN, class S, class O> __global__ void __launch_bounds__(threads) blur_pass(const Pass<S, O> p) {
  in_turn();
  __shared__ Sum<S> weights[largest + each];
  const std::int64_t picture = blockIdx.y;
  const int size = p.taps.size;
  for (int i = threadIdx.x; i < size; i += threads) weights[i] = p.taps.weights[picture * p.taps.weights_stride + i];
  __syncthreads();
  const int shift = p.taps.shifts ? p.taps.shifts[picture * p.taps.shifts_stride] : 0;
  const int parts = (p.length + each - 1) / each, blocks_beside = (p.lines + threads - 1) / threads;
  const int line = static_cast<int>(blockIdx.x) % blocks_beside * threads + static_cast<int>(threadIdx.x);
  const int begin = static_cast<int>(blockIdx.x) / blocks_beside * each;
  if (line >= p.lines || begin >= parts * each) return;
  const int channel = static_cast<int>(blockIdx.z), first = begin - size / 2;
  const S *from = p.input + picture * p.image + line;
  const auto at = [&](int i) -> Sum<S> {
    const std::int64_t where = place(p.border, i, p.length);
    return from[(DOWN ? where : where * p.channels + channel) * p.lines];
  };
  Sum<S> near[each], sums[each] = {};
#pragma unroll
  for (int j = 0; j < each; ++j) near[j] = at(first + j);
  const auto tap = [&](int t, int k) {
    const Sum<S> weight = weights[t + k];
#pragma unroll
    for (int j = 0; j < each; ++j) sums[j] = met(sums[j], weight, near[(j + k) % each]);
    near[k] = at(first + t + k + each);  // the oldest has met its last weight
  };
  int t = 0;
  for (; t + each <= size; t += each) {
#pragma unroll
    for (int k = 0; k < each; ++k) tap(t, k);
  }
#pragma unroll
  for (int k = 0; k < each - 1; ++k) {
    if (t + k >= size) break;
    tap(t, k);
  }
  O *to = p.output + picture * p.image;
#pragma unroll
  for (int j = 0; j < each; ++j) {
    if (begin + j >= p.length) break;
    const std::int64_t i = begin + j;
    const auto value = static_cast<O>(rounded(sums[j], shift, p.taps.nearest));
    if constexpr (DOWN)
      to[line * std::int64_t{p.length} + i] = value;
    else
      to[(line * std::int64_t{p.length} + i) * p.channels + channel] = value;
  }
}

template <bool DOWN, class S, class O>
void run(const std::string &name, const Pass<S, O> &p, std::int64_t n, int channels, cudaStream_t stream) {
  const std::int64_t blocks = std::int64_t{(p.lines + threads - 1) / threads} * ((p.length + each - 1) / each);
  if (blocks > INT32_MAX) throw std::invalid_argument(name + ": the pictures are too large");
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(n), static_cast<unsigned>(channels));
  launch(name.c_str(), blur_pass<DOWN, S, O>, Grid{grid, dim3(threads), 0, stream}, p);
}

// S: of the pictures; M: of what lies between, [n][w · c][h].
template <class S, class M> void run_both(const std::string &name, const S *input, M *middle, S *output,
                                          const Shape &shape, const Taps<Sum<S>> &down, const Taps<Sum<S>> &across,
                                          int border, cudaStream_t stream) {
  const auto [n, h, w, c] = shape;
  const int rows = static_cast<int>(h), columns = static_cast<int>(w), channels = static_cast<int>(c);
  const auto edges = static_cast<Border>(border);
  run<true>(name, Pass<S, M>{input, middle, h * w * c, columns * channels, rows, channels, down, edges}, n, 1, stream);
  run<false>(name, Pass<M, S>{middle, output, h * w * c, rows, columns, channels, across, edges}, n, channels, stream);
}

// Raises for what a kernel can't do. Returns whether there is something to do.
bool checked(const std::string &name, const Shape &shape, std::initializer_list<int> sizes, int border,
             std::initializer_list<std::uintptr_t> tensors) {
  const auto [n, h, w, c] = shape;
  for (const std::int64_t side : shape)
    if (side < 0 || side > INT32_MAX) throw std::invalid_argument(name + ": a side is out of range");
  if (n > 65535 || c > 65535 || w * c > INT32_MAX)
    throw std::invalid_argument(name + ": too many pictures or channels at once");
  for (const int size : sizes)
    if (size < 1 || size % 2 == 0 || size > largest)
      throw std::invalid_argument(name + ": kernel sizes are odd, 1 … 999");
  if (border < 0 || border > 2) throw std::invalid_argument(name + ": border must be 0, 1 or 2");
  if (n == 0 || h == 0 || w == 0 || c == 0) return false;
  if (std::count(tensors.begin(), tensors.end(), 0))
    throw std::invalid_argument(name + " was given a tensor without memory");
  return true;
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
static void bind_float(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(fixed_blur, bind);
HW4FAST_CUDA_KERNEL(float_blur, bind_float);

// shape: n, h, w, c, contiguous; middle: scratch of n · h · w · c 16-bit numbers; weights: int32 [1 or n][size], the
// same down and across; shifts: int32 [2][1 or n], the bits rounded away down and across. All on the device.
[[maybe_unused]] static void fixed_blur(std::uintptr_t input, std::uintptr_t output, std::uintptr_t middle,
                                        const Shape &shape, std::uintptr_t weights, int size, std::uintptr_t shifts,
                                        bool for_each, int border, bool nearest, std::uintptr_t stream) {
  if (!checked("fixed_blur", shape, {size}, border, {input, output, middle, weights, shifts})) return;
  fixed_blur_kernel.count();
  const int one = for_each ? 1 : 0;
  const Taps<int> down{pointer<int>(weights), pointer<int>(shifts), size, one * size, one, true};
  const Taps<int> across{down.weights, down.shifts + (for_each ? shape[0] : 1), size, one * size, one, nearest};
  run_both("fixed_blur", pointer<std::uint8_t>(input), pointer<std::uint16_t>(middle), pointer<std::uint8_t>(output),
           shape, down, across, border, stream_of(stream));
}

// float32. shape: n, h, w, c, contiguous; middle: scratch of as many numbers; down, across: weights, `sizes` of them
// (down, across). All on the device.
[[maybe_unused]] static void float_blur(std::uintptr_t input, std::uintptr_t output, std::uintptr_t middle,
                                        const Shape &shape, std::uintptr_t down, std::uintptr_t across,
                                        const std::array<int, 2> &sizes, int border, std::uintptr_t stream) {
  if (!checked("float_blur", shape, {sizes[0], sizes[1]}, border, {input, output, middle, down, across})) return;
  float_blur_kernel.count();
  const auto taps = [&](std::uintptr_t weights, int size) {
    return Taps<float>{pointer<float>(weights), nullptr, size, 0, 0, true};
  };
  run_both("float_blur", pointer<float>(input), pointer<float>(middle), pointer<float>(output), shape,
           taps(down, sizes[0]), taps(across, sizes[1]), border, stream_of(stream));
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("fixed_blur", &fixed_blur); }
static void bind_float(pybind11::module_ &m) { m.def("float_blur", &float_blur); }
#endif

}  // namespace hw4fast
