// resize on a GPU: both passes in one kernel, to Pillow's very bytes, normalised on the way out.
//
// A block makes a tile of one picture's outputs. The pass that comes first reads the picture and leaves bytes in shared
// memory, just those that the tile's second pass looks at. Weights have 22 bits (csrc/resize.cpp makes them), sums are
// exact and each pass rounds to bytes, so that the tiles don't show. Tiles are as large as shared memory and a busy GPU
// let them be: what lies around a tile is worked out by its neighbours, too.
#include "cuda.cuh"

#include <algorithm>
#include <array>
#include <vector>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {
namespace {

constexpr int threads = 256, widest = 32, highest = 32, resize_bits = 22, resize_half = 1 << (resize_bits - 1);
constexpr int easy = 24 << 10;  // bytes of shared memory with which a multiprocessor holds as many blocks as it can

// Output i of a line is the sum of inputs first[i] … first[i] + count[i] − 1, times weights[k · size + i].
struct Taps {
  const int *first, *count, *weights;
  int size;
  Taps(const int *table, int outputs)
      : first(table), count(table + outputs), weights(table + 2 * outputs), size(outputs) {}
};

template <class O> struct Resize {
  const std::uint8_t *input;  // rows of pixels with their channels
  O *output;                  // bytes: [n][height][width][c]; else [n][c][height][width]
  std::int64_t image, row;    // bytes from picture to picture and from row to row
  Taps across, down;
  bool down_first;
  int tile_width, tile_height, tiles_across, tiles_down, pitch;  // pitch: bytes of a row in shared memory
  float mean[3], std[3];
};

__device__ inline std::uint8_t rounded(int sum) {
  return static_cast<std::uint8_t>(min(max(sum >> resize_bits, 0), 255));
}

template <int C, class O>
__device__ inline void put(const Resize<O> &p, std::int64_t image, int y, int x, int channel, std::uint8_t byte) {
  const std::int64_t height = p.down.size, width = p.across.size;
  if constexpr (std::is_same_v<O, std::uint8_t>)
    p.output[((image * height + y) * width + x) * C + channel] = byte;
  else
    p.output[((image * C + channel) * height + y) * width + x] =
        narrow<O>((static_cast<float>(byte) / 255.0f - p.mean[channel]) / p.std[channel]);
}

// A pixel's channels: Σ_k weights[k · size] · from[k · step + channel].
template <int C, class Put> __device__ inline void pixel(const std::uint8_t *from, std::int64_t step,
                                                         const int *weights, int size, int count, Put put) {
  int sums[C];
#pragma unroll
  for (int channel = 0; channel < C; ++channel) sums[channel] = resize_half;
  for (int k = 0; k < count; ++k) {
    const int weight = weights[std::int64_t{k} * size];
#pragma unroll
    for (int channel = 0; channel < C; ++channel) sums[channel] += weight * from[k * step + channel];
  }
#pragma unroll
  for (int channel = 0; channel < C; ++channel) put(channel, rounded(sums[channel]));
}

template <int C, class O> __global__ void __launch_bounds__(threads) resize_tile(const Resize<O> p) {
  in_turn();
  HW4FAST_SHARED(middle);
  const int x0 = static_cast<int>(blockIdx.x % p.tiles_across) * p.tile_width;
  const int y0 = static_cast<int>(blockIdx.x / p.tiles_across % p.tiles_down) * p.tile_height;
  const std::int64_t image = blockIdx.x / p.tiles_across / p.tiles_down;
  const int wide = min(p.tile_width, p.across.size - x0), high = min(p.tile_height, p.down.size - y0);
  const int left = p.across.first[x0], top = p.down.first[y0];
  const std::uint8_t *from = p.input + image * p.image + top * p.row + std::int64_t{left} * C;
  if (p.down_first) {
    const int seen = (p.across.first[x0 + wide - 1] + p.across.count[x0 + wide - 1] - left) * C;
    for (int task = threadIdx.x; task < high * seen; task += threads) {
      const int x = task % seen, y = task / seen, at = y0 + y;
      pixel<1>(from + (p.down.first[at] - top) * p.row + x, p.row, p.down.weights + at, p.down.size, p.down.count[at],
               [&](int, std::uint8_t byte) { middle[y * p.pitch + x] = byte; });
    }
  } else {
    const int seen = p.down.first[y0 + high - 1] + p.down.count[y0 + high - 1] - top;
    for (int task = threadIdx.x; task < seen * wide; task += threads) {
      const int x = task % wide, y = task / wide, at = x0 + x;
      pixel<C>(from + y * p.row + (p.across.first[at] - left) * C, C, p.across.weights + at, p.across.size,
               p.across.count[at],
               [&](int channel, std::uint8_t byte) { middle[y * p.pitch + x * C + channel] = byte; });
    }
  }
  __syncthreads();
  for (int task = threadIdx.x; task < high * wide; task += threads) {
    const int x = task % wide, y = task / wide;
    const Taps &taps = p.down_first ? p.across : p.down;
    const int at = p.down_first ? x0 + x : y0 + y;
    const unsigned char *near = p.down_first ? middle + y * p.pitch + (taps.first[at] - left) * C
                                             : middle + (taps.first[at] - top) * p.pitch + x * C;
    pixel<C>(near, p.down_first ? C : p.pitch, taps.weights + at, taps.size, taps.count[at],
             [&](int channel, std::uint8_t byte) { put<C>(p, image, y0 + y, x0 + x, channel, byte); });
  }
}

// The inputs that the tile sees which sees most, of tiles of so many outputs. table: on the host.
int most_seen(const int *table, int outputs, int tile) {
  const int *first = table, *count = table + outputs;
  int most = 0;
  for (int begin = 0; begin < outputs; begin += tile) {
    const int last = std::min(begin + tile, outputs) - 1;
    most = std::max(most, first[last] + count[last] - first[begin]);
  }
  return most;
}

// Fills in the tile; its bytes of shared memory.
template <class O> std::size_t choose_tile(Resize<O> &p, std::int64_t n, int c, const int *across, const int *down) {
  const auto try_tile = [&](int width, int height) {
    p.tile_width = std::min(width, p.across.size), p.tile_height = std::min(height, p.down.size);
    p.tiles_across = (p.across.size + p.tile_width - 1) / p.tile_width;
    p.tiles_down = (p.down.size + p.tile_height - 1) / p.tile_height;
    const int seen =
        p.down_first ? most_seen(across, p.across.size, p.tile_width) : most_seen(down, p.down.size, p.tile_height);
    p.pitch = (p.down_first ? seen : p.tile_width) * c;
    return static_cast<std::size_t>(p.pitch) * (p.down_first ? p.tile_height : seen);
  };
  const int most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const std::int64_t busy = 2 * multiprocessors();
  for (const int limit : {easy, most})
    for (int width = widest; width >= 1; width /= limit == most ? 2 : widest + 1)
      for (int height = highest; height >= 1; height /= 2) {
        const std::size_t bytes = try_tile(width, height);
        const bool enough = height <= 8 || n * p.tiles_across * p.tiles_down >= busy;
        if (enough && bytes <= static_cast<std::size_t>(limit)) return bytes;
      }
  throw std::invalid_argument("resize: a side is too long for a GPU's shared memory; resize it on the CPU");
}

}  // namespace

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &);
#endif
HW4FAST_CUDA_KERNEL(resize, bind);

template <class O>
void run(Resize<O> p, std::int64_t n, int c, const int *across, const int *down, cudaStream_t stream) {
  const std::size_t shared = choose_tile(p, n, c, across, down);
  const std::int64_t blocks = n * p.tiles_across * p.tiles_down;
  if (blocks > INT32_MAX) throw std::invalid_argument("resize: too many pictures for a GPU at once");
  const Grid grid{dim3(static_cast<unsigned>(blocks)), dim3(threads), shared, stream};
  launch("resize", c == 1 ? resize_tile<1, O> : resize_tile<3, O>, grid, p);
}

// n pictures of c channels; tables: of `outputs` down and across, int32 first, count and weights on the device, and the
// same on the host. dtype: of the output; mean and std: of all but uint8.
[[maybe_unused]] static void resize(int dtype, std::uintptr_t input, std::int64_t image, std::int64_t row,
                                    std::uintptr_t output, std::int64_t n, int c, const std::array<int, 2> &outputs,
                                    const std::array<std::uintptr_t, 2> &tables,
                                    const std::array<std::uintptr_t, 2> &tables_here, bool down_first,
                                    const std::vector<float> &mean, const std::vector<float> &std,
                                    std::uintptr_t stream) {
  if (c != 1 && c != 3) throw std::invalid_argument("resize: pictures have 1 or 3 channels");
  if (n < 0 || outputs[0] < 1 || outputs[1] < 1) throw std::invalid_argument("resize: there must be pixels");
  if (n == 0) return;
  for (const std::uintptr_t address : {input, output, tables[0], tables[1], tables_here[0], tables_here[1]})
    if (!address) throw std::invalid_argument("resize was given a tensor without memory");
  const auto format = static_cast<Dtype>(dtype);
  const auto channels = static_cast<std::size_t>(c);
  if (format != Dtype::uint8 && (mean.size() != channels || std.size() != channels))
    throw std::invalid_argument("resize: mean and std must have a value per channel");
  resize_kernel.count();
  const auto typed = [&](auto zero) {
    using O = decltype(zero);
    Resize<O> p{pointer<std::uint8_t>(input),
                pointer<O>(output),
                image,
                row,
                Taps(pointer<int>(tables[1]), outputs[1]),
                Taps(pointer<int>(tables[0]), outputs[0]),
                down_first,
                0,
                0,
                0,
                0,
                0,
                {},
                {}};
    std::copy(mean.begin(), mean.end(), p.mean);
    std::copy(std.begin(), std.end(), p.std);
    run(p, n, c, pointer<int>(tables_here[1]), pointer<int>(tables_here[0]), stream_of(stream));
  };
  with_dtype<std::uint8_t, float, __half, __nv_bfloat16>("resize", dtype, typed);
}

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { m.def("resize", &resize); }
#endif

}  // namespace hw4fast
