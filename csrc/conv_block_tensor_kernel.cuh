// The kernel of conv_block_tensor.cu: a convolution as a product of matrices whose rows are outputs, whose columns are
// output channels, and whose inner dimension is (part of the channels, tap, channel).
//
// The next picture's copies, and the weight's where not all of it stays in shared memory, run while taps are
// multiplied.
#pragma once

#include "conv_block_tensor_tile.cuh"

namespace hw4fast {

// blocks.x goes through the tiles, blocks.y through the columns.
template <class T, int N, int MT, int CC, bool WGMMA> __global__ void __launch_bounds__(tensor_threads, N <= 32 ? 2 : 1)
    tensor_conv_kernel(const __grid_constant__ TensorConv p) {
  begin_turn(p.turn);
#if defined(HW4FAST_MMA)
#ifndef HW4FAST_WGMMA
  if constexpr (WGMMA) return;
#endif
  using Tile = TensorTile<T, N, MT, CC, WGMMA>;
  HW4FAST_SHARED(raw);
  const Shared base = (shared_address(raw) + 1023) & ~static_cast<Shared>(1023);
  constexpr int weight_bytes = N * CC * 16;
  const int kept = p.slots ? p.slots : p.taps * p.parts, picture_bytes = p.pixels * CC * 16;
  const Tile tile_of{p,
                     base + static_cast<Shared>(kept * weight_bytes),
                     base,
                     static_cast<int>(threadIdx.x) % 32,
                     static_cast<int>(threadIdx.x) / 32,
                     static_cast<int>(blockIdx.y) * N};
  const int tiles = p.blocks * p.strips, stride = static_cast<int>(gridDim.x), from = static_cast<int>(blockIdx.x);
  const int mine = from < tiles ? (tiles - from + stride - 1) / stride : 0;
  const int pictures = mine * p.parts, steps = pictures * p.taps;  // a step is one tap of one part of a tile
  const int copies = (p.pixels * CC + tensor_threads - 1) / tensor_threads;
  const bool lean = N <= 32 && !p.slots;  // so few products for a tap that what stands around them counts
  // The next picture's copies are spread over the first taps of this one, or rows of taps, so that products hide them;
  // with slots these are taps whose groups of copies are waited for before that picture is used.
  const int two_thirds = max(1, p.taps * 2 / 3), in_time = p.slots ? p.taps - p.ahead + 1 : p.taps;
  const int rounds = lean ? max(1, p.s.kh - 1) : min(two_thirds, in_time), each = (copies + rounds - 1) / rounds;
  if (!mine) return;

  // The weight's copies run `ahead` steps before their use: next_* is the step that comes to be copied.
  int next_step = 0, next_part = 0, next_tap = 0, next_slot = 0;
  auto copy_next_weight = [&] {
    tile_of.copy_weight(next_part, next_tap, tile_of.weights + static_cast<Shared>(next_slot * weight_bytes));
    ++next_step;
    if (++next_tap == p.taps) {
      next_tap = 0;
      if (++next_part == p.parts) next_part = 0;
    }
    if (++next_slot == kept) next_slot = 0;
  };
  tile_of.copy_picture(from, 0, tile_of.pictures, 0, copies);
  if (p.turn == Turn::weight) in_turn();
  if (N * CC < tensor_threads && !p.slots)
    tile_of.copy_weights();
  else
    for (int i = 0; i < (p.slots ? p.ahead : kept); ++i) {
      if (next_step < steps || !p.slots) copy_next_weight();
      if (p.slots) copies_commit();
    }
  if (!p.slots) copies_commit();

  float sums[MT][N / 8][4];
#pragma unroll
  for (int i = 0; i < MT * N / 2; ++i) sums[i / (N / 2)][i / 4 % (N / 8)][i % 4] = 0;
  int pixel[MT], tile = from, part = 0, slot = 0;
  tile_of.find_pixels(tile, pixel);
  for (int picture = 0; picture < pictures; ++picture) {
    const Shared here = tile_of.pictures + static_cast<Shared>(picture % 2 * picture_bytes);
    const Shared there = tile_of.pictures + static_cast<Shared>((picture + 1) % 2 * picture_bytes);
    const int after = part + 1 == p.parts ? tile + stride : tile, part_after = part + 1 == p.parts ? 0 : part + 1;
    if (lean) {
      copies_wait<0>();
      if constexpr (sizeof(T) == 4) tile_of.round_picture(here);
      __syncthreads();
      const Shared weight = tile_of.weights + static_cast<Shared>(part * p.taps * weight_bytes);
      tile_of.multiply_all(sums, here, pixel, weight, [&](int row) {
        if (picture + 1 == pictures || row >= rounds) return;
        tile_of.copy_picture(after, part_after, there, row * each, (row + 1) * each);
        copies_commit();
      });
    }
    for (int tap = 0, across = 0, offset = 0; tap < p.taps && !lean; ++tap) {
      if (p.slots || tap == 0) {
        if (p.slots && p.ahead == 2)
          copies_wait<1>();
        else
          copies_wait<0>();
        if constexpr (sizeof(T) == 4 && !WGMMA)
          if (tap == 0) tile_of.round_picture(here);
#ifdef HW4FAST_WGMMA
        if constexpr (WGMMA) fence_proxy_async();
#endif
        __syncthreads();  // this step's copies are there, and nobody needs what the next ones overwrite
        if (p.slots && next_step < steps) copy_next_weight();
      }
      if (picture + 1 < pictures && tap < rounds)
        tile_of.copy_picture(after, part_after, there, tap * each, (tap + 1) * each);
      copies_commit();
      int at[MT];
#pragma unroll
      for (int m = 0; m < MT; ++m) at[m] = pixel[m] + offset;
      tile_of.multiply(sums, here, at, tile_of.weights + static_cast<Shared>(slot * weight_bytes));
      if (++slot == kept) slot = 0;
      ++offset;
      if (++across == p.s.kw) across = 0, offset += p.wide - p.s.kw;
    }
    if (++part < p.parts) continue;
#ifdef HW4FAST_WGMMA
    if constexpr (WGMMA) {
      wgmma_wait<0>();
#pragma unroll
      for (int m = 0; m < MT; ++m) wgmma_sums(sums[m]);
    }
#endif
    tile_of.write(sums, tile);
#pragma unroll
    for (int i = 0; i < MT * N / 2; ++i) sums[i / (N / 2)][i / 4 % (N / 8)][i % 4] = 0;
    part = 0, tile += stride;
    if (tile < tiles) tile_of.find_pixels(tile, pixel);
  }
#endif
  end_turn(p.turn);
}

}  // namespace hw4fast
