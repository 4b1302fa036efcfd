// What changes each pixel by itself. 64 pixels at a time are taken apart into a row of numbers per channel, changed as
// vectors, and put together again.

constexpr std::int64_t pixels_at_once = 64;  // at once

HW4FAST_INLINE Float<float> pixels_clip(Float<float> v) {
  v = larger(splat(0.0f), v);
  return v > 1.0f ? splat(1.0f) : v;
}
HW4FAST_INLINE Float<float> pixels_smaller(Float<float> a, Float<float> b) { return -larger(-a, -b); }

struct PixelRows {
  std::uint8_t bytes[3][pixels_at_once];
};

// change(x, i): x are the values of vectors of pixels from number i on, of C channels; then rounded down, with `room`
// for the products' own rounding.
template <int C, class Change> HW4FAST_INLINE void pixels_each(const Pixels &p, float room, const Change &change) {
  for (std::int64_t begin = 0; begin < p.pixels; begin += pixels_at_once) {
    const std::int64_t n = std::min(pixels_at_once, p.pixels - begin);
    PixelRows rows = {};
    if constexpr (C == 3)
      split_three(p.input + 3 * begin, n, {rows.bytes[0], rows.bytes[1], rows.bytes[2]});
    else
      std::memcpy(rows.bytes[0], p.input + begin, static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; i += lanes<float>) {
      Float<float> x[C];
      for (int channel = 0; channel < C; ++channel)
        x[channel] = __builtin_convertvector(widen(rows.bytes[channel] + i), Float<float>);
      change(x, begin + i, std::min(n - i, lanes<float>));
      for (int channel = 0; channel < C; ++channel) {
        Float<float> v = larger(splat(0.0f), x[channel] + room);
        v = v > 255.0f ? splat(255.0f) : v;
        narrow(__builtin_convertvector(v, Int<float>), rows.bytes[channel] + i);
      }
    }
    if constexpr (C == 3)
      join_three({rows.bytes[0], rows.bytes[1], rows.bytes[2]}, n, p.output + 3 * begin);
    else
      std::memcpy(p.output + begin, rows.bytes[0], static_cast<std::size_t>(n));
  }
}

// A pixel's hue and saturation stay when its three numbers are multiplied by one factor, its hue and value when their
// distances from the greatest are: neither needs an angle.
static void pixels_value(const Pixels &p, float offset) {
  pixels_each<3>(p, 0x1p-10f, [&](Float<float>(&x)[3], std::int64_t, std::int64_t) {
    const Float<float> value = larger(larger(x[0], x[1]), x[2]);
    const Float<float> wanted = pixels_clip(value * (1.0f / 255.0f) + offset) * 255.0f;
    const Float<float> share = wanted / larger(splat(1.0f), value);
    for (auto &channel : x) channel = value > 0.0f ? channel * share : wanted;  // black becomes grey
  });
}

static void pixels_saturation(const Pixels &p, float factor, float offset) {
  pixels_each<3>(p, 0x1p-10f, [&](Float<float>(&x)[3], std::int64_t, std::int64_t) {
    const Float<float> value = larger(larger(x[0], x[1]), x[2]);
    const Float<float> range = value - pixels_smaller(pixels_smaller(x[0], x[1]), x[2]);
    const Float<float> saturation = range / larger(splat(1.0f), value);
    const Float<float> wanted = pixels_clip(saturation * factor + offset);
    const Float<float> share = value * wanted / larger(splat(1.0f), range);
    const auto grey = range == 0.0f;  // its hue is called 0, red
    x[0] = value - (value - x[0]) * share;
    for (int channel = 1; channel < 3; ++channel)
      x[channel] = grey ? value - value * wanted : value - (value - x[channel]) * share;
  });
}

// value · (kept − shadow · cover) + amount · cover · colour
template <int C> static void pixels_veil(const Pixels &p, const Veil &v) {
  pixels_each<C>(p, 0.0f, [&](Float<float>(&x)[C], std::int64_t i, std::int64_t n) {
    const Float<float> cover = v.cover ? load_some(v.cover + i, n) : splat(1.0f);
    const Float<float> keep = v.kept - cover * v.shadow, lay = cover * v.amount;
    for (int channel = 0; channel < C; ++channel) x[channel] = x[channel] * keep + lay * v.colour[channel];
  });
}

// value · kept + amount · layer: no pixel needs to be taken apart.
static void pixels_layer(const Pixels &p, const Veil &v, std::int64_t values) {
  constexpr std::int64_t W = lanes<float>;
  for (std::int64_t i = 0; i < values; i += W) {
    const std::int64_t n = std::min(values - i, W);
    std::uint8_t some[2][W] = {};
    const std::uint8_t *from = p.input + i, *layer = v.layer + i;
    std::uint8_t *to = p.output + i;
    if (n < W) {
      std::memcpy(some[0], from, static_cast<std::size_t>(n));
      std::memcpy(some[1], layer, static_cast<std::size_t>(n));
      from = some[0];
      layer = some[1];
      to = some[0];
    }
    const Float<float> x = __builtin_convertvector(widen(from), Float<float>);
    const Float<float> over = __builtin_convertvector(widen(layer), Float<float>);
    Float<float> y = larger(splat(0.0f), x * v.kept + over * v.amount);
    y = y > 255.0f ? splat(255.0f) : y;
    narrow(__builtin_convertvector(y, Int<float>), to);
    if (n < W) std::memcpy(p.output + i, some[0], static_cast<std::size_t>(n));
  }
}

// value · kept + (1 − kept) · max(value, 1.5 · luma + 127.5) + flakes + flakes turned by 180°
template <int C> static void pixels_snow(const Pixels &p, const std::uint8_t *flakes, float kept) {
  const float white = 1.0f - kept;
  pixels_each<C>(p, 0.0f, [&](Float<float>(&x)[C], std::int64_t i, std::int64_t n) {
    Float<float> luma = x[0];
    if constexpr (C == 3) luma = x[0] * 0.299f + x[1] * 0.587f + x[2] * 0.114f;
    luma = luma * 1.5f + 127.5f;
    Float<float> falling{};
    for (std::int64_t lane = 0; lane < n; ++lane)
      falling[lane] = static_cast<float>(flakes[i + lane] + flakes[p.pixels - 1 - i - lane]);
    for (auto &channel : x) channel = channel * kept + larger(channel, luma) * white + falling;
  });
}
