// Forward: convolution, bias, ReLU and 2×2 maximum, one band of output rows at a time.
//
//   pack     the input rows of a band, borders and all: [row][c][phase][column], so that neighbouring outputs read
//            neighbouring numbers at any stride, and no border is left to think of; what no tap meets is left out
//   tile     P outputs × V vectors of output channels stay in registers over the whole sum Σ_{kh,c,kw} x·w
//   finish   the one or two finished rows, still in the first-level cache: ReLU, maximum, code

// How a band lies in memory, and where tap kw of an output row begins.
struct ConvBand {
  std::int64_t phase, row;  // elements from phase to phase, from row to row
  std::int64_t tap[8];
};

template <class T> static void conv_pack(const Strided<const T> &x, const ConvShape &s, std::int64_t image,
                                         std::int64_t first, std::int64_t rows, const ConvBand &band, T *to) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t y = first + conv_place(r, s.down, s.sh);
    const bool inside = 0 <= y && y < s.h;
    for (std::int64_t c = 0; c < s.c; ++c) {
      const T *from = inside ? x.at(image, c, y) : nullptr;
      for (std::int64_t q = 0; q < s.across; ++q, to += band.phase) {
        // columns j with 0 <= j·sw + q − pw < w
        const std::int64_t begin =
            inside ? std::min(band.phase, std::max<std::int64_t>(0, (s.pw - q + s.sw - 1) / s.sw)) : 0;
        const std::int64_t end = inside ? std::max(begin, std::min(band.phase, (s.w + s.pw - q + s.sw - 1) / s.sw)) : 0;
        const T *column = inside ? from + (q - s.pw) * x.w : nullptr;
        const std::int64_t step = s.sw * x.w;
        std::fill(to, to + begin, T(0));
        if (step == 1)
          std::copy(column + begin, column + end, to + begin);
        else
          for (std::int64_t j = begin; j < end; ++j) to[j] = column[j * step];
        std::fill(to + end, to + band.phase, T(0));
      }
    }
  }
}

// out [P][width] = bias + Σ x·w for P neighbouring outputs; x at the first one's corner; w [kh][c][kw][V·W].
// Long sums are taken in pieces of about `piece` products, whose rounding errors don't grow with the whole.
template <class T, int P, int V> static void conv_tile(const T *x, const T *w, const T *bias, const ConvShape &s,
                                                       const ConvBand &band, T *out, std::int64_t width) {
  constexpr std::int64_t W = lanes<T>, piece = 128;
  Float<T> sum[P][V];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < V; ++v) sum[p][v] = load(bias + v * W);
  const std::int64_t channel = s.across * band.phase;
  std::int64_t terms = 0;
  bool first = true;
  for (std::int64_t i = 0; i < s.kh; ++i, x += band.row) {
    const T *line = x;
    for (std::int64_t c = 0; c < s.c; ++c, line += channel) {
      for (std::int64_t k = 0; k < s.kw; ++k, w += V * W) {
        const T *at = line + band.tap[k];
        Float<T> weight[V];
        for (int v = 0; v < V; ++v) weight[v] = load(w + v * W);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p)
          for (int v = 0; v < V; ++v) sum[p][v] += weight[v] * at[p];
      }
      terms += s.kw;
      const bool last = i + 1 == s.kh && c + 1 == s.c;
      if (terms < piece && !last) continue;
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p)
        for (int v = 0; v < V; ++v) {
          T *to = out + p * width + v * W;
          store(to, first ? sum[p][v] : load(to) + sum[p][v]);
          sum[p][v] = Float<T>{};
        }
      terms = 0;
      first = false;
    }
  }
}

template <class T>
using ConvTile = void (*)(const T *, const T *, const T *, const ConvShape &, const ConvBand &, T *, std::int64_t);

// The tile that wastes least on a row of `columns` outputs. The last tile of a row overlaps the one before it.
template <class T, int V> static ConvTile<T> conv_choose_tile(std::int64_t columns, std::int64_t *size) {
#define HW4FAST_TILE(P) \
  { P, P *V <= registers - 4 ? conv_tile<T, P, V> : nullptr }
  constexpr int registers = HW4FAST_VECTOR_BYTES == 64 ? 32 : 16;
  static constexpr struct {
    int size;
    ConvTile<T> tile;
  } all[] = {HW4FAST_TILE(14), HW4FAST_TILE(12), HW4FAST_TILE(10), HW4FAST_TILE(8), HW4FAST_TILE(7), HW4FAST_TILE(6),
             HW4FAST_TILE(5),  HW4FAST_TILE(4),  HW4FAST_TILE(3),  HW4FAST_TILE(2), HW4FAST_TILE(1)};
#undef HW4FAST_TILE
  ConvTile<T> best = nullptr;
  std::int64_t least = 0;
  for (const auto &one : all) {
    if (!one.tile || one.size > columns) continue;
    // each tap costs a tile its multiplications and the loading of its weights
    const std::int64_t cost = (columns + one.size - 1) / one.size * (one.size * V + V + 1);
    if (!best || cost < least) best = one.tile, least = cost, *size = one.size;
  }
  return best;
}

// weight [o][c][kh][kw] → [block of V·W channels][kh][c][kw][V·W], zeros beyond o. The last block has V = 1 if that
// is enough.
template <class T> static void conv_pack_weight(const T *weight, const ConvShape &s, T *to) {
  constexpr std::int64_t W = lanes<T>;
  for (std::int64_t first = 0; first < s.o;) {
    const std::int64_t width = s.o - first > W ? 2 * W : W;
    for (std::int64_t i = 0; i < s.kh; ++i)
      for (std::int64_t c = 0; c < s.c; ++c)
        for (std::int64_t k = 0; k < s.kw; ++k)
          for (std::int64_t lane = 0; lane < width; ++lane)
            *to++ = first + lane < s.o ? weight[(((first + lane) * s.c + c) * s.kh + i) * s.kw + k] : T(0);
    first += width;
  }
}

// Output rows [begin, end) of the whole batch, row r being row r % rows of image r / rows. weight as packed above.
template <class T> static void conv_rows(const Strided<const T> &x, const T *weight, const T *bias, const ConvShape &s,
                                         T *out, std::uint8_t *code, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t W = lanes<T>;
  const std::int64_t side = s.side, columns = s.cols * side, step = side * s.down;
  ConvBand band;
  band.phase = columns + (s.kw - 1) / s.sw;
  band.row = s.c * s.across * band.phase;
  for (std::int64_t k = 0; k < s.kw; ++k) band.tap[k] = k % s.sw * band.phase + k / s.sw;
  const std::int64_t overlap = (side - 1) * s.down + s.kh;  // packed rows of one output row
  // as many output rows as let the packed input stay in the first-level cache
  const std::int64_t room = 24 * 1024 / static_cast<std::int64_t>(sizeof(T)) / std::max<std::int64_t>(band.row, 1);
  const std::int64_t most = std::max<std::int64_t>(1, (room - overlap) / step + 1);
  const std::int64_t row_size = columns * 2 * W;
  const Scratch<T> packed(((most - 1) * step + overlap) * band.row), finished(side * row_size);
  std::int64_t size[2];
  const ConvTile<T> tiles[2] = {conv_choose_tile<T, 1>(columns, &size[0]), conv_choose_tile<T, 2>(columns, &size[1])};

  while (begin < end) {
    const std::int64_t image = begin / s.rows, row = begin % s.rows;
    const std::int64_t count = std::min({most, end - begin, s.rows - row});
    conv_pack(x, s, image, row * side * s.sh - s.ph, (count - 1) * step + overlap, band, packed.get());
    for (std::int64_t r = 0; r < count; ++r) {
      const T *w = weight;
      for (std::int64_t first = 0; first < s.o;) {
        const int v = s.o - first > W ? 2 : 1;
        const std::int64_t width = v * W, tile = size[v - 1];
        for (std::int64_t half = 0; half < side; ++half) {
          const T *from = packed.get() + (r * step + half * s.down) * band.row;
          for (std::int64_t j = 0; j < columns; j += tile) {
            const std::int64_t at = std::min(j, columns - tile);
            tiles[v - 1](from + at, w, bias + first, s, band, finished.get() + half * row_size + at * width, width);
          }
        }
        const std::int64_t offset = ((image * s.rows + row + r) * s.cols) * s.o + first;
        conv_finish(finished.get(), width, row_size, s, std::min(width, s.o - first), out + offset,
                    code ? code + offset : nullptr);
        w += s.kh * s.c * s.kw * width;
        first += width;
      }
    }
    begin += count;
  }
}
