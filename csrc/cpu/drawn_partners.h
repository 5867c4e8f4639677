// The partners of a plan that is drawn on the CPU.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "../common/draw.h"
#include "binding.h"

namespace fused_mixup {

struct Classes {
  std::vector<int32_t> leader;  // [B], the first sample of each sample's class
  int64_t largest;              // size of the largest class
};

inline Classes classes_of(const int64_t* labels, int64_t batch) {
  std::vector<int32_t> order(batch);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return labels[a] != labels[b] ? labels[a] < labels[b] : a < b;
  });
  Classes classes = {std::vector<int32_t>(batch), 0};
  int64_t start = 0;
  for (int64_t p = 0; p < batch; ++p) {
    if (labels[order[p]] != labels[order[start]]) start = p;
    classes.leader[order[p]] = order[start];
    classes.largest = std::max(classes.largest, p - start + 1);
  }
  return classes;
}

// Draws partners by a sort: shuffle, derangement and across classes.
inline void match(const Stream& stream, const int64_t* labels, int64_t batch, int per, int pairing,
                  int32_t* partner) {
  std::vector<int64_t> keys(batch);
  int64_t shift = 1;
  if (pairing == kCrossClass) {
    const Classes classes = classes_of(labels, batch);
    for (int64_t i = 0; i < batch; ++i) {
      keys[i] = class_key(stream, uint32_t(i), uint32_t(classes.leader[i]));
    }
    shift = class_shift(stream, classes.largest, batch);
  } else {
    for (int64_t i = 0; i < batch; ++i) keys[i] = order_key(stream, uint32_t(i));
  }
  std::sort(keys.begin(), keys.end());
  const auto sample_at = [&](int64_t p) { return int32_t(keys[p] & (kMaxDrawn - 1)); };
  if (pairing == kShuffle && per != kPerPair) {
    for (int64_t p = 0; p < batch; ++p) partner[p] = sample_at(p);
    return;
  }
  for (int64_t p = 0; p < batch; ++p) {
    partner[sample_at(p)] = sample_at(matched_place(p, batch, per, shift));
  }
}

// Fills partner [B] by any pairing. Of samples of a larger batch they are those given.
inline void draw_partners(const Stream& stream, const OptionalTensor& labels,
                          const OptionalTensor& given, bool of_larger, int64_t batch, int per,
                          int64_t pairing, int32_t* partner) {
  if (of_larger) {
    const OptionalTensor adjacent = as_contiguous(given);
    std::copy_n(data<int32_t>(*adjacent), batch, partner);
    return;
  }
  if (pairing >= kShuffle) {
    const OptionalTensor adjacent = as_contiguous(labels);
    const int64_t* classes = adjacent ? data<int64_t>(*adjacent) : nullptr;
    match(stream, classes, batch, per, int(pairing), partner);
    return;
  }
  const Partners partners(pairing, given, batch);
  const auto partner_at = partners.lookup();
  for (int64_t i = 0; i < batch; ++i) partner[i] = int32_t(partner_at(i));
}

}  // namespace fused_mixup
