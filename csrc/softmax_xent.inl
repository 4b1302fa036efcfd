// Softmax cross entropy, loss and gradient in one visit of each row of logits x [rows, classes]:
//
//   v = ±x, the sign that of scale    d = v − max v    s = Σ e^(|scale|·d)    log p_j = |scale|·d_j − log s
//   loss   = −(1−ε)·w_y·log p_y − ε/C·Σ_j w_j·log p_j
//   grad_j = scale·factor·(A·e^(|scale|·d_j)/s − (1−ε)·w_y·[j = y] − ε/C·w_j),   A = (1−ε)·w_y + ε/C·Σ_j w_j
//
// with ε the label smoothing, w the class weights, y the target; a row whose target is ignore_index gives 0.
// Subtracting the maximum before anything else is added keeps logits of 1e8 as exact as those of 1, and before
// scale is multiplied in: ±x is exact, so the maximum's own d is 0 however the compiler fuses the two.
//
// S is what memory holds of x and the gradient, T what is computed in: the same, or float for S = BFloat16.

// Rows of at least one vector: lanes run along the classes. x is read for the maximum and again for e^d (from the
// cache: a row of 32,000 floats is 125 KiB); e^d waits in the gradient's own row until s is known, or in `scratch`
// where the gradient's row would round it to bfloat16. While the gradient is finished, the maximum of the next row is
// found: one is bound by multiplications and stores, the other by loads. The last vector overlaps the one before it, so
// that no tail loop is needed; `fresh` marks its new lanes.
template <class S, bool want_grad>
static void softmax_xent_long_rows(const SoftmaxXent<S> &p, std::int64_t begin, std::int64_t end) {
  using T = Computing<S>;
  constexpr std::int64_t W = lanes<T>;
  const std::int64_t C = p.classes, last = C - W;
  const T sign = p.scale < 0 ? T(-1) : T(1), scale = p.scale * sign, share = p.smoothing / static_cast<T>(C);
  const Float<T> zero{};
  Float<T> fresh{};
  for (std::int64_t lane = 0; lane < W; ++lane) fresh[lane] = (last + lane >= C / W * W) ? T(1) : T(0);

  // Calls also(j) for each vector of a row and returns max ±x of that row.
  const auto max_while = [&](const S *x, const auto &also) {
    Float<T> best[4] = {load(x) * sign, load(x) * sign, load(x) * sign, load(x + last) * sign};
    std::int64_t j = 0;
    for (; j + 4 * W <= C; j += 4 * W)
      for (int k = 0; k < 4; ++k) {
        best[k] = larger(load(x + j + k * W) * sign, best[k]);
        also(j + k * W);
      }
    for (; j + W <= C; j += W) {
      best[0] = larger(load(x + j) * sign, best[0]);
      also(j);
    }
    return max_of<T>(larger(larger(best[0], best[1]), larger(best[2], best[3])));
  };
  const auto nothing = [](std::int64_t) {};

  T m = begin < end ? max_while(p.logits + begin * p.row_stride, nothing) : T(0);
  for (std::int64_t i = begin; i < end; ++i) {
    const S *x = p.logits + i * p.row_stride;
    const S *next = i + 1 < end ? x + p.row_stride : x;
    S *g = want_grad ? p.grad + i * C : nullptr;
    T *exponentials = p.scratch;
    if constexpr (std::is_same_v<S, T>) exponentials = g;
    const std::int64_t y = p.target[i];
    if (y == p.ignore_index) {
      p.loss[i] = 0;
      if (want_grad) std::fill(g, g + C, S{});
      m = max_while(next, nothing);
      continue;
    }
    Float<T> sums[4] = {};  // as many as the compiler would need for speed, and four times fewer roundings each
    const auto exponential = [&](std::int64_t at, Float<T> &sum) {
      const Float<T> e = exp_nonpositive(load(x + at) * sign - m, scale);
      __builtin_prefetch(next + at);  // the next row's logits and gradient: a quarter of the time
      if (want_grad) __builtin_prefetch(g + C + at, 1);
      if (want_grad) store(exponentials + at, e);
      sum += e;
    };
    std::int64_t j = 0;
    for (; j + 4 * W <= C; j += 4 * W)
      for (int k = 0; k < 4; ++k) exponential(j + k * W, sums[k]);
    for (; j + W <= C; j += W) exponential(j, sums[0]);
    const Float<T> e_last = exp_nonpositive(load(x + last) * sign - m, scale);
    sums[1] += fresh > zero ? e_last : zero;
    const T s = sum_of<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));

    const T w_y = p.weight ? p.weight[y] : T(1), hard = (T(1) - p.smoothing) * w_y;
    const T log_s = std::log(s), m_now = m, x_y = widen(x[y]);
    if (want_grad) {
      store(exponentials + last, e_last);
      const T e_y = exponentials[y];
      const T factor = p.factor * p.scale, a = (hard + share * p.weight_sum) * factor / s, b = share * factor;
      if (p.smoothing == 0) {
        m = max_while(next, [&](std::int64_t at) { store(g + at, load(exponentials + at) * a); });
        store(g + last, e_last * a);
      } else if (!p.weight) {
        m = max_while(next, [&](std::int64_t at) { store(g + at, load(exponentials + at) * a - b); });
        store(g + last, e_last * a - b);
      } else {
        m = max_while(next,
                      [&](std::int64_t at) { store(g + at, load(exponentials + at) * a - load(p.weight + at) * b); });
        store(g + last, e_last * a - load(p.weight + last) * b);
      }
      const T w_b = p.smoothing == 0 ? T(0) : p.weight ? w_y * b : b;
      narrow(e_y * a - w_b - hard * factor, g + y);
    } else {
      m = max_while(next, nothing);
    }

    T loss = hard * (log_s - (x_y * sign - m_now) * scale);
    if (p.smoothing != 0) {
      const auto weighted = [&](std::int64_t at) {
        const Float<T> d = load(x + at) * sign - m_now;
        return p.weight ? d * load(p.weight + at) : d;
      };
      Float<T> d_sums[4] = {};  // of w_j·d_j, in as many pieces as the exponentials
      for (j = 0; j + 4 * W <= C; j += 4 * W)
        for (int k = 0; k < 4; ++k) d_sums[k] += weighted(j + k * W);
      for (; j + W <= C; j += W) d_sums[0] += weighted(j);
      d_sums[1] += fresh > zero ? weighted(last) : zero;
      const T d_sum = sum_of<T>((d_sums[0] + d_sums[1]) + (d_sums[2] + d_sums[3]));
      loss += share * (log_s * p.weight_sum - d_sum * scale);
    }
    p.loss[i] = loss;
  }
}

// Short rows: ten classes would leave most of a vector along the row unused, so lanes run across W rows at once. They
// are read and written as squares of W × W, turned in registers. A square reaches beyond the row's last class: into
// the next rows, which are rewritten later, or, at the end of the memory, into a copy.
template <class S, bool want_grad>
static void softmax_xent_short_rows(const SoftmaxXent<S> &p, std::int64_t begin, std::int64_t end) {
  using T = Computing<S>;
  constexpr std::int64_t W = lanes<T>, most = softmax_xent_short<T>;
  const std::int64_t C = p.classes, width = (C + W - 1) / W * W;
  const T sign = p.scale < 0 ? T(-1) : T(1), scale = p.scale * sign;
  const T share = p.smoothing / static_cast<T>(C), factor = p.factor * p.scale;
  const Float<T> zero{};
  alignas(64) T columns[most * W];  // [width][W], lane = row
  alignas(64) S copy[most * W];
  alignas(64) T hard[W], loss[W];

  for (std::int64_t first = begin; first < end; first += W) {
    const std::int64_t rows = std::min(W, end - first);
    const S *x = p.logits + first * p.row_stride;
    std::int64_t stride = p.row_stride;
    if (rows < W || stride < C || x + (W - 1) * stride + width > p.logits_end) {
      std::fill(copy, copy + W * width, S{});
      for (std::int64_t lane = 0; lane < rows; ++lane)
        std::copy(x + lane * stride, x + lane * stride + C, copy + lane * width);
      x = copy;
      stride = width;
    }
    for (std::int64_t j = 0; j < width; j += W) {
      Float<T> square[W];
      for (std::int64_t lane = 0; lane < W; ++lane) square[lane] = load(x + lane * stride + j) * sign;
      transpose<T>(square);
      for (std::int64_t k = 0; k < W; ++k) store(columns + (j + k) * W, square[k]);
    }

    Int<T> y;  // −1: not counted
    for (std::int64_t lane = 0; lane < W; ++lane) {
      const std::int64_t target = lane < rows ? p.target[first + lane] : p.ignore_index;
      const bool counts = target != p.ignore_index;
      y[lane] = counts ? target : -1;
      hard[lane] = counts ? (T(1) - p.smoothing) * (p.weight ? p.weight[target] : T(1)) : T(0);
    }
    Float<T> m = load(columns);
    for (std::int64_t j = 1; j < C; ++j) m = larger(load(columns + j * W), m);
    Float<T> s{}, d_y{}, weighted{};  // weighted: Σ_j w_j·d_j
    for (std::int64_t j = 0; j < C; ++j) {
      const Float<T> d = load(columns + j * W) - m, e = exp_nonpositive(d, scale);
      store(columns + j * W, e);
      s += e;
      d_y = y == static_cast<Label<T>>(j) ? d : d_y;
      if (p.smoothing != 0) weighted += d * (p.weight ? p.weight[j] : T(1));
    }
    const Float<T> log_s = log_atleast1(s);
    Float<T> value = load(hard) * (log_s - d_y * scale);
    if (p.smoothing != 0) value += share * (log_s * p.weight_sum - weighted * scale);
    store(loss, y >= 0 ? value : zero);
    std::copy(loss, loss + rows, p.loss + first);
    if (!want_grad) continue;

    const Float<T> a = (load(hard) + share * p.weight_sum) * factor / s, at_y = load(hard) * factor;
    for (std::int64_t j = 0; j < C; ++j) {
      const T b = p.smoothing != 0 ? share * factor * (p.weight ? p.weight[j] : T(1)) : T(0);
      const Float<T> g = load(columns + j * W) * a - b;
      store(columns + j * W, y >= 0 ? (y == static_cast<Label<T>>(j) ? g - at_y : g) : zero);
    }
    for (std::int64_t j = 0; j < width; j += W) {
      Float<T> square[W];
      for (std::int64_t k = 0; k < W; ++k) square[k] = load(columns + (j + k) * W);
      transpose<T>(square);
      for (std::int64_t lane = 0; lane < W; ++lane) store(columns + (j + lane) * W, square[lane]);
    }
    S *g = p.grad + first * C;
    const bool room = g + (W - 1) * C + width <= p.grad + end * C;
    for (std::int64_t lane = 0; lane < rows; ++lane, g += C)
      for (std::int64_t j = 0; j < width; j += W) {
        const Float<T> values = load(columns + (j + lane) * W);
        if (room) {
          store(g + j, values);
        } else {
          store(copy, values);
          std::copy(copy, copy + std::min(W, C - j), g + j);
        }
      }
  }
}

template <class S> static void softmax_xent_rows(const SoftmaxXent<S> &p, std::int64_t begin, std::int64_t end) {
  using T = Computing<S>;
  const bool is_short = p.classes < softmax_xent_short<T> && p.classes < 4 * lanes<T>;
  if (is_short || p.classes < lanes<T>)
    p.grad ? softmax_xent_short_rows<S, true>(p, begin, end) : softmax_xent_short_rows<S, false>(p, begin, end);
  else
    p.grad ? softmax_xent_long_rows<S, true>(p, begin, end) : softmax_xent_long_rows<S, false>(p, begin, end);
}
