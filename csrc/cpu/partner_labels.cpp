// partner_labels on the CPU: the labels of each sample's partner, moved by all threads.
#include <algorithm>
#include <cstring>

#include "binding.h"

namespace fused_mixup {
namespace {

Tensor partner_labels(Tensor labels,           // [B, …]
                      OptionalTensor partner,  // int32 [B]
                      int64_t pairing) {
  expect(labels.dim() >= 1, "labels", "shape [B, …]");
  check_pairing(pairing, partner, labels.size(0), labels);
  const Tensor dense = as_contiguous(labels);
  Tensor out = new_result_like(dense);
  if (out.numel() == 0) return out;
  constexpr int64_t kPiece = 1 << 15;  // bytes: threads share the rows of a few large samples
  const int64_t batch = dense.size(0);
  const int64_t row = dense.numel() / batch * int64_t(dense.element_size());
  const int64_t pieces = (row + kPiece - 1) / kPiece;
  const Partners partners(pairing, partner, batch);
  const auto partner_at = partners.lookup();
  const char* const from = data<char>(dense);
  char* const to = data<char>(out);
  torch::stable::parallel_for(0, batch * pieces, 1 + kPiece / row, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t i = k / pieces, skipped = k % pieces * kPiece;
      const int64_t n = std::min(kPiece, row - skipped);
      std::memcpy(to + i * row + skipped, from + partner_at(i) * row + skipped, size_t(n));
    }
  });
  return out;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CPU, m) {
  m.impl("partner_labels", TORCH_BOX(&fused_mixup::partner_labels));
}
