// Copies past the caches, for one instruction set: whole vectors, between the boundaries of lines.

#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
void stream_copy(void* dst, const void* src, int64_t bytes) {
  char* to = static_cast<char*>(dst);
  const char* from = static_cast<const char*>(src);
  const int64_t skipped = -reinterpret_cast<intptr_t>(to) & 31;
  const int64_t head = skipped < bytes ? skipped : bytes;
  __builtin_memcpy(to, from, head);
  int64_t i = head;
  for (; i + 32 <= bytes; i += 32) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), v);
  }
  __builtin_memcpy(to + i, from + i, bytes - i);
}
constexpr auto kStreamCopy = stream_copy;
#else
constexpr void (*kStreamCopy)(void*, const void*, int64_t) = nullptr;
#endif
