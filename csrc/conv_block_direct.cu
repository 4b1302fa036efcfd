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
#include "conv_block_tensor.cuh"  // Divider, Turn

#include <algorithm>

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
  std::int64_t x_strides[4];
  int n, c, h, w, o, ph, pw, oh, ow, rows, cols;
  bool relu, pool, turned;  // turned: the weight is [c, o, K, K], and its last is the first
  bool unpooling;           // x is [n, c, h / 2, w / 2], each at the place of 2×2 that `taken` says
  int taken_rows, taken_cols;
  int high, wide, down, across;  // windows of a tile; tiles of an image
  int chunk;                     // channels in shared memory at a time
  int groups;                    // of four output channels, in a block
  Divider by_wide, by_area;      // of the tile's input: columns, and all of a channel
  Divider by_chunk;
  Turn turn;
};

// A number of the input on its way: nothing waits for it before value() does, so that several are under way at once.
template <class S> struct Coming {
  S number;
  int code, place = -1;  // no place: zero

  __device__ void fetch(const Direct<S> &p, int image, int c, int y, int x) {
    place = -1;
    if (c >= p.c || y < 0 || y >= p.h || x < 0 || x >= p.w) return;
    const int at = p.unpooling ? y % 2 * 2 + x % 2 : 0;
    if (p.unpooling) y /= 2, x /= 2;
    if (y >= p.taken_rows || x >= p.taken_cols) return;
    place = code = at;
    if (p.taken) code = p.taken[((std::int64_t{image} * p.taken_rows + y) * p.taken_cols + x) * p.c + c];
    number = p.x[image * p.x_strides[0] + c * p.x_strides[1] + y * p.x_strides[2] + x * p.x_strides[3]];
  }
  __device__ float value() const { return place >= 0 && code == place ? widen(number) : 0.0f; }
};
constexpr int fetches = 8;  // of a thread, under way at once

// Blocks: (image, tile), groups of channels of the output. Threads: pairs of windows, then groups of four channels.
template <class S, int K> __global__ void __launch_bounds__(max_threads) conv_direct_forward(const Direct<S> p) {
  begin_turn(p.turn);
  HW4FAST_SHARED(shared);
  const int windows = p.high * p.wide, pairs = (windows + windows_each - 1) / windows_each;
  const int high = 2 * p.high + K - 1, half = p.wide + (K - 1) / 2, wide = 2 * half;  // of the tile's input
  float *input = reinterpret_cast<float *>(shared);  // [chunk][high][2][half]: even columns, then odd ones, so that
                                                     // neighbouring windows read neighbouring numbers
  float *weight = input + p.chunk * high * wide;     // [chunk][K·K][groups][4]
  const int tile = blockIdx.x % (p.down * p.across), image = blockIdx.x / (p.down * p.across);
  const int row0 = tile / p.across * p.high, col0 = tile % p.across * p.wide;
  const int o0 = blockIdx.y * p.groups * outs, outs_here = p.groups * outs;
  const int group = threadIdx.x / pairs;
  int r[windows_each], q[windows_each];
#pragma unroll
  for (int e = 0; e < windows_each; ++e) {
    const int window = min(static_cast<int>(threadIdx.x) % pairs + e * pairs, windows - 1);
    r[e] = window / p.wide, q[e] = window % p.wide;
  }
  float sums[windows_each][4][outs] = {};
  for (int c0 = 0; c0 < p.c; c0 += p.chunk) {
    const int chunk = min(p.chunk, p.c - c0);
    __syncthreads();
    const bool by_channel = p.x_strides[1] == 1;  // neighbouring threads read neighbouring numbers
    const int area = high * wide, threads = static_cast<int>(blockDim.x);
    for (int from = threadIdx.x; from < p.chunk * area; from += fetches * threads) {
      Coming<S> coming[fetches];
      int to[fetches];
#pragma unroll
      for (int k = 0; k < fetches; ++k) {
        const int i = from + k * threads, slow = by_channel ? p.by_chunk.quotient(i) : p.by_area.quotient(i);
        const int c = by_channel ? i - slow * p.chunk : slow, at = by_channel ? slow : i - slow * area;
        const int y = p.by_wide.quotient(at), x = at - y * wide;
        to[k] = i < p.chunk * area ? (c * high + y) * wide + x % 2 * half + x / 2 : -1;
        coming[k].place = -1;
        if (to[k] >= 0 && c < chunk) coming[k].fetch(p, image, c0 + c, 2 * row0 + y - p.ph, 2 * col0 + x - p.pw);
      }
#pragma unroll
      for (int k = 0; k < fetches; ++k)
        if (to[k] >= 0) input[to[k]] = coming[k].value();
    }
    const int weights = chunk * K * K * outs_here;
    for (int from = threadIdx.x; from < weights; from += fetches * threads) {
      S coming[fetches];
      int to[fetches];
#pragma unroll
      for (int k = 0; k < fetches; ++k) {
        const int i = from + k * threads, o = i / (chunk * K * K), c = i / (K * K) % chunk, tap = i % (K * K);
        to[k] = i < weights ? (c * K * K + tap) * outs_here + o : -1;
        coming[k] = narrow<S>(0.0f);
        if (to[k] >= 0 && o0 + o < p.o)
          coming[k] = p.turned ? p.weight[(std::int64_t{c0 + c} * p.o + o0 + o) * K * K + K * K - 1 - tap]
                               : p.weight[(std::int64_t{o0 + o} * p.c + c0 + c) * K * K + tap];
      }
#pragma unroll
      for (int k = 0; k < fetches; ++k)
        if (to[k] >= 0) weight[to[k]] = widen(coming[k]);
    }
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
      const float4 *w = reinterpret_cast<const float4 *>(weight + c * K * K * outs_here) + group;
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap) {
        const float4 four = w[tap * p.groups];
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

// What one block of the weight's gradient has: a tile of output times input channels. A thread has a pair of them;
// where there are few pairs, a warp has one, and its lanes take turns at the columns.
struct Tile {
  int outs, ins;  // of a tile
  int out_tiles, in_tiles;
  int lanes;       // of a pair: 1 or 32
  int rows, down;  // of the output that a share's piece has; such pieces of an image
  int shares;      // of the pieces of all images
  int high, wide;  // of the input that a piece sees
};

constexpr int max_pair_threads = 512;
constexpr std::int64_t shared_limit = 96 << 10, shared_wanted = 40 << 10;

std::int64_t shared_of(const Tile &t, const ConvShape &s) {
  return std::int64_t{4} * t.high * t.wide * t.ins + std::int64_t{5} * t.rows * s.cols * t.outs;
}

Tile tile_of(const ConvShape &s) {
  Tile t{};
  t.lanes = std::int64_t{s.o} * s.c <= 128 ? 32 : 1;
  t.ins = std::min(s.c, t.lanes == 1 ? 16 : 4);
  t.outs = std::min(s.o, max_pair_threads / t.lanes / t.ins);
  t.in_tiles = (s.c + t.ins - 1) / t.ins, t.out_tiles = (s.o + t.outs - 1) / t.outs;
  const int side = s.pool ? 2 : 1, tiles = t.in_tiles * t.out_tiles;
  t.wide = side * s.cols + s.kw - 1;
  for (t.rows = std::max(1, s.rows); t.rows > 0; --t.rows) {
    t.high = side * t.rows + s.kh - 1;
    if (t.rows == 1 || shared_of(t, s) <= shared_wanted) break;
  }
  t.down = (s.rows + t.rows - 1) / t.rows;
  const std::int64_t pieces = std::int64_t{s.n} * t.down;
  t.shares = static_cast<int>(std::min<std::int64_t>(pieces, std::max(1, 2 * multiprocessors() / tiles)));
  return t;
}

// parts: [shares][K·K·o·c + o], a tap's pairs together; the last o are the bias's. Blocks: shares, tiles.
template <class S, int K, int LANES> __global__ void __launch_bounds__(max_pair_threads)
    conv_direct_weights(const ConvShape s, const ConvData<S> d, const Tile t) {
  in_turn();
  HW4FAST_SHARED(shared);
  float *input = reinterpret_cast<float *>(shared);                                        // [high][wide][ins]
  float *grad = input + t.high * t.wide * t.ins;                                           // [rows][cols][outs]
  std::uint8_t *code = reinterpret_cast<std::uint8_t *>(grad + t.rows * s.cols * t.outs);  // the same
  const int o0 = static_cast<int>(blockIdx.y) / t.in_tiles * t.outs;
  const int c0 = static_cast<int>(blockIdx.y) % t.in_tiles * t.ins;
  const int here = static_cast<int>(threadIdx.x), pair_here = here / LANES, lane = here % LANES;
  const int o = pair_here / t.ins, c = pair_here % t.ins;
  const bool works = o < t.outs;
  const int side = s.pool ? 2 : 1;
  const std::int64_t pieces = std::int64_t{s.n} * t.down;
  const std::int64_t begin = pieces * blockIdx.x / t.shares, end = pieces * (blockIdx.x + 1) / t.shares;
  const bool by_channel = s.x_strides[1] == 1;
  float sums[K][K] = {}, bias = 0;
  for (std::int64_t at = begin; at < end; ++at) {
    const int image = static_cast<int>(at / t.down), row0 = static_cast<int>(at % t.down) * t.rows;
    const int rows = min(t.rows, s.rows - row0);
    __syncthreads();
    for (int i = here; i < t.high * t.wide * t.ins; i += blockDim.x) {
      const int k = by_channel ? i % t.ins : i / (t.high * t.wide);
      const int pixel = by_channel ? i / t.ins : i % (t.high * t.wide);
      const int y = side * row0 + pixel / t.wide - s.ph, x = pixel % t.wide - s.pw;
      float value = 0;
      if (c0 + k < s.c && y >= 0 && y < s.h && x >= 0 && x < s.w)
        value =
            widen(d.x[image * s.x_strides[0] + (c0 + k) * s.x_strides[1] + y * s.x_strides[2] + x * s.x_strides[3]]);
      input[pixel * t.ins + k] = value;
    }
    for (int i = here; i < rows * s.cols * t.outs; i += blockDim.x) {
      const int place_here = i / t.outs, k = o0 + i % t.outs, row = row0 + place_here / s.cols,
                col = place_here % s.cols;
      const std::int64_t where = ((std::int64_t{image} * s.rows + row) * s.cols + col) * s.o + k;
      const std::uint8_t place = k >= s.o ? dead : d.code ? d.code[where] : 0;
      code[i] = place == dead ? 0 : place;
      grad[i] = place == dead ? 0.0f
                              : widen(d.grad[image * s.grad_strides[0] + k * s.grad_strides[1] +
                                             row * s.grad_strides[2] + col * s.grad_strides[3]]);
    }
    __syncthreads();
    if (!works) continue;
    int row = lane / s.cols, col = lane % s.cols;
    for (int k = lane; k < rows * s.cols; k += LANES) {
      const int i = k * t.outs + o, place = code[i];
      const float g = grad[i];
      const float *from = input + ((side * row + (place >> 1)) * t.wide + side * col + (place & 1)) * t.ins + c;
      bias += g;
#pragma unroll
      for (int i = 0; i < K; ++i)
#pragma unroll
        for (int j = 0; j < K; ++j) sums[i][j] += g * from[(i * t.wide + j) * t.ins];
      for (col += LANES; col >= s.cols; col -= s.cols) ++row;
    }
  }
  if (LANES > 1) {  // whole warps work, or none of a warp's lanes
    if (!works) return;
#pragma unroll
    for (int other = LANES / 2; other; other /= 2) {
      bias += __shfl_xor_sync(~0u, bias, other);
#pragma unroll
      for (int tap = 0; tap < K * K; ++tap)
        sums[tap / K][tap % K] += __shfl_xor_sync(~0u, sums[tap / K][tap % K], other);
    }
  }
  if (!works || o0 + o >= s.o || c0 + c >= s.c) return;
  const std::int64_t pairs = std::int64_t{s.o} * s.c, pair = std::int64_t{o0 + o} * s.c + c0 + c;
  float *parts = d.scratch + blockIdx.x * (K * K * pairs + s.o);
#pragma unroll
  for (int tap = 0; tap < K * K; ++tap)
    if (tap % LANES == lane) parts[tap * pairs + pair] = sums[tap / K][tap % K];
  if (c0 + c == 0 && lane == 0) parts[K * K * pairs + o0 + o] = bias;
}

// A block has 32 sums, each in eight slices that are added up last.
template <class S> __global__ void __launch_bounds__(256)
    conv_direct_totals(const ConvShape s, const ConvData<S> d, int shares) {
  in_turn();
  __shared__ float slices[8][32];
  const std::int64_t pairs = std::int64_t{s.o} * s.c, all = s.kh * s.kw * pairs + s.o;
  const std::int64_t at = blockIdx.x * std::int64_t{32} + threadIdx.x;
  float sum = 0;
#pragma unroll 8
  for (int i = threadIdx.y; i < (at < all ? shares : 0); i += 8) sum += d.scratch[i * all + at];
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || at >= all) return;
  sum = 0;
#pragma unroll
  for (int y = 0; y < 8; ++y) sum += slices[y][threadIdx.x];
  if (at >= all - s.o) {
    if (d.grad_bias) d.grad_bias[at - (all - s.o)] = narrow<S>(sum);
  } else if (d.grad_weight) {
    d.grad_weight[at % pairs * (s.kh * s.kw) + at / pairs] = narrow<S>(sum);
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
  p.by_wide = divider(wide), p.by_area = divider(std::int64_t{1} * high * wide), p.by_chunk = divider(p.chunk);
  const std::size_t shared = sizeof(float) * p.chunk * (high * wide + k * k * p.groups * outs);
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

}  // namespace

bool conv_direct_can(const ConvShape &s) {
  return s.groups == 1 && s.kh == s.kw && (s.kh == 3 || s.kh == 5) && s.sh == 1 && s.sw == 1 &&
         shared_of(tile_of(s), s) <= shared_limit && s.o <= 65535 && s.c <= 65535;
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
    std::copy(s.grad_strides, s.grad_strides + 4, p.x_strides);
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
