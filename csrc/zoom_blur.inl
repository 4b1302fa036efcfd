// The mean of a picture and of enlarged copies of it, a strip of columns after the other, from top to bottom: what a
// copy needs of the strip stays in the first-level cache. Each row that a copy needs is stretched across once; a cell
// holds two of them, one below the other, as int16. pmaddwd weighs such pairs exactly, so that the result is the same
// on every machine.

HW4FAST_INLINE Int<float> zoom_weigh(Int<float> pairs, Int<float> weights) {
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
  return (Int<float>)_mm512_madd_epi16((__m512i)pairs, (__m512i)weights);
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
  return (Int<float>)_mm256_madd_epi16((__m256i)pairs, (__m256i)weights);
#elif defined(__x86_64__)
  return (Int<float>)_mm_madd_epi16((__m128i)pairs, (__m128i)weights);
#else
  return ((pairs << 16) >> 16) * ((weights << 16) >> 16) + (pairs >> 16) * (weights >> 16);
#endif
}

HW4FAST_INLINE Int<float> zoom_load(const void *from) {
  Int<float> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

// The values i, i + 1, … of a group and their right neighbours, as pairs of int16.
HW4FAST_INLINE Int<float> zoom_pairs(const std::uint8_t *window, const std::int32_t *words, const std::uint8_t *order) {
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
  const __m512i bytes = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(window)));
  const __m512i v = _mm512_maskz_permutexvar_epi32(0xffff, (__m512i)zoom_load(words), bytes);
  return (Int<float>)_mm512_shuffle_epi8(v, (__m512i)zoom_load(order));
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(window));
  const __m256i v = _mm256_permutevar8x32_epi32(bytes, (__m256i)zoom_load(words));
  return (Int<float>)_mm256_shuffle_epi8(v, (__m256i)zoom_load(order));
#else
  Int<float> v;
  for (std::int64_t lane = 0; lane < lanes<float>; ++lane) {
    const std::uint8_t *from = window + 4 * words[lane / 4 * 4], *two = order + 4 * lane;
    v[lane] = two[0] == zoom_nothing ? 0 : from[two[0]] | from[two[2]] << 16;
  }
  return v;
#endif
}

// The next row of a copy: it goes into the cells' lower halves, what was there into the upper ones. i: first value.
template <int V>
HW4FAST_INLINE void zoom_across(const ZoomCopy &copy, const std::uint8_t *row, std::int64_t i, std::int32_t *cells) {
  constexpr std::int64_t W = lanes<float>;
  const std::int32_t *first = opaque(copy.first.get() + i / zoom_group);
  const std::int32_t *words = opaque(copy.words.get() + i), *across = opaque(copy.across.get() + i);
  const std::uint8_t *order = opaque(copy.order.get() + 4 * i);
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const std::uint8_t *window = row + first[v * W / zoom_group];
    const Words sum =
        (Words)zoom_weigh(zoom_pairs(window, words + v * W, order + 4 * v * W), zoom_load(across + v * W));
    const Words both = sum >> zoom_dropped | (Words)zoom_load(cells + v * W) << 16;
    std::memcpy(cells + v * W, &both, sizeof both);
  }
}

// Row y of the strip that begins at value x, from all copies' cells.
template <int V> static void zoom_down(const Zoom &z, const std::vector<ZoomCopy> &copies, const std::int32_t *cells,
                                       std::int64_t y, const std::uint8_t *from, std::uint8_t *to) {
  constexpr std::int64_t W = lanes<float>;
  Int<float> sum[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) sum[v] = widen(from + v * W) * z.own + z.rounding;
  for (const ZoomCopy &copy : copies) {
    const Int<float> shares = Int<float>{} + copy.down[y];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[v] += zoom_weigh(zoom_load(cells + v * W), shares) >> zoom_down_dropped;
    cells += V * W;
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v)
    narrow(__builtin_convertvector(__builtin_convertvector(sum[v], Float<float>) * z.share + 0x1p-10f, Int<float>),
           to + v * W);
}

template <int V> static void zoom_strip(const Zoom &z, const std::vector<ZoomCopy> &copies, std::int64_t x) {
  constexpr std::int64_t wide = V * lanes<float>;
  const std::int64_t width = z.w * z.c, there = std::min(wide, width - x);
  const Scratch<std::int32_t> cells(static_cast<std::int64_t>(copies.size()) * wide);
  std::fill(cells.get(), cells.get() + static_cast<std::int64_t>(copies.size()) * wide, 0);
  std::vector<std::int64_t> next;  // row that each copy stretches
  for (const ZoomCopy &copy : copies) next.push_back(copy.upper[0]);
  for (std::int64_t y = 0; y < z.h; ++y) {
    for (std::size_t k = 0; k < copies.size(); ++k)
      for (; next[k] < copies[k].upper[y] + 2; ++next[k])
        zoom_across<V>(copies[k], z.input + std::min(next[k], z.h - 1) * z.stride, x,
                       cells.get() + static_cast<std::int64_t>(k) * wide);
    const std::uint8_t *from = z.input + y * z.stride + x;
    std::uint8_t *to = z.output + y * width + x;
    if (there == wide) {
      zoom_down<V>(z, copies, cells.get(), y, from, to);
    } else {
      std::uint8_t row[wide] = {};
      std::memcpy(row, from, static_cast<std::size_t>(there));
      zoom_down<V>(z, copies, cells.get(), y, row, row);
      std::memcpy(to, row, static_cast<std::size_t>(there));
    }
  }
}

static void zoom_all(const Zoom &z, const std::vector<ZoomCopy> &copies) {
  constexpr std::int64_t W = lanes<float>, V = 8;
  const std::int64_t width = z.w * z.c;
  std::int64_t x = 0;
  for (; x + V * W <= width; x += V * W) zoom_strip<V>(z, copies, x);
  for (; x < width; x += 2 * W) zoom_strip<2>(z, copies, x);
}
