// Correlation with a list of taps. A cell holds two numbers as int16, one instruction (pmaddwd) multiplies both and
// adds the products exactly: half as many loads as numbers, and the same result on every machine. The numbers are
//
//   pairs   two neighbouring pixels' values; any taps
//   runs    sums of the 2r + 1 pixels about x, for two r; for taps each of whose rows is the same to the left as to the
//           right. A row that falls off outwards is a sum of few runs (a disk's: one and its rim), and these sums are
//           made once per input row, each from the next shorter one.

HW4FAST_INLINE Int<float> correlate_load(const void *from) {
  Int<float> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

HW4FAST_INLINE Int<float> correlate_sum(Int<float> sum, Int<float> cells, Int<float> weights) {
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 64
  return sum + (Int<float>)_mm512_madd_epi16((__m512i)cells, (__m512i)weights);
#elif defined(__x86_64__) && HW4FAST_VECTOR_BYTES == 32
  return sum + (Int<float>)_mm256_madd_epi16((__m256i)cells, (__m256i)weights);
#elif defined(__x86_64__)
  return sum + (Int<float>)_mm_madd_epi16((__m128i)cells, (__m128i)weights);
#else
  return sum + ((cells << 16) >> 16) * ((weights << 16) >> 16) + (cells >> 16) * (weights >> 16);
#endif
}

// V vectors of outputs, which stay in registers over all taps, from cells at the first of them.
template <int V> HW4FAST_INLINE void correlate_add(const std::vector<CorrelateTap> &taps, const std::int32_t *cells,
                                                   Int<float> (&sum)[V]) {
  constexpr std::int64_t W = lanes<float>;
  for (const CorrelateTap &tap : taps) {
    const std::int32_t *at = cells + tap.place;
    const Int<float> weight = Int<float>{} + tap.weights;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[v] = correlate_sum(sum[v], correlate_load(at + v * W), weight);
  }
}

template <int V> HW4FAST_INLINE void correlate_add_folded(const std::vector<CorrelateTap> &taps,
                                                          const std::int32_t *cells, Int<float> (&sum)[V]) {
  constexpr std::int64_t W = lanes<float>;
  for (const CorrelateTap &tap : taps) {
    const std::int32_t *at = cells + tap.place, *other = cells + tap.other;
    const Int<float> weight = Int<float>{} + tap.weights;
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const Int<float> both = correlate_load(at + v * W) + correlate_load(other + v * W);  // no half carries
      sum[v] = correlate_sum(sum[v], both, weight);
    }
  }
}

// fill(to) writes `wide` bytes, of which `there` are wanted at `to`.
template <std::int64_t wide, class Fill>
HW4FAST_INLINE void correlate_put(std::uint8_t *to, std::int64_t there, const Fill &fill) {
  if (there >= wide) return fill(to);
  std::uint8_t row[wide];
  fill(row);
  std::memcpy(to, row, static_cast<std::size_t>(there));
}

// Rows begin … end − 1 of a strip of V vectors, from top to bottom: what its taps meet stays in the first-level cache.
// cells: [span][pitch].
template <int V> static void correlate_pairs(const Correlate &k, const std::int32_t *cells, std::int64_t begin,
                                             std::int64_t end, std::int64_t x) {
  constexpr std::int64_t W = lanes<float>;
  const std::int64_t width = k.w * k.c;
  cells += k.above * k.pitch + static_cast<std::int64_t>(k.left.size()) + x;
  for (std::int64_t y = begin; y < end; ++y, cells += k.pitch)
    correlate_put<V * W>(k.output + y * width + x, width - x, [&](std::uint8_t *to) {
      Int<float> sum[V];
      for (int v = 0; v < V; ++v) sum[v] = Int<float>{} + k.rounding;
      correlate_add<V>(k.pairs, cells, sum);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) narrow(sum[v] >> k.unit, to + v * W);
    });
}

// Rows first … last − 1 of cells: the pixels of a line and their neighbours, in it or in the next one.
static void correlate_cells(const Correlate &k, std::int64_t first, std::int64_t last, std::uint8_t *lines,
                            std::int32_t *to) {
  const std::int64_t apart = k.c + k.pitch + correlate_slack;
  std::uint8_t *line = lines + k.c, *next = k.down ? line + apart : line;
  correlate_line(k, first, line);
  for (std::int64_t y = first; y < last; ++y, to += k.pitch) {
    if (k.down || y > first) correlate_line(k, y + k.down, next);
    for (std::int64_t i = 0; i < k.pitch; i += lanes<float>) {
      const Int<float> both = widen(line + i) | widen(next + i + k.beside) << 16;
      std::memcpy(to + i, &both, sizeof both);
    }
    std::swap(line, next);
  }
}

static void correlate_by_pairs(const Correlate &k) {
  constexpr std::int64_t W = lanes<float>, V = 8;
  const Scratch<std::int32_t> cells(k.span * k.pitch + W);
  std::vector<std::uint8_t> lines(static_cast<std::size_t>(2 * (k.c + k.pitch + correlate_slack)));
  for (std::int64_t begin = 0; begin < k.h; begin += k.size) {
    const std::int64_t end = std::min(begin + k.size, k.h);
    correlate_cells(k, begin - k.above, end + k.below, lines.data(), cells.get());
    std::int64_t x = 0;
    for (; x + V * W <= k.w * k.c; x += V * W) correlate_pairs<V>(k, cells.get(), begin, end, x);
    for (; x < k.w * k.c; x += 2 * W) correlate_pairs<2>(k, cells.get(), begin, end, x);
  }
}

// The cells of one row of a strip: `from` are its values as int16. Of the 2W values of a vector's halves, the even ones
// make one vector of cells and the odd ones the next.
template <int V>
static void correlate_row_of_runs(const Correlate &k, const std::uint16_t *from, std::int64_t plane, std::int32_t *to) {
  constexpr std::int64_t W = lanes<float>, U = V / 2;
  Words sum[U] = {}, before[U] = {};  // two values in a lane, which never carry
  std::int64_t radius = -1;
  for (std::size_t level = 0; level < k.radii.size(); ++level) {
    while (radius < k.radii[level]) {
      ++radius;
      const std::uint16_t *left = from - radius * k.c, *right = from + radius * k.c;
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) {
        sum[u] += (Words)correlate_load(left + 2 * u * W);
        if (radius) sum[u] += (Words)correlate_load(right + 2 * u * W);
      }
    }
    if (level % 2 == 0 && level + 1 < k.radii.size()) {
      for (int u = 0; u < U; ++u) before[u] = sum[u];
      continue;
    }
    for (int u = 0; u < U; ++u) {
      const Words first = level % 2 ? before[u] : sum[u], second = sum[u];
      const Words even = (first & 0xffff) | second << 16, odd = first >> 16 | (second & 0xffff0000u);
      std::memcpy(to + 2 * u * W, &even, sizeof even);
      std::memcpy(to + (2 * u + 1) * W, &odd, sizeof odd);
    }
    to += plane;
  }
}

// Rows begin … end − 1 of a strip of V vectors. words: [span][pitch]; cells: [planes][span][V * W].
template <int V> static void correlate_runs(const Correlate &k, const std::uint16_t *words, std::int32_t *cells,
                                            std::int64_t begin, std::int64_t end, std::int64_t x) {
  constexpr std::int64_t W = lanes<float>, wide = V * W;
  const std::int64_t width = k.w * k.c;
  std::vector<CorrelateTap> runs = k.runs, folded = k.folded;
  for (auto *taps : {&runs, &folded})
    for (CorrelateTap &tap : *taps) {
      tap.place *= wide;
      tap.other *= wide;
    }
  words += static_cast<std::int64_t>(k.left.size()) + x;
  for (std::int64_t row = 0; row < k.above + end - begin + k.below; ++row, words += k.pitch)
    correlate_row_of_runs<V>(k, words, k.span * wide, cells + row * wide);
  cells += k.above * wide;
  for (std::int64_t y = begin; y < end; ++y, cells += wide)
    correlate_put<wide>(k.output + y * width + x, width - x, [&](std::uint8_t *to) {
      Int<float> sum[V];
      for (int v = 0; v < V; ++v) sum[v] = Int<float>{} + k.rounding;
      correlate_add<V>(runs, cells, sum);
      correlate_add_folded<V>(folded, cells, sum);
#pragma GCC unroll 8
      for (int v = 0; v < V; v += 2) {
        const Halves bytes = halves((Words)(sum[v] >> k.unit | (sum[v + 1] >> k.unit) << 8));
        std::memcpy(to + v * W, &bytes, sizeof bytes);
      }
    });
}

static void correlate_by_runs(const Correlate &k) {
  constexpr std::int64_t W = lanes<float>, V = 8;
  const auto planes = static_cast<std::int64_t>(k.radii.size() + 1) / 2;
  const std::int64_t cells = planes * k.span * V * W, words = k.span * k.pitch;
  const Scratch<std::int32_t> memory(cells +
                                     (words + 1) / 2);  // one piece: of several, malloc gives some back each time
  auto *const values = reinterpret_cast<std::uint16_t *>(memory.get() + cells);
  std::vector<std::uint8_t> line(static_cast<std::size_t>(k.pitch));
  for (std::int64_t begin = 0; begin < k.h; begin += k.size) {
    const std::int64_t end = std::min(begin + k.size, k.h);
    std::uint16_t *to = values;
    for (std::int64_t y = begin - k.above; y < end + k.below; ++y, to += k.pitch) {
      correlate_line(k, y, line.data());
      std::copy(line.data(), line.data() + k.pitch, to);
    }
    std::int64_t x = 0;
    for (; x + V * W <= k.w * k.c; x += V * W) correlate_runs<V>(k, values, memory.get(), begin, end, x);
    for (; x < k.w * k.c; x += 2 * W) correlate_runs<2>(k, values, memory.get(), begin, end, x);
  }
}
