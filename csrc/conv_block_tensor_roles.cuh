// The kernel of conv_block_tensor.cu for Hopper: that of conv_block_tensor_kernel.cuh, with its work dealt out.
//
// There every warp copies and then multiplies: each tap begins with some 250 instructions of addresses, during which
// the tensor cores run dry. Here four warps, the producers, do nothing but copy, several taps ahead, and twelve, the
// consumers, nothing but multiply. A tile is 192 · MT outputs: three groups of four warps take turns at the tensor
// cores, so that one loads its rows of A while the others multiply.
//
// They meet at pairs of barriers. A stage of shared memory (a tap's tile of the weight, or a picture where the whole
// weight stays) is `full` when all producers' copies are there, and `free` when no consumer reads it any more.
#pragma once

#include "conv_block_tensor_tile.cuh"

namespace hw4fast {

constexpr int consumer_warps = 12, producers = 128, role_threads = 32 * consumer_warps + producers;
constexpr int most_stages = 8, stage_bytes = 2 * 8 * most_stages;  // of all stages' barriers

#ifdef HW4FAST_WGMMA

struct Stages {
  Shared barriers;
  int count;
  __device__ Shared full(int stage) const { return barriers + 8 * static_cast<Shared>(stage); }
  __device__ Shared free(int stage) const { return barriers + 8 * static_cast<Shared>(count + stage); }
};
struct Stage {  // goes round the stages; the parity changes with each round
  int number = 0;
  unsigned parity = 0;
  __device__ void next(int count) {
    if (++number == count) number = 0, parity ^= 1;
  }
};

// A producer's copies of a picture: one chunk of every 16th pixel, found by counting on rather than by division.
template <class Tile> struct PictureCopies {
  const Tile &tile_of;
  int thread;
  int image = 0, row = 0, column = 0, edge = 0, left = 0;  // `edge`: the column where the line ends; `left`: copies
  bool has_chunk = false, has_line = false;
  std::int64_t at = 0;  // bytes from x on
  Shared to = 0;

  __device__ std::int64_t bytes(int lines, int pixels) const {
    const TensorConv &p = tile_of.p;
    return (std::int64_t{lines} * p.s.w + pixels) * (16 * p.chunks);
  }
  __device__ void see_line() { has_line = has_chunk && row >= 0 && row < tile_of.p.s.h && image < tile_of.p.s.n; }
  __device__ void begin(int tile, int part, Shared picture) {
    const TensorConv &p = tile_of.p;
    const int pixel = thread / 8, chunk = part * 8 + thread % 8, line = tile_of.first_line(tile);
    const int down = p.by_wide.quotient(pixel), first = p.by_blocks.quotient(tile) * p.columns * p.side * p.s.sw;
    edge = first - p.s.pw + p.wide, column = edge - p.wide + pixel - down * p.wide;
    image = p.by_high.quotient(line + down), row = line + down - image * p.high - p.s.ph;
    at = bytes(row, column) + image * bytes(p.s.h, 0) + 16 * chunk, has_chunk = chunk < p.chunks;
    to = picture + 16 * swizzled<8>(pixel, thread % 8), left = (p.pixels - pixel + 15) / 16;
    see_line();
  }
  __device__ void go_on(int copies) {
    const TensorConv &p = tile_of.p;
    const char *x = static_cast<const char *>(p.x);
    const std::int64_t pixels_on = bytes(0, 16), line_on = bytes(1, -p.wide), image_on = bytes(p.s.h - p.high, 0);
    copies = min(copies, left), left -= copies;
    for (; copies > 0; --copies) {
      const bool there = has_line && column >= 0 && column < p.s.w;
      copy_async(to, there ? x + at : x, there);
      to += 16 * 8 * 16, column += 16, at += pixels_on;
      if (column < edge) continue;
      do {
        column -= p.wide, at += line_on;
        if (++row == p.high - p.s.ph) row = -p.s.ph, ++image, at += image_on;
      } while (column >= edge);
      see_line();
    }
  }
};

// A producer's copies of a tap's columns of the weight: one chunk of every 16th.
template <class Tile, int N>
__device__ void copy_columns(const Tile &tile_of, int thread, int part, int tap, Shared to) {
  const TensorConv &p = tile_of.p;
  const int column = thread / 8, chunk = part * 8 + thread % 8;
  const int o = tile_of.columns_from + column % 8 / 2 * 8 + column / 8 * 2 + column % 2;
  const char *weight = static_cast<const char *>(p.weight);
  const std::int64_t further = std::int64_t{16} * p.taps * p.chunks;  // the next output channel
  const char *from = weight + o * further + 16 * (tap * p.chunks + chunk);
  to += 16 * swizzled<8>(column, thread % 8);
#pragma unroll
  for (int i = 0; i < N / 16; ++i) {
    const int more = i / 2 * 32 + i % 2 * 4;
    const bool there = o + more < p.s.o && chunk < p.chunks;
    copy_async(to + i * 16 * 8 * 16, there ? from + more * further : weight, there);
  }
}

template <class Tile, int N> __device__ void produce(const Tile &tile_of, const Stages &stages, int thread) {
  const TensorConv &p = tile_of.p;
  const int tiles = p.blocks * p.strips, stride = static_cast<int>(gridDim.x);
  constexpr Shared weight_bytes = N * 8 * 16;
  const Shared picture_bytes = static_cast<Shared>(p.pixels * 8 * 16);
  const auto fill = [&](int stage) {
    fence_proxy_async();
    barrier_arrive(stages.full(stage));
  };
  PictureCopies<Tile> picture_of{tile_of, thread};
  int tile = static_cast<int>(blockIdx.x), part = 0, buffer = 0;
  if (tile >= tiles) return;
  picture_of.begin(tile, 0, tile_of.pictures);
  picture_of.go_on(p.pixels);
  if (p.turn == Turn::weight) in_turn();

  if (!p.slots) {
    for (int i = 0, tap = 0, at = 0; i < p.taps * p.parts; ++i) {
      copy_columns<Tile, N>(tile_of, thread, at, tap, tile_of.weights + static_cast<Shared>(i) * weight_bytes);
      if (++tap == p.taps) tap = 0, ++at;
    }
    Stage stage;
    for (bool again = false;;) {
      copies_commit();
      copies_wait<0>();
      fill(stage.number);
      if (++part == p.parts) part = 0, tile += stride;
      if (tile >= tiles) return;
      stage.next(2);
      again |= stage.parity != 0;
      if (again) barrier_wait(stages.free(stage.number), stage.parity ^ 1);
      picture_of.begin(tile, part, tile_of.pictures + static_cast<Shared>(stage.number) * picture_bytes);
      picture_of.go_on(p.pixels);
    }
  }

  // The picture that the next one overwrites is free once its last tap's stage is: from tap slots - 1 on.
  const int rounds = p.taps - (p.slots - 1);
  Stage stage;
  int filled = 0, copied = 0;  // the first stage whose copies are under way; how many are, two at most
  const auto fill_next = [&] {
    fill(filled);
    if (++filled == p.slots) filled = 0;
    --copied;
  };
  bool again = false;  // a stage has been in use
  while (tile < tiles) {
    const int after = part + 1 == p.parts ? tile + stride : tile, part_after = part + 1 == p.parts ? 0 : part + 1;
    int each = 0;  // copies of the next picture with a tap
    for (int tap = 0; tap < p.taps; ++tap) {
      if (copied == 2) copies_wait<1>(), fill_next();
      if (again) barrier_wait(stages.free(stage.number), stage.parity ^ 1);
      copy_columns<Tile, N>(tile_of, thread, part, tap,
                            tile_of.weights + static_cast<Shared>(stage.number) * weight_bytes);
      if (tap == p.slots - 1 && after < tiles) {
        picture_of.begin(after, part_after, tile_of.pictures + (buffer ? 0 : picture_bytes));
        each = (picture_of.left + rounds - 1) / rounds;
      }
      if (each) picture_of.go_on(each);
      copies_commit();
      ++copied;
      stage.next(p.slots);
      again |= stage.number == 0;
    }
    tile = after, part = part_after, buffer ^= 1;
  }
  if (copied == 2) copies_wait<1>(), fill_next();
  copies_wait<0>();
  fill_next();
}

template <class T, int N, int MT, class Tile> __device__ void consume(const Tile &tile_of, const Stages &stages) {
  const TensorConv &p = tile_of.p;
  const int tiles = p.blocks * p.strips, stride = static_cast<int>(gridDim.x);
  constexpr Shared weight_bytes = N * 8 * 16;
  const Shared picture_bytes = static_cast<Shared>(p.pixels * 8 * 16);
  const auto free_stage = [&](int stage) {
    __syncwarp();
    if (tile_of.lane == 0) barrier_arrive(stages.free(stage));
  };
  constexpr int steps = Tile::steps, group = 2;  // steps whose products are waited for together
  float sums[MT][N / 8][4];
  Stage stage;
  Shared picture = tile_of.pictures, other = picture ^ (picture + picture_bytes);
  for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += stride) {
    int pixel[MT], before = -1;  // the stage that the products under way may still read
    tile_of.find_pixels(tile, pixel);
#pragma unroll
    for (int i = 0; i < MT * N / 2; ++i) sums[i / (N / 2)][i / 4 % (N / 8)][i % 4] = 0;
    for (int part = 0; part < p.parts; ++part) {
      Shared weight = tile_of.weights + (p.slots ? 0 : static_cast<Shared>(part * p.taps) * weight_bytes);
      for (int tap = 0, across = 0; tap < p.taps; ++tap) {
        if (p.slots || tap == 0) barrier_wait(stages.full(stage.number), stage.parity);
        if (p.slots) weight = tile_of.weights + static_cast<Shared>(stage.number) * weight_bytes;
        const std::uint64_t b = wgmma_descriptor(weight);
#pragma unroll
        for (int from = 0; from < steps; from += group) {
          std::uint32_t a[group][MT][4];
          tile_of.template load_rows<group>(a, picture, pixel, from);
          wgmma_fence();
#pragma unroll
          for (int i = 0; i < group; ++i)
#pragma unroll
            for (int m = 0; m < MT; ++m) wgmma<T>(sums[m], a[i][m], b + 2 * (from + i));
          wgmma_commit();
          wgmma_wait<1>();
          if (from == 0 && before >= 0) free_stage(before);
        }
        if (p.slots) before = stage.number, stage.next(p.slots);
        weight += weight_bytes;
        const int on = ++across == p.s.kw ? p.wide - p.s.kw + 1 : 1;
        if (across == p.s.kw) across = 0;
#pragma unroll
        for (int m = 0; m < MT; ++m) pixel[m] += on;
      }
      if (!p.slots) free_stage(stage.number), stage.next(2);  // rows of A are in registers
#pragma unroll
      for (int m = 0; m < MT; ++m) pixel[m] -= p.s.kh * p.wide;
      picture ^= other;
    }
    wgmma_wait<0>();
#pragma unroll
    for (int m = 0; m < MT; ++m) wgmma_sums(sums[m]);
    if (before >= 0) free_stage(before);
    tile_of.write(sums, tile);
  }
}

#endif  // HW4FAST_WGMMA

// blocks.x goes through the tiles, blocks.y through the columns.
template <class T, int N, int MT> __global__ void __launch_bounds__(role_threads, 1)
    tensor_conv_roles_kernel(const __grid_constant__ TensorConv p) {
#ifdef HW4FAST_WGMMA
  using Tile = TensorTile<T, N, MT, 8, true, consumer_warps>;
  HW4FAST_SHARED(raw);
  const Shared base = (shared_address(raw) + 1023) & ~static_cast<Shared>(1023);
  const Shared pictures = base + static_cast<Shared>((p.slots ? p.slots : p.taps * p.parts) * N * 8 * 16);
  const Stages stages{pictures + static_cast<Shared>(2 * p.pixels * 8 * 16), p.slots ? p.slots : 2};
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const Tile tile_of{p, pictures, base, thread % 32, warp, static_cast<int>(blockIdx.y) * N};
  if (thread < stages.count) {
    barrier_init(stages.full(thread), producers);
    barrier_init(stages.free(thread), consumer_warps);
  }
  __syncthreads();
  begin_turn(p.turn);
  if (warp >= consumer_warps)
    produce<Tile, N>(tile_of, stages, thread - 32 * consumer_warps);
  else
    consume<T, N, MT>(tile_of, stages);
  end_turn(p.turn);
#endif
}

}  // namespace hw4fast
