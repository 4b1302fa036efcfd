// One filter per channel. Lanes run along W channels; a tile of P neighbouring outputs stays in registers over all
// kh·kw taps.

// out [P][step], W of them, = start + Σ_taps x·w: x at the first output's corner, `line` from row to row, `pixel` from
// column to column, `stride` columns from output to output; w [kh][kw][W].
template <class T, int P> static void depthwise_tile(const T *x, std::int64_t line, std::int64_t pixel,
                                                     std::int64_t stride, const T *w, std::int64_t kh, std::int64_t kw,
                                                     Float<T> start, T *out, std::int64_t step) {
  constexpr std::int64_t W = lanes<T>;
  Float<T> sum[P];
  for (int p = 0; p < P; ++p) sum[p] = start;
  for (std::int64_t i = 0; i < kh; ++i, x += line)
    for (std::int64_t k = 0; k < kw; ++k, w += W) {
      const Float<T> weight = load(w);
      const T *at = x + k * pixel;
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p, at += stride * pixel) sum[p] += weight * load(at);
    }
  for (int p = 0; p < P; ++p) store(out + p * step, sum[p]);
}

// `count` neighbouring outputs, eight at a time; the last eight may overlap those before.
template <class T> static void depthwise_row(const T *x, std::int64_t line, std::int64_t pixel, std::int64_t stride,
                                             const T *w, std::int64_t kh, std::int64_t kw, Float<T> start,
                                             std::int64_t count, T *out, std::int64_t step) {
  const auto tiles = [&](auto P) {
    for (std::int64_t j = 0; j < count; j += P) {
      const std::int64_t at = std::min<std::int64_t>(j, count - P);
      depthwise_tile<T, P()>(x + at * stride * pixel, line, pixel, stride, w, kh, kw, start, out + at * step, step);
    }
  };
  if (count >= 8)
    tiles(std::integral_constant<int, 8>());
  else if (count >= 4)
    tiles(std::integral_constant<int, 4>());
  else
    tiles(std::integral_constant<int, 1>());
}

// weight [o][kh·kw] of `channels` neighbouring channels → [kh·kw][W], zeros behind them, in reverse if `turned`.
template <class T>
static void depthwise_filters(const T *weight, std::int64_t channels, std::int64_t taps, bool turned, T *to) {
  constexpr std::int64_t W = lanes<T>;
  for (std::int64_t t = 0; t < taps; ++t)
    for (std::int64_t lane = 0; lane < W; ++lane)
      to[t * W + lane] = lane < channels ? weight[lane * taps + (turned ? taps - 1 - t : t)] : T(0);
}

// Output rows [begin, end) of the whole batch, row r being row r % rows of image r / rows. A band of input rows lies
// packed with all its channels, [row][column][pitch]; filters [block][kh·kw][W], bias padded to whole blocks.
template <class T> static void depthwise_rows(const Strided<const T> &x, const T *filters, const T *bias,
                                              const ConvShape &s, T *out, std::uint8_t *code, std::int64_t begin,
                                              std::int64_t end) {
  constexpr std::int64_t W = lanes<T>;
  const std::int64_t pitch = (s.c + W - 1) / W * W, taps = s.kh * s.kw, width = s.cols * s.side;
  const std::int64_t columns = (width - 1) * s.across + s.kw, line = columns * pitch;
  const std::int64_t step = s.side * s.down, overlap = (s.side - 1) * s.down + s.kh;  // packed rows of an output row
  const std::int64_t most = std::max<std::int64_t>(1, (65536 / line - overlap) / step + 1);
  const Scratch<T> packed(((most - 1) * step + overlap) * line), finished(s.side * width * W);
  while (begin < end) {
    const std::int64_t image = begin / s.rows, row = begin % s.rows;
    const std::int64_t count = std::min({most, end - begin, s.rows - row});
    conv_pack_pixels(x, s, image, row * s.side * s.sh - s.ph, (count - 1) * step + overlap, columns, pitch,
                     packed.get());
    for (std::int64_t r = 0; r < count; ++r)
      for (std::int64_t c = 0; c < s.c; c += W) {
        const std::int64_t at = (image * s.rows + row + r) * s.cols * s.o + c;
        const bool straight = !s.pool && !s.relu && !code && s.c - c >= W;  // nothing is left to finish
        for (std::int64_t half = 0; half < s.side; ++half)
          depthwise_row(packed.get() + (r * step + half * s.down) * line + c, line, pitch, s.across, filters + c * taps,
                        s.kh, s.kw, load(bias + c), width, straight ? out + at : finished.get() + half * width * W,
                        straight ? s.o : W);
        if (!straight) conv_finish(finished.get(), W, width * W, s, s.c - c, out + at, code ? code + at : nullptr);
      }
    begin += count;
  }
}

// -- backward ----------------------------------------------------------------------------------------------------

// The W channels from `first` on as a picture of their own.
template <class T>
static Strided<const T> depthwise_channels(const Strided<const T> &x, std::int64_t first, ConvShape *s) {
  s->c = std::min(lanes<T>, s->c - first);
  return {x.data + first * x.c, x.n, x.c, x.h, x.w};
}

// The gradient of the convolution's outputs, W channels of them: `to` [rows·side][cols·side] at its first, `line` and
// `step` from one to the next. Returns their sum.
template <class T> static Float<T> depthwise_gradient(const DepthwiseGradient<T> &p, std::int64_t image,
                                                      std::int64_t first, std::int64_t channels, T *to,
                                                      std::int64_t line, std::int64_t step) {
  const ConvShape &s = p.shape;
  Float<T> sum{};
  for (std::int64_t r = 0; r < s.rows; ++r) {
    Float<T> of_row{};
    for (std::int64_t j = 0; j < s.cols; ++j) {
      const Float<T> g = conv_gather(p.g.at(image, first, r) + j * p.g.w, p.g.c, channels);
      const std::uint8_t *code = p.code ? p.code + ((image * s.rows + r) * s.cols + j) * s.o + first : nullptr;
      const Int<T> which = code ? conv_codes<T>(code, channels) : Int<T>{};
      for (std::int64_t k = 0; k < s.side * s.side; ++k) {
        const Float<T> alive = which == static_cast<Label<T>>(k) ? g : Float<T>{};
        store(to + (r * s.side + k / 2) * line + (j * s.side + k % 2) * step, alive);
        of_row += alive;
      }
    }
    sum += of_row;
  }
  return sum;
}

// Adds to sums [kh][kw][W] Σ g·x over all outputs: x packed, g as depthwise_gradient leaves it.
template <class T> static void depthwise_weight_gradient(const ConvShape &s, const T *x, std::int64_t x_line,
                                                         const T *g, std::int64_t g_line, std::int64_t g_step,
                                                         T *sums) {
  constexpr std::int64_t W = lanes<T>;
  for (std::int64_t r = 0; r < s.rows * s.side; ++r)
    for (std::int64_t i = 0; i < s.kh; ++i) {
      const T *from = x + (r * s.down + i) * x_line;
      Float<T> sum[7] = {};
      for (std::int64_t j = 0; j < s.cols * s.side; ++j, from += s.across * W) {
        const Float<T> grad = load(g + r * g_line + j * g_step);
#pragma GCC unroll 7
        for (std::int64_t k = 0; k < 7; ++k)
          if (k < s.kw) sum[k] += grad * load(from + k * W);
      }
      for (std::int64_t k = 0; k < s.kw; ++k) {
        T *to = sums + (i * s.kw + k) * W;
        store(to, load(to) + sum[k]);
      }
    }
}

// Images [begin, end) of one block of channels: writes their p.dx and adds to sums, dw [kh][kw][W] with db behind it.
// The input's gradient is a convolution, too: of the outputs' gradients, apart by the packed strides with zeros between
// and a border around, with the filter turned about.
template <class T> static void depthwise_backward(const DepthwiseGradient<T> &p, std::int64_t first, std::int64_t begin,
                                                  std::int64_t end, T *sums) {
  constexpr std::int64_t W = lanes<T>;
  const ConvShape &s = p.shape;
  const std::int64_t taps = s.kh * s.kw, down = (s.rows * s.side - 1) * s.down,
                     across = (s.cols * s.side - 1) * s.across;
  const std::int64_t rows = down + s.kh, columns = across + s.kw, line = columns * W;  // of the input that is seen
  const std::int64_t g_rows = down + 2 * s.kh - 1, g_line = (across + 2 * s.kw - 1) * W;
  const Scratch<T> packed(rows * line), grads(g_rows * g_line), filters(taps * W);
  ConvShape some = s;
  const Strided<const T> x = depthwise_channels(p.x, first, &some);
  depthwise_filters(p.weight + first * taps, some.c, taps, true, filters.get());
  std::fill(grads.get(), grads.get() + g_rows * g_line, T(0));
  T *inside = grads.get() + (s.kh - 1) * g_line + (s.kw - 1) * W, *db = sums + taps * W;
  for (std::int64_t image = begin; image < end; ++image) {
    const Float<T> sum = depthwise_gradient(p, image, first, some.c, inside, s.down * g_line, s.across * W);
    store(db, load(db) + sum);
    if (p.want_dw) {
      conv_pack_pixels(x, some, image, -s.ph, rows, columns, W, packed.get());
      depthwise_weight_gradient(s, packed.get(), line, inside, s.down * g_line, s.across * W, sums);
    }
    if (!p.dx) continue;
    for (std::int64_t r = 0; r < rows; ++r)
      depthwise_row(grads.get() + r * g_line, g_line, W, 1, filters.get(), s.kh, s.kw, Float<T>{}, columns,
                    packed.get() + r * line, W);
    conv_unpack_pixels(packed.get(), s, image, rows, columns, W, first, some.c, p.dx);
  }
}
