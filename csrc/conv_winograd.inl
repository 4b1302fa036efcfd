// Forward by Winograd's algorithm (conv.inl): convolution, bias, ReLU and 2×2 maximum, a few tiles at a time.
//
//   pack       the input of some rows of tiles: channels-last, whole vectors of channels, borders and all
//   transform  P tiles: V = Bᵀ d B                                            [place][block][P][W]
//   multiply   for each place and 2·W output channels: M = Σ_c V·U            [place][P][2·W], in registers
//   finish     y = Aᵀ M A, bias, ReLU, maximum, code
//
// place = row·(K+1) + column of a transformed tile, block = W input channels, W = lanes.

// out [P][V·W] = Σ_k a·u over `channels` of them (a multiple of W unless it ends the sum): a [channels / W][P][W],
// `block` from one to the next; u [channels][V·W]. Sums of over 128 products are taken in pieces.
template <int P, int V>
static void winograd_multiply(const float *a, std::int64_t block, const float *u, std::int64_t channels, float *out) {
  constexpr std::int64_t W = lanes<float>, piece = 128;
  for (std::int64_t begin = 0; begin < channels; begin += piece) {
    Lane sum[P][V] = {};
    for (std::int64_t k0 = begin; k0 < std::min(begin + piece, channels); k0 += W, a += block) {
      const std::int64_t some = std::min(W, channels - k0);
      const float *at = a;
      for (std::int64_t k = 0; k < some; ++k, ++at, u += V * W) {
        Lane filter[V];
        for (int v = 0; v < V; ++v) filter[v] = load(u + v * W);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p)
          for (int v = 0; v < V; ++v) sum[p][v] += filter[v] * at[p * W];
      }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
      for (int v = 0; v < V; ++v) {
        float *to = out + (p * V + v) * W;
        store(to, begin ? load(to) + sum[p][v] : sum[p][v]);
      }
  }
}

using WinogradMultiply = void (*)(const float *, std::int64_t, const float *, std::int64_t, float *);
constexpr int winograd_most_tiles = HW4FAST_VECTOR_BYTES == 64 ? 14 : 6;  // with V = 2, in 32 or 16 registers
template <int V> static WinogradMultiply winograd_choose(std::int64_t tiles) {
  static constexpr WinogradMultiply all[] = {
      winograd_multiply<1, V>,  winograd_multiply<2, V>,  winograd_multiply<3, V>,  winograd_multiply<4, V>,
      winograd_multiply<5, V>,  winograd_multiply<6, V>,
#if HW4FAST_VECTOR_BYTES == 64
      winograd_multiply<7, V>,  winograd_multiply<8, V>,  winograd_multiply<9, V>,  winograd_multiply<10, V>,
      winograd_multiply<11, V>, winograd_multiply<12, V>, winograd_multiply<13, V>, winograd_multiply<14, V>,
#endif
  };
  return all[tiles - 1];
}

// Filters [begin, end) of the sum: weight, with K·K numbers per filter, `lane` apart along the lanes and `term` along
// the sum → [block of 2·W lanes][place][terms][V·W], zeros behind the last of `count` lanes. V = 1 if that is enough.
template <int K> static void winograd_filters(const float *weight, std::int64_t count, std::int64_t lane,
                                              std::int64_t terms, std::int64_t term, std::int64_t begin,
                                              std::int64_t end, float *to) {
  constexpr std::int64_t W = lanes<float>, N = K + 1;
  for (std::int64_t first = 0; first < count; first += W) {
    const std::int64_t block = first / (2 * W) * 2 * W, width = count - block > W ? 2 * W : W;
    float *out = to + block * N * N * terms + first - block;
    for (std::int64_t k = begin; k < end; ++k) {
      alignas(64) float turned[K * K * W] = {};
      for (std::int64_t i = 0; i < std::min(W, count - first); ++i)
        for (std::int64_t t = 0; t < K * K; ++t) turned[t * W + i] = weight[(first + i) * lane + k * term + t];
      both_sides<K, N>([](const auto &g, auto &u) { filter_side(g, u); },
                       [&](int i, int j) { return load(turned + (i * K + j) * W); },
                       [&](int i, int j, Lane u) { store(out + ((i * N + j) * terms + k) * width, u); });
    }
  }
}

// Rows of tiles of one image as they lie packed: [row][column][pitch].
struct WinogradBand {
  std::int64_t down, across;        // tiles of an image
  std::int64_t columns, pitch;      // pixels per packed row, elements per pixel
  std::int64_t row, most, overlap;  // elements per packed row, rows of tiles in a band, input rows beyond two a tile

  explicit WinogradBand(const ConvShape &s, std::int64_t room) {
    down = (s.rows * s.side + 1) / 2;
    across = (s.cols * s.side + 1) / 2;
    overlap = s.kh - 1;
    columns = 2 * across + overlap;
    pitch = (s.c + lanes<float> - 1) / lanes<float> * lanes<float>;
    row = columns * pitch;
    most = std::clamp<std::int64_t>((room / row - overlap) / 2, 1, down);
  }
  std::int64_t size() const { return (2 * most + overlap) * row; }
};

// V of one tile for all channels: from its corner in the packed picture to [place][block][tiles][W].
template <int K>
static void winograd_input(const float *from, const WinogradBand &band, float *to, std::int64_t tiles) {
  constexpr std::int64_t W = lanes<float>, N = K + 1;
  const std::int64_t step = band.pitch * tiles;
  for (std::int64_t c = 0; c < band.pitch; c += W, from += W, to += tiles * W) {
    both_sides<N, N>([](const auto &d, auto &v) { input_side(d, v); },
                     [&](int i, int j) { return load(from + i * band.row + j * band.pitch); },
                     [&](int i, int j, Lane v) { store(to + (i * N + j) * step, v); });
  }
}

// The outputs of one tile for up to `channels` of them, from its products [place][tiles][width], `step` from place to
// place. without the pool: y [2][2], of which the tile's `rows` × `cols` exist.
template <int K, bool pool> static void winograd_finish(const float *products, std::int64_t step, const float *bias,
                                                        const ConvShape &s, std::int64_t rows, std::int64_t cols,
                                                        std::int64_t channels, float *out, std::uint8_t *code) {
  constexpr std::int64_t W = lanes<float>, N = K + 1;
  for (std::int64_t at = 0; at < channels; at += W) {
    const Lane shift = load(bias + at);
    Lane values[4], best;
    Int<float> which;
    both_sides<N, 2>([](const auto &m, auto &y) { output_side(m, y); },
                     [&](int i, int j) { return load(products + at + (i * N + j) * step); },
                     [&](int i, int j, Lane y) { values[i * 2 + j] = y + shift; });
    if (pool) {
      conv_strongest<float>(values, 4, s.relu, best, which);
      conv_keep<float>(best, which, channels - at, out + at, code ? code + at : nullptr);
      continue;
    }
    for (int k = 0; k < 4; ++k) {
      if (k / 2 >= rows || k % 2 >= cols) continue;
      const std::int64_t place = (k / 2 * s.cols + k % 2) * s.o + at;
      conv_strongest<float>(values + k, 1, s.relu, best, which);
      conv_keep<float>(best, which, channels - at, out + place, code ? code + place : nullptr);
    }
  }
}

// Rows of tiles [begin, end) of the whole batch, `down` per image. filters as packed above, bias padded by zeros.
template <int K> static void winograd_rows(const Strided<const float> &x, const float *filters, const float *bias,
                                           const ConvShape &s, float *out, std::uint8_t *code, std::int64_t begin,
                                           std::int64_t end) {
  constexpr std::int64_t W = lanes<float>, N = K + 1, places = N * N, most = winograd_most_tiles;
  const WinogradBand band(s, 16384);
  const Scratch<float> packed(band.size()), inputs(places * band.pitch * most), products(places * most * 2 * W);
  const auto finish = s.pool ? winograd_finish<K, true> : winograd_finish<K, false>;
  const std::int64_t scale = 2 / s.side;  // outputs per tile, down and across
  while (begin < end) {
    const std::int64_t image = begin / band.down, first_row = begin % band.down;
    const std::int64_t count = std::min({band.most, end - begin, band.down - first_row}), all = count * band.across;
    conv_pack_pixels(x, s, image, 2 * first_row - s.ph, 2 * count + band.overlap, band.columns, band.pitch,
                     packed.get());
    const std::int64_t blocks = (all + most - 1) / most;
    for (std::int64_t i = 0; i < blocks; ++i) {
      const std::int64_t first = all * i / blocks, tiles = all * (i + 1) / blocks - first;
      std::int64_t row[most], column[most];  // a tile's first output
      for (std::int64_t t = 0; t < tiles; ++t) {
        const std::int64_t down = (first + t) / band.across, across = (first + t) % band.across;
        row[t] = (first_row + down) * scale;
        column[t] = across * scale;
        winograd_input<K>(packed.get() + (down * band.columns + across) * 2 * band.pitch, band, inputs.get() + t * W,
                          tiles);
      }
      for (std::int64_t o = 0; o < s.o; o += 2 * W) {
        const std::int64_t width = s.o - o > W ? 2 * W : W;
        const auto multiply = width > W ? winograd_choose<2>(tiles) : winograd_choose<1>(tiles);
        const float *u = filters + o * places * s.c;
        for (std::int64_t place = 0; place < places; ++place, u += s.c * width)
          multiply(inputs.get() + place * band.pitch * tiles, tiles * W, u, s.c,
                   products.get() + place * tiles * width);
        for (std::int64_t t = 0; t < tiles; ++t) {
          const std::int64_t at = ((image * s.rows + row[t]) * s.cols + column[t]) * s.o + o;
          finish(products.get() + t * width, tiles * width, bias + o, s, s.rows - row[t], s.cols - column[t],
                 std::min(width, s.o - o), out + at, code ? code + at : nullptr);
        }
      }
    }
    begin += count;
  }
}
