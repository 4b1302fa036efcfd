// Convolutions on tensor cores: what conv_block_tensor.cu (forward, and the input's gradient) and
// conv_block_tensor_backward.cu (the weight's gradient) share with each other and with their callers.
//
// Everything is channels-last. Numbers are bfloat16, float16 or float (multiplied as tf32), sums are float. A chunk is
// 16 bytes of a pixel's channels: the input's channels must be whole chunks.
#pragma once

#include "cuda.cuh"

#include <cstddef>
#include <cstdint>

namespace hw4fast {

// x [n, h, w, c] ⋆ weight [o, kh, kw, c] + bias [o] → [n, rows, cols, o], from 2·rows × 2·cols with the pool. Padding
// may be negative; what lies beyond the input's border is zero however far the outputs reach.
struct TensorConvShape {
  int n, h, w, c, o, kh, kw, sh, sw, ph, pw, rows, cols;
  bool relu, pool;
};

enum class TensorWay : int { best = 0, mma = 1, wgmma = 2 };
struct TensorChoice {  // zeros: whatever is thought best
  TensorWay way = TensorWay::best;
  int columns = 0, rows = 0;  // of a tile of the product: 16, 32, 64 or 128; 128, 192, 256 or 384
  int strips = 0;
  int shared = 0;  // bytes of shared memory at most
};

// When a kernel waits for the one before it. That one has waited for its own predecessor, so what was there before it
// is there: who needs no more may run beside it. It must wait in the end: the kernel after it counts on both. That
// kernel must begin with in_turn().
enum class Turn : int { start = 0, weight = 1, end = 2 };  // weight: before the weight is read
__device__ inline void begin_turn(Turn turn) {
  if (turn == Turn::start) in_turn();
}
__device__ inline void end_turn(Turn turn) {
  if (turn == Turn::end) in_turn();
}

// What the forward kernel gets, tiles and all.
struct TensorConv {
  const void *x, *weight, *bias;
  void *out;
  std::uint8_t *code;
  TensorConvShape s;
  int side;            // 2 with the pool, else 1: convolution outputs per output, down and across
  int taps;            // kh · kw
  int chunks;          // of a pixel: c · bytes / 16
  int parts;           // of the channels, each so many chunks as a shared pixel has
  int columns;         // outputs of a strip, of which there are ⌈cols / columns⌉
  int units;           // outputs of a strip: n · rows · columns
  int blocks, strips;  // tiles of a strip; strips
  int wide, high;      // of a strip with its border, per picture: inputs that its convolution outputs see
  int pixels;          // at most in a tile's shared picture
  int slots, ahead;    // tiles of the weight in shared memory; 0: all of them are there for good; how far ahead
  Divider by_blocks, by_rows, by_columns, by_wide, by_high;
  Turn turn;
};

// Fills in all but the pointers, the weight's slots and the dividers (tensor_dividers does) for tiles of `rows` outputs
// (of the convolution) with `cc` chunks of each pixel. Throws std::invalid_argument where there are too many outputs.
void tensor_tiles(TensorConv &p, const TensorConvShape &s, int bytes, int rows, int cc, int strips);
void tensor_dividers(TensorConv &p);
// Chunks of a shared pixel, 8 or 2: two need more instructions, but may leave less of them empty.
int tensor_chunks(int chunks);

// Whether the GPU and the shape are ones for tensor cores.
bool tensor_conv_can(Dtype dtype, const TensorConvShape &s);
// The weight lies as tensor_pack leaves it; bias and code may be null; the others begin at multiples of 16 bytes.
// Throws std::invalid_argument where tensor_conv_can't.
void tensor_conv(Dtype dtype, const TensorConvShape &s, const void *x, const void *weight, const void *bias, void *out,
                 std::uint8_t *code, const TensorChoice &choice, cudaStream_t stream, Turn turn = Turn::start);

// Gradients of conv_block: x [n, h, w, c], grad [n, o, rows, cols] of any strides, code [n, rows, cols, o] or null
// where there was neither ReLU nor pool. What is null is not computed.
struct TensorGradients {
  const void *x, *weight, *grad;
  const std::uint8_t *code;
  std::int64_t weight_strides[4], grad_strides[4];  // [o, c, kh, kw] and [n, o, rows, cols], in numbers
  void *grad_x, *grad_weight, *grad_bias;           // [n, h, w, c]; of the weight's strides; [o]
  void *scratch;
};
bool tensor_conv_backward_can(Dtype dtype, const TensorConvShape &s);
std::size_t tensor_conv_backward_scratch(Dtype dtype, const TensorConvShape &s);  // bytes
void tensor_conv_backward(Dtype dtype, const TensorConvShape &s, const TensorGradients &of, const TensorChoice &choice,
                          cudaStream_t stream);
// A weight of any strides as [o, kh, kw, c], floats rounded to tf32, as tensor_conv wants it.
void tensor_pack(Dtype dtype, const void *weight, const std::int64_t (&strides)[4], int o, int c, int kh, int kw,
                 void *packed, cudaStream_t stream);

}  // namespace hw4fast
