// conv_block for 3×3 and 5×5 filters at stride 1 in plain float arithmetic.
//
// Forward, and the input's gradient: a thread has a 2×2 window of the convolution (what the pool makes one number of)
// for four output channels, that is 16 sums; per input channel it takes the (K + 1)² numbers that the window sees from
// shared memory into registers and each weight for four channels at once: some six multiplications per number read.
// The input's gradient is the same convolution, of the output's gradient with turned filters; what the pool and ReLU
// let through is sorted out as the gradient comes to shared memory. The weight's gradient:
// conv_block_direct_weights.cu.
#include "conv_block.cuh"

#include <algorithm>

namespace hw4fast {
namespace {

constexpr int outs = 4, most_groups = 8;            // output channels of a thread; such groups of a block
constexpr int windows_each = 2, most_windows = 64;  // of a thread, of a tile
constexpr int max_threads = most_windows / windows_each * most_groups;

// A convolution of x, or of an output's gradient to the input's.
template <class S> struct Direct {
  const S *x, *weight, *bias;
  const std::uint8_t *taken;  // the code of the gradient that is x, or null
  S *out;
  std::uint8_t *code;
  std::int64_t x_strides[4];
  int n, c, h, w, o, ph, pw, oh, ow, rows, cols;
  bool relu, pool, turned;  // turned: the weight is [c, o, K, K], and its last is the first
  bool unpooling;           // x is [n, c, h / 2, w / 2], each at the place of 2×2 that `taken` says
  bool by_fours;            // four neighbouring channels of x can be read at once
  int taken_rows, taken_cols;
  int high, wide, down, across;  // windows of a tile; tiles of an image
  int pitch;                     // of a row of the tile's input, see pitch_of
  int groups;                    // of four output channels, in a block
  Divider by_wide, by_area;      // of the tile's input
  Divider by_pooled, by_groups;  // of its pooled columns; of the groups
};

// The tile's input in shared memory, CH channels of [high] rows: even columns, then odd ones, so that neighbouring
// windows read neighbouring numbers.
struct Input {
  float *to;
  int high, half, pitch;
  __device__ float &at(int c, int y, int x) const { return to[(c * high + y) * pitch + (x & 1) * half + (x >> 1)]; }
};

// Channels c0 to c0 + CH of what lies at (top, left) and on; zeros where there is nothing. COUNT: read at once.
template <int CH, int COUNT, class S>
__device__ inline void load_input(const Direct<S> &p, const Input &input, int image, int c0, int top, int left) {
  const S *x = p.x + image * p.x_strides[0];
  constexpr int each = CH / COUNT;
  const int wide = 2 * input.half, area = input.high * wide;
  const bool by_channel = p.x_strides[1] == 1;  // neighbouring threads read neighbouring numbers
  const auto place_of = [&](int i, int &c, int &down, int &across) {
    int pixel = i / each;
    c = i % each * COUNT;
    if (COUNT == 1 && !by_channel) c = p.by_area.quotient(i), pixel = i - c * area;
    down = p.by_wide.quotient(pixel), across = pixel - down * wide;
  };
  const auto fetch = [&](int i) {
    Fetched<COUNT, S> found;
    int c, down, across;
    place_of(i, c, down, across);
    const int row = top + down, col = left + across;
    if (c0 + c >= p.c || row < 0 || row >= p.taken_rows || col < 0 || col >= p.taken_cols) return found;
    const std::int64_t taken = ((std::int64_t{image} * p.taken_rows + row) * p.taken_cols + col) * p.c + c0 + c;
    found.fetch(x + (c0 + c) * p.x_strides[1] + row * p.x_strides[2] + col * p.x_strides[3],
                p.taken ? p.taken + taken : nullptr);
    return found;
  };
  const auto put = [&](int i, const Fetched<COUNT, S> &found) {
    int c, down, across;
    place_of(i, c, down, across);
#pragma unroll
    for (int k = 0; k < COUNT; ++k) input.at(c + k, down, across) = found.value(k, 0);
  };
  in_batches<COUNT == 4 ? 3 : 6>(area * each, fetch, put);
}

// The same of pooled gradients: each goes to one of its four places, zeros to the others.
template <int CH, int COUNT, class S>
__device__ inline void load_pooled(const Direct<S> &p, const Input &input, int image, int c0, int top, int left) {
  const S *x = p.x + image * p.x_strides[0];
  constexpr int each = CH / COUNT;
  const int rows = input.high / 2 + 1, cols = input.half + 1;  // that a tile may touch
  const auto place_of = [&](int i, int &c, int &row, int &col) {
    const int pixel = i / each, down = p.by_pooled.quotient(pixel);
    c = i % each * COUNT, row = (top >> 1) + down, col = (left >> 1) + pixel - down * cols;  // >>: rounds down
  };
  const auto fetch = [&](int i) {
    Fetched<COUNT, S> found;
    int c, row, col;
    place_of(i, c, row, col);
    if (c0 + c >= p.c || row < 0 || row >= p.taken_rows || col < 0 || col >= p.taken_cols) return found;
    const std::int64_t taken = ((std::int64_t{image} * p.taken_rows + row) * p.taken_cols + col) * p.c + c0 + c;
    found.fetch(x + (c0 + c) * p.x_strides[1] + row * p.x_strides[2] + col * p.x_strides[3], p.taken + taken);
    return found;
  };
  const auto put = [&](int i, const Fetched<COUNT, S> &found) {
    int c, row, col;
    place_of(i, c, row, col);
#pragma unroll
    for (int place = 0; place < 4; ++place) {
      const int y = 2 * row + place / 2 - top, x_here = 2 * col + place % 2 - left;
      if (y < 0 || y >= input.high || x_here < 0 || x_here >= 2 * input.half) continue;
#pragma unroll
      for (int k = 0; k < COUNT; ++k) input.at(c + k, y, x_here) = found.value(k, static_cast<unsigned>(place));
    }
  };
  in_batches<COUNT == 4 ? 2 : 6>(rows * cols * each, fetch, put);
}

// Blocks: (image, tile), groups of channels of the output. Threads: pairs of windows, then groups of four channels. CH:
// input channels in shared memory at a time.
template <class S, int K, int CH> __global__ void __launch_bounds__(max_threads, 2)
    conv_direct_forward(const Direct<S> p) {
  in_turn();
  HW4FAST_SHARED(shared);
  const int windows = p.high * p.wide, pairs = (windows + windows_each - 1) / windows_each;
  const int high = 2 * p.high + K - 1, half = p.wide + (K - 1) / 2;  // of the tile's input
  const Input input{reinterpret_cast<float *>(shared), high, half, p.pitch};
  const int weight_pitch = p.groups * outs + 4;    // so that eight taps of four channels are in different banks
  float *weight = input.to + CH * high * p.pitch;  // [CH][K·K][weight_pitch]
  const int tile = blockIdx.x % (p.down * p.across), image = blockIdx.x / (p.down * p.across);
  const int row0 = tile / p.across * p.high, col0 = tile % p.across * p.wide;
  const int o0 = blockIdx.y * p.groups * outs;
  const int group = threadIdx.x / pairs;
  int r[windows_each], q[windows_each];
#pragma unroll
  for (int e = 0; e < windows_each; ++e) {
    const int window = min(static_cast<int>(threadIdx.x) % pairs + e * pairs, windows - 1);
    r[e] = window / p.wide, q[e] = window % p.wide;
  }
  float sums[windows_each][4][outs] = {};
  for (int c0 = 0; c0 < p.c; c0 += CH) {
    const int chunk = min(CH, p.c - c0), top = 2 * row0 - p.ph, left = 2 * col0 - p.pw;
    constexpr int at_once = CH % 4 == 0 ? 4 : 1;
    __syncthreads();
    if (p.unpooling && p.by_fours)
      load_pooled<CH, at_once>(p, input, image, c0, top, left);
    else if (p.unpooling)
      load_pooled<CH, 1>(p, input, image, c0, top, left);
    else if (p.by_fours)
      load_input<CH, at_once>(p, input, image, c0, top, left);
    else
      load_input<CH, 1>(p, input, image, c0, top, left);
    // a warp's lanes: eight taps (and channels) of four output channels
    constexpr int taps = K * K, eights = (CH * taps + 7) / 8;
    const auto place_of = [&](int i, int &at, int &o) {
      const int eight = p.by_groups.quotient(i / 32);
      at = eight * 8 + i / 4 % 8, o = (i / 32 - eight * p.groups) * outs + i % 4;
    };
    const auto fetch = [&](int i) {
      Fetched<1, S> found;
      int at, o;
      place_of(i, at, o);
      if (at >= chunk * taps || o0 + o >= p.o) return found;
      found.fetch(p.turned ? p.weight + ((c0 + at / taps) * std::int64_t{p.o} + o0 + o) * taps + taps - 1 - at % taps
                           : p.weight + ((o0 + o) * std::int64_t{p.c} + c0) * taps + at,
                  nullptr);
      return found;
    };
    const auto put = [&](int i, const Fetched<1, S> &found) {
      int at, o;
      place_of(i, at, o);
      if (at < chunk * taps) weight[at * weight_pitch + o] = found.value(0, 0);
    };
    in_batches<8>(32 * eights * p.groups, fetch, put);
    __syncthreads();
    if (group >= p.groups) continue;
    for (int c = 0; c < chunk; ++c) {
      float seen[windows_each][K + 1][K + 1];
#pragma unroll
      for (int e = 0; e < windows_each; ++e) {
        const float *from = &input.at(c, 2 * r[e], 0) + q[e];
#pragma unroll
        for (int y = 0; y <= K; ++y)
#pragma unroll
          for (int x = 0; x <= K; ++x) seen[e][y][x] = from[y * p.pitch + x % 2 * half + x / 2];
      }
      const float *w = weight + c * K * K * weight_pitch + group * outs;
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap) {
        const float4 four = *reinterpret_cast<const float4 *>(w + tap * weight_pitch);
        const float weights[outs] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int e = 0; e < windows_each; ++e)
#pragma unroll
          for (int place = 0; place < 4; ++place)
#pragma unroll
            for (int k = 0; k < outs; ++k)
              sums[e][place][k] += seen[e][tap / K + place / 2][tap % K + place % 2] * weights[k];
      }
    }
  }
  if (group >= p.groups) return;
#pragma unroll
  for (int e = 0; e < windows_each; ++e) {
    const int row = row0 + r[e], col = col0 + q[e];
    if (row * 2 >= p.oh || col * 2 >= p.ow) continue;
    if (e > 0 && static_cast<int>(threadIdx.x) % pairs + e * pairs >= windows) continue;
#pragma unroll
    for (int k = 0; k < outs; ++k) {
      const int o = o0 + group * outs + k;
      if (o >= p.o) break;
      const float bias = p.bias ? widen(p.bias[o]) : 0.0f;
      if (p.pool) {
        if (row >= p.rows || col >= p.cols) continue;  // half a window
        const float four[4] = {sums[e][0][k] + bias, sums[e][1][k] + bias, sums[e][2][k] + bias, sums[e][3][k] + bias};
        const std::int64_t at = ((std::int64_t{image} * p.rows + row) * p.cols + col) * p.o + o;
        int code;
        p.out[at] = narrow<S>(largest(four, p.relu, code));
        if (p.code) p.code[at] = static_cast<std::uint8_t>(code);
        continue;
      }
#pragma unroll
      for (int place = 0; place < 4; ++place) {
        const int y = 2 * row + place / 2, x = 2 * col + place % 2;
        if (y >= p.oh || x >= p.ow) continue;
        const float value = sums[e][place][k] + bias;
        const bool none = p.relu && value <= 0;
        const std::int64_t at = ((std::int64_t{image} * p.oh + y) * p.ow + x) * p.o + o;
        p.out[at] = narrow<S>(none ? 0.0f : value);
        if (p.code) p.code[at] = none ? dead : 0;
      }
    }
  }
}

// Numbers from a row of the tile's input to the next: such that a warp's windows, `wide` in a row, read different
// banks.
int pitch_of(int wide, int columns) {
  const int wanted = wide <= 8 ? 4 : 8;
  return columns + (wanted + 16 - columns % 16) % 16;
}

template <class S> void run(Direct<S> p, int k, cudaStream_t stream) {
  const int rows = p.pool ? p.rows : (p.oh + 1) / 2, cols = p.pool ? p.cols : (p.ow + 1) / 2;
  p.wide = std::min(cols, 16);
  p.groups = std::min(most_groups, (p.o + outs - 1) / outs);
  const int channels = p.c == 1 ? 1 : 8, half = p.wide + (k - 1) / 2, wide = 2 * half;
  p.pitch = pitch_of(p.wide, wide);
  const auto bytes_of = [&](int windows_down) {
    const int numbers = (2 * windows_down + k - 1) * p.pitch + k * k * (p.groups * outs + 4);
    return static_cast<std::int64_t>(sizeof(float)) * channels * numbers;
  };
  const std::int64_t most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  p.high = std::min(rows, std::max(1, most_windows / p.wide));
  while (p.high > 1 && bytes_of(p.high) > most) --p.high;  // of a tall narrow picture
  p.down = (rows + p.high - 1) / p.high, p.across = (cols + p.wide - 1) / p.wide;
  p.by_wide = divider(wide), p.by_area = divider((2 * p.high + k - 1) * wide);
  p.by_pooled = divider(half + 1), p.by_groups = divider(p.groups);
  p.by_fours = by_fours(p.x, p.x_strides, p.c) && reinterpret_cast<std::uintptr_t>(p.taken) % 4 == 0;
  const int pairs = (p.high * p.wide + windows_each - 1) / windows_each, threads = (pairs * p.groups + 31) / 32 * 32;
  const std::int64_t tiles = std::int64_t{p.n} * p.down * p.across;
  if (tiles > INT32_MAX) throw std::invalid_argument("conv_block: too many images for a GPU at once");
  const Grid grid{dim3(static_cast<unsigned>(tiles), (p.o + p.groups * outs - 1) / (p.groups * outs)), dim3(threads),
                  static_cast<std::size_t>(bytes_of(p.high)), stream};
  if (k == 3)
    launch("conv_block", channels == 1 ? conv_direct_forward<S, 3, 1> : conv_direct_forward<S, 3, 8>, grid, p);
  else
    launch("conv_block", channels == 1 ? conv_direct_forward<S, 5, 1> : conv_direct_forward<S, 5, 8>, grid, p);
}

}  // namespace

bool conv_direct_can(const ConvShape &s) {
  return s.groups == 1 && s.kh == s.kw && (s.kh == 3 || s.kh == 5) && s.sh == 1 && s.sw == 1 && s.o <= 65535 &&
         s.c <= 65535 && conv_direct_weights_can(s);
}

template <class S> void conv_direct(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream) {
  Direct<S> p{};
  p.x = d.x, p.weight = d.weight, p.bias = d.bias, p.out = d.out, p.code = d.code;
  std::copy(s.x_strides, s.x_strides + 4, p.x_strides);
  p.n = s.n, p.c = s.c, p.h = s.h, p.w = s.w, p.o = s.o, p.ph = s.ph, p.pw = s.pw, p.oh = s.oh, p.ow = s.ow;
  p.rows = s.rows, p.cols = s.cols, p.relu = s.relu, p.pool = s.pool;
  p.taken_rows = s.h, p.taken_cols = s.w;
  run(p, s.kh, stream);
}

template <class S> void conv_direct_backward(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream) {
  if (d.grad_x) {
    Direct<S> p{};
    p.x = d.grad, p.taken = d.code, p.weight = d.weight, p.out = d.grad_x;
    std::copy(s.grad_strides, s.grad_strides + 4, p.x_strides);
    p.n = s.n, p.c = s.o, p.h = s.oh, p.w = s.ow, p.o = s.c, p.ph = s.kh - 1 - s.ph, p.pw = s.kw - 1 - s.pw;
    p.oh = p.rows = s.h, p.ow = p.cols = s.w;
    p.turned = true, p.unpooling = s.pool, p.taken_rows = s.rows, p.taken_cols = s.cols;
    run(p, s.kh, stream);
  }
  if (d.grad_weight || d.grad_bias) conv_direct_weights(s, d, stream);
}

#define HW4FAST_INSTANTIATE(S)                                                        \
  template void conv_direct<S>(const ConvShape &, const ConvData<S> &, cudaStream_t); \
  template void conv_direct_backward<S>(const ConvShape &, const ConvData<S> &, cudaStream_t);
HW4FAST_INSTANTIATE(float)
HW4FAST_INSTANTIATE(__nv_bfloat16)
HW4FAST_INSTANTIATE(__half)

}  // namespace hw4fast
