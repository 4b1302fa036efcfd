// What jpeg on the CPU and on a GPU share: its constants, and the tables of a quality.
#pragma once

#include <algorithm>
#include <cstdint>

namespace hw4fast {

constexpr std::int64_t jpeg_side = 8, jpeg_size = jpeg_side * jpeg_side;  // of a block

// Cosines of the transform times √2, in units of 2^−13, as libjpeg names and rounds them.
constexpr int jpeg_bits = 13, jpeg_pass_bits = 2;  // of a fraction: of cosines, of values between two passes
constexpr std::int32_t jpeg_0_298 = 2446, jpeg_0_390 = 3196, jpeg_0_541 = 4433, jpeg_0_765 = 6270, jpeg_0_899 = 7373;
constexpr std::int32_t jpeg_1_175 = 9633, jpeg_1_501 = 12299, jpeg_1_847 = 15137, jpeg_1_961 = 16069;
constexpr std::int32_t jpeg_2_053 = 16819, jpeg_2_562 = 20995, jpeg_3_072 = 25172;

// Row by row, as the coefficients lie: what quantises and what multiplies again.
struct JpegTable {
  std::int16_t step[jpeg_size], correction[jpeg_size];
  std::uint16_t reciprocal[jpeg_size], scale[jpeg_size];
};

// The standard's example tables (ITU-T T.81, annex K), at quality 50.
inline constexpr std::uint8_t jpeg_steps[2][jpeg_size] = {
    {16, 11, 10, 16, 24,  40,  51,  61,  12, 12, 14, 19, 26,  58,  60,  55,   //
     14, 13, 16, 24, 40,  57,  69,  56,  14, 17, 22, 29, 51,  87,  80,  62,   //
     18, 22, 37, 56, 68,  109, 103, 77,  24, 35, 55, 64, 81,  104, 113, 92,   //
     49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99},  //
    {17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,          //
     24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,          //
     99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,          //
     99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99}};

// The steps at a quality of 1 … 100, and a multiplication that divides by 8 steps and rounds to the nearest:
// coefficients are 8 times too large until then. (A. Fog's: exact for 16 bits.)
inline JpegTable jpeg_table(const std::uint8_t (&steps)[jpeg_size], int quality) {
  const int percent = quality < 50 ? 5000 / quality : 200 - 2 * quality;
  JpegTable table{};
  for (std::int64_t i = 0; i < jpeg_size; ++i) {
    const int step = std::clamp((steps[i] * percent + 50) / 100, 1, 255);
    const std::uint32_t divisor = 8u * static_cast<std::uint32_t>(step);
    int bits = 16;
    while (divisor >> (bits - 15)) ++bits;  // 16 + log2 divisor
    std::uint32_t reciprocal = (1u << bits) / divisor, correction = divisor / 2;
    const std::uint32_t rest = (1u << bits) % divisor;
    if (rest == 0) {
      reciprocal /= 2;
      --bits;
    } else if (rest <= divisor / 2) {
      ++correction;
    } else {
      ++reciprocal;
    }
    table.step[i] = static_cast<std::int16_t>(step);
    table.correction[i] = static_cast<std::int16_t>(correction);
    table.reciprocal[i] = static_cast<std::uint16_t>(reciprocal);
    table.scale[i] = static_cast<std::uint16_t>(1u << (32 - bits));
  }
  return table;
}

}  // namespace hw4fast
