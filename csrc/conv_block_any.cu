// conv_block for what no faster kernel takes: a thread finds an output, a block a weight's gradient.
#include "conv_block.cuh"

#include <algorithm>

namespace hw4fast {
namespace {

constexpr int threads = 256;

template <class S>
__device__ inline Sum<S> sum_at(const ConvShape &s, const ConvData<S> &d, int image, int o, int y, int x) {
  const int each = s.c / s.groups, first = s.groups > 1 ? o / (s.o / s.groups) * each : 0;
  Sum<S> sum = d.bias ? loaded(d.bias[o]) : Sum<S>(0);
  for (int c = 0; c < each; ++c)
    for (int i = 0; i < s.kh; ++i) {
      const int row = y * s.sh + i - s.ph;
      if (row < 0 || row >= s.h) continue;
      for (int j = 0; j < s.kw; ++j) {
        const int col = x * s.sw + j - s.pw;
        if (col < 0 || col >= s.w) continue;
        sum += loaded(d.x[image * s.x_strides[0] + (first + c) * s.x_strides[1] + row * s.x_strides[2] +
                          col * s.x_strides[3]]) *
               loaded(d.weight[((std::int64_t{o} * each + c) * s.kh + i) * s.kw + j]);
      }
    }
  return sum;
}

template <class S> __global__ void __launch_bounds__(threads) conv_any_forward(const ConvShape s, const ConvData<S> d) {
  in_turn();
  const std::int64_t n = std::int64_t{s.n} * s.rows * s.cols * s.o, step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t i = blockIdx.x * std::int64_t{threads} + threadIdx.x; i < n; i += step) {
    const int o = static_cast<int>(i % s.o), col = static_cast<int>(i / s.o % s.cols);
    const int row = static_cast<int>(i / s.o / s.cols % s.rows), image = static_cast<int>(i / s.o / s.cols / s.rows);
    int code = 0;
    Sum<S> value;
    if (s.pool) {
      Sum<S> four[4];
      for (int k = 0; k < 4; ++k) four[k] = sum_at(s, d, image, o, 2 * row + k / 2, 2 * col + k % 2);
      value = largest(four, s.relu, code);
    } else {
      value = sum_at(s, d, image, o, row, col);
      if (s.relu && value <= 0) value = 0, code = dead;
    }
    d.out[i] = rounded<S>(value);
    if (d.code) d.code[i] = static_cast<std::uint8_t>(code);
  }
}

template <class S> __global__ void __launch_bounds__(threads) conv_any_inputs(const ConvShape s, const ConvData<S> d) {
  in_turn();
  const int each = s.c / s.groups, outs = s.o / s.groups;
  const std::int64_t n = std::int64_t{s.n} * s.h * s.w * s.c, step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t at = blockIdx.x * std::int64_t{threads} + threadIdx.x; at < n; at += step) {
    const int c = static_cast<int>(at % s.c), x = static_cast<int>(at / s.c % s.w);
    const int y = static_cast<int>(at / s.c / s.w % s.h), image = static_cast<int>(at / s.c / s.w / s.h);
    const int first = c / each * outs;
    Sum<S> sum = 0;
    for (int i = 0; i < s.kh; ++i) {
      const int down = y + s.ph - i;
      if (down < 0 || down % s.sh || down / s.sh >= s.oh) continue;
      for (int j = 0; j < s.kw; ++j) {
        const int across = x + s.pw - j;
        if (across < 0 || across % s.sw || across / s.sw >= s.ow) continue;
        for (int o = first; o < first + outs; ++o)
          sum += unpooled(s, d, image, o, down / s.sh, across / s.sw) *
                 loaded(d.weight[((std::int64_t{o} * each + c % each) * s.kh + i) * s.kw + j]);
      }
    }
    d.grad_x[at] = rounded<S>(sum);
  }
}

// Block: a weight, or behind all of them a bias.
template <class S> __global__ void __launch_bounds__(threads) conv_any_weights(const ConvShape s, const ConvData<S> d) {
  in_turn();
  __shared__ Sum<S> parts[threads];
  const int each = s.c / s.groups;
  const std::int64_t weights = std::int64_t{s.o} * each * s.kh * s.kw;
  const std::int64_t first = d.grad_weight ? 0 : weights, last = weights + (d.grad_bias ? s.o : 0);
  for (std::int64_t at = first + blockIdx.x; at < last; at += gridDim.x) {
    const bool is_bias = at >= weights;
    const int j = static_cast<int>(at % s.kw), i = static_cast<int>(at / s.kw % s.kh);
    const int o = static_cast<int>(is_bias ? at - weights : at / s.kw / s.kh / each);
    const int c = static_cast<int>(at / s.kw / s.kh % each) + (s.groups > 1 ? o / (s.o / s.groups) * each : 0);
    Sum<S> sum = 0;
    const std::int64_t places = std::int64_t{s.n} * s.oh * s.ow;
    for (std::int64_t k = threadIdx.x; k < places; k += threads) {
      const int x = static_cast<int>(k % s.ow), y = static_cast<int>(k / s.ow % s.oh);
      const int image = static_cast<int>(k / s.ow / s.oh);
      const int row = y * s.sh + i - s.ph, col = x * s.sw + j - s.pw;
      if (!is_bias && (row < 0 || row >= s.h || col < 0 || col >= s.w)) continue;
      const Sum<S> g = unpooled(s, d, image, o, y, x);
      sum +=
          is_bias
              ? g
              : g * loaded(
                        d.x[image * s.x_strides[0] + c * s.x_strides[1] + row * s.x_strides[2] + col * s.x_strides[3]]);
    }
    parts[threadIdx.x] = sum;
    for (int half = threads / 2; half; half /= 2) {
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    if (threadIdx.x == 0) (is_bias ? d.grad_bias[o] : d.grad_weight[at]) = rounded<S>(parts[0]);
    __syncthreads();
  }
}

unsigned blocks_for(std::int64_t n, int per_block) {
  const std::int64_t fit = 16 * std::int64_t{multiprocessors()};
  return static_cast<unsigned>(std::max<std::int64_t>(1, std::min((n + per_block - 1) / per_block, fit)));
}

}  // namespace

template <class S> void conv_any(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream) {
  const std::int64_t n = std::int64_t{s.n} * s.rows * s.cols * s.o;
  launch("conv_block", conv_any_forward<S>, Grid{dim3(blocks_for(n, threads)), dim3(threads), 0, stream}, s, d);
}

template <class S> void conv_any_backward(const ConvShape &s, const ConvData<S> &d, cudaStream_t stream) {
  if (d.grad_x) {
    const std::int64_t n = std::int64_t{s.n} * s.h * s.w * s.c;
    launch("conv_block", conv_any_inputs<S>, Grid{dim3(blocks_for(n, threads)), dim3(threads), 0, stream}, s, d);
  }
  if (d.grad_weight || d.grad_bias) {
    const std::int64_t n = std::int64_t{s.o} * (s.c / s.groups) * s.kh * s.kw + s.o;
    launch("conv_block", conv_any_weights<S>, Grid{dim3(blocks_for(n, 1)), dim3(threads), 0, stream}, s, d);
  }
}

#define HW4FAST_INSTANTIATE(S)                                                     \
  template void conv_any<S>(const ConvShape &, const ConvData<S> &, cudaStream_t); \
  template void conv_any_backward<S>(const ConvShape &, const ConvData<S> &, cudaStream_t);
HW4FAST_INSTANTIATE(float)
HW4FAST_INSTANTIATE(double)
HW4FAST_INSTANTIATE(__nv_bfloat16)
HW4FAST_INSTANTIATE(__half)

}  // namespace hw4fast
