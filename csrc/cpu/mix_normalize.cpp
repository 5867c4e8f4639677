// mix_normalize on the CPU: bytes (or floats) of images become the model's input in one pass.
#include "mix_normalize.h"

#include "../common/normalize_arguments.h"
#include "dispatch.h"
#include "mix_binding.h"
#include "mix_samples.h"

namespace fused_mixup {
namespace {

constexpr int64_t kElementsAtOnce = 4096;  // of an image: what is arranged stays in the first cache

template <typename T>
std::vector<Image<T>> images_of(const std::vector<Tensor>& tensors, int64_t batch) {
  std::vector<Image<T>> images(batch);
  const bool whole = is_whole_batch(tensors);
  for (int64_t i = 0; i < batch; ++i) {
    const Tensor& t = tensors[whole ? 0 : i];
    const int64_t* stride = t.strides().data() + (whole ? 1 : 0);
    images[i] = {data<T>(t) + (whole ? i * t.stride(0) : 0), stride[0], stride[1], stride[2]};
  }
  return images;
}

struct alignas(64) Line {
  float value[16];
};

// Constants of each channel, spread for the kernels.
struct ConstantValues {
  // mean, std and 1/std of each plane, a period each, on lines of the cache: vectors that cross two
  // lines take twice as long.
  std::vector<Line> values;
  std::vector<ChannelConstants> planes;
};

template <typename S, typename U>
ConstantValues constants_of(const std::vector<double>& means, const std::vector<double>& stds,
                            const PixelOrder& order) {
  const int64_t each = order.interleaved(), count = order.planes(), most = max_period(each);
  std::vector<float> channel(3 * each);
  ConstantValues out{std::vector<Line>(3 * most * count / 16),
                     std::vector<ChannelConstants>(count)};
  for (int64_t plane = 0; plane < count; ++plane) {
    float* at = out.values[0].value + 3 * most * plane;
    ChannelConstants& c = out.planes[plane];
    c = {at, at + most, at + 2 * most, 0, std::is_same_v<S, uint8_t>};
    for (int64_t k = 0; k < each; ++k) {
      const float mean = float(means[plane + k]), std = float(stds[plane + k]);
      channel[k] = mean;
      channel[each + k] = std;
      channel[2 * each + k] = 1.0f / std;
      if (c.exact_inverse) {
        c.exact_inverse = kernels().pixels.inverse_is_exact(mean, std, 1.0f / std);
      }
    }
    for (int64_t k = 0; k < 3; ++k) {
      c.period = normalize_kernels<S, U>().spread(at + k * most, channel.data() + k * each, each);
    }
  }
  return out;
}

// The order in which rows are written, and whether the result lies so.
struct Written {
  PixelOrder order;
  bool direct;
  int64_t at_once;
};

Written written_order(const Tensor& out) {
  const int64_t channels = out.size(1), height = out.size(2), width = out.size(3);
  const int64_t y = out.stride(2), x = out.stride(3);
  const bool last = channels > 1 && out.stride(1) == 1 && x == channels;
  Written w{{channels, height, width, !last}, last || x == 1 || width == 1, 0};
  const bool adjacent = y == w.order.width * w.order.interleaved() || !w.direct;
  w.at_once = adjacent ? std::max<int64_t>(kElementsAtOnce / w.order.row(), 1) : 1;
  w.at_once = std::min(w.at_once, height);
  return w;
}

// Rows that blend with each other, and the others. A pair with a box is mixed row by row, and so is
// one whose results pass through scratch memory, of which there is one row's.
SampleOrder normalize_order(const std::vector<PlanRow>& rows, bool direct) {
  SampleOrder order = order_of<uint8_t>(rows, int64_t(rows.size()));
  const auto alone = [&](int64_t i) {
    return !direct || !rows[i].box.empty || !rows[rows[i].partner].box.empty;
  };
  for (int64_t i : order.pairs) {
    if (alone(i)) order.rest.insert(order.rest.end(), {i, rows[i].partner});
  }
  order.pairs.erase(std::remove_if(order.pairs.begin(), order.pairs.end(), alone),
                    order.pairs.end());
  return order;
}

template <typename T, typename U>
void run(const NormalizeWork<T, U>& work, const SampleOrder& order) {
  const int64_t steps = work.steps(), bytes = work.at_once * work.order.row() * 4;
  // f(normalizer, row, step) for each row.
  const auto each = [&](const std::vector<int64_t>& rows, auto f) {
    const int64_t n = int64_t(rows.size()) * steps;
    parallel_for(0, n, 1 + kGrainBytes / bytes, [&](int64_t begin, int64_t end) {
      Normalizer<T, U> normalizer(work);
      for (int64_t k = begin; k < end; ++k) f(normalizer, rows[k / steps], k % steps);
    });
  };
  if (!order.pairs.empty()) {
    each(order.pairs, [](auto& n, int64_t i, int64_t step) { n.mix_pair(i, step); });
  }
  if (!order.rest.empty()) {
    each(order.rest, [](auto& n, int64_t i, int64_t step) { n.mix_row(i, step); });
  }
}

// The boxes are those of a box of two dims, from one of D dims, the last ones.
std::vector<PlanRow> image_rows(std::vector<PlanRow> rows, int spatial, int64_t height) {
  for (PlanRow& row : rows) {
    if (spatial == 2) break;
    row.box.start[1] = row.box.start[0];
    row.box.stop[1] = row.box.stop[0];
    row.box.start[0] = 0;
    row.box.stop[0] = height;
  }
  return rows;
}

Erased erased_of(const OptionalTensor& box, const OptionalTensor& value,
                 const OptionalTensor& noise) {
  Erased e;
  if (!box) return e;
  e.boxes = box->size(1);
  e.box = data<int32_t>(*box);
  if (noise) {
    e.noise = data<int64_t>(*noise);
    return e;
  }
  e.value = data<float>(*value);
  e.image = value->size(0) > 1 ? value->size(1) * value->size(2) : 0;
  e.box_step = value->size(1) > 1 ? value->size(2) : 0;
  e.channel = value->size(2) > 1 ? 1 : 0;
  return e;
}

void mix_normalize(std::vector<Tensor> images,  // one [B, C, H, W], or B of [C, H, W]
                   OptionalTensor partner,      // int32 [B]
                   Tensor blend,                // float64 [B, 2]
                   Tensor box,                  // int32 [B, 2·D]
                   int64_t pairing,
                   std::vector<double> means,   // [C]
                   std::vector<double> stds,    // [C]
                   OptionalTensor flip,         // bool [B]
                   OptionalTensor erase_box,    // int32 [B, N, 4]
                   OptionalTensor erase_value,  // float32 [B or 1, N or 1, C or 1]
                   OptionalTensor erase_noise,  // int64 [B]
                   bool first,
                   Tensor out) {  // [B, C, H, W]
  check_mix_normalize(images, pairing, partner, blend, box, means, stds, flip, erase_box,
                      erase_value, erase_noise, out);
  if (out.numel() == 0) return;
  const int64_t batch = out.size(0);
  const auto rows =
      image_rows(rows_of(out, batch, pairing, partner, &blend, box), spatial_of(box), out.size(2));
  if (out.is_contiguous() || out.stride(1) == 1) on_large_pages(out);
  flip = as_contiguous(flip);
  erase_box = as_contiguous(erase_box);
  erase_value = as_contiguous(erase_value);
  erase_noise = as_contiguous(erase_noise);
  const Written written = written_order(out);
  const SampleOrder order = normalize_order(rows, written.direct);
  dispatch_normalized(out.scalar_type(), [&](auto out_tag) {
    using U = typename decltype(out_tag)::type;
    const auto run_on = [&](auto tag) {
      using T = typename decltype(tag)::type;
      using S = typename Arranger<T>::S;
      const ConstantValues constants = constants_of<S, U>(means, stds, written.order);
      NormalizeWork<T, U> work{
          images_of<T>(images, batch),
          flip ? data<uint8_t>(*flip) : nullptr,
          rows,
          constants.planes,
          erased_of(erase_box, erase_value, erase_noise),
          {data<U>(out), out.stride(0), out.stride(1), out.stride(2), out.stride(3)},
          written.order,
          written.direct,
          first,
          written.at_once};
      run(work, order);
    };
    const ScalarType stored = images[0].scalar_type();
    stored == ScalarType::Byte ? run_on(TypeTag<uint8_t>()) : dispatch_normalized(stored, run_on);
  });
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("mix_normalize", TORCH_BOX(&fused_mixup::mix_normalize));
}
