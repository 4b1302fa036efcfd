// The kernel of conv_block_tensor.cu: a convolution as a product of matrices whose rows are outputs, whose columns are
// output channels, and whose inner dimension is (part of the channels, tap, channel).
//
// A tile is 128 · MT rows × N columns, made by 8 warps of 16 · MT rows each. Its inputs, a picture with borders, come
// to shared memory once per part of the channels, and all taps read it there: a row of A is where a lane's ldmatrix
// points, so a tap is an offset. Going through the pictures in strips of `columns` outputs, a tile is any 128 · MT
// consecutive outputs of a strip: they may end within a row and go on in the next picture, so no tile but a strip's
// last is part empty. In the tile's picture the rows of all images follow each other, each image with its own border:
// image i has rows high · i to high · (i + 1) of an endless picture, of which the tile holds those that it needs.
//
// With the pool four rows of A are a window's, and the same lane (MT = 2) or two neighbours have all four sums.
// Columns are dealt out so that a lane's sums are of eight consecutive channels: column 8j + 2t + e of each 32 is
// channel 8t + 2j + e; of 16 columns there are four, 4t + 2j + e.
#pragma once

#include "conv_block_tensor.cuh"
#include "mma.cuh"

#include <algorithm>

namespace hw4fast {

constexpr int tensor_threads = 256;

// Where chunk k of pixel (or column) p lies, both counted in chunks: a row of eight chunks may hold several pixels. So
// eight consecutive pixels' same chunks are in different banks.
template <int CC> __device__ inline int swizzled(int p, int k) {
  return p * CC + (k ^ static_cast<int>(static_cast<unsigned>(p) / (8 / CC) & (CC - 1)));
}

#ifdef HW4FAST_MMA

struct TensorPlace {  // of a unit (output, or window of the pool)
  int image, row, column;
};

template <class T, int N, int MT, int CC, bool WGMMA, int WARPS = tensor_threads / 32> struct TensorTile {
  static constexpr int rows = 16 * WARPS * MT, eights = N / 8, steps = CC / 2, numbers = 16 / sizeof(T);
  static constexpr int together = std::min(4, eights), mine = 2 * together;  // a lane's consecutive channels
  const TensorConv &p;
  Shared pictures, weights;  // two pictures, `slots` tiles of the weight
  int lane, warp, columns_from;

  __device__ int unit_side() const { return p.side * p.side; }
  __device__ TensorPlace place(int unit) const {
    const int line = p.by_columns.quotient(unit), image = p.by_rows.quotient(line);
    return {image, line - image * p.s.rows, unit - line * p.columns};
  }
  // The unit and the position in its window of row r of 16 of the warp's m-th tile.
  __device__ int unit_of(int first, int m, int r) const {
    if (!p.s.pool) return first + (warp * MT + m) * 16 + r;
    return first + warp * 4 * MT + (MT == 2 ? r % 8 : r % 8 / 2);
  }
  __device__ int position_of(int m, int r) const {
    if (!p.s.pool) return 0;
    return MT == 2 ? 2 * m + r / 8 : r % 2 * 2 + r / 8;
  }
  __device__ int first_unit(int tile) const {
    return (tile - p.by_blocks.quotient(tile) * p.blocks) * (rows / unit_side());
  }
  __device__ int first_line(int tile) const {  // of the endless picture, that the tile's picture begins with
    const TensorPlace at = place(first_unit(tile));
    return at.image * p.high + at.row * p.side * p.s.sh;
  }

  // Starts the copies number `begin` to `end` of this thread, of part `part` of a tile's picture.
  __device__ void copy_picture(int tile, int part, Shared to, int begin, int end) const {
    copy_picture(tile, part, begin, end, [to](int pixel, int k) { return to + 16 * swizzled<CC>(pixel, k); });
  }
  template <class Place>  // where a pixel's chunk goes
  __device__ void copy_picture(int tile, int part, int begin, int end, const Place &place) const {
    const int line = first_line(tile), strip = p.by_blocks.quotient(tile);
    const int left = strip * p.columns * p.side * p.s.sw - p.s.pw;
    const char *x = static_cast<const char *>(p.x);
    for (int i = begin; i < end; ++i) {
      const int q = i * tensor_threads + static_cast<int>(threadIdx.x), pixel = q / CC, k = q % CC;
      if (pixel >= p.pixels) return;
      const int down = p.by_wide.quotient(pixel), column = left + pixel - down * p.wide;
      const int image = p.by_high.quotient(line + down), row = line + down - image * p.high - p.s.ph;
      const int chunk = part * CC + k;
      const bool there = image < p.s.n && row >= 0 && row < p.s.h && column >= 0 && column < p.s.w && chunk < p.chunks;
      const std::int64_t at = (static_cast<std::int64_t>(image) * p.s.h + row) * p.s.w + column;
      copy_async(place(pixel, k), there ? x + 16 * (at * p.chunks + chunk) : x, there);
    }
  }
  // Rounds what this thread has copied of a picture, once that is there: its floats to tf32.
  __device__ void round_picture(Shared picture) const {
    for (int q = static_cast<int>(threadIdx.x); q < p.pixels * CC; q += tensor_threads)
      round_chunk(picture + 16 * swizzled<CC>(q / CC, q % CC));
  }
  // Starts the copies of a tap's columns of the weight. A pass of all threads is so many columns, a multiple of 32.
  __device__ void copy_weight(int part, int tap, Shared to) const {
    constexpr int pass = tensor_threads / CC, group = 8 * together;
    const int column = static_cast<int>(threadIdx.x) / CC, k = static_cast<int>(threadIdx.x) % CC;
    const int chunk = part * CC + k, in_group = column % 8 / 2 * mine + column / 8 % together * 2 + column % 2;
    const int o = columns_from + column / group * group + in_group;
    const char *weight = static_cast<const char *>(p.weight);
    const char *from = weight + 16 * ((static_cast<std::int64_t>(o) * p.taps + tap) * p.chunks + chunk);
    const std::int64_t further = std::int64_t{16} * pass * p.taps * p.chunks;
#pragma unroll
    for (int i = 0; i < (N + pass - 1) / pass; ++i) {
      if (N % pass && column >= N) return;
      const bool there = o + i * pass < p.s.o && chunk < p.chunks;
      copy_async(to + 16 * (swizzled<CC>(column, k) + i * tensor_threads), there ? from + i * further : weight, there);
    }
  }

  // Steps `from` to `to` of the rows of A whose pixels these are: one row per lane and tile, as load_matrices wants it.
  template <int count>
  __device__ void load_rows(std::uint32_t (&a)[count][MT][4], Shared picture, const int (&pixel)[MT], int from) const {
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      const Shared row = picture + 16 * swizzled<CC>(pixel[m], lane / 16);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        load_matrices(a[i][m], row ^ static_cast<Shared>(32 * (from + i)));
        if constexpr (WGMMA && sizeof(T) == 4)  // the picture itself is as it came
#pragma unroll
          for (std::uint32_t &word : a[i][m]) word = to_tf32(word);
      }
    }
  }

  __device__ void multiply(float (&sums)[MT][eights][4], Shared picture, const int (&pixel)[MT], Shared weight) const {
#ifdef HW4FAST_WGMMA
    if constexpr (WGMMA) {  // half of the tap's rows are loaded while the other half is multiplied
      const std::uint64_t b = wgmma_descriptor(weight);
      constexpr int half = steps / 2;
#pragma unroll
      for (int from = 0; from < steps; from += half) {
        std::uint32_t a[half][MT][4];
        load_rows<half>(a, picture, pixel, from);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < half; ++i)
#pragma unroll
          for (int m = 0; m < MT; ++m) wgmma<T>(sums[m], a[i][m], b + 2 * (from + i));
        wgmma_commit();
        wgmma_wait<1>();
      }
      return;
    }
#endif
    const Shared column = weight + 16 * swizzled<CC>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      std::uint32_t a[1][MT][4];
      load_rows<1>(a, picture, pixel, step);
#pragma unroll
      for (int j = 0; j < eights; j += 2) {
        std::uint32_t b[4];
        load_matrices(b, (column + 16 * CC * 8 * j) ^ static_cast<Shared>(32 * step));
#pragma unroll
        for (int m = 0; m < MT; ++m) {
          mma<T>(sums[m][j], a[0][m], b[0], b[1]);
          mma<T>(sums[m][j + 1], a[0][m], b[2], b[3]);
        }
      }
    }
  }

  // The pixels that tap (0, 0) of this lane's rows of A reads.
  __device__ void find_pixels(int tile, int (&pixel)[MT]) const {
    const int first = first_unit(tile), line = first_line(tile);
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      const int position = position_of(m, lane % 16), unit = unit_of(first, m, lane % 16);
      const TensorPlace at = place(unit < p.units ? unit : first);  // rows past the last repeat the first
      const int down = (at.row * p.side + position / 2) * p.s.sh, across = (at.column * p.side + position % 2) * p.s.sw;
      pixel[m] = (at.image * p.high + down - line) * p.wide + across;
    }
  }

  // Consecutive channels of one output: 8 to 32 bytes.
  __device__ void store(std::int64_t output, int o, const float (&y)[mine], const std::uint8_t (&code)[mine]) const {
    T *out = static_cast<T *>(p.out) + output * p.s.o + o;
    if (o + mine <= p.s.o && p.s.o % mine == 0) {
      using Vector = std::conditional_t<mine * sizeof(T) == 8, uint2, uint4>;
      constexpr int vectors = mine * sizeof(T) / sizeof(Vector);
      union {
        T number[mine];
        Vector vector[vectors];
      } packed;
#pragma unroll
      for (int i = 0; i < mine; ++i) packed.number[i] = narrow<T>(y[i]);
#pragma unroll
      for (int i = 0; i < vectors; ++i) reinterpret_cast<Vector *>(out)[i] = packed.vector[i];
      if (!p.code) return;
      using Codes = std::conditional_t<mine == 4, std::uint32_t, std::uint64_t>;
      Codes codes = 0;
#pragma unroll
      for (int i = 0; i < mine; ++i) codes |= static_cast<Codes>(code[i]) << 8 * i;
      *reinterpret_cast<Codes *>(p.code + output * p.s.o + o) = codes;
      return;
    }
#pragma unroll
    for (int i = 0; i < mine; ++i)
      if (o + i < p.s.o) {
        out[i] = narrow<T>(y[i]);
        if (p.code) p.code[output * p.s.o + o + i] = code[i];
      }
  }

  // One output channel's maximum and its place among the window's four; a NaN is larger than any number.
  __device__ static void larger(float &best, int &which, float y, int position) {
    if (y > best || y != y) best = y, which = position;
  }
  __device__ void finish(float y, int which, float &to, std::uint8_t &code) const {
    if (p.s.relu && y <= 0) y = 0, which = 4;
    to = y, code = static_cast<std::uint8_t>(which);
  }

  __device__ void write(const float (&sums)[MT][eights][4], int tile) const {
    const int first = first_unit(tile), strip = p.by_blocks.quotient(tile), g = lane / 4, t = lane % 4;
    const T *bias = static_cast<const T *>(p.bias);
    constexpr int outputs = 2 * MT;  // of this lane's rows, fewer with the pool
    std::int64_t output[outputs];
#pragma unroll
    for (int r = 0; r < outputs; ++r) {
      const int unit = unit_of(first, r / 2, g + r % 2 * 8);
      const TensorPlace at = place(unit < p.units ? unit : 0);
      const int column = strip * p.columns + at.column;
      output[r] = unit < p.units && column < p.s.cols
                      ? (static_cast<std::int64_t>(at.image) * p.s.rows + at.row) * p.s.cols + column
                      : -1;
    }
#pragma unroll
    for (int block = 0; block < eights; block += together) {
      const int o = columns_from + block * 8 + mine * t;
      float added[mine];
#pragma unroll
      for (int i = 0; i < mine; ++i) added[i] = bias && o + i < p.s.o ? widen(bias[o + i]) : 0;
      float y[mine];
      std::uint8_t code[mine];
      if (!p.s.pool) {
#pragma unroll
        for (int r = 0; r < outputs; ++r) {
#pragma unroll
          for (int i = 0; i < mine; ++i)
            finish(sums[r / 2][block + i / 2][r % 2 * 2 + i % 2] + added[i], 0, y[i], code[i]);
          if (output[r] >= 0 && o < p.s.o) store(output[r], o, y, code);
        }
        continue;
      }
#pragma unroll
      for (int i = 0; i < mine; ++i) {
        const int odd = MT == 1 ? g % 2 * 2 : 0;  // the first position that this lane has
        float best = sums[0][block + i / 2][i % 2] + added[i];
        int which = odd;
#pragma unroll
        for (int r = 1; r < outputs; ++r)
          larger(best, which, sums[r / 2][block + i / 2][r % 2 * 2 + i % 2] + added[i], odd + r);
        if constexpr (MT == 1) {  // the neighbour eight rows on has the window's other row
          const float other = __shfl_xor_sync(~0u, best, 4);
          const int other_which = __shfl_xor_sync(~0u, which, 4);
          larger(best, which, other, other_which);  // of use to the even lanes only
        }
        finish(best, which, y[i], code[i]);
      }
      if (output[0] >= 0 && o < p.s.o && (MT == 2 || g % 2 == 0)) store(output[0], o, y, code);
    }
  }
};

#endif  // HW4FAST_MMA

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
  // The next picture's copies are spread over the first taps of this one, so that products hide them; with slots these
  // are taps whose groups of copies are waited for before that picture is used.
  const int two_thirds = max(1, p.taps * 2 / 3), rounds = p.slots ? min(two_thirds, p.taps - p.ahead + 1) : two_thirds;
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
    for (int tap = 0, across = 0, offset = 0; tap < p.taps; ++tap) {
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
        tile_of.copy_picture(after, part_after, there, tap * copies / rounds, (tap + 1) * copies / rounds);
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
