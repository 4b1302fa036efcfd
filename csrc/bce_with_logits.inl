// Binary cross entropy of logits x with targets y in 0 … 1, loss and gradient in one visit:
//
//   e = e^−|x|    t = pos_weight·y    σ(|x|) = 1/(1+e)
//   loss = w·((x > 0 ? 1−y : t)·|x| + (1−y + t)·log(1+e))
//   grad = w·factor·(x > 0 ? (1−y) − t·e : (1−y)·e − t)/(1+e)
//
// This is w·((1−y)·softplus(x) + t·softplus(−x)) and its derivative, sorted by the sign of x: e never overflows, and
// no two large numbers of different sign are added, so that a confident and right logit's small loss keeps its digits.

// The vector of losses at `i`; writes them and the gradient where they are wanted.
template <class T> HW4FAST_INLINE Float<T> bce_with_logits_vector(const BceWithLogits<T> &p, std::int64_t i) {
  const Float<T> zero{}, x = load(p.logits + i), y = load(p.target + i), size = larger(x, -x), not_y = T(1) - y;
  const Float<T> t = p.pos_weight ? y * load(p.pos_weight + i) : y, e = exp_nonpositive(-size, T(1));
  Float<T> loss = (x > zero ? not_y : t) * size + (not_y + t) * log1p_upto1(e);
  if (p.weight) loss *= load(p.weight + i);
  if (p.loss) store(p.loss + i, loss);
  if (p.grad) {
    const Float<T> w = p.weight ? load(p.weight + i) * p.factor : splat(p.factor);
    store(p.grad + i, (x > zero ? not_y - t * e : not_y * e - t) * (w / (e + T(1))));
  }
  return loss;
}

// Σ loss over n ≤ bce_with_logits_block elements: few enough to be added in T.
template <class T> static double bce_with_logits_sum(const BceWithLogits<T> &p, std::int64_t n) {
  constexpr std::int64_t W = lanes<T>;
  Float<T> sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int k = 0; k < 4; ++k) sums[k] += bce_with_logits_vector(p, i + k * W);
  for (; i + W <= n; i += W) sums[0] += bce_with_logits_vector(p, i);
  if (i < n) {  // less than a vector is left: it passes through copies
    const std::int64_t rest = n - i;
    alignas(64) T copies[6][W] = {};
    const auto copy = [&](const T *from, T *to) -> T * {
      if (from) std::copy(from + i, from + n, to);
      return from ? to : nullptr;
    };
    const BceWithLogits<T> last{copy(p.logits, copies[0]),
                                copy(p.target, copies[1]),
                                copy(p.weight, copies[2]),
                                copy(p.pos_weight, copies[3]),
                                p.loss ? copies[4] : nullptr,
                                p.grad ? copies[5] : nullptr,
                                p.factor};
    const Float<T> losses = bce_with_logits_vector(last, 0);
    if (p.loss) std::copy(last.loss, last.loss + rest, p.loss + i);
    if (p.grad) std::copy(last.grad, last.grad + rest, p.grad + i);
    for (std::int64_t lane = 0; lane < rest; ++lane) sums[1][lane] += losses[lane];
  }
  return static_cast<double>(sum_of<T>((sums[0] + sums[1]) + (sums[2] + sums[3])));
}
