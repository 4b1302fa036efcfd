// Across and down, in Pillow's order: int32 sums of bytes times weights of 22 bits, rounded to bytes after each pass.
// Integers have no order of addition, so any way to add gives Pillow's bytes.
//
//   across   16 rows at a time, turned: the 16 bytes of a column are neighbours, and one weight serves them all,
//            whatever the number of channels; the results are turned back
//   down     V vectors of neighbours in a row stay in registers over all taps

typedef Short<std::uint8_t, HW4FAST_VECTOR_BYTES>::Vector Bytes;  // tiles of 16, one beside the other

template <std::int64_t... lane> HW4FAST_INLINE void resize_zip(Bytes a, Bytes b, Bytes &low, Bytes &high,
                                                               std::integer_sequence<std::int64_t, lane...>) {
  constexpr std::int64_t n = sizeof...(lane);
#if defined(__clang__)
  low = __builtin_shufflevector(a, b, (lane / 16 * 16 + lane % 16 / 2 + lane % 2 * n)...);
  high = __builtin_shufflevector(a, b, (lane / 16 * 16 + 8 + lane % 16 / 2 + lane % 2 * n)...);
#else
  low = __builtin_shuffle(a, b, Bytes{(lane / 16 * 16 + lane % 16 / 2 + lane % 2 * n)...});
  high = __builtin_shuffle(a, b, Bytes{(lane / 16 * 16 + 8 + lane % 16 / 2 + lane % 2 * n)...});
#endif
}

// v[i][j] and v[j][i] change places in every tile: a zip of v[i] and v[i + 8] turns the eight bits of (i, j) by one,
// four do it.
HW4FAST_INLINE void resize_turn(Bytes (&v)[resize_rows]) {
  constexpr std::int64_t n = resize_rows;
  Bytes u[n];
  const auto zips = [](const Bytes(&from)[n], Bytes(&to)[n]) {
    for (std::int64_t i = 0; i < n / 2; ++i)
      resize_zip(from[i], from[i + n / 2], to[2 * i], to[2 * i + 1],
                 std::make_integer_sequence<std::int64_t, HW4FAST_VECTOR_BYTES>());
  };
  zips(v, u);
  zips(u, v);
  zips(v, u);
  zips(u, v);
}

// A vector's tiles from and into memory, `resize_apart` bytes apart: 16 columns of 16.
constexpr std::int64_t resize_apart = resize_rows * resize_rows;
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
HW4FAST_INLINE Bytes resize_gather(const std::uint8_t *from) {
  const auto tile = [&](int t) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + t * resize_apart)); };
  __m512i v = _mm512_zextsi128_si512(tile(0));
  v = _mm512_inserti32x4(v, tile(1), 1);
  v = _mm512_inserti32x4(v, tile(2), 2);
  return (Bytes)_mm512_inserti32x4(v, tile(3), 3);
}
HW4FAST_INLINE void resize_scatter(Bytes v, std::uint8_t *to) {
  const auto put = [&](int t, __m128i tile) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to + t * resize_apart), tile);
  };
  put(0, _mm512_maskz_extracti32x4_epi32(0xf, (__m512i)v, 0));
  put(1, _mm512_maskz_extracti32x4_epi32(0xf, (__m512i)v, 1));
  put(2, _mm512_maskz_extracti32x4_epi32(0xf, (__m512i)v, 2));
  put(3, _mm512_maskz_extracti32x4_epi32(0xf, (__m512i)v, 3));
}
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
HW4FAST_INLINE Bytes resize_gather(const std::uint8_t *from) {
  const auto tile = [&](int t) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + t * resize_apart)); };
  return (Bytes)_mm256_inserti128_si256(_mm256_castsi128_si256(tile(0)), tile(1), 1);
}
HW4FAST_INLINE void resize_scatter(Bytes v, std::uint8_t *to) {
  const auto put = [&](int t, __m128i tile) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to + t * resize_apart), tile);
  };
  put(0, _mm256_castsi256_si128((__m256i)v));
  put(1, _mm256_extracti128_si256((__m256i)v, 1));
}
#else
HW4FAST_INLINE Bytes resize_gather(const std::uint8_t *from) {
  Bytes v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
HW4FAST_INLINE void resize_scatter(Bytes v, std::uint8_t *to) { std::memcpy(to, &v, sizeof v); }
#endif

HW4FAST_INLINE Int<float> resize_rounded(Int<float> sum) {
  const Int<float> value = sum >> resize_bits, zero{};
  const Int<float> positive = value > 0 ? value : zero;
  return positive < 255 ? positive : zero + 255;
}

// `size` bytes of the rows that begin at from[0 … 15] → to [size][16], which has room for a whole vector's columns.
static void resize_columns(const std::uint8_t *const (&from)[resize_rows], std::int64_t size, std::uint8_t *to) {
  constexpr std::int64_t n = resize_rows, wide = HW4FAST_VECTOR_BYTES;
  Bytes v[n] = {};
  for (std::int64_t at = 0; at < size; at += wide) {
    const std::int64_t x = std::max<std::int64_t>(std::min(at, size - wide), 0);  // the last ones overlap
    for (std::int64_t i = 0; i < n; ++i) {
      if (size >= wide)
        std::memcpy(&v[i], from[i] + x, wide);
      else
        std::memcpy(&v[i], from[i], static_cast<std::size_t>(size));
    }
    resize_turn(v);
    for (std::int64_t i = 0; i < n; ++i) resize_scatter(v[i], to + (x + i) * n);
  }
}

// Outputs begin … end − 1 of 16 rows. columns: [pixel − first][C][16]; to: [place][16], see Resize::place.
template <int C> static void resize_outputs(const Resize &r, std::int64_t begin, std::int64_t end, std::int64_t first,
                                            const std::uint8_t *columns, std::uint8_t *to) {
  constexpr std::int64_t W = lanes<float>, N = resize_rows / W;
  for (std::int64_t x = begin; x < end; ++x) {
    const ResizeTaps taps = r.across[x];
    const std::uint8_t *from = columns + (taps.first - first) * C * resize_rows;
    Int<float> sum[C][N];
    for (auto &channel : sum)
      for (auto &part : channel) part = Int<float>{} + resize_half;
    for (std::int64_t k = 0; k < taps.count; ++k, from += C * resize_rows) {
      const Int<float> weight = Int<float>{} + taps.weights[k];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
        for (std::int64_t i = 0; i < N; ++i) sum[c][i] += widen(from + c * resize_rows + i * W) * weight;
    }
    for (int c = 0; c < C; ++c)
      for (std::int64_t i = 0; i < N; ++i) narrow(resize_rounded(sum[c][i]), to + r.place(x, c) * resize_rows + i * W);
  }
}

HW4FAST_INLINE std::uint8_t resize_one(const std::uint8_t *from, std::int64_t step, const ResizeTaps &taps) {
  std::int32_t sum = resize_half;
  for (std::int64_t k = 0; k < taps.count; ++k) sum += from[k * step] * taps.weights[k];
  return static_cast<std::uint8_t>(std::clamp(sum >> resize_bits, 0, 255));
}

// The rows at from[0 … 15], across → to [place][16].
template <int C> static void resize_sixteen(const Resize &r, const std::uint8_t *const (&from)[resize_rows],
                                            std::uint8_t *columns, std::uint8_t *to) {
  constexpr std::int64_t n = resize_rows;
  const auto fits = [&](std::int64_t x, std::int64_t last) {
    return (r.across[last].first + r.across[last].count - r.across[x].first) * C * n <= resize_cache;
  };
  for (std::int64_t x = 0, stop = 0; x < r.across.size; x = stop) {
    while (stop < r.across.size && fits(x, stop)) ++stop;
    const std::int64_t first = r.across[x].first;
    const std::uint8_t *at[n];
    for (std::int64_t i = 0; i < n; ++i) at[i] = from[i] + (first - r.from_across.first) * C;
    if (stop > x) {
      resize_columns(at, (r.across[stop - 1].first + r.across[stop - 1].count - first) * C, columns);
      resize_outputs<C>(r, x, stop, first, columns, to);
    } else {  // so many taps that 16 rows of them would fill the cache
      for (int c = 0; c < C; ++c)
        for (std::int64_t i = 0; i < n; ++i) to[r.place(x, c) * n + i] = resize_one(at[i] + c, C, r.across[x]);
      ++stop;
    }
  }
}

HW4FAST_INLINE Float<float> resize_normal(const Resize &r, Int<float> value, std::int64_t plane) {
  return (__builtin_convertvector(value, Float<float>) / 255.0f - r.mean[plane]) / r.std[plane];
}

// A finished row of bytes into row y of the output.
static void resize_finish(const Resize &r, const std::uint8_t *row, std::int64_t y) {
  constexpr std::int64_t W = lanes<float>;
  if (r.bytes) std::memcpy(r.bytes + y * r.width, row, static_cast<std::size_t>(r.width));
  for (std::int64_t plane = 0; r.floats && plane < r.planes; ++plane)
    for (std::int64_t x = 0; x < r.width; x += W) {
      std::uint8_t some[W] = {};
      const std::int64_t left = std::min(W, r.width - x);
      std::memcpy(some, row + plane * r.width + x, static_cast<std::size_t>(left));
      store_some(r.floats + (plane * r.down.size + y) * r.width + x, resize_normal(r, widen(some), plane), left);
    }
}

// Rows begin … end − 1 of what the pass across reads.
template <int C> static void resize_across(const Resize &r, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t n = resize_rows;
  constexpr std::int64_t wide = HW4FAST_VECTOR_BYTES;
  const Scratch<std::uint8_t> columns(resize_cache + wide * n), turned(r.pitch * n), finished(r.pitch * n);
  std::fill(turned.get(), turned.get() + r.pitch * n, std::uint8_t{0});  // what lies behind the last output
  for (std::int64_t row = begin; row < end; row += n) {
    const std::int64_t rows = std::min(n, end - row);
    const std::uint8_t *from[n];
    for (std::int64_t i = 0; i < n; ++i)
      from[i] = r.from_across.rows + (row + std::min(i, rows - 1)) * r.from_across.pitch;
    resize_sixteen<C>(r, from, columns.get(), turned.get());
    std::uint8_t *to = r.down_first ? finished.get() : r.middle + row * r.pitch;
    for (std::int64_t at = 0; at < r.pitch; at += wide) {
      Bytes v[n];
      for (std::int64_t i = 0; i < n; ++i) v[i] = resize_gather(turned.get() + (at + i) * n);
      resize_turn(v);
      for (std::int64_t i = 0; i < rows; ++i) std::memcpy(to + i * r.pitch + at, &v[i], sizeof v[i]);
    }
    for (std::int64_t i = 0; r.down_first && i < rows; ++i) resize_finish(r, to + i * r.pitch, row + i);
  }
}

// V·W neighbours of an output row → floats, if there are any, else bytes.
template <int V> static void resize_sums(const Resize &r, const std::uint8_t *from, const ResizeTaps &taps,
                                         std::int64_t plane, std::uint8_t *bytes, float *floats) {
  constexpr std::int64_t W = lanes<float>;
  Int<float> sum[V];
  for (auto &part : sum) part = Int<float>{} + resize_half;
  for (std::int64_t k = 0; k < taps.count; ++k, from += r.from_down.pitch) {
    const Int<float> weight = Int<float>{} + taps.weights[k];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[v] += widen(from + v * W) * weight;
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const Int<float> value = resize_rounded(sum[v]);
    floats ? store(floats + v * W, resize_normal(r, value, plane)) : narrow(value, bytes + v * W);
  }
}

// Output rows begin … end − 1 of the pass down. The last vectors of a row overlap the ones before them.
static void resize_down(const Resize &r, std::int64_t begin, std::int64_t end) {
  constexpr int V = 4;
  constexpr std::int64_t W = lanes<float>;
  const std::int64_t planes = r.down_first ? 1 : r.planes;
  const std::int64_t width = r.down_first ? r.middle_width : r.width;
  for (std::int64_t y = begin; y < end; ++y)
    for (std::int64_t plane = 0; plane < planes; ++plane) {
      const ResizeTaps taps = r.down[y];
      const std::uint8_t *from =
          r.from_down.rows + (taps.first - r.from_down.first) * r.from_down.pitch + plane * width;
      std::uint8_t *bytes = r.down_first ? r.middle + y * width : r.bytes ? r.bytes + y * width : nullptr;
      float *floats = bytes ? nullptr : r.floats + (plane * r.down.size + y) * width;
      const auto sums = [&](const auto &function, std::int64_t wide) {
        for (std::int64_t x = 0; x < width; x += wide) {
          const std::int64_t at = std::min(x, width - wide);
          function(r, from + at, taps, plane, bytes ? bytes + at : nullptr, floats ? floats + at : nullptr);
        }
      };
      if (width >= V * W) {
        sums(resize_sums<V>, V * W);
      } else if (width >= W) {
        sums(resize_sums<1>, W);
      } else {
        std::uint8_t row[W] = {};
        for (std::int64_t x = 0; x < width; ++x) row[x] = resize_one(from + x, r.from_down.pitch, taps);
        if (bytes)
          std::copy(row, row + width, bytes);
        else
          store_some(floats, resize_normal(r, widen(row), plane), width);
      }
    }
}
