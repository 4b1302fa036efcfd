// conv_block_direct.cu's gradient of the weight. Only one of a window's four places has a gradient, and ReLU leaves
// some windows none: of those that have one, K² products per pair of an output and an input channel are summed up.
//
// Eight input channels on (conv_direct_warps): a warp has eight output and sixteen input channels, whose (K + 1)²
// inputs of a window it takes to registers. The place, the same for all lanes, says which of them count: four pieces of
// code, each of which knows its registers. One half of the lanes has the filter's upper rows, the other the lower ones.
//
// Blocks have shares of the images' rows; a second kernel adds their sums in order: the same bits with every call.
#include "conv_block.cuh"

#include <algorithm>
#include <type_traits>

namespace hw4fast {
namespace {

constexpr int pair_threads = 512, warps = 8, warp_outs = 8, warp_ins = 16;
constexpr std::int64_t pairs_wanted = 40 << 10, warps_wanted = 66 << 10;  // bytes of shared memory

// What one block has: a tile of output times input channels, and a share of the images' rows, piece by piece.
struct Tile {
  bool by_warps;
  int outs, ins;  // of a tile
  int out_tiles, in_tiles;
  int lanes;                           // of a pair, not by_warps: 1 or 32
  int rows, down;                      // of the output that a piece has; such pieces of an image
  int shares;                          // of the pieces of all images
  int high, wide;                      // of the input that a piece sees
  int pitch;                           // numbers from one of its rows to the next
  bool input_by_fours, grad_by_fours;  // neighbouring channels can be read four at once
  Divider by_wide, by_area, by_cols, by_ins, by_outs;
};

// Numbers that a thread of conv_direct_warps gives another one: its sums, and one more, for the banks.
__host__ __device__ constexpr int exchanged_each(int k) { return warp_outs * ((k + 1) / 2 * k + 1) + 1; }

// Of the first set's 4 · outs threads.
std::int64_t exchanged_of(int k, int outs) { return std::int64_t{16} * exchanged_each(k) * outs; }

std::int64_t shared_of(const Tile &t, const ConvShape &s) {
  const std::int64_t places = std::int64_t{1} * t.rows * s.cols * t.outs;
  if (!t.by_warps) return std::int64_t{4} * t.high * t.wide * t.ins + 5 * places;
  return std::max(std::int64_t{4} * (t.high + 2) * t.pitch + 5 * places, exchanged_of(s.kh, t.outs));
}

// Bytes that a block may ask for: 64 KiB on a GPU of compute capability 7.5, 99 and more on younger ones.
std::int64_t shared_limit() { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

Tile tile_of(const ConvShape &s) {
  Tile t{};
  t.by_warps = s.c >= 8 && s.o >= 4;
  t.lanes = std::int64_t{s.o} * s.c <= 128 ? 32 : 1;
  t.ins = t.by_warps ? warp_ins : std::min(s.c, t.lanes == 1 ? 16 : 4);
  const std::int64_t most = shared_limit();
  const int warps_outs = s.o <= 8 ? 8 : s.o <= 16 || exchanged_of(s.kh, 32) > most ? 16 : 32;
  t.outs = t.by_warps ? warps_outs : std::min(s.o, pair_threads / t.lanes / t.ins);
  t.in_tiles = (s.c + t.ins - 1) / t.ins, t.out_tiles = (s.o + t.outs - 1) / t.outs;
  const int side = s.pool ? 2 : 1, tiles = t.in_tiles * t.out_tiles;
  t.wide = side * s.cols + s.kw - 1;
  // so that the halves of a warp, (K + 1) / 2 rows apart, read different banks
  const int wanted = s.kw == 5 ? 16 : 8, modulus = s.kw == 5 ? 32 : 16;
  t.pitch = t.wide * t.ins;
  if (t.by_warps) t.pitch += (wanted + modulus - t.pitch % modulus) % modulus;
  for (t.rows = std::max(1, s.rows); t.rows > 0; --t.rows) {
    t.high = side * t.rows + s.kh - 1;
    if (t.rows == 1 || shared_of(t, s) <= std::min(most, t.by_warps ? warps_wanted : pairs_wanted)) break;
  }
  t.down = (s.rows + t.rows - 1) / t.rows;
  const std::int64_t pieces = std::int64_t{s.n} * t.down, per_sm = t.by_warps ? 1 : 2;
  t.shares =
      static_cast<int>(std::min<std::int64_t>(pieces, std::max<std::int64_t>(1, per_sm * multiprocessors() / tiles)));
  t.by_wide = divider(t.wide), t.by_area = divider(std::int64_t{1} * t.high * t.wide);
  t.by_cols = divider(std::max(1, s.cols)), t.by_ins = divider(t.ins), t.by_outs = divider(t.outs);
  return t;
}

// What a piece takes to shared memory: its input as [high][pitch], pixels of INS channels (0: of t.ins),
template <int INS, int COUNT, class S> __device__ inline void load_input(const ConvShape &s, const ConvData<S> &d,
                                                                         const Tile &t, float *input, int image,
                                                                         int row0, int c0) {
  const int ins = INS ? INS : t.ins, side = s.pool ? 2 : 1, area = t.high * t.wide;
  const bool by_channel = s.x_strides[1] == 1;  // neighbouring threads read neighbouring numbers
  const auto place_of = [&](int i, int &c, int &down, int &across) {
    int pixel = INS ? i * COUNT / INS : t.by_ins.quotient(i);
    c = i * COUNT - pixel * ins;
    if (COUNT == 1 && !by_channel) c = t.by_area.quotient(i), pixel = i - c * area;
    down = t.by_wide.quotient(pixel), across = pixel - down * t.wide;
  };
  const auto fetch = [&](int i) {
    Fetched<COUNT, S> found;
    int c, down, across;
    place_of(i, c, down, across);
    const int y = side * row0 + down - s.ph, x = across - s.pw;
    if (c0 + c < s.c && y >= 0 && y < s.h && x >= 0 && x < s.w)
      found.fetch(d.x + image * s.x_strides[0] + (c0 + c) * s.x_strides[1] + y * s.x_strides[2] + x * s.x_strides[3],
                  nullptr);
    return found;
  };
  const auto put = [&](int i, const Fetched<COUNT, S> &found) {
    int c, down, across;
    place_of(i, c, down, across);
#pragma unroll
    for (int k = 0; k < COUNT; ++k) input[down * t.pitch + across * ins + c + k] = found.value(k, 0);
  };
  in_batches<COUNT == 4 || !INS ? 4 : 8>(area * ins / COUNT, fetch, put);
}

// and the gradients of `rows` rows with their codes, as [rows][cols][outs].
template <int COUNT, class S> __device__ inline void load_grad(const ConvShape &s, const ConvData<S> &d, const Tile &t,
                                                               float *grad, std::uint8_t *code, int image, int row0,
                                                               int rows, int o0) {
  const auto fetch = [&](int i) {
    Fetched<COUNT, S> found;
    const int window = t.by_outs.quotient(i * COUNT), o = o0 + i * COUNT - window * t.outs;
    const int down = t.by_cols.quotient(window), row = row0 + down, col = window - down * s.cols;
    const std::int64_t at = ((std::int64_t{image} * s.rows + row) * s.cols + col) * s.o + o;
    if (o < s.o)
      found.fetch(d.grad + image * s.grad_strides[0] + o * s.grad_strides[1] + row * s.grad_strides[2] +
                      col * s.grad_strides[3],
                  d.code ? d.code + at : nullptr);
    return found;
  };
  const auto put = [&](int i, const Fetched<COUNT, S> &found) {
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
      const unsigned place = found.there ? found.code(k) : dead;
      grad[i * COUNT + k] = place != dead ? widen(found.all.number[k]) : 0.0f;
      code[i * COUNT + k] = static_cast<std::uint8_t>(place);
    }
  };
  in_batches<COUNT == 4 ? 2 : 4>(rows * s.cols * t.outs / COUNT, fetch, put);
}

// Few input channels: a thread has a pair, or where there are few pairs a warp has one, and its lanes take turns at the
// columns. Blocks: shares, tiles.
template <class S, int K, int LANES> __global__ void __launch_bounds__(pair_threads)
    conv_direct_pairs(const ConvShape s, const ConvData<S> d, const Tile t) {
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
  float sums[K][K] = {}, bias = 0;
  for (std::int64_t at = begin; at < end; ++at) {
    const int image = static_cast<int>(at / t.down), row0 = static_cast<int>(at % t.down) * t.rows;
    const int rows = min(t.rows, s.rows - row0);
    __syncthreads();
    load_input<0, 1>(s, d, t, input, image, row0, c0);
    load_grad<1>(s, d, t, grad, code, image, row0, rows, o0);
    __syncthreads();
    if (!works) continue;
    int row = lane / s.cols, col = lane % s.cols;
    for (int k = lane; k < rows * s.cols; k += LANES) {
      const int i = k * t.outs + o, place = code[i] & 3;  // of the dead any
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

// Blocks: shares, tiles. Warps: outs / 8 side by side, the others take turns with them at the windows.
template <class S, int K> __global__ void __launch_bounds__(32 * warps, 1)
    conv_direct_warps(const ConvShape s, const ConvData<S> d, const Tile t) {
  in_turn();
  constexpr int rows_each = (K + 1) / 2, taps = rows_each * K;  // of half a warp; the lower one's last row is none
  HW4FAST_SHARED(shared);
  float *input = reinterpret_cast<float *>(shared), *grad = input + (t.high + 2) * t.pitch;
  std::uint8_t *code = reinterpret_cast<std::uint8_t *>(grad + t.rows * s.cols * t.outs);
  const int o0 = static_cast<int>(blockIdx.y) / t.in_tiles * t.outs;
  const int c0 = static_cast<int>(blockIdx.y) % t.in_tiles * t.ins;
  const int lane = static_cast<int>(threadIdx.x) % 32, c = lane % warp_ins, half = lane / warp_ins;
  const int beside = t.outs / warp_outs, sets = warps / beside;
  const int warp = static_cast<int>(threadIdx.x) / 32 % beside, set = static_cast<int>(threadIdx.x) / 32 / beside;
  const int side = s.pool ? 2 : 1;
  const std::int64_t pieces = std::int64_t{s.n} * t.down;
  const std::int64_t begin = pieces * blockIdx.x / t.shares, end = pieces * (blockIdx.x + 1) / t.shares;
  float sums[warp_outs][taps] = {}, bias[warp_outs] = {};
  for (std::int64_t piece = begin; piece < end; ++piece) {
    const int image = static_cast<int>(piece / t.down), row0 = static_cast<int>(piece % t.down) * t.rows;
    const int rows = min(t.rows, s.rows - row0);
    __syncthreads();
    t.input_by_fours ? load_input<warp_ins, 4>(s, d, t, input, image, row0, c0)
                     : load_input<warp_ins, 1>(s, d, t, input, image, row0, c0);
    t.grad_by_fours ? load_grad<4>(s, d, t, grad, code, image, row0, rows, o0)
                    : load_grad<1>(s, d, t, grad, code, image, row0, rows, o0);
    __syncthreads();
#pragma unroll 1
    for (int window = set; window < rows * s.cols; window += sets) {
      const int row = t.by_cols.quotient(window), col = window - row * s.cols;
      const float *from = input + (side * row + half * rows_each) * t.pitch + side * col * warp_ins + c;
      float seen[rows_each + 1][K + 1];
#pragma unroll
      for (int i = 0; i <= rows_each; ++i)
#pragma unroll
        for (int j = 0; j <= K; ++j) seen[i][j] = from[i * t.pitch + j * warp_ins];
      float g[warp_outs];
      read<4>(grad + window * t.outs + warp * warp_outs, *reinterpret_cast<float (*)[4]>(g));
      read<4>(grad + window * t.outs + warp * warp_outs + 4, *reinterpret_cast<float (*)[4]>(g + 4));
      const uint2 codes = *reinterpret_cast<const uint2 *>(code + window * t.outs + warp * warp_outs);
#pragma unroll
      for (int k = 0; k < warp_outs; ++k) {
        const unsigned place = (k < 4 ? codes.x : codes.y) >> 8 * (k % 4) & 0xff;  // the same for all lanes
        const auto add = [&](auto down, auto across) {
          constexpr int y = decltype(down)::value, x = decltype(across)::value;
          bias[k] += g[k];
#pragma unroll
          for (int tap = 0; tap < taps; ++tap) sums[k][tap] += g[k] * seen[tap / K + y][tap % K + x];
        };
        using Zero = std::integral_constant<int, 0>;
        using One = std::integral_constant<int, 1>;
        if (place == 0)
          add(Zero{}, Zero{});
        else if (place == 1)
          add(Zero{}, One{});
        else if (place == 2)
          add(One{}, Zero{});
        else if (place == 3)
          add(One{}, One{});
      }
    }
  }
  // the sets' sums, in order
  float *exchanged = reinterpret_cast<float *>(shared) + (32 * warp + lane) * exchanged_each(K);
  for (int other = 1; other < sets; ++other) {
    __syncthreads();
    if (set == other) {
#pragma unroll
      for (int k = 0; k < warp_outs; ++k) {
#pragma unroll
        for (int tap = 0; tap < taps; ++tap) exchanged[k * taps + tap] = sums[k][tap];
        exchanged[warp_outs * taps + k] = bias[k];
      }
    }
    __syncthreads();
    if (set) continue;
#pragma unroll
    for (int k = 0; k < warp_outs; ++k) {
#pragma unroll
      for (int tap = 0; tap < taps; ++tap) sums[k][tap] += exchanged[k * taps + tap];
      bias[k] += exchanged[warp_outs * taps + k];
    }
  }
  if (set) return;
  const std::int64_t pairs = std::int64_t{s.o} * s.c;
  float *parts = d.scratch + blockIdx.x * (K * K * pairs + s.o);
#pragma unroll
  for (int k = 0; k < warp_outs; ++k) {
    const int o = o0 + warp * warp_outs + k;
    if (o >= s.o) break;
    if (c0 == 0 && lane == 0) parts[K * K * pairs + o] = bias[k];
    if (c0 + c >= s.c) continue;
#pragma unroll
    for (int tap = 0; tap < taps; ++tap)
      if (half * taps + tap < K * K) parts[(half * taps + tap) * pairs + std::int64_t{o} * s.c + c0 + c] = sums[k][tap];
  }
}

// The shares' sums: a block has 32, each in eight slices that are added up last.
template <class S> __global__ void __launch_bounds__(256)
    conv_direct_totals(const ConvShape s, const ConvData<S> d, int shares) {
  in_turn();
  __shared__ float slices[8][32];
  const std::int64_t pairs = std::int64_t{s.o} * s.c, all = s.kh * s.kw * pairs + s.o;
  const std::int64_t at = blockIdx.x * std::int64_t{32} + threadIdx.x;
  float sum = 0;
  if (at < all)
#pragma unroll 8
    for (int i = static_cast<int>(threadIdx.y); i < shares; i += 8) sum += d.scratch[i * all + at];
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

}  // namespace

bool conv_direct_weights_can(const ConvShape &s) { return shared_of(tile_of(s), s) <= shared_limit(); }

std::int64_t conv_direct_scratch(const ConvShape &s) {
  return std::int64_t{4} * tile_of(s).shares * (std::int64_t{s.kh} * s.kw * s.o * s.c + s.o);
}

template <class S> void conv_direct_weights(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream) {
  Tile t = tile_of(s);
  t.input_by_fours = by_fours(d.x, s.x_strides, s.c),
  t.grad_by_fours = by_fours(d.grad, s.grad_strides, s.o) && reinterpret_cast<std::uintptr_t>(d.code) % 4 == 0;
  const int threads = t.by_warps ? 32 * warps : (t.outs * t.ins * t.lanes + 31) / 32 * 32;
  const Grid grid{dim3(t.shares, t.in_tiles * t.out_tiles), dim3(threads), static_cast<std::size_t>(shared_of(t, s)),
                  stream};
  const auto either = [&](auto three, auto five) { launch("conv_block", s.kh == 3 ? three : five, grid, s, d, t); };
  if (t.by_warps)
    either(conv_direct_warps<S, 3>, conv_direct_warps<S, 5>);
  else if (t.lanes == 1)
    either(conv_direct_pairs<S, 3, 1>, conv_direct_pairs<S, 5, 1>);
  else
    either(conv_direct_pairs<S, 3, 32>, conv_direct_pairs<S, 5, 32>);
  const std::int64_t all = std::int64_t{s.kh} * s.kw * s.o * s.c + s.o;
  launch("conv_block", conv_direct_totals<S>,
         Grid{dim3(static_cast<unsigned>((all + 31) / 32)), dim3(32, 8), 0, stream}, s, d, t.shares);
}

template void conv_direct_weights(const ConvShape &, const ConvData<float> &, cudaStream_t);
template void conv_direct_weights(const ConvShape &, const ConvData<__nv_bfloat16> &, cudaStream_t);
template void conv_direct_weights(const ConvShape &, const ConvData<__half> &, cudaStream_t);

}  // namespace hw4fast
