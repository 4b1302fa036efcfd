// What of a field exceeds a threshold, and the light on drops: passes over whole rows, which compilers turn into
// vectors. Of integers, and of floats whose products and sums are never fused: the same bytes on every machine.

// value · scale + offset of `size` values, in units of 1/255, where that isn't less than the threshold; 0 elsewhere.
static void above_bytes(const Above &a, const float *from, std::int64_t size, std::uint8_t *to) {
#pragma omp simd
  for (std::int64_t x = 0; x < size; ++x) {
    float value = from[x] * a.scale + a.offset;
    value = value >= a.threshold ? value : 0.0f;
    value = value > 0.0f ? value : 0.0f;
    value = value < 1.0f ? value : 1.0f;
    to[x] = static_cast<std::uint8_t>(static_cast<std::int32_t>(value * 255.0f + a.rounding));
  }
}

// Enlarged first, if it must be: across, a row of the field at a time, then down.
static void above_all(const Above &a) {
  if (a.rows == a.height && a.columns == a.width && a.down == 1.0 && a.across == 1.0)
    return above_bytes(a, a.field, a.height * a.width, a.output);
  const Scratch<float> memory((a.rows + 1) * a.width);
  float *const wide = memory.get(), *const line = wide + a.rows * a.width;
  for (std::int64_t x = 0; x < a.width; ++x) {
    const double at = static_cast<double>(x) * a.across;
    const std::int64_t left = std::min(static_cast<std::int64_t>(at), a.columns - 1);
    const std::int64_t right = std::min(left + 1, a.columns - 1);
    const auto share = static_cast<float>(at - static_cast<double>(left));
    for (std::int64_t y = 0; y < a.rows; ++y) {
      const float *row = a.field + y * a.columns;
      wide[y * a.width + x] = row[left] + (row[right] - row[left]) * share;
    }
  }
  for (std::int64_t y = 0; y < a.height; ++y) {
    const double at = static_cast<double>(y) * a.down;
    const std::int64_t above = std::min(static_cast<std::int64_t>(at), a.rows - 1);
    const float *upper = wide + above * a.width, *lower = wide + std::min(above + 1, a.rows - 1) * a.width;
    const auto share = static_cast<float>(at - static_cast<double>(above));
#pragma omp simd
    for (std::int64_t x = 0; x < a.width; ++x) line[x] = upper[x] + (lower[x] - upper[x]) * share;
    above_bytes(a, line, a.width, a.output + y * a.width);
  }
}

// Row y as int16, with its end pixels beside it.
static void drops_grey(const Drops &d, std::int64_t y, std::int16_t *to) {
  const std::uint8_t *from = d.grey + std::clamp<std::int64_t>(y, 0, d.h - 1) * d.w;
#pragma omp simd
  for (std::int64_t x = 0; x < d.w; ++x) to[x] = from[x];
  to[-1] = to[0];
  to[d.w] = to[d.w - 1];
}

// Sobel's gradients of a row, and the sums of their amounts.
static void drops_gradient(std::int64_t w, const std::int16_t *above, const std::int16_t *row,
                           const std::int16_t *below, std::int16_t *across, std::int16_t *down, std::int16_t *amount) {
#pragma omp simd
  for (std::int64_t x = 0; x < w; ++x) {
    const auto a = static_cast<std::int16_t>(above[x + 1] - above[x - 1] + 2 * (row[x + 1] - row[x - 1]) +
                                             below[x + 1] - below[x - 1]);
    const auto b = static_cast<std::int16_t>(below[x - 1] - above[x - 1] + 2 * (below[x] - above[x]) + below[x + 1] -
                                             above[x + 1]);
    across[x] = a;
    down[x] = b;
    amount[x] = static_cast<std::int16_t>((a < 0 ? -a : a) + (b < 0 ? -b : b));
  }
}

// Where the gradient is greater than on both sides along itself (in the nearest of four directions): 2 if it is strong,
// 1 if it is weak. 13573 is tan 22.5° in units of 2^−15; tan 67.5° is 2 more. In int16: twice as many in a vector.
static void drops_kinds(std::int64_t w, const std::int16_t *across, const std::int16_t *down, const std::int16_t *above,
                        const std::int16_t *amount, const std::int16_t *below, std::uint8_t *to) {
#pragma omp simd
  for (std::int64_t x = 0; x < w; ++x) {
    const auto a = static_cast<std::int16_t>(across[x] < 0 ? -across[x] : across[x]);
    const auto b = static_cast<std::int16_t>(down[x] < 0 ? -down[x] : down[x]);
    const auto twice = static_cast<std::int16_t>(2 * a);
    const auto low = static_cast<std::int16_t>(twice * 13573 >> 16);  // rounded down from no whole number, but for 0
    const auto high = static_cast<std::int16_t>(low + twice);
    const bool flat = (b <= low) & (a > 0);
    const bool steep = b > high;
    const bool rising = (across[x] ^ down[x]) < 0;
    const std::int16_t m = amount[x], aslant = rising ? above[x + 1] : above[x - 1];
    const std::int16_t aslant_after = rising ? below[x - 1] : below[x + 1];
    const std::int16_t before = flat ? amount[x - 1] : steep ? above[x] : aslant;
    const std::int16_t after = flat ? amount[x + 1] : steep ? below[x] : aslant_after;
    const bool greatest = (m > before) & ((m > after) | ((m == after) & (flat | steep)));
    to[x] = static_cast<std::uint8_t>((greatest & (m > drops_weak)) + (greatest & (m > drops_strong)));
  }
}

// Canny's edges but for their last step: kinds of 2 and 1. Whatever is needed of a row is made when it is met.
static void drops_gradients(const Drops &d, const DropsRing (&rings)[4], const DropsPlane<std::uint8_t> &kinds) {
  const auto &[grey, across, down, amount] = rings;
  std::fill(amount.data, amount.data + 4 * amount.pitch, std::int16_t{0});
  drops_grey(d, -1, grey.row(-1));
  drops_grey(d, 0, grey.row(0));
  for (std::int64_t y = 0; y <= d.h; ++y) {
    if (y < d.h) {
      drops_grey(d, y + 1, grey.row(y + 1));
      drops_gradient(d.w, grey.row(y - 1), grey.row(y), grey.row(y + 1), across.row(y), down.row(y), amount.row(y));
    } else {
      std::fill(amount.row(y), amount.row(y) + d.w, std::int16_t{0});
    }
    if (y)
      drops_kinds(d.w, across.row(y - 1), down.row(y - 1), amount.row(y - 2), amount.row(y - 1), amount.row(y),
                  kinds.row(y - 1));
  }
}

// Their last step: kinds of 2.
static void drops_edges(const Drops &d, const DropsPlane<std::uint8_t> &kinds) {
  std::vector<std::uint8_t *> found;
  std::vector<std::uint8_t> most(static_cast<std::size_t>(d.w + 2)), touched(static_cast<std::size_t>(d.w + 8));
  for (std::int64_t y = 0; y < d.h; ++y) {
    const std::uint8_t *above = kinds.row(y - 1) - 1, *row = kinds.row(y) - 1, *below = kinds.row(y + 1) - 1;
    std::uint8_t *three = most.data(), *flags = touched.data();
#pragma omp simd
    for (std::int64_t x = 0; x < d.w + 2; ++x) three[x] = std::max(std::max(above[x], row[x]), below[x]);
#pragma omp simd
    for (std::int64_t x = 0; x < d.w; ++x)
      flags[x] = (row[x + 1] == 1) & (std::max(std::max(three[x], three[x + 1]), three[x + 2]) == 2);
    for (std::int64_t x = 0; x < d.w; x += 8) {
      std::uint64_t eight;
      std::memcpy(&eight, flags + x, sizeof eight);
      for (std::int64_t i = x; eight && i < x + 8; ++i)
        if (flags[i] && kinds.row(y)[i] == 1) {
          kinds.row(y)[i] = 2;
          found.push_back(kinds.row(y) + i);
        }
    }
  }
  drops_spread(kinds, found);
}

// std::min takes references, and a loop that chooses where to read from isn't made vectors.
HW4FAST_INLINE std::int16_t drops_less(std::int16_t a, std::int16_t b) { return a < b ? a : b; }

// The least of `from` and of what lies up to 23 pixels before (by: −1) or behind it (1) and the way from there; from,
// other: with margins that are far.
static void drops_along(std::int64_t w, std::int64_t by, std::int16_t *from, std::int16_t *other, std::int16_t *to) {
  constexpr std::int64_t steps[] = {1, 2, 4, 8, 8};
  for (const std::int64_t &step : steps) {
    std::int16_t *const into = &step == std::end(steps) - 1 ? to : other;
    const std::int16_t *const beside = from + by * step;
    const auto way = static_cast<std::int16_t>(step * drops_one);
#pragma omp simd
    for (std::int64_t x = 0; x < w; ++x) {
      const auto there = static_cast<std::int16_t>(beside[x] + way);
      into[x] = from[x] < there ? from[x] : there;
    }
    std::swap(from, other);
  }
}

// The way to the nearest edge, at most `drops_far`: once with what lies above and to the left, once from the other end.
static void drops_distance(const Drops &d, const DropsPlane<std::uint8_t> &kinds, const DropsPlane<std::int16_t> &way) {
  std::fill(way.row(-2) - drops_margin, way.row(d.h + 2) - drops_margin, drops_far);
  for (std::int64_t y = 0; y < d.h; ++y)
    for (std::int64_t x = 0; x < d.w; ++x) way.row(y)[x] = kinds.row(y)[x] == 2 ? std::int16_t{0} : drops_far;
  std::vector<std::int16_t> memory(static_cast<std::size_t>(2 * way.pitch), drops_far);
  std::int16_t *const one = memory.data() + drops_margin, *const other = one + way.pitch;
  const auto pass = [&](std::int64_t y, std::int64_t by) {
    const std::int16_t *const near = way.row(y + by), *const far = way.row(y + 2 * by);
    const std::int16_t *const own = way.row(y);
#pragma omp simd
    for (std::int64_t x = 0; x < d.w; ++x) {
      const auto straight = static_cast<std::int16_t>(near[x] + drops_one);
      const auto aslant = static_cast<std::int16_t>(drops_less(near[x - 1], near[x + 1]) + drops_diagonal);
      const std::int16_t longer = drops_less(drops_less(near[x - 2], near[x + 2]), drops_less(far[x - 1], far[x + 1]));
      const std::int16_t straightest = drops_less(straight, aslant);
      one[x] = drops_less(drops_less(own[x], straightest), static_cast<std::int16_t>(longer + drops_long));
    }
    drops_along(d.w, by, one, other, way.row(y));
  };
  for (std::int64_t y = 0; y < d.h; ++y) pass(y, -1);
  for (std::int64_t y = d.h - 1; y >= 0; --y) pass(y, 1);
}

// A row's two neighbours beside it, mirrored.
template <class T> static void drops_beside(T *row, std::int64_t w) {
  row[-1] = row[drops_mirrored(-1, w)];
  row[w] = row[drops_mirrored(w, w)];
}

// use(x, the sum over 3 × 3) of row y.
template <class Plane, class Use> HW4FAST_INLINE void drops_sums(const Drops &d, const Plane &plane, std::int64_t y,
                                                                 std::int32_t *column, const Use &use) {
  const std::int16_t *above = plane.row(drops_mirrored(y - 1, d.h)), *row = plane.row(y);
  const std::int16_t *below = plane.row(drops_mirrored(y + 1, d.h));
#pragma omp simd
  for (std::int64_t x = -1; x <= d.w; ++x) column[x] = above[x] + row[x] + below[x];
#pragma omp simd
  for (std::int64_t x = 0; x < d.w; ++x) use(x, column[x - 1] + column[x] + column[x + 1]);
}

// How often each level occurs in a row. Eight counts of each: one waits for its last addition.
static void drops_count(const std::uint8_t *level, std::int64_t w, std::int64_t (&count)[8][drops_levels]) {
  std::int64_t x = 0;
  for (; x + 8 <= w; x += 8)
#pragma GCC unroll 8
    for (std::int64_t k = 0; k < 8; ++k) ++count[k][level[x + k]];
  for (; x < w; ++x) ++count[0][level[x]];
}

// In place; up to 31 values more than w.
static void drops_look_up(const std::uint8_t (&table)[drops_levels], std::uint8_t *level, std::int64_t w) {
#if defined(__x86_64__) && HW4FAST_VECTOR_BYTES > 16
  const auto half = [&](int i) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(table + 16 * i)));
  };
  const __m256i lower = half(0), upper = half(1);  // where bit 7 is set there comes a 0
  for (std::int64_t x = 0; x < w; x += 32) {
    const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(level + x));
    const __m256i low = _mm256_shuffle_epi8(lower, _mm256_add_epi8(at, _mm256_set1_epi8(0x70)));
    const __m256i high = _mm256_shuffle_epi8(upper, _mm256_sub_epi8(at, _mm256_set1_epi8(16)));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(level + x), _mm256_or_si256(low, high));
  }
#else
  for (std::int64_t x = 0; x < w; ++x) level[x] = table[level[x]];
#endif
}

// Mean distances as levels 0 … 20, equalised.
static void drops_levelled(const Drops &d, const DropsPlane<std::int16_t> &way, const DropsPlane<std::uint8_t> &levels,
                           std::int32_t *column) {
  std::int64_t count[8][drops_levels] = {}, all[drops_levels] = {};
  for (std::int64_t y = 0; y < d.h; ++y) drops_beside(way.row(y), d.w);
  for (std::int64_t y = 0; y < d.h; ++y) {
    std::uint8_t *const level = levels.row(y);
    drops_sums(d, way, y, column, [&](std::int64_t x, std::int32_t sum) {
      level[x] = static_cast<std::uint8_t>((sum >> 10) * 7282 >> 16);  // by 9 · 2^10
    });
    drops_count(level, d.w, count);
  }
  for (const auto &part : count)
    for (std::int64_t level = 0; level < drops_levels; ++level) all[level] += part[level];
  std::uint8_t table[drops_levels];
  drops_equalised(all, d.h * d.w, table);
  for (std::int64_t y = 0; y < d.h; ++y) {
    drops_look_up(table, levels.row(y), d.w);
    drops_beside(levels.row(y), d.w);
  }
}

// Light that falls from one side: what row y rises by towards the lower right.
static void drops_relief(const Drops &d, const DropsPlane<std::uint8_t> &from, std::int64_t y, std::int16_t *to) {
  const std::uint8_t *above = from.row(drops_mirrored(y - 1, d.h)), *row = from.row(y);
  const std::uint8_t *below = from.row(drops_mirrored(y + 1, d.h));
#pragma omp simd
  for (std::int64_t x = 0; x < d.w; ++x) {
    const auto slope = static_cast<std::int16_t>(-2 * above[x - 1] - above[x] - row[x - 1] + row[x] + row[x + 1] +
                                                 below[x] + 2 * below[x + 1]);
    const std::int16_t positive = slope < 0 ? std::int16_t{0} : slope;
    to[x] = positive > 255 ? std::int16_t{255} : positive;
  }
  drops_beside(to, d.w);
}

// The mean of it, rounded to the nearest, times the thickness; scaled at the end.
static void drops_shine(const Drops &d, const DropsPlane<std::uint8_t> &levels, const DropsRing &relief,
                        std::int32_t *column) {
  std::int32_t most = 1;
  for (std::int64_t y = 0; y <= d.h; ++y) {
    if (y < d.h) drops_relief(d, levels, y, relief.row(y));
    if (y == 0) continue;
    const std::uint8_t *const grey = d.grey + (y - 1) * d.w;
    float *const to = d.output + (y - 1) * d.w;
    drops_sums(d, relief, y - 1, column, [&](std::int64_t x, std::int32_t sum) {
      to[x] = static_cast<float>(((sum + 4) * 7282 >> 16) * grey[x]);
    });
    for (std::int64_t x = 0; x < d.w; ++x) most = std::max(most, static_cast<std::int32_t>(to[x]));
  }
  const float share = 1.0f / static_cast<float>(most);
  for (std::int64_t i = 0; i < d.h * d.w; ++i) d.output[i] *= share;
}

static void drops_all(const Drops &d) {
  const std::int64_t pitch = (d.w + 2 * drops_margin + 31) / 32 * 32, plane = (d.h + 4) * pitch;
  // one piece: of several, malloc gives some back each time
  const Scratch<std::int16_t> memory(plane + plane / 2 + 16 * pitch + 2 * pitch);
  const DropsPlane<std::int16_t> way{memory.get(), pitch};
  const DropsPlane<std::uint8_t> bytes{reinterpret_cast<std::uint8_t *>(memory.get() + plane), pitch};
  std::int16_t *const rest = memory.get() + plane + plane / 2;
  const DropsRing rings[4] = {
      {rest, pitch}, {rest + 4 * pitch, pitch}, {rest + 8 * pitch, pitch}, {rest + 12 * pitch, pitch}};
  auto *const column = reinterpret_cast<std::int32_t *>(rest + 16 * pitch) + 1;
  std::fill(bytes.data, bytes.data + plane, std::uint8_t{0});
  drops_gradients(d, rings, bytes);
  drops_edges(d, bytes);
  drops_distance(d, bytes, way);
  drops_levelled(d, way, bytes, column);
  drops_shine(d, bytes, rings[0], column);
}
