// conv_block for 3×3 and 5×5 filters at stride 1 in plain float arithmetic.
//
// Forward, and the input's gradient: a thread has a 2×2 window of the convolution (what the pool makes one number of)
// for four output channels, that is 16 sums; per input channel it takes the (K + 1)² numbers that the window sees from
// shared memory into registers and each weight for four channels at once: some six multiplications per number read.
// The input's gradient is the same convolution, of the output's gradient with turned filters; what the pool and ReLU
// let through is sorted out as the gradient comes to shared memory.
//
// The weight's gradient: only one of a window's four places has a gradient, so a thread that has an output and an input
// channel and their K² sums looks at that one's code, and adds K² products. Blocks have shares of the image rows; a
// second kernel adds their sums in order: the same bits with every call on a GPU.
#include "conv_block.cuh"

#include <algorithm>

namespace hw4fast {
namespace {

constexpr int outs = 4, groups_in_block = 2, outs_in_block = outs * groups_in_block;
constexpr int max_windows = 64, max_threads = max_windows * groups_in_block;

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
  int taken_rows, taken_cols;
  int high, wide, down, across;  // windows of a tile; tiles of an image
  int chunk;                     // channels in shared memory at a time
};

template <class S> __device__ inline float input_at(const Direct<S> &p, int image, int c, int y, int x) {
  if (y < 0 || y >= p.h || x < 0 || x >= p.w) return 0;
  int place = 0;
  if (p.unpooling) {
    place = y % 2 * 2 + x % 2;
    y /= 2, x /= 2;
  }
  if (y >= p.taken_rows || x >= p.taken_cols) return 0;
  if (p.taken && p.taken[((std::int64_t{image} * p.taken_rows + y) * p.taken_cols + x) * p.c + c] != place) return 0;
  return widen(p.x[image * p.x_strides[0] + c * p.x_strides[1] + y * p.x_strides[2] + x * p.x_strides[3]]);
}

// Blocks: (image, tile), channels of the output by eight. Threads: windows, then groups of four channels.
template <class S, int K> __global__ void __launch_bounds__(max_threads) conv_direct_forward(const Direct<S> p) {
  HW4FAST_SHARED(shared);
  const int windows = p.high * p.wide;
  const int high = 2 * p.high + K - 1, half = p.wide + (K - 1) / 2, wide = 2 * half;  // of the tile's input
  float *input = reinterpret_cast<float *>(shared);  // [chunk][high][2][half]: even columns, then odd ones, so
  float *weight = input + p.chunk * high * wide;     // that neighbouring windows read neighbouring numbers
                                                     // [chunk][K·K][8]
  const int tile = blockIdx.x % (p.down * p.across), image = blockIdx.x / (p.down * p.across);
  const int row0 = tile / p.across * p.high, col0 = tile % p.across * p.wide, o0 = blockIdx.y * outs_in_block;
  const int window = threadIdx.x % windows, group = threadIdx.x / windows;
  const int r = window / p.wide, q = window % p.wide;
  float sums[4][outs] = {};
  for (int c0 = 0; c0 < p.c; c0 += p.chunk) {
    const int chunk = min(p.chunk, p.c - c0);
    __syncthreads();
    const bool by_channel = p.x_strides[1] == 1;  // neighbouring threads read neighbouring numbers
    for (int i = threadIdx.x; i < chunk * high * wide; i += blockDim.x) {
      const int c = by_channel ? i % chunk : i / (high * wide), at = by_channel ? i / chunk : i % (high * wide);
      const int y = at / wide, x = at % wide;
      input[(c * high + y) * wide + x % 2 * half + x / 2] =
          input_at(p, image, c0 + c, 2 * row0 + y - p.ph, 2 * col0 + x - p.pw);
    }
    for (int i = threadIdx.x; i < chunk * K * K * outs_in_block; i += blockDim.x) {
      const int o = i / (chunk * K * K), c = i / (K * K) % chunk, tap = i % (K * K);
      float value = 0;
      if (o0 + o < p.o)
        value = widen(p.turned ? p.weight[(std::int64_t{c0 + c} * p.o + o0 + o) * K * K + K * K - 1 - tap]
                               : p.weight[(std::int64_t{o0 + o} * p.c + c0 + c) * K * K + tap]);
      weight[(c * K * K + tap) * outs_in_block + o] = value;
    }
    __syncthreads();
    if (group >= groups_in_block) continue;
    for (int c = 0; c < chunk; ++c) {
      float seen[K + 1][K + 1];
      const float *from = input + (c * high + 2 * r) * wide + q;
#pragma unroll
      for (int y = 0; y <= K; ++y)
#pragma unroll
        for (int x = 0; x <= K; ++x) seen[y][x] = from[y * wide + x % 2 * half + x / 2];
      const float4 *w = reinterpret_cast<const float4 *>(weight + c * K * K * outs_in_block) + group;
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap) {
        const float4 four = w[tap * groups_in_block];
        const float weights[outs] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int place = 0; place < 4; ++place)
#pragma unroll
          for (int k = 0; k < outs; ++k) sums[place][k] += seen[tap / K + place / 2][tap % K + place % 2] * weights[k];
      }
    }
  }
  const int row = row0 + r, col = col0 + q;
  if (group >= groups_in_block || row * 2 >= p.oh || col * 2 >= p.ow) return;
#pragma unroll
  for (int k = 0; k < outs; ++k) {
    const int o = o0 + group * outs + k;
    if (o >= p.o) break;
    const float bias = p.bias ? widen(p.bias[o]) : 0.0f;
    if (p.pool) {
      if (row >= p.rows || col >= p.cols) continue;  // half a window
      const float four[4] = {sums[0][k] + bias, sums[1][k] + bias, sums[2][k] + bias, sums[3][k] + bias};
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
      float value = sums[place][k] + bias;
      const bool none = p.relu && value <= 0;
      const std::int64_t at = ((std::int64_t{image} * p.oh + y) * p.ow + x) * p.o + o;
      p.out[at] = narrow<S>(none ? 0.0f : value);
      if (p.code) p.code[at] = none ? dead : 0;
    }
  }
}

// What one block of the weight's gradient has: a tile of output times input channels, of which each thread has a pair.
struct Tile {
  int outs, ins;  // of a tile
  int out_tiles, in_tiles;
  int shares;      // of the rows of all images
  int high, wide;  // of the input that a row of windows sees
};

constexpr int max_pairs = 512;
constexpr std::int64_t shared_limit = 96 << 10;

Tile tile_of(const ConvShape &s) {
  Tile t;
  t.ins = std::min(s.c, 16);
  t.outs = std::min(s.o, max_pairs / t.ins);
  t.in_tiles = (s.c + t.ins - 1) / t.ins, t.out_tiles = (s.o + t.outs - 1) / t.outs;
  const int side = s.pool ? 2 : 1, tiles = t.in_tiles * t.out_tiles;
  t.high = side + s.kh - 1, t.wide = side * s.cols + s.kw - 1;
  const std::int64_t rows = std::int64_t{s.n} * s.rows;
  t.shares = static_cast<int>(std::min<std::int64_t>(rows, std::max(1, 2 * multiprocessors() / tiles)));
  return t;
}
std::int64_t shared_of(const Tile &t, const ConvShape &s) {
  return std::int64_t{4} * t.high * t.wide * t.ins + std::int64_t{5} * s.cols * t.outs;
}

// parts: [shares][K·K·o·c + o], a tap's pairs together; the last o are the bias's. Blocks: shares, tiles.
template <class S, int K> __global__ void __launch_bounds__(max_pairs)
    conv_direct_weights(const ConvShape s, const ConvData<S> d, const Tile t) {
  HW4FAST_SHARED(shared);
  float *input = reinterpret_cast<float *>(shared);                               // [high][wide][ins]
  float *grad = input + t.high * t.wide * t.ins;                                  // [cols][outs]
  std::uint8_t *code = reinterpret_cast<std::uint8_t *>(grad + s.cols * t.outs);  // [cols][outs]
  const int o0 = static_cast<int>(blockIdx.y) / t.in_tiles * t.outs,
            c0 = static_cast<int>(blockIdx.y) % t.in_tiles * t.ins;
  const int here = static_cast<int>(threadIdx.x), o = here / t.ins, c = here % t.ins;
  const bool works = here < t.outs * t.ins;
  const int side = s.pool ? 2 : 1;
  const std::int64_t rows = std::int64_t{s.n} * s.rows;
  const std::int64_t begin = rows * blockIdx.x / t.shares, end = rows * (blockIdx.x + 1) / t.shares;
  float sums[K][K] = {}, bias = 0;
  for (std::int64_t at = begin; at < end; ++at) {
    const int image = static_cast<int>(at / s.rows), row = static_cast<int>(at % s.rows);
    __syncthreads();
    const bool by_channel = s.x_strides[1] == 1;
    for (int i = here; i < t.high * t.wide * t.ins; i += blockDim.x) {
      const int k = by_channel ? i % t.ins : i / (t.high * t.wide),
                pixel = by_channel ? i / t.ins : i % (t.high * t.wide);
      const int y = side * row + pixel / t.wide - s.ph, x = pixel % t.wide - s.pw;
      float value = 0;
      if (c0 + k < s.c && y >= 0 && y < s.h && x >= 0 && x < s.w)
        value =
            widen(d.x[image * s.x_strides[0] + (c0 + k) * s.x_strides[1] + y * s.x_strides[2] + x * s.x_strides[3]]);
      input[pixel * t.ins + k] = value;
    }
    for (int i = here; i < s.cols * t.outs; i += blockDim.x) {
      const int col = i / t.outs, k = o0 + i % t.outs;
      const std::int64_t where = ((std::int64_t{image} * s.rows + row) * s.cols + col) * s.o + k;
      const std::uint8_t place = k >= s.o ? dead : d.code ? d.code[where] : 0;
      code[i] = place == dead ? 0 : place;
      grad[i] = place == dead ? 0.0f
                              : widen(d.grad[image * s.grad_strides[0] + k * s.grad_strides[1] +
                                             row * s.grad_strides[2] + col * s.grad_strides[3]]);
    }
    __syncthreads();
    if (!works) continue;
    for (int col = 0; col < s.cols; ++col) {
      const float g = grad[col * t.outs + o];
      const int place = code[col * t.outs + o];
      const float *from = input + ((place >> 1) * t.wide + side * col + (place & 1)) * t.ins + c;
      bias += g;
#pragma unroll
      for (int i = 0; i < K; ++i)
#pragma unroll
        for (int j = 0; j < K; ++j) sums[i][j] += g * from[(i * t.wide + j) * t.ins];
    }
  }
  if (!works || o0 + o >= s.o || c0 + c >= s.c) return;
  const std::int64_t pairs = std::int64_t{s.o} * s.c, pair = std::int64_t{o0 + o} * s.c + c0 + c;
  float *parts = d.scratch + blockIdx.x * (K * K * pairs + s.o);
#pragma unroll
  for (int tap = 0; tap < K * K; ++tap) parts[tap * pairs + pair] = sums[tap / K][tap % K];
  if (c0 + c == 0) parts[K * K * pairs + o0 + o] = bias;
}

template <class S> __global__ void __launch_bounds__(128)
    conv_direct_totals(const ConvShape s, const ConvData<S> d, int shares) {
  const std::int64_t pairs = std::int64_t{s.o} * s.c, all = s.kh * s.kw * pairs + s.o;
  const std::int64_t at = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  wait_for_previous();
  if (at >= all) return;
  float sums[4] = {};
  int i = 0;
  for (; i + 4 <= shares; i += 4)
    for (int k = 0; k < 4; ++k) sums[k] += d.scratch[(i + k) * all + at];
  for (; i < shares; ++i) sums[0] += d.scratch[i * all + at];
  const float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  if (at >= all - s.o) {
    if (d.grad_bias) d.grad_bias[at - (all - s.o)] = narrow<S>(sum);
  } else if (d.grad_weight) {
    d.grad_weight[at % pairs * (s.kh * s.kw) + at / pairs] = narrow<S>(sum);
  }
}

template <class S> void run(Direct<S> p, int k, cudaStream_t stream) {
  const int rows = p.pool ? p.rows : (p.oh + 1) / 2, cols = p.pool ? p.cols : (p.ow + 1) / 2;
  p.wide = std::min(cols, 16);
  p.high = std::min(rows, std::max(1, max_windows / p.wide));
  p.down = (rows + p.high - 1) / p.high, p.across = (cols + p.wide - 1) / p.wide;
  p.chunk = std::min(p.c, 8);
  const int high = 2 * p.high + k - 1, wide = 2 * (p.wide + (k - 1) / 2);
  const std::size_t shared = sizeof(float) * p.chunk * (high * wide + k * k * outs_in_block);
  const int threads = (p.high * p.wide * groups_in_block + 31) / 32 * 32;
  const std::int64_t tiles = std::int64_t{p.n} * p.down * p.across;
  if (tiles > INT32_MAX) throw std::invalid_argument("conv_block: too many images for a GPU at once");
  const Grid grid{dim3(static_cast<unsigned>(tiles), (p.o + outs_in_block - 1) / outs_in_block), dim3(threads), shared,
                  stream};
  if (k == 3)
    launch("conv_block", conv_direct_forward<S, 3>, grid, p);
  else
    launch("conv_block", conv_direct_forward<S, 5>, grid, p);
}

}  // namespace

bool conv_direct_can(const ConvShape &s) {
  return s.groups == 1 && s.kh == s.kw && (s.kh == 3 || s.kh == 5) && s.sh == 1 && s.sw == 1 &&
         shared_of(tile_of(s), s) <= shared_limit && (s.o + outs_in_block - 1) / outs_in_block <= 65535 &&
         (s.c + outs_in_block - 1) / outs_in_block <= 65535;
}

std::int64_t conv_direct_scratch(const ConvShape &s) {
  return std::int64_t{4} * tile_of(s).shares * (std::int64_t{s.kh} * s.kw * s.o * s.c + s.o);
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
  if (!d.grad_weight && !d.grad_bias) return;
  const Tile t = tile_of(s);
  const Grid grid{dim3(t.shares, t.in_tiles * t.out_tiles), dim3((t.outs * t.ins + 31) / 32 * 32),
                  static_cast<std::size_t>(shared_of(t, s)), stream};
  if (s.kh == 3)
    launch("conv_block", conv_direct_weights<S, 3>, grid, s, d, t);
  else
    launch("conv_block", conv_direct_weights<S, 5>, grid, s, d, t);
  const std::int64_t all = std::int64_t{s.kh} * s.kw * s.o * s.c + s.o;
  launch("conv_block", conv_direct_totals<S>,
         Grid{dim3(static_cast<unsigned>((all + 127) / 128)), dim3(128), 0, stream, 1, true}, s, d, t.shares);
}

#define HW4FAST_INSTANTIATE(S)                                                        \
  template void conv_direct<S>(const ConvShape &, const ConvData<S> &, cudaStream_t); \
  template void conv_direct_backward<S>(const ConvShape &, const ConvData<S> &, cudaStream_t);
HW4FAST_INSTANTIATE(float)
HW4FAST_INSTANTIATE(__nv_bfloat16)
HW4FAST_INSTANTIATE(__half)

}  // namespace hw4fast
