// Binding of conv_block's CUDA kernels: checks what would crash, and picks the kernel.
// The arguments are raw addresses; hw4fast/nn/conv_block.py is the safe face.
#include "conv_block.cuh"
#include "conv_block_tensor.cuh"

#include <algorithm>
#include <array>

#ifndef __CUDA_ARCH__
#include <pybind11/stl.h>
static void bind(pybind11::module_ &);
#endif

namespace hw4fast {
HW4FAST_CUDA_KERNEL(conv_block, bind);

// n, c, h, w, o, kh, kw, groups, stride and padding (down, across)
using Numbers = std::array<std::int64_t, 12>;
using Strides = std::array<std::int64_t, 4>;

enum class Way : int { best = 0, any = 1, direct = 2, tensor = 3 };

[[maybe_unused]] static ConvShape shape_of(const Numbers &x, bool relu, bool pool) {
  for (std::int64_t value : x)
    if (value < 0 || value > INT32_MAX) throw std::invalid_argument("conv_block: a size is out of range");
  const auto at = [&](int i) { return static_cast<int>(x[i]); };
  ConvShape s{};
  s.n = at(0), s.c = at(1), s.h = at(2), s.w = at(3), s.o = at(4), s.kh = at(5), s.kw = at(6), s.groups = at(7);
  s.sh = at(8), s.sw = at(9), s.ph = at(10), s.pw = at(11);
  if (s.kh < 1 || s.kw < 1 || s.groups < 1 || s.sh < 1 || s.sw < 1 || s.c % s.groups || s.o % s.groups ||
      s.h + 2 * s.ph < s.kh || s.w + 2 * s.pw < s.kw)
    throw std::invalid_argument("conv_block: such a convolution has no output");
  s.oh = (s.h + 2 * s.ph - s.kh) / s.sh + 1, s.ow = (s.w + 2 * s.pw - s.kw) / s.sw + 1;
  s.rows = pool ? s.oh / 2 : s.oh, s.cols = pool ? s.ow / 2 : s.ow;
  s.relu = relu, s.pool = pool;
  return s;
}

static TensorConvShape for_tensors(const ConvShape &s) {
  return {s.n, s.h, s.w, s.c, s.o, s.kh, s.kw, s.sh, s.sw, s.ph, s.pw, s.rows, s.cols, s.relu, s.pool};
}
// Whether x lies as [n, h, w, c], dense, at a multiple of 16 bytes.
static bool is_channels_last(const ConvShape &s, std::uintptr_t x) {
  const std::int64_t wide = std::int64_t{s.w} * s.c, *strides = s.x_strides;
  return x % 16 == 0 && (s.c == 1 || strides[1] == 1) && (s.w == 1 || strides[3] == s.c) &&
         (s.h == 1 || strides[2] == wide) && (s.n == 1 || strides[0] == wide * s.h);
}
// float32 goes to tensor cores as tf32, where torch's own convolutions may.
static bool tensor_way(Dtype dtype, const ConvShape &s, std::uintptr_t x, bool tf32, bool backward) {
  if (s.groups != 1 || (dtype == Dtype::float32 && !tf32) || !is_channels_last(s, x)) return false;
  return backward ? tensor_conv_backward_can(dtype, for_tensors(s)) : tensor_conv_can(dtype, for_tensors(s));
}
static Way way_of(Dtype dtype, const ConvShape &s, std::uintptr_t x, bool tf32, bool backward, Way wish) {
  const bool tensor = tensor_way(dtype, s, x, tf32, backward), direct = dtype != Dtype::float64 && conv_direct_can(s);
  if ((wish == Way::tensor && !tensor) || (wish == Way::direct && !direct))
    throw std::invalid_argument("conv_block: the kernel that was asked for can't take this convolution");
  if (wish != Way::best) return wish;
  return tensor ? Way::tensor : direct ? Way::direct : Way::any;
}

// Bytes of scratch memory: for the tensor cores' weight, or the shares of the weight's gradient.
[[maybe_unused]] static std::int64_t conv_block_scratch(int dtype, std::uintptr_t x, const Strides &x_strides,
                                                        const Numbers &numbers, bool relu, bool pool, bool tf32,
                                                        bool backward, int wish) {
  ConvShape s = shape_of(numbers, relu, pool);
  std::copy(x_strides.begin(), x_strides.end(), s.x_strides);
  const auto type = static_cast<Dtype>(dtype);
  switch (way_of(type, s, x, tf32, backward, static_cast<Way>(wish))) {
    case Way::tensor:
      return backward ? static_cast<std::int64_t>(tensor_conv_backward_scratch(type, for_tensors(s)))
                      : std::int64_t{s.o} * s.c * s.kh * s.kw * (type == Dtype::float32 ? 4 : 2);
    case Way::direct:
      return backward ? conv_direct_scratch(s) : 0;
    default:
      return 0;
  }
}

// addresses: x, weight, bias, output, code, scratch
[[maybe_unused]] static void conv_block(int dtype, const std::array<std::uintptr_t, 6> &addresses,
                                        const Strides &x_strides, const Numbers &numbers, bool relu, bool pool,
                                        bool tf32, int wish, std::uintptr_t stream) {
  const std::uintptr_t x = addresses[0], weight = addresses[1], bias = addresses[2], out = addresses[3];
  const std::uintptr_t code = addresses[4], scratch = addresses[5];
  ConvShape s = shape_of(numbers, relu, pool);
  std::copy(x_strides.begin(), x_strides.end(), s.x_strides);
  conv_block_kernel.count();
  if (std::int64_t{s.n} * s.rows * s.cols * s.o == 0) return;
  if (!out || (!x && s.c > 0) || (!weight && s.c > 0))
    throw std::invalid_argument("conv_block was given a tensor without memory");
  const auto type = static_cast<Dtype>(dtype);
  const Way way = way_of(type, s, x, tf32, false, static_cast<Way>(wish));
  const cudaStream_t where = stream_of(stream);
  if (way == Way::tensor) {
    const std::int64_t taps = std::int64_t{s.kh} * s.kw;
    tensor_pack(type, pointer<void>(weight), {taps * s.c, taps, s.kw, 1}, s.o, s.c, s.kh, s.kw, pointer<void>(scratch),
                where);
    return tensor_conv(type, for_tensors(s), pointer<void>(x), pointer<void>(scratch), pointer<void>(bias),
                       pointer<void>(out), pointer<std::uint8_t>(code), {}, where, Turn::weight);
  }
  with_dtype<float, double, __nv_bfloat16, __half>("conv_block", dtype, [&](auto zero) {
    using S = decltype(zero);
    ConvData<S> d{};
    d.x = pointer<S>(x), d.weight = pointer<S>(weight), d.bias = pointer<S>(bias), d.out = pointer<S>(out);
    d.code = pointer<std::uint8_t>(code);
    if constexpr (!std::is_same_v<S, double>)
      if (way == Way::direct) return conv_direct(s, d, where);
    conv_any(s, d, where);
  });
}

// inputs: grad, code, x, weight, scratch; outputs: gradients of x, weight and bias, 0: not wanted
[[maybe_unused]] static void conv_block_backward(int dtype, const std::array<std::uintptr_t, 5> &inputs,
                                                 const std::array<std::uintptr_t, 3> &outputs,
                                                 const Strides &grad_strides, const Strides &x_strides,
                                                 const Numbers &numbers, bool relu, bool pool, bool tf32, int wish,
                                                 std::uintptr_t stream) {
  const std::uintptr_t grad = inputs[0], code = inputs[1], x = inputs[2], weight = inputs[3], scratch = inputs[4];
  ConvShape s = shape_of(numbers, relu, pool);
  std::copy(x_strides.begin(), x_strides.end(), s.x_strides);
  std::copy(grad_strides.begin(), grad_strides.end(), s.grad_strides);
  conv_block_kernel.count();
  const auto type = static_cast<Dtype>(dtype);
  const cudaStream_t where = stream_of(stream);
  const bool is_empty = std::int64_t{s.n} * s.rows * s.cols * s.o * s.c == 0;
  Way way = is_empty ? Way::any : way_of(type, s, x, tf32, true, static_cast<Way>(wish));
  if (way == Way::tensor) {
    const std::int64_t taps = std::int64_t{s.kh} * s.kw;
    TensorGradients of{};
    of.x = pointer<void>(x), of.weight = pointer<void>(weight), of.grad = pointer<void>(grad);
    of.code = pointer<std::uint8_t>(code);
    const std::int64_t strides[4] = {taps * s.c, taps, s.kw, 1};
    std::copy(strides, strides + 4, of.weight_strides);
    std::copy(s.grad_strides, s.grad_strides + 4, of.grad_strides);
    of.grad_x = pointer<void>(outputs[0]), of.grad_weight = pointer<void>(outputs[1]);
    of.grad_bias = pointer<void>(outputs[2]), of.scratch = pointer<void>(scratch);
    return tensor_conv_backward(type, for_tensors(s), of, {}, where);
  }
  with_dtype<float, double, __nv_bfloat16, __half>("conv_block", dtype, [&](auto zero) {
    using S = decltype(zero);
    ConvData<S> d{};
    d.x = pointer<S>(x), d.weight = pointer<S>(weight), d.grad = pointer<S>(grad);
    d.code = pointer<std::uint8_t>(code), d.grad_x = pointer<S>(outputs[0]), d.grad_weight = pointer<S>(outputs[1]);
    d.grad_bias = pointer<S>(outputs[2]), d.scratch = pointer<float>(scratch);
    if constexpr (!std::is_same_v<S, double>)
      if (way == Way::direct) return conv_direct_backward(s, d, where);
    conv_any_backward(s, d, where);
  });
}

#ifndef __CUDA_ARCH__
static void bind_conv_block(pybind11::module_ &m) {
  m.def("conv_block", &conv_block);
  m.def("conv_block_backward", &conv_block_backward);
  m.def("conv_block_scratch", &conv_block_scratch);
}
#endif
}  // namespace hw4fast

#ifndef __CUDA_ARCH__
static void bind(pybind11::module_ &m) { hw4fast::bind_conv_block(m); }
#endif
