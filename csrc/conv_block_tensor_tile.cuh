// A tile of a convolution on tensor cores: where its inputs lie, their copies, its products, and how outputs leave.
//
// A tile is 16 · MT · WARPS rows × N columns, 16 · MT rows of each warp, of which there are 8 or 12. Its inputs, a
// picture with borders, come to shared memory once per part of the channels, and all taps read it there: a row of A is
// where a lane's ldmatrix points, so a tap is an offset. Going through the pictures in strips of `columns` outputs, a
// tile is any 128 · MT consecutive outputs of a strip: they may end within a row and go on in the next picture, so no
// tile but a strip's last is part empty. In the tile's picture the rows of all images follow each other, each image
// with its own border: image i has rows high · i to high · (i + 1) of an endless picture, of which the tile holds those
// that it needs.
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
  // The output channel of a column.
  __device__ int channel_of(int column) const {
    constexpr int group = 8 * together;
    const int in_group = column % 8 / 2 * mine + column / 8 % together * 2 + column % 2;
    return columns_from + column / group * group + in_group;
  }
  // Starts the copies of all taps' columns of all parts, where a tap alone has less than a chunk for each thread.
  __device__ void copy_weights() const {
    constexpr int of_tap = N * CC;
    const char *weight = static_cast<const char *>(p.weight);
    for (int q = static_cast<int>(threadIdx.x); q < p.parts * p.taps * of_tap; q += tensor_threads) {
      const int step = q / of_tap, part = step / p.taps, tap = step - part * p.taps;
      const int column = q % of_tap / CC, k = q % CC, chunk = part * CC + k, o = channel_of(column);
      const std::int64_t at = (static_cast<std::int64_t>(o) * p.taps + tap) * p.chunks + chunk;
      const bool there = o < p.s.o && chunk < p.chunks;
      copy_async(weights + 16 * (step * of_tap + swizzled<CC>(column, k)), there ? weight + 16 * at : weight, there);
    }
  }
  // Starts the copies of a tap's columns of the weight. A pass of all threads is so many columns, a multiple of 32.
  __device__ void copy_weight(int part, int tap, Shared to) const {
    constexpr int pass = tensor_threads / CC;
    const int column = static_cast<int>(threadIdx.x) / CC, k = static_cast<int>(threadIdx.x) % CC;
    const int chunk = part * CC + k, o = channel_of(column);
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

  // `count` steps from `from` on of the rows of A whose pixels these are: one row per lane and tile, as load_matrices
  // wants it.
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

  // All taps of a part whose weight is there; `before` of a row of taps comes before it.
  template <class Before> __device__ void multiply_all(float (&sums)[MT][eights][4], Shared picture,
                                                       const int (&pixel)[MT], Shared weight,
                                                       const Before &before) const {
    int at[MT];
#pragma unroll
    for (int m = 0; m < MT; ++m) at[m] = pixel[m];
    for (int down = 0; down < p.s.kh; ++down) {
      before(down);
#pragma unroll 2
      for (int across = 0; across < p.s.kw; ++across) {
        multiply(sums, picture, at, weight);
        weight += N * CC * 16;
#pragma unroll
        for (int m = 0; m < MT; ++m) ++at[m];
      }
#pragma unroll
      for (int m = 0; m < MT; ++m) at[m] += p.wide - p.s.kw;
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
        if constexpr (MT == 1) {  // of the next row of sums, where the window's other two are
          const float other = __shfl_xor_sync(~0u, best, 4);
          const int other_which = __shfl_xor_sync(~0u, which, 4);
          larger(best, which, other, other_which);  // of use to even g only
        }
        finish(best, which, y[i], code[i]);
      }
      if (output[0] >= 0 && o < p.s.o && (MT == 2 || g % 2 == 0)) store(output[0], o, y, code);
    }
  }
};

#endif  // HW4FAST_MMA

}  // namespace hw4fast
