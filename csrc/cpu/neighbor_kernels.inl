// Weights of draw_neighbors, a vector of labels at a time. Each operation is that of
// csrc/common/neighbors.h and random.h on every lane, in the same order, so that bits agree.

inline VD squared_distance(const NeighborRow& row, int64_t j) {
  VD sum = {};
  for (int64_t d = 0; d < row.dims; ++d) {
    const VD gap = splat(row.label[d]) - load(row.pool + d * row.stride + j);
    sum = sum + gap * gap;
  }
  return sum;
}

inline bool any_lane(VL mask) {
#if defined(FUSED_MIXUP_AVX512)
  return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(FUSED_MIXUP_AVX2)
  return _mm256_movemask_pd((__m256d)mask) != 0;
#else
  uint64_t found = 0;
  for (int i = 0; i < kLanes<double>; ++i) found |= mask[i];
  return found != 0;
#endif
}

inline VD vector_horner(VD, double c) { return splat(c); }
template <typename... Rest>
inline VD vector_horner(VD x, double c, Rest... rest) {
  return vector_horner(x, rest...) * x + c;
}

// exp_negative(x) · 2^32 as a whole number, for x in [0, kReach]; garbage elsewhere.
inline VL scaled_exp(VD x) {
  constexpr double kWhole = 0x1.8p52;  // adding it rounds to a whole number
  const VD y = -x;
  const VD t = y * 1.44269504088896338700e+00 - 0.5;
  VD k = (t + kWhole) - kWhole;
  k = k + (VD)((VL)(k < t) & (VL)splat(1.0));  // towards zero, as t is negative
  const VD high = y - k * kLn2High, low = k * kLn2Low;
  const VD r = high - low;
  const VD s = r * r;
  const VD c = r - s * vector_horner(s, 1.66666666666666019037e-01, -2.77777777770155933842e-03,
                                     6.61375632143793436117e-05, -1.65339022054652515390e-06,
                                     4.13813679705723846039e-08);
  const VD e = splat(1.0) - ((low - r * c / (splat(2.0) - c)) - high);
  const VD scale = (VD)(((VL)(k + kWhole) + 1023) << 52);
  return (VL)(e * scale * 0x1p32 + 0x1p52) - (VL)splat(0x1p52);
}

// The weights of a vector of labels from j on.
template <bool kIsTophat>
inline VL weights_at(const NeighborRow& row, int64_t j) {
  const VD distance = squared_distance(row, j), nearest = splat(row.nearest);
  if constexpr (kIsTophat) {
    return ((VL)(distance < splat(row.law.radius.value)) | (VL)(distance == nearest)) & 1;
  }
  const VD x = (distance - nearest) * splat(row.law.scale.value);
  const VL near = (VL)(x <= splat(kReach));
  // Most labels are out of reach where the bandwidth is a small part of their range.
  if (!any_lane(near)) return VL{};
  return scaled_exp(x) & near;
}

template <bool kIsTophat>
uint64_t sum_weights(const NeighborRow& row, int64_t begin, int64_t end) {
  VL sum = {};
  for (int64_t j = begin; j < end; j += kLanes<double>) sum += weights_at<kIsTophat>(row, j);
  uint64_t total = 0;
  for (int i = 0; i < kLanes<double>; ++i) total += sum[i];
  return total;
}

inline uint64_t neighbor_sum(const NeighborRow& row, int64_t begin, int64_t end) {
  return row.law.kernel == kTophat ? sum_weights<true>(row, begin, end)
                                   : sum_weights<false>(row, begin, end);
}

inline void neighbor_weights(const NeighborRow& row, int64_t begin, int64_t end, uint64_t* weight) {
  for (int64_t j = begin; j < end; j += kLanes<double>) {
    const VL w = row.law.kernel == kTophat ? weights_at<true>(row, j) : weights_at<false>(row, j);
    __builtin_memcpy(weight + (j - begin), &w, sizeof(w));
  }
}

inline double neighbor_nearest(const NeighborRow& row) {
  VD least = splat(__builtin_inf());
  for (int64_t j = 0; j < row.stride; j += kLanes<double>) {
    const VD distance = squared_distance(row, j);
    const VL nearer = (VL)(distance < least);  // false for NaN
    least = (VD)(((VL)distance & nearer) | ((VL)least & ~nearer));
  }
  double found = least[0];
  for (int i = 1; i < kLanes<double>; ++i) found = least[i] < found ? least[i] : found;
  return found;
}

inline constexpr NeighborKernels neighbor_table() {
  return {neighbor_nearest, neighbor_sum, neighbor_weights};
}
