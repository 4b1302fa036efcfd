// conv_block for 3×3 and 5×5 filters at stride 1 in plain float arithmetic.
//
// Forward, and the input's gradient: a thread has a 2×2 window of the convolution (what the pool makes one number of)
// for four output channels, that is 16 sums; per input channel it takes the (K + 1)² numbers that the window sees from
// shared memory into registers and each weight for four channels at once: some six multiplications per number read.
// The input's gradient is the same convolution, of the output's gradient with turned filters; what the pool and ReLU
// let through is sorted out as the gradient comes to shared memory.
#include "conv_block_direct.cuh"

#include <algorithm>
#include <cmath>

namespace hw4fast {
namespace {

constexpr int outs = 4, most_groups = 4;            // output channels of a thread; such groups of a block
constexpr int windows_each = 2, most_windows = 64;  // of a thread, of a tile
constexpr int max_threads = most_windows / windows_each * most_groups;

// A convolution of x, or of an output's gradient to the input's.
template <class S> struct Direct {
  const S *x, *weight, *bias;
  const std::uint8_t *taken;  // the code of the gradient that is x, or null
  S *out;
  std::uint8_t *code;
  std::int64_t image_step;  // of x
  int steps[3];             // of x: channel, row, column
  int n, c, h, w, o, ph, pw, oh, ow, rows, cols;
  bool relu, pool, turned;  // turned: the weight is [c, o, K, K], and its last is the first
  bool unpooling;           // x is [n, c, h / 2, w / 2], each at the place of 2×2 that `taken` says
  int taken_rows, taken_cols;
  int high, wide, down, across;  // windows of a tile; tiles of an image
  int chunk;                     // channels in shared memory at a time
  int groups;                    // of four output channels, in a block
  Divider by_wide, by_area;      // of the tile's input: columns, and all of a channel
  Divider by_chunk, by_filters;  // channels; numbers of a filter
  Turn turn;
};

// A number of the input. from, taken: of its image, within which 32 bits find every number (conv_direct_can).
template <class S>
__device__ inline Coming<S> fetch(const Direct<S> &p, const S *from, const std::uint8_t *taken, int c, int y, int x) {
  Coming<S> number;
  if (c >= p.c || y < 0 || y >= p.h || x < 0 || x >= p.w) return number;
  const int place = p.unpooling ? y % 2 * 2 + x % 2 : 0;
  if (p.unpooling) y /= 2, x /= 2;
  if (y >= p.taken_rows || x >= p.taken_cols) return number;
  number.place = number.code = place;
  if (taken) number.code = taken[(y * p.taken_cols + x) * p.c + c];
  number.number = from[c * p.steps[0] + y * p.steps[1] + x * p.steps[2]];
  return number;
}

// Blocks: (image, tile), groups of channels of the output. Threads: pairs of windows, then groups of four channels.
template <class S, int K> __global__ void __launch_bounds__(max_threads) conv_direct_forward(const Direct<S> p) {
  begin_turn(p.turn);
  HW4FAST_SHARED(shared);
  const int windows = p.high * p.wide, pairs = (windows + windows_each - 1) / windows_each;
  const int high = 2 * p.high + K - 1, half = p.wide + (K - 1) / 2, wide = 2 * half;  // of the tile's input
  float *input = reinterpret_cast<float *>(shared);  // [chunk][high][2][half]: even columns, then odd ones, so that
                                                     // neighbouring windows read neighbouring numbers
  float *weight = input + p.chunk * high * wide;     // [chunk][K·K][groups + 1][4], so that taps differ in banks
  const int tile = blockIdx.x % (p.down * p.across), image = blockIdx.x / (p.down * p.across);
  const int row0 = tile / p.across * p.high, col0 = tile % p.across * p.wide;
  const int outs_here = p.groups * outs, o0 = blockIdx.y * outs_here, taps_apart = outs_here + 4;
  const int group = threadIdx.x / pairs;
  int r[windows_each], q[windows_each];
#pragma unroll
  for (int e = 0; e < windows_each; ++e) {
    const int window = min(static_cast<int>(threadIdx.x) % pairs + e * pairs, windows - 1);
    r[e] = window / p.wide, q[e] = window % p.wide;
  }
  const S *from_image = p.x + image * p.image_step;
  const std::uint8_t *taken = p.taken ? p.taken + std::int64_t{image} * p.taken_rows * p.taken_cols * p.c : nullptr;
  const std::int64_t o_step = K * K * (p.turned ? 1 : p.c), c_step = K * K * (p.turned ? p.o : 1);
  float sums[windows_each][4][outs] = {};
  for (int c0 = 0; c0 < p.c; c0 += p.chunk) {
    const int chunk = min(p.chunk, p.c - c0);
    __syncthreads();
    const bool by_channel = p.steps[0] == 1;  // neighbouring threads read neighbouring numbers
    const int area = high * wide, filters = p.chunk * K * K;
    const auto number = [&](int i) {
      const int slow = by_channel ? p.by_chunk.quotient(i) : p.by_area.quotient(i);
      const int c = by_channel ? i - slow * p.chunk : slow, at = by_channel ? slow : i - slow * area;
      const int y = p.by_wide.quotient(at), x = at - y * wide;
      Coming<S> found;
      if (c < chunk) found = fetch(p, from_image, taken, c0 + c, 2 * row0 + y - p.ph, 2 * col0 + x - p.pw);
      found.to = (c * high + y) * wide + x % 2 * half + x / 2;
      return found;
    };
    in_batches<S, 8>(p.chunk * area, number, [&](const Coming<S> &found) { input[found.to] = found.value(); });
    const S *first = p.weight + o0 * o_step + c0 * c_step;
    const auto factor = [&](int i) {
      const int o = p.by_filters.quotient(i), rest = i - o * filters, c = rest / (K * K), tap = rest - c * K * K;
      Coming<S> found;
      if (o0 + o < p.o && c < chunk) {
        found.number = first[o * o_step + c * c_step + (p.turned ? K * K - 1 - tap : tap)];
        found.place = 0;
      }
      found.to = rest * taps_apart + o;
      return found;
    };
    in_batches<S, 8>(filters * outs_here, factor, [&](const Coming<S> &found) { weight[found.to] = found.value(); });
    __syncthreads();
    if (group >= p.groups) continue;
    for (int c = 0; c < chunk; ++c) {
      float seen[windows_each][K + 1][K + 1];
#pragma unroll
      for (int e = 0; e < windows_each; ++e) {
        const float *from = input + (c * high + 2 * r[e]) * wide + q[e];
#pragma unroll
        for (int y = 0; y <= K; ++y)
#pragma unroll
          for (int x = 0; x <= K; ++x) seen[e][y][x] = from[y * wide + x % 2 * half + x / 2];
      }
      const float4 *w = reinterpret_cast<const float4 *>(weight + c * K * K * taps_apart) + group;
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap) {
        const float4 four = w[tap * (p.groups + 1)];
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
  end_turn(p.turn);
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

template <class S> void run(Direct<S> p, int k, cudaStream_t stream) {
  const int rows = p.pool ? p.rows : (p.oh + 1) / 2, cols = p.pool ? p.cols : (p.ow + 1) / 2;
  p.wide = std::min(cols, 16);
  p.high = std::min(rows, std::max(1, most_windows / p.wide));
  p.down = (rows + p.high - 1) / p.high, p.across = (cols + p.wide - 1) / p.wide;
  p.chunk = std::min(p.c, 8);
  p.groups = std::min(most_groups, (p.o + outs - 1) / outs);
  const int high = 2 * p.high + k - 1, wide = 2 * (p.wide + (k - 1) / 2);
  p.by_wide = divider(wide), p.by_area = divider(std::int64_t{1} * high * wide), p.by_chunk = divider(p.chunk),
  p.by_filters = divider(p.chunk * k * k);
  const std::size_t shared = sizeof(float) * p.chunk * (high * wide + k * k * (p.groups + 1) * outs);
  const int pairs = (p.high * p.wide + windows_each - 1) / windows_each, threads = (pairs * p.groups + 31) / 32 * 32;
  const std::int64_t tiles = std::int64_t{p.n} * p.down * p.across;
  if (tiles > INT32_MAX) throw std::invalid_argument("conv_block: too many images for a GPU at once");
  const Grid grid{dim3(static_cast<unsigned>(tiles), (p.o + p.groups * outs - 1) / (p.groups * outs)), dim3(threads),
                  shared, stream};
  if (k == 3)
    launch("conv_block", conv_direct_forward<S, 3>, grid, p);
  else
    launch("conv_block", conv_direct_forward<S, 5>, grid, p);
}

template <class S> void stride(Direct<S> &p, const std::int64_t (&strides)[4]) {
  p.image_step = strides[0];
  for (int i = 0; i < 3; ++i) p.steps[i] = static_cast<int>(strides[i + 1]);
}
// Whether 32 bits find every number of an image.
bool is_near(const std::int64_t (&strides)[4], int c, int rows, int cols) {
  const auto reach = [](int size, std::int64_t stride) { return std::abs(1.0 * size * static_cast<double>(stride)); };
  return 1.0 * c * rows * cols + reach(c, strides[1]) + reach(rows, strides[2]) + reach(cols, strides[3]) < 0x7fffffff;
}

}  // namespace

bool conv_direct_can(const ConvShape &s) {
  return is_near(s.x_strides, s.c, s.h, s.w) && is_near(s.grad_strides, s.o, s.rows, s.cols) && s.groups == 1 &&
         s.kh == s.kw && (s.kh == 3 || s.kh == 5) && s.sh == 1 && s.sw == 1 &&
         shared_of(tile_of(s), s) <= shared_limit && s.o <= 65535 && s.c <= 65535;
}

std::int64_t conv_direct_scratch(const ConvShape &s) {
  return std::int64_t{4} * tile_of(s).shares * (std::int64_t{s.kh} * s.kw * s.o * s.c + s.o);
}

template <class S> void conv_direct(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream) {
  Direct<S> p{};
  p.x = d.x, p.weight = d.weight, p.bias = d.bias, p.out = d.out, p.code = d.code;
  stride(p, s.x_strides);
  p.n = s.n, p.c = s.c, p.h = s.h, p.w = s.w, p.o = s.o, p.ph = s.ph, p.pw = s.pw, p.oh = s.oh, p.ow = s.ow;
  p.rows = s.rows, p.cols = s.cols, p.relu = s.relu, p.pool = s.pool;
  p.taken_rows = s.h, p.taken_cols = s.w;
  run(p, s.kh, stream);
}

template <class S> void conv_direct_backward(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream) {
  const bool weights = d.grad_weight || d.grad_bias;
  const Tile t = tile_of(s);
  if (weights) {
    const Grid grid{dim3(t.shares, t.in_tiles * t.out_tiles), dim3((t.outs * t.ins * t.lanes + 31) / 32 * 32),
                    static_cast<std::size_t>(shared_of(t, s)), stream};
    if (s.kh == 3)
      launch("conv_block", t.lanes == 1 ? conv_direct_weights<S, 3, 1> : conv_direct_weights<S, 3, 32>, grid, s, d, t);
    else
      launch("conv_block", t.lanes == 1 ? conv_direct_weights<S, 5, 1> : conv_direct_weights<S, 5, 32>, grid, s, d, t);
  }
  if (d.grad_x) {
    Direct<S> p{};
    p.x = d.grad, p.taken = d.code, p.weight = d.weight, p.out = d.grad_x;
    stride(p, s.grad_strides);
    p.n = s.n, p.c = s.o, p.h = s.oh, p.w = s.ow, p.o = s.c, p.ph = s.kh - 1 - s.ph, p.pw = s.kw - 1 - s.pw;
    p.oh = p.rows = s.h, p.ow = p.cols = s.w;
    p.turned = true, p.unpooling = s.pool, p.taken_rows = s.rows, p.taken_cols = s.cols;
    p.turn = weights ? Turn::end : Turn::start;  // beside the weight's gradient
    run(p, s.kh, stream);
  }
  if (!weights) return;
  const std::int64_t all = std::int64_t{s.kh} * s.kw * s.o * s.c + s.o;
  launch("conv_block", conv_direct_totals<S>,
         Grid{dim3(static_cast<unsigned>((all + 31) / 32)), dim3(32, 8), 0, stream}, s, d, t.shares);
}

#define HW4FAST_INSTANTIATE(S)                                                        \
  template void conv_direct<S>(const ConvShape &, const ConvData<S> &, cudaStream_t); \
  template void conv_direct_backward<S>(const ConvShape &, const ConvData<S> &, cudaStream_t);
HW4FAST_INSTANTIATE(float)
HW4FAST_INSTANTIATE(__nv_bfloat16)
HW4FAST_INSTANTIATE(__half)

}  // namespace hw4fast
