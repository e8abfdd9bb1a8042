// CUDA's device language on the CPU. The threads of a block are fibers of one thread of the machine, which
// switch at barriers and at the exchanges of a warp; blocks run one after the other. A thread runs up to its
// next barrier before others have begun, and the order of the threads changes from block to block, so a
// missing barrier becomes visible.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
// One block runs at a time, so a static variable serves as the block's shared memory. It has its own section
// so that it can be poisoned before each block.
#define __shared__ __attribute__((section("emulated_shared"))) static

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct int2 { int x, y; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct __nv_bfloat16 { uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) return {uint16_t(0x7fff)};
    bits += 0x7fff + ((bits >> 16) & 1);
    return {uint16_t(bits >> 16)};
}

namespace emulated {
extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;
extern unsigned char *dynamic_shared;
// Runs the other threads until all that have not ended are at a barrier.
void barrier();
// Runs the other blocks of a cooperative launch until the flag is not zero.
void wait_for(const unsigned *flag);
// Exchanges a value with the other lanes of the warp: all[lane] is the value of each, and present says which
// lanes took part.
void exchange(unsigned mask, uint64_t mine, uint64_t all[32], unsigned *present);
void add_kernel(const char *name, std::vector<size_t> arguments, unsigned threads, std::function<void(void **)> run);

template <typename... A, size_t... I>
std::function<void(void **)> unpack(void (*kernel)(A...), std::index_sequence<I...>) {
    return [kernel](void **arguments) { kernel(*reinterpret_cast<std::remove_const_t<A> *>(arguments[I])...); };
}
struct Registration {
    template <typename... A> Registration(const char *name, unsigned threads, void (*kernel)(A...)) {
        add_kernel(name, {sizeof(A)...}, threads, unpack(kernel, std::index_sequence_for<A...>()));
    }
};
template <typename T> uint64_t pack(T x) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}
template <typename T> T take(uint64_t bits) {
    T x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
template <typename T> T shuffle(unsigned mask, T mine, int from) {
    uint64_t all[32];
    unsigned present;
    exchange(mask, pack(mine), all, &present);
    if (from < 0 || from > 31 || !(present >> from & 1)) return mine;
    return take<T>(all[from]);
}
inline int lane() {
    unsigned linear = thread_index.x + block_size.x * (thread_index.y + block_size.y * thread_index.z);
    return int(linear % 32);
}
} // namespace emulated

#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(emulated::dynamic_shared)
#define KERNEL(threads, name)                           \
    static constexpr unsigned threads_of_##name = threads; \
    extern "C" void name
#define RESIDENT_KERNEL(threads, blocks, name) KERNEL(threads, name)
#define HOST_KERNEL(name) static emulated::Registration registration_of_##name(#name, threads_of_##name, name);
#define threadIdx emulated::thread_index
#define blockIdx emulated::block_index
#define blockDim emulated::block_size
#define gridDim emulated::grid_size
#define warpSize 32

inline void __syncthreads() { emulated::barrier(); }
inline void __threadfence() {}
inline void __syncwarp(unsigned mask = ~0u) { emulated::shuffle(mask, 0, 0); }
template <typename T> T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
    return emulated::shuffle(mask, x, emulated::lane() / width * width + from % width);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T x, int distance, int = 32) {
    return emulated::shuffle(mask, x, emulated::lane() ^ distance);
}
template <typename T> T __shfl_down_sync(unsigned mask, T x, int distance, int width = 32) {
    int lane = emulated::lane(), from = lane + distance;
    return emulated::shuffle(mask, x, from / width == lane / width ? from : lane);
}
template <typename T> T __shfl_up_sync(unsigned mask, T x, int distance, int width = 32) {
    int lane = emulated::lane(), from = lane - distance;
    return emulated::shuffle(mask, x, from >= 0 && from / width == lane / width ? from : lane);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
    uint64_t all[32];
    unsigned present, votes = 0;
    emulated::exchange(mask, vote != 0, all, &present);
    for (int lane = 0; lane < 32; ++lane)
        if ((present >> lane & 1) && all[lane]) votes |= 1u << lane;
    return votes;
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }
inline unsigned __activemask() { return ~0u; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
// Fibers switch at barriers alone, so all that happens between two barriers is atomic.
template <typename T> T atomicAdd(T *p, T x) { return std::exchange(*p, T(*p + x)); }
template <typename T> T atomicExch(T *p, T x) { return std::exchange(*p, x); }
template <typename T> T atomicMax(T *p, T x) { return std::exchange(*p, std::max(*p, x)); }
template <typename T> T atomicMin(T *p, T x) { return std::exchange(*p, std::min(*p, x)); }
template <typename T> T atomicOr(T *p, T x) { return std::exchange(*p, T(*p | x)); }
template <typename T> T atomicCAS(T *p, T expected, T x) { return std::exchange(*p, *p == expected ? x : *p); }
template <typename T> T __ldg(const T *p) { return *p; }
inline unsigned __float_as_uint(float x) { return emulated::take<unsigned>(emulated::pack(x)); }
inline int __float_as_int(float x) { return emulated::take<int>(emulated::pack(x)); }
inline float __uint_as_float(unsigned bits) { return emulated::take<float>(bits); }
inline float __int_as_float(int bits) { return emulated::take<float>(emulated::pack(bits)); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline int __float2int_rn(float x) { return int(rintf(x)); }
inline int __double2int_rn(double x) { return int(rint(x)); }
// The build turns off contraction into fused operations, so plain arithmetic rounds after each step.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
using std::max;
using std::min;
