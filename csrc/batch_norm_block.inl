// Batch normalisation, ReLU and 2×2 maximum of one pass each way. Lanes run along the channels: side by side in memory
// where the picture is channels-last, gathered where it is not.
//
// forward    y = (x − mean)·scale + shift with scale = γ/√(var + ε); then ReLU, maximum and code as conv_block has them
// backward   from g, the gradient where the maximum was taken (0 elsewhere), x̂ = (x − mean)/√(var + ε), m values:
//            ∂β = Σ g    ∂γ = Σ g·x̂    ∂x = scale·(g − ∂β/m − x̂·∂γ/m)
//            (with a given mean and variance ∂x = scale·g)
//
// All sums over the batch are made in double, in an order that depends on the shape alone.

// A vector of T as one or two of double.
template <class T> struct Wide {
  Float<double> part[lanes<T> / lanes<double>] = {};
};
template <class T> HW4FAST_INLINE Wide<T> widen(Float<T> v) {
  typename Short<T, lanes<double>>::Vector half[lanes<T> / lanes<double>];
  std::memcpy(half, &v, sizeof v);
  Wide<T> wide;
  for (std::int64_t i = 0; i < lanes<T> / lanes<double>; ++i)
    wide.part[i] = __builtin_convertvector(half[i], Float<double>);
  return wide;
}
template <class T> HW4FAST_INLINE void store_wide(double *to, const Wide<T> &v, std::int64_t n) {
  for (std::int64_t i = 0; i < lanes<T> / lanes<double> && i * lanes<double> < n; ++i)
    store_some(to + i * lanes<double>, v.part[i], n - i * lanes<double>);
}

// What follows is done for one vector of channels, the n from `at` on. near: it is whole and side by side in memory,
// else its numbers are gathered.
template <class T, bool near>
HW4FAST_INLINE Float<T> batch_norm_load(const T *from, std::int64_t step, std::int64_t n) {
  return near ? load(from) : conv_gather(from, step, n);
}
template <class T, bool near> HW4FAST_INLINE void batch_norm_store(T *to, Float<T> v, std::int64_t n) {
  near ? store(to, v) : store_some(to, v, n);
}

// Calls work(at, n, near as a type) for all vectors of channels.
template <class T, class Work> HW4FAST_INLINE void batch_norm_channels(const BatchNorm<T> &b, const Work &work) {
  for (std::int64_t at = 0; at < b.c; at += lanes<T>) {
    const std::int64_t n = b.c - at;
    b.x.c == 1 && n >= lanes<T> ? work(at, n, std::true_type()) : work(at, n, std::false_type());
  }
}

// Σ(x − origin) and Σ(x − origin)² over the input rows [begin, end) of the whole batch, per channel.
template <class T> static void batch_norm_sums(const BatchNorm<T> &b, const T *origin, std::int64_t begin,
                                               std::int64_t end, double *sums, double *squares) {
  batch_norm_channels(b, [&](std::int64_t at, std::int64_t n, auto near) {
    const Wide<T> from = widen<T>(load_some(origin + at, n));
    Wide<T> sum, square;
    for (std::int64_t row = begin; row < end; ++row) {
      const T *x = b.x.at(row / b.h, at, row % b.h);
      for (std::int64_t j = 0; j < b.w; ++j) {
        const Wide<T> v = widen<T>(batch_norm_load<T, near>(x + j * b.x.w, b.x.c, n));
        for (std::int64_t i = 0; i < lanes<T> / lanes<double>; ++i) {
          const Float<double> far = v.part[i] - from.part[i];
          sum.part[i] += far;
          square.part[i] += far * far;
        }
      }
    }
    store_wide<T>(sums + at, sum, n);
    store_wide<T>(squares + at, square, n);
  });
}

// The values of x that an output was made of, four with the pool, else one. x: that of the first.
template <class T, bool pool, bool near>
HW4FAST_INLINE void batch_norm_window(const Strided<const T> &strides, const T *x, std::int64_t n, Float<T> *values) {
  for (int k = 0; k < (pool ? 4 : 1); ++k)
    values[k] = batch_norm_load<T, near>(x + k / 2 * strides.h + k % 2 * strides.w, strides.c, n);
}

// Output rows [begin, end) of the whole batch and their codes, if wanted: channels-last.
template <class T, bool pool> static void batch_norm_rows_as(const BatchNorm<T> &b, const T *shift, bool relu, T *out,
                                                             std::uint8_t *code, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t side = pool ? 2 : 1;
  batch_norm_channels(b, [&](std::int64_t at, std::int64_t n, auto near) {
    const Float<T> mean = load_some(b.mean + at, n), scale = load_some(b.scale + at, n), up = load_some(shift + at, n);
    for (std::int64_t row = begin; row < end; ++row) {
      const T *x = b.x.at(row / b.rows, at, row % b.rows * side);
      for (std::int64_t j = 0; j < b.cols; ++j) {
        Float<T> values[4], best;
        Int<T> which;
        batch_norm_window<T, pool, near>(b.x, x + j * side * b.x.w, n, values);
        for (int k = 0; k < side * side; ++k) values[k] = (values[k] - mean) * scale + up;
        conv_strongest<T>(values, side * side, relu, best, which);
        const std::int64_t place = (row * b.cols + j) * b.c + at;
        conv_keep<T>(best, which, near ? lanes<T> : n, out + place, code ? code + place : nullptr);
      }
    }
  });
}
template <class T> static void batch_norm_rows(const BatchNorm<T> &b, const T *shift, bool relu, T *out,
                                               std::uint8_t *code, std::int64_t begin, std::int64_t end) {
  (b.pool ? batch_norm_rows_as<T, true> : batch_norm_rows_as<T, false>)(b, shift, relu, out, code, begin, end);
}

// The gradient of the output (row, j) where it is alive, else 0, and which of the four it goes to.
template <class T, bool near>
HW4FAST_INLINE Float<T> batch_norm_gradient(const BatchNorm<T> &b, const Strided<const T> &grad,
                                            const std::uint8_t *code, std::int64_t row, std::int64_t j, std::int64_t at,
                                            std::int64_t n, Int<T> &which) {
  const T *from = grad.at(row / b.rows, at, row % b.rows) + j * grad.w;
  const Float<T> zero{}, g = conv_gather(from, grad.c, near ? lanes<T> : n);
  which = code ? conv_codes<T>(code + (row * b.cols + j) * b.c + at, near ? lanes<T> : n) : Int<T>{};
  return which == static_cast<Label<T>>(code_dead) ? zero : g;
}

// Σ g and Σ g·(x − mean) over the output rows [begin, end) of the whole batch, per channel.
template <class T, bool pool>
static void batch_norm_gradient_sums_as(const BatchNorm<T> &b, const Strided<const T> &grad, const std::uint8_t *code,
                                        std::int64_t begin, std::int64_t end, double *sums, double *products) {
  constexpr std::int64_t side = pool ? 2 : 1;
  batch_norm_channels(b, [&](std::int64_t at, std::int64_t n, auto near) {
    const Wide<T> mean = widen<T>(load_some(b.mean + at, n));
    Wide<T> sum, product;
    for (std::int64_t row = begin; row < end; ++row) {
      const T *x = b.x.at(row / b.rows, at, row % b.rows * side);
      for (std::int64_t j = 0; j < b.cols; ++j) {
        Int<T> which;
        Float<T> values[4];
        const Wide<T> g = widen<T>(batch_norm_gradient<T, near>(b, grad, code, row, j, at, n, which));
        batch_norm_window<T, pool, near>(b.x, x + j * side * b.x.w, n, values);
        for (int k = 1; k < side * side; ++k) values[0] = which == static_cast<Label<T>>(k) ? values[k] : values[0];
        const Wide<T> strongest = widen<T>(values[0]);
        for (std::int64_t i = 0; i < lanes<T> / lanes<double>; ++i) {
          sum.part[i] += g.part[i];
          product.part[i] += g.part[i] * (strongest.part[i] - mean.part[i]);
        }
      }
    }
    store_wide<T>(sums + at, sum, n);
    store_wide<T>(products + at, product, n);
  });
}
template <class T> static void batch_norm_gradient_sums(const BatchNorm<T> &b, const Strided<const T> &grad,
                                                        const std::uint8_t *code, std::int64_t begin, std::int64_t end,
                                                        double *sums, double *products) {
  const auto as = b.pool ? batch_norm_gradient_sums_as<T, true> : batch_norm_gradient_sums_as<T, false>;
  as(b, grad, code, begin, end, sums, products);
}

// The input's gradient, channels-last, for the output rows [begin, end) of the whole batch:
// scale·(g − even − (x − mean)·slope); a last row or column that the pool leaves out belongs to its neighbour.
template <class T, bool pool>
static void batch_norm_input_gradient_as(const BatchNorm<T> &b, const Strided<const T> &grad, const std::uint8_t *code,
                                         const T *even, const T *slope, T *dx, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t side = pool ? 2 : 1;
  batch_norm_channels(b, [&](std::int64_t at, std::int64_t n, auto near) {
    const Float<T> mean = load_some(b.mean + at, n), scale = load_some(b.scale + at, n), zero{};
    const Float<T> least = even ? load_some(even + at, n) : zero, steep = slope ? load_some(slope + at, n) : zero;
    const auto write = [&](const T *x, T *to, Float<T> g) {
      if (slope) g -= least + (batch_norm_load<T, near>(x, b.x.c, n) - mean) * steep;
      batch_norm_store<T, near>(to, scale * g, n);
    };
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t image = r / b.rows, row = r % b.rows;
      const T *x = b.x.at(image, at, row * side);
      T *to = dx + (image * b.h + row * side) * b.w * b.c + at;
      for (std::int64_t j = 0; j < b.cols; ++j) {
        Int<T> which;
        const Float<T> g = batch_norm_gradient<T, near>(b, grad, code, r, j, at, n, which);
        for (int k = 0; k < side * side; ++k) {
          const std::int64_t down = k / 2, across = j * side + k % 2;
          write(x + down * b.x.h + across * b.x.w, to + (down * b.w + across) * b.c,
                which == static_cast<Label<T>>(k) ? g : zero);
        }
      }
      const std::int64_t rows = row + 1 < b.rows ? side : b.h - row * side;
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = i < side ? b.cols * side : 0; j < b.w; ++j)
          write(x + i * b.x.h + j * b.x.w, to + (i * b.w + j) * b.c, zero);
    }
  });
}
template <class T> static void batch_norm_input_gradient(const BatchNorm<T> &b, const Strided<const T> &grad,
                                                         const std::uint8_t *code, const T *even, const T *slope, T *dx,
                                                         std::int64_t begin, std::int64_t end) {
  const auto as = b.pool ? batch_norm_input_gradient_as<T, true> : batch_norm_input_gradient_as<T, false>;
  as(b, grad, code, even, slope, dx, begin, end);
}
