// zoom_blur on a GPU: pictures, each the mean of itself and of enlarged copies, in the fixed point of csrc/
// zoom_blur.inl, its very bytes. A thread makes one pixel.
#include "cuda.cuh"

#include <algorithm>
#include <array>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int threads = 256, zoom_bits = 14, zoom_dropped = 7, zoom_down_dropped = 9;

// Where an output of a copy's line lies: behind pixel `first`, `next` of 2¹⁴ parts of the way to the next one; −1: in
// no copy.
struct ZoomPlace {
  int first, next;
};

struct ZoomBlur {
  const std::uint8_t *input;  // [n][h][w][c]
  std::uint8_t *output;
  std::int64_t n;
  int h, w, copies, own, rounding;
  float share;
  const ZoomPlace *down, *across;  // [copies][h], [copies][w]
};

template <int C> __global__ void __launch_bounds__(threads) zoom_blur_pixels(const ZoomBlur p) {
  in_turn();
  const std::int64_t pixels = std::int64_t{p.h} * p.w, step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t task = blockIdx.x * std::int64_t{threads} + threadIdx.x; task < p.n * pixels; task += step) {
    const int y = static_cast<int>(task % pixels / p.w), x = static_cast<int>(task % pixels % p.w);
    const std::uint8_t *picture = p.input + task / pixels * pixels * C;
    int sum[C];
#pragma unroll
    for (int channel = 0; channel < C; ++channel) sum[channel] = p.input[task * C + channel] * p.own + p.rounding;
    for (int copy = 0; copy < p.copies; ++copy) {
      const ZoomPlace down = p.down[std::int64_t{copy} * p.h + y], across = p.across[std::int64_t{copy} * p.w + x];
      if (down.next < 0 || across.next < 0) continue;
      const int lower = min(down.first + 1, p.h - 1), right = min(across.first + 1, p.w - 1);
      const auto stretched = [&](int row, int channel) {
        const std::uint8_t *from = picture + std::int64_t{row} * p.w * C + channel;
        const int two = from[across.first * C] * ((1 << zoom_bits) - across.next) + from[right * C] * across.next;
        return two >> zoom_dropped;
      };
#pragma unroll
      for (int channel = 0; channel < C; ++channel) {
        const int two =
            stretched(down.first, channel) * ((1 << zoom_bits) - down.next) + stretched(lower, channel) * down.next;
        sum[channel] += two >> zoom_down_dropped;
      }
    }
#pragma unroll
    for (int channel = 0; channel < C; ++channel) {
      const float mean = __fadd_rn(__fmul_rn(static_cast<float>(sum[channel]), p.share), 0x1p-10f);
      p.output[task * C + channel] = static_cast<std::uint8_t>(min(static_cast<int>(mean), 255));
    }
  }
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(zoom_blur, bind);

// shape: n, h, w, c. down, across: int32 [copies][h or w][2], first and next of each place, on the device; own: what
// the picture itself weighs, of copies that weigh 2¹² each.
[[maybe_unused]] static void zoom_blur(std::uintptr_t input, std::uintptr_t output,
                                       const std::array<std::int64_t, 4> &shape, std::uintptr_t down,
                                       std::uintptr_t across, int copies, int own, int rounding, float share,
                                       std::uintptr_t stream) {
  const auto [n, h, w, c] = shape;
  if (c != 1 && c != 3) throw std::invalid_argument("zoom_blur: pictures have 1 or 3 channels");
  if (n < 0 || h < 1 || w < 1 || std::max(h, w) > 1 << 28)
    throw std::invalid_argument("zoom_blur: there must be pixels, 2^28 in a line at most");
  if (copies < 0 || copies > 1000) throw std::invalid_argument("zoom_blur: at most 1,000 copies");
  if (n == 0) return;
  if (!input || !output || (copies && !(down && across)))
    throw std::invalid_argument("zoom_blur was given a tensor without memory");
  zoom_blur_kernel.count();
  const ZoomBlur p{pointer<const std::uint8_t>(input),
                   pointer<std::uint8_t>(output),
                   n,
                   static_cast<int>(h),
                   static_cast<int>(w),
                   copies,
                   own,
                   rounding,
                   share,
                   pointer<const ZoomPlace>(down),
                   pointer<const ZoomPlace>(across)};
  const std::int64_t tasks = n * h * w;
  const auto blocks = std::min<std::int64_t>((tasks + threads - 1) / threads, 32 * multiprocessors());
  const Grid grid{dim3(static_cast<unsigned>(blocks)), dim3(threads), 0, stream_of(stream)};
  launch("zoom_blur", c == 1 ? zoom_blur_pixels<1> : zoom_blur_pixels<3>, grid, p);
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("zoom_blur", &zoom_blur); }
#endif

}  // namespace hw4fast
