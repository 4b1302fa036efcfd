// Down, then across, one band of rows at a time, in cells of 32 bits. Of float32 a cell is a number; of uint8 it is
// the two neighbours that a pair of taps meets, as int16, because one instruction (pmaddwd) then does two exact
// multiplications and their addition where a float's does one: faster, and the same bits on every machine.
//
//   pack     a strip of columns, few enough for the first-level cache, borders and all: cells of rows (2j, 2j + 1)
//   down     4 output rows × V vectors of columns stay in registers over all taps; each load serves all four
//   border   the finished rows of the band, mirrored left and right; uint8: cells of columns (x, x + c)
//   across   V vectors of one row stay in registers; neighbouring pixels are c elements apart, whatever c is

template <class T> struct BlurMath;
template <> struct BlurMath<float> {
  typedef Float<float> Vector;
  static constexpr bool skips = true;  // 0·∞ is no 0: a row must not meet what lies outside its taps

  HW4FAST_INLINE Vector sum(Vector sum, Vector cells, Vector weights) { return sum + cells * weights; }
  HW4FAST_INLINE Vector vector(const float *first, const float *) { return load(first); }
  HW4FAST_INLINE float cell(const float *first, const float *) { return *first; }
  HW4FAST_INLINE Vector nearest(Vector sum, int) { return sum; }
  HW4FAST_INLINE void finish(float *to, Vector sum, const BlurLine<float> &) { store(to, sum); }
};
template <> struct BlurMath<std::uint8_t> {
  typedef Int<float> Vector;
  static constexpr bool skips = false;

  // sum + low half · low half + high half · high half
  HW4FAST_INLINE Vector sum(Vector sum, Vector cells, Vector weights) {
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
    return sum + (Vector)_mm512_madd_epi16((__m512i)cells, (__m512i)weights);
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
    return sum + (Vector)_mm256_madd_epi16((__m256i)cells, (__m256i)weights);
#elif defined(__x86_64__)
    return sum + (Vector)_mm_madd_epi16((__m128i)cells, (__m128i)weights);
#else
    return sum + ((cells << 16) >> 16) * ((weights << 16) >> 16) + (cells >> 16) * (weights >> 16);
#endif
  }
  HW4FAST_INLINE Vector vector(const std::uint8_t *first, const std::uint8_t *second) {
    return widen(first) | widen(second) << 16;
  }
  HW4FAST_INLINE std::int32_t cell(const std::uint8_t *first, const std::uint8_t *second) {
    return *first | *second << 16;
  }
  HW4FAST_INLINE Vector nearest(Vector sum, int shift) {  // sum / 2^shift, halves to even
    return (sum + ((1 << (shift - 1)) - 1) + ((sum >> shift) & 1)) >> shift;
  }
  HW4FAST_INLINE void finish(std::uint8_t *to, Vector sum, const BlurLine<std::uint8_t> &line) {
    narrow(line.nearest ? nearest(sum, line.shift) : sum >> line.shift, to);
  }
};
template <class T> HW4FAST_INLINE typename BlurMath<T>::Vector blur_load(const BlurCell<T> *from) {
  typename BlurMath<T>::Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class V, class Cell> HW4FAST_INLINE void blur_store(Cell *to, V v) { std::memcpy(to, &v, sizeof v); }
template <class T> HW4FAST_INLINE typename BlurMath<T>::Vector blur_splat(BlurCell<T> value) {
  return typename BlurMath<T>::Vector{} + value;
}

// cells [line.cells][V·W] → to [4] rows `pitch` apart.
template <class T, int V>
static void blur_down(const BlurCell<T> *cells, const BlurLine<T> &line, BlurCell<T> *to, std::int64_t pitch) {
  using B = BlurMath<T>;
  constexpr std::int64_t W = lanes<float>, R = blur_rows_at_once;
  typename B::Vector sum[R][V] = {};
  const auto meet = [&](std::int64_t j, bool skips) {
    typename B::Vector at[V];
    for (int v = 0; v < V; ++v) at[v] = blur_load<T>(cells + (j * V + v) * W);
#pragma GCC unroll 4
    for (std::int64_t r = 0; r < R; ++r) {
      if (skips && (j < r || j - r >= line.size)) continue;
      const typename B::Vector weight = blur_splat<T>(line.weights[j * R + r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = B::sum(sum[r][v], at[v], weight);
    }
  };
  const std::int64_t head = B::skips ? R - 1 : 0, tail = B::skips ? std::max(head, line.size) : line.cells;
  for (std::int64_t j = 0; j < head; ++j) meet(j, true);
  for (std::int64_t j = head; j < tail; ++j) meet(j, false);
  for (std::int64_t j = tail; j < line.cells; ++j) meet(j, true);
#pragma GCC unroll 4
  for (std::int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) blur_store(to + r * pitch + v * W, B::nearest(sum[r][v], line.shift));
}

// V·W outputs of one row; the cells of neighbouring weights are `step` apart.
template <class T, int V>
static void blur_across(const BlurCell<T> *cells, std::int64_t step, const BlurLine<T> &line, T *to) {
  using B = BlurMath<T>;
  constexpr std::int64_t W = lanes<float>;
  typename B::Vector sum[V] = {};
  for (std::int64_t j = 0; j < line.cells; ++j, cells += step) {
    const typename B::Vector weight = blur_splat<T>(line.weights[j]);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[v] = B::sum(sum[v], blur_load<T>(cells + v * W), weight);
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) B::finish(to + v * W, sum[v], line);
}

// How a band lies in memory, in cells: rows of [mirrored | width | mirrored | zeros].
struct BlurBand {
  std::int64_t rows, width, border, pitch;
};

// A strip of `wide` columns from column x on: cells [count][wide] of the rows from `first` on, zeros behind the last
// column.
template <class T> static void blur_pack(const T *image, const Blur<T> &b, std::int64_t first, std::int64_t count,
                                         std::int64_t x, std::int64_t wide, BlurCell<T> *to) {
  using B = BlurMath<T>;
  constexpr std::int64_t W = lanes<float>;
  const std::int64_t there = std::min(wide, b.w * b.c - x), whole = there / W * W;
  for (std::int64_t j = 0; j < count; ++j, first += blur_taps<T>, to += wide) {
    const T *low = image + blur_place(b.border, first, b.h) * b.row_stride + x;
    const T *high = image + blur_place(b.border, first + 1, b.h) * b.row_stride + x;
    for (std::int64_t i = 0; i < whole; i += W) blur_store(to + i, B::vector(low + i, high + i));
    for (std::int64_t i = whole; i < there; ++i) to[i] = B::cell(low + i, high + i);
    std::fill(to + there, to + wide, BlurCell<T>(0));
  }
}

// Rows first … first + rows − 1 of an image, V·W columns from x on, blurred down → the band.
template <class T, int V> static void blur_band_down(const T *image, const Blur<T> &b, std::int64_t first,
                                                     const BlurBand &band, std::int64_t x, BlurCell<T> *strip,
                                                     BlurCell<T> *to) {
  constexpr std::int64_t wide = V * lanes<float>, R = blur_rows_at_once;
  const std::int64_t last = (band.rows - 1) / R * R;
  blur_pack(image, b, first - b.down.size / 2, last / blur_taps<T> + b.down.cells, x, wide, strip);
  for (std::int64_t r = 0; r <= last; r += R)
    blur_down<T, V>(strip + r / blur_taps<T> * wide, b.down, to + r * band.pitch + band.border + x, band.pitch);
}

// Completes a row of the band: its borders, and for uint8 the neighbours across.
template <class T> static void blur_mirror(const Blur<T> &b, const BlurBand &band, BlurCell<T> *row) {
  constexpr std::int64_t W = lanes<float>;
  BlurCell<T> *const pixels = row + band.border;
  for (std::int64_t i = 0; i < band.border; ++i) row[i] = pixels[b.left[i]];
  for (std::int64_t i = 0; i < band.border; ++i) pixels[band.width + i] = pixels[b.right[i]];
  std::fill(pixels + band.width + band.border, row + band.pitch, BlurCell<T>(0));
  if constexpr (blur_taps<T> == 2)
    for (std::int64_t i = 0; i < band.width + 2 * band.border; i += W)
      blur_store(row + i, blur_load<T>(row + i) | blur_load<T>(row + i + b.c) << 16);
}

template <class T, int V>
static void blur_band_across(const BlurCell<T> *row, const Blur<T> &b, const BlurBand &band, std::int64_t x, T *to) {
  constexpr std::int64_t wide = V * lanes<float>;
  const std::int64_t step = blur_taps<T> * b.c;
  if (x + wide <= band.width) {
    blur_across<T, V>(row + x, step, b.across, to + x);
  } else {
    T end[wide];
    blur_across<T, V>(row + x, step, b.across, end);
    std::copy(end, end + (band.width - x), to + x);
  }
}

// Rows begin … end − 1 of all images, counted through.
template <class T> static void blur_rows(const Blur<T> &b, std::int64_t begin, std::int64_t end) {
  using Cell = BlurCell<T>;
  constexpr std::int64_t W = lanes<float>, R = blur_rows_at_once, D = HW4FAST_VECTOR_BYTES == 64 ? 4 : 2, A = 8;
  constexpr decltype(&blur_band_across<T, 1>) across[A] = {
      blur_band_across<T, 1>, blur_band_across<T, 2>, blur_band_across<T, 3>, blur_band_across<T, 4>,
      blur_band_across<T, 5>, blur_band_across<T, 6>, blur_band_across<T, 7>, blur_band_across<T, 8>};
  BlurBand band{0, b.w * b.c, b.across.size / 2 * b.c, 0};
  band.pitch = (band.width + 2 * band.border + b.c + A * W + W - 1) / W * W;
  // at most 1 MiB, for the second-level cache; more rows are hardly quicker to pack and start with more cold memory
  const std::int64_t most = std::clamp<std::int64_t>((1 << 18) / band.pitch / R * R, 2 * R, 8 * R);
  const Scratch<Cell> strip((most / blur_taps<T> + b.down.cells) * D * W), rows(most * band.pitch);
  const std::int64_t vectors = (band.width + W - 1) / W, blocks = (vectors + A - 1) / A;
  const std::int64_t block = (vectors + blocks - 1) / blocks;

  for (std::int64_t at = begin; at < end; at += band.rows) {
    const std::int64_t image = at / b.h, first = at % b.h, left = std::min(b.h - first, end - at);
    const std::int64_t parts = (left + most - 1) / most;
    band.rows = std::min(left, ((left + parts - 1) / parts + R - 1) / R * R);
    const T *from = b.input + image / b.planes * b.image_stride + image % b.planes * b.plane_stride;
    std::int64_t v = 0;
    for (; v + D <= vectors; v += D) blur_band_down<T, D>(from, b, first, band, v * W, strip.get(), rows.get());
    for (; v < vectors; ++v) blur_band_down<T, 1>(from, b, first, band, v * W, strip.get(), rows.get());
    for (std::int64_t r = 0; r < band.rows; ++r) {
      Cell *row = rows.get() + r * band.pitch;
      blur_mirror(b, band, row);
      for (v = 0; v < vectors; v += block)
        across[std::min(block, vectors - v) - 1](row, b, band, v * W, b.output + (at + r) * band.width);
    }
  }
}
