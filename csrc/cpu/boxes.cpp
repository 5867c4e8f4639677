// mix_boxes and mix_boxes_packed on the CPU: the boxes that a mixed batch shows, in one pass.
#include "../common/boxes.h"

#include <tuple>
#include <vector>

#include "binding.h"
#include "dispatch.h"

namespace fused_mixup {
namespace {

constexpr int64_t kGrainBoxes = 8192;  // some 30 µs

// What both ops take after the boxes and their counts.
class BoxPlan {
 public:
  BoxPlan(const Tensor& like, int64_t batch, int64_t pairing, const OptionalTensor& partner,
          const Tensor& blend, const Tensor& box, double min_visible)
      : checked_(check_box_plan(like, batch, pairing, partner, blend, box)),
        partners_(pairing, partner, batch),
        near_blend_(as_rows(blend)),
        near_box_(as_rows(box)),
        blend_(data<double>(near_blend_)),
        box_(box.size(1) == 4 ? data<int32_t>(near_box_) : nullptr),
        blend_stride_(near_blend_.stride(0)),
        box_stride_(near_box_.stride(0)),
        min_visible_(min_visible) {}

  template <typename A>
  BoxMix<A> of_sample(int64_t i, int64_t partner) const {
    return BoxMix<A>(blend_ + i * blend_stride_, box_ ? box_ + i * box_stride_ : nullptr,
                     partner == i, min_visible_);
  }
  auto partner_at() const { return partners_.lookup(); }

 private:
  bool checked_;
  Partners partners_;
  Tensor near_blend_, near_box_;
  const double* blend_;
  const int32_t* box_;
  int64_t blend_stride_, box_stride_;
  double min_visible_;
};

// Where the boxes of a sample that stay are written, one after the other.
template <typename A, typename S>
struct BoxWriter {
  Corners<A>* boxes;
  S* source;
  float* weight;
  int64_t count = 0;

  void write(const ShownBox<A>& shown, int64_t from) {
    // Written whether it stays or not, as a branch on it is guessed wrong too often: there is room
    // for every box.
    boxes[count] = shown.at;
    source[count] = S(from);
    weight[count] = shown.weight;
    count += shown.stays;
  }
};

// Writes the boxes of one sample: `own` first, then `other`.
template <typename A, typename S>
void write_sample(BoxWriter<A, S>& to, const BoxMix<A>& mix, const Corners<A>* own, int64_t n_own,
                  int64_t own_source, const Corners<A>* other, int64_t n_other,
                  int64_t other_source) {
  for (int64_t k = 0; k < n_own; ++k) to.write(mix.own_box(own[k]), own_source + k);
  if (mix.with_itself) return;
  for (int64_t k = 0; k < n_other; ++k) to.write(mix.partner_box(other[k]), other_source + k);
}

// f(type) with float or double, the dtypes in which boxes are computed.
template <typename F>
void dispatch_boxes(const Tensor& boxes, const F& f) {
  boxes.element_size() == 8 ? f(TypeTag<double>()) : f(TypeTag<float>());
}

class Counts {
 public:
  Counts(const OptionalTensor& count, int64_t most) : most_(most) {
    if (!count) return;
    near_ = as_contiguous(*count);
    wide_ = near_->element_size() == 8;
  }
  int64_t at(int64_t i) const {
    if (!near_) return most_;
    const int64_t n = wide_ ? data<int64_t>(*near_)[i] : data<int32_t>(*near_)[i];
    return n < 0 ? 0 : n > most_ ? most_ : n;
  }

 private:
  int64_t most_;
  OptionalTensor near_;
  bool wide_ = false;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> mix_boxes(Tensor boxes,            // [B, N, 4]
                                                     OptionalTensor count,    // [B]
                                                     OptionalTensor partner,  // int32 [B]
                                                     Tensor blend,            // float64 [B, 2]
                                                     Tensor box,              // int32 [B, 0 or 4]
                                                     int64_t pairing, double min_visible) {
  check_boxes(boxes, 3);
  const int64_t batch = boxes.size(0), n = boxes.size(1), room = 2 * n;
  check_count(count, boxes);
  const BoxPlan plan(boxes, batch, pairing, partner, blend, box, min_visible);
  Tensor out = new_tensor(std::array<int64_t, 3>{batch, room, 4}, boxes.scalar_type());
  Tensor source = new_tensor(std::array<int64_t, 2>{batch, room}, ScalarType::Int);
  Tensor weight = new_tensor(std::array<int64_t, 2>{batch, room}, ScalarType::Float);
  Tensor counts = new_tensor(std::array<int64_t, 1>{batch}, ScalarType::Int);
  const Tensor dense = as_contiguous(boxes);
  const Counts given(count, n);
  const auto partner_at = plan.partner_at();
  dispatch_boxes(boxes, [&](auto tag) {
    using A = typename decltype(tag)::type;
    const auto* in = data<const Corners<A>>(dense);
    parallel_for(0, batch, 1 + kGrainBoxes / (room + 1), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t p = partner_at(i);
        BoxWriter<A, int32_t> to{data<Corners<A>>(out) + i * room, data<int32_t>(source) + i * room,
                                 data<float>(weight) + i * room};
        write_sample(to, plan.of_sample<A>(i, p), in + i * n, given.at(i), 0, in + p * n,
                     given.at(p), n);
        data<int32_t>(counts)[i] = int32_t(to.count);
        for (int64_t k = to.count; k < room; ++k) {
          to.boxes[k] = {};
          to.source[k] = -1;
          to.weight[k] = 0.0f;
        }
      }
    });
  });
  return {out, source, weight, counts};
}

// The first rows of t, contiguous, as a tensor on the same memory.
Tensor first_rows(const Tensor& t, int64_t rows) {
  const int64_t sizes[2] = {rows, t.dim() > 1 ? t.size(1) : 1};
  const int64_t strides[2] = {sizes[1], 1};
  AtenTensorHandle handle = nullptr;
  FUSED_MIXUP_CHECK_CALL(
      aoti_torch__reinterpret_tensor(t.get(), t.dim(), sizes, strides, 0, &handle));
  return Tensor(handle);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> mix_boxes_packed(Tensor boxes,                 // [T, 4]
                                                            std::vector<int64_t> counts,  // B
                                                            OptionalTensor partner,  // int32 [B]
                                                            Tensor blend,  // float64 [B, 2]
                                                            Tensor box,    // int32 [B, 0 or 4]
                                                            int64_t pairing, double min_visible) {
  check_boxes(boxes, 2);
  const int64_t batch = int64_t(counts.size());
  const BoxPlan plan(boxes, batch, pairing, partner, blend, box, min_visible);
  const auto partner_at = plan.partner_at();
  std::vector<int64_t> first(batch + 1, 0);
  for (int64_t i = 0; i < batch; ++i) {
    expect(counts[i] >= 0, "counts", "0 or more");
    expect(counts[i] <= boxes.size(0) - first[i], "counts", "the number of boxes as their sum");
    first[i + 1] = first[i] + counts[i];
  }
  expect(first[batch] == boxes.size(0), "counts", "the number of boxes as their sum");
  int64_t room = first[batch];
  std::vector<int64_t> partners(batch);  // read once, as another thread may write them
  for (int64_t i = 0; i < batch; ++i) room += counts[partners[i] = partner_at(i)];
  Tensor out = new_tensor(std::array<int64_t, 2>{room, 4}, boxes.scalar_type());
  Tensor source = new_tensor(std::array<int64_t, 1>{room}, ScalarType::Long);
  Tensor weight = new_tensor(std::array<int64_t, 1>{room}, ScalarType::Float);
  Tensor shown = new_tensor(std::array<int64_t, 1>{batch}, ScalarType::Int);
  const Tensor dense = as_contiguous(boxes);
  int64_t total = 0;
  dispatch_boxes(boxes, [&](auto tag) {
    using A = typename decltype(tag)::type;
    const auto* in = data<const Corners<A>>(dense);
    BoxWriter<A, int64_t> to{data<Corners<A>>(out), data<int64_t>(source), data<float>(weight)};
    for (int64_t i = 0; i < batch; ++i) {
      const int64_t p = partners[i];
      write_sample(to, plan.of_sample<A>(i, p), in + first[i], counts[i], first[i], in + first[p],
                   counts[p], first[p]);
      data<int32_t>(shown)[i] = int32_t(to.count - total);
      total = to.count;
    }
  });
  return {first_rows(out, total), first_rows(source, total), first_rows(weight, total), shown};
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("mix_boxes", TORCH_BOX(&fused_mixup::mix_boxes));
  m.impl("mix_boxes_packed", TORCH_BOX(&fused_mixup::mix_boxes_packed));
}
