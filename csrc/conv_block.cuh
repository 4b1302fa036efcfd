// conv_block on a GPU: what its kernels are given, and which files have them.
//
//   conv_block_tensor*.cu   bfloat16, float16 and (as tf32) float32, channels-last, whole chunks of channels
//   conv_block_direct*.cu   3×3 and 5×5 filters at stride 1, plain float arithmetic: few channels, first layers
//   conv_block_any.cu       all the rest: any size, stride, groups, and double
#pragma once

#include "cuda.cuh"

#include <cstdint>
#include <type_traits>

namespace hw4fast {

template <class S> using Sum = std::conditional_t<std::is_same_v<S, double>, double, float>;

// [n, c, h, w] ⋆ [o, c / groups, kh, kw] → [n, o, oh, ow] → with the pool [n, o, oh / 2, ow / 2]
struct ConvShape {
  int n, c, h, w, o, kh, kw, groups, sh, sw, ph, pw, oh, ow, rows, cols;
  bool relu, pool;
  std::int64_t x_strides[4];     // of the input, in numbers
  std::int64_t grad_strides[4];  // of the output's gradient
};

// Memory of one call; what is null is not there or not wanted. Outputs are channels-last and dense.
template <class S> struct ConvData {
  const S *x, *weight, *bias;  // weight: [o, c / groups, kh, kw], dense
  S *out;                      // [n, rows, cols, o]
  std::uint8_t *code;          // [n, rows, cols, o]: which of the four was the largest, 4: none passed ReLU
  const S *grad;               // of the output
  S *grad_x;                   // [n, h, w, c]
  S *grad_weight, *grad_bias;
  float *scratch;
};

constexpr std::uint8_t dead = 4;  // DEAD of hw4fast/kernels/conv_block.py

template <class S> __device__ inline Sum<S> loaded(const S &x) {
  if constexpr (std::is_same_v<S, double>)
    return x;
  else
    return widen(x);
}
template <class S> __device__ inline S rounded(Sum<S> x) {
  if constexpr (std::is_same_v<S, double>)
    return x;
  else
    return narrow<S>(x);
}

// COUNT neighbouring numbers.
template <int COUNT, class S> struct alignas(COUNT * sizeof(S)) Neighbours {
  S number[COUNT];
};
template <int COUNT, class S> __device__ inline void read(const S *from, float (&x)[COUNT]) {
  const auto all = *reinterpret_cast<const Neighbours<COUNT, S> *>(from);
#pragma unroll
  for (int i = 0; i < COUNT; ++i) x[i] = widen(all.number[i]);
}
// Whether four neighbouring channels can be read at once, of `channels` that lie so.
template <class S> bool by_fours(const S *x, const std::int64_t (&strides)[4], int channels) {
  return channels % 4 == 0 && strides[1] == 1 && strides[0] % 4 == 0 && strides[2] % 4 == 0 && strides[3] % 4 == 0 &&
         reinterpret_cast<std::uintptr_t>(x) % (4 * sizeof(S)) == 0;
}

// COUNT neighbouring numbers on their way, with their codes, 8 bits each; not `there`: zeros.
template <int COUNT, class S> struct Fetched {
  Neighbours<COUNT, S> all;
  std::uint32_t codes = 0;
  bool there = false;

  __device__ void fetch(const S *from, const std::uint8_t *taken) {
    there = true;
    all = *reinterpret_cast<const Neighbours<COUNT, S> *>(from);
    if (!taken) return;
    if constexpr (COUNT == 4)
      codes = *reinterpret_cast<const std::uint32_t *>(taken);
    else
      codes = *taken;
  }
  __device__ unsigned code(int k) const { return codes >> 8 * k & 0xff; }
  __device__ float value(int k, unsigned place) const {
    return there && code(k) == place ? widen(all.number[k]) : 0.0f;
  }
};
// put(i, fetch(i)) of all i < `all`, by all threads of the block, each of which has BATCH of them on their way: what
// one fetches one by one it waits for one by one.
template <int BATCH, class Fetch, class Put>
__device__ inline void in_batches(int all, const Fetch &fetch, const Put &put) {
  const int threads = static_cast<int>(blockDim.x);
  for (int from = static_cast<int>(threadIdx.x); from < all; from += BATCH * threads) {
    decltype(fetch(0)) fetched[BATCH];
#pragma unroll
    for (int k = 0; k < BATCH; ++k)
      if (from + k * threads < all) fetched[k] = fetch(from + k * threads);
#pragma unroll
    for (int k = 0; k < BATCH; ++k)
      if (from + k * threads < all) put(from + k * threads, fetched[k]);
  }
}

// The gradient of the convolution's output at (image, o, y, x), from that of the block's output and the code.
template <class S>
__device__ inline Sum<S> unpooled(const ConvShape &s, const ConvData<S> &d, int image, int o, int y, int x) {
  const int side = s.pool ? 2 : 1, row = y / side, col = x / side;
  if (row >= s.rows || col >= s.cols) return 0;
  if (d.code) {
    const int code = d.code[((std::int64_t{image} * s.rows + row) * s.cols + col) * s.o + o];
    if (code != (s.pool ? y % 2 * 2 + x % 2 : 0)) return 0;
  }
  return loaded(
      d.grad[image * s.grad_strides[0] + o * s.grad_strides[1] + row * s.grad_strides[2] + col * s.grad_strides[3]]);
}

// Of four outputs of the convolution (one without the pool, of which `there`): what comes out, and its code. Of equal
// values the first is the largest, a NaN is larger than any number: the last, if there are several.
template <class T> __device__ inline T largest(const T (&four)[4], bool relu, int &code) {
  T best = four[0];
  code = 0;
#pragma unroll
  for (int k = 1; k < 4; ++k)
    if (four[k] > best || four[k] != four[k]) best = four[k], code = k;
  if (relu && best <= 0) best = 0, code = dead;
  return best;
}

bool conv_direct_can(const ConvShape &s);
template <class S> void conv_direct(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream);
std::int64_t conv_direct_scratch(const ConvShape &s);  // bytes that its backward pass needs
template <class S> void conv_direct_backward(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream);
bool conv_direct_weights_can(const ConvShape &s);
template <class S> void conv_direct_weights(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream);
template <class S> void conv_any(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream);
template <class S> void conv_any_backward(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream);

}  // namespace hw4fast
