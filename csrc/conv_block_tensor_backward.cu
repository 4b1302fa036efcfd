// Gradients of a convolution on tensor cores.
//
// First the gradient before pool and ReLU is written out, channels-last and with whole chunks of channels, floats
// rounded to tf32, and summed for the bias. The input's gradient is a convolution of it with the flipped weight
// (conv_block_tensor.cu; a stride above 1 puts zeros between its pixels). The weight's gradient is a product whose
// inner dimension are the outputs' pixels: rows are output channels, columns input channels, a sum per tap. Each block
// takes the taps, channels and a share of the pixels; the shares' sums are added up in order, so that the result is the
// same every time.
#include "conv_block_tensor_weights.cuh"

#include <algorithm>
#include <array>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
#endif

namespace hw4fast {

void bind_conv_tensor_backward(pybind11::module_ &m);
HW4FAST_CUDA_KERNEL(conv_block_tensor_backward, bind_conv_tensor_backward);

namespace {

struct Pack {  // out [rows, kh, kw, inner] of `row`, `deep`, `down`, `across` strides, zeros from `deep` on
  std::int64_t row_stride, deep_stride, down_stride, across_stride;
  int rows, kh, kw, inner, deep;
  bool flip;
};

template <class T> __global__ void __launch_bounds__(256) pack_kernel(const T *weight, T *out, const Pack p) {
  in_turn();
  let_next_begin();
  const unsigned taps = static_cast<unsigned>(p.kh * p.kw), inner = static_cast<unsigned>(p.inner);
  const unsigned all = static_cast<unsigned>(p.rows) * taps * inner;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < all; i += gridDim.x * blockDim.x) {
    const int k = static_cast<int>(i % inner), tap = static_cast<int>(i / inner % taps);
    const std::int64_t row = i / inner / taps;
    const int down = p.flip ? p.kh - 1 - tap / p.kw : tap / p.kw, across = p.flip ? p.kw - 1 - tap % p.kw : tap % p.kw;
    const std::int64_t at = row * p.row_stride + k * p.deep_stride + down * p.down_stride + across * p.across_stride;
    out[i] = k < p.deep ? factor(weight[at]) : narrow<T>(0.f);
  }
}

// The gradient of the convolution's outputs [n, high, wide, padded o], of which every step-th pixel is one; the rest 0.
struct Spread {
  const void *grad;
  const std::uint8_t *code;
  std::int64_t strides[4];
  void *out;
  float *bias_shares;  // [blocks.x, padded o] or null
  int n, o, rows, cols, chunks, high, wide, step_down, step_across, side;
  Divider by_wide, by_high, by_down, by_across;
  bool vectors;  // grad's and code's chunks are aligned
  Turn turn;
};

template <class T> struct Spreading {  // a chunk on its way
  static constexpr int numbers = 16 / sizeof(T);
  union Chunk {
    T number[numbers];
    uint4 bits;
  } g;
  union Codes {
    std::uint8_t code[numbers];
    std::uint32_t words[numbers / 4];
  } codes;
  int position;

  __device__ void fetch(const Spread &p, int chunk, int pixel) {
    const T *grad = static_cast<const T *>(p.grad);
    g.bits = uint4{0, 0, 0, 0}, position = 0;
#pragma unroll
    for (int i = 0; i < numbers / 4; ++i) codes.words[i] = 0;
    const int line = p.by_wide.quotient(pixel), x = pixel - line * p.wide;
    const int n = p.by_high.quotient(line), y = line - n * p.high, down = p.by_down.quotient(y);
    const int across = p.by_across.quotient(x), row = down / p.side, col = across / p.side;
    if (down * p.step_down != y || across * p.step_across != x || row >= p.rows || col >= p.cols) return;
    position = p.side == 2 ? down % 2 * 2 + across % 2 : 0;
    const int o = chunk * numbers;
    const T *from = grad + n * p.strides[0] + o * p.strides[1] + row * p.strides[2] + col * p.strides[3];
    const std::uint8_t *code =
        p.code ? p.code + ((std::int64_t{1} * n * p.rows + row) * p.cols + col) * p.o + o : nullptr;
#pragma unroll
    for (int i = 0; i < numbers / 4; ++i)
      codes.words[i] = code && p.vectors ? reinterpret_cast<const std::uint32_t *>(code)[i]
                                         : 0x01010101u * static_cast<unsigned>(position);
    if (p.vectors) {
      g.bits = *reinterpret_cast<const uint4 *>(from);
      return;
    }
#pragma unroll
    for (int i = 0; i < numbers; ++i)
      if (o + i < p.o) {
        g.number[i] = from[i * p.strides[1]];
        if (code) codes.code[i] = code[i];
      }
  }
  __device__ void write(const Spread &p, int chunk, int pixel, float (&sum)[numbers]) {
#pragma unroll
    for (int i = 0; i < numbers; ++i) {
      if (codes.code[i] != position) g.number[i] = narrow<T>(0.f);
      sum[i] += widen(g.number[i]);
      g.number[i] = factor(g.number[i]);
    }
    static_cast<uint4 *>(p.out)[std::int64_t{1} * pixel * p.chunks + chunk] = g.bits;
  }
};

// A block has threads.x chunks of channels (blocks.y counts on) × threads.y pixels at a time.
template <class T> __global__ void __launch_bounds__(256) spread_kernel(const Spread p) {
  begin_turn(p.turn);
  constexpr int numbers = 16 / sizeof(T);
  __shared__ float sums[256 * numbers];
  const int pixels = p.n * p.high * p.wide;
  const int chunk = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  float sum[numbers] = {};
  constexpr int batch = 4;  // chunks of a thread that are under way at once
  const std::int64_t further = gridDim.x * blockDim.y;
  if (chunk < p.chunks)
    for (std::int64_t from = std::int64_t{1} * blockIdx.x * blockDim.y + threadIdx.y; from < pixels;
         from += batch * further) {
      Spreading<T> spreading[batch];
#pragma unroll
      for (int k = 0; k < batch; ++k)
        if (from + k * further < pixels) spreading[k].fetch(p, chunk, static_cast<int>(from + k * further));
#pragma unroll
      for (int k = 0; k < batch; ++k)
        if (from + k * further < pixels) spreading[k].write(p, chunk, static_cast<int>(from + k * further), sum);
    }
  end_turn(p.turn);
  if (!p.bias_shares) return;
  const int width = static_cast<int>(blockDim.x) * numbers;
#pragma unroll
  for (int i = 0; i < numbers; ++i) sums[threadIdx.y * width + threadIdx.x * numbers + i] = sum[i];
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  if (thread >= width) return;
  float whole = 0;
  for (int y = 0; y < static_cast<int>(blockDim.y); ++y) whole += sums[y * width + thread];
  const int o = static_cast<int>(blockIdx.y) * width + thread;
  if (o < p.chunks * numbers) p.bias_shares[std::int64_t{1} * blockIdx.x * p.chunks * numbers + o] = whole;
}

int bytes_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }
unsigned blocks_for(std::int64_t numbers) {
  return static_cast<unsigned>(
      std::min<std::int64_t>(std::max<std::int64_t>(up(numbers, 256), 1), 8 * multiprocessors()));
}

struct Backward {                  // sizes, and where in the scratch what lies
  TensorConvShape weights, input;  // of the convolutions for the gradients; `weights` has the forward pass's own shape
  int o_padded, high, wide;        // of the gradient before pool and ReLU
  WeightGradient gradient;
  int cc, oc, shares, bias_shares;  // chunks of a shared pixel of the input and of the gradient
  std::size_t shared;
  std::size_t spread_at, dilated_at, pack_at, shares_at, bias_at, bytes;
};

// f of the weight's gradient's tile.
template <class T, class F> void with_tile(int cc, int oc, const F &f) {
  if (cc == 8)
    oc == 8 ? f(WeightTile<T, 8, 8>{}) : f(WeightTile<T, 8, 4>{});
  else
    oc == 8 ? f(WeightTile<T, 2, 8>{}) : f(WeightTile<T, 2, 4>{});
}

Backward plan_backward(Dtype dtype, const TensorConvShape &s) {
  Backward b{};
  const int bytes = bytes_of(dtype), numbers = 16 / bytes, cores = multiprocessors();
  b.o_padded = static_cast<int>(up(s.o, numbers)) * numbers;
  b.high = (s.h + 2 * s.ph - s.kh) / s.sh + 1, b.wide = (s.w + 2 * s.pw - s.kw) / s.sw + 1;
  b.weights = s, b.weights.relu = b.weights.pool = false, b.weights.rows = b.high, b.weights.cols = b.wide;
  const bool dilated = s.sh > 1 || s.sw > 1;
  b.input = {s.n, (b.high - 1) * s.sh + 1, (b.wide - 1) * s.sw + 1, b.o_padded, s.c, s.kh,  s.kw, 1,
             1,   s.kh - 1 - s.ph,         s.kw - 1 - s.pw,         s.h,        s.w, false, false};

  if (1.0 * s.n * b.input.h * b.input.w > 0x7fffffff || 1.0 * s.o * s.c * s.kh * s.kw + s.o > 0x7fffffff)
    throw std::invalid_argument("conv_block on tensor cores: over 2^31 outputs per channel");
  const std::int64_t most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  b.gradient.o_chunks = b.o_padded / numbers, b.oc = b.gradient.o_chunks > 4 ? 8 : 4;
  for (int cc = tensor_chunks(s.c / numbers); cc; cc = cc == 8 && !b.shared ? 2 : 0)
    for (int strips = 1; strips == 1 || up(b.wide, strips) >= 7; ++strips) {
      TensorConv other{};
      tensor_tiles(other, b.weights, bytes, pixel_tile, cc, strips);
      const std::int64_t picture = std::int64_t{16} * other.pixels * cc, grad = std::int64_t{16} * pixel_tile * b.oc;
      const std::int64_t shared = 1024 + 2 * (picture + grad + pixel_tile * std::int64_t{sizeof(int)});
      const std::int64_t moved = std::int64_t{1} * other.pixels * other.blocks * other.strips;
      const TensorConv &best = b.gradient.conv;
      if (shared > most || (b.shared && moved >= std::int64_t{1} * best.pixels * best.blocks * best.strips)) continue;
      b.gradient.conv = other, b.shared = static_cast<std::size_t>(shared), b.cc = cc;
    }
  if (!b.shared) return b;
  tensor_dividers(b.gradient.conv);
  int taps = 0, tap_warps = 0;
  const auto ask = [&](auto tile) { taps = tile.taps, tap_warps = tile.tap_warps; };
  bytes == 4 ? with_tile<float>(b.cc, b.oc, ask) : with_tile<__half>(b.cc, b.oc, ask);
  WeightGradient &gradient = b.gradient;
  gradient.o_tiles = static_cast<int>(up(gradient.o_chunks, b.oc));
  gradient.tap_groups = static_cast<int>(up(s.kh * s.kw, taps));
  gradient.taps_each = static_cast<int>(up(s.kh * s.kw, gradient.tap_groups * tap_warps));
  const int kinds = std::max(1, gradient.conv.parts * gradient.o_tiles * gradient.tap_groups);
  // Two blocks fill a multiprocessor better than one, where each still has tiles enough to be worth a share's sums.
  const int tiles = gradient.conv.blocks * gradient.conv.strips;
  const bool two = 2 * static_cast<std::int64_t>(b.shared) <= most && tiles >= 8 * cores / kinds;
  b.shares = std::max(1, std::min(tiles, (two ? 2 : 1) * cores / kinds));
  b.bias_shares = std::max(1, 2 * cores);

  std::size_t at = 0;
  auto take = [&](std::size_t size) {
    const std::size_t here = at;
    at += (size + 255) / 256 * 256;
    return here;
  };
  const std::size_t pixel = static_cast<std::size_t>(b.o_padded) * bytes * s.n, taps_all = std::size_t{1} * s.kh * s.kw;
  b.spread_at = take(pixel * b.high * b.wide);
  b.dilated_at = dilated ? take(pixel * b.input.h * b.input.w) : b.spread_at;
  b.pack_at = take(taps_all * s.c * b.o_padded * bytes);
  b.shares_at = take(taps_all * s.c * s.o * b.shares * sizeof(float));
  b.bias_at = take(std::size_t{1} * b.bias_shares * b.o_padded * sizeof(float));
  b.bytes = at;
  return b;
}

void spread_over(Spread &p, int high, int wide, int step_down, int step_across) {
  p.high = high, p.wide = wide, p.step_down = step_down, p.step_across = step_across;
  p.by_high = divider(high), p.by_wide = divider(wide);
  p.by_down = divider(step_down), p.by_across = divider(step_across);
}

template <class T> void pack(const void *weight, void *packed, const Pack &p, cudaStream_t stream) {
  const std::int64_t all = std::int64_t{1} * p.rows * p.kh * p.kw * p.inner;
  launch("conv_block_tensor (pack)", pack_kernel<T>, Grid{dim3(blocks_for(all)), dim3(256), 0, stream},
         static_cast<const T *>(weight), static_cast<T *>(packed), p);
}

template <class T> void backward(Dtype dtype, const TensorConvShape &s, const Backward &b, const TensorGradients &of,
                                 const TensorChoice &choice, cudaStream_t stream) {
  char *scratch = static_cast<char *>(of.scratch);
  constexpr int numbers = 16 / sizeof(T);
  const bool dilated = s.sh > 1 || s.sw > 1;
  float *bias_shares = reinterpret_cast<float *>(scratch + b.bias_at);
  if (of.grad_x) {
    const Pack flipped{of.weight_strides[1],
                       of.weight_strides[0],
                       of.weight_strides[2],
                       of.weight_strides[3],
                       s.c,
                       s.kh,
                       s.kw,
                       b.o_padded,
                       s.o,
                       true};
    pack<T>(of.weight, scratch + b.pack_at, flipped, stream);
  }
  Spread spread{};
  spread.turn = of.grad_x ? Turn::end : Turn::start;  // beside the weight's packing
  spread.grad = of.grad, spread.code = of.code, spread.out = scratch + b.spread_at;
  spread.bias_shares = of.grad_bias ? bias_shares : nullptr;
  spread.n = s.n, spread.o = s.o, spread.rows = s.rows, spread.cols = s.cols, spread.side = s.pool ? 2 : 1;
  spread.chunks = b.o_padded / numbers;
  spread_over(spread, b.high, b.wide, 1, 1);
  std::copy(std::begin(of.grad_strides), std::end(of.grad_strides), spread.strides);
  spread.vectors = s.o % numbers == 0 && of.grad_strides[1] == 1 &&
                   (reinterpret_cast<std::uintptr_t>(of.grad) | reinterpret_cast<std::uintptr_t>(of.code)) % 16 == 0;
  for (int i : {0, 2, 3}) spread.vectors &= of.grad_strides[i] % numbers == 0;
  int wide = 1;
  while (wide < spread.chunks && wide < 32) wide *= 2;
  const Grid grid{dim3(static_cast<unsigned>(b.bias_shares), static_cast<unsigned>(up(spread.chunks, wide))),
                  dim3(static_cast<unsigned>(wide), static_cast<unsigned>(256 / wide)), 0, stream};
  launch("conv_block_tensor (gradient)", spread_kernel<T>, grid, spread);
  if (dilated && of.grad_x) {
    Spread wider = spread;
    wider.out = scratch + b.dilated_at, wider.bias_shares = nullptr, wider.turn = Turn::start;
    spread_over(wider, b.input.h, b.input.w, s.sh, s.sw);
    launch("conv_block_tensor (gradient)", spread_kernel<T>, grid, wider);
  }
  if (of.grad_weight) {
    WeightGradient gradient = b.gradient;
    gradient.conv.x = of.x, gradient.grad = scratch + b.spread_at;
    gradient.shares = reinterpret_cast<float *>(scratch + b.shares_at);
    const int kinds = gradient.conv.parts * gradient.o_tiles * gradient.tap_groups;
    const Grid blocks{dim3(static_cast<unsigned>(b.shares), static_cast<unsigned>(kinds)), dim3(tensor_threads),
                      b.shared, stream};
    with_tile<T>(b.cc, b.oc, [&](auto tile) {
      launch("conv_block_tensor (weight's gradient)", weight_gradient_kernel<T, tile.input_chunks, tile.grad_chunks>,
             blocks, gradient);
    });
  }
  if (of.grad_x)  // beside the weight's gradient: neither fills a multiprocessor
    tensor_conv(dtype, b.input, scratch + b.dilated_at, scratch + b.pack_at, nullptr, of.grad_x, nullptr, choice,
                stream, of.grad_weight ? Turn::end : Turn::start);
  if (!of.grad_weight && !of.grad_bias) return;
  Reduce reduce{reinterpret_cast<const float *>(scratch + b.shares_at),
                bias_shares,
                of.grad_weight,
                of.grad_bias,
                {},
                b.shares,
                b.bias_shares,
                s.o,
                s.c,
                s.kh,
                s.kw,
                b.o_padded};
  std::copy(std::begin(of.weight_strides), std::end(of.weight_strides), reduce.strides);
  const std::int64_t all = std::int64_t{1} * s.o * s.c * s.kh * s.kw + s.o;
  launch("conv_block_tensor (sums)", reduce_kernel<T>,
         Grid{dim3(static_cast<unsigned>(up(all, 32))), dim3(32, 8), 0, stream}, reduce);
}

}  // namespace

void tensor_pack(Dtype dtype, const void *weight, const std::int64_t (&strides)[4], int o, int c, int kh, int kw,
                 void *packed, cudaStream_t stream) {
  const Pack plain{strides[0], strides[1], strides[2], strides[3], o, kh, kw, c, c, false};
  if (dtype == Dtype::float32)
    pack<float>(weight, packed, plain, stream);
  else  // only moved: 16 bits are 16 bits
    pack<__half>(weight, packed, plain, stream);
}

bool tensor_conv_backward_can(Dtype dtype, const TensorConvShape &s) {
  if (!tensor_conv_can(dtype, s)) return false;
  try {
    const Backward b = plan_backward(dtype, s);
    return b.shared > 0 && tensor_conv_can(dtype, b.input);
  } catch (const std::invalid_argument &) {  // too large
    return false;
  }
}

std::size_t tensor_conv_backward_scratch(Dtype dtype, const TensorConvShape &s) {
  return plan_backward(dtype, s).bytes;
}

void tensor_conv_backward(Dtype dtype, const TensorConvShape &s, const TensorGradients &of, const TensorChoice &choice,
                          cudaStream_t stream) {
  if (!tensor_conv_backward_can(dtype, s)) throw std::invalid_argument("conv_block: not for tensor cores");
  if (reinterpret_cast<std::uintptr_t>(of.x) % 16 || reinterpret_cast<std::uintptr_t>(of.scratch) % 16)
    throw std::invalid_argument("conv_block on tensor cores: tensors must begin at a multiple of 16 bytes");
  const Backward b = plan_backward(dtype, s);
  conv_block_tensor_backward_kernel.count();
  if (dtype == Dtype::bfloat16)
    backward<__nv_bfloat16>(dtype, s, b, of, choice, stream);
  else if (dtype == Dtype::float16)
    backward<__half>(dtype, s, b, of, choice, stream);
  else
    backward<float>(dtype, s, b, of, choice, stream);
}

#ifndef __CUDA_ARCH__
void bind_conv_tensor_backward(pybind11::module_ &m) {
  using Numbers = std::array<int, 13>;
  using Strides = std::array<std::int64_t, 4>;
  const auto shape_of = [](const Numbers &x, bool relu, bool pool) {
    return TensorConvShape{x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8], x[9], x[10], x[11], x[12], relu, pool};
  };
  m.def("conv_tensor_backward_scratch", [shape_of](int dtype, const Numbers &shape, bool relu, bool pool) {
    return tensor_conv_backward_scratch(static_cast<Dtype>(dtype), shape_of(shape, relu, pool));
  });
  // weight of these strides → [o, kh, kw, c]; shape: o, c, kh, kw
  m.def("conv_tensor_pack", [](int dtype, std::uintptr_t weight, const Strides &strides,
                               const std::array<int, 4> &shape, std::uintptr_t packed, std::uintptr_t stream) {
    const auto [o, c, kh, kw] = shape;
    const std::int64_t plain[4] = {strides[0], strides[1], strides[2], strides[3]};
    tensor_pack(static_cast<Dtype>(dtype), pointer<const void>(weight), plain, o, c, kh, kw, pointer<void>(packed),
                stream_of(stream));
  });
  // inputs: x, weight, grad, code; outputs: gradients of x, weight and bias; 0 for none
  m.def("conv_tensor_backward",
        [shape_of](int dtype, const Numbers &shape, bool relu, bool pool, const std::array<std::uintptr_t, 4> &inputs,
                   const Strides &weight_strides, const Strides &grad_strides,
                   const std::array<std::uintptr_t, 3> &outputs, std::uintptr_t scratch, std::uintptr_t stream) {
          TensorGradients of{pointer<const void>(inputs[0]),
                             pointer<const void>(inputs[1]),
                             pointer<const void>(inputs[2]),
                             pointer<const std::uint8_t>(inputs[3]),
                             {},
                             {},
                             pointer<void>(outputs[0]),
                             pointer<void>(outputs[1]),
                             pointer<void>(outputs[2]),
                             pointer<void>(scratch)};
          std::copy(weight_strides.begin(), weight_strides.end(), of.weight_strides);
          std::copy(grad_strides.begin(), grad_strides.end(), of.grad_strides);
          tensor_conv_backward(static_cast<Dtype>(dtype), shape_of(shape, relu, pool), of, {}, stream_of(stream));
        });
}
#endif

}  // namespace hw4fast
